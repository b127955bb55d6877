"""How many bytes things take in an .onnx file, without writing them.

A protobuf message is a row of fields, each a tag, the length of what follows (both varints) and
the content. Only the content of tensors is big, and its length is known from dtype and shape.
"""

import onnx
import onnx_ir as ir

_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_VALUE_INFO = 1, 5, 11, 13
_MODEL_GRAPH, _MODEL_OPSET_IMPORT, _MODEL_FUNCTIONS = 7, 8, 25
_TENSOR_RAW_DATA = 9


def varint_nbytes(number: int) -> int:
    """Bytes of a non-negative integer at seven bits a byte."""
    return max(1, -(-number.bit_length() // 7))


def field_nbytes(number: int, length: int) -> int:
    """Bytes of a field that holds `length` bytes, its tag and its length included."""
    return varint_nbytes(number << 3) + varint_nbytes(length) + length


def node_nbytes(node: onnx.NodeProto) -> int:
    """Bytes that a node adds to its graph."""
    return field_nbytes(_GRAPH_NODE, node.ByteSize())


def initializer_nbytes(name: str, tensor: ir.TensorProtocol) -> int:
    """Bytes that an initializer adds to its graph."""
    return field_nbytes(_GRAPH_INITIALIZER, _tensor_nbytes(name, tensor))


def input_nbytes(name: str, tensor: ir.TensorProtocol) -> int:
    """Bytes that the listing of a tensor as a graph input adds to the graph."""
    proto = ir.serde.serialize_value(described(name, tensor))
    return field_nbytes(_GRAPH_INPUT, proto.ByteSize())


def value_nbytes(value: ir.Value) -> int:
    """Bytes that the type and shape of an inner value add to the graph."""
    return field_nbytes(_GRAPH_VALUE_INFO, ir.serde.serialize_value(value).ByteSize())


def described(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A value with the type and shape of a tensor."""
    return ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )


def function_nbytes(function: onnx.FunctionProto) -> int:
    """Bytes that a model-local function adds to its model."""
    return field_nbytes(_MODEL_FUNCTIONS, function.ByteSize())


def opset_import_nbytes(opset: onnx.OperatorSetIdProto) -> int:
    """Bytes that the import of one more domain adds to its model."""
    return field_nbytes(_MODEL_OPSET_IMPORT, opset.ByteSize())


def model_nbytes(outside: int, graph: int) -> int:
    """Bytes of a model file of which the graph takes `graph` and all else takes `outside`."""
    return outside + field_nbytes(_MODEL_GRAPH, graph)


def _tensor_nbytes(name: str, tensor: ir.TensorProtocol) -> int:
    proto = onnx.TensorProto()
    raw_data = 0
    if isinstance(tensor, ir.serde.TensorProtoTensor):  # written as it is, never big here
        proto.CopyFrom(tensor.raw)
        proto.ClearField("name")
    else:
        proto.data_type = tensor.dtype.value
        proto.dims.extend(tensor.shape.numpy())
        raw_data = field_nbytes(_TENSOR_RAW_DATA, tensor.nbytes)
    if name:
        proto.name = name
    return int(proto.ByteSize()) + raw_data
