"""Large matrices that sessions are fed with: which ones, and that nothing else changes."""

from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

import tests.autodiff.random_steps  # noqa: F401  (fills the steps)
from onnxrd.autodiff import lending
from onnxrd.autodiff.lending import LARGE, lend
from onnxrd.graph.model import load
from onnxrd.graph.session import Runtime, Session
from tests.autodiff.random_networks import STEPS, networks
from tests.autodiff.test_random_networks import SETTINGS, check_batches, check_gradients

SIDE = int(LARGE**0.5)
ONE = Runtime(threads=1)


def model_of(*nodes):
    """x [N, SIDE] and matrices `a` and `b`, to y."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((SIDE, SIDE)).astype(np.float32) for name in "ab"}
    graph = helper.make_graph(
        [helper.make_node(op, inputs.split(), [out]) for op, inputs, out in nodes],
        "lending",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PRODUCTS = [("MatMul", "x a", "h"), ("Transpose", "b", "t"), ("Gemm", "h t", "y")]


@pytest.fixture
def loaded(tmp_path):
    def load_model_of(*nodes, **options):
        path = tmp_path / "model.onnx"
        helper_save(model_of(*nodes), path, **options)
        return load(path)

    return load_model_of


def helper_save(proto, path, **options):
    ir.save(ir.from_proto(proto), path, **options)


def test_matrices_of_products_are_lent(loaded):
    whole, model = loaded(*PRODUCTS).prepared(), loaded(*PRODUCTS).prepared()
    lent = lend(model)
    assert set(lent) == {"a", "b"}
    assert not model.graph.initializers
    feeds = {"x": np.ones((2, SIDE), np.float32)}
    expected = Session(whole, runtime=ONE).run(feeds)["y"]
    found = Session(model, runtime=ONE, lent=lent).run(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_what_is_lent_is_not_copied(loaded):
    model = loaded(*PRODUCTS)
    (first, again) = (lend(model.prepared())["a"] for _ in range(2))
    assert np.shares_memory(first, again)


@pytest.mark.parametrize("other", [("Add", "h b", "y"), ("Mul", "b h", "y")])
def test_matrices_with_other_uses_are_not(loaded, other):
    nodes = [PRODUCTS[0], other]
    assert set(lend(loaded(*nodes).prepared())) == {"a"}


def test_matrices_in_external_data_are_not(loaded):
    model = loaded(*PRODUCTS, external_data="weights.bin", size_threshold_bytes=0)
    assert lend(model.prepared()) == {}


@settings(SETTINGS, max_examples=10)
@given(networks([step for step in STEPS if step[0] in ("MatMul", "Gemm", "Add", "Tanh", "Gather")]))
def test_gradients_are_the_same(network):
    with mock.patch.object(lending, "LARGE", 1):
        check_batches(network)
        check_gradients(network)
