"""Networks that do not do as most: outputs without samples in front, zeros that are divided by."""

import importlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxrd
from onnxrd.evaluation import verify
from tests import networks

node = helper.make_node
FORCED = onnxrd.Options(force=True)
ENDS = {
    "samples and times in one axis": (
        [node("Reshape", ["h", "rows"], ["r"]), node("MatMul", ["r", "v"], ["y"])],
        ["M", 6],
    ),
    "times first": (
        [node("MatMul", ["h", "v"], ["o"]), node("Transpose", ["o"], ["y"], perm=[1, 0, 2])],
        [4, "N", 6],
    ),
    "a number besides": (
        [node("MatMul", ["h", "v"], ["y"]), node("ReduceMean", ["y"], ["z"], keepdims=0)],
        ["N", 4, 6],
    ),
}


def save(path, end):
    """Tanh(x w) and one of the ends."""
    nodes, shape = ENDS[end]
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Tanh", ["m"], ["h"]), *nodes]
    weights = {
        "w": networks.normal(8, 64, seed=1, scale=0.4),
        "v": networks.normal(64, 6, seed=2, scale=0.4),
        "rows": np.array([-1, 64]),
    }
    outputs = {"y": shape} | ({"z": []} if end == "a number besides" else {})
    return networks.save(path, nodes, weights, {"x": ["N", 4, 8]}, outputs)


@pytest.mark.parametrize("end", ENDS)
def test_damage_is_kept_wherever_samples_are_in_the_output(end, tmp_path):
    path, out = save(tmp_path / "m.onnx", end), tmp_path / "out.onnx"
    data = {"x": networks.normal(64, 4, 8, seed=3)}
    options = onnxrd.Options(force=True, task={"y": "classification"})
    target = onnxrd.Target("kl", 0.02)
    result = onnxrd.compress(path, out, target=target, data=data, options=options)
    assert 0.0005 < result.evaluation.heads[0].distortion.mean <= 0.02


def weight_norm(path):
    """Rows over their norms; some are so small that they soon become zero."""
    v = networks.normal(64, 48)
    v[:8] *= 0.05
    nodes = [
        node("ReduceL2", ["v"], ["norm"], axes=[1], keepdims=1),
        node("Div", ["v", "norm"], ["w"]),
        node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "u"], ["o"]),
        node("Softmax", ["o"], ["y"]),
    ]
    weights = {"v": v, "b": networks.normal(64, seed=1), "u": networks.normal(64, 10, seed=2)}
    return networks.save(path, nodes, weights, {"x": ["N", 48]}, {"y": ["N", 10]})


@pytest.mark.parametrize("target", [("kl", 0.05), ("size", 5200)])
def test_outputs_stay_finite_where_a_weight_is_divided_by(target, tmp_path):
    path, out = weight_norm(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    data = {"x": networks.normal(64, 48, seed=3)}
    result = onnxrd.compress(path, out, target=onnxrd.Target(*target), data=data, options=FORCED)
    assert result.evaluation.distortion < 0.5


def test_a_bias_that_is_excluded_is_not_changed(tmp_path):
    path, out = networks.mlp(tmp_path / "m.onnx", sizes=(12, 60, 40, 5)), tmp_path / "out.onnx"
    data = {"x": networks.normal(64, 12, seed=3)}
    options = onnxrd.Options(force=True, exclude=["b1", "b2"])
    onnxrd.compress(path, out, target=onnxrd.Target("kl", 0.05), data=data, options=options)
    held = {t.raw_data for t in onnx.load(out).graph.initializer}
    before = networks.arrays(path)
    assert {before["b1"].tobytes(), before["b2"].tobytes()} <= held
    assert before["b0"].tobytes() not in held


def test_of_files_within_a_size_the_least_damaged_is_taken(tmp_path, monkeypatch):
    path, out = networks.cnn(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    module = importlib.import_module("onnxrd.pipeline.compress")
    damage, found = module._damage, []

    def noted(point):
        found.append((damage(point), point.nbytes))
        return found[-1][0]

    monkeypatch.setattr(module, "_damage", noted)
    monkeypatch.setitem(module.WITHIN, "size", 1e-6)
    data = {"x": networks.normal(64, 2, 8, 8, seed=3)}
    target = onnxrd.Target("size", 3000)
    result = onnxrd.compress(path, out, target=target, data=data, options=FORCED)
    assert result.nbytes[1] <= 3000
    full = [damage for damage, nbytes in found if nbytes > 0.98 * 3000]
    assert len(set(full)) > 1
    assert result.evaluation.distortion <= 1.001 * min(full)


def test_half_precision_may_differ_by_its_own_roundings(tmp_path):
    files = []
    for name, factor in (("a", 1.0), ("b", 1 + 2.0**-10)):
        nodes = [node("Mul", ["x", "f"], ["y"])]
        weights = {"f": np.array([factor], np.float16)}
        files.append(
            networks.save(
                tmp_path / f"{name}.onnx",
                nodes,
                weights,
                {"x": ["N"]},
                {"y": ["N"]},
                dtype=TensorProto.FLOAT16,
            )
        )
    feeds = {"x": np.array([1, 2], np.float16)}
    verify(*files, feeds, precision=2.0**-10)
    with pytest.raises(onnxrd.VerificationError):
        verify(*files, feeds)


def test_calls_of_several_rows_are_told_apart_from_samples(tmp_path, run):
    path, folder = networks.mlp(tmp_path / "m.onnx"), tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        np.savez(folder / f"{number}.npz", x=networks.normal(50, 12, seed=number))
    ran = run("quantize", path, "-o", tmp_path / "o.onnx", "--data", folder, "--force")
    assert ran.code == 0
    assert "each call counts as one sample, though the first one has 50 rows" in ran.err
    (folder / "1.npz").unlink()
    arguments = ("--data", folder, "--max-kl", "0.1")
    ran = run("compress", path, "-o", tmp_path / "o.onnx", *arguments)
    assert ran.code == 1 and "one .npz" in ran.err
