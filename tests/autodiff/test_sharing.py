"""Batches through recurrent operators, and weights that several operators use."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnxrd.autodiff.engine import NotBatchableError
from onnxrd.autodiff.gradients import Gradients
from onnxrd.autodiff.registry import TOGETHER
from tests.autodiff.cases.case import ints, normal
from tests.autodiff.cases.recurrent import CASES, GATES, LENGTHS
from tests.autodiff.test_engine import check_squares, network

node = helper.make_node


def sequence(case):
    """A network from samples [N, T, I] to [N, T, directions, H] around a recurrent operator."""
    names = ["turned", *(f"i{k}" for k in range(1, len(case.inputs)))]
    names = [n if v is not None else "" for n, v in zip(names, case.inputs)]
    nodes = [
        node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        node(case.op, names, ["h"], **case.attributes),
        node("Transpose", ["h"], ["y"], perm=[2, 0, 1, 3]),
    ]
    arrays = {n: v for n, v in zip(names[1:], case.inputs[1:]) if n}
    feeds = {"x": case.inputs[0].transpose(1, 0, 2).copy()}
    lengths = case.inputs[4] if len(case.inputs) > 4 else None
    if lengths is not None:
        feeds["i4"] = arrays.pop("i4")
    starts = [n for n in ("i5", "i6") if n in arrays]
    for name in starts:  # of a fixed batch size: not as weights here
        nodes.insert(0, node("Expand", [f"{name}_0", f"{name}_shape"], [name]))
        directions, samples, units = arrays.pop(name).shape
        arrays[f"{name}_0"] = normal(directions, 1, units)
        arrays[f"{name}_shape"] = ints(directions, samples, units)
    return network(nodes, arrays, feeds, opset=case.opset), feeds


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples_of_a_batch_are_told_apart(case):
    model, feeds = sequence(case)
    slots, _ = TOGETHER["", case.op]
    targets = [
        f"i{k}" for k in sorted(slots) if k < len(case.inputs) and case.inputs[k] is not None
    ]
    assert targets[:2] == ["i1", "i2"]
    check_squares(model, feeds, targets)


def test_all_recurrent_operators_are_here():
    assert set(TOGETHER) == {("", op) for op in GATES}
    assert {case.inputs[4] is LENGTHS for case in CASES if len(case.inputs) > 4} == {True, False}


def test_a_batch_on_the_first_axis_of_a_recurrent_operator_is_not_taken_for_samples():
    nodes = [node("RNN", ["x", "w", "r"], ["h"], hidden_size=2), node("Identity", ["h"], ["y"])]
    feeds = {"x": normal(3, 1, 4)}
    weights = {"w": normal(1, 2, 4), "r": normal(1, 2, 2)}
    gradients = Gradients(network(nodes, weights, feeds), Path(), ["y"], ["w"])
    with pytest.raises(NotBatchableError, match="samples"):
        gradients.forward("squares", feeds)


def test_tied_embedding_and_classifier():
    nodes = [
        node("Gather", ["table", "tokens"], ["embedded"]),
        node("MatMul", ["embedded", "w"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["t", "turned"], ["y"]),
    ]
    feeds = {"tokens": np.array([[0, 3, 3], [3, 3, 3], [8, -1, 0]])}
    model = network(nodes, {"table": normal(9, 4), "w": normal(4, 4, seed=2)}, feeds)
    check_squares(model, feeds, ["table", "w"])


def test_a_layer_applied_three_times():
    """Behind Identity too, as PyTorch's exporter writes equal tensors."""
    nodes = [
        node("Identity", ["w"], ["same"]),
        node("Reshape", ["flat", "square"], ["again"]),
        node("Gemm", ["x", "w", "b"], ["h1"], transB=1),
        node("Tanh", ["h1"], ["t1"]),
        node("MatMul", ["t1", "same"], ["h2"]),
        node("Gemm", ["h2", "again", "b"], ["h3"]),
        node("Gemm", ["h3", "again"], ["y"]),
    ]
    constants = {"w": normal(4, 4), "flat": normal(16), "b": normal(4), "square": ints(4, 4)}
    feeds = {"x": normal(3, 4, seed=4)}
    check_squares(network(nodes, constants, feeds), feeds, ["w", "flat", "b"])


def test_a_tied_weight_that_is_cut_needs_one_sample_at_a_time():
    nodes = [
        node("Slice", ["w", "zero", "two"], ["part"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "part"], ["y"]),
    ]
    constants = {"w": normal(4, 2), "zero": ints(0), "two": ints(2)}
    feeds = {"x": normal(3, 4)}
    gradients = Gradients(network(nodes, constants, feeds), Path(), ["y"], ["w"])
    with pytest.raises(NotBatchableError, match="Slice"):
        gradients.forward("squares", feeds)
