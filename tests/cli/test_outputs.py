"""The output appears whole and verified, or not at all, and never in place of an input."""

import os
import shlex
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxrd.encodings
import onnxrd.graph.model
import onnxrd.importance.diagonal
import onnxrd.measurement
import onnxrd.pipeline.output
from onnxrd.errors import ModelError
from tests import networks

COMMANDS = [("quantize",), ("prune", "--ratio", "0.1"), ("importance",)]


@pytest.fixture(params=COMMANDS, ids=lambda c: c[0])
def command(request, model, calib):
    """Arguments that write something, but for the output."""
    return (*request.param, model, "--data", calib)


def spellings(path, folder):
    link = folder / "link"
    link.symlink_to(path)
    yield link
    yield folder / "." / path.name
    yield folder / ".." / folder.name / path.name
    yield os.path.relpath(path)
    yield path


def test_the_model_is_never_overwritten(command, model, refused, tmp_path):
    for output in spellings(model, tmp_path):
        refused(1, "never overwritten", arguments=(*command, "-o", output))


def test_nor_are_data_and_importance(command, calib, model, run, refused, tmp_path):
    for output in spellings(calib, tmp_path):
        refused(1, "never overwritten", arguments=(*command, "-o", output))
    kept = tmp_path / "imp.npz"
    assert run("importance", model, "--data", calib, "-o", kept).code == 0
    refused(
        1,
        "never overwritten",
        arguments=("quantize", model, "--importance", kept, "-o", kept),
    )


def test_nor_are_external_data(calib, refused, tmp_path, monkeypatch):
    path = networks.external(tmp_path / "model.onnx", "weights.bin")
    data = ("--data", calib)
    refused(1, "never", arguments=("quantize", path, *data, "-o", tmp_path / "weights.bin"))
    monkeypatch.setattr("onnxrd.graph.model.EXTERNAL_DATA_ABOVE", 10)
    (tmp_path / "weights.bin").rename(tmp_path / "small.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "small.data" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    arguments = ("quantize", path, *data, "--exclude", "w1", "-o", tmp_path / "small")
    refused(1, "small.data is an input", arguments=arguments)


def test_places_that_cannot_be_written(command, calib, refused, tmp_path, monkeypatch):
    """It is said before minutes of work are spent."""

    def worked(*_, **__):
        raise AssertionError("work began before the output was looked at")

    monkeypatch.setattr(onnxrd.measurement, "fisher", worked)
    for output, telling in (
        (tmp_path / "no" / "such" / "out", "cannot write"),
        (calib / "out", "cannot write"),
        (tmp_path, "folder"),
        ("", "folder"),
    ):
        refused(1, telling, arguments=(*command, "-o", output))


def test_a_device_is_no_output(command, refused, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(1, "no ordinary file", arguments=(*command, "-o", pipe))
    assert pipe.is_fifo()


def test_a_larger_file_is_refused_unless_forced(calib, run, refused, tmp_path):
    small = networks.mlp(tmp_path / "small.onnx", sizes=(12, 6, 5))
    output = tmp_path / "out.onnx"
    arguments = ("quantize", small, "-o", output, "--data", calib, "--encoding", "byte_codes")
    ran = refused(3, "nothing was written", "--force", arguments=arguments)
    assert run(*arguments, "--force").code == 0
    assert output.stat().st_size > small.stat().st_size
    sizes = (output.stat().st_size, small.stat().st_size)
    assert "take {} bytes, the original takes {}".format(*sizes) in ran.err


def test_nothing_gained_is_refused_too(model, calib, refused, tmp_path):
    arguments = (model, "-o", tmp_path / "out.onnx", "--data", calib, "--ratio", "1")
    refused(3, "nothing was written", arguments=("prune", *arguments))


@pytest.mark.parametrize("command", [("quantize",), ("prune", "--ratio", ".2")])
def test_names_are_kept_on_demand(command, model, run, tmp_path):
    small = tmp_path / "out.onnx"
    for option, kept in (((), False), (("--keep-names",), True)):
        assert run(command[0], model, "-o", small, *command[1:], *option).code == 0
        graph = onnx.load(small).graph
        made = {name for node in graph.node for name in node.output}
        assert {"w0", "w1", "y"} <= made
        assert ({"h0", "r0"} <= made) == kept
        assert ({"b0", "b1"} <= {tensor.name for tensor in graph.initializer}) == kept


def wrong_levels(graph, fragments):
    """`encodings.write`, with levels a little too high."""
    RIGHT(graph, fragments)
    for value in graph.graph.initializers.values():
        tensor = value.const_value
        if tensor.dtype == ir.DataType.FLOAT and tensor.size == 16:
            value.const_value = ir.tensor(tensor.numpy() * np.float32(1.01))


def one_wrong_code(graph, fragments):
    """`encodings.write`, with a single bit flipped."""
    RIGHT(graph, fragments)
    for value in graph.graph.initializers.values():
        tensor = value.const_value
        if tensor.dtype == ir.DataType.UINT8 and tensor.size > 200:
            codes = tensor.numpy().copy()
            codes.reshape(-1)[5] ^= 1
            value.const_value = ir.tensor(codes)


def unknown_operator(graph, fragments):
    """`encodings.write`, with a decoder that no runtime knows."""
    RIGHT(graph, fragments)
    next(iter(graph.graph)).op_type = "Wobble"


RIGHT = onnxrd.encodings.write


@pytest.mark.parametrize(
    ("write", "telling"),
    [(wrong_levels, "differs"), (one_wrong_code, "differs"), (unknown_operator, "Wobble")],
)
def test_a_file_that_does_not_do_what_it_should(
    write, telling, model, calib, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnxrd.encodings, "write", write)
    arguments = ("quantize", model, "-o", tmp_path / "out.onnx")
    refused(4, telling, arguments=(*arguments, "--data", calib))
    refused(4, telling, arguments=arguments)


@pytest.mark.parametrize(
    ("room", "step"),
    [
        (onnxrd.measurement, "fisher"),
        (onnxrd.encodings, "write"),
        (onnxrd.pipeline.output, "save"),
        (onnxrd.pipeline.output, "verify"),
        (onnxrd.pipeline.output, "evaluate"),
        (onnxrd.graph.model.os, "replace"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_interruption_leaves_nothing(room, step, model, calib, refused, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, step, interrupted)
    arguments = ("quantize", model, "-o", tmp_path / "out.onnx", "--data", calib)
    refused(130, "interrupted", arguments=arguments)


def test_a_full_disk(command, refused, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnxrd.pipeline.output, "save", full)
    monkeypatch.setattr(np, "savez", full)
    refused(1, "cannot write", "No space left", arguments=(*command, "-o", tmp_path / "out"))


def test_failure_spares_what_was_there(command, model, run, tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.write_bytes(b"precious")

    def failed(*_, **__):
        raise ModelError("something went wrong")

    with monkeypatch.context() as patched:
        patched.setattr(onnxrd.importance.diagonal, "find_heads", failed)
        assert run(*command, "-o", output).code == 1
    assert output.read_bytes() == b"precious"
    assert run(*command, "-o", output).code == 0
    assert output.read_bytes()[:8] != b"precious"
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "calib.npz", "out"}


def test_a_link_is_replaced_and_what_it_pointed_to_stays(model, calib, run, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(b"precious")
    (tmp_path / "out.onnx").symlink_to(other)
    assert run("quantize", model, "-o", tmp_path / "out.onnx", "--data", calib).code == 0
    assert other.read_bytes() == b"precious"
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))


def test_a_large_output_comes_with_its_data_beside_it(model, calib, run, tmp_path, monkeypatch):
    monkeypatch.setattr("onnxrd.graph.model.EXTERNAL_DATA_ABOVE", 100)
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ("quantize", model, "-o", folder / "large.onnx", "--data", calib, "--exclude", "w1")
    assert run(*arguments).code == 0
    assert {p.name for p in folder.iterdir()} == {"large.onnx", "large.onnx.data"}
    session = ort.InferenceSession(folder / "large.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.load(calib)["x"]})[0]
    monkeypatch.undo()
    assert run(*arguments[:3], tmp_path / "one.onnx", *arguments[4:]).code == 0
    session = ort.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found, session.run(None, {"x": np.load(calib)["x"]})[0])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_stdout_that_cannot_be_written(model):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "onnxrd", "inspect", model, "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ran.returncode == 1
    assert "No space left" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_stdout_that_is_closed(model, tmp_path, closed):
    output = tmp_path / "out.onnx"
    for arguments in (["inspect", model], ["quantize", model, "-o", output, "--bits", "4"]):
        command = shlex.join([sys.executable, "-m", "onnxrd", *map(str, arguments)])
        assert subprocess.run(["sh", "-c", f"{command} {closed}"]).returncode == 0
    onnx.checker.check_model(onnx.load(output))


def test_a_reader_that_has_seen_enough(model):
    ran = subprocess.Popen(
        [sys.executable, "-m", "onnxrd", "inspect", model, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ran.stdout.close()
    assert ran.stderr.read() == ""
    ran.stderr.close()
    assert ran.wait() == 1
