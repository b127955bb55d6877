"""Gradients of large tables that are put together outside the reverse pass: the same as within."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from onnxrd.autodiff import tables
from onnxrd.autodiff.gradients import Gradients, batched_squares
from onnxrd.graph.model import load
from onnxrd.graph.session import Runtime
from tests import networks

VOCABULARY, WIDTH, TOKENS = 400, 12, 5


@pytest.fixture
def taken(monkeypatch):
    """Every table counts as large; the tables that were taken out, a set for each reverse pass."""
    calls, take_out = [], tables.take_out
    monkeypatch.setattr(tables, "LARGE", 1)

    def noted(model, shapes):
        calls.append(take_out(model, shapes))
        return calls[-1]

    monkeypatch.setattr(tables, "take_out", noted)
    return calls


def embedding(path, dtype, *, tied=False):
    """Tokens, looked up in two tables, one of them [V, 3, 4] and maybe used a second time."""
    node = networks.node
    nodes = [
        node("Gather", ["words", "ids"], ["e"]),
        node("Gather", ["cubes", "ids"], ["c"]),
        node("Reshape", ["c", "flat"], ["d"]),
        node("Mul", ["e", "d"], ["p"]),
        node("Tanh", ["p"], ["t"]),
        node("MatMul", ["t", "out"], ["y"]),
    ]
    weights = {
        "words": networks.normal(VOCABULARY, WIDTH),
        "cubes": networks.normal(VOCABULARY, 3, 4, seed=1),
        "flat": np.array([0, 0, WIDTH]),
        "out": networks.normal(WIDTH, 7, seed=2),
    }
    if tied:
        nodes[-1:] = [node("Transpose", ["words"], ["w"]), node("MatMul", ["t", "w"], ["y"])]
        del weights["out"]
    inputs = {"ids": (dtype, ["N", TOKENS])}
    return networks.save(path, nodes, weights, inputs, {"y": ["N", TOKENS, None]})


def gradients_of(model, mode, ids):
    weights = [name for name in model.graph.initializers if name != "flat"]
    gradients = Gradients(model, Path(), ["y"], weights, runtime=Runtime(threads=1))
    forward = gradients.forward(mode, {"ids": ids})
    seeds = {"y": networks.rng(3).standard_normal(forward.sources["y"].shape)}
    return batched_squares(gradients, forward, seeds)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mode", ["gradient", "squares"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_tables_are_put_together_as_they_were(dtype, mode, tied, tmp_path, taken, monkeypatch):
    code = ir.DataType.from_numpy(np.dtype(dtype)).value
    model = load(embedding(tmp_path / "m.onnx", code, tied=tied))
    ids = networks.rng().integers(-VOCABULARY, VOCABULARY, (6, TOKENS)).astype(dtype)
    ids[:, 1:3] = ids[0, 0]
    found = gradients_of(model.prepared(), mode, ids)
    assert taken == [{"cubes"} if tied else {"words", "cubes"}]
    monkeypatch.setattr(tables, "LARGE", 1 << 60)
    expected = gradients_of(model.prepared(), mode, ids)
    assert taken[1:] == [set()]
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert array.any()
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-7 * np.abs(array).max())


def test_small_tables_stay(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(tables, "LARGE", VOCABULARY * WIDTH + 1)
    model = load(embedding(tmp_path / "m.onnx", TensorProto.INT64))
    gradients_of(model.prepared(), "squares", np.zeros((2, TOKENS), np.int64))
    assert taken == [set()]
