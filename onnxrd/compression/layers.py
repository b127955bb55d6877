"""Quantize one weight of a network: a layer with error feedback, any other by rounding."""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxrd.compression.network import Layer, Network
from onnxrd.compression.quantization import Method, Quantization
from onnxrd.encodings import ENTROPY_OPSET
from onnxrd.graph.weights import Weight
from onnxrd.importance.moments import Moments
from onnxrd.quantizers import Codebook, Quantized, Stacked, Trellis
from onnxrd.quantizers.coded import FINEST
from onnxrd.quantizers.feedback import (
    Floats,
    SecondMoment,
    error_feedback,
    repaired_target,
    step_of_bias,
    trust_in_repair,
)
from onnxrd.quantizers.grid import grid_codebook, round_to_grid
from onnxrd.quantizers.trellis_feedback import ROWS, trellis_feedback
from onnxrd.quantizers.viterbi import COARSER, round_to_trellis

Array = NDArray[Any]

LEAST = 4096
"""Weights from which on one that is no layer is put on a trellis."""


def quantize_loose(network: Network, weight: Weight, method: Method, done: Quantization) -> None:
    """Quantize a weight that is no layer's matrix; adds to what is done."""
    array, sets, steps = weight.array(), network.row_sets.get(weight.name), done.steps
    trellis = method.trellis and network.model.opset >= ENTROPY_OPSET
    done.weights[weight.name] = (
        _rounded(array, steps[weight.name], trellis=trellis)
        if sets is None
        else Stacked(
            [
                _rounded(array[rows], steps[name], trellis=trellis)
                for name, rows in zip(sets.names(weight.name), sets.rows)
            ],
            sets.moved,
        )
    )


def _rounded(array: Array, step: float, *, trellis: bool) -> Codebook | Trellis:
    """The nearest point on a grid or, where it is large enough and not too wide, of a trellis."""
    if trellis and array.size >= LEAST and float(np.abs(array).max()) <= FINEST * step:
        return round_to_trellis(array, step)
    return grid_codebook(round_to_grid(array, step), step, array.dtype)


def quantize_layer(
    network: Network, layer: Layer, folds: Sequence[Moments], method: Method, done: Quantization
) -> None:
    """Quantize one layer, given the moments of its inputs in one or two folds of the samples.

    Adds to what is done.
    """
    form, weight, step = layer.form, layer.weight, done.steps[layer.weight.name]
    centred = method.bias and bool(form.bias) and form.bias not in network.fixed
    moments = reduce(operator.add, folds)
    second, cross = moments.second(centred=centred)
    matrices = form.matrices(weight.array()).astype(np.float64)
    inputs = SecondMoment.of(second, moments.draws)
    target = matrices
    if method.repair:
        found = [fold.second(centred=centred) for fold in folds]
        share = trust_in_repair(matrices, inputs.doubt, *found) if len(folds) == 2 else 1.0
        target = matrices + share * (repaired_target(matrices, inputs, cross) - matrices)
    quantized = _on_trellis(network, layer, target, inputs, step) if method.trellis else None
    if quantized is None:
        known = network.directions if method.directions else None
        outputs = known.get(layer.number) if known else None
        integers = error_feedback(target, inputs, step, outputs)
        quantized = grid_codebook(form.weight(integers, weight.shape), step, weight.dtype)
    done.weights[weight.name] = quantized
    if centred:
        x, xq = moments.means()
        moved = np.einsum("grk,gk->gr", matrices, x)
        moved -= np.einsum(
            "grk,gk->gr", form.matrices(quantized.dequantize()).astype(np.float64), xq
        )
        bias = network.constant(form.bias)
        bias = (bias + moved.reshape(bias.shape)).astype(bias.dtype)
        errors = form.matrices(quantized.dequantize()) - target
        done.biases[form.bias] = network.held(form.bias, bias, step_of_bias(errors, second))


def _on_trellis(
    network: Network, layer: Layer, target: Floats, inputs: SecondMoment, step: float
) -> Quantized | None:
    """A layer on a trellis; None if it cannot be or has too few rows."""
    form, weight = layer.form, layer.weight
    groups, rows, _ = form.index.shape
    turned = _turned(layer)
    if turned is None or groups * rows < ROWS or network.model.opset < ENTROPY_OPSET:
        return None
    step *= COARSER
    if float(np.abs(target).max()) > FINEST * step:
        return None
    codes, _ = trellis_feedback(target, inputs, step)
    if int(np.abs(codes).max()) > FINEST:
        return None
    return Trellis(form.weight(codes, weight.shape), np.asarray(weight.dtype.type(step)), turned)


def _turned(layer: Layer) -> bool | None:
    """Whether columns of the layer's matrix lie behind one another along the weight's first axis.

    In row-major order if not; None if in neither.
    """
    index = layer.form.index.transpose(2, 0, 1).ravel()
    rows_first = np.arange(index.size).reshape(layer.weight.shape[0], -1).T.ravel()
    if (index == rows_first).all():
        return True
    return False if (index == np.arange(index.size)).all() else None


def gathered(
    layer: Layer, samples: Sequence[int], inputs: Sequence[Array], others: Sequence[Array] | None
) -> list[Moments]:
    """Moments of a layer's inputs, in the original network and maybe in another.

    Two folds of the samples, every other batch in each; one where there is but one batch.

    Args:
        layer: the layer.
        samples: how many there are in each batch.
        inputs: at some of their positions, [G, P, K] a batch.
        others: the same in the other network.
    """
    groups, _, columns = layer.form.index.shape
    folds = [Moments(groups, columns) for _ in inputs[:2]]
    for number, x in enumerate(inputs):
        folds[number % 2].add(x, samples[number], others[number] if others else None)
    return folds
