"""Fixtures: a small network with data, and the command line run in this process."""

from dataclasses import dataclass

import pytest

from onnxrd.cli import main
from tests import networks


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def model(tmp_path):
    return networks.mlp(tmp_path / "model.onnx")


@pytest.fixture
def calib(tmp_path):
    return networks.data(tmp_path / "calib.npz")


@pytest.fixture
def run(capsys):
    """Run the command line; returns exit code, stdout and stderr, one line each."""

    def call(*arguments):
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, " ".join(captured.err.split()))

    return call
