"""From one end to the other: control flow, ties, half precision, settings among the inputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from onnxrd.pipeline.compressor import prepared_compressor
from tests import networks

node = helper.make_node


def measured(path, data, *, clusters=8, **options):
    """Importance, and the result of quantizing with it."""
    model = onnxrd.load_model(path)
    loaded = onnxrd.load_data(data, model.inputs)
    h = onnxrd.fisher(model, loaded)
    assert not h.proxies
    settings = onnxrd.Options(force=True, **options)
    small = path.with_name("small.onnx")
    arguments = {"importance": h, "data": data, "options": settings}
    return h, onnxrd.quantize(path, small, clusters=clusters, **arguments)


def scanning(path):
    """[N, T, 6] through a cell in the body of a Scan; R lies within, w is taken from outside."""
    nodes = [
        node("MatMul", ["before", "R"], ["kept"]),
        node("MatMul", ["now", "w"], ["new"]),
        node("Add", ["kept", "new"], ["sum"]),
        node("Tanh", ["sum"], ["after"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("before", "now")]
    last = helper.make_tensor_value_info("after", TensorProto.FLOAT, None)
    inner = [numpy_helper.from_array(networks.normal(16, 16, scale=0.3), "R")]
    body = helper.make_graph(nodes, "cell", ends, [last], inner)
    nodes = [
        node("Gather", ["x", "first"], ["x0"], axis=1),
        node("MatMul", ["x0", "v"], ["start"]),
        node("Scan", ["start", "x"], ["end"], body=body, num_scan_inputs=1, scan_input_axes=[1]),
        node("MatMul", ["end", "u"], ["y"]),
    ]
    weights = {
        "first": np.array(0),
        "v": networks.normal(6, 16, seed=1),
        "w": networks.normal(6, 16, seed=2),
        "u": networks.normal(16, 5, seed=3),
    }
    return networks.save(path, nodes, weights, {"x": ["N", "T", 6]}, {"y": ["N", 5]})


def test_weights_within_a_scan(tmp_path):
    h, result = measured(scanning(tmp_path / "m.onnx"), {"x": networks.normal(12, 4, 6)})
    assert h.path == "batched"
    assert {layer.name for layer in result.layers} == {"v", "w", "u", "R"}
    assert all(h.values[name].all() for name in "vwuR")
    assert result.evaluation.distortion == pytest.approx(result.predicted, rel=0.7)
    assert [n.op_type for n in onnx.load(result.path).graph.node].count("Scan") == 1


def switched(path):
    """A branch for each of two settings, with a weight of its own."""
    result = [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)]
    branches = {}
    for seed, name in enumerate(("then", "else")):
        array = numpy_helper.from_array(networks.normal(12, 16, seed=seed), name)
        nodes = [node("MatMul", ["x", name], ["h"])]
        branches[f"{name}_branch"] = helper.make_graph(nodes, name, [], result, [array])
    nodes = [
        node("Equal", ["rate", "high"], ["is_high"]),
        node("If", ["is_high"], ["b"], **branches),
        node("Tanh", ["b"], ["t"]),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    weights = {"high": np.array(16000), "w": networks.normal(16, 5, seed=2)}
    inputs = {"x": ["N", 12], "rate": (TensorProto.INT64, [])}
    return networks.save(path, nodes, weights, inputs, {"y": ["N", 5]})


def test_a_setting_chooses_the_branch(tmp_path):
    rates = [16000, 8000, 16000, 16000]
    x = networks.normal(4, 1, 12)
    calls = [{"x": x[k], "rate": np.array(rate)} for k, rate in enumerate(rates)]
    path = switched(tmp_path / "m.onnx")
    h, result = measured(path, calls)
    assert {layer.name for layer in result.layers} == {"then", "else", "w"}
    model = onnxrd.load_model(path)
    for name, rate, share in (("then", 16000, 3 / 4), ("else", 8000, 1 / 4)):
        mine = [call for call in calls if call["rate"] == rate]
        alone = onnxrd.fisher(
            model, onnxrd.load_data(mine, model.inputs), estimator=onnxrd.Estimator("exact")
        )
        every = onnxrd.fisher(
            model, onnxrd.load_data(calls, model.inputs), estimator=onnxrd.Estimator("exact")
        )
        np.testing.assert_allclose(every.values[name], share * alone.values[name], rtol=1e-4)
        assert h.values[name].any()


def looking_up(path):
    """A table of words in a branch, which is always taken."""
    result = [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)]
    table = [numpy_helper.from_array(networks.normal(40, 16), "table")]
    then = [node("Gather", ["table", "ids"], ["h"])]
    other = [node("Gather", ["spare", "ids"], ["h"])]
    branches = {
        "then_branch": helper.make_graph(then, "then", [], result, table),
        "else_branch": helper.make_graph(other, "else", [], result),
    }
    nodes = [node("If", ["yes"], ["b"], **branches), node("MatMul", ["b", "w"], ["y"])]
    weights = {
        "yes": np.array(True),
        "w": networks.normal(16, 5, seed=2),
        "spare": networks.normal(40, 16, seed=3),
    }
    inputs = {"ids": (TensorProto.INT32, ["N"])}
    return networks.save(path, nodes, weights, inputs, {"y": ["N", 5]})


def test_weights_that_no_encoding_makes_smaller_are_written_as_they_were_measured(tmp_path):
    data = {"ids": networks.rng().integers(0, 40, 60).astype(np.int32)}
    model = onnxrd.load_model(looking_up(tmp_path / "m.onnx"))
    compressor = prepared_compressor(model, data, None, onnxrd.Options(force=True))
    point = compressor.point(4e-5)
    written = compressor.write(point, tmp_path / "s.onnx", tmp_path / "s.onnx")
    assert "dense" in {layer.encoding for layer in written.layers}
    assert written.evaluation.distortion == pytest.approx(point.damage.distortion, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "inside", "data"),
    [
        (scanning, "R", {"x": networks.normal(40, 4, 6)}),
        (networks.with_branches, "inside", {"x": networks.normal(40, 12)}),
        (looking_up, "table", {"ids": networks.rng().integers(0, 40, 60).astype(np.int32)}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_within_bodies_to_a_target(make, inside, data, tmp_path):
    path = make(tmp_path / "m.onnx")
    target, options = onnxrd.Target("kl", 0.02), onnxrd.Options(force=True)
    result = onnxrd.compress(
        path, tmp_path / "small.onnx", target=target, data=data, options=options
    )
    assert inside in {layer.name for layer in result.layers}
    assert 0 < result.evaluation.distortion <= 0.02


def test_a_tied_weight_has_one_code_and_one_price(tmp_path):
    nodes = [
        node("Gather", ["table", "tokens"], ["e"]),
        node("ReduceMean", ["e"], ["mean"], axes=[1], keepdims=0),
        node("Tanh", ["mean"], ["t"]),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["t", "turned"], ["y"]),
    ]
    table = networks.normal(60, 16, scale=0.5)
    inputs = {"tokens": (TensorProto.INT64, ["N", "T"])}
    path = networks.save(tmp_path / "m.onnx", nodes, {"table": table}, inputs, {"y": ["N", 60]})
    h, result = measured(path, {"tokens": networks.rng().integers(0, 60, (20, 7))}, clusters=16)
    assert h.path == "batched"
    (layer,) = result.layers
    assert table.size / 2 < layer.nbytes < table.size / 2 + 250
    written = onnx.load(result.path).graph
    assert sum(len(tensor.raw_data) >= table.size / 2 for tensor in written.initializer) == 1
    assert [n.op_type for n in written.node if "table" in n.input] == ["Gather", "Transpose"]


def halved(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path.with_name("half.onnx"))
    return path.with_name("half.onnx")


@pytest.mark.parametrize(("make", "shape"), [(networks.mlp, [12]), (networks.cnn, [2, 8, 8])])
def test_networks_in_half_precision(tmp_path, make, shape):
    x = networks.normal(20, *shape)
    single = make(tmp_path / "m.onnx")
    expected, _ = measured(single, {"x": x})
    h, result = measured(halved(single), {"x": x.astype(np.float16)})
    assert h.path == "batched"
    for name, value in expected.values.items():
        assert h.values[name].dtype == np.float32
        assert h.values[name].mean() == pytest.approx(value.mean(), rel=0.05)
    assert result.evaluation.distortion == pytest.approx(result.predicted, rel=0.7)
    types = {t.data_type for t in onnx.load(result.path).graph.initializer}
    assert TensorProto.FLOAT not in types


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_on_grids_and_trellises(tmp_path, kind):
    """Weights that are stored in half precision and cast where they are used."""
    nodes = [
        node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "wide"], ["y"]),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = networks.normal(64, 300, scale=0.1).astype(dtype)
    tensor = helper.make_tensor("w", kind, weight.shape, weight.tobytes(), raw=True)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 300])],
        [tensor],
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    data = {"x": networks.normal(200, 64, seed=3)}
    for name, found in {
        "grid": onnxrd.quantize(path, tmp_path / "grid.onnx", bits=3, data=data),
        "trellis": onnxrd.quantize(path, tmp_path / "t.onnx", bits=3, trellis=True, data=data),
        "feedback": onnxrd.compress(
            path, tmp_path / "f.onnx", target=onnxrd.Target("bits", 5), data=data
        ),
    }.items():
        assert [layer.encoding for layer in found.layers] == ["entropy"], name
        assert found.evaluation.distortion < 0.05


@pytest.mark.parametrize("kind", ["zero weight", "zero head", "dead", "constant"])
def test_weights_that_cost_nothing_are_in_no_ones_way(kind, tmp_path):
    """All zero, or in front of units that are always off; the output may be zero, too."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "z"], ["s"]),
        node("Gemm", ["r", "v", "c"], ["t"]),
        node("Add", ["s", "t"], ["y"]),
    ]
    weights = {
        "w": networks.normal(12, 24),
        "b": networks.normal(24, seed=1),
        "z": np.zeros((24, 8), np.float32),
        "v": networks.normal(24, 8, seed=2),
        "c": networks.normal(8, seed=3),
    }
    if kind == "zero head":
        weights |= {"v": weights["z"], "c": weights["z"][0]}
    if kind in ("dead", "constant"):
        weights["b"] = np.full(24, -1e3, np.float32)
    if kind == "dead":
        weights["c"] = weights["z"][0]
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 8]})
    result = onnxrd.compress(
        path,
        tmp_path / "s.onnx",
        target=onnxrd.Target("error", 0.02),
        data={"x": networks.normal(40, 12)},
        options=onnxrd.Options(task="regression", force=True),
    )
    error = result.evaluation.relative_error
    assert (error or 0) < (0.03 if kind == "zero weight" else 1e-4)
    assert result.evaluation.distortion < 1e-4 or kind == "zero weight"
