"""Einsum, whose gradients are Einsums."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxrd.autodiff.attributes import get_string
from onnxrd.autodiff.registry import PER_SAMPLE, Cotangents, NoRuleError, SampleRule, reverse
from onnxrd.autodiff.tape import Tape


@reverse("Einsum")
def _einsum(
    t: Tape, node: ir.Node, dys: Sequence[ir.Value | None], wanted: frozenset[int]
) -> Cotangents:
    """The output's cotangent contracted with all other inputs."""
    (dy,) = dys
    assert dy is not None
    terms, out = _labels(node)
    return {slot: _contracted(t, node, slot, dy, terms, out, terms[slot]) for slot in wanted}


def _contracted(
    t: Tape,
    node: ir.Node,
    slot: int,
    dy: ir.Value,
    terms: Sequence[str],
    out: str,
    result: str,
) -> ir.Value:
    """DY times all inputs but one, with the axes that `result` names.

    An axis that only that input had was summed; its cotangent is the same everywhere on it.
    """
    value = node.inputs[slot]
    assert value is not None
    others = [k for k in range(len(terms)) if k != slot]
    known = set(out).union(*(terms[k] for k in others))
    present = "".join(label for label in result if label in known)
    equation = ",".join([out, *(terms[k] for k in others)]) + "->" + present
    primals = [t.primal(v) for k in others if (v := node.inputs[k]) is not None]
    found = t.op("Einsum", dy, *primals, equation=equation)
    if present == result:
        return found
    sizes = dict(zip(terms[slot], t.shape(value)))
    lead = (t.samples,) if len(result) > len(terms[slot]) else ()
    full = [*lead, *(sizes[label] for label in terms[slot])]
    kept = [size if label in known else 1 for label, size in zip(result, full)]
    return t.op("Expand", t.reshape(found, kept), t.ints(full))


def _weight(slot: int) -> SampleRule:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        """[N, *weight]: the label of the sample axis is kept."""
        terms, out = _labels(node)
        shape = t.shape(node.outputs[0])
        if not out or out[0] in terms[slot] or shape[0] != t.samples:
            raise NoRuleError("the sample axis is not the first of the output")
        return _contracted(t, node, slot, dy, terms, out, out[0] + terms[slot])

    return rule


PER_SAMPLE["", "Einsum", 0] = _weight(0)
PER_SAMPLE["", "Einsum", 1] = _weight(1)


def _labels(node: ir.Node) -> tuple[list[str], str]:
    """Labels of the inputs and of the output; the latter by default those that come up once."""
    equation = get_string(node, "equation", "").replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        out = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise NoRuleError("an ellipsis or a diagonal in the equation")
    return terms, out
