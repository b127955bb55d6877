"""Theory: how few bits a distortion costs, whatever the compressor. Pure numpy, no ONNX.

Which one should I use?

- A network: one `Source` per tensor, by `gaussian_source` or `empirical_source`, and `bound`, the
  least rate of them all together for a distortion, or the other way round.
- Weights with a variance each: `water_filling` (theorem 2), exact, for 10⁸ weights if need be.
  `sample_channel` draws what meets that bound (algorithm 1).
- Correlated weights: `correlated_bound`. `theorem2_bound` is the paper's formula as it stands,
  which is loose there and can be negative.
- A single random variable: `gaussian_rate`, `blahut_arimoto`, or a `Curve`.
- An approximation at hand: the golden rules, `rule1_residual` and `rule2_residual`; for a layer of
  ReLUs the error itself, `relu_error`.

Conventions: importance is h, distortion D = ½ Σ h_i (w_i - ŵ_i)², in nats if h is in nats per
weight². The λ_i of the paper, where D = Σ λ_i (w_i - ŵ_i)², is h_i / 2. Rates are in nats; times
`BITS` they are in bits, and results know both.
"""

from onnxrd.rate_distortion.channel import mutual_information, sample_channel
from onnxrd.rate_distortion.curves import (
    Curve,
    RatePoint,
    blahut_arimoto,
    empirical_curve,
    gaussian_curve,
    tabulated_curve,
)
from onnxrd.rate_distortion.gaussian import (
    BITS,
    WaterFilling,
    correlated_bound,
    gaussian_rate,
    theorem2_bound,
    water_filling,
    water_levels,
)
from onnxrd.rate_distortion.golden_rules import (
    quadratic_distortion,
    relu_error,
    rule1_residual,
    rule2_residual,
)
from onnxrd.rate_distortion.histogram import Histogram, histogram
from onnxrd.rate_distortion.network import (
    Bound,
    Source,
    bound,
    bound_at,
    empirical_source,
    gaussian_source,
)

__all__ = [
    "BITS",
    "Bound",
    "Curve",
    "Histogram",
    "RatePoint",
    "Source",
    "WaterFilling",
    "blahut_arimoto",
    "bound",
    "bound_at",
    "correlated_bound",
    "empirical_curve",
    "empirical_source",
    "gaussian_curve",
    "gaussian_rate",
    "gaussian_source",
    "histogram",
    "mutual_information",
    "quadratic_distortion",
    "relu_error",
    "rule1_residual",
    "rule2_residual",
    "sample_channel",
    "tabulated_curve",
    "theorem2_bound",
    "water_filling",
    "water_levels",
]
