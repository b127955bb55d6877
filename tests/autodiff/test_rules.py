"""Every rule against central differences through onnxruntime, and batched against one at a time."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxrd.autodiff.gradients import Gradients, batched_squares, reference_squares
from onnxrd.autodiff.registry import PER_SAMPLE, REVERSE, SQUARES
from onnxrd.graph.session import Session
from tests.autodiff.cases import CASES, Case

STEP = 2e-3


def build(case, fed=()):
    """The operator with inputs `i0`, `i1`, …: those in `fed` are graph inputs, others constants."""
    names = ["" if value is None else f"i{k}" for k, value in enumerate(case.inputs)]
    outputs = [f"o{k}" for k in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, domain=case.domain, **case.attributes)
    arrays = {n: v for n, v in zip(names, case.inputs) if n}
    infos = [
        helper.make_tensor_value_info(f"i{k}", helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in enumerate(case.inputs)
        if k in fed
    ]
    constants = [numpy_helper.from_array(v, n) for n, v in arrays.items() if int(n[1:]) not in fed]
    graph = helper.make_graph(
        [node], "case", infos, [onnx.ValueInfoProto(name=o) for o in outputs], constants
    )
    imports = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def differentiable(case):
    floats = [k for k, v in enumerate(case.inputs) if v is not None and v.dtype.kind == "f"]
    return floats if case.slots is None else list(case.slots)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_match_central_differences(case):
    slots = differentiable(case)
    differentiated = [f"o{k}" for k in range(case.outputs if case.all_outputs else 1)]
    gradients = Gradients(build(case), Path(), differentiated, [f"i{k}" for k in slots])
    forward = gradients.forward("gradient", {})
    rng = np.random.default_rng(7)
    seeds = {name: rng.standard_normal(v.shape) for name, v in forward.sources.items()}
    found = gradients.backward(forward, seeds)
    session = Session(build(case, fed=slots), level="disable")

    def loss(slot, moved):
        feeds = {f"i{k}": case.inputs[k] for k in slots} | {f"i{slot}": moved}
        outputs = session.run(feeds, differentiated)
        return sum(float((seeds[n] * outputs[n].astype(np.float64)).sum()) for n in differentiated)

    for slot in slots:
        x = case.inputs[slot]
        gradient = found[f"i{slot}"].astype(np.float64)
        assert gradient.shape == x.shape
        scale = np.linalg.norm(gradient) + 1e-3
        for direction in _directions(x.shape, rng):
            ahead = (x + STEP * direction).astype(np.float32)
            behind = (x - STEP * direction).astype(np.float32)
            difference = loss(slot, ahead) - loss(slot, behind)
            expected = float((gradient * (ahead.astype(np.float64) - behind)).sum())
            assert abs(difference - expected) <= 2e-3 * scale * 2 * STEP, (slot, direction)


def _directions(shape, rng):
    """Four random directions of signs, and single coordinates."""
    yield from (rng.choice([-1.0, 1.0], shape) for _ in range(4))
    n = int(np.prod(shape))
    for index in rng.permutation(n)[:6]:
        single = np.zeros(n)
        single[index] = 1.0
        yield single.reshape(shape)


BATCHED = [(case, slot) for case in CASES for slot in case.weights]


@pytest.mark.parametrize(("case", "slot"), BATCHED, ids=lambda v: str(v))
def test_batched_squares_match_one_sample_at_a_time(case, slot):
    samples = case.samples_in
    model = build(case, fed=(samples,))
    gradients = Gradients(model, Path(), ["o0"], [f"i{slot}"])
    feeds = {f"i{samples}": case.inputs[samples]}
    forward = gradients.forward("squares", feeds)
    seeds = {"o0": np.random.default_rng(3).standard_normal(forward.sources["o0"].shape)}
    found = batched_squares(gradients, forward, seeds)[f"i{slot}"]
    expected = reference_squares(gradients, gradients.forward("squared gradient", feeds), seeds)
    assert found.shape == case.inputs[slot].shape
    np.testing.assert_allclose(found, expected[f"i{slot}"], rtol=1e-4, atol=1e-6)


def test_every_rule_has_a_case():
    covered = {(case.domain, case.op) for case in CASES}
    assert set(REVERSE) <= covered
    batched = {(case.domain, case.op, slot) for case, slot in BATCHED}
    assert set(PER_SAMPLE) | set(SQUARES) <= batched


def test_a_wrong_rule_is_caught(monkeypatch):
    rule = REVERSE["", "Tanh"]

    def wrong(t, node, dys, wanted):
        return {slot: t.op("Mul", d, 1.01) for slot, d in rule(t, node, dys, wanted).items()}

    monkeypatch.setitem(REVERSE, ("", "Tanh"), wrong)
    with pytest.raises(AssertionError):
        test_gradients_match_central_differences(Case("Tanh", (np.ones((2, 3), np.float32),)))
