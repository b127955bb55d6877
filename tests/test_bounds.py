"""The bound of a network: against water-filling, Shannon's lower bound, and real files."""

import json
import math

import numpy as np
import pytest

import onnxrd
from onnxrd.bounds import KINDS, bound
from onnxrd.errors import ImportanceError, ModelError, SettingError
from onnxrd.importance import Importance
from onnxrd.rate_distortion import water_filling
from tests import networks
from tests.pipeline.decoded import weights_of

SIZES = (80, 60, 40)


@pytest.fixture
def path(tmp_path):
    return networks.mlp(tmp_path / "m.onnx", sizes=SIZES)


def importance_of(path, sigma=1.0, **about):
    """Lognormal."""
    model = onnxrd.load_model(path)
    values = {
        w.name: np.exp(networks.normal(*w.shape, seed=k, scale=sigma))
        for k, w in enumerate(onnxrd.find_weights(model))
        if not w.skip
    }
    return Importance(values, model.digest, task="classification", **about)


def bound_of(path, h, **settings):
    return bound(onnxrd.load_model(path), h, **settings)


def test_gaussian_bounds_are_water_filling(path):
    """By weight, and by tensor with each weight as important as their mean."""
    h, arrays = importance_of(path), networks.arrays(path)
    result = bound_of(path, h, distortions=[1.0, 20.0, 300.0])
    variances = {n: np.full(v.shape, arrays[n].astype(float).var()) for n, v in h.values.items()}
    means = {n: np.full(v.shape, v.mean(dtype=float)) for n, v in h.values.items()}
    for point in result.points:
        for kind, costs in (("gaussian", h.values), ("by tensor", means)):
            exact = water_filling(
                np.concatenate([v.ravel() for v in variances.values()]),
                np.concatenate([costs[name].ravel() for name in variances]),
                distortion=point.distortion,
            )
            assert point.bits[kind] == pytest.approx(exact.bits / result.entries, abs=1e-4)
    zero = sum((means[n] * variances[n]).sum() / 2 for n in means)
    assert result.zero_rate == pytest.approx(zero, rel=1e-6)
    assert result.entries == 80 * 60 + 60 * 40


def test_the_density_and_its_bound(tmp_path):
    """Laplacian weights, equally important: just above Shannon's lower bound."""
    path = networks.mlp(tmp_path / "m.onnx", sizes=(200, 300, 2))
    weight = np.random.default_rng(0).laplace(size=(300, 200)).astype(np.float32)
    networks.replace(path, "w0", weight)
    networks.replace(path, "w1", np.zeros((2, 300), np.float32))
    h = importance_of(path, sigma=0.0)
    size = weight.size
    error = 2 * 2.0 ** (-2 * 3)  # what 3 bits leave of the variance, if it were Gaussian
    result = bound_of(path, h, distortions=[error * size / 2])
    (point,) = result.points
    lower = math.log2(2 * math.e) - math.log2(2 * math.pi * math.e * error) / 2
    assert point.bits["gaussian"] * result.entries / size == pytest.approx(3, abs=0.02)
    assert point.bits["empirical"] * result.entries / size == pytest.approx(lower, abs=0.03)


def test_a_file_beside_the_bound(path, tmp_path):
    h, out = importance_of(path), tmp_path / "out.onnx"
    onnxrd.quantize(path, out, clusters=16, importance=h)
    (file,) = bound_of(path, h, against=[onnxrd.load_model(out)]).files
    decoded, arrays = weights_of(out, list(h.values)), networks.arrays(path)
    spent = [(h.values[n] * (arrays[n] - decoded[n]) ** 2).sum() / 2 for n in h.values]
    assert file.layer_distortion == pytest.approx(tuple(spent), rel=1e-4)
    assert file.point.distortion == pytest.approx(sum(spent), rel=1e-4)
    size = sum(v.size for v in h.values.values())
    assert file.file_bits == 8 * out.stat().st_size / size
    assert 3 < file.bits < 4.5 and file.bits < file.file_bits
    bits = [b * v.size for b, v in zip(file.layer_bits, h.values.values())]
    assert sum(bits) / size == pytest.approx(file.bits)
    # nothing is below a bound, and each piece of knowledge lowers it
    assert file.bits > file.point.bits["by tensor"] > file.point.bits["gaussian"]


def test_the_curve_goes_through_the_points(path):
    result = bound_of(path, importance_of(path), distortions=[5.0, 50.0])
    for kind, (distortion, bits) in zip(KINDS, result.curves):
        assert (np.diff(distortion) > 0).all() and (np.diff(bits) < 0).all()
        assert bits[0] == pytest.approx(8) and bits[-1] == pytest.approx(0, abs=1e-6)
        for point in result.points:
            here = np.interp(np.log(point.distortion), np.log(distortion), bits)
            assert here == pytest.approx(point.bits[kind], abs=0.02)


def test_distortions_where_none_are_given(path):
    h = importance_of(path)
    assert bound_of(path, h).points[0].distortion == 0.001
    squared = importance_of(path)
    object.__setattr__(squared, "task", "regression")
    result = bound_of(path, squared)
    assert not result.in_nats
    assert result.points[-1].distortion == pytest.approx(0.1 * result.zero_rate)


def test_what_makes_no_sense(path, model):
    h, loaded = importance_of(path), onnxrd.load_model(path)
    with pytest.raises(SettingError, match="positive"):
        bound(loaded, h, distortions=[0.0])
    with pytest.raises(SettingError, match="nothing to compare"):
        bound(loaded, h, against=[loaded])
    with pytest.raises(ModelError, match="same network"):
        bound(loaded, h, against=[onnxrd.load_model(model)])
    with pytest.raises(ImportanceError, match="another model"):
        bound(onnxrd.load_model(model), h)
    nothing = Importance({n: 0 * v for n, v in h.values.items()}, loaded.digest)
    with pytest.raises(ImportanceError, match="no weight has importance"):
        bound(loaded, nothing)


def test_on_the_command_line(model, calib, run, tmp_path):
    kept, out, plot = (tmp_path / name for name in ("imp.npz", "out.onnx", "bound.png"))
    assert run("importance", model, "--data", calib, "-o", kept, "-q").code == 0
    assert run("quantize", model, "--importance", kept, "-o", out, "--clusters", 4).code == 0
    command = ("bound", model, "--importance", kept, "--against", out)
    document = json.loads(run(*command, "--json", "--distortion", 0.05).out)
    (point,), (file,) = document["points"], document["files"]
    assert point["distortion"] == 0.05 and set(point["bits"]) == set(KINDS)
    assert file["bits"] > file["bound"]["by tensor"] > 0
    total = sum(w["entries"] * w["bits"][0]["empirical"] for w in document["layers"])
    assert total / document["entries"] == pytest.approx(point["bits"]["empirical"])
    shown = run(*command, "--plot", plot)
    assert shown.code == 0
    said = " ".join(shown.out.split())
    assert f"spends {file['bits']:.2f} bits per weight" in said
    assert "knows nothing of what error feedback makes good" in said
    assert plot.read_bytes()[:4] == b"\x89PNG"
    measured = run("bound", model, "--data", calib, "--distortion", 0.05, "--json")
    assert json.loads(measured.out)["points"] == document["points"]


def test_bad_usage_on_the_command_line(model, calib, run, refused):
    refused(2, "--importance", arguments=("bound", model))
    refused(2, "positive", arguments=("bound", model, "--data", calib, "--distortion", -1))
    for given in (model, calib):
        arguments = ("bound", model, "--data", calib, "--plot", given)
        refused(1, "never overwritten", arguments=arguments)


def test_without_matplotlib(model, calib, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    arguments = ("bound", model, "--data", calib, "--plot", tmp_path / "b.png")
    refused(2, "pip install", arguments=arguments)
