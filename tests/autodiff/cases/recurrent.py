"""LSTM, GRU and RNN: directions, absent inputs, sequences that end early, other activations."""

import numpy as np

from tests.autodiff.cases.case import Case, normal

T, N, INPUTS, H = 4, 3, 5, 2
"""Times, samples, inputs, units."""
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LENGTHS = np.array([4, 2, 3], np.int32)
OTHERS = {
    "LSTM": ["HardSigmoid", "ScaledTanh", "Softsign"],
    "GRU": ["HardSigmoid", "ScaledTanh"],
    "RNN": ["Elu"],
}
PARAMETERS = {"activation_alpha": [0.3, 0.8], "activation_beta": [0.45, 1.1]}


def recurrent(
    op, direction="forward", *, bias=True, lengths=None, states=True, peepholes=False, **extra
):
    """A case with all outputs differentiated."""
    d, rows = 1 + (direction == "bidirectional"), GATES[op] * H
    inputs = [normal(T, N, INPUTS), normal(d, rows, INPUTS, seed=2), normal(d, rows, H, seed=3)]
    inputs += [normal(d, 2 * rows, seed=4) if bias else None, lengths]
    inputs += [normal(d, N, H, seed=5) if states else None]
    if op == "LSTM":
        inputs += [normal(d, N, H, seed=6) if states else None]
        inputs += [normal(d, 3 * H, seed=7)] if peepholes else []
    while inputs[-1] is None:
        inputs.pop()
    outputs = 3 if op == "LSTM" else 2
    attributes = {"hidden_size": H, "direction": direction, **extra}
    opset = extra.pop("opset", 14)
    return Case(
        op,
        tuple(inputs),
        attributes,
        opset=opset,
        outputs=outputs,
        differentiated=tuple(range(outputs)),
    )


def cases_of(op):
    yield recurrent(op)
    yield recurrent(op, bias=False, states=False)
    yield recurrent(op, "reverse", lengths=LENGTHS)
    yield recurrent(op, "bidirectional", lengths=LENGTHS, states=False)
    yield recurrent(op, "bidirectional", bias=False)
    yield recurrent(op, activations=OTHERS[op], **PARAMETERS)
    yield recurrent(op, clip=0.7)
    if op == "GRU":
        yield recurrent(op, linear_before_reset=1)
        yield recurrent(op, "bidirectional", linear_before_reset=1, lengths=LENGTHS)
        yield recurrent(op, "reverse", linear_before_reset=1, bias=False, states=False)
    if op == "LSTM":
        yield recurrent(op, peepholes=True)
        yield recurrent(op, "reverse", peepholes=True, lengths=LENGTHS, clip=0.7)


CASES = [case for op in GATES for case in cases_of(op)]
CASES += [
    recurrent("RNN", activations=[name], **PARAMETERS)
    for name in ("Affine", "LeakyRelu", "Softplus", "ThresholdedRelu")
]
