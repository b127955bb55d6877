"""The table of operators that gradients go through, written from the registry.

`python -m onnxrd.autodiff.operators` writes it anew, into OPERATORS.md beside this file.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx

import onnxrd.autodiff.engine  # (fills the registry)
import onnxrd.autodiff.lowering  # noqa: F401  (as well)
from onnxrd.autodiff.lowering import has_function_body
from onnxrd.autodiff.registry import (
    DECOMPOSITIONS,
    PER_SAMPLE,
    REVERSE,
    SQUARES,
    STAIRCASES,
    TOGETHER,
)

FILE = Path(__file__).with_name("OPERATORS.md")

BODIES_OPSET = 23
"""Of the oldest onnx that the package accepts, so that all versions of it give the same table."""

_TEXT = """\
# Operators that gradients go through

Written by `python -m onnxrd.autodiff.operators` from the registry; a test keeps it in step.

"rule": a vector-Jacobian product of its own. "decomposition": said with simpler operators, which
have rules. The last column names the inputs whose weights get their squared per-sample gradients
from a whole batch at once; weights at any other input are exact as well, one sample at a time.

| operator | how | batched weights |
|---|---|---|
{rows}

Functions of the standard (opset {opset}) that are written out by the body that it gives them, and
differentiated as far as that is made of the operators above:
{bodies}.

If, Loop and Scan are unrolled where their branch or their number of steps does not depend on the
inputs' values. {staircases} are staircases: a weight that acts through
them alone has no derivative. A weight that acts through any other operator gets its importance from
finite differences, and every report says so.
"""


def table() -> str:
    """The text of OPERATORS.md."""
    known = sorted(REVERSE.keys() | DECOMPOSITIONS.keys())
    return _TEXT.format(
        rows="\n".join(_row(domain, operator) for domain, operator in known),
        opset=BODIES_OPSET,
        bodies=", ".join(_bodies()),
        staircases=", ".join(sorted(STAIRCASES)),
    )


def _row(domain: str, operator: str) -> str:
    key = domain, operator
    how = ("rule" if key in REVERSE else "", "decomposition" if key in DECOMPOSITIONS else "")
    slots = {slot for *use, slot in (*PER_SAMPLE, *SQUARES) if tuple(use) == key}
    slots |= TOGETHER[key][0] if key in TOGETHER else set()
    weights = dict.fromkeys(_input(domain, operator, slot) for slot in sorted(slots))
    name = f"{domain}.{operator}" if domain else operator
    return f"| {name} | {', '.join(filter(None, how))} | {', '.join(weights)} |"


def _input(domain: str, operator: str, slot: int) -> str:
    """What the standard calls an input."""
    if not onnx.defs.has(operator, BODIES_OPSET, domain):
        return f"input {slot}"
    inputs = onnx.defs.get_schema(operator, BODIES_OPSET, domain).inputs
    return str(inputs[min(slot, len(inputs) - 1)].name)


def _bodies() -> Iterator[str]:
    """Functions of the standard, from real numbers to real numbers, without a rule."""
    schemas = onnx.defs.get_all_schemas_with_history()
    for operator in sorted({schema.name for schema in schemas if not schema.domain}):
        known = ("", operator) in REVERSE.keys() | DECOMPOSITIONS.keys()
        if known or not has_function_body(operator, BODIES_OPSET):
            continue
        schema = onnx.defs.get_schema(operator, BODIES_OPSET)
        if all("tensor(float)" in ends[0].types for ends in (schema.inputs, schema.outputs)):
            yield operator


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf8")
