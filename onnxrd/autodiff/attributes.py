"""Attributes of ONNX nodes, with their defaults."""

import onnx_ir as ir


def get_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def get_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def get_ints(node: ir.Node, name: str, default: list[int] | None = None) -> list[int]:
    """A list of integers; without a default an absent one is empty."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return [] if default is None else default
    return list(attribute.as_ints())


def get_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
