"""A lean network is the same network, and whatever somebody may go by is still there."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from onnxrd.evaluation import example_feeds
from onnxrd.graph.bodies import values_of
from onnxrd.graph.lean import lean
from onnxrd.graph.model import load
from onnxrd.graph.session import LEVELS, Runtime, Session
from onnxrd.graph.weights import names_of_weights
from tests import networks
from tests.autodiff import random_networks, random_steps  # noqa: F401
from tests.pipeline.test_structures import scanning, switched

node = helper.make_node
ONE = Runtime(threads=1)


def looping(path):
    """Steps of a Loop whose body and the main graph name values alike."""
    inner = [
        node("MatMul", ["state", "w"], ["a"]),
        node("Add", ["a", "bias"], ["sum"]),
        node("Tanh", ["sum"], ["b"]),
        node("Identity", ["go"], ["on"]),
    ]
    ends = {
        "i": (TensorProto.INT64, []),
        "go": (TensorProto.BOOL, []),
        "state": (TensorProto.FLOAT, None),
    }
    outs = [helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
    outs += [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    body = helper.make_graph(
        inner,
        "body",
        [helper.make_tensor_value_info(n, *kind) for n, kind in ends.items()],
        outs,
        [numpy_helper.from_array(networks.normal(12, seed=1), "bias")],
    )
    nodes = [
        node("Loop", ["trips", "", "x"], ["c"], body=body),
        node("Mul", ["c", "d"], ["e"]),
        node("Dropout", ["e", "", ""], ["f", ""]),
        node("MatMul", ["f", "q"], ["y"]),
    ]
    weights = {
        "trips": np.array(3),
        "w": networks.normal(12, 12, scale=0.3),
        "d": networks.normal(12, seed=2),
        "q": networks.normal(12, 9, seed=3),
    }
    return networks.save(path, nodes, weights, {"x": ["N", 12]}, {"y": ["N", 9]})


def overriding(path):
    """Every initializer may be fed instead."""
    model = onnx.load(networks.mlp(path, opset=8, ir_version=4))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    onnx.save(model, path)
    return path


def again(path):
    """A file that was compressed before."""
    networks.mlp(path, sizes=(12, 90, 70, 5))
    small = path.with_name("before.onnx")
    return onnxrd.quantize(path, small, options=onnxrd.Options(keep_names=True)).path


MAKERS = {
    "dense": networks.mlp,
    "convolutions": networks.cnn,
    "recurrent": networks.recurrent,
    "function": networks.with_function,
    "branches": networks.with_branches,
    "external": networks.external,
    "scan": scanning,
    "switch": switched,
    "loop": looping,
    "overriding": overriding,
    "again": again,
}


def wordy(path):
    """The same file, as exporters write them: notes on everything, shapes of all that is known."""
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.value_info.extend(inferred.graph.value_info[len(model.graph.value_info) :])
    _annotate(model.graph.node)
    for function in model.functions:
        if function.domain != "onnxrd":
            _annotate(function.node)
            function.doc_string = "of a function"
    notes = [model, model.graph] if model.ir_version >= 10 else [model]
    for entry in notes:
        entry.metadata_props.add(key="characters", value="0123456789")
    model.doc_string = model.graph.doc_string = "about it"
    onnx.save(model, path)
    return load(path)


def _annotate(nodes):
    for number, one in enumerate(nodes):
        one.name, one.doc_string = f"/network/layer.{number}", "File network.py, line 12"
        one.metadata_props.add(key="stack trace", value="File network.py, line 12")
        for attribute in one.attribute:
            attribute.doc_string = "of an attribute"
            for graph in (*attribute.graphs, attribute.g):
                _annotate(graph.node)


def leaned(model, keep=()):
    copy = model.clone()
    lean(copy, {*names_of_weights(model), *keep})
    return copy


def assert_same_network(model, small, feeds):
    before, after = (Counter(n.op_type for n in m.graph.all_nodes()) for m in (model.ir, small))
    assert after <= before
    base = model.path.parent
    for level in LEVELS:
        a, b = (
            Session(graph, base=base, level=level, runtime=ONE).run(feeds)
            for graph in (model.clone(), small)
        )
        assert list(a) == list(b)
        assert all(a[name].tobytes() == b[name].tobytes() for name in a), level


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_lean_network_is_the_same(make, tmp_path):
    model = wordy(make(tmp_path / "m.onnx"))
    small = leaned(model)
    assert_same_network(model, small, example_feeds(model.inputs))
    proto = ir.to_proto(small)
    data = proto.SerializeToString()
    if make is not networks.external:
        onnx.checker.check_model(data)
    assert b"network.py" not in data
    assert b"layer." not in data
    assert b"of a" not in data
    assert len(data) < len(ir.to_proto(model.clone()).SerializeToString())
    assert (proto.doc_string, proto.graph.doc_string) == ("about it", "about it")
    assert [p.value for p in proto.metadata_props] == ["0123456789"]
    assert [v.name for v in proto.graph.output] == list(model.outputs)
    original = ir.to_proto(model.clone()).graph
    assert proto.graph.input == original.input
    assert proto.graph.output == original.output


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_names(make, tmp_path):
    """Those of weights stay, the others are short and nobody has the same."""
    model = wordy(make(tmp_path / "m.onnx"))
    small = leaned(model)
    names = [v.name for graph in small.graphs() for v in values_of(graph) if v.name]
    assert len(set(names)) == len(names)
    before = {v.name for graph in model.ir.graphs() for v in values_of(graph)}
    kept = before & names_of_weights(model)
    assert kept <= set(names)
    kept |= {v.name for v in (*small.graph.inputs, *small.graph.outputs)}
    others = [name for name in names if name not in kept]
    assert max(map(len, others), default=0) <= 2
    assert not any(name.startswith("q") for name in others)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_lean_is_as_lean_as_it_gets(make, tmp_path):
    model = wordy(make(tmp_path / "m.onnx"))
    small = leaned(model)
    copy, twice = small.clone(), small.clone()
    lean(twice, names_of_weights(model))
    first, *others = (ir.to_proto(m).SerializeToString() for m in (small, copy, twice))
    assert others == [first, first]


@settings(max_examples=25, deadline=None)
@given(random_networks.networks())
def test_random_networks(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("lean") / "m.onnx"
    onnx.save(network.model(np.float32), path)
    model = wordy(path)
    feeds = {"x": networks.normal(*network.shapes["x"])}
    assert_same_network(model, leaned(model), feeds)


def test_names_to_keep_are_not_given_to_others(tmp_path):
    nodes = [
        node("MatMul", ["x", "c"], ["b"]),
        node("Add", ["b", "some.bias"], ["sum"]),
        node("Relu", ["sum"], ["a"]),
        node("MatMul", ["a", "d"], ["e"]),
    ]
    weights = {
        "c": networks.normal(12, 20),
        "d": networks.normal(20, 8),
        "some.bias": networks.normal(20),
    }
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"e": ["N", 8]})
    model = load(path)
    small = leaned(model, keep=["b"])
    assert [v.name for n in small.graph for v in n.outputs] == ["b", "f", "g", "e"]
    assert set(small.graph.initializers) == {"c", "d", "a"}
    assert_same_network(model, small, {"x": networks.normal(3, 12)})


def test_shapes_stay_that_nothing_else_tells(tmp_path):
    """The shape after a Reshape by an input; not that of what follows from it."""
    nodes = [
        node("Reshape", ["x", "shape"], ["reshaped"]),
        node("MatMul", ["reshaped", "w"], ["product"]),
        node("Relu", ["product"], ["y"]),
    ]
    inputs = {"x": ["N", 24], "shape": (TensorProto.INT64, [2])}
    weights = {"w": networks.normal(12, 8)}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, inputs, {"y": [None, 8]})
    proto = onnx.load(path)
    for name, dims in {"reshaped": ["M", 12], "product": ["M", 8]}.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        proto.graph.value_info.append(info)
    onnx.save(proto, path)
    small = leaned(load(path))
    small.graph.initializers["w"].type = None
    (told,) = (v for v in ir.to_proto(small).graph.value_info if v.name != "w")
    assert [d.dim_param or d.dim_value for d in told.type.tensor_type.shape.dim] == ["M", 12]
    assert told.name == next(iter(small.graph)).outputs[0].name


def test_what_annotations_refer_to_keeps_its_name(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    note = proto.graph.quantization_annotation.add(tensor_name="h0")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b0")
    onnx.save(proto, path)
    small = leaned(load(path))
    (found,) = ir.to_proto(small).graph.quantization_annotation
    assert found.tensor_name == next(iter(small.graph)).outputs[0].name != "h0"
    assert [p.value for p in found.quant_parameter_tensor_names] == ["b0"]
    assert "b0" in small.graph.initializers
