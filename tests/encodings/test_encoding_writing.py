"""Where weights may be, what else is in the model, and what must not change."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from encoded import codebook, compress, model, run, same_bits, session, sparse

from onnxrd import encodings
from onnxrd.errors import ModelError
from onnxrd.quantizers import Sparse

rng = np.random.default_rng(1)
BOOK = codebook(rng, (40, 25), 16)
OTHER = codebook(rng, (40, 25), 4)


def check(original, quantized, expected=None):
    """Compressed, the model is valid, of the size foretold, and gives the same at every level."""
    data, size = compress(original, quantized)
    assert len(data) == size
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    wanted = expected or [q.dequantize() for q in quantized.values()]
    for level in ("disable", "basic", "all"):
        for result, array in zip(run(data, level), wanted):
            assert same_bits(result, array)
    return onnx.load_from_string(data)


def branches(proto):
    found = {a.name: a.g for node in proto.graph.node for a in node.attribute}
    return found["then_branch"], found["else_branch"]


@pytest.mark.parametrize("hold", ["initializer", "constant", "subgraph"])
@pytest.mark.parametrize(("opset", "ir_version"), [(11, 4), (17, 8), (21, 10)])
def test_wherever_it_is_held(hold, opset, ir_version, tmp_path):
    original = model({"a": BOOK.codes.astype(np.float32)}, opset, ir_version, hold=hold)
    proto = check(original, {"a": BOOK})
    assert "a" in {name for node in proto.graph.node for name in node.output}
    session(proto.SerializeToString(), "basic", str(tmp_path / "m.onnx"))
    left = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert left <= {"Mul", "If"}


def test_listed_as_input():
    original = model({"a": BOOK.dequantize(), "b": BOOK.dequantize()}, inputs=("a", "b"))
    proto = check(original, {"a": BOOK}, [BOOK.dequantize()] * 2)
    assert "a" not in {value.name for value in proto.graph.input}
    assert "b" in {value.name for value in proto.graph.input}


@pytest.mark.parametrize(
    "name", ["q", "q0", "q0l", "qs0", "q_", "onnx::Conv_1", "日本", "a b/c.weight", "onnxrd"]
)
@pytest.mark.parametrize("ir_version", [7, 8])
def test_names_that_collide(name, ir_version):
    weights = {name: BOOK.dequantize(), "q1": OTHER.dequantize(), "q_1": OTHER.dequantize()}
    quantized = {name: BOOK, "q1": OTHER}
    original = model(weights, 13, ir_version)
    check(original, quantized, [BOOK.dequantize(), OTHER.dequantize(), OTHER.dequantize()])


def test_name_in_a_subgraph_that_is_taken_elsewhere():
    first = ir.to_proto(model({"a": BOOK.dequantize()}, hold="subgraph"))
    then, other = branches(first)
    other.node[0].output[0] = "unused"
    other.node.add(op_type="Constant", output=["b"]).attribute.append(
        onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(OTHER.dequantize()))
    )
    other.node.add(op_type="Mul", input=["b", "x0"], output=["o0"])
    then.node.add(op_type="Identity", input=["x0"], output=["b"])
    proto = check(ir.from_proto(first), {"a": BOOK})
    names = encodings.slots(ir.from_proto(first), ["a"])
    assert names["a"].output == "a"
    with pytest.raises(ModelError, match="no constant named 'c'"):
        encodings.slots(ir.from_proto(first), ["c"])
    assert encodings.slots(ir.from_proto(first), ["b"])["b"].output != "b"
    assert proto.graph.node[0].output == ["a"]


def test_ambiguous_name():
    proto = ir.to_proto(model({"a": BOOK.dequantize()}, hold="subgraph"))
    then, other = branches(proto)
    other.initializer.append(then.initializer[0])
    with pytest.raises(ModelError, match="more than one constant named 'a'"):
        encodings.slots(ir.from_proto(proto), ["a"])


def test_output_of_a_subgraph_is_refused():
    proto = ir.to_proto(model({"a": BOOK.dequantize()}, hold="subgraph"))
    original = ir.from_proto(proto)
    with pytest.raises(ModelError, match="itself an output"):
        compress(original, {"o0": Sparse(np.zeros((40, 25), np.float32))})


def test_weight_that_is_an_output_of_the_model():
    proto = ir.to_proto(model({"a": BOOK.dequantize()}))
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, BOOK.shape)
    )
    written = check(ir.from_proto(proto), {"a": BOOK}, [BOOK.dequantize()] * 2)
    assert written.graph.output[1].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_tied_weight_is_decoded_once():
    proto = ir.to_proto(model({"a": BOOK.dequantize()}))
    proto.graph.node.add(op_type="Mul", input=["a", "x0"], output=["again"])
    out = onnx.helper.make_tensor_value_info("again", onnx.TensorProto.FLOAT, BOOK.shape)
    proto.graph.output.append(out)
    written = check(ir.from_proto(proto), {"a": BOOK}, [BOOK.dequantize()] * 2)
    assert [node.op_type for node in written.graph.node] == ["lut", "Mul", "Mul"]


def test_compressed_twice():
    original = model({"a": BOOK.dequantize(), "b": OTHER.dequantize()})
    data, _ = compress(original, {"a": BOOK})
    once = ir.from_proto(onnx.load_from_string(data))
    written = check(once, {"b": OTHER}, [BOOK.dequantize(), OTHER.dequantize()])
    assert len(written.functions) == 1


def test_compressed_by_another_version():
    original = model({"a": BOOK.dequantize(), "b": OTHER.dequantize()})
    proto = onnx.load_from_string(compress(original, {"a": BOOK})[0])
    proto.functions[0].node[-1].name = "different"
    with pytest.raises(ModelError, match="Compress the original"):
        compress(ir.from_proto(proto), {"b": OTHER})


def test_all_else_stays():
    proto = ir.to_proto(model({"a": BOOK.dequantize(), "b": OTHER.dequantize()}))
    proto.producer_name, proto.doc_string, proto.domain = "someone", "words", "org.example"
    proto.metadata_props.add(key="labels", value="cat,dog")
    proto.graph.node[0].metadata_props.add(key="from", value="conv.py")
    original = ir.from_proto(proto)
    before = ir.to_proto(original).SerializeToString()
    written = check(original, {"a": BOOK}, [BOOK.dequantize(), OTHER.dequantize()])
    assert ir.to_proto(original).SerializeToString() == before
    for name in ("producer_name", "doc_string", "domain", "metadata_props", "ir_version"):
        assert getattr(written, name) == getattr(proto, name)
    assert list(written.graph.node)[1:] == list(proto.graph.node)
    assert written.graph.output == proto.graph.output


def test_viewers_are_told(rng):
    written = check(model({"a": BOOK.dequantize()}), {"a": BOOK})
    shown = {entry.key: entry.value for entry in written.graph.node[0].metadata_props}
    assert shown == {"encoding": "byte_lut", "levels": "16", "bits": "4.51"}
    gap = sparse(rng, (60, 60), 0.05)
    written = check(model({"a": gap.values}), {"a": gap})
    decoder = next(node for node in written.graph.node if node.output == ["a"])
    shown = {entry.key: entry.value for entry in decoder.metadata_props}
    assert shown.keys() == {"encoding", "bits"}
    assert shown["encoding"] == "gap"


def test_nothing_but_the_weights_gets_bigger(rng):
    """Loading and saving alone adds a value_info for each initializer; `write` drops them."""
    weights = {f"layer{i}.weight": rng.normal(size=(8, 9)).astype(np.float32) for i in range(20)}
    original = model(weights, hold="initializer")
    plain = original.clone()
    encodings.drop_repetitions(plain)
    saved = ir.to_proto(plain)
    assert not saved.graph.value_info
    assert saved.ByteSize() < ir.to_proto(original).ByteSize() - 20 * 30
    onnx.checker.check_model(saved, full_check=True)


def test_names_in_constants_are_dropped():
    original = model({"a": BOOK.dequantize(), "long_name": OTHER.dequantize()}, hold="constant")
    assert ir.to_proto(original).graph.node[2].attribute[0].t.name == "long_name"
    written = check(original, {"a": BOOK}, [BOOK.dequantize(), OTHER.dequantize()])
    assert written.graph.node[2].output == ["long_name"]
    assert not written.graph.node[2].attribute[0].t.name
