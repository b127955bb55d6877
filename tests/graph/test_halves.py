"""Which vectors may be in half precision, and what that does to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from onnxrd.graph.halves import LARGEST, halves, rounded
from onnxrd.graph.model import load
from onnxrd.graph.weights import find_weights
from tests import networks

node = helper.make_node
X, Y = {"x": ["N", 8, 5, 5]}, {"y": [None] * 4}
WIDE = networks.normal(8, 1, 1, seed=4)


def found(path, nodes, weights, **options):
    path = networks.save(path, nodes, weights, X, Y, **options)
    return halves(find_weights(load(path)))


def conv(name, bias):
    return {"w": networks.normal(8, 8, 1, 1), "b": bias}, [node("Conv", ["x", "w", "b"], [name])]


def test_biases_and_scales_of_layers(tmp_path):
    weights, nodes = conv("c", networks.normal(8))
    nodes += [
        node("BatchNormalization", ["c", "g", "h", "m", "v"], ["n"]),
        node("Mul", ["n", "s"], ["scaled"]),
        node("PRelu", ["scaled", "p"], ["y"]),
    ]
    weights |= {n: networks.normal(8, seed=k) for k, n in enumerate("ghm")}
    weights |= {"v": 1 + networks.normal(8) ** 2, "s": WIDE, "p": WIDE}
    vectors = found(tmp_path / "m.onnx", nodes, weights)
    assert set(vectors) == set("bghmvsp")
    for name, vector in vectors.items():
        assert vector.dtype == np.float32
        assert vector.tobytes() == weights[name].astype(np.float16).astype(np.float32).tobytes()


@pytest.mark.parametrize(
    "tail",
    [
        [node("Relu", ["c"], ["r"]), node("Add", ["r", "k"], ["y"])],
        [node("Sub", ["c", "k"], ["y"])],
        [node("Div", ["c", "k"], ["y"])],
        [
            node("Cast", ["k"], ["i"], to=7),
            node("Cast", ["i"], ["f"], to=1),
            node("Add", ["c", "f"], ["y"]),
        ],
        [node("Less", ["c", "k"], ["l"]), node("Where", ["l", "c", "k"], ["y"])],
        [node("Add", ["x", "k"], ["s"]), node("Add", ["c", "s"], ["y"])],
        [
            node("Add", ["c", "k"], ["s"]),
            node("Floor", ["k"], ["f"]),
            node("Add", ["s", "f"], ["y"]),
        ],
    ],
    ids=["no layer", "minus", "divided", "integers", "compared", "input", "both"],
)
def test_other_constants_stay(tail, tmp_path):
    """Coordinates, masks, what is counted with: all that is more than added to a layer."""
    weights, nodes = conv("c", networks.normal(8))
    vectors = found(tmp_path / "m.onnx", [*nodes, *tail], weights | {"k": WIDE})
    assert set(vectors) == {"b"}


@pytest.mark.parametrize(
    "vector",
    [
        np.full(8, -3.4e38),
        np.array([1.0] * 7 + [-np.inf]),
        np.array([1.0] * 7 + [np.nan]),
        np.array([1.0] * 7 + [2 * LARGEST]),
        np.full(8, 1e-6),
    ],
    ids=["mask", "infinite", "not a number", "large", "small"],
)
def test_what_half_precision_cannot_hold_stays(vector, tmp_path):
    weights, nodes = conv("y", vector.astype(np.float32))
    if np.isfinite(vector).all():
        assert found(tmp_path / "m.onnx", nodes, weights) == {}
    else:
        path = networks.save(tmp_path / "m.onnx", nodes, weights, X, Y)
        assert halves(find_weights(load(path))) == {}


def test_small_entries_among_others_matter_to_variances_alone(tmp_path):
    weights, nodes = conv("c", np.array([1.0] * 7 + [1e-6], np.float32))
    nodes.append(node("BatchNormalization", ["c", "b2", "b2", "b2", "v"], ["y"]))
    weights |= {"b2": weights["b"], "v": weights["b"]}
    assert set(found(tmp_path / "m.onnx", nodes, weights)) == {"b", "b2"}


def test_other_types_stay(tmp_path):
    array = networks.normal(8).astype(np.float64)
    nodes = [node("Conv", ["x", "w", "b"], ["y"])]
    weights = {"w": networks.normal(8, 8, 1, 1).astype(np.float64), "b": array}
    path = networks.save(
        tmp_path / "m.onnx",
        nodes,
        weights,
        {"x": (TensorProto.DOUBLE, ["N", 8, 5, 5])},
        {"y": (TensorProto.DOUBLE, [None] * 4)},
    )
    assert halves(find_weights(load(path))) == {}


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)))
def test_rounding_is_to_the_nearest_and_never_to_infinity(array):
    once = rounded(array)
    assert np.isfinite(once).all()
    assert rounded(once).tobytes() == once.tobytes()
    inside = np.abs(array) <= 65504
    error = np.abs(once.astype(np.float64) - array)[inside]
    assert (error <= np.fmax(2.0**-11 * np.abs(array[inside]), 2.0**-25)).all()
    assert (np.abs(once[~inside]) == 65504).all()
