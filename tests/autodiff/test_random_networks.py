"""Random networks: gradients against central differences, batches against one at a time."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, assume, find, given, settings

import tests.autodiff.random_steps  # noqa: F401  (fills the steps)
from onnxrd.autodiff.engine import NotBatchableError
from onnxrd.autodiff.gradients import Gradients, batched_squares, reference_squares
from onnxrd.autodiff.registry import REVERSE
from onnxrd.errors import ModelError
from onnxrd.graph.session import Runtime, Session
from tests.autodiff.random_networks import STEPS, networks

ONE = Runtime(threads=1)
STEP = {np.float64: 1e-5, np.float32: 4e-3}
"""By the network's precision: of a step, relative to the size of a weight."""

TOLERANCE = {np.float64: 1e-4, np.float32: 1e-2}
"""By the same: of a derivative along a direction, relative to the length of the gradient."""

TRIES = 6
SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, database=None)


class Differences:
    """How y, contracted with random cotangents, changes with each weight along random directions.

    Attributes:
        dtype: of the network: double, where onnxruntime has kernels for all of it.
        feeds: x.
        seeds: cotangents of y.
    """

    def __init__(self, network):
        self.rng = np.random.default_rng(network.seed)
        x = self.rng.standard_normal(network.shapes["x"])
        for self.dtype in (np.float64, np.float32):
            self.feeds = {"x": x.astype(self.dtype)}
            self.weights = {n: w.astype(self.dtype) for n, w in network.weights.items()}
            model = ir.from_proto(network.model(self.dtype, fed=network.weights))
            try:
                self.session = Session(model, level="disable", runtime=ONE)
                self.y = self.session.run(self.feeds | self.weights)["y"].astype(np.float64)
                break
            except ModelError:
                if self.dtype == np.float32:
                    raise
        self.seed = self.rng.standard_normal(self.y.shape)

    def growth(self, name, moved):
        """By how much the contracted y grows if a weight is replaced."""
        y = self.session.run(self.feeds | self.weights | {name: moved})["y"].astype(np.float64)
        return float((self.seed * (y - self.y)).sum())

    def along(self, name, scale):
        """(direction, derivative along it) for some directions without a kink nearby.

        Twice as far a smooth loss grows twice as much, and bends four times as much.

        Args:
            scale: length of the gradient.
        """
        weight = self.weights[name]
        size = STEP[self.dtype] * float(np.sqrt((weight.astype(np.float64) ** 2).mean()))
        noise = float(np.abs(self.seed * self.y).sum()) * np.finfo(self.dtype).eps / size
        for _ in range(TRIES):
            direction = self.rng.choice([-1.0, 1.0], weight.shape)
            ends = [np.asarray(weight + k * size * direction, self.dtype) for k in (-2, -1, 1, 2)]
            far, behind, ahead, farther = (self.growth(name, end) for end in ends)
            slope, wide = (ahead - behind) / (2 * size), (farther - far) / (4 * size)
            bend, wider = (ahead + behind) / (2 * size), (farther + far) / (4 * size)
            uncertain = noise + abs(slope - wide) + abs(2 * bend - wider)
            if uncertain <= TOLERANCE[self.dtype] * scale:
                yield direction, (4 * slope - wide) / 3


def gradients_of(network, differences):
    """(weight → its gradient, in double precision as far as there are kernels for it, how)."""
    for dtype in dict.fromkeys((differences.dtype, np.float32)):
        model = ir.from_proto(network.model(differences.dtype))
        names = list(network.weights)
        gradients = Gradients(model, Path(), ["y"], names, dtype=dtype, runtime=ONE)
        assert not gradients.blocked(differences.feeds)
        forward = gradients.forward("gradient", differences.feeds)
        try:
            return gradients.backward(forward, {"y": differences.seed}), dtype
        except ModelError:
            if dtype == np.float32:
                raise
    raise AssertionError


def check_gradients(network):
    """Compare wherever the difference is trustworthy: how many times that was."""
    differences = Differences(network)
    found, dtype = gradients_of(network, differences)
    tolerance = max(TOLERANCE[differences.dtype], TOLERANCE[dtype] / 10)
    compared = 0
    for name, gradient in found.items():
        scale = float(np.linalg.norm(gradient.astype(np.float64)))
        for direction, expected in differences.along(name, scale):
            assert abs(float((gradient * direction).sum()) - expected) <= 3 * tolerance * scale
            compared += 1
    return compared


def check_batches(network):
    """The batched squares are those of one sample at a time, where there is such a pass."""
    model = ir.from_proto(network.model(np.float32))
    rng = np.random.default_rng(network.seed)
    feeds = {"x": rng.standard_normal(network.shapes["x"]).astype(np.float32)}
    gradients = Gradients(model, Path(), ["y"], list(network.weights), runtime=ONE)
    try:
        forward = gradients.forward("squares", feeds)
    except NotBatchableError:
        return
    seeds = {"y": rng.standard_normal(forward.sources["y"].shape)}
    found = batched_squares(gradients, forward, seeds)
    alone = reference_squares(gradients, gradients.forward("squared gradient", feeds), seeds)
    rounding = 8 * np.finfo(np.float32).eps * float(np.abs(seeds["y"] * forward.sources["y"]).sum())
    for name, expected in alone.items():
        scale = float(np.abs(expected).sum())
        noise = expected.size * rounding**2 / float((network.weights[name] ** 2).mean())
        assert float(np.abs(found[name] - expected).sum()) <= 1e-4 * scale + noise, name


@SETTINGS
@given(networks())
def test_random_networks(network):
    check_batches(network)
    assume(check_gradients(network))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(most=12))
def test_many_random_networks(network):
    check_batches(network)
    assume(check_gradients(network))


def test_a_wrong_rule_is_found(monkeypatch):
    rule = REVERSE["", "Tanh"]

    def wrong(t, node, dys, wanted):
        return {slot: t.op("Mul", d, 1.01) for slot, d in rule(t, node, dys, wanted).items()}

    def disagrees(network):
        try:
            check_gradients(network)
        except AssertionError:
            return True
        return False

    monkeypatch.setitem(REVERSE, ("", "Tanh"), wrong)
    few = [step for step in STEPS if step[0] in ("MatMul", "Tanh")]
    found = find(networks(few), disagrees, settings=settings(SETTINGS, phases=[Phase.generate]))
    assert "Tanh" in [node.op_type for node in found.nodes]


def test_all_steps_have_rules():
    assert {operator for operator, _ in STEPS} <= {op for domain, op in REVERSE if not domain}
