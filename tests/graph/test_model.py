"""Loading, hashing and saving."""

import onnx
import pytest

import onnxrd
from onnxrd.errors import ModelError
from onnxrd.graph.model import atomic_output, save
from tests import networks
from tests.cli.test_bad_input import external


def test_external_data_are_part_of_model_and_digest(tmp_path):
    path = external(tmp_path / "m.onnx")
    model = onnxrd.load_model(path)
    assert {file.name for file in model.files} == {"m.onnx", "weights.bin"}
    assert model.nbytes == sum(file.stat().st_size for file in model.files)
    before = model.digest
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert onnxrd.load_model(path).digest != before


def test_a_model_with_external_data_is_compressed_into_one_file(tmp_path, calib, run):
    path = external(tmp_path / "m.onnx")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ("--data", calib, "--exclude", "w1")
    assert run("quantize", path, "-o", elsewhere / "small.onnx", *arguments).code == 0
    assert [p.name for p in elsewhere.iterdir()] == ["small.onnx"]
    onnx.checker.check_model(onnx.load(elsewhere / "small.onnx"))


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")

    def fail():
        with atomic_output(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with atomic_output(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_large_models_get_external_data(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxrd.graph.model.EXTERNAL_DATA_ABOVE", 1000)
    model = onnxrd.load_model(networks.mlp(tmp_path / "m.onnx"))
    with atomic_output(tmp_path / "large.onnx") as temporary:
        save(model.clone(), temporary)
    written = onnxrd.load_model(tmp_path / "large.onnx")
    assert [file.name for file in written.files] == ["large.onnx", "large.onnx.data"]
    onnx.checker.check_model(tmp_path / "large.onnx")


def test_inputs_that_initializers_provide_need_not_be_fed(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, 1, tensor.dims)
        proto.graph.input.append(info)
    onnx.save(proto, path)
    model = onnxrd.load_model(path)
    assert [spec.name for spec in model.inputs] == ["x"]
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=4)
    assert len(result.layers) == 3


def test_no_graph_is_an_error(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.ModelProto(ir_version=8), path)
    with pytest.raises(ModelError, match="no ONNX graph"):
        onnxrd.load_model(path)
