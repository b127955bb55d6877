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
    """Run the command line: exit code, stdout, and stderr in one line."""

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


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail: it says why on stderr, and no file appears or changes."""

    def call(code, *telling, arguments):
        before = _snapshot(tmp_path)
        ran = run(*arguments)
        assert ran.code == code, ran.err
        for text in telling:
            assert text in ran.err, ran.err
        assert ran.err
        assert ran.out == ""
        assert _snapshot(tmp_path) == before
        return ran

    return call


def _snapshot(folder):
    """Every path below a folder, links unresolved, with what the files hold."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
