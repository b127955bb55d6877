"""Ctrl-C, or SIGTERM, while a command works: it says so, and leaves everything as it was."""

import signal
import subprocess
import sys
import time

import pytest

from tests import networks

STOPPED = (130, "", "error: interrupted; nothing was written.")
COMMANDS = {
    "importance": "-o out.npz --estimator exact",
    "quantize": "-o out.onnx --estimator exact --clusters 16",
    "compress": "-o out.onnx --max-kl 0.01 --report out.html",
    "curve": "-o folder --keep",
}
"""What takes about a second at least on the network below."""

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from onnxrd.cli import main; main()"
)
"""A shell may have tests ignore SIGINT, which what they start would inherit."""


@pytest.fixture
def folder(tmp_path):
    networks.mlp(tmp_path / "m.onnx", sizes=(64, 600, 600, 10))
    networks.data(tmp_path / "d.npz", samples=4000, shape=(64,), classes=10)
    return tmp_path


def interrupted(command, folder, delay, number=signal.SIGINT):
    """Send a signal so many seconds after the command has begun to write.

    Returns: exit code, stdout, stderr.
    """
    arguments = [command, "m.onnx", "--data", "d.npz", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, *COMMANDS[command].split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(folder.rglob(".*")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    out, err = process.communicate()
    return process.returncode, out, err.strip()


def left(folder):
    """Every path below the folder, with what the files hold."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "delay"), [("importance", 0.1), ("compress", 0.5)])
def test_an_interruption(command, delay, number, folder):
    before = left(folder)
    assert interrupted(command, folder, delay, number) == STOPPED
    assert left(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.1, 0.3, 0.6, 1.0, 1.6])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_interruption_at_any_time(command, delay, folder):
    before = left(folder)
    found = interrupted(command, folder, delay)
    if found == STOPPED:
        assert left(folder) == before
    else:  # it was quicker; the signal may have met it on its way out
        assert found[0] in (0, -signal.SIGINT) and found[1]
        assert set(left(folder)) > set(before)
        assert not any(folder.rglob(".*"))
