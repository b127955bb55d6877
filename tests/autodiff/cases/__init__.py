"""The table of cases: at least one for every rule, with the attributes that networks use."""

from tests.autodiff.cases import (
    convolution,
    elementwise,
    linear,
    movement,
    normalisation,
    pooling,
    reductions,
    resize,
    unary,
)
from tests.autodiff.cases.case import Case

FAMILIES = (
    unary,
    elementwise,
    linear,
    convolution,
    pooling,
    movement,
    reductions,
    normalisation,
    resize,
)
CASES = [case for family in FAMILIES for case in family.CASES]

__all__ = ["CASES", "Case"]
