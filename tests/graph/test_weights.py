"""What is found in a graph: roles, axes, ties, and why some constants are left alone."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from tests import networks

MODELS = Path(__file__).resolve().parents[2] / "models"
node = helper.make_node


def found(path):
    return {w.name: w for w in onnxrd.find_weights(onnxrd.load_model(path))}


@pytest.fixture
def zoo(tmp_path):
    """One network with a weight in every role and position."""
    n = networks.normal
    weights = {
        "table": n(50, 16),
        "gemm": n(16, 24),
        "gemmT": n(20, 24),
        "bias": n(20),
        "left": n(8, 8),
        "right": n(20, 18),
        "behind/transpose": n(14, 18),
        "reshaped": n(14 * 10),
        "shape": np.array([14, 10]),
        "scale": n(10),
        "offset": n(10),
        "position": n(8, 10),
        "tied": n(10, 10),
        "tiny": n(10, 6),
        "tiny2": n(6, 10),
        "half": n(10, 12).astype(np.float16),
        "floor": np.float32(0),
        "dead": n(30, 30),
        "bounds": np.array([-1, 1], np.float32),
        "W": n(1, 48, 12),
        "R": n(1, 48, 12),
        "B": n(1, 96),
        "axes": np.array([2]),
    }
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),  # [8, 16]
        node("Gemm", ["e", "gemm"], ["g"]),
        node("Gemm", ["g", "gemmT", "bias"], ["t"], transB=1),
        node("MatMul", ["left", "t"], ["l"]),
        node("MatMul", ["l", "right"], ["m"]),
        node("Transpose", ["behind/transpose"], ["bt"], perm=[1, 0]),
        node("MatMul", ["m", "bt"], ["b"]),
        node("Reshape", ["reshaped", "shape"], ["rs"]),
        node("MatMul", ["b", "rs"], ["r"]),
        node("Mul", ["r", "scale"], ["s"]),
        node("Sub", ["s", "offset"], ["o"]),
        node("Add", ["o", "position"], ["p"]),
        node("Shape", ["tied"], ["size"]),  # to be told apart from a use
        node("Reshape", ["p", "size8"], ["pr"]),
        node("MatMul", ["pr", "tied"], ["t1"]),
        node("Relu", ["t1"], ["t1r"]),
        node("Identity", ["tied"], ["same"]),
        node("MatMul", ["t1r", "same"], ["t2"]),
        node("MatMul", ["t2", "tiny"], ["t3"]),
        node("MatMul", ["t3", "tiny2"], ["t4"]),
        node("Cast", ["half"], ["full"], to=TensorProto.FLOAT),
        node("MatMul", ["t4", "full"], ["h"]),  # [8, 12]
        node("Max", ["h", "floor"], ["x3"]),
        node("Constant", [], ["inner"], value=numpy_helper.from_array(n(12, 12), "whatever")),
        node("MatMul", ["x3", "inner"], ["c"]),
        node("Unsqueeze", ["c", "axes"], ["u"]),
        node("Transpose", ["u"], ["seq"], perm=[0, 2, 1]),  # [8, 1, 12]
        node("LSTM", ["seq", "W", "R", "B"], ["y", "", ""], hidden_size=12),
        node("MatMul", ["dead", "dead"], ["unused"]),
        node("Split", ["bounds"], ["lo", "hi"]),
        node("Squeeze", ["lo"], ["low"]),
        node("Squeeze", ["hi"], ["high"]),
        node("Clip", ["y", "low", "high"], ["out"]),
    ]
    nodes.insert(13, node("Slice", ["size", "start", "end"], ["size1"]))
    nodes.insert(14, node("Concat", ["minus", "size1"], ["size8"], axis=0))
    weights |= {"start": np.array([1]), "end": np.array([2]), "minus": np.array([-1])}
    inputs = {"ids": (TensorProto.INT64, [8])}
    path = networks.save(tmp_path / "zoo.onnx", nodes, weights, inputs, {"out": [8, 1, 1, 12]})
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"ids": np.arange(8)})[0].shape == (8, 1, 1, 12)
    return path


@pytest.mark.parametrize(
    ("name", "role", "axis"),
    [
        ("table", "embedding", 0),
        ("gemm", "linear", 1),
        ("gemmT", "linear", 0),
        ("left", "linear", 0),
        ("right", "linear", 1),
        ("behind/transpose", "linear", 0),
        ("reshaped", "linear", None),
        ("position", "embedding", None),
        ("tied", "linear", 1),
        ("half", "linear", 1),
        ("inner", "linear", 1),
        ("W", "recurrent", 1),
        ("R", "recurrent", 1),
    ],
)
def test_compressible_weights(zoo, name, role, axis):
    weight = found(zoo)[name]
    assert (weight.role, weight.channel_axis, weight.skip) == (role, axis, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bias", "stays as it is: bias"),
        ("B", "stays as it is: bias"),
        ("scale", "stays as it is: normalisation"),
        ("offset", "stays as it is: bias"),
        ("tiny", "too small: fewer than 64 entries"),
        ("tiny2", "too small: fewer than 64 entries"),
        ("shape", "int64, not floating point"),
        ("dead", "no path to the output"),
        ("bounds", "stays as it is: no weight, but input 1 of Clip"),
        ("floor", "stays as it is: no weight, but input 1 of Max"),
    ],
)
def test_constants_left_alone(zoo, name, reason):
    assert found(zoo)[name].skip == reason


def test_they_come_in_the_order_of_their_use(zoo):
    names = [w.name for w in onnxrd.find_weights(onnxrd.load_model(zoo)) if not w.skip]
    expected = "table gemm gemmT left right behind/transpose reshaped position tied half inner"
    assert names == [*expected.split(), "W", "R"]


def test_a_tied_weight_is_one_weight_with_several_uses(zoo):
    weight = found(zoo)["tied"]
    assert weight.tied
    uses = [(use.node.op_type, use.slot, len(use.moved)) for use in weight.uses]
    assert uses == [("Shape", 0, 0), ("MatMul", 1, 0), ("MatMul", 1, 1)]
    assert not found(zoo)["gemm"].tied


def test_entries(zoo):
    weights = found(zoo)
    np.testing.assert_array_equal(weights["table"].array(), networks.normal(50, 16))
    assert weights["half"].dtype == np.float16
    assert (weights["W"].shape, weights["W"].size) == ((1, 48, 12), 576)


@pytest.mark.parametrize(
    ("perms", "op", "axis"),
    [
        ([[3, 2, 0, 1]], "Conv", 3),
        ([[0, 2, 1, 3], [3, 1, 2, 0]], "Conv", 3),
        ([[1, 0, 2, 3]], "Conv", 1),
        ([None], "Conv", 3),
        ([[3, 2, 0, 1]], "ConvTranspose", 2),
        ([], "ConvTranspose", 1),
    ],
)
def test_the_axis_is_that_of_the_stored_weight(perms, op, axis, tmp_path):
    shape = [5, 4, 3, 3]  # at its use
    nodes, value = [], "k"
    for k, perm in enumerate(perms):
        nodes.append(node("Transpose", [value], [f"t{k}"], **({"perm": perm} if perm else {})))
        value = f"t{k}"
    for perm in reversed(perms):
        shape = [shape[i] for i in np.argsort(perm or [3, 2, 1, 0])]
    nodes.append(node(op, ["x", value], ["y"]))
    channels = 4 if op == "Conv" else 5
    weights = {"k": networks.normal(*shape)}
    sizes = {"x": ["N", channels, 8, 8]}, {"y": ["N", 9 - channels, "H", "W"]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *sizes)
    assert found(path)["k"].channel_axis == axis
    assert shape[axis] == 9 - channels  # the output channels


@pytest.mark.parametrize(
    ("slot", "transposed", "axis"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]
)
def test_gemm_either_way_round(slot, transposed, axis, tmp_path):
    inputs = ["w", "x"] if slot == 0 else ["x", "w"]
    flags = {"transA" if slot == 0 else "transB": transposed}
    square = {"x": [12, 12]}, {"y": [12, 12]}
    nodes, weights = [node("Gemm", inputs, ["y"], **flags)], {"w": networks.normal(12, 12)}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *square)
    assert found(path)["w"].channel_axis == axis


def test_convolutions_and_normalisation(tmp_path):
    weights = found(networks.cnn(tmp_path / "cnn.onnx"))
    roles = {name: w.role for name, w in weights.items()}
    assert roles == dict.fromkeys(["c1", "c2", "c3"], "convolution") | {"w": "linear"} | (
        dict.fromkeys("ghmv", "normalisation") | dict.fromkeys(["d1", "d3", "b"], "bias")
    )


def with_type(path, code):
    """The `mlp` with its second layer's weights stored in another type."""
    model = onnx.load(networks.mlp(path, sizes=(12, 40, 40, 5), opset=21, ir_version=10))
    (tensor,) = [t for t in model.graph.initializer if t.name == "w1"]
    values = numpy_helper.to_array(tensor)
    cast = node("Cast", ["other"], ["w1"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    model.graph.initializer.remove(tensor)
    model.graph.initializer.append(
        helper.make_tensor("other", code, values.shape, values.ravel().tolist())
    )
    onnx.save(model, path)
    return path


def test_floats_that_no_quantizer_knows(tmp_path):
    path = with_type(tmp_path / "m.onnx", TensorProto.FLOAT8E4M3FN)
    weight = found(path)["other"]
    assert weight.skip == "float8e4m3fn is not supported"
    assert weight.floating
    result = onnxrd.quantize(path, tmp_path / "out.onnx")
    assert result.skipped["other"] == "float8e4m3fn is not supported"
    assert result.parameters == 12 * 40 + 40 + 40 * 40 + 40 + 40 * 5 + 5


@pytest.mark.parametrize("code", [TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_weights_are_decoded_to_their_own_type(tmp_path, code, keep):
    path = with_type(tmp_path / "m.onnx", code)
    data = networks.data(tmp_path / "d.npz")
    result = onnxrd.quantize(path, tmp_path / "out.onnx", clusters=8, keep=keep, data=data)
    (layer,) = [layer for layer in result.layers if layer.name == "other"]
    assert layer.bits < 5
    assert result.evaluation.distortion < (0.2 if keep == 1 else 10)
    cast = [n for n in onnx.load(result.path).graph.node if n.op_type == "Cast"]
    assert [n for n in cast if n.output == ["w1"] and n.input == ["other"]]
    pruned = onnxrd.prune(path, tmp_path / "pruned.onnx", keep=0.1, data=data)
    no_gaps = code == TensorProto.BFLOAT16  # the only encoding of what is merely pruned
    assert ("other" in {layer.name for layer in pruned.layers}) != no_gaps
    assert (pruned.skipped.get("other") == "no encoding of it is smaller") == no_gaps


def test_gates_cut_and_put_together_are_recurrent(tmp_path):
    """PyTorch orders the gates of an LSTM another way than ONNX, and exports the difference."""
    weights = {"W": networks.normal(48, 12), "R": networks.normal(48, 12, seed=1)}
    weights |= {"zero": np.array([0]), "axis": np.array([0])}
    nodes = []
    for name in "WR":
        for gate, first in enumerate((0, 36, 12, 24)):
            for end, place in (("s", first), ("e", first + 12)):
                weights[f"{end}{place}"] = np.array([place])
            cut = [name, f"s{first}", f"e{first + 12}", "zero"]
            nodes.append(node("Slice", cut, [f"{name}{gate}"]))
        nodes.append(node("Concat", [f"{name}{g}" for g in range(4)], [f"{name}j"], axis=0))
        nodes.append(node("Unsqueeze", [f"{name}j", "axis"], [f"{name}u"]))
    nodes.append(node("LSTM", ["x", "Wu", "Ru"], ["", "h", ""], hidden_size=12))
    nodes.append(node("Squeeze", ["h", "axis"], ["y"]))
    shapes = {"x": ["T", "N", 12]}, {"y": ["N", 12]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    for name in "WR":
        weight = found(path)[name]
        assert (weight.role, weight.skip, weight.tied) == ("recurrent", "", False)


def test_a_weight_with_a_scale_for_each_channel(tmp_path):
    """Weight normalisation, as PyTorch exports it before it is removed."""
    weights = {"v": networks.normal(16, 12), "g": networks.normal(16, 1, seed=1) + 3}
    nodes = [
        node("ReduceL2", ["v"], ["length"], axes=[1]),
        node("Div", ["v", "length"], ["unit"]),
        node("Mul", ["unit", "g"], ["w"]),
        node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 16]})
    weights = found(path)
    assert (weights["v"].role, weights["v"].skip) == ("linear", "")
    assert weights["g"].skip == "stays as it is: normalisation"
    data = networks.data(tmp_path / "d.npz", classes=16)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=8, data=data)
    assert [layer.name for layer in result.layers] == ["v"]


def test_quantized_weights_are_left_alone_and_said_to_be(tmp_path):
    codes = networks.rng().integers(-127, 127, (20, 12)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["codes", "scale"], ["w0"]),
        node("Gemm", ["x", "w0"], ["h"], transB=1),
        node("MatMul", ["h", "w1"], ["y"]),
    ]
    weights = {"codes": codes, "scale": np.float32(0.01), "w1": networks.normal(20, 16)}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 16]})
    reason = "quantized already: int8 for DequantizeLinear"
    assert found(path)["codes"].skip == reason
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=4)
    assert result.skipped["codes"] == reason
    assert [layer.name for layer in result.layers] == ["w1"]
    options = onnxrd.Options(exclude=["w1"])
    with pytest.raises(onnxrd.ModelError, match="quantized already"):
        onnxrd.quantize(path, tmp_path / "none.onnx", clusters=4, options=options)


def test_a_weight_that_is_an_output(tmp_path):
    model = onnx.load(networks.mlp(tmp_path / "m.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [24, 40]))
    onnx.save(model, tmp_path / "m.onnx")
    assert found(tmp_path / "m.onnx")["w1"].skip == "is itself an output of the model"
    result = onnxrd.quantize(tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert "w1" in result.skipped
    assert {"w0", "w2"} == {layer.name for layer in result.layers}


def test_parameters_of_resizing_are_no_weights(tmp_path):
    """Floating-point, and with enough entries in the case of a lookup table of scales."""
    nodes = [
        node("Conv", ["x", "c"], ["a"]),
        node("Resize", ["a", "", "scales"], ["b"]),
        node("Range", ["zero", "many", "one"], ["ramp"]),
        node("Mul", ["b", "ramp"], ["y"]),
    ]
    floats = {k: np.float32(v) for k, v in (("zero", 0), ("many", 100), ("one", 1))}
    weights = {"c": networks.normal(4, 3, 3, 3), "scales": np.array([1, 1, 2, 10], np.float32)}
    shapes = {"x": [1, 3, 12, 12]}, {"y": [1, 4, 20, 100]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights | floats, *shapes)
    weights = found(path)
    assert weights["c"].skip == ""
    assert weights["scales"].skip == "stays as it is: no weight, but input 2 of Resize"
    assert weights["one"].skip == "stays as it is: no weight, but input 2 of Range"


def test_weights_in_a_function_are_found_once_a_call(tmp_path, run):
    path = networks.with_function(tmp_path / "m.onnx")
    weights = found(path)
    assert not [w.skip for w in weights.values() if w.skip]
    inner = [w for name, w in weights.items() if name not in "UV"]
    assert len(inner) == 2
    np.testing.assert_array_equal(inner[0].array(), inner[1].array())
    data = networks.data(tmp_path / "d.npz", classes=8)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=4, data=data)
    assert {layer.name for layer in result.layers} == set(weights)
    assert result.nbytes[1] < result.nbytes[0]
    options = onnxrd.Options(exclude=[w.name for w in inner])
    result = onnxrd.quantize(path, tmp_path / "s.onnx", clusters=4, data=data, options=options)
    assert [f.name for f in onnx.load(result.path).functions if f.domain == "mine"] == ["dense"]


def test_weights_in_branches_are_weights_like_others(tmp_path):
    path = networks.with_branches(tmp_path / "m.onnx")
    weights = found(path)
    for name in ("w", "inside", "other"):
        assert (weights[name].skip, weights[name].role) == ("", "linear")
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=2)
    assert {layer.name for layer in result.layers} == {"w", "inside", "other"}
    assert result.parameters == 2 * 240 + 160 + 1
    branches = [a.g for n in onnx.load(result.path).graph.node for a in n.attribute if a.g.name]
    assert {g.name for g in branches} == {"then", "else"}
    assert not [t for g in branches for t in g.initializer]


def test_weights_of_one_name_in_two_branches_have_a_reason(tmp_path):
    model = onnx.load(networks.with_branches(tmp_path / "m.onnx"))
    (choice,) = [n for n in model.graph.node if n.op_type == "If"]
    (other,) = [a.g for a in choice.attribute if a.name == "else_branch"]
    other.initializer[0].name = other.node[0].input[1] = "inside"
    onnx.save(model, tmp_path / "m.onnx")
    skipped = [w.skip for w in onnxrd.find_weights(onnxrd.load_model(tmp_path / "m.onnx"))]
    reason = "in the body of an If, Loop or Scan, and its name is not unique"
    assert skipped.count(reason) == 2
    result = onnxrd.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx", clusters=2)
    assert {layer.name for layer in result.layers} == {"w"}


def test_a_weight_that_branches_use_from_outside(tmp_path):
    """It is alive, and compressed, though no operator of the main graph reads it."""
    result = [helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 20])]
    branches = {
        f"{name}_branch": helper.make_graph([node(*call)], name, [], result)
        for name, call in (
            ("then", ("MatMul", ["x", "w"], ["h"])),
            ("else", ("Gemm", ["x", "w"], ["h"])),
        )
    }
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], **branches),
    ]
    weights = {"w": networks.normal(12, 20), "zero": np.float32(0)}
    shapes = {"x": ["N", 12]}, {"y": ["N", 20]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    weight = found(path)["w"]
    assert (weight.role, weight.skip, len(weight.uses)) == ("linear", "", 2)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=2)
    assert [layer.name for layer in result.layers] == ["w"]


@pytest.mark.parametrize(("name", "count"), [("mnist_mlp", 3), ("cifar10_cnn", None)])
def test_our_networks(name, count):
    weights = found(MODELS / f"{name}.onnx").values()
    chosen = [w for w in weights if not w.skip]
    assert count is None or len(chosen) == count
    floats = sum(w.size for w in weights if w.floating)
    assert sum(w.size for w in chosen) > 0.98 * floats
    assert all(w.channel_axis == 0 for w in chosen)


def test_every_compressible_weight_of_the_zoo_is_written(zoo, tmp_path):
    result = onnxrd.quantize(zoo, tmp_path / "small.onnx", clusters=4)
    assert len(result.layers) == 13
    assert result.nbytes[1] < 0.5 * result.nbytes[0]


@pytest.mark.parametrize("hidden", [-np.inf, -1e9])
def test_a_mask_with_infinite_entries_is_no_weight(hidden, tmp_path, run):
    """Of attention that looks back only; the network is sound."""
    mask = np.triu(np.full((10, 10), hidden, np.float32), 1)
    nodes = [
        node("Add", ["x", "mask"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("MatMul", ["p", "w"], ["y"]),
    ]
    weights = {"mask": mask, "w": networks.normal(10, 200)}
    path, small = tmp_path / "m.onnx", tmp_path / "small.onnx"
    networks.save(path, nodes, weights, {"x": ["N", 10, 10]}, {"y": ["N", 10, 200]})
    infinite = "stays as it is: no weight, but a mask with infinite entries"
    assert found(path)["mask"].skip == (infinite if np.isinf(hidden) else "")
    data = networks.data(tmp_path / "calib.npz", shape=(10, 10), labels=False)
    ran = run("compress", path, "-o", small, "--data", data, "--max-error", "0.01")
    assert ran.code == 0, ran.err
    x = np.load(data)["x"]
    big, less = (ort.InferenceSession(p).run(None, {"x": x})[0] for p in (path, small))
    assert np.sum((big - less) ** 2) < 0.03 * np.sum(big**2)
