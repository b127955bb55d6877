"""Attributes that say what an operator does anyway."""

from collections.abc import Mapping

import onnx_ir as ir
from onnx import defs

_ONES = ("dilations", "strides")


def drop_defaults(node: ir.Node, imports: Mapping[str, int]) -> None:
    """Drop a node's attributes that have the standard's default value, in place.

    Args:
        node: to change.
        imports: versions of the operators, by domain.
    """
    try:
        schema = defs.get_schema(node.op_type, imports.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref() or name not in schema.attributes:
            continue
        default = schema.attributes[name].default_value
        if default == ir.to_proto(attribute) or _is_told(node, attribute):
            del node.attributes[name]


def _is_told(node: ir.Node, attribute: ir.Attr) -> bool:
    """Whether a convolution knows this without: by the text of the standard, or its weight."""
    if (node.op_type, node.domain) != ("Conv", ""):
        return False
    if attribute.name == "kernel_shape":
        weight = node.inputs[1]
        return weight is not None and weight.const_value is not None
    return attribute.name in _ONES and set(attribute.as_ints()) == {1}
