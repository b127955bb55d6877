"""Every rule against central differences through onnxruntime, and batched against one at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxrd.autodiff.gradients import Gradients, batched_squares
from onnxrd.autodiff.lowering import has_function_body
from onnxrd.autodiff.registry import DECOMPOSITIONS, PER_SAMPLE, REVERSE, SQUARES
from onnxrd.errors import ModelError
from onnxrd.graph.session import Runtime, Session
from tests.autodiff.cases import CASES, Case

STEPS = {np.float64: 1e-4, np.float32: 2e-3}
TOLERANCES = {
    (np.float64, np.float64): 1e-5,
    (np.float64, np.float32): 1e-4,
    (np.float32, np.float32): 2e-3,
}
"""(network, reverse pass) → difference allowed, relative to the length of the gradient."""


def build(case, *, fed=(), behind=()):
    """The operator with inputs `i0`, `i1`, …

    Args:
        case: the operator.
        fed: slots that are graph inputs, with the first axis free; the others are constants.
        behind: of these, slots that get their input as Add(`i`, `t`) with zeros `t0`, `t1`, …
    """
    names = ["" if value is None else f"i{k}" for k, value in enumerate(case.inputs)]
    arrays = {n: value for n, value in zip(names, case.inputs) if n}
    used = [f"s{k}" if k in behind else name for k, name in enumerate(names)]
    outputs = ["" if k in case.absent else f"o{k}" for k in range(case.outputs)]
    nodes = [helper.make_node("Add", [f"i{k}", f"t{k}"], [f"s{k}"]) for k in behind]
    nodes += [helper.make_node(case.op, used, outputs, domain=case.domain, **case.attributes)]
    inputs = [
        helper.make_tensor_value_info(n, _code(v), v.shape if case.fixed else _free(n, v))
        for n, v in arrays.items()
        if int(n[1:]) in fed
    ]
    constants = {n: v for n, v in arrays.items() if int(n[1:]) not in fed}
    constants |= {f"t{k}": np.zeros_like(case.inputs[k]) for k in behind}
    graph = helper.make_graph(
        nodes,
        "case",
        inputs,
        [onnx.ValueInfoProto(name=o) for o in outputs if o],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    imports = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def _free(name, array):
    return [f"n_{name}", *array.shape[1:]] if array.ndim else []


def _code(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def cast(case, dtype):
    inputs = (v.astype(dtype) if v is not None and v.dtype.kind == "f" else v for v in case.inputs)
    return replace(case, inputs=tuple(inputs))


def sharpest(case):
    """The case in double precision where onnxruntime has the kernel for it, else in single."""
    if case.single:
        return case, np.float32
    double = cast(case, np.float64)
    try:
        outputs = Session(build(double), level="disable", runtime=Runtime(threads=1)).run({})
    except ModelError:
        return case, np.float32
    exact = all(outputs[f"o{k}"].dtype == np.float64 for k in case.differentiated)
    return (double, np.float64) if exact else (case, np.float32)


def gradients_of(case, seeds, *, computed):
    """Gradients of all slots, as constants or as values that depend on inputs and weights."""
    slots = case.differentiable
    fed = [k for k in slots if case.inputs[k].ndim] if computed else []
    kinds = {"fed": fed, "behind": slots} if computed else {}
    targets = [f"{'t' if computed else 'i'}{k}" for k in slots]
    feeds = {f"i{k}": case.inputs[k] for k in fed}
    for dtype in (np.float64, np.float32):
        model = build(case, **kinds)
        gradients = Gradients(
            model, Path(), list(seeds), targets, dtype=dtype, runtime=Runtime(threads=1)
        )
        try:
            found = gradients.backward(gradients.forward("gradient", feeds), seeds)
        except ModelError:
            if dtype == np.float32:
                raise
        else:
            break
    assert not gradients.blocked(feeds)
    return {slot: found[name].astype(np.float64) for slot, name in zip(slots, targets)}, dtype


NEWEST = 28
NO_KERNEL = {"GlobalLpPool", "Swish"}
"""What onnxruntime does not run in that opset."""


def newest_forms():
    """A late case of every operator as the newest opset has it, if its form is still allowed."""
    for case in {case.op: case for case in sorted(CASES, key=lambda case: case.opset)}.values():
        if case.domain or case.op in NO_KERNEL or not onnx.defs.has(case.op, NEWEST, ""):
            continue
        schema = onnx.defs.get_schema(case.op, NEWEST)
        allowed = set(case.attributes) <= set(schema.attributes) and not schema.deprecated
        if case.opset != NEWEST and allowed:
            yield replace(case, opset=NEWEST)


class Differences:
    """Central differences of the outputs contracted with random cotangents."""

    def __init__(self, case, step):
        self.case, self.step = case, step
        self.session = Session(
            build(case, fed=case.differentiable), level="disable", runtime=Runtime(threads=1)
        )
        self.feeds = {f"i{k}": case.inputs[k] for k in case.differentiable}
        self.rng = np.random.default_rng(7)
        outputs = self.session.run(self.feeds)
        names = [f"o{k}" for k in case.differentiated]
        self.seeds = {n: self.rng.standard_normal(outputs[n].shape) for n in names}

    def loss(self, slot, moved):
        outputs = self.session.run(self.feeds | {f"i{slot}": moved}, list(self.seeds))
        return sum(float((s * outputs[n].astype(np.float64)).sum()) for n, s in self.seeds.items())

    def along(self, slot):
        """(a step in this input, by how much the loss differs), for some directions."""
        x = np.asarray(self.case.inputs[slot])
        for direction in self.directions(x.shape):
            ahead = np.asarray(x + self.step * direction, x.dtype)
            behind = np.asarray(x - self.step * direction, x.dtype)
            moved = ahead.astype(np.float64) - behind
            yield moved, self.loss(slot, ahead) - self.loss(slot, behind)

    def directions(self, shape):
        """Four random directions of signs, and some single coordinates."""
        yield from (self.rng.choice([-1.0, 1.0], shape) for _ in range(4))
        n = int(np.prod(shape))
        yield from (np.eye(1, n, int(k)).reshape(shape) for k in self.rng.permutation(n)[:6])


@pytest.mark.parametrize("case", [*CASES, *newest_forms()], ids=str)
def test_gradients_match_central_differences(case):
    case, precision = sharpest(case)
    differences = Differences(case, STEPS[precision])
    constant, dtype = gradients_of(case, differences.seeds, computed=False)
    computed, _ = gradients_of(case, differences.seeds, computed=True)
    if precision == np.float32:
        dtype = np.float32
    tolerance = TOLERANCES[precision, dtype] * 2 * differences.step
    for slot in case.differentiable:
        scale = np.linalg.norm(constant[slot]) + 1e-3
        for moved, difference in differences.along(slot):
            for found in (constant[slot], computed[slot]):
                assert found.shape == moved.shape
                expected = float((found * moved).sum())
                assert abs(difference - expected) <= tolerance * scale, (slot, moved)


def is_rewritten(case):
    return (case.domain, case.op) not in REVERSE


@pytest.mark.parametrize("case", [*filter(is_rewritten, CASES)], ids=str)
def test_rewritten_operators_say_the_same(case):
    fed = case.differentiable
    feeds = {f"i{k}": case.inputs[k] for k in fed}
    model, sources = build(case, fed=fed, behind=fed), [f"o{k}" for k in case.differentiated]
    gradients = Gradients(
        model, Path(), sources, [f"t{k}" for k in fed], runtime=Runtime(threads=1)
    )
    rewritten = gradients.trace(feeds).model
    assert case.op not in {node.op_type for node in rewritten.graph if node.domain == case.domain}
    found = Session(rewritten, level="disable", runtime=Runtime(threads=1)).run(feeds)
    expected = Session(model, level="disable", runtime=Runtime(threads=1)).run(feeds)
    for name in sources:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


BATCHED = [(case, slot) for case in CASES for slot in case.weights]


@pytest.mark.parametrize(("case", "slot"), BATCHED, ids=str)
def test_batched_squares_match_one_sample_at_a_time(case, slot):
    samples = f"i{case.samples_in}"
    model = build(case, fed=(case.samples_in,))
    gradients = Gradients(model, Path(), ["o0"], [f"i{slot}"], runtime=Runtime(threads=1))
    feed = case.inputs[case.samples_in]
    forward = gradients.forward("squares", {samples: feed})
    seed = np.random.default_rng(3).standard_normal(forward.sources["o0"].shape)
    found = batched_squares(gradients, forward, {"o0": seed})[f"i{slot}"]
    assert found.shape == case.inputs[slot].shape
    assert len(feed) == len(seed) == 3
    expected = 0
    for n in range(3):
        alone = gradients.forward("squared gradient", {samples: feed[n : n + 1]})
        expected += gradients.backward(alone, {"o0": seed[n : n + 1]})[f"i{slot}"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


ELSEWHERE = {("", "Expand", 0)}
"""Batched rules that a single operator cannot show: they have a test of their own."""


def test_every_rule_has_a_case():
    covered = {(case.domain, case.op) for case in CASES}
    assert set(REVERSE) | set(DECOMPOSITIONS) <= covered
    bodies = covered - set(REVERSE) - set(DECOMPOSITIONS)
    assert all(domain == "" and has_function_body(op, NEWEST) for domain, op in bodies)
    batched = {(case.domain, case.op, slot) for case, slot in BATCHED}
    assert set(PER_SAMPLE) | set(SQUARES) == batched | ELSEWHERE


def test_a_wrong_rule_is_caught(monkeypatch):
    rule = REVERSE["", "Tanh"]

    def wrong(t, node, dys, wanted):
        return {slot: t.op("Mul", d, 1.01) for slot, d in rule(t, node, dys, wanted).items()}

    monkeypatch.setitem(REVERSE, ("", "Tanh"), wrong)
    with pytest.raises(AssertionError):
        test_gradients_match_central_differences(Case("Tanh", (np.ones((2, 3), np.float32),)))
