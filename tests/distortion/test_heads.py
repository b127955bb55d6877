"""What the end of a graph shows: which outputs are compared, and how."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnxrd
from onnxrd.distortion import find_heads, regression
from onnxrd.errors import ModelError, SettingError
from tests import networks

node = helper.make_node


def heads_of(tmp_path, *nodes, out=("N", 5), opset=17, task=None, outputs=None, **settings):
    """The heads of x → MatMul → nodes, the last of which makes y."""
    made = [node("MatMul", ["x", "w"], ["a"]), *nodes]
    weights = {"w": networks.normal(12, 5), "b": networks.normal(5, seed=1)}
    shapes = {"x": ["N", 12]}, outputs or {"y": list(out)}
    path = networks.save(tmp_path / "m.onnx", made, weights, *shapes, opset=opset)
    return find_heads(onnxrd.load_model(path).prepared(), task, **settings)


def head_of(*arguments, **settings):
    (head,) = heads_of(*arguments, **settings)
    return head


@pytest.mark.parametrize(
    ("op", "form"), [("Softmax", "probabilities"), ("LogSoftmax", "log-probabilities")]
)
@pytest.mark.parametrize("opset", [7, 11, 12, 13, 17, 21])
def test_softmax(op, form, opset, tmp_path):
    head = head_of(tmp_path, node(op, ["a"], ["y"]), opset=opset)
    assert (head.task, head.form, head.source) == ("classification", form, "a")
    assert head.axis == (-1 if opset >= 13 else 1)
    assert head.flattened == (opset < 13)
    assert op in head.why


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_an_axis_that_is_given(axis, tmp_path):
    head = head_of(tmp_path, node("Softmax", ["a"], ["y"], axis=axis))
    assert (head.axis, head.flattened) == (axis, False)


def test_softmax_before_others_that_change_nothing(tmp_path):
    tail = node("Identity", ["p"], ["q"]), node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)
    head = head_of(tmp_path, node("Softmax", ["a"], ["p"]), *tail)
    assert (head.output, head.form, head.source) == ("y", "probabilities", "a")
    head = head_of(tmp_path, node("Softmax", ["a"], ["p"]), node("Sqrt", ["p"], ["y"]))
    assert (head.task, head.source) == ("regression", "y")


@pytest.mark.parametrize(
    "tail",
    [
        [node("Identity", ["a"], ["y"])],
        [node("Add", ["a", "b"], ["y"])],
        [node("Add", ["b", "a"], ["y"])],
        [node("Add", ["a", "b"], ["s"]), node("Cast", ["s"], ["y"], to=TensorProto.FLOAT)],
        [node("Tanh", ["x"], ["t"]), node("Gemm", ["t", "w", "b"], ["y"])],
    ],
    ids=lambda nodes: "-".join(n.op_type for n in nodes),
)
def test_a_linear_layer_gives_logits(tail, tmp_path):
    head = head_of(tmp_path, *tail)
    assert (head.task, head.form, head.source) == ("classification", "logits", "y")
    assert "linear layer" in head.why
    assert head_of(tmp_path, *tail, task="regression").form == "values"


@pytest.mark.parametrize("op", ["Tanh", "Relu", "Sigmoid"])
def test_all_else_is_regression(op, tmp_path):
    head = head_of(tmp_path, node(op, ["a"], ["y"]))
    assert (head.task, head.form, head.source) == ("regression", "values", "y")


def test_what_the_user_says_comes_first(tmp_path):
    head = head_of(tmp_path, node("Tanh", ["a"], ["y"]), task="classification")
    assert (head.task, head.form, head.source) == ("classification", "logits", "y")
    head = head_of(tmp_path, node("Softmax", ["a"], ["y"]), task="regression")
    assert (head.task, head.form, head.source) == ("regression", "values", "y")
    head = head_of(tmp_path, node("Softmax", ["a"], ["y"]), task="classification")
    assert (head.form, head.source) == ("probabilities", "a")


def test_sequences_of_vectors_are_no_logits_unless_said(tmp_path):
    tail = [node("Unsqueeze", ["a", "one"], ["u"]), node("MatMul", ["u", "square"], ["y"])]
    weights = {"w": networks.normal(12, 5), "square": networks.normal(5, 5), "one": [1]}
    made = [node("MatMul", ["x", "w"], ["a"]), *tail]
    shapes = {"x": ["N", 12]}, {"y": ["N", 1, 5]}
    path = networks.save(tmp_path / "m.onnx", made, weights, *shapes)
    prepared = onnxrd.load_model(path).prepared()
    assert find_heads(prepared)[0].task == "regression"
    assert find_heads(prepared, "classification")[0].form == "logits"


@pytest.mark.parametrize(
    ("tail", "axis"),
    [
        ([node("Identity", ["c"], ["y"])], 1),
        ([node("Resize", ["c", "", "sizes"], ["y"], mode="linear")], 1),
        ([node("GlobalAveragePool", ["c"], ["y"])], 1),
        ([node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])], -1),
        ([node("Reshape", ["c", "rows"], ["y"])], -1),
        ([node("Relu", ["c"], ["r"]), node("MatMul", ["r", "m"], ["y"])], -1),
    ],
    ids=lambda given: given[0].op_type if isinstance(given, list) else "",
)
def test_classes_of_a_convolution_are_its_channels(tail, axis, tmp_path):
    """As of a network that says for every pixel what is there."""
    weights = {
        "w": networks.normal(5, 2, 3, 3),
        "m": networks.normal(6, 5),
        "sizes": np.array([1, 1, 2, 2], np.float32),
        "rows": np.array([0, -1, 5]),
    }
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), *tail]
    rank = 3 if tail[-1].op_type == "Reshape" else 4
    shapes = {"x": ["N", 2, 6, 6]}, {"y": ["N", *"ABC"[: rank - 1]]}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    prepared = onnxrd.load_model(path).prepared()
    (head,) = find_heads(prepared, "classification")
    assert (head.form, head.axis) == ("logits", axis)
    assert find_heads(prepared)[0].task == "regression"


def test_a_single_column_is_no_classifier(tmp_path):
    made = [node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": networks.normal(12, 1)}
    path = networks.save(tmp_path / "m.onnx", made, weights, {"x": ["N", 12]}, {"y": ["N", 1]})
    (head,) = find_heads(onnxrd.load_model(path).prepared())
    assert head.task == "regression"


def test_several_outputs(tmp_path):
    """All floating-point tensors, each by itself; others are not compared."""
    tail = [
        node("Softmax", ["a"], ["y"]),
        node("Tanh", ["a"], ["z"]),
        node("ArgMax", ["a"], ["best"], axis=1),
        node("Cast", ["a"], ["half"], to=TensorProto.FLOAT16),
    ]
    outputs = {
        **{name: ["N", 5] for name in "yza"},
        "best": (TensorProto.INT64, ["N", 1]),
        "half": (TensorProto.FLOAT16, ["N", 5]),
    }
    heads = heads_of(tmp_path, *tail, outputs=outputs)
    found = [(head.output, head.task, head.source) for head in heads]
    assert found == [
        ("y", "classification", "a"),
        ("z", "regression", "z"),
        ("a", "classification", "a"),
        ("half", "classification", "half"),
    ]


def test_outputs_that_are_no_tensors_are_left_out(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(node("SequenceConstruct", ["y"], ["s"]))
    info = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    proto.graph.output.append(info)
    onnx.save(proto, path)
    assert [head.output for head in find_heads(onnxrd.load_model(path).prepared())] == ["y"]


def test_outputs_that_are_constants_are_left_out(tmp_path):
    tail, outputs = node("Tanh", ["a"], ["y"]), {"b": [5], "y": ["N", 5]}
    for task in (None, {"b": "ignore"}, "regression"):
        heads = heads_of(tmp_path, tail, outputs=outputs, task=task)
        assert [head.output for head in heads] == ["y"]
    with pytest.raises(ModelError, match="output"):
        heads_of(tmp_path, outputs={"b": [5]})


def test_no_floating_point_output(tmp_path):
    outputs = {"best": (TensorProto.INT64, ["N", 1])}
    with pytest.raises(ModelError, match="output"):
        heads_of(tmp_path, node("ArgMax", ["a"], ["best"], axis=1), outputs=outputs)


def test_heads_without_an_axis_of_samples(tmp_path):
    assert head_of(tmp_path, node("Tanh", ["a"], ["y"])).sample_axis
    assert not head_of(tmp_path, node("Tanh", ["a"], ["y"]), sample_axis=False).sample_axis


def test_heads_of_an_output_of_unknown_type():
    value = ir.Value(name="y")
    made = ir.Node("", "Tanh", [ir.Value(name="x")], outputs=[value])
    graph = ir.Graph([], [value], nodes=[made], opset_imports={"": 17})
    (head,) = find_heads(ir.Model(graph, ir_version=8))
    assert head.task == "regression"


def two_heads(tmp_path, task):
    tail = node("Relu", ["a"], ["r"]), node("Softmax", ["a"], ["p"])
    outputs = {"r": ["N", 5], "p": ["N", 5]}
    return heads_of(tmp_path, *tail, outputs=outputs, task=task)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (None, {"r": "regression", "p": "classification"}),
        ({"r": "classification"}, {"r": "classification", "p": "classification"}),
        ({"r": "ignore"}, {"p": "classification"}),
        ({"*": "regression"}, {"r": "regression", "p": "regression"}),
        ({"*": "ignore", "r": "regression"}, {"r": "regression"}),
        (regression({"r": "ignore", "p": "classification"}), {"p": "regression"}),
        (regression("classification"), {"r": "regression", "p": "regression"}),
    ],
)
def test_tasks_by_name(task, expected, tmp_path):
    heads = two_heads(tmp_path, task)
    assert {head.output: head.task for head in heads} == expected


def test_tasks_that_make_no_sense(tmp_path):
    with pytest.raises(SettingError, match=r"'q' is no .* 'r', 'p'"):
        two_heads(tmp_path, {"q": "ignore"})
    with pytest.raises(SettingError, match="all outputs are ignored"):
        two_heads(tmp_path, {"*": "ignore"})
