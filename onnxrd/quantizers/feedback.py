"""Error feedback: each column's rounding error is made good by the columns that come after it.

With y = W x the mean squared change of a row's output is eᵀ H e, e being the row's error and
H = E[x xᵀ]. H = L Lᵀ-like factors turn that into a sum over columns of (what is left of an error
once later columns have compensated for it)², and each column in turn is rounded with all earlier
errors in mind (optimal brain surgeon, in the order of columns of GPTQ, Frantar et al. 2023).

What an error at the layer's output costs differs by direction, too: with G the second moment of the
cotangents there the damage is about tr(G E H Eᵀ) (Martens, Grosse 2015), and errors are fed back to
the rows still to come as well (two sides, as in YAQA, Tseng et al. 2025). With Uᵀ U = H⁻¹ and
Vᵀ V = G⁻¹, N and M being U and V with their rows over the diagonal, E = Mᵀ Δ N is what rounding
errors Δ (each at most half a step) become, and the cost Σ_rk Δ_rk² / (V_rr U_kk)².
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxrd.quantizers.tiles import round_both_sides

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, at least: some inputs are dead."""

REPAIR_DAMPING = 0.05
"""The same for the target of the repair, which trusts the moments more."""

MOST_DAMPING = 10.0

LEAST_RIDGE = float(np.finfo(np.float32).tiny)
"""Where all inputs are dead, the mean of the diagonal: one over it is still finite."""

BLOCK = 64


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """What errors along the rows or columns of a layer cost, from samples.

    Attributes:
        values: [G, K, K].
        doubt: [G], how much is to be added to the diagonal, as a share of its mean.
    """

    values: Floats
    doubt: Floats

    @classmethod
    def of(cls, values: Floats, count: int) -> "SecondMoment":
        """With the doubt that so few samples leave.

        Oracle approximating shrinkage (Chen, Wiesel, Eldar, Hero 2010) mixes a share ρ of
        mean(diag) I with 1 - ρ of the moments: doubt is ρ / (1 - ρ). Without it, error feedback
        hides its errors where the samples at hand happen not to look.

        Args:
            values: [G, K, K].
            count: samples that they were taken over.
        """
        columns = values.shape[1]
        squares = np.einsum("gkl,gkl->g", values, values)
        trace = np.einsum("gkk->g", values) ** 2
        spread = np.maximum(squares - trace / columns, np.finfo(np.float64).tiny)
        few = 2 / columns
        share = ((1 - few) * squares + trace) / ((count + 1 - few) * spread)
        share = np.clip(share, 0, MOST_DAMPING / (1 + MOST_DAMPING))
        return cls(values, np.asarray(share / (1 - share)))

    def ridge(self, least: float) -> Floats:
        """[G, K, K], what is added: the doubt, or a least share of the mean of the diagonal."""
        columns = self.values.shape[1]
        mean = np.einsum("gkk->g", self.values) / columns
        floor = max(float(mean.max(initial=0)) * 1e-6, LEAST_RIDGE)
        share = np.maximum(self.doubt, least) * np.maximum(mean, floor)
        return np.asarray(share[:, None, None] * np.eye(columns))


def repaired_target(matrices: Floats, inputs: SecondMoment, cross: Floats) -> Floats:
    """What to aim at so that the layer also makes good what the layers before it broke.

    min_T E|W x - T x̂|² + ρ|W - T|²  ⇒  T = W (E[x x̂ᵀ] + ρ) (E[x̂ x̂ᵀ] + ρ)⁻¹

    Args:
        matrices: [G, R, K], W.
        inputs: E[x̂ x̂ᵀ], x̂ being the inputs behind quantized layers.
        cross: [G, K, K], E[x x̂ᵀ].

    Returns: [G, R, K].
    """
    ridge = inputs.ridge(REPAIR_DAMPING)
    left = (matrices @ (cross + ridge)).transpose(0, 2, 1)
    target = np.linalg.solve(inputs.values + ridge, left)  # the left side is symmetric
    return np.asarray(target.transpose(0, 2, 1), np.float64)


def trust_in_repair(
    matrices: Floats, doubt: Floats, one: tuple[Floats, Floats], other: tuple[Floats, Floats]
) -> float:
    """How far towards the repaired target to go: what would have been best on other samples.

    With Δ = T - W of one fold and the moments of the other, E|W x - (W + α Δ) x̂|² is least at
    α = tr(W (E[x x̂ᵀ] - E[x̂ x̂ᵀ]) Δᵀ) / tr(Δ E[x̂ x̂ᵀ] Δᵀ), both ways round together. Of twice as many
    samples, in which noise is half as strong, 2 α / (1 + α) is best (Spearman, Brown 1910).

    Args:
        matrices: [G, R, K], W.
        doubt: [G], of the moments of all samples.
        one: E[x̂ x̂ᵀ] and E[x x̂ᵀ] of a fold, [G, K, K] each.
        other: the same of another fold.

    Returns: the share for a target from both folds, between 0 and 1.
    """
    gain = cost = 0.0
    for (second, cross), (found, across) in ((one, other), (other, one)):
        move = repaired_target(matrices, SecondMoment(second, doubt), cross) - matrices
        gain += float(np.sum((matrices @ (across - found)) * move))
        cost += float(np.sum((move @ found) * move))
    share = min(max(gain / cost, 0.0), 1.0) if cost > 0 else 0.0
    return 2 * share / (1 + share)


def step_of_bias(errors: Floats, second: Floats) -> float:
    """The step, a power of two, of which a bias's rounding costs what that of a weight does.

    An entry is worth bits down to where it costs what any other does at the same slope. A bias
    multiplies one, and a row of K weights leaves eᵀ H e: a K-th of that is step²/12.

    Args:
        errors: [G, R, K], of the weights.
        second: [G, K, K], H: moments of the inputs about their means.

    Returns: the step; 0 if there is no error.
    """
    cost = np.mean(np.einsum("grk,grk->gr", errors @ second, errors)) / errors.shape[2]
    return float(2.0 ** np.floor(np.log2(12 * cost) / 2)) if cost > 0 else 0.0


def error_feedback(
    target: Floats, inputs: SecondMoment, step: float, outputs: SecondMoment | None = None
) -> Integers:
    """Round a layer to multiples of a step, every error fed back to the columns still to come.

    Args:
        target: [G, R, K], rows to approximate.
        inputs: [G, K, K], of what the columns multiply.
        step: of the grid.
        outputs: [G, R, R], of the cotangents of the rows: errors are fed back to the rows still to
            come, too.

    Returns: integers [G, R, K].
    """
    order, spread = spread_of_errors(inputs)
    rest = np.take_along_axis(target / step, order[:, None, :], axis=2)
    if outputs is None or target.shape[1] == 1:
        integers = _one_side(rest.astype(np.float32), spread)
    else:
        rows, over_rows = spread_of_errors(outputs)
        rest = np.take_along_axis(rest, rows[:, :, None], axis=1)
        sorted_rows = round_both_sides(rest.astype(np.float32), over_rows, spread)
        integers = np.empty_like(sorted_rows)
        np.put_along_axis(
            integers, np.broadcast_to(rows[:, :, None], rest.shape), sorted_rows, axis=1
        )
    result = np.empty(target.shape, np.int32)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], target.shape), integers, axis=2)
    return result


def _one_side(rest: Array, spread: Array) -> Array:
    """Integers for [G, R, K] in the order of rounding; spread is [G, K, K]. Overwrites `rest`."""
    integers = np.empty_like(rest)
    columns = rest.shape[2]
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        errors = _round_block(rest[:, :, block], spread[:, block, block], integers[:, :, block])
        if block.stop < columns:
            rest[:, :, block.stop :] -= errors @ spread[:, block, block.stop :]
    return integers


def _round_block(rest: Array, spread: Array, integers: Array) -> Array:
    """Round some columns, [G, R, B], in place; returns their errors."""
    errors = np.empty_like(rest)
    for j in range(rest.shape[2]):
        integers[:, :, j] = np.rint(rest[:, :, j])
        errors[:, :, j] = rest[:, :, j] - integers[:, :, j]
        rest[:, :, j + 1 :] -= errors[:, :, j, None] * spread[:, None, j, j + 1 :]
    return errors


def spread_of_errors(
    second: SecondMoment, *, common: bool = False
) -> tuple[NDArray[np.intp], Array]:
    """The order of rounding [G, K], and how errors are spread over what comes after [G, K, K].

    Entries go in the order of falling diagonal, in all groups in that of its sum if `common`. U is
    upper triangular with Uᵀ U = H⁻¹ in that order; row j over U_jj says how the error of column j
    is spread over the columns after it, and 1/U_jj² is what is left of its cost.
    """
    damped = second.values + second.ridge(DAMPING)
    diagonal = np.einsum("gkk->gk", damped)
    if common:
        diagonal = np.broadcast_to(diagonal.sum(axis=0), diagonal.shape)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    damped = np.take_along_axis(damped, order[:, :, None], axis=1)
    damped = np.take_along_axis(damped, order[:, None, :], axis=2)
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    factor = np.linalg.inv(lower)[:, ::-1, ::-1]
    return order, (factor / np.einsum("gkk->gk", factor)[:, :, None]).astype(np.float32)
