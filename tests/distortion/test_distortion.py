"""Heads, divergences and seeds, against direct formulas and exact enumeration."""

from itertools import pairwise, product

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxrd
from onnxrd.distortion import (
    Head,
    classification_seed,
    distortion,
    find_heads,
    positions,
    regression_seed,
    sampled_class_seed,
)
from onnxrd.errors import ModelError
from tests import networks

LOGITS = Head("y", "classification", "logits", "y")


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def head_of(tmp_path, *nodes, out=("N", 5), opset=17, task=None):
    """The head of x → MatMul → nodes, the last of which makes y."""
    made = [helper.make_node("MatMul", ["x", "w"], ["a"]), *nodes]
    weights = {"w": networks.normal(12, 5), "b": networks.normal(5, seed=1)}
    path = networks.save(
        tmp_path / "m.onnx", made, weights, {"x": ["N", 12]}, {"y": list(out)}, opset=opset
    )
    (head,) = find_heads(onnxrd.load_model(path).prepared(), task)
    return head


def test_what_the_end_of_a_graph_shows(tmp_path):
    node = helper.make_node
    for op, form in (("Softmax", "probabilities"), ("LogSoftmax", "log-probabilities")):
        head = head_of(tmp_path, node(op, ["a"], ["y"]))
        assert (head.task, head.form, head.source) == ("classification", form, "a")
    head = head_of(tmp_path, node("Softmax", ["a"], ["p"]), node("Identity", ["p"], ["y"]))
    assert (head.output, head.source) == ("y", "a")
    head = head_of(tmp_path, node("Softmax", ["a"], ["y"]), opset=11)
    assert (head.axis, head.flattened) == (1, True)
    head = head_of(tmp_path, node("Add", ["a", "b"], ["y"]))
    assert (head.task, head.form, head.source) == ("classification", "logits", "y")
    for op in ("Tanh", "Relu"):
        assert head_of(tmp_path, node(op, ["a"], ["y"])).task == "regression"
    assert head_of(tmp_path, node("Tanh", ["a"], ["y"]), task="classification").form == "logits"
    assert head_of(tmp_path, node("Softmax", ["a"], ["y"]), task="regression").source == "y"


def test_a_single_column_is_no_classifier(tmp_path):
    made = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": networks.normal(12, 1)}
    path = networks.save(tmp_path / "m.onnx", made, weights, {"x": ["N", 12]}, {"y": ["N", 1]})
    (head,) = find_heads(onnxrd.load_model(path).prepared())
    assert head.task == "regression"


def test_no_floating_point_output(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], axis=1))
    del proto.graph.output[0]
    proto.graph.output.append(helper.make_tensor_value_info("best", 7, None))
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="output"):
        find_heads(onnxrd.load_model(path).prepared())


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6)])
def test_kl_divergence(shape):
    z, other = networks.normal(*shape), networks.normal(*shape, seed=1)
    p, q = softmax(z.astype(float)), softmax(other.astype(float))
    expected = (p * np.log(p / q)).sum(-1).reshape(4, -1).mean(-1)
    np.testing.assert_allclose(distortion(LOGITS, z, other), expected, rtol=1e-6)
    for form, f in (("probabilities", lambda v: v), ("log-probabilities", np.log)):
        head = Head("y", "classification", form, "a")
        np.testing.assert_allclose(distortion(head, f(p), f(q)), expected, rtol=1e-6)
    assert (distortion(LOGITS, z, z) == 0).all()
    channels = Head("y", "classification", "logits", "y", axis=1)
    moved = distortion(channels, np.moveaxis(z, -1, 1), np.moveaxis(other, -1, 1))
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_squared_error():
    head = Head("y", "regression", "values", "y")
    a, b = networks.normal(4, 3, 2), networks.normal(4, 3, 2, seed=1)
    expected = ((a.astype(float) - b) ** 2).reshape(4, -1).sum(1)
    np.testing.assert_allclose(distortion(head, a, b), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_seeds_have_the_fisher_information_as_second_moment(temperature):
    """Exactly, by enumeration of all signs, of all unit vectors, and of all classes."""
    z = networks.normal(1, 5)
    f = softmax(z[0].astype(float) / temperature)
    expected = (np.diag(f) - np.outer(f, f)) / temperature**2

    def moment(seeds, weights):
        return sum(w * np.outer(s[0], s[0]) for s, w in zip(seeds, weights))

    signs = [np.array(e, float).reshape(1, 1, 5) for e in product((-1, 1), repeat=5)]
    seeds = [classification_seed(LOGITS, z, e, temperature) for e in signs]
    np.testing.assert_allclose(moment(seeds, [1 / 32] * 32), expected, atol=1e-12)
    units = [np.eye(5)[k].reshape(1, 1, 5) for k in range(5)]
    seeds = [classification_seed(LOGITS, z, e, temperature) for e in units]
    np.testing.assert_allclose(moment(seeds, [1] * 5), expected, atol=1e-12)
    edges = np.concatenate([[0], f.cumsum()])
    drawn = [np.full((1, 1), (a + b) / 2) for a, b in pairwise(edges)]
    seeds = [sampled_class_seed(LOGITS, z, u, temperature) for u in drawn]
    np.testing.assert_allclose(moment(seeds, f), expected, atol=1e-12)


def test_seeds_of_sequences_are_scaled_to_the_mean_over_positions():
    z = networks.normal(2, 3, 4)
    assert positions(LOGITS, z.shape) == (3, 4)
    directions = np.zeros((2, 3, 4))
    directions[:, 1, 2] = 1
    seed = classification_seed(LOGITS, z, directions)
    assert (seed[:, [0, 2]] == 0).all()
    alone = classification_seed(LOGITS, z[:, 1], directions[:, 1:2])
    np.testing.assert_allclose(seed[:, 1], alone / np.sqrt(3))
    channels = Head("y", "classification", "logits", "y", axis=1)
    moved = classification_seed(channels, np.moveaxis(z, -1, 1), directions)
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), seed)


def test_old_softmax_takes_all_axes_together():
    head = Head("y", "classification", "probabilities", "a", axis=1, flattened=True)
    assert positions(head, (2, 3, 4)) == (1, 12)
    z = networks.normal(2, 3, 4)
    seed = classification_seed(head, z, np.ones((2, 1, 12)))
    flat = classification_seed(LOGITS, z.reshape(2, 12), np.ones((2, 1, 12)))
    np.testing.assert_allclose(seed.reshape(2, 12), flat)


def test_regression_seed():
    head = Head("y", "regression", "values", "y")
    assert positions(head, (2, 3, 4)) == (1, 12)
    seed = regression_seed(head, np.zeros((2, 3, 4)), np.ones((2, 1, 12)))
    np.testing.assert_allclose(seed, np.full((2, 3, 4), np.sqrt(2)))
