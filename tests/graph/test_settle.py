"""Constants that are no weights, and attributes, in few bytes; all else stays."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from onnxrd.graph.defaults import drop_defaults
from onnxrd.graph.lean import lean
from onnxrd.graph.model import load
from tests import networks
from tests.graph.test_lean import assert_same_network, leaned

node = helper.make_node
X = {"x": ["N", 2, 6, 6]}
Y = {"y": [None, None, None, None]}


def constant(name, values, dtype=np.int64):
    return node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype)))


def padding(path, shape=(2, 2, 3, 3), **changed):
    """Pads as PyTorch exports them: computed from constants."""
    nodes = [
        constant("given", [1, 1, 0, 1]),
        constant("rank", [4]),
        node("ConstantOfShape", ["rank"], ["zeros"], value=helper.make_tensor("v", 7, [1], [0])),
        node("Concat", ["given", "zeros"], ["all"], axis=0),
        constant("rows", [-1, 2]),
        node("Reshape", ["all", "rows"], ["table"], allowzero=0),
        constant("first", [0]),
        constant("also first", [0]),
        constant("last", [-1]),
        constant("end", [-(2**63) + 1]),
        constant("step", [-1]),
        node("Slice", ["table", "last", "end", "first", "step"], ["flipped"]),
        node("Transpose", ["flipped"], ["turned"], perm=[1, 0]),
        constant("flat", [-1]),
        node("Reshape", ["turned", "flat"], ["int pads"], allowzero=0),
        node("Cast", ["int pads"], ["pads"], to=TensorProto.INT64),
        node("Pad", ["x", "pads"], ["padded"], mode="constant"),
        node("Gather", ["padded", "also first"], ["some"], axis=0),
        node("Conv", ["some", "w"], ["y"], **({"dilations": [1, 1], "group": 1} | changed)),
        node("Relu", ["y"], ["unused"]),
    ]
    weights = {"w": networks.normal(*shape), "dead": networks.normal(40)}
    return networks.save(path, nodes, weights, X, Y, ir_version=8)


def test_what_is_constant_is_computed_once_and_what_is_unused_goes(tmp_path):
    model = load(padding(tmp_path / "m.onnx"))
    small = leaned(model)
    assert_same_network(model, small, {"x": networks.normal(3, 2, 6, 6)})
    assert [n.op_type for n in small.graph] == ["Pad", "Gather", "Conv"]
    held = [value.const_value for value in small.graph.initializers.values()]
    tensors = {tensor.shape.numpy(): tensor for tensor in held}
    assert set(tensors) == {(2, 2, 3, 3), (8,), (1,)}
    assert tensors[8,].numpy().tolist() == [0, 0, 0, 1, 0, 0, 1, 1]
    assert len(ir.to_proto(tensors[8,]).SerializeToString()) < 8 * 8


def test_equal_integers_are_one_but_floats_may_change_yet(tmp_path):
    nodes = [
        node("Gather", ["x", "zero"], ["g"], axis=3),
        node("Gather", ["g", "nought"], ["h"], axis=3),
        node("Add", ["h", "b"], ["a"]),
        node("Add", ["a", "c"], ["y"]),
    ]
    weights = {"zero": np.array([0, 1]), "nought": np.array([0, 1])}
    weights |= {"b": np.zeros(2, np.float32), "c": np.zeros(2, np.float32)}
    model = load(networks.save(tmp_path / "m.onnx", nodes, weights, X, Y))
    small = leaned(model)
    assert_same_network(model, small, {"x": networks.normal(3, 2, 6, 6)})
    types = Counter(v.const_value.dtype for v in small.graph.initializers.values())
    assert types == {ir.DataType.INT64: 1, ir.DataType.FLOAT: 2}


@pytest.mark.parametrize(
    "source",
    [
        [node("Identity", ["w"], ["k"])],
        [node("RandomNormal", [], ["k"], shape=[2])],
        [node("Shape", ["x"], ["s"], start=1, end=2), node("Cast", ["s"], ["k"], to=1)],
        [node("ConstantOfShape", ["long"], ["k"])],
        [node("Gelu", ["two"], ["k"], domain="com.microsoft")],
    ],
    ids=["weight", "random", "shape", "long", "foreign"],
)
def test_other_values_are_left_to_be_computed(source, tmp_path):
    """Of a weight, at random, of an input's shape, many, or by who knows what."""
    nodes = [*source, node("Add", ["x", "k"], ["y"]), node("Identity", ["w"], ["z"])]
    weights = {"w": networks.normal(2), "long": np.array([99]), "two": networks.normal(2)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz"],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    small = leaned(load(tmp_path / "m.onnx"), keep=["w"])
    kept = [n.op_type for n in small.graph]
    assert kept[: len(source)] == [n.op_type for n in source]


@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        ({"dilations": [1, 1], "strides": [1, 1], "group": 1, "kernel_shape": [3, 3]}, {}),
        ({"dilations": [2, 2], "strides": [1, 2]}, {"dilations", "strides"}),
        ({"pads": [0, 0, 0, 0], "auto_pad": "NOTSET"}, {"pads"}),
        ({"auto_pad": "SAME_UPPER"}, {"auto_pad"}),
    ],
)
def test_attributes_of_a_convolution(attributes, left, tmp_path):
    model = load(padding(tmp_path / "m.onnx", **attributes))
    small = leaned(model)
    assert_same_network(model, small, {"x": networks.normal(3, 2, 6, 6)})
    assert set(small.graph[-1].attributes) == set(left)


def test_a_convolution_by_a_computed_kernel_keeps_its_shape(tmp_path):
    nodes = [node("Conv", ["x", "k"], ["y"], kernel_shape=[3, 3])]
    inputs = X | {"k": [2, 2, None, None]}
    model = load(networks.save(tmp_path / "m.onnx", nodes, {}, inputs, Y))
    assert set(leaned(model).graph[-1].attributes) == {"kernel_shape"}


def test_defaults_are_the_standards():
    """Whatever attribute of whatever operator: gone by its default, and only by that."""
    tried = 0
    for schema in defs.get_all_schemas():
        for name, attribute in schema.attributes.items():
            proto = onnx.AttributeProto.FromString(attribute.default_value.SerializeToString())
            if proto.type not in (1, 2, 3):  # a float, an integer or a string
                continue
            other = onnx.AttributeProto()
            other.CopyFrom(proto)
            other.i, other.f, other.s = proto.i + 7, proto.f + 0.5, proto.s + b"x"
            for attribute, gone in ((proto, True), (other, False)):
                made = onnx.NodeProto(op_type=schema.name, domain=schema.domain)
                made.attribute.append(attribute)
                one = ir.serde.deserialize_node(made)
                drop_defaults(one, {schema.domain: schema.since_version})
                assert (name not in one.attributes) == gone, (schema.name, name)
                tried += 1
    assert tried > 200


def test_old_models_stay_as_they_are(tmp_path):
    """Whose initializers are all inputs."""
    model = onnx.load(networks.mlp(tmp_path / "m.onnx", opset=8, ir_version=4))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    model.graph.node.insert(0, constant("one", 1, np.float32))
    onnx.save(model, tmp_path / "m.onnx")
    small = load(tmp_path / "m.onnx").clone()
    lean(small, ())
    assert [n.op_type for n in small.graph].count("Constant") == 1


def test_constants_that_are_no_tensors_stay(tmp_path):
    nodes = [
        node("SequenceEmpty", [], ["none"]),
        constant("one", [1.0], np.float32),
        node("Neg", ["one"], ["minus"]),
        node("Mul", ["x", "minus"], ["z"]),
        node("SequenceInsert", ["none", "z"], ["some"]),
        constant("first", 0),
        node("SequenceAt", ["some", "first"], ["y"]),
    ]
    model = load(networks.save(tmp_path / "m.onnx", nodes, {}, X, Y))
    small = leaned(model)
    assert_same_network(model, small, {"x": networks.normal(3, 2, 6, 6)})
    assert [n.op_type for n in small.graph] == [
        "SequenceEmpty",
        "Mul",
        "SequenceInsert",
        "SequenceAt",
    ]
