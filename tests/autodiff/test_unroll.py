"""If, Loop and Scan written out: same outputs, and gradients of the weights within."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxrd.autodiff.trace import run_trace
from onnxrd.autodiff.unroll import unroll, why_not_unrolled
from onnxrd.graph.model import load
from onnxrd.graph.session import Session
from tests.autodiff.cases.case import ints, normal
from tests.autodiff.test_engine import check_squares, gradients_of, network

node = helper.make_node
X = normal(3, 5, 4, seed=3)


def info(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(name, nodes, inputs=(), outputs=(), **arrays):
    """A body; inputs and outputs are names, or made by `info`."""
    ends = [[v if not isinstance(v, str) else info(v) for v in side] for side in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items()]
    return helper.make_graph(nodes, name, *ends, tensors)


def step(state, fed, *, extra=()):
    """Tanh(state·R + fed·w), where R is the body's own and w from outside."""
    return [
        node("MatMul", [state, "R"], ["kept"], name="keep"),  # names: some exporters give them
        node("MatMul", [fed, "w"], ["new"], name="feed"),
        node("Add", ["kept", "new"], ["sum"]),
        node("Tanh", ["sum"], ["after"]),
        *extra,
    ]


def scan(opset=17, **attributes):
    """Over axis 1 of X, with the states stacked on axis 1 again."""
    outputs = [node("Identity", ["after"], ["seen"])]
    body = graph(
        "body", step("before", "now", extra=outputs), ["before", "now"], ["after", "seen"],
        R=normal(2, 2, seed=5),
    )  # fmt: skip
    settings = {"scan_input_axes": [1], "scan_output_axes": [1]} | attributes
    nodes = [
        node("MatMul", ["x", "m"], ["fed"]),
        node("Gather", ["fed", "first"], ["start"], axis=1),
        node("Scan", ["start", "fed"], ["end", "all"], body=body, num_scan_inputs=1, **settings),
        node("Unsqueeze", ["end", "one"] if opset >= 13 else ["end"], ["wide"], **(
            {} if opset >= 13 else {"axes": [1]}
        )),
        node("Mul", ["all", "wide"], ["y"]),
    ]  # fmt: skip
    arrays = {"m": normal(4, 2, seed=6), "w": normal(2, 2, seed=7), "first": np.array(2)}
    return nodes, arrays | ({"one": ints(1)} if opset >= 13 else {})


def loop():
    """A fixed number of times; the body counts, hands a state on, and collects another."""
    numbers = [
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["after", "f"], ["seen"]),
        node("Identity", ["go"], ["still"]),
    ]
    inputs = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), "before"]
    outputs = [info("still", TensorProto.BOOL, []), "after", "seen"]
    body = graph(
        "body", step("before", "fed", extra=numbers), inputs, outputs, R=normal(2, 2, seed=5)
    )
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "axis"], ["times"]),
        node("MatMul", ["x", "m"], ["fed"]),
        node("Loop", ["times", "", "fed"], ["end", "all"], body=body),
        node("ReduceSum", ["all", "zero"], ["total"], keepdims=0),
        node("Add", ["end", "total"], ["y"]),
    ]
    arrays = {"m": normal(4, 2, seed=6), "w": normal(2, 2, seed=7)}
    return nodes, arrays | {"axis": np.array(1), "zero": ints(0)}


def branches():
    """By shape; nested in one another, and one that hands on what it takes from outside."""
    inner = node(
        "If", ["wide"], ["i"],
        then_branch=graph("t", [node("MatMul", ["h", "R"], ["a"])], (), ["a"], R=normal(2, 2)),
        else_branch=graph("e", [node("Identity", ["h"], ["d"])], (), ["d"]),
    )  # fmt: skip
    outer = node(
        "If", ["wide"], ["o"],
        then_branch=graph("t2", [node("Tanh", ["h"], ["b"])], (), ["b"]),
        else_branch=graph("e2", [inner, node("Mul", ["i", "w"], ["c"])], (), ["c"]),
    )  # fmt: skip
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "axis"], ["length"]),
        node("Greater", ["length", "nine"], ["wide"]),
        node("MatMul", ["x", "m"], ["h"]),
        outer,
        node("Add", ["o", "h"], ["y"]),
    ]
    arrays = {"m": normal(4, 2, seed=6), "w": normal(2, seed=7)}
    return nodes, arrays | {"axis": np.array(1), "nine": np.array(9)}


NETWORKS = {
    "scan": (scan(), 17),
    "scan backwards": (scan(scan_input_directions=[1], scan_output_directions=[1]), 18),
    "scan, long ago": (scan(11), 11),
    "loop": (loop(), 17),
    "branches": (branches(), 17),
}


def built(name):
    (nodes, arrays), opset = NETWORKS[name]
    return network(nodes, arrays, {"x": X}, opset=opset)


def lifted(name, tmp_path):
    """As `Model.prepared` gives it."""
    ir.save(built(name), tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx").prepared()


def controls(model):
    return [n for n in model.graph if n.op_type in ("If", "Loop", "Scan")]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_stays_the_same(name, tmp_path):
    model = lifted(name, tmp_path)
    expected = Session(model, base=Path()).run({"x": X})["y"]
    while found := controls(model):
        trace = run_trace(model, Path(), {"x": X})
        assert [why_not_unrolled(trace, n) for n in found] == [""] * len(found)
        assert unroll(trace, found[0])
    found = Session(model, base=Path()).run({"x": X})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_weights_inside_and_outside(name, tmp_path):
    model = lifted(name, tmp_path)
    targets = [
        n for n, v in model.graph.initializers.items() if v.const_value.dtype.name == "FLOAT"
    ]
    assert set(targets) >= ({"m", "w"} if name == "branches" else {"m", "w", "R"})
    found, seed = gradients_of(model, {"x": X}, targets)
    for target in targets:
        weight = model.graph.initializers[target].const_value.numpy()
        direction = np.random.default_rng(1).choice([-1.0, 1.0], weight.shape).astype(np.float32)
        ends = []
        for move in (2e-3, -2e-3):
            moved = model.clone()
            moved.graph.initializers[target].const_value = ir.tensor(
                np.float32(weight + move * direction)
            )
            ends.append((Session(moved, base=Path()).run({"x": X})["y"] * seed).sum())
        expected = (ends[0] - ends[1]) / 4e-3
        assert (found[target] * direction).sum() == pytest.approx(expected, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_of_a_batch(name, tmp_path):
    model = lifted(name, tmp_path)
    targets = ["m", "w"] if name == "branches" else ["m", "w", "R"]
    check_squares(model, {"x": X}, targets)
