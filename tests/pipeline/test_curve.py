"""The rate–distortion curve of a network: every number against a measurement of its own."""

import csv
import json
import math
import shutil

import pytest

import onnxrd
from onnxrd import archive
from onnxrd.calibration import load as load_data
from onnxrd.evaluation import evaluate
from onnxrd.pipeline.compressor import HELD_OUT
from onnxrd.report.tables import nbytes
from tests import networks
from tests.documents import Document

SIZES = (12, 40, 24, 5)
OTHERS = ["weighted", "k-means", "rounding"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("curve")


@pytest.fixture(scope="module")
def model(folder):
    return networks.mlp(folder / "model.onnx", sizes=SIZES)


@pytest.fixture(scope="module")
def drawn(folder, model):
    """A curve whose files are kept."""
    calib, unseen = (networks.data(folder / f"{k}.npz", samples=48, seed=k) for k in (1, 2))
    onnxrd.curve(model, folder / "out", data=calib, evaluation=unseen, points=3, keep=True)
    return folder / "out"


@pytest.fixture(scope="module")
def document(drawn):
    return json.loads((drawn / "curve.json").read_text())


def points(document, name):
    return next(series["points"] for series in document["series"] if series["name"] == name)


def test_every_point_is_a_file_as_large_and_as_damaged_as_it_says(document, folder, model, drawn):
    original = onnxrd.load_model(model)
    unseen = load_data(folder / "2.npz", original.inputs)
    assert document["samples"] == unseen.samples == 48
    assert [series["name"] for series in document["series"]] == ["onnxrd", *OTHERS]
    for series in document["series"]:
        for point in series["points"]:
            file = drawn / point["file"]
            assert point["nbytes"] == file.stat().st_size
            measured = evaluate(original, onnxrd.load_model(file), unseen, timed=False)
            (head,) = measured.heads
            assert point["damage"] == pytest.approx(measured.distortion)
            assert point["standard_error"] == pytest.approx(head.distortion.standard_error)
            assert head.accuracy == pytest.approx((document["accuracy"], point["accuracy"]))


def test_archives_are_as_small_as_they_say(document, drawn, folder):
    for point in (points(document, "onnxrd")[0], points(document, "rounding")[-1]):
        packed = folder / "packed"
        archive.pack(drawn / point["file"], packed)
        assert point["packed_nbytes"] == packed.stat().st_size < point["nbytes"]


def test_fewer_bytes_are_paid_for_by_damage(document):
    for series in document["series"]:
        sizes = [point["nbytes"] for point in series["points"]]
        assert sizes == sorted(sizes, reverse=True)
        assert series["points"][-1]["damage"] > 10 * series["points"][0]["damage"]
    bound = [(point["damage"], point["nbytes"]) for point in document["bound"]]
    assert len(bound) > 20
    assert bound == sorted(bound)
    assert [nbytes for _, nbytes in bound] == sorted((n for _, n in bound), reverse=True)


def test_damages_are_spread_over_what_matters(document):
    first, middle, last = (point["damage"] for point in points(document, "onnxrd"))
    assert 3e-5 < first < 3e-3 < middle < 3e-2 < last < 3


def test_the_bound_is_shannons_and_has_the_rest_of_the_file_on_top(document, folder, model):
    original = onnxrd.load_model(model)
    calib = load_data(folder / "1.npz", original.inputs)
    h = onnxrd.fisher(original, calib.split(HELD_OUT)[0])
    weights = [w for w in onnxrd.find_weights(original) if not w.skip]
    rest = original.nbytes - 4 * sum(w.size for w in weights)
    some = document["bound"][10]
    (point,) = onnxrd.bound(original, h, distortions=[some["damage"]]).points
    bits = point.bits["empirical"] * sum(w.size for w in weights)
    assert some["nbytes"] == pytest.approx(rest + bits / 8, rel=1e-3)


def test_rivals_are_what_they_are_called(document, drawn):
    for name, setting, k in (("weighted", "8 clusters", 8), ("k-means", "4 clusters", 4)):
        (point,) = (p for p in points(document, name) if p["setting"] == setting)
        assert [layer["levels"] for layer in point["layers"]] == [k] * (len(SIZES) - 1)
    (point,) = (p for p in points(document, "rounding") if p["setting"] == "4 bits")
    for layer, k in zip(point["layers"], range(len(SIZES) - 1)):
        largest = abs(networks.normal(*SIZES[k : k + 2][::-1], seed=k)).max() * 1.5
        assert layer["step"] == pytest.approx(largest / math.sqrt(SIZES[k]) / 7, rel=1e-5)


def test_layers_tell_what_else_there_was(document):
    for layer in points(document, "onnxrd")[1]["layers"]:
        assert layer["method"].startswith("error feedback")
        assert layer["step"] > 0
        assert layer["rivals"]["dense"] > 4 * math.prod(layer["shape"])
        assert layer["encoding"] not in layer["rivals"]


def test_interpolated_bytes_lie_between_the_files_around_them(document):
    large, small = points(document, "onnxrd")[:2]
    at = {row["damage"]: row["onnxrd"] for row in document["nbytes_at"]}
    assert large["damage"] < 0.003 < small["damage"]
    assert small["nbytes"] < at[0.003] < large["nbytes"]


def test_the_table_of_all_files_says_the_same(document, drawn):
    with (drawn / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    series = [(s["name"], p) for s in document["series"] for p in s["points"]]
    assert len(rows) == len(series) + len(document["bound"])
    for row, (name, point) in zip(rows, series):
        assert row["series"] == name
        assert float(row["damage"]) == point["damage"]
        assert int(row["nbytes"]) == point["nbytes"]
    for row, point in zip(rows[len(series) :], document["bound"]):
        assert row["series"] == "bound"
        assert float(row["damage"]) == point["damage"]
        assert int(row["nbytes"]) == round(point["nbytes"])


def test_the_picture_is_one(drawn):
    assert (drawn / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_every_file_and_every_layer(document, drawn):
    page = Document((drawn / "curve.html").read_text(encoding="utf8"))
    assert page.foreign == []
    ours = points(document, "onnxrd")
    assert page.count("details") == len(ours)
    assert page.count("tbody") == 1 + len(document["series"]) + len(ours)
    for series in document["series"]:
        assert series["title"] in page.text
        for point in series["points"]:
            assert point["setting"] in page.text
            assert nbytes(point["nbytes"]) in page.text
            assert f"{point['damage']:.3g}" in page.text
    for layer in ours[0]["layers"]:
        assert page.text.count(layer["name"]) == len(ours)


def test_the_same_twice(drawn, folder, model, run):
    again = folder / "again"
    data = ("--data", folder / "1.npz", "--eval", folder / "2.npz")
    ran = run("curve", model, "-o", again, *data, "--points", "3", "--keep", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == json.loads((again / "curve.json").read_text())
    names = sorted(file.name for file in drawn.iterdir())
    assert sorted(file.name for file in again.iterdir()) == names
    for name in names:
        assert (again / name).read_bytes() == (drawn / name).read_bytes(), name
    shutil.rmtree(again)
