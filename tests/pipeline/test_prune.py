"""prune: the exact share, of the weights that matter most, untouched."""

import numpy as np
import pytest

import onnxrd
from tests import networks
from tests.pipeline.decoded import weights_of

NAMES = ["w0", "w1", "w2"]


@pytest.fixture
def wide(tmp_path):
    return networks.mlp(tmp_path / "wide.onnx", sizes=(12, 200, 100, 5))


def scores(path, calib):
    model = onnxrd.load_model(path)
    h = onnxrd.fisher(model, onnxrd.load_data(calib, model.inputs))
    weights = networks.arrays(path)
    return {n: h.damped(n, weights[n].shape) * weights[n].astype(float) ** 2 for n in NAMES}


@pytest.mark.parametrize("keep", [0.003, 0.1, 0.25])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_share_asked_for(scope, keep, wide, tmp_path, calib):
    result = onnxrd.prune(wide, tmp_path / "small.onnx", keep=keep, scope=scope, data=calib)
    before, after = networks.arrays(wide), weights_of(result.path, NAMES)
    score = scores(wide, calib)
    together = np.concatenate([s.ravel() for s in score.values()])
    threshold = np.sort(together)[-round(keep * together.size)]
    layers = {layer.name: layer for layer in result.layers}
    assert len(layers) >= 2
    for name in set(NAMES) - set(layers):  # so dense still that pruning it would gain nothing
        assert result.skipped[name] == "no encoding of it is smaller"
        assert after[name].tobytes() == before[name].tobytes()
    for layer in layers.values():
        kept, values = after[layer.name] != 0, score[layer.name]
        assert layer.kept == kept.mean()
        assert after[layer.name][kept].tobytes() == before[layer.name][kept].tobytes()
        if scope == "layer":
            assert kept.sum() == round(keep * kept.size)
            assert values[kept].min() >= values[~kept].max()
        else:
            np.testing.assert_array_equal(kept, values >= threshold)
    assert result.ratio > 0.4 / keep**0.5


def test_figures_are_true_of_the_file(wide, tmp_path, calib, run):
    kept = tmp_path / "imp.npz"
    assert run("importance", wide, "--data", calib, "-o", kept).code == 0
    result = onnxrd.prune(wide, tmp_path / "small.onnx", keep=0.1, data=calib)
    assert result.nbytes == (wide.stat().st_size, result.path.stat().st_size)
    before, after = networks.arrays(wide), weights_of(result.path, NAMES)
    with np.load(kept) as importance:
        for layer in result.layers:
            error = (before[layer.name].astype(float) - after[layer.name]) ** 2
            expected = float((importance[f"weight:{layer.name}"] * error).sum()) / 2
            assert layer.distortion == pytest.approx(expected)
            assert layer.levels is None
    assert result.predicted == pytest.approx(sum(layer.distortion for layer in result.layers))


@pytest.mark.parametrize(("keep", "clusters"), [(0.2, 8), (0.5, 2), (0.9, 16)])
def test_pruning_and_quantizing_together(keep, clusters, wide, tmp_path, calib):
    output = tmp_path / "small.onnx"
    result = onnxrd.quantize(wide, output, clusters=clusters, keep=keep, data=calib)
    score, after = scores(wide, calib), weights_of(result.path, NAMES)
    for layer in result.layers:
        array = after[layer.name]
        assert len(np.unique(array)) == layer.levels == clusters
        assert np.count_nonzero(array) == round(keep * array.size)
        kept = array != 0
        assert score[layer.name][kept].min() >= score[layer.name][~kept].max()


def test_without_data_the_smallest_go(wide, tmp_path):
    result = onnxrd.prune(wide, tmp_path / "small.onnx", keep=0.1)
    assert "plain magnitude" in result.warnings[0]
    assert result.predicted is None
    before, after = networks.arrays(wide), weights_of(result.path, NAMES)
    for name in NAMES:
        kept, size = after[name] != 0, np.abs(before[name])
        assert size[kept].min() >= size[~kept].max()


def test_what_would_not_pay_is_left_alone(tmp_path, calib):
    """Pruned a little, stored dense a weight takes what it took before: then it is not pruned."""
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 200, 100, 5))
    options = onnxrd.Options(force=True)
    result = onnxrd.prune(path, tmp_path / "small.onnx", keep=0.99, data=calib, options=options)
    assert result.layers == ()
    assert set(result.skipped.values()) == {"no encoding of it is smaller", "stays as it is: bias"}
    for name in NAMES:
        found = networks.arrays(result.path)[name]
        assert found.tobytes() == networks.arrays(path)[name].tobytes()
    assert result.predicted == result.evaluation.distortion == 0
