"""quantize: figures that are true of the file, and everything else of the model kept."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

import onnxrd
from onnxrd.errors import ImportanceError, SettingError
from tests import networks
from tests.pipeline.decoded import outputs_of, weights_of

node = helper.make_node


@pytest.fixture
def conv(tmp_path):
    path = networks.cnn(tmp_path / "cnn.onnx")
    return path, networks.data(tmp_path / "cnn.npz", shape=(2, 8, 8), classes=7)


@pytest.mark.parametrize("clusters", [2, 3, 8, 16, 24])
def test_figures_are_true_of_the_file(clusters, conv, run, tmp_path):
    path, data = conv
    kept = tmp_path / "imp.npz"
    assert run("importance", path, "--data", data, "-o", kept).code == 0
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=clusters, data=data)
    size = result.path.stat().st_size
    assert result.nbytes == (path.stat().st_size, size)
    assert result.ratio == path.stat().st_size / size
    floats = sum(a.size for a in networks.arrays(path).values())
    assert result.parameters == floats
    assert result.bits_per_weight == 8 * size / floats
    assert result.evaluation.nbytes == result.nbytes
    assert result.evaluation.samples == 40
    names = ["c1", "c2", "c3", "w"]
    assert [layer.name for layer in result.layers] == names
    assert set(result.skipped) == {"d1", "g", "h", "m", "v", "d3", "b"}
    before, after = weights_of(path, names), weights_of(result.path, names)
    with np.load(kept) as importance:
        h = {name: importance[f"weight:{name}"].astype(float) for name in names}
    for layer in result.layers:
        values = np.unique(after[layer.name])
        assert len(values) == layer.levels == min(clusters, after[layer.name].size)
        assert layer.bits == 8 * layer.nbytes / after[layer.name].size
        assert layer.shape == after[layer.name].shape
        error = (before[layer.name].astype(float) - after[layer.name]) ** 2
        assert layer.distortion == pytest.approx(float((h[layer.name] * error).sum()) / 2)
    assert result.predicted == pytest.approx(sum(layer.distortion for layer in result.layers))
    assert result.layers[0].nbytes <= sum(
        t.ByteSize() for t in onnx.load(result.path).graph.initializer
    ) + sum(n.ByteSize() for n in onnx.load(result.path).graph.node)


def test_measured_distortion_is_the_kl_of_the_two_files(model, calib, tmp_path):
    result = onnxrd.quantize(model, tmp_path / "small.onnx", clusters=4, data=calib)
    x, labels = np.load(calib)["x"], np.load(calib)["labels"]

    def probabilities(path):
        z = outputs_of(path, {"x": x})[0].astype(float)
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = probabilities(model), probabilities(result.path)
    expected = (p * np.log(p / q)).sum(1)
    head = result.evaluation.heads[0]
    assert head.distortion.mean == pytest.approx(expected.mean(), rel=1e-4)
    error = expected.std(ddof=1) / np.sqrt(len(x))
    assert head.distortion.standard_error == pytest.approx(error, rel=1e-4)
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
    assert predicted[-1] == pytest.approx(measured[-1], rel=0.5)


@pytest.mark.parametrize(
    ("opset", "ir_version"), [(9, 4), (11, 6), (13, 7), (17, 8), (21, 10), (23, 11)]
)
@pytest.mark.parametrize("keep", [1.0, 0.1])
def test_everything_else_is_kept(opset, ir_version, keep, tmp_path):
    """Above all the opset, which other tools like to change."""
    path = networks.mlp(
        tmp_path / "m.onnx",
        sizes=(12, 90, 70, 5),
        softmax=True,
        opset=opset,
        ir_version=ir_version,
        producer_name="someone",
        producer_version="4.5",
        doc_string="about it",
        domain="some.where",
        model_version=7,
    )
    proto = onnx.load(path)
    helper.set_model_props(proto, {"author": "me", "labels": "[a, b]"})
    proto.graph.node[0].name = "first layer"
    proto.graph.node[0].doc_string = "the first"
    proto.graph.doc_string = "a graph"
    proto.graph.input[0].doc_string = "digits"
    onnx.save(proto, path)
    data = networks.data(tmp_path / "d.npz")
    options = onnxrd.Options(keep_names=True)
    result = onnxrd.quantize(
        path, tmp_path / "small.onnx", clusters=16, keep=keep, data=data, options=options
    )
    assert len(result.layers) == 3
    small = onnx.load(result.path)
    onnx.checker.check_model(small, full_check=True)
    for field in (
        *("ir_version", "producer_name", "producer_version", "doc_string", "domain"),
        *("model_version", "metadata_props"),
    ):
        assert getattr(small, field) == getattr(proto, field), field
    assert [o.version for o in small.opset_import if not o.domain] == [opset]
    assert small.graph.input == proto.graph.input
    assert small.graph.output == proto.graph.output
    assert (small.graph.name, small.graph.doc_string) == ("network", "a graph")
    others = [n for n in small.graph.node if n.output[0] not in ("w0", "w1", "w2")]
    assert list(proto.graph.node) == others[-len(proto.graph.node) :]
    biases = {t.name: t for t in small.graph.initializer if t.name.startswith("b")}
    assert {n: numpy_helper.to_array(t).tobytes() for n, t in biases.items()} == {
        n: a.tobytes() for n, a in networks.arrays(path).items() if n.startswith("b")
    }
    shown = {p.key: p.value for n in small.graph.node for p in n.metadata_props}
    assert {"encoding", "levels", "bits"} <= set(shown)


def test_old_models_list_their_initializers_as_inputs(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", opset=8, ir_version=4, sizes=(12, 90, 70, 5))
    proto = onnx.load(path)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    onnx.save(proto, path)
    onnx.checker.check_model(path)
    result = onnxrd.quantize(path, tmp_path / "small.onnx", data=calib)
    onnx.checker.check_model(result.path)
    assert onnx.load(result.path).ir_version == 3
    assert result.ratio > 4
    x = np.load(calib)["x"]
    assert outputs_of(result.path, {"x": x})[0].shape == (40, 5)


def test_old_models_are_told_what_a_newer_opset_is_worth(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", opset=9, ir_version=4, sizes=(12, 300, 300, 5))
    old = onnxrd.quantize(path, tmp_path / "old.onnx", data=calib, bits=1)
    assert any("convert_version(model, 17)" in warning for warning in old.warnings)
    onnx.save(version_converter.convert_version(onnx.load(path), 17), path)
    new = onnxrd.quantize(path, tmp_path / "new.onnx", data=calib, bits=1)
    assert not any("convert" in warning for warning in new.warnings)
    assert new.nbytes[1] < 0.7 * old.nbytes[1]


@pytest.mark.parametrize("number", ["float16", "float64"])
def test_other_precisions(number, tmp_path):
    made = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[number]
    weights = {"w": networks.normal(12, 60).astype(number)}
    shapes = {"x": ["N", 12]}, {"y": ["N", 60]}
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    path = networks.save(tmp_path / "m.onnx", nodes, weights, *shapes, dtype=made)
    data = {"x": networks.normal(20, 12).astype(number)}
    result = onnxrd.quantize(path, tmp_path / "small.onnx", data=data)
    assert result.ratio > 1.4
    output = outputs_of(result.path, data)[0]
    assert output.dtype == number
    assert result.predicted == pytest.approx(result.evaluation.distortion, rel=0.4)


def test_weights_with_few_values(tmp_path, calib):
    """Fewer than clusters: nothing is lost. All equal, or all zero: next to no bytes."""
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 100, 60, 50, 5))
    signs = np.sign(networks.normal(100, 12)).astype(np.float32)
    networks.replace(path, "w0", signs)
    networks.replace(path, "w1", np.full((60, 100), 0.01, np.float32))
    networks.replace(path, "w2", np.zeros((50, 60), np.float32))
    result = onnxrd.quantize(path, tmp_path / "small.onnx", clusters=16, data=calib)
    layers = {layer.name: layer for layer in result.layers}
    after = weights_of(result.path, ["w0", "w1", "w2"])
    np.testing.assert_array_equal(after["w0"], signs)
    np.testing.assert_array_equal(after["w1"], np.full((60, 100), 0.01, np.float32))
    assert (after["w2"] == 0).all()
    assert [layers[f"w{k}"].levels for k in range(3)] == [2, 1, 1]
    assert [layers[f"w{k}"].kept for k in range(3)] == [1, 1, 0]
    assert all(layers[f"w{k}"].distortion == 0 for k in range(3))
    assert max(layers["w1"].nbytes, layers["w2"].nbytes) < 200
    assert layers["w0"].bits < 2.5


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6])
def test_weights_of_odd_scales(scale, tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 100, 60, 5))
    w = networks.arrays(path)["w1"]
    networks.replace(path, "w1", (w * scale).astype(np.float32))
    options = onnxrd.Options(objective="identity")
    result = onnxrd.quantize(path, tmp_path / "small.onnx", data=calib, options=options)
    error = weights_of(result.path, ["w1"])["w1"].astype(float) / scale - w
    assert np.sqrt((error**2).mean() / (w**2).mean()) < 0.15


@pytest.mark.parametrize("encoding", ["dense", "byte_codes", "byte_lut", "gap", "native_int4"])
def test_an_encoding_can_be_asked_for(encoding, tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 100, 60, 5), opset=21, ir_version=10)
    options = onnxrd.Options(encoding=encoding, force=True)
    result = onnxrd.quantize(path, tmp_path / "s.onnx", keep=0.2, data=calib, options=options)
    assert {layer.encoding for layer in result.layers} == {encoding}
    usual = onnxrd.quantize(path, tmp_path / "u.onnx", keep=0.2, data=calib)
    assert usual.nbytes[1] <= result.nbytes[1]
    names = ["w0", "w1", "w2"]
    for name, array in weights_of(usual.path, names).items():
        np.testing.assert_array_equal(array, weights_of(result.path, names)[name])


def test_excluded_weights_stay(model, calib, tmp_path):
    options = onnxrd.Options(exclude=("w[12]", "b0"))
    result = onnxrd.quantize(model, tmp_path / "s.onnx", clusters=4, data=calib, options=options)
    assert {n for n, why in result.skipped.items() if why == "excluded"} == {"w1", "w2", "b0"}
    assert result.skipped["b1"] == "stays as it is: bias"
    for name in ("w1", "w2"):
        assert (
            networks.arrays(result.path)[name].tobytes() == networks.arrays(model)[name].tobytes()
        )


def test_a_string_is_one_pattern(model, calib, tmp_path):
    options = onnxrd.Options(exclude="w[01]", force=True)
    result = onnxrd.quantize(model, tmp_path / "small.onnx", data=calib, options=options)
    assert [layer.name for layer in result.layers] == ["w2"]


def test_what_is_compressed_already_stays_as_it_is(tmp_path, calib):
    path = networks.mlp(tmp_path / "m.onnx", sizes=(12, 100, 60, 5))
    options = onnxrd.Options(exclude=("w1",))
    first = onnxrd.quantize(path, tmp_path / "1.onnx", data=calib, options=options)
    second = onnxrd.quantize(first.path, tmp_path / "2.onnx", clusters=8, data=calib)
    assert [layer.name for layer in second.layers] == ["w1"]
    for name in ("w0", "w2"):
        before, after = (weights_of(r.path, [name])[name] for r in (first, second))
        np.testing.assert_array_equal(before, after)


def test_an_output_that_is_no_tensor(model, calib, tmp_path):
    """It can be neither compared nor verified, but the others can."""
    proto = onnx.load(model)
    proto.graph.node.append(node("SequenceConstruct", ["y"], ["all"]))
    info = helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None)
    proto.graph.output.append(info)
    onnx.save(proto, model)
    result = onnxrd.quantize(model, tmp_path / "small.onnx", data=calib)
    assert [head.output for head in result.evaluation.heads] == ["y"]
    assert [o.name for o in onnx.load(result.path).graph.output] == ["y", "all"]


def test_importance_as_a_value(model, calib, tmp_path):
    loaded = onnxrd.load_model(model)
    h = onnxrd.fisher(loaded, onnxrd.load_data(calib, loaded.inputs))
    a = onnxrd.quantize(model, tmp_path / "a.onnx", importance=h)
    b = onnxrd.quantize(model, tmp_path / "b.onnx", data=calib)
    assert a.path.read_bytes() == b.path.read_bytes()
    assert a.predicted == b.predicted
    assert a.evaluation is None
    assert "NOT measured" in a.warnings[0]
    other = networks.mlp(tmp_path / "other.onnx", seed=4)
    with pytest.raises(ImportanceError, match="another model"):
        onnxrd.quantize(other, tmp_path / "c.onnx", importance=h)


@pytest.mark.parametrize(
    "settings",
    [
        {"clusters": 1},
        {"clusters": 8.0},
        {"clusters": "8"},
        {"clusters": 8, "bits": 3},
        {"keep": 0.5, "bits": 3},
        {"keep": 0},
        {"keep": 1.01},
        {"keep": float("nan")},
    ],
    ids=str,
)
def test_bad_settings_are_told_before_any_work(settings, calib, tmp_path):
    with pytest.raises(SettingError):
        onnxrd.quantize("there is no such file", tmp_path / "out.onnx", data=calib, **settings)
    if list(settings) == ["keep"]:
        with pytest.raises(SettingError):
            onnxrd.prune("there is no such file", tmp_path / "out.onnx", **settings)


@pytest.mark.parametrize("settings", [{"damping": -1}, {"damping": np.inf}, {"seed": -1}], ids=str)
def test_options_that_make_no_sense(settings):
    with pytest.raises(SettingError):
        onnxrd.Options(**settings)


def test_models_and_data_are_read_before_they_are_compared(model, calib):
    loaded = onnxrd.load_model(model)
    with pytest.raises(SettingError, match="load_model"):
        onnxrd.evaluate(str(model), str(model), str(calib))
    with pytest.raises(SettingError, match="load_data"):
        onnxrd.evaluate(loaded, loaded, str(calib))


def test_progress_is_shown_to_the_end(model, calib, tmp_path):
    seen = []

    def track(things, what, total):
        count = 0
        for thing in things:
            count += 1
            yield thing
        seen.append((what, total, count))

    options = onnxrd.Options(track=track, samples=33)
    onnxrd.quantize(model, tmp_path / "out.onnx", data=calib, options=options)
    assert {what for what, _, _ in seen} == {"importance", "quantizing", "evaluating"}
    assert all(total == count > 0 for _, total, count in seen)


def test_paths_may_be_strings_and_the_result_says_how_it_came_about(model, calib, tmp_path):
    options = onnxrd.Options(samples=7, seed=3, estimator=onnxrd.Estimator("sampled", 2, 1.5, 5))
    result = onnxrd.quantize(str(model), str(tmp_path / "o.onnx"), data=str(calib), options=options)
    about = result.importance
    assert json.loads(json.dumps(about)) == about
    expected = {"samples": 7, "seed": 5, "estimator": "sampled", "probes": 2, "temperature": 1.5}
    assert expected.items() <= about.items()
    assert about["model"] == onnxrd.load_model(model).digest
    assert result.evaluation.samples == 7
