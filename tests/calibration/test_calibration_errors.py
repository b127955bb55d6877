"""Whatever is wrong with the data, the user reads what it is and how to mend it."""

import io
import itertools
import zipfile

import numpy as np
import pytest

from onnxrd.calibration import load, sources
from onnxrd.errors import CalibrationError
from onnxrd.graph.specs import InputSpec


def refused(source, inputs, *, read=False):
    """The message of the error at loading, or at reading."""
    if read:
        with pytest.raises(CalibrationError) as caught:
            list(load(source, inputs).batches(4))
    else:
        with pytest.raises(CalibrationError) as caught:
            load(source, inputs)
    return str(caught.value)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# --- names


@pytest.mark.parametrize(
    ("names", "telling"),
    [
        (["img"], "Rename 'img' to 'image'"),
        (["arr_0"], "Rename 'arr_0' to 'image'"),
        ([], "no array 'image'. The model wants 'image' (float32 [N, 3, 4, 4])"),
        (["image", "label"], "Rename 'label' to 'labels'"),
        (["image", "weights"], "'weights' is no input of the model"),
        (["image", "weights"], "Leave 'weights' out"),
        (["Image", "weights"], "Rename 'Image' to 'image'. Leave 'weights' out."),
    ],
)
def test_names(image, names, telling):
    assert telling in refused({name: zeros(2, 3, 4, 4) for name in names}, image)


def test_names_of_a_call(text):
    message = refused([{"ids": zeros(1, 5, dtype=np.int64)}], text)
    assert "data, call 0: no array 'mask'" in message
    assert "'ids' (int64 [N, T]), 'mask' (float32 [N, T])" in message


# --- dtypes and shapes


@pytest.mark.parametrize(
    ("has", "wants"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("uint8", "float32"),
        ("int32", "int64"),
        ("float32", "float16"),
        ("object", "float32"),
        (">f4", "float32"),
    ],
)
@pytest.mark.parametrize("calls", [False, True])
def test_dtype(has, wants, calls):
    inputs = (InputSpec("x", np.dtype(wants), ("N", 2)),)
    data = {"x": zeros(1, 2, dtype=has)}
    message = refused([data] if calls else data, inputs)
    assert f"'x' has dtype {np.dtype(has).name}, the model wants {wants}" in message
    assert f".astype(np.{wants})" in message


def test_dtype_that_numpy_lacks():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    inputs = (InputSpec("x", np.dtype(ml_dtypes.bfloat16), ("N",)),)
    assert ".astype(ml_dtypes.bfloat16)" in refused({"x": zeros(3)}, inputs)


@pytest.mark.parametrize(
    ("shape", "telling"),
    [
        ((5, 4, 4), "An axis is missing"),
        ((5, 1, 3, 4, 4), "too many axes"),
        ((5, 4, 4, 3), "Axis 1 must have length 3, not 4"),
        ((5, 4, 4, 3), "has shape [5, 4, 4, 3], the model wants [samples, 3, 4, 4]"),
        ((), "An axis is missing"),
    ],
)
def test_shape(image, shape, telling):
    assert telling in refused({"image": zeros(*shape)}, image)


def test_shape_of_a_call(recurrent):
    call = {"x": zeros(3, 1, 5), "state": zeros(1, 1, 7), "rate": np.array(3)}
    message = refused([call], recurrent)
    assert "'state' has shape [1, 1, 7], the model wants [2, 1, 7]" in message
    assert "Axis 0 must have length 2, not 1" in message


def test_shape_of_a_later_call(image):
    message = refused([{"image": zeros(1, 3, 4, 4)}, {"image": zeros(3, 4, 4)}], image, read=True)
    assert message.startswith("data, call 1: 'image' has shape [3, 4, 4]")


# --- samples


def test_unequal_sample_counts(text):
    message = refused({"ids": zeros(4, 5, dtype=np.int64), "mask": zeros(3, 5)}, text)
    assert "'ids' 4, 'mask' 3" in message
    assert "folder of .npz files" in message


def test_no_samples(image):
    assert "no samples" in refused({"image": zeros(0, 3, 4, 4)}, image)
    assert "no calls" in refused([], image)
    assert "no calls" in refused(iter([]), image)


def test_first_axes_that_disagree():
    inputs = (
        InputSpec("x", np.dtype(np.float32), (1, 5)),
        InputSpec("state", np.dtype(np.float32), (2, 5)),
    )
    message = refused({"x": zeros(4, 5), "state": zeros(4, 5)}, inputs)
    assert "disagree on the first axis: 'x' (float32 [1, 5]), 'state' (float32 [2, 5])" in message
    assert "folder of .npz files" in message


def test_scalars_have_no_sample_axis():
    scalar = (InputSpec("x", np.dtype(np.float32), ()),)
    anything = (InputSpec("x", np.dtype(np.float32), None),)
    for inputs in (scalar, anything):
        message = refused({"x": np.float32(3)}, inputs)
        assert "scalar, without a sample axis" in message
        assert "folder of .npz files" in message


# --- values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(image, images, bad):
    images[7, 2, 1, 0] = bad
    message = refused({"image": images}, image, read=True)
    assert "'image' holds NaN or infinity, first at [7, 2, 1, 0]" in message
    message = refused([{"image": images}], image)
    assert "data, call 0: 'image' holds NaN or infinity, first at [7, 2, 1, 0]" in message


def test_not_finite_beyond_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    inputs = (InputSpec("x", np.dtype(ml_dtypes.bfloat16), ("N",)),)
    data = {"x": np.array([1, np.nan], ml_dtypes.bfloat16)}
    assert "NaN or infinity, first at [1]" in refused(data, inputs, read=True)


# --- labels


@pytest.mark.parametrize(
    ("labels", "telling"),
    [
        (np.arange(9), "'image' 10, 'labels' 9"),
        (np.arange(10.0), "'labels' has dtype float64"),
        (np.arange(10.0), ".astype(np.int64)"),
        (np.arange(10) - 1, "'labels' holds -1; labels count from 0"),
        (np.array(3), "'labels' is a scalar"),
    ],
)
def test_labels(image, images, labels, telling):
    assert telling in refused({"image": images, "labels": labels}, image)


def test_labels_out_of_range(image, images):
    calibration = load({"image": images, "labels": np.arange(10)}, image)
    calibration.check_labels(10)
    load({"image": images}, image).check_labels(1)
    with pytest.raises(CalibrationError, match=r"label 8 \(number 8 of 'labels'\).*8 classes"):
        calibration.check_labels(8)
    with pytest.raises(CalibrationError, match="number 9 of"):
        calibration.subset([0, 9]).check_labels(9)


def test_labels_that_count_from_one(image, images):
    calibration = load({"image": images, "labels": np.arange(1, 11)}, image)
    with pytest.raises(CalibrationError, match="subtract 1"):
        calibration.check_labels(10)


def test_labels_of_calls_out_of_range(image, images):
    calls = [{"image": images[:2], "labels": np.array([2, n])} for n in range(5)]
    with pytest.raises(CalibrationError, match=r"label 4 \(number 9 of"):
        load(calls, image).check_labels(4)


def test_labels_in_some_calls_only(image, images):
    calls = [{"image": images, "labels": np.arange(10)}, {"image": images}]
    assert "call 1: some calls have 'labels' and some have not" in refused(calls, image, read=True)


def test_labels_of_calls_that_do_not_fit_together(image, images):
    calls = [{"image": images, "labels": np.ones((10, n), int)} for n in (1, 2)]
    with pytest.raises(CalibrationError, match="differ in shape"):
        _ = load(calls, image).labels


# --- files and folders


def test_missing_path(tmp_path, image):
    assert "no such file or folder" in refused(tmp_path / "data.npz", image)


def test_not_an_npz(tmp_path, image):
    file = tmp_path / "data.npz"
    np.save(tmp_path / "data", zeros(2))
    for content in (b"", b"hello", (tmp_path / "data.npy").read_bytes()):
        file.write_bytes(content)
        assert "not a readable .npz file" in refused(file, image)
        assert "np.savez(" in refused(file, image)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_npz(tmp_path, image, images, save):
    file = tmp_path / "data.npz"
    save(file, image=images)
    whole = file.read_bytes()
    for length in range(0, len(whole), 37):
        file.write_bytes(whole[:length])
        assert "Is it complete?" in refused(file, image)


def test_corrupt_compressed_npz(tmp_path, image):
    file = tmp_path / "data.npz"
    noise = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)
    np.savez_compressed(file, image=noise)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert "not a readable .npz file" in refused(file, image)


def write_member(file, name, content):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)


def test_array_cut_short_in_a_sound_archive(tmp_path, image, images):
    buffer = io.BytesIO()
    np.save(buffer, images)
    write_member(tmp_path / "data.npz", "image.npy", buffer.getvalue()[:-4])
    assert "image.npy is cut short" in refused(tmp_path / "data.npz", image)


def test_archive_of_something_else(tmp_path, image):
    write_member(tmp_path / "data.npz", "readme.txt", "hello, this is no array")
    assert "not a readable .npz file" in refused(tmp_path / "data.npz", image)


def test_pickled_objects(tmp_path, image):
    np.savez(tmp_path / "data.npz", image=np.array([{}, []], object), allow_pickle=True)
    message = refused(tmp_path / "data.npz", image)
    assert "array 'image' holds Python objects" in message
    assert "Save it with a plain dtype" in message


def test_folder_without_data(tmp_path, image):
    assert "It should hold .npz files, test_data_set_* folders" in refused(tmp_path, image)
    (tmp_path / "test_data_set_0").mkdir()
    assert "no array 'image'" in refused(tmp_path, image)


def test_broken_file_in_a_folder(tmp_path, image):
    np.savez(tmp_path / "a.npz", image=zeros(1, 3, 4, 4))
    (tmp_path / "b.npz").write_bytes(b"broken")
    message = refused(tmp_path, image, read=True)
    assert message.startswith(f"{tmp_path / 'b.npz'}: not a readable .npz file")


def test_broken_test_data(tmp_path, image):
    for content in (b"", b"\xff\xff\xff"):
        (tmp_path / "input_0.pb").write_bytes(content)
        assert "input_0.pb: not a readable ONNX tensor" in refused(tmp_path, image)


def test_test_data_of_another_model(tmp_path, image):
    (tmp_path / "input_1.pb").touch()
    assert "input_1.pb: the model has 1 inputs, counted from 0" in refused(tmp_path, image)


# --- Python


@pytest.mark.parametrize("source", [None, 3, object()])
def test_useless_objects(image, source):
    message = refused(source, image)
    assert f"{type(source).__name__} cannot be used as data" in message
    assert "iterable of dicts" in message


@pytest.mark.parametrize("source", [zeros(5, 3, 4, 4), [(zeros(3), 1)], ["data.npz"]])
def test_iterables_of_something_else(image, source):
    assert "where a dict {input: array} is needed" in refused(source, image)


def test_ragged_lists(image):
    assert "data, call 0: raised ValueError" in refused([{"image": [[1.0], [2.0, 3.0]]}], image)


def test_iterables_that_fail(image):
    def fails():
        yield {"image": zeros(1, 3, 4, 4)}
        raise RuntimeError("the camera is gone")

    assert "data: raised RuntimeError: the camera is gone" in refused(fails(), image)


def test_iterables_that_end_sooner(image):
    class Shrinking:
        left = 4

        def __iter__(self):
            self.left -= 1
            return iter([{"image": zeros(1, 3, 4, 4)}] * self.left)

    assert "fewer calls than when it was opened" in refused(Shrinking(), image, read=True)


def test_reader_in_two_loops_at_a_time(image):
    class Reader:
        def rewind(self):
            self.calls = iter([{"image": zeros(1, 3, 4, 4)}] * 6)

        def get_next(self):
            return next(self.calls, None)

    rest, held_out = load(Reader(), image).split(0.5)
    with pytest.raises(CalibrationError, match="one loop at a time"):
        list(zip(rest.batches(1), held_out.batches(1), strict=True))
    assert len(list(rest.batches(1))) == 3


def test_endless_generator(image, monkeypatch):
    monkeypatch.setattr(sources, "KEPT_AT_MOST", 1 << 20)
    message = refused(({"image": zeros(1, 3, 4, 4)} for _ in itertools.count()), image)
    assert "at most 1 MiB" in message
    assert "save .npz files" in message
    assert "at most 1 MiB" in refused(({} for _ in itertools.count()), image)


# --- scripts


@pytest.mark.parametrize(
    ("script", "function", "telling"),
    [
        ("def batches(): pass", "batch", "no function 'batch' in it. Did you mean 'batches'?"),
        ("batches = 3", "batches", "'batches' in it is no function but int"),
        ("batches = 3", "batch", "no function 'batch' in it."),
        ("def batches(): pass", "batches", "NoneType cannot be used as data"),
        ("def batches(): return 1 / 0", "batches", "py:batches: raised ZeroDivisionError"),
        ("def batches(n): pass", "batches", "raised TypeError"),
        ("def batches(:", "batches", "raised SyntaxError"),
        ("import no_such_module", "batches", "raised ModuleNotFoundError"),
        ("raise SystemExit(3)", "batches", "raised SystemExit: 3"),
        ("def batches(): yield {'x': 1}; 1 / 0", "batches", "py:batches: raised ZeroDivisionError"),
        ("def batches(): yield {'x': 1}", "batches", "py:batches, call 0: no array 'image'"),
    ],
)
def test_script(tmp_path, image, script, function, telling):
    file = tmp_path / "data.py"
    file.write_text(script)
    assert telling in refused(f"{file}:{function}", image)


def test_script_that_is_missing_or_without_function(tmp_path, image):
    file = tmp_path / "data.py"
    assert "no such script" in refused(f"{file}:batches", image)
    file.touch()
    assert "say which function to call, as" in refused(file, image)
