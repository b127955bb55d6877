"""Let go of a protobuf message: a single tensor that looks into it keeps all of it in memory."""

import itertools

import onnx
import onnx_ir as ir


def detach(model: ir.Model) -> None:
    """Give every tensor of a model an array of its own, which is shared by all who ask for it.

    A tensor that looks into a message makes a new array each time.
    """
    functions = (function.all_nodes() for function in model.functions.values())
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.serde.TensorProtoTensor):
                value.const_value = _own(value.const_value)
    for node in itertools.chain(model.graph.all_nodes(), *functions):
        for name, attribute in list(node.attributes.items()):
            if not attribute.is_ref() and isinstance(attribute.value, ir.serde.TensorProtoTensor):
                node.attributes[name] = ir.AttrTensor(name, _own(attribute.value))


def _own(tensor: ir.serde.TensorProtoTensor) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING or tensor.dtype.bitwidth < 8:
        copy = onnx.TensorProto.FromString(ir.to_proto(tensor).SerializeToString())
        return ir.serde.TensorProtoTensor(copy)
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
