"""--max-load-memory: what onnxruntime takes when it loads the output."""

import json
import subprocess
import sys

import pytest

import onnxrd
from tests import networks

PEAK = """
import sys, onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def peak(path):
    """Bytes at most that a process has which does nothing but load a model."""
    command = [sys.executable, "-c", PEAK, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Ten layers of 262,144 weights, 10.5 MB."""
    folder = tmp_path_factory.mktemp("wide")
    return networks.mlp(folder / "wide.onnx", sizes=(512,) * 11), folder


@pytest.fixture(scope="module")
def outputs(wide):
    """The same network at several limits, in MB: path and warnings."""
    model, folder = wide
    results = {}
    for limit in (None, 40, 20):
        options = onnxrd.Options(max_load_memory=limit and limit * 1_000_000)
        path = folder / f"{limit}.onnx"
        results[limit] = onnxrd.quantize(model, path, clusters=5, options=options)
    return results


def test_a_limit_is_kept_for_few_bytes(outputs):
    sizes = {limit: result.nbytes[1] for limit, result in outputs.items()}
    assert sizes[None] < sizes[40] < 1.02 * sizes[None]
    assert sizes[40] <= sizes[20]


def test_that_it_changed_the_choice_is_said(outputs):
    assert not any("memory" in text for text in outputs[None].warnings)
    for limit in (40, 20):
        assert any("--max-load-memory" in text for text in outputs[limit].warnings)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_loading_takes_is_less_indeed(outputs, model):
    nothing = peak(model)
    taken = {limit: peak(result.path) - nothing for limit, result in outputs.items()}
    assert taken[None] > 55e6
    assert taken[40] < 44e6
    assert taken[20] < 26e6


def test_too_little_for_any_file(wide, tmp_path, run):
    model, _ = wide
    out = tmp_path / "small.onnx"
    arguments = ("--clusters", "5", "-o", out, "--max-load-memory", "8MB")
    ran = run("quantize", model, *arguments)
    assert ran.code == 3
    assert "8 MB are too little" in ran.err and "MB are needed" in ran.err
    assert not out.exists()


def test_the_sizes_of_a_small_network_are_no_zeros(model, run, tmp_path):
    given = ("-o", tmp_path / "small.onnx", "--max-load-memory", "1k")
    ran = run("quantize", model, *given)
    assert ran.code == 3
    assert "1 kB are too little" in ran.err and "kB are needed" in ran.err


def test_no_size(run, model, tmp_path):
    arguments = ("-o", tmp_path / "small.onnx", "--max-load-memory", "much")
    assert run("quantize", model, *arguments).code == 2


def test_compress_knows_it_when_it_aims_at_a_size(run, tmp_path):
    model = networks.mlp(tmp_path / "net.onnx", sizes=(64, 256, 256, 8))
    data = networks.data(tmp_path / "data.npz", shape=(64,), classes=8)
    out = tmp_path / "small.onnx"
    target = ("--target-size", "100000", "--max-load-memory", "1MB")
    ran = run("compress", model, "-o", out, "--data", data, *target, "--json")
    assert ran.code == 0, ran.err
    assert 0.8 * 100000 < out.stat().st_size <= 100000
    assert any(layer["encoding"] != "entropy" for layer in json.loads(ran.out)["layers"])
