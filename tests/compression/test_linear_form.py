"""Every linear form against the operator itself, run by onnxruntime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxrd
from onnxrd.compression.network import Network
from onnxrd.graph.weights import find_weights
from onnxrd.importance.linear_form import linear_form
from tests import networks
from tests.networks import node, normal

FUSED = {"domain": "com.microsoft"}
AS_IS = {"activation": "LeakyRelu", "activation_alpha": 1.0}
VALUES = (np.arange(48) >= 32).astype(np.float32)
ZEROS = np.zeros((16, 16), np.float32)

CASES = {
    "Conv": (
        [node("Conv", ["x", "w", "b"], ["y"], pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])],
        {"w": normal(6, 4, 3, 2), "b": normal(6, seed=2)},
        [3, 4, 9, 8],
    ),
    "Conv in groups": (
        [node("Conv", ["x", "w"], ["y"], group=2, auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": normal(6, 4, 3, 3)},
        [3, 8, 7, 7],
    ),
    "Conv of depth": (
        [node("Conv", ["x", "w"], ["y"], group=8, pads=[1, 1])],
        {"w": normal(8, 1, 3)},
        [2, 8, 12],
    ),
    "FusedConv": (
        [node("FusedConv", ["x", "w", "b"], ["y"], group=2, pads=[1, 1, 1, 1], **FUSED)],
        {"w": normal(6, 2, 3, 3), "b": normal(6, seed=2)},
        [3, 4, 5, 5],
    ),
    "FusedGemm": (
        [node("FusedGemm", ["x", "w", "b"], ["y"], transB=1, **AS_IS, **FUSED)],
        {"w": normal(16, 70), "b": normal(16, seed=2)},
        [5, 70],
    ),
    "Attention to one position": (
        [
            node("Attention", ["x", "w", "b"], ["v"], num_heads=2, **FUSED),
            node("MatMul", ["x", "qk"], ["z"]),
            node("Concat", ["z", "z", "v"], ["y"], axis=2),
        ],
        {"w": normal(16, 48) * VALUES, "b": normal(48, seed=2) * VALUES, "qk": ZEROS},
        [3, 1, 16],
    ),
    "Gemm": (
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        {"w": normal(16, 70), "b": normal(16, seed=2)},
        [5, 70],
    ),
    "Gemm, not transposed": ([node("Gemm", ["x", "w"], ["y"])], {"w": normal(70, 16)}, [5, 70]),
    "MatMul": (
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])],
        {"w": normal(70, 16), "b": normal(16, seed=2)},
        [3, 5, 70],
    ),
    "MatMul from the left": (
        [node("MatMul", ["w", "x"], ["y"])],
        {"w": normal(16, 70)},
        [3, 70, 5],
    ),
    "MatMul of a vector": ([node("MatMul", ["x", "w"], ["y"])], {"w": normal(70, 16)}, [70]),
    "MatMul of a vector from the left": (
        [node("MatMul", ["w", "x"], ["y"])],
        {"w": normal(16, 70)},
        [70],
    ),
    "MatMul behind Transpose": (
        [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])],
        {"w": normal(16, 70)},
        [3, 5, 70],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_products_at_all_positions_are_the_outputs(case, tmp_path):
    nodes, weights, shape = CASES[case]
    x = normal(*shape, seed=1)
    path = networks.save(
        tmp_path / "m.onnx", nodes, weights, {"x": shape}, {"y": [None] * len(shape)}
    )
    model = onnxrd.load_model(path)
    prepared = model.prepared()
    (weight,) = [w for w in find_weights(model, prepared) if w.name == "w"]
    form = linear_form(weight)
    assert form is not None
    assert form.tap == "x"
    assert form.bias == ("b" if "b" in weights else "")
    inputs = form.columns(x, np.random.default_rng(0), 1 << 30)  # [G, P, K]
    matrices = form.matrices(weights["w"])
    np.testing.assert_array_equal(form.weight(matrices, weights["w"].shape), weights["w"])
    products = np.einsum("grk,gpk->pgr", matrices, inputs).reshape(inputs.shape[1], -1)
    if form.bias:
        products = products + weights["b"]
    expected = output(path, x)
    expected = np.moveaxis(expected, max(form.axis, -expected.ndim), -1)
    rows = expected.reshape(-1, expected.shape[-1])
    np.testing.assert_allclose(products, rows, rtol=1e-4, atol=1e-5)
    made = {name for one in onnx.load(path).graph.node for name in one.output}
    assert form.output in made or (nodes[0].domain and not form.output)


def output(path, x):
    return ort.InferenceSession(path).run(None, {"x": x})[0]


def sharing(path, second, output):
    """x → MatMul → m, and w is used again by what makes y."""
    nodes = [node("MatMul", ["x", "w"], ["m"]), *second]
    weights, inputs = {"w": normal(40, 40)}, {"x": ["N", 40], "z": ["N", 40]}
    return onnxrd.load_model(networks.save(path, nodes, weights, inputs, {"y": output}))


def test_a_weight_that_multiplies_another_way_as_well_has_none(tmp_path):
    second = [node("MatMul", ["w", "m"], ["y"])]
    (weight,) = find_weights(sharing(tmp_path / "m.onnx", second, [40, 40]))
    assert linear_form(weight) is None


@pytest.mark.parametrize("other", ["z", "m"])
def test_a_weight_of_two_layers_is_fitted_to_the_inputs_of_both(other, tmp_path):
    """Unless one of them lies behind the other."""
    second = [node("MatMul", [other, "w"], ["n"]), node("Concat", ["m", "n"], ["y"], axis=1)]
    model = sharing(tmp_path / "m.onnx", second, ["N", 80])
    prepared = model.prepared()
    weights = find_weights(model, prepared)
    form = linear_form(weights[0])
    assert [place.tap for place in form.places] == ["x", other]
    assert form.bias == form.output == ""
    feeds = {"x": normal(12, 40, seed=1), "z": normal(12, 40, seed=2)}
    network = Network(model, prepared, weights, onnxrd.load_data(feeds, model.inputs))
    if other == "m":
        assert (network.layers, network.loose) == ([], weights)
        return
    (layer,) = network.layers
    assert not network.loose
    inputs = np.concatenate(network.columns(layer, network.walk().advance({})), axis=1)[0]
    both = np.concatenate([feeds["x"], feeds["z"]])
    np.testing.assert_array_equal(np.sort(inputs, axis=0), np.sort(both, axis=0))


@pytest.mark.parametrize(
    ("op", "constant", "weight"),
    [
        ("MatMul", normal(4, 40), normal(40, 16)),
        ("Gemm", normal(1, 40), normal(40, 16)),
        ("Conv", normal(1, 4, 6, 6), normal(8, 4, 3, 3)),
    ],
)
def test_a_weight_that_multiplies_a_constant_has_none(op, constant, weight, tmp_path):
    nodes = [node(op, ["c", "w"], ["m"]), node("ReduceSum", ["m"], ["s"])]
    nodes.append(node("Mul", ["x", "s"], ["y"]))
    arrays = {"c": constant, "w": weight}
    outputs = {"y": [None] * weight.ndim}
    path = networks.save(tmp_path / "m.onnx", nodes, arrays, {"x": [5]}, outputs)
    model = onnxrd.load_model(path)
    weights = find_weights(model, model.prepared())
    assert {weight.name for weight in weights} >= {"w"}
    assert all(linear_form(weight) is None for weight in weights if not weight.skip)


@pytest.mark.parametrize(
    ("shape", "factors", "fits"),
    [
        ([16], {}, True),
        ([1, 16], {"alpha": 2.0, "beta": 2.0}, True),
        ([16], {"alpha": 4.0, "beta": 0.25}, False),
        ([16], {"beta": 2.0}, False),
        ([16, 1], {}, False),
    ],
)
def test_a_constant_that_gemm_adds_as_often_as_the_product_to_each_column_is_a_bias(
    shape, factors, fits, tmp_path
):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], **factors)]
    weights = {"w": normal(70, 16), "b": normal(*shape)}
    assert bias(tmp_path / "m.onnx", nodes, weights, {"y": [16, 16]}) == ("b" if fits else "")


@pytest.mark.parametrize("op", ["Gemm", "Add"])
def test_a_bias_that_is_an_output_stays(op, tmp_path):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"])]
    if op == "Add":
        nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    weights = {"w": normal(70, 16), "b": normal(16)}
    for outputs, found in (({"y": [16, 16]}, "b"), ({"y": [16, 16], "b": [16]}, "")):
        assert bias(tmp_path / "m.onnx", nodes, weights, outputs) == found


def bias(path, nodes, weights, outputs):
    model = onnxrd.load_model(networks.save(path, nodes, weights, {"x": [16, 70]}, outputs))
    (weight,) = [w for w in find_weights(model, model.prepared()) if w.name == "w"]
    return linear_form(weight).bias
