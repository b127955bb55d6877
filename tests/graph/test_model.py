"""Loading, hashing and saving."""

import os
import stat

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import onnxrd
from onnxrd.errors import ModelError
from onnxrd.graph.model import atomic_output, save
from tests import networks


def built(folder):
    yield networks.mlp(folder / "mlp.onnx", doc_string="words", producer_name="a tool")
    yield networks.cnn(folder / "cnn.onnx")
    yield networks.recurrent(folder / "recurrent.onnx")
    yield networks.with_function(folder / "function.onnx")
    yield networks.with_branches(folder / "branches.onnx")
    yield networks.external(folder / "external.onnx")


def outputs(path):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {
        i.name: networks.normal(*[d if isinstance(d, int) else 3 for d in i.shape])
        for i in session.get_inputs()
    }
    return session.run(None, feeds)


def test_a_model_is_saved_as_it_was_loaded(tmp_path):
    for path in built(tmp_path):
        (tmp_path / "out").mkdir(exist_ok=True)
        again = tmp_path / "out" / "again.onnx"
        save(onnxrd.load_model(path).clone(), again)
        onnx.checker.check_model(again, full_check=True)
        old, new = onnx.load(path), onnx.load(again)
        plain = [[n for n in m.graph.node if n.op_type != "If"] for m in (old, new)]
        assert plain[0] == plain[1]
        assert [n.op_type for n in old.graph.node] == [n.op_type for n in new.graph.node]
        assert old.graph.input == new.graph.input
        assert old.graph.output == new.graph.output
        assert old.functions == new.functions
        assert old.opset_import == new.opset_import
        for field in ("ir_version", "producer_name", "doc_string", "metadata_props"):
            assert getattr(old, field) == getattr(new, field)
        for name, array in networks.arrays(path).items():
            np.testing.assert_array_equal(networks.arrays(again)[name], array)
        for a, b in zip(outputs(path), outputs(again), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_prepared_model_is_the_same_network(tmp_path):
    for path in built(tmp_path):
        prepared = onnxrd.load_model(path).prepared()
        assert not prepared.functions
        assert not [n for n in prepared.graph.all_nodes() if n.op_type == "Constant"]
        save(prepared, tmp_path / "prepared.onnx")
        for a, b in zip(outputs(path), outputs(tmp_path / "prepared.onnx"), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_loaded_model_never_changes(tmp_path):
    for path in built(tmp_path):
        model = onnxrd.load_model(path)
        names = [w.name for w in onnxrd.find_weights(model)]
        for copy in (model.clone(), model.prepared(), model.holding(names)):
            copy.graph.outputs.clear()
            copy.graph.initializers.clear()
            copy.metadata_props["other"] = "thing"
        save(model.clone(), tmp_path / "again.out")
        assert outputs(tmp_path / "again.out")
        assert "other" not in model.ir.metadata_props


def test_functions_are_inlined_only_for_the_sake_of_a_weight(tmp_path):
    model = onnxrd.load_model(networks.with_function(tmp_path / "m.onnx"))
    inner = [w.name for w in onnxrd.find_weights(model) if w.name not in "UV"]
    assert len(model.holding(["U", "V"]).functions) == 1
    assert len(model.holding(["U", inner[1]]).functions) == 0


def test_external_data_are_part_of_model_and_digest(tmp_path):
    path = networks.external(tmp_path / "m.onnx")
    model = onnxrd.load_model(path)
    assert {file.name for file in model.files} == {"m.onnx", "weights.bin"}
    assert model.nbytes == sum(file.stat().st_size for file in model.files)
    before = model.digest
    assert onnxrd.load_model(path).digest == before
    weights = tmp_path / "weights.bin"
    changed = bytearray(weights.read_bytes())
    changed[5] ^= 1
    weights.write_bytes(changed)
    assert onnxrd.load_model(path).digest != before


def test_the_digest_is_that_of_the_content(tmp_path):
    a, b = (networks.mlp(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert onnxrd.load_model(a).digest == onnxrd.load_model(b).digest
    networks.replace(b, "b0", networks.arrays(b)["b0"] + 1)
    assert onnxrd.load_model(a).digest != onnxrd.load_model(b).digest


def test_models_with_external_data_are_compressed_like_others(tmp_path, calib, run, monkeypatch):
    whole = networks.mlp(tmp_path / "whole.onnx")
    folder = tmp_path / "from"
    folder.mkdir()
    path = networks.external(folder / "external.onnx")
    results = [
        onnxrd.quantize(p, tmp_path / f"{p.stem}.small", data=calib, clusters=8)
        for p in (whole, path)
    ]
    assert results[0].predicted == pytest.approx(results[1].predicted, rel=1e-6)
    assert results[0].path.read_bytes() == results[1].path.read_bytes()
    assert results[1].nbytes[0] == sum(f.stat().st_size for f in folder.iterdir())
    monkeypatch.chdir(folder)  # paths may be relative, and differ
    arguments = ("--data", calib, "--exclude", "w1", "-o", "../elsewhere.onnx")
    assert run("quantize", "external.onnx", *arguments).code == 0
    (folder / "weights.bin").unlink()
    assert outputs(tmp_path / "elsewhere.onnx")


def test_large_models_get_external_data(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxrd.graph.model.EXTERNAL_DATA_ABOVE", 1000)
    path = networks.mlp(tmp_path / "m.onnx")
    with atomic_output(tmp_path / "large.onnx") as temporary:
        save(onnxrd.load_model(path).clone(), temporary)
    written = onnxrd.load_model(tmp_path / "large.onnx")
    assert [file.name for file in written.files] == ["large.onnx", "large.onnx.data"]
    onnx.checker.check_model(tmp_path / "large.onnx")
    np.testing.assert_array_equal(outputs(path)[0], outputs(tmp_path / "large.onnx")[0])


def test_inputs_are_what_has_to_be_fed(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    onnx.save(model, path)
    loaded = onnxrd.load_model(path)
    (spec,) = loaded.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", np.float32, ("N", 12))
    assert str(spec) == "'x' (float32 [N, 12])"
    assert loaded.outputs == ("y",)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=4)
    assert [layer.name for layer in result.layers] == ["w0", "w1", "w2"]
    assert outputs(result.path)


def test_inputs_of_any_shape(tmp_path):
    model = onnx.load(networks.mlp(tmp_path / "m.onnx"))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "m.onnx")
    (spec,) = onnxrd.load_model(tmp_path / "m.onnx").inputs
    assert spec.shape is None
    assert str(spec) == "'x' (float32 of any shape)"


def test_no_graph_is_an_error(tmp_path):
    onnx.save(onnx.ModelProto(ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no ONNX graph"):
        onnxrd.load_model(tmp_path / "m.onnx")


def fail_within(path):
    with atomic_output(path) as temporary:
        temporary.write_text("half")
        (temporary.parent / "more").write_text("half")
        raise RuntimeError


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        fail_within(path)
    assert path.read_text() == "old"
    with atomic_output(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert os.stat(temporary).st_dev == os.stat(tmp_path).st_dev
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_output_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_output(tmp_path / "out") as temporary:
        temporary.write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "out")}
    assert len(modes) == 1


def test_names_that_a_temporary_folder_could_trip_over(tmp_path):
    for name in (".hidden", "a b.onnx", "ключ.onnx", "-o", "%s", "x" * 200):
        with atomic_output(tmp_path / name) as temporary:
            temporary.write_text(name)
        assert (tmp_path / name).read_text() == name


def test_a_file_that_is_too_long_a_name(tmp_path):
    with pytest.raises(ModelError, match="cannot write"), atomic_output(tmp_path / ("x" * 254)):
        pass


def test_an_error_without_a_number_is_told_in_its_own_words(tmp_path):
    """As numpy raises where a disk is full."""
    telling = "9 requested and 0 written"
    with pytest.raises(ModelError, match=telling), atomic_output(tmp_path / "out"):
        raise OSError(telling)


def test_constants_of_every_kind_of_attribute(tmp_path):
    """`Constant` has a tensor, or a number, or a list, under different attributes."""
    made = helper.make_node
    array = networks.normal(12, 12)
    nodes = [
        made("Constant", [], ["w"], value=numpy_helper.from_array(array)),
        made("Constant", [], ["list"], value_floats=array[0].tolist()),
        made("Constant", [], ["number"], value_float=0.5),
        made("Constant", [], ["axis"], value_ints=[1]),
        made("MatMul", ["x", "w"], ["a"]),
        made("Add", ["a", "list"], ["b"]),
        made("Mul", ["b", "number"], ["c"]),
        made("Unsqueeze", ["c", "axis"], ["y"]),
    ]
    shapes = {"x": ["N", 12]}, {"y": ["N", 1, 12]}
    path = networks.save(tmp_path / "m.onnx", nodes, {}, *shapes)
    weights = {w.name: w for w in onnxrd.find_weights(onnxrd.load_model(path))}
    assert set(weights) == {"w", "list", "number", "axis"}
    np.testing.assert_array_equal(weights["w"].array(), array)
    np.testing.assert_array_equal(weights["list"].array(), array[0])
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=2)
    assert set(result.skipped) == {"list", "number"}
    assert result.parameters == 144 + 12 + 1


def test_a_length_below_zero_means_any(tmp_path):
    """As Paddle exports it."""
    model = onnx.load(networks.mlp(tmp_path / "m.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "m.onnx")
    (spec,) = onnxrd.load_model(tmp_path / "m.onnx").inputs
    assert (spec.shape, spec.fixed_batch) == ((None, 12), None)
    data = networks.data(tmp_path / "d.npz")
    result = onnxrd.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", clusters=4, data=data)
    assert result.evaluation.samples == 40


def test_a_weight_is_one_array_however_often_it_is_asked_for(tmp_path):
    model = onnxrd.load_model(networks.mlp(tmp_path / "model.onnx"))
    tensors = [value.const_value for value in model.prepared().graph.initializers.values()]
    assert tensors
    for tensor in tensors:
        assert np.shares_memory(tensor.numpy(), tensor.numpy())
