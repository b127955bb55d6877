"""Every kind of source gives the arrays that were put in, again and again."""

import itertools
import textwrap
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxrd.calibration import load
from onnxrd.calibration.files import read_npz
from onnxrd.graph.specs import InputSpec

LABELS = np.arange(10, dtype=np.int32) % 4


def numbers(calibration, size=4):
    """The sample numbers of a pass, of images filled with their number."""
    return [n for b in calibration.batches(size) for n in b.feeds["image"][: b.size, 0, 0, 0]]


@pytest.fixture
def calls():
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(length, 1, 5)).astype(np.float32),
            "state": np.full((2, 1, 7), length, np.float32),
            "rate": np.array(length),
        }
        for length in range(1, 13)
    ]


def assert_gives(calibration, calls):
    assert not calibration.sample_axis
    assert calibration.samples == len(calls)
    for _ in range(2):
        batches = list(calibration.batches(8))
        assert [batch.size for batch in batches] == [1] * len(calls)
        for batch, call in zip(batches, calls, strict=True):
            assert batch.feeds.keys() == call.keys()
            for name, array in call.items():
                np.testing.assert_array_equal(batch.feeds[name], array)
                assert batch.feeds[name].dtype == array.dtype


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path, image, images, save, order):
    save(tmp_path / "data.npz", image=np.asarray(images, order=order), labels=LABELS)
    calibration = load(tmp_path / "data.npz", image)
    assert calibration.samples == 10
    assert calibration.sample_axis
    assert calibration.labels.dtype == np.int64
    np.testing.assert_array_equal(calibration.labels, LABELS)
    for _ in range(2):
        batches = list(calibration.batches(4))
        assert [batch.size for batch in batches] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([b.feeds["image"] for b in batches]), images)
        np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), LABELS)


def test_npz_given_as_string_and_without_labels(tmp_path, text):
    np.savez(tmp_path / "data.npz", ids=np.ones((2, 5), np.int64), mask=np.ones((2, 5), "f4"))
    calibration = load(str(tmp_path / "data.npz"), text)
    assert calibration.labels is None
    assert next(calibration.batches(1)).labels is None


def test_plain_members_are_mapped_and_compressed_ones_read(tmp_path, images):
    np.savez(tmp_path / "plain.npz", image=images, scalar=np.float32(3), none=np.zeros((0, 2)))
    np.savez_compressed(tmp_path / "small.npz", image=images)
    plain = read_npz(tmp_path / "plain.npz")
    assert isinstance(plain["image"], np.memmap)
    assert not isinstance(read_npz(tmp_path / "small.npz")["image"], np.memmap)
    np.testing.assert_array_equal(plain["image"], images)
    assert plain["scalar"].shape == ()
    assert plain["scalar"] == 3
    assert plain["none"].shape == (0, 2)


def test_a_large_file_takes_the_memory_of_a_batch(tmp_path, image):
    np.savez(tmp_path / "data.npz", image=np.ones((1 << 17, 3, 4, 4), np.float32))  # 24 MiB
    tracemalloc.start()
    try:
        for batch in load(tmp_path / "data.npz", image).batches(1024):  # 192 KiB each
            assert batch.feeds["image"][0, 0, 0, 0] == 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_feeds_are_plain_aligned_and_in_c_order(tmp_path):
    """Members of an archive begin anywhere; names of other lengths shift them."""
    arrays = {"a" * (n + 1): np.asfortranarray(np.ones((2, 3, 4), np.float32)) for n in range(8)}
    inputs = tuple(InputSpec(name, np.dtype(np.float32), ("N", 3, 4)) for name in arrays)
    np.savez(tmp_path / "data.npz", **arrays)
    assert not all(a.flags.aligned for a in read_npz(tmp_path / "data.npz").values())
    for source in (tmp_path / "data.npz", tmp_path):
        for feed in next(load(source, inputs).batches(2)).feeds.values():
            assert type(feed) is np.ndarray
            assert feed.flags.aligned
            assert feed.flags.c_contiguous


def test_mapping(image, images):
    calibration = load({"image": images, "labels": LABELS}, image)
    assert numbers(calibration) == numbers(calibration) == list(range(10))
    np.testing.assert_array_equal(calibration.labels, LABELS)


def test_mapping_as_numpy_loads_it(tmp_path, image, images):
    np.savez(tmp_path / "data.npz", image=images)
    with np.load(tmp_path / "data.npz") as loaded:
        calibration = load(loaded, image)
    assert numbers(calibration) == list(range(10))


def test_labels_of_sequences(text):
    labels = np.arange(15).reshape(3, 5)
    data = {"ids": np.ones((3, 5), np.int64), "mask": np.ones((3, 5), np.float32)}
    calibration = load({**data, "labels": labels}, text)
    np.testing.assert_array_equal(calibration.labels, labels)
    np.testing.assert_array_equal(next(calibration.batches(2)).labels, labels[:2])


def test_labels_may_be_an_input():
    labels = InputSpec("labels", np.dtype(np.float32), ("N", 2))
    calibration = load({"labels": -np.ones((3, 2), np.float32)}, (labels,))
    batch = next(calibration.batches(3))
    assert calibration.labels is None
    assert batch.labels is None
    assert batch.feeds["labels"].shape == (3, 2)


def test_folder_of_npz(tmp_path, recurrent, calls):
    for number, call in enumerate(calls):
        np.savez(tmp_path / f"{number:03}.npz", **call)
    assert_gives(load(tmp_path, recurrent), calls)


def test_folder_reads_only_what_is_asked_for(tmp_path, recurrent, calls):
    for number, call in enumerate(calls):
        np.savez(tmp_path / f"{number:03}.npz", **call)
    calibration = load(tmp_path, recurrent)
    for number in range(1, 12):
        (tmp_path / f"{number:03}.npz").unlink()
    assert len(list(calibration.subset([0]).batches(1))) == 1
    assert next(calibration.batches(1)).feeds["rate"] == 1


def write_test_data(folder, arrays):
    folder.mkdir()
    for number, array in enumerate(arrays):
        proto = numpy_helper.from_array(np.asarray(array))
        (folder / f"input_{number}.pb").write_bytes(proto.SerializeToString())
    (folder / "output_0.pb").write_bytes(onnx.TensorProto().SerializeToString())


def test_onnx_test_data(tmp_path, recurrent, calls):
    for number, call in enumerate(calls):  # ten comes after nine
        write_test_data(tmp_path / f"test_data_set_{number}", call.values())
    (tmp_path / "model.onnx").touch()
    assert_gives(load(tmp_path, recurrent), calls)
    assert_gives(load(tmp_path / "test_data_set_3", recurrent), calls[3:4])


class Again:
    """Iterable from the start each time."""

    def __init__(self, calls):
        self.calls = calls
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield from self.calls


class Reader:
    """As onnxruntime's documentation has it."""

    def __init__(self, calls):
        self.calls = iter(calls)

    def get_next(self):
        return next(self.calls, None)


class Rewinding(Reader):
    def __init__(self, calls):
        super().__init__(calls)
        self.all = calls

    def rewind(self):
        self.calls = iter(self.all)


@pytest.mark.parametrize("kind", [list, tuple, iter, Again, Reader, Rewinding])
def test_iterables_and_readers(recurrent, calls, kind):
    assert_gives(load(kind(calls), recurrent), calls)


def test_reader_derived_from_onnxruntime(recurrent, calls):
    quantization = pytest.importorskip("onnxruntime.quantization.calibrate")

    class Derived(Reader, quantization.CalibrationDataReader):
        pass

    assert_gives(load(Derived(calls), recurrent), calls)


def test_what_can_be_read_again_is_not_kept(recurrent, calls):
    source = Again(calls)
    calibration = load(source, recurrent)
    for _ in range(2):
        list(calibration.batches(1))
    assert source.passes == 3  # the first one counts


def test_one_array_filled_again_and_again(recurrent, calls):
    def reuse():
        state = np.empty((2, 1, 7), np.float32)
        for call in calls:
            state[:] = call["state"]
            yield {**call, "state": state}

    assert_gives(load(reuse(), recurrent), calls)


def test_labels_of_calls(text):
    def call(*labels):
        ids = np.ones((1, len(labels)), np.int64)
        return {"ids": ids, "mask": ids.astype(np.float32), "labels": np.array(labels, np.uint8)}

    calibration = load([call(1, 2), call(3, 4, 5), call(6)], text)
    assert calibration.samples == 3
    assert calibration.labels.tolist() == [1, 2, 3, 4, 5, 6]
    assert calibration.subset([0, 2]).labels.tolist() == [1, 2, 6]
    assert [batch.labels.tolist() for batch in calibration.batches(1)] == [[1, 2], [3, 4, 5], [6]]


def test_scalar_labels_of_calls(image, images):
    calls = [{"image": images[n : n + 1], "labels": n} for n in range(3)]
    assert load(calls, image).labels.tolist() == [0, 1, 2]


SCRIPT = """
    import numpy as np
    from neighbour import COUNT

    def mapping():
        return {"image": np.zeros((COUNT, 3, 4, 4), np.float32)}

    def generator():
        for _ in range(COUNT):
            yield {"image": np.zeros((1, 3, 4, 4), np.float32)}
"""


@pytest.mark.parametrize("function", ["mapping", "generator"])
def test_script(tmp_path, image, function):
    (tmp_path / "data.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "neighbour.py").write_text("COUNT = 6")
    calibration = load(f"{tmp_path / 'data.py'}:{function}", image)
    assert calibration.samples == 6
    assert sum(batch.size for batch in calibration.batches(4)) == 6


def test_endless_generator_cut_to_size(image, images):
    endless = ({"image": images[n % 10][None]} for n in itertools.count())
    assert numbers(load(itertools.islice(endless, 13), image)) == [n % 10 for n in range(13)]


def test_strings():
    words = InputSpec("words", np.dtype(object), ("N",))
    assert load({"words": np.array(["a", "b"])}, (words,)).samples == 2


def test_unknown_rank():
    anything = InputSpec("x", np.dtype(np.float32), None)
    assert load({"x": np.zeros((2, 3, 4), np.float32)}, (anything,)).samples == 2
