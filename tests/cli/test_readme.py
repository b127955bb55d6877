"""What the README shows runs as it stands, and what it links to is there."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the networks of this repository in it."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) >= 8
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_test_command_does_what_the_checks_do():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf8")
    (command,) = [block for block in blocks("sh") if "pytest" in block]
    for step in re.findall(r"\.venv/bin/(?!pip)([^&\n]+)", command):
        assert re.sub(r"^(\w+)", r'"$venv/bin/\1"', step.strip()) in steps


@pytest.mark.slow
def test_commands(run, folder):
    lines = [line for block in blocks("sh") for line in re.split(r"&&|\n", block)]
    words = [shlex.split(line.replace(".venv/bin/onnxrd", "onnxrd")) for line in lines]
    commands = [line[1:] for line in words if line[:1] == ["onnxrd"]]
    assert len(commands) >= 6
    for command in commands:
        assert run(*command).code == 0, command
    assert (folder / "same.onnx").read_bytes() == (folder / "small.onnx").read_bytes()


@pytest.mark.slow
def test_python(folder):
    (example,) = blocks("python")
    found = {}
    exec(compile(example, "README.md", "exec"), found)
    assert found["result"].ratio > 10
    assert found["session"].get_inputs()[0].name == "input"
