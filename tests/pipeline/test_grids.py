"""quantize --bits: entropy-coded grids and trellises of so many bits, in files that are true."""

import numpy as np
import onnx
import pytest

import onnxrd
from onnxrd.errors import SettingError
from onnxrd.rate_distortion import BITS, gaussian_rate
from tests import networks
from tests.pipeline.decoded import weights_of

SIDE = 300


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    """A MatMul of Gaussian weights, and these."""
    path = tmp_path_factory.mktemp("layer") / "layer.onnx"
    weight = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    networks.save(path, [node], {"w": weight}, {"x": ["n", SIDE]}, {"y": ["n", SIDE]})
    return path, weight


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("trellis", "most"), [(False, 0.32), (True, 0.2)])
def test_bits_of_the_file_are_near_shannons(layer, bits, trellis, most, tmp_path):
    path, weight = layer
    result = onnxrd.quantize(path, tmp_path / "small.onnx", bits=bits, trellis=trellis)
    stored = weights_of(result.path, ["w"])["w"]
    error = float(np.mean((weight - stored) ** 2))
    rate = BITS * float(gaussian_rate(float(np.mean(weight**2)), error))
    assert 0.95 * bits < result.layers[0].bits < 1.03 * bits + 0.03
    assert rate < result.layers[0].bits < rate + most


@pytest.mark.parametrize("trellis", [False, True])
def test_rates_that_no_slope_leads_to(layer, trellis, tmp_path):
    """Of the best points for a slope, none is between half a bit and zero."""
    bits = [
        onnxrd.quantize(layer[0], tmp_path / "small.onnx", bits=bits, trellis=trellis).layers[0]
        for bits in (0.2, 0.4)
    ]
    assert 0.2 < bits[0].bits < 0.4 < bits[1].bits < 0.7


@pytest.mark.parametrize("trellis", [False, True])
def test_all_tensors_share_one_slope(trellis, model, calib, run, tmp_path):
    arguments = ("--bits", "3", "--data", calib, *(["--trellis"] if trellis else []))
    ran = run("quantize", model, "-o", tmp_path / "small.onnx", *arguments)
    assert ran.code == 0, ran.err
    layers = onnxrd.quantize(
        model, tmp_path / "other.onnx", bits=3, trellis=trellis, data=calib
    ).layers
    assert len({layer.bits for layer in layers}) == len(layers) > 1
    one, other = ((tmp_path / name).read_bytes() for name in ("small.onnx", "other.onnx"))
    assert one == other


def test_importance_says_where_the_bits_go(layer, tmp_path):
    path, weight = layer
    given = onnxrd.load_model(path)
    h = np.where(np.arange(SIDE) < SIDE // 2, 1.0, 0.01) * np.ones((SIDE, 1))
    importance = onnxrd.Importance({"w": h.astype(np.float32)}, given.digest, damping=0.0)
    result = onnxrd.quantize(
        path, tmp_path / "small.onnx", bits=2, trellis=True, importance=importance
    )
    errors = (weight - weights_of(result.path, ["w"])["w"]) ** 2
    assert errors[:, SIDE // 2 :].mean() > 2 * errors[:, : SIDE // 2].mean()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trellis",), "of how many bits"),
        (("--bits", "3", "--clusters", "8"), "--clusters has no effect"),
        (("--bits", "3", "--ratio", "0.5"), "--ratio has no effect"),
        (("--bits", "9"), "7 at most"),
        (("--bits", "0"), "0.05 or more"),
        (("--bits", "nan"), "0.05 or more"),
    ],
)
def test_what_cannot_be(arguments, says, model, run, tmp_path):
    ran = run("quantize", model, "-o", tmp_path / "small.onnx", *arguments)
    assert ran.code != 0
    assert says in ran.err
    assert not (tmp_path / "small.onnx").exists()


def test_a_trellis_needs_opset_11(tmp_path):
    path = networks.mlp(tmp_path / "old.onnx", opset=9, ir_version=4)
    with pytest.raises(SettingError, match="takes opset 11"):
        onnxrd.quantize(path, tmp_path / "small.onnx", bits=3, trellis=True)
    assert onnxrd.quantize(path, tmp_path / "small.onnx", bits=3, options=FORCED).layers


FORCED = onnxrd.Options(force=True)
