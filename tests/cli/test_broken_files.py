"""Every command on broken files: an exit code and a message, whatever the bytes.

What is broken is one of the files that a command reads: the model, its external data, an archive,
the data, or the importance.
"""

import contextlib
import faulthandler
import io
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from onnxrd.cli import main
from tests import networks
from tests.mutations import damaged, mutated

GIB = 1 << 30
PATIENCE = 200
"""Seconds until a command counts as hanging."""

STEPS, VECTORS = {"x": (7, 1, 5), "h": (1, 1, 6), "c": (1, 1, 6)}, {"x": (12, 12)}
NETWORKS = {
    networks.mlp: VECTORS,
    networks.cnn: {"x": (12, 2, 8, 8)},
    networks.recurrent: STEPS,
    networks.with_function: VECTORS,
    networks.with_branches: VECTORS,
    networks.external: VECTORS,
}
COMMANDS = (
    "inspect {model} --data {data} --threads 1",
    "importance {model} -o {out} --data {data} --threads 1",
    "quantize {model} -o {out} --data {data} --threads 1 --clusters 4",
    "quantize {model} -o {out} --importance {importance} --threads 1 --clusters 4",
    "prune {model} -o {out} --data {data} --threads 1 --ratio 0.3 --force",
    "compress {model} -o {out} --data {data} --threads 1 --max-kl 0.1 --force",
    "evaluate {sound} {model} --data {data} --threads 1",
    "evaluate {model} {sound} --data {data} --threads 1 --importance {importance}",
    "bound {model} --data {data} --threads 1",
    "bound {sound} --importance {importance} --threads 1 --against {other}",
    "pack {model} -o {out}",
    "unpack {archive} -o {out}",
)
SLOW = ("curve {model} -o {out} --data {data} --threads 1 --points 2",)


def prepared(folder):
    """A folder for each network: the files that the commands take, all in order."""
    for build, shapes in NETWORKS.items():
        sound = folder / build.__name__ / "sound"
        sound.mkdir(parents=True)
        model = build(sound / "model")
        data = sound / "data"
        if shapes is STEPS:  # no axis of samples: each call in a file of its own
            data.mkdir()
        for file in (data / "0", data / "1") if data.is_dir() else (data,):
            arrays = {name: networks.normal(*shape) for name, shape in shapes.items()}
            np.savez(file, **arrays)
        told(f"importance {model} -o {sound}/importance --data {found(sound, 'data')}")
        told(f"prune {model} -o {sound}/other --ratio 0.3")
        told(f"pack {model} -o {sound}/archive")
        yield sound


def found(folder, name):
    """One of the files of a folder; data have an ending, by which they are told."""
    return next(folder.glob(f"{name}*"), folder / name)


def told(command):
    """Run the command line: exit code, and what it says on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(command.split())
        except SystemExit as stop:
            return stop.code or 0, said.getvalue()
    return 0, said.getvalue()


def broken(sound, command, seed):
    """A copy of the files, one of those that the command reads broken unless there is no seed."""
    rng = random.Random(seed)
    folder = sound.with_name("broken")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    if seed is None:
        return folder
    read = [n for n in re.findall(r"{(\w+)}", command) if n not in ("out", "sound")]
    file = found(folder, rng.choice(read))
    if file.is_dir():
        file = rng.choice(sorted(file.iterdir()))
    if file.name == "model" and (folder / "weights.bin").exists() and rng.random() < 0.3:
        file = folder / "weights.bin"
    content = file.read_bytes()
    if file.name in ("model", "other"):
        file.write_bytes(mutated(content, seed))
    elif rng.random() < 0.3:
        file.write_bytes(content[: rng.randrange(len(content))])
    else:
        file.write_bytes(damaged(content, seed))
    return folder


def tried(command, sound, seed):
    """Run a command on broken files, and look at what it says and leaves behind: its exit code."""
    folder = broken(sound, command, seed)
    before, made = content(folder), folder / "made"
    made.mkdir()
    names = ("model", "data", "importance", "archive", "other")
    files = {name: found(folder, name) for name in names}
    code, said = told(command.format(**files, sound=sound / "model", out=made / "out"))
    assert code in (0, 1, 2, 3, 4), said
    assert "unexpected" not in said and "Traceback" not in said, said
    assert code == 0 or "error" in said.lower(), said
    new = {file.name for file in made.iterdir()}
    assert not any(name.startswith(".") for name in new) if code == 0 else not new, said
    shutil.rmtree(made)
    assert content(folder) == before
    return code


def content(folder):
    """What all files below a folder hold."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fuzz(folder, seeds, commands):
    """Which exit codes came how often."""
    codes = Counter()
    sources = list(prepared(folder))
    for seed, command in itertools.product(seeds, commands):
        sound = sources[seed % len(sources)]
        print(f"seed {seed}, {sound.parent.name}: {command}", flush=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        codes[tried(command, sound, seed)] += 1
    faulthandler.cancel_dump_traceback_later()
    status = Path("/proc/self/status").read_text()  # getrusage tells the parent's peak, too
    assert int(status.partition("VmHWM:")[2].split()[0]) * 1024 < GIB
    return codes


def in_another_process(folder, seeds, commands):
    """onnxruntime must not take this process down, nor all of the memory: the exit codes."""
    code = (
        "import json, resource, sys; from pathlib import Path;"
        f"resource.setrlimit(resource.RLIMIT_AS, ({6 * GIB}, {6 * GIB}));"
        "from tests.cli.test_broken_files import fuzz;"
        f"print(json.dumps(fuzz(Path(sys.argv[1]), {seeds}, {commands})))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-300:] + ran.stderr[-3000:]
    return Counter(json.loads(ran.stdout.splitlines()[-1]))


def test_sound_files_pass(tmp_path):
    """What is refused below is refused for what is broken."""
    sound = next(prepared(tmp_path))
    for command in COMMANDS:
        assert tried(command, sound, seed=None) == 0, command


def test_broken_files(tmp_path):
    codes = in_another_process(tmp_path, range(2), COMMANDS)
    assert codes.total() == 2 * len(COMMANDS)
    assert codes["1"] > codes.total() / 3


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 700, 60))
def test_many_broken_files(first, tmp_path):
    in_another_process(tmp_path, range(first, first + 60), COMMANDS + SLOW)
