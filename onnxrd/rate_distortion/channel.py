"""What meets the bound of theorem 2: a test channel to draw from, and how much its draws tell."""

import numpy as np
from numpy.typing import ArrayLike

from onnxrd.rate_distortion.gaussian import water_levels
from onnxrd.rate_distortion.histogram import Floats


def sample_channel(
    weight: ArrayLike,
    variance: ArrayLike,
    importance: ArrayLike,
    multiplier: float,
    rng: np.random.Generator,
) -> Floats:
    """Draw approximations from the test channel that meets the bound.

    w_i = ŵ_i + z_i with z_i ~ N(0, D_i) independent of ŵ_i; where D_i = σ_i², ŵ_i = 0   (Gao et al.
    2019, theorem 3 and algorithm 1, whose listing prints the last case the wrong way round)

    Drawn forwards: ŵ_i = a_i w_i + N(0, a_i D_i), a_i = 1 - D_i/σ_i².

    Args:
        weight: [..., n], drawn from N(0, σ²).
        variance: [n] or a scalar, weight².
        importance: [n] or a scalar, nats per weight².
        multiplier: μ, of `water_filling`.
        rng: what the noise is drawn with.

    Returns: [..., n].
    """
    w = np.asarray(weight, dtype=np.float64)
    level = water_levels(variance, importance, multiplier)
    left = np.ones_like(level)
    np.divide(level, variance, out=left, where=np.less(level, variance))
    share = 1 - left
    return np.asarray(share * w + np.sqrt(share * level) * rng.standard_normal(w.shape))


def mutual_information(weight: Floats, approximation: Floats) -> float:
    """I(w; ŵ) measured on samples of independent coordinates that are jointly Gaussian.

    I = -½ Σ log(1 - ρ_i²), with ρ_i the sample correlation; too large by about 1/(2m) for each
    coordinate that is sent.

    Args:
        weight: [m, n], m samples.
        approximation: [m, n]; a constant coordinate tells nothing.

    Returns: nats, all coordinates together.
    """
    w = weight - weight.mean(axis=0)
    v = approximation - approximation.mean(axis=0)
    energies = (w * w).sum(axis=0) * (v * v).sum(axis=0)
    products = (w * v).sum(axis=0) ** 2
    explained = np.divide(products, energies, out=np.zeros_like(products), where=energies > 0)
    return float(-np.log1p(-explained).sum() / 2)
