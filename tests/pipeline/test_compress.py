"""Compression to a target, on a network of the project."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxrd
from onnxrd.calibration import load as load_data
from onnxrd.evaluation import evaluate
from onnxrd.graph.model import atomic_output
from onnxrd.pipeline.compressor import HELD_OUT, METHODS, prepared_compressor
from tests import networks
from tests.pipeline.decoded import weights_of

MODELS = Path(__file__).resolve().parents[2] / "models"
MODEL, CALIB = MODELS / "mnist_mlp.onnx", MODELS / "mnist_mlp_calib.npz"


@pytest.fixture
def compress(run, tmp_path):
    """Run `onnxrd compress` on few samples: what it says, and the file."""

    def call(*arguments):
        small = tmp_path / "small.onnx"
        given = ("--data", CALIB, "--samples", "256", "--json", *arguments)
        return run("compress", MODEL, "-o", small, *given), small

    return call


@pytest.mark.parametrize("kilobytes", [40, 71, 132])
def test_a_size_is_kept_and_nearly_used_up(kilobytes, compress):
    ran, small = compress("--target-size", f"{kilobytes}k")
    assert ran.code == 0, ran.err
    assert 0.97 * 1000 * kilobytes < small.stat().st_size <= 1000 * kilobytes


def test_damage_is_kept_on_samples_that_nothing_was_fitted_to(compress):
    ran, small = compress("--max-kl", "0.01")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["evaluation"]
    original = onnxrd.load_model(MODEL)
    samples = load_data(CALIB, original.inputs, samples=256)
    held_out = samples.split(HELD_OUT)[1]
    measured = evaluate(original, onnxrd.load_model(small), held_out, timed=False)
    assert measured.distortion == pytest.approx(found["distortion"])
    assert measured.samples == found["samples"] == 64
    assert 0.005 < measured.distortion <= 0.01


def test_much_damage_is_used_up_and_no_size_refused_that_can_be_had(compress):
    ran, small = compress("--max-kl", "0.3")
    assert ran.code == 0, ran.err
    assert 0.2 < json.loads(ran.out)["evaluation"]["distortion"] <= 0.3
    nbytes = small.stat().st_size
    ran, small = compress("--target-size", f"{nbytes}")
    assert ran.code == 0, ran.err
    assert small.stat().st_size <= nbytes


def test_fewer_bytes_for_more_damage_and_far_fewer_than_the_paper_needs(compress, tmp_path):
    sizes = []
    for limit in ("0.003", "0.03"):
        ran, small = compress("--max-kl", limit)
        assert ran.code == 0, ran.err
        sizes.append(small.stat().st_size)
    assert sizes[1] < 0.8 * sizes[0]
    options = onnxrd.Options(samples=256)
    quantized = tmp_path / "quantized.onnx"
    paper = onnxrd.quantize(MODEL, quantized, clusters=8, data=CALIB, options=options)
    assert paper.evaluation is not None
    assert paper.evaluation.distortion > 0.003
    assert sizes[0] < 0.9 * paper.nbytes[1]


@pytest.mark.parametrize("keep_names", [False, True])
@pytest.mark.parametrize(("make", "shape"), [(networks.mlp, (12,)), (networks.cnn, (2, 8, 8))])
def test_the_price_of_a_point_is_its_file(keep_names, make, shape, tmp_path):
    original = onnxrd.load_model(make(tmp_path / "m.onnx"))
    data = networks.data(tmp_path / "d.npz", shape=shape)
    options = onnxrd.Options(keep_names=keep_names, force=True)
    compressor = prepared_compressor(original, data, None, options)
    for slope in (1e-5, 1e-3):
        point = compressor.point(slope, method=METHODS[0], measured=False)
        with atomic_output(tmp_path / "small.onnx") as temporary:
            result = compressor.write(point, temporary, tmp_path / "small.onnx")
        assert point.nbytes == result.nbytes[1] == result.path.stat().st_size
        assert point.quantization.biases
        made = {name for n in onnx.load(result.path).graph.node for name in n.output}
        assert ("r1" in made) == keep_names


def test_vectors_in_half_precision_are_what_is_measured_and_written(tmp_path):
    original = onnxrd.load_model(networks.mlp(tmp_path / "m.onnx"))
    options = onnxrd.Options(keep_names=True, exclude=("b1",))
    data = networks.data(tmp_path / "d.npz")
    assert not prepared_compressor(original, data, None, options).halves  # 45 entries
    compressor = prepared_compressor(original, data, None, replace(options, exclude=("w2",)))
    assert set(compressor.halves) == {"b0", "b1", "b2"}
    for method in METHODS[:2]:
        point = compressor.point(1e-4, method=method)
        with atomic_output(tmp_path / "small.onnx") as temporary:
            result = compressor.write(point, temporary, tmp_path / "small.onnx")
        assert result.nbytes[1] == point.nbytes
        assert result.skipped["b0"] == "in half precision: bias"
        assert result.evaluation.distortion == pytest.approx(point.damage.distortion, rel=1e-4)
        before = networks.arrays(original.path)
        for name, vector in weights_of(result.path, ["b0", "b1", "b2"]).items():
            assert vector.astype(np.float16).astype(np.float32).tobytes() == vector.tobytes()
            kept = name not in point.quantization.biases
            assert kept == (not method.bias or name == "b2")
            assert (np.abs(vector - before[name]) <= 2.0**-11 * np.abs(before[name])).all() == kept
        types = [t.data_type for t in onnx.load(result.path).graph.initializer]
        assert types.count(onnx.TensorProto.FLOAT16) == 1


def test_the_same_bytes_twice(compress):
    first = compress("--bits", "2")[1].read_bytes()
    assert compress("--bits", "2")[1].read_bytes() == first


def test_accuracy(compress):
    ran, small = compress("--max-drop", "2%")
    assert ran.code == 0, ran.err
    (head,) = json.loads(ran.out)["evaluation"]["heads"]
    before, after = head["accuracy"]
    assert after >= before - 0.02
    assert small.stat().st_size < MODEL.stat().st_size / 10


@pytest.mark.parametrize(
    ("arguments", "code", "telling"),
    [
        (("--target-size", "1k"), 3, "the smallest file that was found has"),
        (("--max-kl", "1e-12"), 3, "the least that was found is"),
        (("--max-error", "0.1"), 1, "give --max-kl"),
        (("--max-kl", "0.1", "--bits", "2"), 2, "give one target"),
        ((), 2, "give one target"),
        (("--target-size", "many"), 2, "is no size"),
        (("--max-drop", "2 percent"), 2, "is no share"),
        (("--max-kl", "-1"), 2, "makes no sense"),
    ],
)
def test_what_cannot_be_is_said(arguments, code, telling, compress):
    ran, small = compress(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert telling in ran.err
    assert not small.exists()


def test_a_drop_of_accuracy_needs_labels(model, refused, tmp_path):
    np.savez(tmp_path / "data.npz", x=networks.normal(40, 12))
    given = ("--data", tmp_path / "data.npz", "--max-drop", "1%", "-o", tmp_path / "out.onnx")
    refused(1, "the data have no labels", arguments=("compress", model, *given))


@pytest.mark.parametrize(
    ("target", "telling"),
    [
        (("KL", 0.1), "no target 'KL': choose one of size, ratio, bits, kl"),
        (("size", "40k"), "'40k' is no number"),
    ],
)
def test_a_target_is_of_a_kind_and_a_number(target, telling):
    with pytest.raises(onnxrd.SettingError, match=telling):
        onnxrd.Target(*target)


@pytest.mark.parametrize("target", [0.01, ("kl", 0.01)])
def test_what_is_no_target_is_told_before_any_work(target, tmp_path):
    with pytest.raises(onnxrd.SettingError, match="is no target"):
        onnxrd.compress("no such file", tmp_path / "out.onnx", target=target, data=CALIB)


def test_what_is_shown_says_how_it_was_predicted_and_measured(run, tmp_path):
    given = ("--data", CALIB, "--samples", "256", "--bits", "2", "-o", tmp_path / "small.onnx")
    shown = run("compress", MODEL, *given).out
    assert "by diagonal importance, before what error feedback makes good: " in shown
    assert "measured on the 64 held-out calibration samples:" in shown


def test_no_weight_is_changed_that_is_excluded(compress):
    weights = onnxrd.find_weights(onnxrd.load_model(MODEL))
    first = next(w for w in weights if not w.skip)
    ran, small = compress("--max-kl", "0.05", "--exclude", first.name)
    assert ran.code == 0, ran.err
    assert first.name in json.loads(ran.out)["skipped"]
    kept = {w.name: w for w in onnxrd.find_weights(onnxrd.load_model(small))}[first.name]
    assert np.array_equal(kept.array(), first.array())
