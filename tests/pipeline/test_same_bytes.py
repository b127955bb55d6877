"""Same input, same seed: same bytes. Other seeds: other samples and probes."""

import subprocess
import sys

import numpy as np
import pytest

from tests import networks

COMMANDS = [
    ("quantize", "--clusters", "8"),
    ("quantize", "--clusters", "5", "--ratio", "0.4"),
    ("prune", "--ratio", "0.2"),
    ("prune", "--ratio", "0.1", "--scope", "global"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_data_and_importance_give_the_same_bytes(command, model, calib, run, tmp_path):
    kept, (name, *settings) = tmp_path / "imp.npz", command
    assert run("importance", model, "--data", calib, "-o", kept).code == 0
    sources = {"a": ("--data", calib), "b": ("--data", calib), "c": ("--importance", kept)}
    sources["d"] = (*sources["c"], "--data", calib)
    for output, source in sources.items():
        assert run(name, model, *settings, *source, "-o", tmp_path / output).code == 0
    assert len({(tmp_path / output).read_bytes() for output in sources}) == 1


@pytest.mark.parametrize("option", ["--seed", "--samples", "--probes", "--estimator", "--task"])
def test_importance_depends_on_its_settings(option, model, calib, run, tmp_path):
    values = {"--estimator": "sampled", "--task": "regression"}
    other = (option, values.get(option, "3"))
    for output, more in (("a", ()), ("b", ()), ("c", other), ("d", other)):
        arguments = ("importance", model, "--data", calib, "-o", tmp_path / output, *more)
        assert run(*arguments).code == 0
    a, b, c, d = ((tmp_path / output).read_bytes() for output in "abcd")
    assert a == b
    assert c == d
    assert a != c
    with np.load(tmp_path / "a") as first, np.load(tmp_path / "c") as second:
        assert not np.array_equal(first["weight:w0"], second["weight:w0"])


def test_the_seed_draws_the_samples_too(model, calib, run, tmp_path):
    def measured(seed):
        out = ("-o", tmp_path / "imp.npz")
        more = ("--samples", "5", "--estimator", "exact", "--seed", seed)
        assert run("importance", model, "--data", calib, *out, *more).code == 0
        return np.load(tmp_path / "imp.npz")["weight:w0"]

    np.testing.assert_array_equal(measured(0), measured(0))
    assert not np.array_equal(measured(0), measured(1))


def test_the_same_in_another_process_with_other_threads(calib, tmp_path):
    model = networks.cnn(tmp_path / "cnn.onnx")
    data = networks.data(tmp_path / "cnn.npz", shape=(2, 8, 8), classes=7)
    for threads in ("1", "2"):
        arguments = [model, "-o", tmp_path / threads, "--data", data, "--threads", threads]
        command = [sys.executable, "-m", "onnxrd", "quantize", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
