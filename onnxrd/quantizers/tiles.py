"""Rounding with every error fed back to the rows and the columns still to come, by tiles."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

TILE = 32
"""Rows and columns that are rounded together."""


def round_both_sides(rest: Array, over_rows: Array, over_columns: Array) -> Array:
    """Integers for [G, R, K] in the order of rounding, by tiles of rows and columns.

    E = Mᵀ Δ N. An entry waits for those above it and left of it, so that the tiles of a falling
    diagonal go together, and within them the entries of one.

    Args:
        rest: [G, R, K], targets.
        over_rows: [G, R, R], M, upper triangular with ones on the diagonal.
        over_columns: [G, K, K], N, likewise.
    """
    groups, *shape = rest.shape
    rows, columns = (-(-n // TILE) * TILE for n in shape)
    targets = np.zeros((groups, rows, columns), np.float32)
    targets[:, : shape[0], : shape[1]] = rest
    m, n = _filled(over_rows, rows), _filled(over_columns, columns)
    rounded, errors, spread = (np.zeros_like(targets) for _ in range(3))  # Δ and Δ N
    tall, wide = rows // TILE, columns // TILE
    for diagonal in range(tall + wide - 1):
        tiles = [
            (slice(i * TILE, (i + 1) * TILE), slice(j * TILE, (j + 1) * TILE))
            for i in range(max(0, diagonal - wide + 1), min(tall, diagonal + 1))
            for j in [diagonal - i]
        ]
        left = np.stack([errors[:, a, : b.start] @ n[:, : b.start, b] for a, b in tiles])
        above = [m[:, : a.start, a].swapaxes(1, 2) @ spread[:, : a.start, b] for a, b in tiles]
        done = _round_tiles(
            np.stack([targets[:, a, b] for a, b in tiles]) + np.stack(above),
            left,
            np.stack([m[:, a, a] for a, _ in tiles]),
            np.stack([n[:, b, b] for _, b in tiles]),
        )
        for number, (a, b) in enumerate(tiles):
            rounded[:, a, b], errors[:, a, b], spread[:, a, b] = (one[number] for one in done)
    return rounded[:, : shape[0], : shape[1]]


def _round_tiles(
    targets: Array, left: Array, over_rows: Array, over_columns: Array
) -> tuple[Array, Array, Array]:
    """Round tiles that do not wait for one another, all [T, G, TILE, TILE].

    Args:
        targets: with what the rows above the tile hand down.
        left: what the columns left of the tile hand over, by row.
        over_rows: M of the tiles' rows.
        over_columns: N of their columns.

    Returns: integers, Δ, and Δ N.
    """
    rounded, errors, spread = (np.zeros_like(targets) for _ in range(3))
    down, across = (
        np.ascontiguousarray(np.swapaxes(one, 2, 3)) for one in (over_rows, over_columns)
    )
    for diagonal in range(2 * TILE - 1):
        i = np.arange(max(0, diagonal - TILE + 1), min(TILE, diagonal + 1))
        j = diagonal - i
        along = left[:, :, i, j] + np.einsum("tgek,tgek->tge", errors[:, :, i], across[:, :, j])
        handed = np.einsum("tgek,tgke->tge", down[:, :, i], spread[:, :, :, j])
        aim = targets[:, :, i, j] + handed + along
        found = np.rint(aim)
        rounded[:, :, i, j] = found
        errors[:, :, i, j] = found - aim
        spread[:, :, i, j] = along + found - aim
    return rounded, errors, spread


def _filled(spread: Array, size: int) -> Array:
    """[G, size, size]: a unit triangular matrix, continued by the identity."""
    whole = np.broadcast_to(np.eye(size, dtype=np.float32), (len(spread), size, size)).copy()
    whole[:, : spread.shape[1], : spread.shape[1]] = spread
    return whole
