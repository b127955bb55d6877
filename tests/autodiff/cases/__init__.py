"""The table of cases: at least one for every rule, with the attributes that networks use."""

from tests.autodiff.cases import (
    attention,
    convolution,
    elementwise,
    fused,
    linear,
    movement,
    normalisation,
    pooling,
    recurrent,
    reductions,
    resize,
    unary,
)
from tests.autodiff.cases.case import Case

FAMILIES = (
    attention,
    unary,
    elementwise,
    fused,
    linear,
    convolution,
    pooling,
    recurrent,
    movement,
    reductions,
    normalisation,
    resize,
)
CASES = [case for family in FAMILIES for case in family.CASES]

__all__ = ["CASES", "Case"]
