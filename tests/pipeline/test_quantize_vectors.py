"""quantize --vector: vectors where they pay for their tables, and that is said of every weight."""

import json

import numpy as np
import onnx
import pytest

import onnxrd
from onnxrd.errors import SettingError
from onnxrd.pipeline.vectors import Vectors, bits
from onnxrd.quantizers import Codebook, VectorCodebook, rule1_residual, weighted_distortion
from tests import networks
from tests.pipeline.decoded import weights_of


def draws(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(np.float32), rng.lognormal(size=size)


@pytest.fixture
def large(tmp_path):
    """Layers of 48,000, 36,000 and 450 weights."""
    return networks.mlp(tmp_path / "m.onnx", sizes=(12, 4000, 9, 50))


@pytest.mark.parametrize(("opset", "ir_version"), [(9, 4), (17, 8), (21, 10)])
def test_figures_are_true_of_the_file(opset, ir_version, tmp_path, calib):
    sizes = (12, 4000, 9, 50)
    path = networks.mlp(tmp_path / "m.onnx", sizes=sizes, opset=opset, ir_version=ir_version)
    result = onnxrd.quantize(path, tmp_path / "s.onnx", vector=3, clusters=64, data=calib)
    assert result.nbytes[1] == result.path.stat().st_size
    onnx.checker.check_model(result.path)
    names = [layer.name for layer in result.layers]
    before, after = networks.arrays(path), weights_of(result.path, names)
    model = onnxrd.load_model(path)
    h = onnxrd.fisher(model, onnxrd.load_data(calib, model.inputs))
    for layer in result.layers:
        w, found = before[layer.name], after[layer.name]
        damped = h.damped(layer.name, w.shape)
        assert abs(rule1_residual(w, found, damped)) < 1e-6
        expected = weighted_distortion(w, found, h.values[layer.name])
        assert layer.distortion == pytest.approx(expected)
        d = layer.together
        runs = np.append(found, np.zeros(-found.size % d, found.dtype)).reshape(-1, d)
        assert len(np.unique(runs, axis=0)) in (layer.levels, layer.levels + 1)
        assert layer.levels <= round(64 ** (d / 3))
        assert layer.method.startswith(f"vector k-means, {d} weights" if d > 1 else "k-means, as")
    assert {layer.together for layer in result.layers} >= {1, 2}
    assert any("of 3 weights have codes for fewer than 3" in text for text in result.warnings)


def test_large_weights_get_vectors_as_long_as_asked_for():
    weight, h = draws(300_000)
    vectors = Vectors(16, 4)
    book = vectors.best(weight, h)
    assert isinstance(book, VectorCodebook)
    assert (book.dimensions, len(book.levels)) == (4, 16)
    assert vectors.method(book) == "vector k-means, 4 weights a code"


def test_small_weights_do_not_pay_for_tables():
    weight, h = draws(300)
    book = Vectors(256, 4).best(weight, h)
    assert isinstance(book, Codebook)
    assert len(book.levels) == 4


@pytest.mark.parametrize("size", [3_000, 10_000, 40_000])
def test_the_choice_costs_the_least(size):
    """In distortion times 4^bits; lengths next to one another are compared, from the longest."""
    weight, h = draws(size)
    vectors = Vectors(256, 4)

    def cost(book):
        return np.log2(weighted_distortion(weight, book.dequantize(), h)) / 2 + bits(book)

    chosen = vectors.best(weight, h)
    for d, k in vectors.candidates(weight):
        assert cost(chosen) <= cost(vectors._fitted(weight, h, d, k)) + 1e-12


def test_lengths_have_the_same_bits():
    weight = np.zeros(10_000_000, np.float32)
    assert Vectors(256, 4).candidates(weight) == [(4, 256), (3, 64), (2, 16), (1, 4)]
    assert Vectors(16, 8).candidates(weight) == [(8, 16), (7, 11), (6, 8), (5, 6), (4, 4), (3, 3),
                                                 (2, 2)]  # fmt: skip
    assert Vectors(16, 8).candidates(weight[:100]) == [(2, 2)]
    assert Vectors(65536, 8).candidates(weight[:20_000]) == [(3, 64), (2, 16), (1, 4)]


def test_weights_with_few_values_cost_next_to_nothing(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 100, 60, 5))
    networks.replace(path, "w1", np.full((60, 100), 0.01, np.float32))
    signs = np.sign(networks.normal(100, 12)).astype(np.float32)
    networks.replace(path, "w0", signs)
    result = onnxrd.quantize(path, tmp_path / "s.onnx", vector=4, clusters=256, data=calib)
    layers = {layer.name: layer for layer in result.layers}
    assert layers["w1"].encoding == "fill"
    assert layers["w0"].distortion == 0
    assert layers["w0"].bits < 2
    np.testing.assert_array_equal(weights_of(result.path, ["w0"])["w0"], signs)


def test_two_runs_give_the_same_bytes_and_seeds_differ(large, calib, tmp_path):
    def written(name, seed=0):
        options = onnxrd.Options(seed=seed, estimator=onnxrd.Estimator(seed=1))
        given = dict(vector=4, clusters=16, data=calib, options=options)
        return onnxrd.quantize(large, tmp_path / name, **given).path.read_bytes()

    assert written("a") == written("b") != written("c", 1)


@pytest.mark.parametrize(
    ("settings", "telling"),
    [
        ({"vector": 1}, "from 2 to 8"),
        ({"vector": 9}, "from 2 to 8"),
        ({"vector": 2, "clusters": 1}, "clusters"),
        ({"vector": 2, "clusters": 70_000}, "clusters"),
        ({"vector": 2, "keep": 0.5}, "pruned"),
        ({"vector": 2, "bits": 3}, "no bits"),
        ({"vector": 2, "trellis": True}, "no trellis"),
    ],
    ids=str,
)
def test_bad_settings_are_told_before_any_work(settings, telling, tmp_path):
    with pytest.raises(SettingError, match=telling):
        onnxrd.quantize("there is no such file", tmp_path / "out.onnx", **settings)


def test_on_the_command_line(large, calib, run, tmp_path):
    out = tmp_path / "small.onnx"
    command = ("quantize", large, "-o", out, "--data", calib, "--vector", 2, "--clusters", 16)
    ran = run(*command, "--json")
    assert ran.code == 0
    layers = {layer["name"]: layer for layer in json.loads(ran.out)["layers"]}
    assert (layers["w0"]["together"], layers["w0"]["levels"]) == (2, 16)
    assert layers["w0"]["method"] == "vector k-means, 2 weights a code"
    assert (layers["w2"]["together"], layers["w2"]["levels"]) == (1, 4)
    shown = run(*command)
    assert "16 × 2" in shown.out
    assert "1 of 3 weights have codes for fewer than 2 of their entries" in shown.err
    ran = run("evaluate", large, out, "--data", calib, "--json")
    assert ran.code == 0 and abs(json.loads(ran.out)["golden_rules"]["rule1"]) < 1e-6
    assert run("bound", large, "--data", calib, "--against", out).code == 0


@pytest.mark.parametrize("encoding", ["vector_codes", "entropy", "dense"])
def test_an_encoding_can_be_asked_for(encoding, large, calib, tmp_path):
    options = onnxrd.Options(encoding=encoding, force=True, exclude=("w2",))
    given = dict(vector=2, clusters=16, data=calib, options=options)
    result = onnxrd.quantize(large, tmp_path / "s.onnx", **given)
    assert {layer.encoding for layer in result.layers} == {encoding}


@pytest.mark.parametrize(
    "more", [("--ratio", "0.5"), ("--bits", "2"), ("--trellis",), ("--bits", "2", "--trellis")]
)
def test_what_does_not_go_together_is_wrong_usage(more, large, calib, run, tmp_path):
    ran = run("quantize", large, "-o", tmp_path / "s.onnx", "--data", calib, "--vector", 2, *more)
    assert ran.code == 2
    assert f"{more[0]} does not go with --vector" in ran.err
    assert not (tmp_path / "s.onnx").exists()


def test_lengths_out_of_range_are_wrong_usage(large, calib, run, tmp_path):
    for length in (1, 9, "x"):
        ran = run("quantize", large, "-o", tmp_path / "s", "--data", calib, "--vector", length)
        assert ran.code == 2 and "--vector" in ran.err


def test_gradient_and_hessian_are_for_single_weights(large, calib, run, tmp_path):
    given = ("--data", calib, "--objective", "gradient+hessian", "--damping", "0.1")
    ran = run("quantize", large, "-o", tmp_path / "s.onnx", "--vector", 2, *given)
    assert ran.code == 2
    assert "leave out --vector" in ran.err
