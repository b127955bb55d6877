"""What goes wrong says so, exits with the right code, and leaves nothing behind."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxrd.pipeline
from tests import networks


def listing(folder):
    return sorted(p.name for p in folder.rglob("*"))


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail: nothing may appear, nothing may change."""

    def call(code, *telling, arguments):
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        ran = run(*arguments)
        assert ran.code == code, ran.err
        for text in telling:
            assert text in ran.err, ran.err
        assert ran.out == ""
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        return ran

    return call


def quantize(model, calib, output, *more):
    return ("quantize", model, "-o", output, "--data", calib, *more)


@pytest.mark.parametrize(
    ("content", "telling"),
    [(b"", "ONNX"), (b"not a model at all" * 50, "ONNX"), (None, "ONNX")],
    ids=["empty", "text", "truncated"],
)
def test_broken_model(content, telling, model, calib, refused, tmp_path):
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2] if content is None else content)
    refused(1, telling, arguments=quantize(model, calib, tmp_path / "out.onnx"))
    refused(1, telling, arguments=("inspect", model))


def test_no_such_model(calib, refused, tmp_path):
    arguments = quantize(tmp_path / "none.onnx", calib, tmp_path / "out.onnx")
    refused(1, "no such file", arguments=arguments)
    refused(1, "no such file", arguments=("inspect", tmp_path))


def external(path, location="weights.bin"):
    networks.mlp(path)
    model = onnx.load(path)
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights.bin",
        size_threshold=100,
    )
    if location != "weights.bin":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
    return path


def test_external_data_missing_or_short(calib, refused, tmp_path):
    path = external(tmp_path / "external.onnx")
    weights = tmp_path / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-500])
    refused(1, "cut short", "weights.bin", arguments=quantize(path, calib, tmp_path / "o.onnx"))
    weights.unlink()
    refused(1, "missing", "weights.bin", arguments=quantize(path, calib, tmp_path / "o.onnx"))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd"])
def test_external_data_outside_the_folder(location, calib, refused, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(folder / "external.onnx", location)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    refused(1, "outside", arguments=quantize(path, calib, tmp_path / "o.onnx"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, model, calib, refused, tmp_path):
    loaded = onnx.load(model)
    array = numpy_helper.to_array(loaded.graph.initializer[2]).copy()
    array[0, 0] = value
    loaded.graph.initializer[2].CopyFrom(numpy_helper.from_array(array, "w1"))
    onnx.save(loaded, model)
    output = tmp_path / "out.onnx"
    arguments = ("quantize", model, "-o", output, "--objective", "identity", "--data", calib)
    refused(1, "w1", "NaN or infinite", arguments=arguments)


@pytest.mark.parametrize(
    ("arrays", "telling"),
    [
        ({"y": np.zeros((3, 12), np.float32)}, "x"),
        ({"x": np.zeros((3, 12))}, "float32"),
        ({"x": np.zeros((3, 2, 12), np.float32)}, "x"),
        ({"x": np.zeros((3, 11), np.float32)}, "12"),
        ({"x": np.zeros((0, 12), np.float32)}, "no samples"),
        ({"x": np.zeros((3, 12), np.float32), "labels": np.zeros(2, int)}, "labels"),
        ({"x": np.full((3, 12), np.nan, np.float32)}, "NaN"),
    ],
    ids=["name", "dtype", "rank", "shape", "empty", "labels", "nan"],
)
def test_data_that_do_not_fit(arrays, telling, model, refused, tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, **arrays)
    ran = refused(1, arguments=quantize(model, bad, tmp_path / "out.onnx"))
    assert telling.lower() in ran.err.lower(), ran.err


def test_labels_out_of_range(model, refused, tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, x=np.zeros((3, 12), np.float32), labels=np.array([0, 5, 1]))
    refused(1, "label 5", arguments=("evaluate", model, model, "--data", bad))


def test_importance_of_another_model(model, calib, run, refused, tmp_path):
    other = networks.mlp(tmp_path / "other.onnx", seed=9)
    kept = tmp_path / "imp.npz"
    assert run("importance", other, "--data", calib, "-o", kept).code == 0
    arguments = ("quantize", model, "-o", tmp_path / "out.onnx", "--importance", kept)
    refused(1, "another model", arguments=arguments)
    kept.write_bytes(b"PK garbage")
    refused(1, "not a file of importance", arguments=arguments)


@pytest.mark.parametrize(
    ("more", "code", "telling"),
    [
        (("--clusters", "0"), 2, "clusters"),
        (("--clusters", "1"), 2, "clusters"),
        (("--clusters", "many"), 2, "clusters"),
        (("--ratio", "0"), 2, "0"),
        (("--ratio", "1.5"), 2, "1.5"),
        (("--exclude", "nothing*"), 2, "matches no weight"),
        (("--encoding", "zip"), 2, "encoding"),
        (("--temperature", "0"), 2, "temperature"),
        (("--samples", "0"), 2, "samples"),
        (("--clusters", "400", "--encoding", "byte_lut"), 2, "byte_lut"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(more, code, telling, model, calib, refused, tmp_path):
    refused(code, telling, arguments=quantize(model, calib, tmp_path / "out.onnx", *more))


def test_outputs_that_cannot_be(model, calib, refused, tmp_path):
    refused(1, "never overwritten", arguments=quantize(model, calib, model))
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    refused(1, "never overwritten", arguments=quantize(model, calib, link))
    spelled = tmp_path / "." / "model.onnx"
    refused(1, "never overwritten", arguments=quantize(model, calib, spelled))
    refused(1, "never overwritten", arguments=("importance", model, "--data", calib, "-o", model))
    refused(1, "cannot write", arguments=quantize(model, calib, tmp_path / "no" / "out.onnx"))
    refused(1, "cannot write", arguments=quantize(model, calib, calib / "out.onnx"))
    refused(1, "folder", arguments=quantize(model, calib, tmp_path))


def test_a_larger_file_is_refused_unless_forced(calib, run, refused, tmp_path):
    small = networks.mlp(tmp_path / "small.onnx", sizes=(12, 6, 5))
    arguments = quantize(small, calib, tmp_path / "o.onnx", "--encoding", "byte_codes")
    refused(3, "nothing was written", arguments=arguments)
    assert run(*arguments, "--force").code == 0
    assert (tmp_path / "o.onnx").stat().st_size > small.stat().st_size


def test_a_model_without_weights(refused, calib, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = networks.save(tmp_path / "relu.onnx", [node], {}, {"x": ["N", 12]}, {"y": ["N", 12]})
    refused(3, "no weights", arguments=quantize(path, calib, tmp_path / "out.onnx"))


def test_a_model_that_onnxruntime_does_not_know(refused, calib, tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["a"])
    odd = helper.make_node("Wobble", ["a"], ["y"], domain="nowhere")
    weights = [numpy_helper.from_array(networks.normal(12, 30), "w")]
    graph = helper.make_graph(
        [node, odd],
        "odd",
        [helper.make_tensor_value_info("x", 1, ["N", 12])],
        [helper.make_tensor_value_info("y", 1, ["N", 30])],
        weights,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    refused(1, "onnxruntime", arguments=quantize(path, calib, tmp_path / "out.onnx"))


def test_a_file_that_does_not_do_what_it_should(model, calib, refused, tmp_path, monkeypatch):
    """Exit code 4: levels change on their way into the file."""
    write = onnxrd.encodings.write

    def wrong(graph, fragments):
        write(graph, fragments)
        for value in graph.graph.initializers.values():
            if value.const_value.dtype.name == "FLOAT" and value.const_value.size == 16:
                value.const_value = type(value.const_value)(value.const_value.numpy() * 1.1)

    monkeypatch.setattr(onnxrd.encodings, "write", wrong)
    refused(4, "differs", arguments=quantize(model, calib, tmp_path / "out.onnx"))


def test_an_interruption_leaves_nothing(model, calib, refused, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnxrd.pipeline, "verify", interrupted)
    refused(130, "interrupted", arguments=quantize(model, calib, tmp_path / "out.onnx"))


def test_failure_spares_what_was_there(model, calib, run, tmp_path):
    output = tmp_path / "out.onnx"
    output.write_bytes(b"precious")
    assert run(*quantize(model, calib, output, "--exclude", "nothing")).code == 2
    assert output.read_bytes() == b"precious"
    assert run(*quantize(model, calib, output)).code == 0
    onnx.checker.check_model(onnx.load(output))
    assert "out.onnx" in listing(tmp_path)
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


def test_importance_needs_data(model, refused, tmp_path):
    refused(1, "--data", arguments=("importance", model, "-o", tmp_path / "imp.npz"))
    refused(2, "--data", arguments=("evaluate", model, model))
