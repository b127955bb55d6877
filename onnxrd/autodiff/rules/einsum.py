"""Einsum, whose gradients are Einsums."""

from collections.abc import Sequence
from string import ascii_letters

import numpy as np
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
    terms, out = _labels(t, node)
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

    An axis that only that input had was summed; its cotangent is the same everywhere on it. Where
    a label comes twice there was a diagonal: the second gets a name of its own and a unit matrix.
    """
    value = node.inputs[slot]
    assert value is not None
    operands = [(out, dy)]
    operands += [(terms[k], t.primal(v)) for k, v in enumerate(node.inputs) if k != slot and v]
    sizes = dict(zip(terms[slot], t.shape(value)))
    full = [*([t.samples] if len(result) > len(terms[slot]) else []), *t.shape(value)]
    known = set("".join(term for term, _ in operands))
    unused = iter(sorted(set(ascii_letters) - known - set(result)))
    labels: list[str] = []
    for label in result:
        labels.append(label if label not in labels else next(unused))
        if labels[-1] != label:
            operands.append((label + labels[-1], t.const(np.eye(sizes[label], dtype=t.dtype))))
            known |= {label, labels[-1]}
    found = _product(t, operands, "".join(label for label in labels if label in known))
    if known.issuperset(labels):
        return found
    kept = [size if label in known else 1 for label, size in zip(labels, full)]
    return t.op("Expand", t.reshape(found, kept), t.ints(full))


def _product(t: Tape, operands: list[tuple[str, ir.Value]], result: str) -> ir.Value:
    """An Einsum of terms and values; those without axes are factors."""
    wide = [(term, value) for term, value in operands if term]
    factors = [value for term, value in operands if not term]
    if wide:
        equation = ",".join(term for term, _ in wide) + "->" + result
        factors.insert(0, t.op("Einsum", *(value for _, value in wide), equation=equation))
    found, *rest = factors
    for factor in rest:
        found = t.op("Mul", found, factor)
    return found


def _weight(slot: int) -> SampleRule:
    def rule(t: Tape, node: ir.Node, dy: ir.Value) -> ir.Value:
        """[N, *weight]: the label of the sample axis is kept."""
        terms, out = _labels(t, node)
        shape = t.shape(node.outputs[0])
        if not out or out[0] in terms[slot] or shape[0] != t.samples:
            raise NoRuleError("the sample axis is not the first of the output")
        return _contracted(t, node, slot, dy, terms, out, out[0] + terms[slot])

    return rule


PER_SAMPLE["", "Einsum", 0] = _weight(0)
PER_SAMPLE["", "Einsum", 1] = _weight(1)


def _labels(t: Tape, node: ir.Node) -> tuple[list[str], str]:
    """Labels of the inputs and of the output, with letters for the axes of an ellipsis.

    The output has by default those of the ellipsis, and the labels that come up once.
    """
    equation = get_string(node, "equation", "").replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    ranks = [t.rank(value) for value in node.inputs if value is not None]
    hidden = [rank - len(term.replace(".", "")) for rank, term in zip(ranks, terms) if "." in term]
    free = "".join(sorted(set(ascii_letters) - set(equation)))[: max(hidden, default=0)]
    if len(set(hidden)) > 1:
        raise NoRuleError("an ellipsis that stands for axes that are broadcast")
    if not arrow:
        once = (label for label in set(left) - {",", "."} if left.count(label) == 1)
        out = ("..." if hidden else "") + "".join(sorted(once))
    return [term.replace("...", free) for term in terms], out.replace("...", free)
