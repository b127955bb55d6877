"""Weights that are used more than once: their per-sample gradients are added before squaring."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import onnx_ir as ir

from onnxrd.autodiff.attributes import get_ints
from onnxrd.autodiff.registry import NoRuleError
from onnxrd.autodiff.tape import Tape

_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})


def shared_weights(
    graph: ir.Graph,
    targets: Sequence[ir.Value],
    constant: AbstractSet[ir.Value],
    upstream: AbstractSet[ir.Value],
) -> set[ir.Value]:
    """Targets with several uses, and what becomes of them on the way there.

    Args:
        graph: the network.
        targets: weights.
        constant: initializers, and others whose entries are only moved.
        upstream: values that depend on a target.
    """
    roots: dict[ir.Value, set[ir.Value]] = {target: {target} for target in targets}
    uses: Counter[ir.Value] = Counter()
    for node in graph:
        for value in node.inputs:
            if value is None or value not in roots:
                continue
            if node.outputs[0] in constant:
                roots.setdefault(node.outputs[0], set()).update(roots[value])
            elif not upstream.isdisjoint(node.outputs):
                uses.update(roots[value])
    return {value for value, of in roots.items() if any(uses[target] > 1 for target in of)}


def back_by_sample(t: Tape, node: ir.Node, dy: ir.Value | None) -> ir.Value:
    """Per-sample cotangents [N, *output] of an operator that moves entries: [N, *input].

    Raises:
        NoRuleError: it does more than to reshape or transpose.
    """
    x = node.inputs[0]
    assert x is not None and dy is not None
    if node.op_type in _RESHAPES:
        return t.reshape(dy, (t.samples, *t.shape(x)))
    if node.op_type == "Transpose":
        permutation = get_ints(node, "perm", list(range(t.rank(x)))[::-1])
        return t.transpose(dy, [0, *(int(axis) + 1 for axis in np.argsort(permutation))])
    raise NoRuleError(f"a weight with several uses goes through {node.op_type}")
