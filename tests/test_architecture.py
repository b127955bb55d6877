"""The public names, and the one direction of imports."""

import ast
from pathlib import Path

import pytest

import onnxrd

PACKAGE = Path(onnxrd.__file__).parent

ROOMS = [
    "errors progress rate_distortion",
    "graph",
    "calibration",
    "distortion",
    "autodiff",
    "importance",
    "quantizers",
    "encodings",
    "allocation",
    "archive evaluation diagnosis bounds",
    "options cache",
    "measurement",
    "report compression",
    "pipeline",
    "cli",
]
ORDER = {room: level for level, rooms in enumerate(ROOMS) for room in rooms.split()}


def test_public_names():
    assert sorted(onnxrd.__all__) == [
        "Calibration",
        "CalibrationError",
        "Curve",
        "Estimator",
        "Evaluation",
        "GoldenRules",
        "Importance",
        "ImportanceError",
        "Layer",
        "Model",
        "ModelError",
        "NetworkBound",
        "OnnxrdError",
        "Options",
        "Packed",
        "Result",
        "SettingError",
        "Target",
        "TargetError",
        "VerificationError",
        "Weight",
        "bound",
        "compress",
        "curve",
        "evaluate",
        "find_weights",
        "fisher",
        "golden_rules",
        "load_data",
        "load_importance",
        "load_model",
        "load_session",
        "pack",
        "prune",
        "quantize",
        "unpack",
    ]
    assert all(hasattr(onnxrd, name) for name in onnxrd.__all__)


FILES = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0][:2] != "__"]


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    here = file.relative_to(PACKAGE).with_suffix("").parts[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onnxrd"):
            parts = node.module.split(".")
            rooms = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for room in rooms:
                assert ORDER[room] <= ORDER[here], f"{here} imports {room}"


def test_no_torch_at_run_time():
    for file in PACKAGE.rglob("*.py"):
        assert "import torch" not in file.read_text(encoding="utf8"), file
