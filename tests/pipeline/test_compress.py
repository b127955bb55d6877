"""quantize and prune, from the file to the file."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxrd
from onnxrd.graph.session import Session
from tests import networks


def weights_of(path):
    """Every weight of a written model, decoded by onnxruntime: name → array."""
    model = onnx.load(path)
    names = [n for n in ("w0", "w1", "w2", "c1", "c2", "c3", "w") if _has(model, n)]
    kept = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for name in names:
        if name not in kept:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    missing = [n for n in names if n not in kept]
    feeds = {
        i.name: np.zeros([d.dim_value or 1 for d in i.type.tensor_type.shape.dim], np.float32)
        for i in model.graph.input
    }
    return {n: kept[n] for n in names if n in kept} | dict(
        zip(missing, session.run(missing, feeds) if missing else [])
    )


def _has(model, name):
    made = {o for n in model.graph.node for o in n.output}
    return name in made or name in {i.name for i in model.graph.initializer}


@pytest.fixture
def conv(tmp_path):
    path = networks.cnn(tmp_path / "cnn.onnx")
    return path, networks.data(tmp_path / "cnn.npz", shape=(2, 8, 8), classes=7)


def test_figures_agree_with_the_file(conv, tmp_path):
    path, data = conv
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=8, data=data)
    size = result.path.stat().st_size
    assert result.nbytes == (path.stat().st_size, size)
    assert result.ratio == pytest.approx(path.stat().st_size / size)
    assert result.evaluation.samples == 40
    before, after = weights_of(path), weights_of(result.path)
    model = onnxrd.load_model(path)
    h = onnxrd.fisher(model, onnxrd.load_data(data, model.inputs, samples=512))
    assert {layer.name for layer in result.layers} == {"c1", "c2", "c3", "w"}
    for layer in result.layers:
        assert len(np.unique(after[layer.name])) == layer.levels == 8
        error = (before[layer.name].astype(float) - after[layer.name]) ** 2
        assert layer.distortion == pytest.approx(float((h.values[layer.name] * error).sum()) / 2)
    assert result.predicted == pytest.approx(sum(layer.distortion for layer in result.layers))


def test_measured_distortion_is_the_kl_of_the_two_files(model, calib, tmp_path):
    result = onnxrd.quantize(model, tmp_path / "small.onnx", clusters=4, data=calib)
    x = np.load(calib)["x"]

    def probabilities(path):
        z = Session(path).run({"x": x})["y"].astype(float)
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = probabilities(model), probabilities(result.path)
    expected = (p * np.log(p / q)).sum(1)
    head = result.evaluation.heads[0]
    assert head.distortion.mean == pytest.approx(expected.mean(), rel=1e-4)
    assert head.distortion.standard_error == pytest.approx(
        expected.std(ddof=1) / np.sqrt(len(x)), rel=1e-4
    )
    labels = np.load(calib)["labels"]
    assert head.accuracy == pytest.approx([(r.argmax(1) == labels).mean() for r in (p, q)])
    losses = [-np.log(r[np.arange(len(x)), labels]).mean() for r in (p, q)]
    assert head.cross_entropy == pytest.approx(losses, rel=1e-4)
    assert head.agreement == pytest.approx((p.argmax(1) == q.argmax(1)).mean())


def test_more_clusters_do_less_damage(model, calib, tmp_path):
    results = [
        onnxrd.quantize(model, tmp_path / f"{k}.onnx", clusters=k, data=calib) for k in (3, 16, 64)
    ]
    predicted = [r.predicted for r in results]
    measured = [r.evaluation.distortion for r in results]
    assert predicted == sorted(predicted, reverse=True)
    assert measured == sorted(measured, reverse=True)


def test_everything_else_is_kept(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", producer_name="someone", doc_string="about it")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"author": "me"})
    proto.graph.node[0].name = "first layer"
    onnx.save(proto, path)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=16, data=calib)
    small = onnx.load(result.path)
    onnx.checker.check_model(small)
    assert small.producer_name == "someone"
    assert small.doc_string == "about it"
    assert {p.key: p.value for p in small.metadata_props} == {"author": "me"}
    assert small.ir_version == proto.ir_version
    assert [o.version for o in small.opset_import if not o.domain] == [17]
    assert small.graph.input == proto.graph.input
    assert small.graph.output == proto.graph.output
    assert "first layer" in {n.name for n in small.graph.node}
    kept = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    for tensor in small.graph.initializer:
        if tensor.name.startswith("b"):
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), kept[tensor.name])
    shown = {p.key: p.value for n in small.graph.node for p in n.metadata_props}
    assert shown["levels"] == "16"
    assert {"encoding", "bits"} <= set(shown)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_keeps_the_share_asked_for(scope, tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 200, 100, 5))
    result = onnxrd.prune(path, tmp_path / "small.onnx", keep=0.1, scope=scope, data=calib)
    before, after = weights_of(path), weights_of(result.path)
    model = onnxrd.load_model(path)
    h = onnxrd.fisher(model, onnxrd.load_data(calib, model.inputs))
    scores = {n: h.damped(n, w.shape) * w**2 for n, w in before.items() if n in h.values}
    everything = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
    for layer in result.layers:
        kept, score = after[layer.name] != 0, scores[layer.name]
        assert layer.kept == pytest.approx(kept.mean())
        np.testing.assert_array_equal(after[layer.name][kept], before[layer.name][kept])
        if scope == "layer":
            assert kept.sum() == round(0.1 * kept.size)
            assert score[kept].min() >= score[~kept].max()
        else:
            threshold = everything[-round(0.1 * everything.size)]
            np.testing.assert_array_equal(kept, score >= threshold)


def test_pruning_and_quantizing_together(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 200, 100, 5))
    result = onnxrd.quantize(path, tmp_path / "s.onnx", clusters=8, keep=0.2, data=calib)
    after = weights_of(result.path)
    for layer in result.layers:
        values = np.unique(after[layer.name])
        assert len(values) <= 8
        assert 0.0 in values
        assert np.count_nonzero(after[layer.name]) == round(0.2 * after[layer.name].size)


def test_excluded_weights_stay(model, calib, tmp_path):
    options = onnxrd.Options(exclude=("w1",))
    result = onnxrd.quantize(model, tmp_path / "s.onnx", clusters=4, data=calib, options=options)
    assert result.skipped["w1"] == "excluded"
    np.testing.assert_array_equal(weights_of(result.path)["w1"], weights_of(model)["w1"])


@pytest.mark.parametrize("command", [("quantize", "--clusters", "8"), ("prune", "--ratio", "0.2")])
def test_same_input_same_bytes(command, model, calib, run, tmp_path):
    name, *settings = command
    kept = tmp_path / "imp.npz"
    assert run("importance", model, "--data", calib, "-o", kept).code == 0
    for output, source in (("a", calib), ("b", calib)):
        arguments = (*settings, "--data", source, "-o", tmp_path / output)
        assert run(name, model, *arguments).code == 0
    assert run(name, model, *settings, "--importance", kept, "-o", tmp_path / "c").code == 0
    a, b, c = ((tmp_path / n).read_bytes() for n in "abc")
    assert a == b == c
    again = tmp_path / "again.npz"
    assert run("importance", model, "--data", calib, "-o", again).code == 0
    assert again.read_bytes() == kept.read_bytes()
    assert run("importance", model, "--data", calib, "-o", again, "--seed", "1").code == 0
    assert again.read_bytes() != kept.read_bytes()


def test_json_is_all_of_stdout_and_agrees_with_python(model, calib, run, tmp_path):
    ran = run("quantize", model, "-o", tmp_path / "a.onnx", "--data", calib, "--json")
    document = json.loads(ran.out)
    result = onnxrd.quantize(model, tmp_path / "b.onnx", data=calib)
    assert document["nbytes"] == list(result.nbytes)
    assert document["predicted"] == pytest.approx(result.predicted)
    assert document["evaluation"]["heads"][0]["distortion"]["mean"] == pytest.approx(
        result.evaluation.distortion
    )
    evaluated = run("evaluate", model, tmp_path / "a.onnx", "--data", calib, "--json")
    assert json.loads(evaluated.out)["distortion"] == pytest.approx(result.evaluation.distortion)


def test_without_data_a_loud_warning(model, run, tmp_path):
    ran = run("quantize", model, "-o", tmp_path / "a.onnx")
    assert ran.code == 0
    assert "NOT measured" in ran.err
    assert "NOT measured" not in ran.out
    assert run("quantize", model, "-o", tmp_path / "a.onnx", "-q").err == ""


def test_quiet_verbose_version_help(model, calib, run, tmp_path):
    command = ["quantize", model, "-o", tmp_path / "a.onnx", "--data", calib, "-v"]
    said = subprocess.run(
        [sys.executable, "-m", "onnxrd", *map(str, command)], capture_output=True, text=True
    )
    assert "batched path" in said.stderr
    assert "batched path" not in said.stdout
    assert "onnxrd" in run("--version").out
    for command in ("inspect", "importance", "quantize", "prune", "evaluate"):
        assert f"onnxrd {command}" in run(command, "-h").out


def test_the_module_runs():
    ran = subprocess.run(
        [sys.executable, "-m", "onnxrd", "--version"], capture_output=True, text=True, check=True
    )
    assert "version" in ran.stdout


def test_the_files_of_other_tools_can_be_evaluated(model, calib, run, tmp_path):
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        rounded = np.round(numpy_helper.to_array(tensor), 1)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    onnx.save(proto, tmp_path / "rounded.onnx")
    ran = run("evaluate", model, tmp_path / "rounded.onnx", "--data", calib, "--json")
    assert json.loads(ran.out)["distortion"] > 0
    other = networks.mlp(tmp_path / "other.onnx", sizes=(12, 8, 4))
    assert run("evaluate", model, other, "--data", calib).code == 1


@pytest.mark.parametrize("softmax", [False, True])
def test_logits_and_softmax_are_the_same_network(softmax, calib, tmp_path):
    path = networks.mlp(tmp_path / "m.onnx", softmax=softmax)
    plain = networks.mlp(tmp_path / "p.onnx")
    a, b = (onnxrd.load_model(p) for p in (path, plain))
    found, expected = (onnxrd.fisher(m, onnxrd.load_data(calib, m.inputs)) for m in (a, b))
    for name, values in expected.values.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-5)
