"""The standard's own single-operator models, wherever their operator has a derivative.

A few modules of them are run every time. All of them take some minutes: `pytest -m slow`.
"""

import importlib
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxrd.autodiff.gradients import Gradients
from onnxrd.autodiff.lowering import has_function_body
from onnxrd.autodiff.registry import DECOMPOSITIONS, REVERSE
from onnxrd.errors import ModelError
from onnxrd.graph.session import Runtime, Session

NODES = "onnx.backend.test.case.node"
QUICK = (
    "attention clip concat cumsum einsum gathernd gelu gemm layernormalization lrn matmul prelu",
    "reducel1 reduce_log_sum_exp rotaryembedding scatternd slice softmax spacetodepth tile where",
)
"""Modules of the standard's test cases."""

SETTINGS = {"Dropout": {1}, "OneHot": {0, 1}, "Resize": {1, 2}, "Upsample": {1}}
"""Floating-point inputs that are not differentiated."""

ALLOWED = {
    "BatchNormalization": "training mode",
    "Dropout": "training mode",
    "Range": "subgraph",
    "LinearAttention": "Scan",
    "Resize": "aspect ratio",
}
"""Operator → why some of its uses have no derivative."""

ONE = Runtime(threads=1)


def cases_of(modules):
    """Importing a module of the standard's makes its cases."""
    package = importlib.import_module(NODES)
    before = len(package._NodeTestCases)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            importlib.import_module(f"{NODES}.{name}")
    return [case for case in package._NodeTestCases[before:] if is_known(case.model)]


def is_known(model):
    """Whether this is one operator with a rule, a body or a decomposition."""
    node, *others = model.graph.node
    if others:
        return False
    if (node.domain, node.op_type) in REVERSE.keys() | DECOMPOSITIONS.keys():
        return True
    opset = max([1, *(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))])
    return node.domain == "" and has_function_body(node.op_type, opset)


class Model:
    """A model with its inputs, and gradients of the floating-point ones.

    Attributes:
        targets: the inputs that are differentiated.
        outputs: the outputs that are.
    """

    def __init__(self, case):
        (self.node,) = case.model.graph.node
        names = [i.name for i in case.model.graph.input]
        given = case.data_sets[0][0]
        if any(isinstance(x, list) or np.asarray(x).dtype.kind not in "fiub" for x in given):
            raise ModelError("an input that is no tensor of numbers")
        self.feeds = {n: np.asarray(x) for n, x in zip(names, given)}
        slots = [n for k, n in enumerate(self.node.input) if k not in self._settings()]
        self.targets = [n for n in dict.fromkeys(slots) if is_real(self.feeds.get(n))]
        self.session = Session(ir.from_proto(case.model), level="disable", runtime=ONE)
        self.base = self.session.run(self.feeds)
        self.outputs = [n for n, y in self.base.items() if is_real(y)]
        self.frozen = onnx.ModelProto.FromString(case.model.SerializeToString())
        del self.frozen.graph.input[:]
        arrays = [numpy_helper.from_array(x, n) for n, x in self.feeds.items()]
        self.frozen.graph.initializer.extend(arrays)

    def _settings(self):
        return SETTINGS.get(self.node.op_type, ())

    def gradients(self, seeds):
        """(target → gradient, why others have none)."""
        model = ir.from_proto(self.frozen)
        gradients = Gradients(model, Path(), self.outputs, self.targets, runtime=ONE)
        if blocked := gradients.blocked({}):
            return {}, next(iter(blocked.values()))
        return gradients.backward(gradients.forward("gradient", {}), seeds), ""

    def differences(self, seeds, name, direction):
        """How much seeds · outputs grows to an input, and from there; None if that cannot be."""
        x, losses = self.feeds[name], []
        for moved in (x - direction, x, x + direction):
            try:
                outputs = self.session.run(self.feeds | {name: np.asarray(moved, x.dtype)})
            except ModelError:  # as for a fraction of a length
                return None
            if any(outputs[n].shape != s.shape for n, s in seeds.items()):  # a length itself
                return None
            losses.append(sum((s * outputs[n].astype(np.float64)).sum() for n, s in seeds.items()))
        return np.diff(losses) if np.isfinite(losses).all() else None


def is_real(array):
    return (
        isinstance(array, np.ndarray) and array.dtype in (np.float32, np.float64) and array.size > 0
    )


JUMPS = {"test_l2normalization_axis_0": "a vector of zeros"}
"""Case → why no difference says anything of it."""

STEP = 2e-3


def check(case):
    """Compare along random directions; those with a kink on the way say nothing.

    Returns: whether anything was compared.
    """
    try:
        model = Model(case)
    except ModelError:  # onnxruntime does not run it
        return False
    rng, compared = np.random.default_rng(0), False
    seeds = {name: rng.standard_normal(model.base[name].shape) for name in model.outputs}
    if not seeds or not model.targets or case.name in JUMPS:
        return False
    found, reason = model.gradients(seeds)
    if reason:
        assert ALLOWED.get(model.node.op_type, "nothing else") in reason, reason
        return False
    noise = 3e-6 * (1 + sum(np.abs(seeds[n] * model.base[n]).sum() for n in model.outputs))
    for name in model.targets:
        at = np.nan_to_num(model.feeds[name], posinf=0, neginf=0)
        rounding = np.finfo(at.dtype).eps * np.abs(at)
        tolerance = 1e-2 * STEP * (np.linalg.norm(found[name]) + 1e-3) + noise
        tolerance += float(np.abs(found[name] * rounding).sum())
        for _ in range(3):
            direction = STEP * rng.choice([-1.0, 1.0], model.feeds[name].shape)
            differences = model.differences(seeds, name, direction)
            if differences is None or not np.isfinite(tolerance):  # as of Acosh at 1
                continue
            bend = abs(differences[0] - differences[1])
            if bend > tolerance:
                continue
            expected = 2 * float((found[name] * direction).sum())
            assert abs(sum(differences) - expected) <= tolerance + bend, name
            compared = True
    return compared


@pytest.mark.parametrize("module", " ".join(QUICK).split())
def test_some_models(module):
    cases = cases_of([module])
    assert cases
    assert any([check(case) for case in cases])


@pytest.mark.slow
def test_all_models():
    package = importlib.import_module(NODES)
    cases_of(module.name for module in pkgutil.iter_modules(package.__path__))
    compared = [check(case) for case in package._NodeTestCases if is_known(case.model)]
    assert sum(compared) > 600
