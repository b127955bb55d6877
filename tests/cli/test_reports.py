"""Pages and folders of reports: what they hold, and what keeps them from being written."""

import json
from importlib import import_module

import numpy as np
import onnx
import pytest

import onnxrd
from onnxrd.pipeline import output
from onnxrd.report.markup import element, joined
from tests import networks
from tests.documents import Document

room = import_module("onnxrd.pipeline.curve")
HOSTILE = "</th><script>alert('x')</script>&amp;\"w\""


def renamed(path, old, new):
    """Another name for an initializer."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    onnx.save(model, path)


def compress(run, model, calib, tmp_path, *arguments, name="small.onnx"):
    given = ("--data", calib, "--bits", "9", "-o", tmp_path / name)
    return run("compress", model, *given, "--report", tmp_path / "page.html", *arguments)


def test_a_file_layer_by_layer(model, calib, run, tmp_path):
    ran = compress(run, model, calib, tmp_path, "--json")
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(ran.out)
    page = Document((tmp_path / "page.html").read_text(encoding="utf8"))
    assert page.foreign == []
    assert page.count("tbody") == 1
    assert page.count("tr") == 1 + len(result["layers"])
    for layer in result["layers"]:
        for shown in (layer["name"], layer["role"], layer["method"], layer["encoding"]):
            assert shown in page.text
        assert f"{layer['bits']:.2f}" in page.text
        assert f"{layer['step']:.3g}" in page.text
    assert f"{result['ratio']:.2f} × smaller" in page.text
    assert f"KL divergence {result['evaluation']['distortion']:.4g}" in page.text


@pytest.mark.parametrize(
    ("arguments", "method", "gridded"),
    [
        (("quantize", "--clusters", "4"), "k-means", False),
        (("quantize", "--bits", "3"), "entropy-coded grid", True),
        (("quantize", "--bits", "3", "--trellis"), "entropy-coded grid", True),
        (("prune", "--ratio", "0.1"), "pruning", False),
    ],
)
def test_every_layer_says_how_it_was_quantized(
    arguments, method, gridded, model, calib, run, tmp_path
):
    command, *rest = arguments
    ran = run(command, model, *rest, "--data", calib, "-o", tmp_path / "small.onnx", "--json")
    assert ran.code == 0, ran.err
    layers = json.loads(ran.out)["layers"]
    assert {layer["method"] for layer in layers} == {method}
    assert {layer["step"] is not None for layer in layers} == {gridded}


def test_names_are_never_markup(model, calib, run, tmp_path):
    renamed(model, "w1", HOSTILE)
    ran = compress(run, model, calib, tmp_path, name="<script>.onnx")
    assert ran.code == 0, ran.err
    source = (tmp_path / "page.html").read_text(encoding="utf8")
    page = Document(source)
    assert "<script" not in source
    assert page.foreign == []
    assert HOSTILE in page.text
    assert "<script>.onnx, compressed" in page.text


def test_names_are_never_formulas(model, calib, run, tmp_path):
    odd = model.rename(tmp_path / "m$_$^{.onnx")
    given = ("--data", calib, "--points", "2", "--keep", "-o", tmp_path / "out")
    ran = run("curve", odd, *given)
    assert ran.code == 0, ran.err
    small = (tmp_path / "out" / "onnxrd-01.onnx").rename(tmp_path / "s$_$^{.onnx")
    plot = tmp_path / "bound.png"
    ran = run("bound", odd, "--data", calib, "--against", small, "--plot", plot)
    assert ran.code == 0, ran.err
    assert plot.exists()


def test_elements_escape_what_is_not_markup():
    inner = element("b", "1 < 2 & 3")
    outer = element("p", inner, " <i>", class_='"x"', stroke_width=2, id=None)
    assert outer == (
        '<p class="&quot;x&quot;" stroke-width="2"><b>1 &lt; 2 &amp; 3</b> &lt;i&gt;</p>'
    )
    assert joined("<", inner) == "&lt;" + inner


def test_a_page_that_cannot_be_written_is_refused_before_the_work(model, calib, refused, tmp_path):
    given = ("compress", model, "--data", calib, "--bits", "9", "-o", tmp_path / "small.onnx")
    refused(1, "cannot write", arguments=(*given, "--report", tmp_path / "none" / "page.html"))
    for given_too in (model, calib):
        refused(1, "never overwritten", arguments=(*given, "--report", given_too))


def test_outputs_that_are_no_classes_have_relative_errors(calib, run, tmp_path):
    model = networks.mlp(tmp_path / "model.onnx", sizes=(12, 40, 5))
    out = tmp_path / "out"
    given = ("--data", calib, "--points", "2", "--task", "regression", "--keep")
    ran = run("curve", model, "-o", out, *given, "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["measure"] == "relative squared error"
    original = onnxrd.load_model(model)
    data = onnxrd.load_data(calib, original.inputs)
    held_out = data.split(0.25)[1]
    before = np.concatenate([_outputs(model, batch) for batch in held_out.batches(64)])
    for point in document["series"][0]["points"]:
        after = np.concatenate([_outputs(out / point["file"], b) for b in held_out.batches(64)])
        error = ((before - after) ** 2).sum() / (before**2).sum()
        assert point["damage"] == pytest.approx(error, rel=1e-4)
    assert document["bound"][0]["damage"] < document["bound"][-1]["damage"] < 10


def _outputs(path, batch):
    session = onnxrd.graph.session.Session(path)
    return np.float64(session.run(batch.feeds)["y"])


def test_only_the_report_stays_and_what_is_missing_is_said(
    model, calib, run, tmp_path, monkeypatch
):
    encode = output.encode
    monkeypatch.setattr(output, "encode", lambda *given: (encode(*given)[0], ("much to load",)))
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    given = ("--data", calib, "--points", "2", "--objective", "identity")
    ran = run("curve", model, "-o", tmp_path / "out", *given)
    assert ran.code == 0
    assert "no curve.png without matplotlib" in ran.err
    assert "bound is not drawn" in ran.err
    assert "12 files have warnings, the first: much to load" in ran.err
    page = Document((tmp_path / "out" / "curve.html").read_text(encoding="utf8"))
    assert page.text.count("much to load") == 1 + 2
    assert "weighted" not in ran.out
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["curve.csv", "curve.html", "curve.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "telling"),
    [
        (("-o", "out"), 2, "--data is needed"),
        (("-o", "model.onnx", "--data", "calib.npz"), 1, "is a file"),
        (("-o", "none/out", "--data", "calib.npz"), 1, "cannot make the folder"),
        (("-o", "out", "--data", "none.npz"), 1, "none.npz"),
        (("-o", "out", "--data", "calib.npz", "--eval", "none.npz"), 1, "none.npz"),
        (("-o", "out", "--data", "calib.npz", "--points", "1"), 2, "--points"),
        (("-o", "out", "--data", "calib.npz", "--exclude", "none"), 2, "matches no weight"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments, code, telling, model, calib, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused(code, telling, arguments=("curve", model, *arguments))


def test_an_interruption_leaves_nothing(model, calib, refused, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "shannon_bound", interrupted)
    given = ("curve", model, "--data", calib, "--points", "2", "-o", tmp_path / "out")
    refused(130, "interrupted", arguments=given)
