"""The cache: the same bytes sooner, and never those of something else."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import onnxrd
from onnxrd import cache, measurement
from onnxrd.compression import ladders
from onnxrd.compression.sequential import Sequential
from onnxrd.errors import ModelError
from onnxrd.pipeline.compressor import Compressor
from tests import networks

COMMANDS = {
    "quantize": ("--clusters", "8"),
    "prune": ("--ratio", "0.2"),
    "importance": (),
    "compress": ("--target-ratio", "2"),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "cache"


@pytest.fixture
def calls(monkeypatch):
    """How often what the cache is for was computed."""
    counted = {}

    def count(module, name):
        original = getattr(module, name)

        def counting(*args, **options):
            counted[name] = counted.get(name, 0) + 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counting)

    count(measurement, "fisher")
    count(measurement, "supervised")
    count(measurement, "best_damped")
    count(measurement, "best_temperature")
    count(ladders, "measured_curvature")
    count(Sequential, "quantize")
    count(Compressor, "_compared")
    return counted


@pytest.fixture
def written(run, model, calib, tmp_path):
    """Run a command, by default with its usual settings: the bytes of its output."""

    def call(command, *more, data=calib):
        out = tmp_path / "out"
        settings = COMMANDS[command]
        ran = run(command, model, "-o", out, "--data", data, *settings, *more)
        assert ran.code == 0, ran.err
        return out.read_bytes()

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_bytes_with_and_without(command, written, folder, calls):
    without = written(command)
    assert written(command, "--cache", folder) == without
    once = calls | {"quantize": calls.get("quantize", -1) + 1}
    assert written(command, "--cache", folder) == without
    assert {"quantize": 0} | calls == once
    assert calls["fisher"] == 2


def test_commands_share_what_is_measured(written, folder, calls):
    for command in ("quantize", "prune", "importance"):
        written(command, "--cache", folder)
    written("quantize", "--damping", "0.1", "--clusters", "4", "--cache", folder)
    assert calls == {"fisher": 1}


def test_another_target_needs_no_new_preparation(written, folder, calls):
    written("compress", "--cache", folder)
    first = written("compress", "--target-ratio", "3", "--cache", folder)
    assert calls["fisher"] == calls["measured_curvature"] == 1
    assert first == written("compress", "--target-ratio", "3", "--cache", folder)


@pytest.mark.parametrize("other", ["1.95", "2.1", "2.5"])
def test_another_target_begins_with_what_was_found_for_the_first(other, written, folder, calls):
    written("compress", "--cache", folder)
    first = calls.pop("quantize")
    written("compress", "--target-ratio", other, "--cache", folder)
    second = calls.pop("quantize")
    assert second < first
    written("compress", "--target-ratio", other, "--cache", folder)
    assert calls["quantize"] == 1


@pytest.mark.parametrize(
    ("kind", "value", "factor"), [("ratio", 2, 1 / 8), ("kl", 0.05, 8)], ids=["size", "damage"]
)
def test_a_slope_that_does_not_keep_the_target_here_is_not_taken(
    kind, value, factor, model, calib, folder, tmp_path
):
    """As if it had been found on another machine, which rounds otherwise."""
    target, options = onnxrd.Target(kind, value), onnxrd.Options(cache=folder)
    for _ in range(2):
        result = onnxrd.compress(
            model, tmp_path / "out", target=target, data=calib, options=options
        )
        assert result.ratio >= 2 if kind == "ratio" else result.evaluation.distortion <= value
        (entry,) = folder.glob("slope*")
        with np.load(entry) as archive:
            arrays = {**archive, "slope": factor * archive["slope"]}
        with entry.open("wb") as stream:
            np.savez(stream, **arrays)


def test_points_made_for_a_size_hide_no_damage(model, calib, folder, tmp_path, calls):
    """They are noted down without one, at slopes where it may be known."""

    def compress(kl, cache):
        target, options = onnxrd.Target("kl", kl), onnxrd.Options(cache=cache)
        calls.clear()
        onnxrd.compress(model, tmp_path / "out", target=target, data=calib, options=options)
        return (tmp_path / "out").read_bytes(), dict(calls)

    compress(0.05, folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    for notes in copy.glob("trials*"):
        with np.load(notes) as archive:
            arrays, rows = dict(archive), archive["rows"]
        without = np.where(np.arange(rows.shape[1]) < 2, rows, np.nan)
        with notes.open("wb") as stream:
            np.savez(stream, **{**arrays, "rows": np.concatenate([rows, without])})
    assert compress(0.055, copy) == compress(0.055, folder)


def test_methods_are_compared_once(written, folder, calls):
    for ratio in ("2", "3.5"):
        written("compress", "--target-ratio", ratio, "--cache", folder)
    assert calls["_compared"] == 1


def test_notes_are_of_files_stored_alike(written, folder, calls):
    """Bytes found for a file without names say nothing of one with them."""
    short = written("compress", "--cache", folder)
    notes = set(folder.glob("trials*"))
    long = written("compress", "--keep-names", "--cache", folder)
    assert set(folder.glob("trials*")) > notes
    assert short != long == written("compress", "--keep-names", "--cache", folder)


@pytest.mark.parametrize(
    "other",
    [
        ("--seed", "1"),
        ("--samples", "5"),
        ("--estimator", "sampled"),
        ("--objective", "regression"),
        ("--task", "regression"),
        ("--threads", "2"),
    ],
    ids=" ".join,
)
def test_other_settings_miss(other, written, folder, calls):
    written("quantize", "--cache", folder)
    found = written("quantize", *other, "--cache", folder)
    assert calls == {"fisher": 2}
    assert len(list(folder.iterdir())) == 2
    assert found == written("quantize", *other)


def test_other_data_miss(written, folder, calls, calib, tmp_path):
    written("quantize", "--cache", folder)
    with np.load(calib) as arrays:
        changed = dict(arrays)
    moved = tmp_path / "moved.npz"
    np.savez(moved, **changed)
    written("quantize", "--cache", folder, data=moved)
    assert calls == {"fisher": 1}
    name = next(name for name in changed if name != "labels")
    changed[name][-1, -1] += 1e-3
    np.savez(moved, **changed)
    written("quantize", "--cache", folder, data=moved)
    assert calls == {"fisher": 2}


def test_another_model_misses(written, folder, calls, model):
    written("quantize", "--cache", folder)
    networks.mlp(model, seed=3)
    written("quantize", "--cache", folder)
    assert calls == {"fisher": 2}


def test_another_version_misses(written, folder, calls, monkeypatch):
    written("quantize", "--cache", folder)
    monkeypatch.setattr(cache, "versions", lambda: ("onnxrd 99",))
    written("quantize", "--cache", folder)
    assert calls == {"fisher": 2}


@pytest.mark.parametrize("objective", ["hessian", "gradient"])
def test_what_is_chosen_on_samples_held_out_is_kept_for_that_quantizer(
    objective, written, folder, calls
):
    chosen = ("--objective", objective, "--temperature", "auto")
    first = written("quantize", *chosen, "--cache", folder)
    once = {"supervised": 1, "best_damped": 1, "best_temperature": 1}
    assert calls == once
    assert written("quantize", *chosen, "--cache", folder) == first
    assert calls == once
    written("quantize", *chosen, "--clusters", "4", "--cache", folder)
    assert calls["best_damped"] == 2


def test_differences_are_kept_too(written, folder, monkeypatch):
    how = ("--method", "finite-difference", "--samples", "4", "--cache", folder)
    first = written("importance", *how)
    with monkeypatch.context() as patch:
        patch.setattr("onnxrd.cli.commands.importance.finite_difference", None)
        assert written("importance", *how) == first
    coarser = written("importance", *how, "--exact-up-to", "1")
    assert coarser != first


def test_a_damaged_entry_is_computed_anew_and_said_to_be(folder, caplog):
    model, data = SimpleNamespace(digest="m"), SimpleNamespace(digest="d")
    numbers = networks.normal(500)

    def found():
        arrays = cache.remembered(folder, "x", model, [data], (), lambda: {"n": numbers})
        np.testing.assert_array_equal(arrays["n"], numbers)

    found()
    (entry,) = folder.iterdir()
    whole, told = entry.read_bytes(), 0
    generator = np.random.default_rng(0)
    damages = [whole[:-1], whole[: len(whole) // 2], b"", b"x" * 1000]
    for place in generator.integers(0, len(whole), 400):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << generator.integers(8)
        damages.append(bytes(flipped))
    for damaged in damages:
        entry.write_bytes(damaged)
        caplog.clear()
        found()
        if "damaged" in caplog.text:
            assert entry.read_bytes() == whole
            told += 1
    assert told > 0.9 * len(damages)


def test_an_entry_under_the_name_of_another_is_not_taken(written, folder, calls, caplog):
    written("quantize", "--cache", folder)
    (first,) = folder.iterdir()
    written("quantize", "--seed", "1", "--cache", folder)
    (second,) = set(folder.iterdir()) - {first}
    expected = written("quantize", "--seed", "1")
    second.write_bytes(first.read_bytes())
    assert written("quantize", "--seed", "1", "--cache", folder) == expected
    assert "belongs to something else" in caplog.text


def test_a_folder_that_cannot_be_made(refused, model, calib, tmp_path):
    arguments = ("quantize", model, "-o", tmp_path / "o", "--data", calib, "--cache", model)
    refused(2, "cannot make the folder", "cache", arguments=arguments)


def test_the_result_is_there_even_if_it_cannot_be_kept(written, folder, monkeypatch, caplog):
    without = written("quantize")

    def full(path, **options):
        raise ModelError(f"cannot write {path} (No space left on device).")

    monkeypatch.setattr(cache, "atomic_output", full)
    assert written("quantize", "--cache", folder) == without
    assert "No space left" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_once(written, folder, monkeypatch, caplog):
    def refused(*where, **options):
        raise ModelError(f"cannot write to {folder} (Permission denied).")

    monkeypatch.setattr(cache, "atomic_output", refused)
    written("compress", "--cache", folder)
    assert caplog.text.count("Permission denied") == 1


def test_in_python(model, calib, tmp_path, calls):
    options = onnxrd.Options(cache=str(tmp_path / "cache"))
    for clusters in (4, 8):
        output = tmp_path / f"{clusters}.onnx"
        onnxrd.quantize(model, output, clusters=clusters, data=calib, options=options)
    assert calls == {"fisher": 1}


def test_evaluate_has_it_for_the_golden_rules(run, model, calib, folder, tmp_path, calls):
    small = tmp_path / "small.onnx"
    assert run("quantize", model, "-o", small, "--data", calib).code == 0
    for _ in range(2):
        ran = run("evaluate", model, small, "--data", calib, "--cache", folder)
        assert ran.code == 0, ran.err
    assert calls["fisher"] == 2
