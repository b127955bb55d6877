"""Whole small networks: what rules alone do not show."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxrd.autodiff.engine import NotBatchableError
from onnxrd.autodiff.gradients import Gradients, batched_squares, reference_squares
from onnxrd.autodiff.registry import DECOMPOSITIONS
from onnxrd.graph.session import Runtime
from tests.autodiff.cases.case import ints, normal

node = helper.make_node
X = normal(3, 2, 6, 6)


def network(nodes, constants, feeds, *, opset=17):
    """A graph from `x`, `tokens`, … with a free first axis to `y`."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(v.dtype), ["n", *v.shape[1:]]
        )
        for name, v in feeds.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "network", inputs, [output], weights)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def gradients_of(model, feeds, targets):
    gradients = Gradients(model, Path(), ["y"], targets, runtime=Runtime(threads=1))
    forward = gradients.forward("gradient", feeds)
    seed = np.random.default_rng(5).standard_normal(forward.sources["y"].shape)
    return gradients.backward(forward, {"y": seed}), seed


def check_squares(model, feeds, targets):
    """The batched path agrees with one sample at a time."""
    gradients = Gradients(model, Path(), ["y"], targets, runtime=Runtime(threads=1))
    forward = gradients.forward("squares", feeds)
    seeds = {"y": np.random.default_rng(5).standard_normal(forward.sources["y"].shape)}
    found = batched_squares(gradients, forward, seeds)
    forward = gradients.forward("squared gradient", feeds)
    expected = reference_squares(gradients, forward, seeds)
    assert set(found) == set(targets)
    for name in targets:
        assert expected[name].any()
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_shapes_that_a_network_computes_count_as_constants():
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "two", "four"], ["size"]),
        node("Mul", ["size", "twos"], ["double"]),
        node("Slice", ["shape", "zero", "two"], ["lead"]),
        node("Concat", ["lead", "double"], ["target"], axis=0),
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Resize", ["c", "", "", "target"], ["r"], mode="linear"),
        node("Slice", ["r", "zeros", "size", "axes"], ["y"]),
    ]
    constants = {
        "w": normal(2, 2, 3, 3),
        "zero": ints(0),
        "two": ints(2),
        "four": ints(4),
        "twos": ints(2, 2),
        "zeros": ints(0, 0),
        "axes": ints(2, 3),
    }
    check_squares(network(nodes, constants, {"x": X}), {"x": X}, ["w"])


def test_class_token_and_positions():
    """As in vision transformers and BERT: a token for every sample, a table of positions."""
    nodes = [
        node("Gather", ["words", "tokens"], ["embedded"]),
        node("Shape", ["tokens"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["batch"]),
        node("Concat", ["batch", "minus", "minus"], ["wide"], axis=0),
        node("Expand", ["cls", "wide"], ["class"]),
        node("Concat", ["class", "embedded"], ["sequence"], axis=1),
        node("Slice", ["all_places", "zero", "four", "one"], ["places"]),
        node("Gather", ["positions", "places"], ["where"]),
        node("Add", ["sequence", "where"], ["added"]),
        node("MatMul", ["added", "w"], ["y"]),
    ]
    constants = {
        "words": normal(9, 4),
        "cls": normal(1, 1, 4),
        "positions": normal(6, 4),
        "w": normal(4, 5),
        "all_places": ints(5, 3, 4, 1, 0, 2).reshape(1, 6),
        "zero": ints(0),
        "one": ints(1),
        "four": ints(4),
        "minus": ints(1),
    }
    feeds = {"tokens": np.array([[0, 3, 3], [3, 3, 3], [8, 1, 0]])}
    model = network(nodes, constants, feeds)
    check_squares(model, feeds, ["words", "cls", "positions", "w"])


def test_repeated_positions_need_one_sample_at_a_time():
    nodes = [
        node("Gather", ["table", "places"], ["where"]),
        node("Add", ["x", "where"], ["y"]),
    ]
    feeds = {"x": normal(3, 2, 4)}
    model = network(nodes, {"table": normal(6, 4), "places": ints(5, 5)}, feeds)
    gradients = Gradients(model, Path(), ["y"], ["table"], runtime=Runtime(threads=1))
    with pytest.raises(NotBatchableError, match="Gather"):
        gradients.forward("squares", feeds)


def test_a_weight_used_as_its_batched_rule_cannot_is_said_so():
    nodes = [node("Gemm", ["x", "w"], ["y"], transA=1)]
    feeds = {"x": normal(3, 2)}
    gradients = Gradients(
        network(nodes, {"w": normal(3, 4)}, feeds), Path(), ["y"], ["w"], runtime=Runtime(threads=1)
    )
    with pytest.raises(NotBatchableError, match="transA"):
        gradients.forward("squares", feeds)
    assert gradients.blocked(feeds) == {}


def test_weights_before_a_quantization_are_reported():
    nodes = [
        node("MatMul", ["x", "w0"], ["h"]),
        node("QuantizeLinear", ["h", "s"], ["q"]),
        node("Transpose", ["q"], ["qt"], perm=[0, 2, 1]),
        node("DequantizeLinear", ["qt", "s"], ["d"]),
        node("MatMul", ["d", "w1"], ["y"]),
    ]
    constants = {"w0": normal(4, 5), "s": np.float32(0.1), "w1": normal(2, 3)}
    feeds = {"x": normal(3, 2, 4)}
    gradients = Gradients(
        network(nodes, constants, feeds), Path(), ["y"], ["w0", "w1"], runtime=Runtime(threads=1)
    )
    assert list(gradients.blocked(feeds)) == ["w0"]
    assert "DequantizeLinear" in gradients.blocked(feeds)["w0"]
    found, _ = gradients_of(network(nodes, constants, feeds), feeds, ["w1"])
    assert found["w1"].any()


def test_weights_read_in_a_subgraph_are_reported():
    branches = [
        helper.make_graph(
            [node(op, ["h", "w1"], [op])],
            op,
            [],
            [helper.make_tensor_value_info(op, TensorProto.FLOAT, None)],
        )
        for op in ("MatMul", "Add")
    ]
    nodes = [
        node("MatMul", ["x", "w0"], ["h"]),
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Cast", ["total"], ["yes"], to=TensorProto.BOOL),
        node("If", ["yes"], ["i"], then_branch=branches[0], else_branch=branches[1]),
        node("MatMul", ["i", "w2"], ["y"]),
    ]
    constants = {f"w{k}": normal(4, 4) for k in range(3)}
    feeds = {"x": normal(3, 4)}
    gradients = Gradients(
        network(nodes, constants, feeds),
        Path(),
        ["y"],
        ["w0", "w1", "w2"],
        runtime=Runtime(threads=1),
    )
    blocked = gradients.blocked(feeds)
    assert sorted(blocked) == ["w0", "w1"]
    assert "the data decide" in blocked["w1"]


@pytest.mark.parametrize(("stride", "pad"), [(2, 0), (1, 1)])
def test_of_equal_maxima_the_first_counts(stride, pad):
    x = np.random.default_rng(0).integers(0, 2, (2, 2, 6, 6)).astype(np.float32)
    pool = {"kernel_shape": [2, 2], "strides": [stride] * 2, "pads": [pad] * 4}
    nodes = [node("Add", ["x", "t"], ["s"]), node("MaxPool", ["s"], ["y"], **pool)]
    model = network(nodes, {"t": np.zeros_like(x)}, {"x": x})
    found, seed = gradients_of(model, {"x": x}, ["t"])
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=-1)
    expected = np.zeros(padded.shape)
    for n, c, i, j in np.ndindex(seed.shape):
        window = padded[n, c, i * stride : i * stride + 2, j * stride : j * stride + 2]
        di, dj = np.unravel_index(np.argmax(window), (2, 2))
        expected[n, c, i * stride + di, j * stride + dj] += seed[n, c, i, j]
    inside = expected[:, :, pad : pad + 6, pad : pad + 6]
    np.testing.assert_allclose(found["t"], inside, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_vectors_of_zeros_that_are_normalised_give_nothing(p):
    x = np.stack([np.zeros(4, np.float32), normal(4)])
    nodes = [node("Add", ["x", "t"], ["s"]), node("LpNormalization", ["s"], ["y"], p=p)]
    found, _ = gradients_of(network(nodes, {"t": np.zeros_like(x)}, {"x": x}), {"x": x}, ["t"])
    assert not found["t"][0].any()
    assert np.isfinite(found["t"]).all() and found["t"][1].any()


def test_an_operator_that_does_not_run_once_it_is_rewritten_stays(monkeypatch):
    def wrong(b, old):
        return [b.reshape(old.inputs[0], (7, 7))]

    monkeypatch.setitem(DECOMPOSITIONS, ("com.microsoft", "FastGelu"), wrong)
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("FastGelu", ["h", "d"], ["a"], domain="com.microsoft"),
        node("MatMul", ["a", "v"], ["b"]),
        node("BiasGelu", ["b", "c"], ["y"], domain="com.microsoft"),
    ]
    constants = {"w": normal(4, 5), "d": normal(5), "v": normal(5, 3), "c": normal(3)}
    feeds = {"x": normal(2, 4)}
    model = network(nodes, constants, feeds)
    gradients = Gradients(model, Path(), ["y"], [*constants], runtime=Runtime(threads=1))
    blocked = gradients.blocked(feeds)
    assert set(blocked) == {"w", "d"} and "FastGelu" in blocked["w"]
    assert {"c", "v"} <= set(gradients.rewritten(feeds))
    found, _ = gradients_of(model, feeds, ["v", "c"])
    assert found["v"].any() and found["c"].any()


def test_token_types_made_of_zeros_for_every_sample():
    nodes = [
        node("Shape", ["tokens"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["types"], value=helper.make_tensor("z", 7, [1], [0])),
        node("Gather", ["table", "types"], ["typed"]),
        node("Gather", ["words", "tokens"], ["embedded"]),
        node("Add", ["embedded", "typed"], ["y"]),
    ]
    feeds = {"tokens": np.array([[0, 3, 3], [3, 3, 3], [8, 1, 0]])}
    model = network(nodes, {"words": normal(9, 4), "table": normal(2, 4)}, feeds)
    check_squares(model, feeds, ["words", "table"])


def test_a_weight_that_is_computed_needs_one_sample_at_a_time():
    nodes = [node("Mul", ["w", "scale"], ["scaled"]), node("MatMul", ["x", "scaled"], ["y"])]
    feeds = {"x": normal(3, 4)}
    model = network(nodes, {"w": normal(4, 5), "scale": normal(5)}, feeds)
    gradients = Gradients(model, Path(), ["y"], ["w"], runtime=Runtime(threads=1))
    with pytest.raises(NotBatchableError, match="goes through Mul"):
        gradients.forward("squares", feeds)


def test_half_precision_networks_have_gradients_in_single_precision():
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("ReduceMean", ["t"], ["m"], axes=[1]),
        node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    x, w = normal(3, 8), normal(8, 4, seed=2)
    single, _ = gradients_of(network(nodes, {"w": w}, {"x": x}), {"x": x}, ["w"])
    feeds = {"x": x.astype(np.float16)}
    half, _ = gradients_of(network(nodes, {"w": w.astype(np.float16)}, feeds), feeds, ["w"])
    assert half["w"].dtype == np.float32
    np.testing.assert_allclose(half["w"], single["w"], atol=1e-2)


def test_a_weight_that_acts_through_a_staircase_alone_is_reported():
    nodes = [
        node("MatMul", ["x", "w0"], ["h"]),
        node("Floor", ["h"], ["f"]),
        node("Sub", ["h", "f"], ["fraction"]),
        node("Mul", ["x", "w1"], ["scaled"]),
        node("Round", ["scaled"], ["r"]),
        node("Add", ["fraction", "r"], ["y"]),
    ]
    feeds, constants = {"x": normal(3, 4)}, {"w0": normal(4, 4), "w1": normal(4)}
    gradients = Gradients(
        network(nodes, constants, feeds), Path(), ["y"], ["w0", "w1"], runtime=Runtime(threads=1)
    )
    blocked = gradients.blocked(feeds)
    assert list(blocked) == ["w1"]
    assert "Round" in blocked["w1"]
    check_squares(network(nodes, constants, feeds), feeds, ["w0"])


def test_fused_operators_are_batched():
    nodes = [
        node("Gather", ["table", "tokens"], ["e"]),
        node("Attention", ["e", "qkv", "b"], ["a"], num_heads=2, domain="com.microsoft"),
        node("SkipLayerNormalization", ["a", "e", "g", "shift"], ["s"], domain="com.microsoft"),
        node("FusedMatMul", ["s", "w"], ["m"], transB=1, alpha=0.5, domain="com.microsoft"),
        node("BiasGelu", ["m", "c"], ["y"], domain="com.microsoft"),
    ]
    shapes = {"table": (9, 8), "qkv": (8, 24), "b": (24,), "g": (8,), "shift": (8,), "w": (5, 8)}
    constants = {name: normal(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}
    constants["c"] = normal(5)
    feeds = {"tokens": np.array([[0, 3, 3], [3, 3, 3], [8, 1, 0]])}
    check_squares(network(nodes, constants, feeds), feeds, [*constants])


def test_rows_of_a_softmax_that_are_masked_out_altogether_do_no_harm():
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Where", ["seen", "h", "minus"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("IsNaN", ["p"], ["bad"]),
        node("Where", ["bad", "zero", "p"], ["y"]),
    ]
    seen = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    constants = {"w": normal(4, 4), "minus": np.float32(-np.inf), "zero": np.float32(0)}
    feeds = {"x": normal(3, 4), "seen": seen}
    check_squares(network(nodes, constants, feeds), feeds, ["w"])
