"""The two networks that come with the project, from the command line to the accuracy."""

import json
from pathlib import Path

import numpy as np
import pytest

import onnxrd
from tests.pipeline.decoded import outputs_of

MODELS = Path(__file__).resolve().parents[2] / "models"
CASES = [("mnist_mlp", 0.99), ("cifar10_cnn", 0.83)]


def files(name):
    return [MODELS / f"{name}{end}" for end in (".onnx", "_calib.npz", "_eval.npz")]


@pytest.mark.parametrize(("name", "accuracy"), CASES)
def test_sixteen_levels_cost_next_to_nothing(name, accuracy, run, tmp_path):
    model, calib, held_out = files(name)
    small = tmp_path / "small.onnx"
    ran = run("quantize", model, "-o", small, "--data", calib, "--samples", "128", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["nbytes"] == [model.stat().st_size, small.stat().st_size]
    assert document["ratio"] > 7.5
    measured = document["evaluation"]["distortion"]
    assert 1 / 3 < document["predicted"] / measured < 1.5
    samples = ("--samples", "1000")
    evaluated = json.loads(
        run("evaluate", model, small, "--data", held_out, *samples, "--json").out
    )
    (head,) = evaluated["heads"]
    before, after = head["accuracy"]
    assert before == pytest.approx(accuracy, abs=0.03)
    assert after > before - 0.02
    assert head["agreement"] > 0.94
    assert head["distortion"]["mean"] == pytest.approx(measured, rel=1)
    arrays = np.load(held_out)
    found = outputs_of(small, {"input": arrays["input"][:200]})[0]
    assert (found.argmax(1) == arrays["labels"][:200]).mean() > before - 0.07


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mnist_mlp", ("quantize", "--clusters", "8")),
        ("cifar10_cnn", ("quantize", "--clusters", "8")),
        ("mnist_mlp", ("prune", "--ratio", "0.2")),
    ],
)
def test_importance_is_worth_its_while(name, command, run, tmp_path):
    """On held-out samples and at the same number of bits it does less damage than magnitude."""
    model, calib, held_out = files(name)
    original = onnxrd.load_model(model)
    data = onnxrd.load_data(held_out, original.inputs, samples=500)

    def damage(objective):
        out = ("-o", tmp_path / "small.onnx", "--samples", "128", "-q")
        arguments = (*command[1:], "--data", calib, "--objective", objective, *out)
        assert run(command[0], model, *arguments).code == 0
        small = onnxrd.load_model(tmp_path / "small.onnx")
        return onnxrd.evaluate(original, small, data, timed=False).distortion

    assert damage("fisher") < 0.9 * damage("identity")
