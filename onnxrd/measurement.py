"""Importance as the options ask for it, with settings that held-out samples choose.

Damping of the objectives that know the labels, and the temperature if it is to be found, are those
that leave the least damage on a part of the calibration samples that importance has not seen, when
the weights are compressed as they are going to be.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.cache import Arrays, remembered
from onnxrd.calibration import Calibration
from onnxrd.distortion import find_heads, log_probabilities, log_softmax, regression
from onnxrd.errors import CalibrationError, SettingError
from onnxrd.evaluation import Evaluation, evaluate
from onnxrd.graph.model import Model, load, save
from onnxrd.graph.session import Session
from onnxrd.graph.weights import Weight, find_weights
from onnxrd.importance import Importance, Supervised, fisher, identity, supervised
from onnxrd.options import Options
from onnxrd.quantizers import Quantized, prune_and_quantize

Array = NDArray[Any]
Quantizer = Callable[[Sequence[Weight], Importance], Iterator[Quantized]]
"""Weights and what errors in them cost → one approximation of each, in the same order.

Its `repr` is to say all that it does, so that what was chosen for it can be remembered.
"""

HELD_OUT = 0.2
"""Share of the calibration samples that settings are chosen on."""

DAMPINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 5.0, 9.0)


@dataclass(frozen=True)
class Codebooks:
    """A quantizer: codebooks by k-means.

    Attributes:
        clusters: levels of each weight.
        keep: share of each weight's entries that may be other than zero.
    """

    clusters: int
    keep: float = 1.0

    def __call__(self, weights: Sequence[Weight], h: Importance) -> Iterator[Quantized]:
        """See `Quantizer`."""
        for weight in weights:
            array, cost = weight.array(), h.damped(weight.name, weight.shape)
            quartic = h.damped_quartic(weight.name) if h.quartic else None
            yield prune_and_quantize(array, cost, self.keep, self.clusters, quartic)


EIGHT_LEVELS = Codebooks(8)
"""What settings are tried with where importance is measured for no quantizer in particular."""


def measure_importance(
    model: Model, data: Calibration | None, options: Options, quantizer: Quantizer = EIGHT_LEVELS
) -> Importance:
    """Importance as the options ask for it, from their cache if it is there.

    Identity needs no data.

    Raises:
        ImportanceError: see `onnxrd.importance`.
        CalibrationError: the same; or there are no data, or too few to hold some out.
        SettingError: a temperature is to be found for outputs that are no classes.
    """
    if options.objective == "identity":
        return identity(model)
    if data is None:
        raise CalibrationError("importance is measured on data: give --data.")
    if options.temperature == "auto":
        found = _remembered(
            "temperature",
            (model, data, options, quantizer),
            lambda: best_temperature(model, data, options, quantizer),
        )
        estimator = replace(options.estimator, temperature=found)
        options = replace(options, temperature=None, estimator=estimator)
    if options.damping is not None:
        return replace(_measured(model, data, options), damping=options.damping)
    if options.objective not in get_args(Supervised):
        return _measured(model, data, options)
    fit, held = data.split(HELD_OUT, options.seed)
    importance = _measured(model, fit, options)
    damping = _remembered(
        "damping",
        (model, data, options, quantizer),
        lambda: best_damped(model, importance, held, options, quantizer).damping,
    )
    return replace(importance, damping=damping)


def _remembered(
    kind: str,
    problem: tuple[Model, Calibration, Options, Quantizer],
    compute: Callable[[], float],
) -> float:
    """A setting that was chosen for a quantizer, from the cache if it is there."""
    model, data, options, quantizer = problem
    settings = (*_settings(options), options.seed, quantizer)
    arrays = remembered(
        options.cache, kind, model, [data], settings, lambda: {kind: np.array(compute())}
    )
    return float(arrays[kind])


def best_damped(
    model: Model,
    importance: Importance,
    held: Calibration,
    options: Options,
    quantizer: Quantizer = EIGHT_LEVELS,
) -> Importance:
    """The same importance with the damping that leaves the least cross-entropy.

    Args:
        model: the network.
        importance: of its weights.
        held: samples with labels that importance was not measured on.
        options: task, runtime and progress.
        quantizer: what is done to the weights.
    """
    trial = _Trial(model, held, options, quantizer)
    candidates = [replace(importance, damping=damping) for damping in DAMPINGS]
    return min(options.track(candidates, "damping", len(candidates)), key=trial.loss)


def best_temperature(
    model: Model, data: Calibration, options: Options, quantizer: Quantizer = EIGHT_LEVELS
) -> float:
    """The temperature, from 1 to 9, for `Estimator.temperature`.

    With labels it is the one that calibrates the outputs (Guo et al. 2017), else that whose Fisher
    information makes the least measured KL divergence on held-out samples.

    Raises:
        SettingError: no output classifies.
        CalibrationError: labels do not fit, or there is a single sample.
    """
    heads = find_heads(model.prepared(), options.task, sample_axis=data.sample_axis)
    classifiers = [head for head in heads if head.task == "classification"]
    if not classifiers:
        raise SettingError("a temperature is for outputs that classify, and none does.")
    if data.labels is not None and len(classifiers) == 1:
        head, session = classifiers[0], Session(model.path, runtime=options.runtime)
        said: list[Array] = []
        for batch in data.batches(64):
            rows = log_probabilities(head, session.run(batch.feeds, [head.output])[head.output])
            said.extend(rows[: batch.size] if data.sample_axis else rows)
        together = np.concatenate(said)
        data.check_labels(together.shape[-1])
        if data.labels.size == len(together):
            return calibrated_temperature(together, data.labels.ravel())
    fit, held = data.split(HELD_OUT, options.seed)
    trial = _Trial(model, held, options, quantizer)

    def damage(temperature: float) -> float:
        estimator = replace(options.estimator, temperature=temperature)
        return trial.divergence(
            fisher(model, fit, estimator=estimator, task=options.task, runtime=options.runtime)
        )

    return min(options.track(TEMPERATURES, "temperature", len(TEMPERATURES)), key=damage)


def calibrated_temperature(log_probabilities: Array, labels: Array) -> float:
    """The T in 1 … 9 with the least cross-entropy of softmax(z / T), to 1 %.

    Args:
        log_probabilities: [M, K], or logits.
        labels: [M].
    """
    candidates = np.exp(np.linspace(0, np.log(9), 221))
    losses = []
    for temperature in candidates:
        log = log_softmax(log_probabilities / temperature)
        losses.append(-np.take_along_axis(log, labels[:, None], -1).mean())
    return float(round(candidates[int(np.argmin(losses))], 3))


def _settings(options: Options) -> tuple[Any, ...]:
    """Of importance, damping aside."""
    return (options.objective, options.estimator, options.task, options.runtime)


def _measured(model: Model, data: Calibration, options: Options) -> Importance:
    """Importance with the settings as they are."""

    def measure() -> Arrays:
        objective, task = options.objective, options.task
        common: Any = dict(
            estimator=options.estimator, runtime=options.runtime, track=options.track
        )
        if objective == "gradient" or objective == "hessian" or objective == "gradient+hessian":
            return supervised(model, data, objective, task=task, **common).arrays()
        task = regression(task) if objective == "regression" else task
        return fisher(model, data, task=task, **common).arrays()

    settings = _settings(options)
    return Importance.of_arrays(
        remembered(options.cache, "importance", model, [data], settings, measure)
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """The damage of a compression, on samples held out."""

    model: Model
    held: Calibration
    options: Options
    quantizer: Quantizer

    def loss(self, importance: Importance) -> float:
        """Cross-entropy with the labels, nats."""
        heads = self._evaluated(importance).heads
        return sum(head.cross_entropy[1] for head in heads if head.cross_entropy is not None)

    def divergence(self, importance: Importance) -> float:
        """KL divergence from the original, nats."""
        return self._evaluated(importance).distortion

    def _evaluated(self, importance: Importance) -> Evaluation:
        weights = [weight for weight in find_weights(self.model) if not weight.skip]
        dense = self.model.prepared()
        for weight, quantized in zip(weights, self.quantizer(weights, importance)):
            approximation = ir.tensor(quantized.dequantize())
            dense.graph.initializers[weight.name].const_value = approximation
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trial.onnx"
            save(dense, path)
            return evaluate(
                self.model,
                load(path),
                self.held,
                task=self.options.task,
                timed=False,
                runtime=self.options.runtime,
            )
