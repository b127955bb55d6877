"""The table of what is known about operators: rules and decompositions, found by name."""

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from onnxrd.autodiff.rewriter import Rewriter
from onnxrd.autodiff.tape import Tape

Cotangents = Mapping[int, ir.Value]
Rule = Callable[[Tape, ir.Node, Sequence[ir.Value | None], frozenset[int]], Cotangents]
SampleRule = Callable[[Tape, ir.Node, ir.Value], ir.Value]
Decomposition = Callable[[Rewriter, ir.Node], Sequence[ir.Value | None]]

REVERSE: dict[tuple[str, str], Rule] = {}
"""(domain, operator) → vector-Jacobian product."""

PER_SAMPLE: dict[tuple[str, str, int], SampleRule] = {}
"""(domain, operator, input slot) → per-sample gradients of a weight, [N, *weight]."""

SQUARES: dict[tuple[str, str, int], SampleRule] = {}
"""(domain, operator, input slot) → per-sample gradients squared and summed, [*weight], where that
is cheaper than by way of the gradients themselves."""

TOGETHER: dict[tuple[str, str], tuple[frozenset[int], Rule]] = {}
"""(domain, operator) → input slots of its weights, and a rule like one of `REVERSE` that gives
per-sample gradients of them, [N, *weight]: for operators with several outputs, or whose weights'
gradients have most of their work in common."""

DECOMPOSITIONS: dict[tuple[str, str], Decomposition] = {}
"""(domain, operator) → the same said with simpler operators, where there is no rule."""

STAIRCASES = frozenset({"Sign", "Floor", "Ceil", "Round", "Hardmax"})
"""Operators whose derivative is zero wherever they have one: nothing goes back through them, and a
weight that acts through them alone counts as one without a derivative."""


class NoRuleError(Exception):
    """A rule does not cover this use of its operator; the text says what about it."""


def reverse(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a vector-Jacobian product.

    The rule is called with the tape, the node, the cotangents of the node's outputs (None where no
    gradient arrives) and the set of input slots that need one; it returns slot → cotangent, each in
    the shape of that input.
    """

    def register(rule: Rule) -> Rule:
        REVERSE.update({(domain, operator): rule for operator in operators})
        return rule

    return register


def per_sample(*uses: tuple[str, int], domain: str = "") -> Callable[[SampleRule], SampleRule]:
    """Register per-sample gradients of a weight: (tape, node, cotangent [N, …]) → [N, *weight]."""

    def register(rule: SampleRule) -> SampleRule:
        PER_SAMPLE.update({(domain, operator, slot): rule for operator, slot in uses})
        return rule

    return register


def squares(*uses: tuple[str, int], domain: str = "") -> Callable[[SampleRule], SampleRule]:
    """Register squared per-sample gradients: (tape, node, cotangent [N, …]) → Σ_n g_n² [*weight].

    Where the shortcut does not apply the rule raises `NoRuleError`, and `per_sample` is used.
    """

    def register(rule: SampleRule) -> SampleRule:
        SQUARES.update({(domain, operator, slot): rule for operator, slot in uses})
        return rule

    return register


def per_sample_together(
    operator: str, *, slots: tuple[int, ...], domain: str = ""
) -> Callable[[Rule], Rule]:
    """Register per-sample gradients of all weights of an operator, and cotangents of the rest."""

    def register(rule: Rule) -> Rule:
        TOGETHER[domain, operator] = frozenset(slots), rule
        return rule

    return register


def decomposition(*operators: str, domain: str = "") -> Callable[[Decomposition], Decomposition]:
    """Register a way to do without an operator: (rewriter, node) → values for its outputs.

    None stands for an output that is not delivered. Where the decomposition does not apply it
    raises `NoRuleError`.
    """

    def register(rewrite: Decomposition) -> Decomposition:
        DECOMPOSITIONS.update({(domain, operator): rewrite for operator in operators})
        return rewrite

    return register


def domain_of(node: ir.Node) -> str:
    """The operator's domain, with the two names of the standard one made equal."""
    return "" if node.domain == "ai.onnx" else node.domain
