"""Sampling and batching: every sample once, in a known order, padded right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxrd.calibration import load
from onnxrd.errors import CalibrationError, SettingError
from onnxrd.graph.specs import InputSpec

counts = st.integers(1, 40)
seeds = st.integers(0, 2**32)


def numbered(count, *, calls, fixed=None):
    """Data and inputs for samples that hold their number, with labels."""
    x = np.arange(count, dtype=np.float32).reshape(count, 1)
    inputs = (InputSpec("x", np.dtype(np.float32), (fixed or "N", 1)),)
    if calls:
        return [{"x": x[n : n + 1], "labels": n} for n in range(count)], inputs
    return {"x": x, "labels": np.arange(count)}, inputs


def numbers(calibration, size=3):
    found = [n for b in calibration.batches(size) for n in b.feeds["x"][: b.size, 0].tolist()]
    labels = [n for b in calibration.batches(size) for n in b.labels.tolist()]
    assert labels == calibration.labels.tolist() == found
    assert len(found) == calibration.samples
    return found


@given(count=counts, size=st.integers(1, 50), calls=st.booleans())
def test_every_sample_once_in_order(count, size, calls):
    calibration = load(*numbered(count, calls=calls))
    assert numbers(calibration, size) == list(range(count))
    sizes = [batch.size for batch in calibration.batches(size)]
    assert all(n == (1 if calls else size) for n in sizes[:-1])
    assert sum(sizes) == count


@given(count=counts, samples=st.integers(1, 50), seed=seeds, calls=st.booleans())
def test_sampling(count, samples, seed, calls):
    data, inputs = numbered(count, calls=calls)
    taken = numbers(load(data, inputs, samples=samples, seed=seed))
    assert taken == numbers(load(data, inputs, samples=samples, seed=seed))
    assert len(taken) == min(count, samples)
    assert sorted(set(taken)) == taken
    assert set(taken) <= set(range(count))


def test_seeds_differ_and_every_sample_has_a_chance():
    data, inputs = numbered(20, calls=False)
    drawn = [tuple(numbers(load(data, inputs, samples=5, seed=seed))) for seed in range(50)]
    assert len(set(drawn)) > 40
    assert {n for one in drawn for n in one} == set(range(20))


@given(count=counts, fixed=st.integers(1, 9), size=st.integers(1, 9), samples=counts)
def test_fixed_batch_is_filled_with_the_last_sample(count, fixed, size, samples):
    data, inputs = numbered(count, calls=False, fixed=fixed)
    calibration = load(data, inputs, samples=samples)
    numbers(calibration, size)
    *full, last = calibration.batches(size)
    assert all(batch.size == fixed for batch in full)
    assert 1 <= last.size <= fixed
    for batch in [*full, last]:
        assert batch.feeds["x"].shape == (fixed, 1)
        assert len(batch.labels) == batch.size
    assert (last.feeds["x"][last.size :] == last.feeds["x"][last.size - 1]).all()


def test_one_fixed_input_decides_for_all():
    f4 = np.dtype(np.float32)
    inputs = (InputSpec("a", f4, ("N", 2)), InputSpec("b", f4, (4,)))
    data = {"a": np.zeros((6, 2), np.float32), "b": np.zeros(6, np.float32)}
    for batch in load(data, inputs).batches(1):
        assert batch.feeds["a"].shape == (4, 2)
        assert batch.feeds["b"].shape == (4,)


@given(
    count=st.integers(2, 40),
    fraction=st.floats(0.001, 0.999),
    seed=seeds,
    samples=st.integers(2, 40),
    calls=st.booleans(),
)
def test_split(count, fraction, seed, samples, calls):
    data, inputs = numbered(count, calls=calls)
    whole = load(data, inputs, samples=samples, seed=seed)
    rest, held_out = whole.split(fraction, seed)
    assert sorted(numbers(rest) + numbers(held_out)) == numbers(whole)
    assert abs(held_out.samples - fraction * whole.samples) <= 1
    assert rest.samples >= 1
    assert held_out.samples >= 1
    assert numbers(whole.split(fraction, seed)[1]) == numbers(held_out)


def test_subset():
    whole = load(*numbered(10, calls=False)).subset([9, 3, 5, 3])
    assert numbers(whole) == [3, 5, 9]
    assert numbers(whole.subset(np.array([2, 0]))) == [3, 9]


def test_subset_is_no_copy():
    x = np.zeros((4, 1), np.float32)
    part = load({"x": x}, numbered(1, calls=False)[1]).subset([1, 2])
    x[2] = 7
    assert next(part.batches(2)).feeds["x"].tolist() == [[0], [7]]


@pytest.mark.parametrize("indices", [[], [-1], [0, 10]])
def test_subset_out_of_range(indices):
    with pytest.raises(SettingError, match="from 0 to 9"):
        load(*numbered(10, calls=False)).subset(indices)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_split_out_of_range(fraction):
    with pytest.raises(SettingError, match="between 0 and 1"):
        load(*numbered(10, calls=False)).split(fraction)


def test_split_of_one_sample():
    with pytest.raises(CalibrationError, match="Give more data"):
        load(*numbered(1, calls=False)).split(0.5)


def test_settings_below_one():
    data, inputs = numbered(10, calls=False)
    with pytest.raises(SettingError, match="Give 1 or more"):
        load(data, inputs).batches(0)
    with pytest.raises(SettingError, match="Give 1 or more"):
        load(data, inputs, samples=0)


def test_a_digest_tells_samples_apart():
    data, inputs = numbered(70, calls=False)
    whole = load(data, inputs)
    assert whole.digest == load({k: v.copy() for k, v in data.items()}, inputs).digest
    assert whole.digest == whole.subset(range(70)).digest
    swapped = {"x": data["x"][::-1].copy(), "labels": data["labels"]}
    others = [
        whole.subset(range(69)),
        whole.subset(range(1, 70)),
        whole.one_by_one(),
        load({"x": data["x"], "labels": data["labels"][::-1].copy()}, inputs),
        load({"x": data["x"]}, inputs),
        load(swapped, inputs),
        load(*numbered(70, calls=True)).subset(range(69)),
        load(data, inputs, samples=30, seed=0),
        load(data, inputs, samples=30, seed=1),
    ]
    assert len({whole.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert others[-1].digest == load(data, inputs, samples=30, seed=1).digest
