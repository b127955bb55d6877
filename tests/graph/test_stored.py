"""Weights read from another version of a file: ours, and those of onnxruntime's own tools."""

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxrd
from onnxrd.graph.stored import stored_weights
from tests import networks
from tests.pipeline.decoded import weights_of

node = networks.node


def read(original, version):
    model = onnxrd.load_model(original)
    weights = [w for w in onnxrd.find_weights(model) if not w.skip]
    return {s.weight.name: s for s in stored_weights(onnxrd.load_model(version), weights)}


@pytest.mark.parametrize("make", [networks.mlp, networks.cnn])
def test_our_own_files(make, tmp_path):
    path = make(tmp_path / "m.onnx")
    out = tmp_path / "out.onnx"
    onnxrd.quantize(path, out, clusters=5, options=onnxrd.Options(force=True))
    found = read(path, out)
    for name, array in weights_of(out, list(found)).items():
        np.testing.assert_array_equal(found[name].array, array, err_msg=name)
        assert 3 * array.size / 8 <= sum(found[name].constants.values()) < array.size + 200


def test_our_own_files_decoded_in_turns(tmp_path):
    """What is decoded later waits for an If."""
    path, out = networks.mlp(tmp_path / "m.onnx", sizes=(512,) * 6), tmp_path / "out.onnx"
    options = onnxrd.Options(max_load_memory=20_000_000)
    onnxrd.quantize(path, out, clusters=5, options=options)
    assert "If" in {n.op_type for f in onnx.load(out).functions for n in f.node}
    found = read(path, out)
    assert len(found) == 5
    for name, array in weights_of(out, list(found)).items():
        np.testing.assert_array_equal(found[name].array, array, err_msg=name)


def test_the_original_itself(model, monkeypatch):
    monkeypatch.setattr("onnxrd.graph.stored.AT_ONCE", 1000)
    found = read(model, model)
    for name, array in networks.arrays(model).items():
        if name.startswith("w"):
            np.testing.assert_array_equal(found[name].array, array)
            assert found[name].constants == {name: array.nbytes}


def calibration(shape):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"x": networks.normal(*shape, seed=k)} for k in range(3)])

        def get_next(self):
            return next(self.left, None)

    return Reader()


def by_another_tool(kind, path, out):
    """A model rounded by onnxruntime's tools."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    logging.disable(logging.WARNING)
    try:
        if kind == "dynamic":
            quantization.quantize_dynamic(path, out)
            return
        if kind == "blocks":
            tool = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
            quantizer = tool.MatMulNBitsQuantizer(onnx.load(path), block_size=16)
            quantizer.process()
            quantizer.model.save_model_to_file(str(out))
            return
        form = getattr(quantization.QuantFormat, kind)
        reader = calibration((2, 2, 8, 8))
        quantization.quantize_static(path, out, reader, quant_format=form, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)


def two_products(path):
    weights = {"w": networks.normal(64, 48, seed=1), "v": networks.normal(48, 10, seed=2)}
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "v"], ["y"]),
    ]
    return networks.save(path, nodes, weights, {"x": ["N", 64]}, {"y": ["N", 10]})


RIVALS = {
    "dynamic": networks.mlp,
    "QDQ": networks.cnn,
    "QOperator": networks.cnn,
    "blocks": two_products,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", RIVALS)
def test_files_of_onnxruntimes_tools(kind, tmp_path):
    """Every entry is within half a step of the original: steps are range/255, or range/15."""
    path, out = RIVALS[kind](tmp_path / "m.onnx"), tmp_path / "out.onnx"
    by_another_tool(kind, path, out)
    original = networks.arrays(path)
    found = read(path, out)
    assert found
    for name, stored in found.items():
        assert stored.array is not None, name
        step = 2 * np.abs(original[name]).max() / (15 if kind == "blocks" else 255)
        assert np.abs(stored.array - original[name]).max() <= 0.51 * step, name
        assert not np.array_equal(stored.array, original[name])
        assert 0.5 * stored.array.size <= sum(stored.constants.values()) < 2 * stored.array.size


def renamed(path, out, names):
    """The same model, with other names of initializers and a doubled weight."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            twice = 2 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(twice, names[tensor.name]))
    for step in model.graph.node:
        step.input[:] = [names.get(name, name) for name in step.input]
    onnx.save(model, out)
    return out


def test_weights_of_another_name_are_found_by_what_computes_with_them(model, tmp_path):
    """Even where another weight has taken the name."""
    swapped = renamed(model, tmp_path / "out.onnx", {"w0": "first", "w1": "w0", "w2": "second"})
    found = read(model, swapped)
    for name in ("w0", "w1", "w2"):
        np.testing.assert_array_equal(found[name].array, 2 * networks.arrays(model)[name])


def test_by_position_where_nodes_have_other_names_too(model, tmp_path):
    out = renamed(model, tmp_path / "out.onnx", {"w0": "a", "w1": "b", "w2": "c"})
    proto = onnx.load(out)
    new = {n: f"{n}_" for step in proto.graph.node for n in step.output if n != "y"}
    for k, step in enumerate(proto.graph.node):
        step.name = f"n{k}"
        step.input[:] = [new.get(n, n) for n in step.input]
        step.output[:] = [new.get(n, n) for n in step.output]
    onnx.save(proto, out)
    found = read(model, out)
    for name in ("w0", "w1", "w2"):
        np.testing.assert_array_equal(found[name].array, 2 * networks.arrays(model)[name])


def test_a_weight_behind_a_transpose_keeps_its_layout(tmp_path):
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    weights = {"w": networks.normal(8, 12)}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 8]})
    found = read(path, renamed(path, tmp_path / "out.onnx", {"w": "other"}))
    np.testing.assert_array_equal(found["w"].array, 2 * weights["w"])


def test_what_is_not_there_is_none(model, tmp_path):
    other = networks.save(
        tmp_path / "other.onnx",
        [node("MatMul", ["x", "w0"], ["y"])],
        {"w0": networks.normal(12, 5)},
        {"x": ["N", 12]},
        {"y": ["N", 5]},
    )
    assert [s.array for s in read(model, other).values()] == [None, None, None]


def test_a_weight_that_is_computed(tmp_path, model):
    """By standard operators of another tool's taste, from constants."""
    proto = onnx.load(model)
    w1 = networks.arrays(model)["w1"]
    (tensor,) = [t for t in proto.graph.initializer if t.name == "w1"]
    tensor.CopyFrom(numpy_helper.from_array(np.round(w1 * 10).astype(np.int8), "codes"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    proto.graph.node.insert(0, helper.make_node("Cast", ["codes"], ["levels"], to=1))
    proto.graph.node.insert(1, helper.make_node("Mul", ["levels", "step"], ["w1"]))
    onnx.save(proto, tmp_path / "out.onnx")
    stored = read(model, tmp_path / "out.onnx")["w1"]
    np.testing.assert_allclose(stored.array, np.round(w1 * 10) * 0.1, rtol=1e-6)
    assert stored.constants == {"codes": w1.size, "step": 4}
