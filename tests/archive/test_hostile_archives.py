"""Archives that are damaged, or were made to do harm, are refused and leave nothing behind."""

import hashlib

import onnx
import pytest

import onnxrd
from onnxrd.archive import coders
from onnxrd.archive.container import MAGIC, Entry, Stream, header, varint
from onnxrd.errors import ModelError, SettingError
from tests import networks


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "model.onnxrd"
    onnxrd.pack(networks.mlp(tmp_path / "model.onnx", sizes=(12, 8, 3)), path)
    return path


def refuses(tmp_path, data, *telling):
    bad = tmp_path / "bad.onnxrd"
    bad.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError) as raised:
        onnxrd.unpack(bad, tmp_path / "out.onnx")
    for text in telling:
        assert text in str(raised.value)
    with pytest.raises(ModelError):
        onnxrd.load_session(bad)
    assert sorted(tmp_path.iterdir()) == before


def test_every_changed_byte_is_noticed(archive, tmp_path):
    data = archive.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        refuses(tmp_path, bytes(changed))


def test_every_cut_and_every_addition_is_noticed(archive, tmp_path):
    data = archive.read_bytes()
    for end in range(0, len(data), 29):
        refuses(tmp_path, data[:end])
    refuses(tmp_path, data + b"\0", "damaged")
    refuses(tmp_path, data[:-33] + data[-32:], "damaged")


def forged(entries, streams, coded, content=b""):
    """An archive with any header, its digest right if `content` is what comes out."""
    body = header(entries, streams) + coded
    return body + hashlib.sha256(body + hashlib.sha256(content).digest()).digest()


def coded(coder, data):
    encoder = coders.CODERS[coder].encoder()
    return encoder.compress(data) + encoder.flush()


@pytest.mark.parametrize("coder", range(len(coders.CODERS)))
def test_no_more_comes_out_than_was_declared(coder, tmp_path):
    """A megabyte of zeros in a stream that declares a hundred bytes."""
    for size, telling in ((1_000_000, ["damaged"]), (100, [])):
        bomb, table = coded(coder, bytes(size)), varint(1) + varint(100)
        streams = [Stream(0, len(table), len(table)), Stream(coder, 100, len(bomb))]
        data = forged([Entry("", 100)], streams, table + bomb, bytes(100))
        if telling:
            refuses(tmp_path, data, *telling)
        else:  # what is forged here is else in order
            (tmp_path / "good.onnxrd").write_bytes(data)
            onnxrd.unpack(tmp_path / "good.onnxrd", tmp_path / "good.onnx")
            assert (tmp_path / "good.onnx").read_bytes() == bytes(100)


def test_a_size_above_the_limit_is_refused_before_anything_is_decoded(tmp_path):
    huge = 2**40
    streams = [Stream(0, 0, 0), Stream(coders.BYTES, huge, 0)]
    data = forged([Entry("", huge)], streams, b"")
    refuses(tmp_path, data, "1,099,511,627,776 bytes", "--max-size")


def test_the_limit_can_be_set(archive, tmp_path, refused):
    size = (tmp_path / "model.onnx").stat().st_size
    out = tmp_path / "out.onnx"
    small = ("--max-size", size - 1)
    refused(1, "declares", "--max-size", arguments=("unpack", archive, "-o", out, *small))
    onnxrd.unpack(archive, out, max_size=size)
    with pytest.raises(SettingError):
        onnxrd.unpack(archive, out, max_size=-1)


NAMES = [
    "../w",
    "/w",
    "a/../../w",
    "..",
    ".",
    "C:\\w",
    "c:w",
    "a\\b",
    "a//b",
    "",
    "w.",
    "\0",
    "w\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    streams = [Stream(0, 0, 0)]
    refuses(tmp_path, forged([Entry("", 0), Entry(name, 0)], streams, b""), "not safe")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"\xff" * 30,
        MAGIC + b"\x01\x00\x00\x00",
        MAGIC + b"\x01\x02\xff\xfe\x00",
        MAGIC[:-1] + b"\x07" + bytes(50),
    ],
)
def test_headers_that_make_no_sense(data, tmp_path):
    refuses(tmp_path, data)


def test_another_version_is_told_wherever_it_is_read(archive, tmp_path):
    data = archive.read_bytes()
    archive.write_bytes(MAGIC[:-1] + b"\x02" + data[len(MAGIC) :])
    with pytest.raises(ModelError, match="Update onnxrd"):
        onnxrd.unpack(archive, tmp_path / "out.onnx")
    with pytest.raises(ModelError, match="Update onnxrd"):
        onnxrd.load_session(archive)


@pytest.mark.parametrize(
    "table", [b"\x05\x0a", b"\x00\x0a", b"\x01\x00", b"\x01\x0b", b"\x01\x0a\x01\x01", b"\x01", b""]
)
def test_maps_that_make_no_sense(table, tmp_path):
    """A stream that is not there, an empty run, a run too long, a map left over, cut, empty."""
    streams = [Stream(0, len(table), len(table)), Stream(0, 10, 10)]
    data = forged([Entry("", 10)], streams, table + bytes(10), bytes(10))
    refuses(tmp_path, data, "damaged")


def test_what_is_no_archive(tmp_path, refused, model, calib):
    out = ("-o", tmp_path / "out.onnx")
    refused(1, "no archive", arguments=("unpack", model, *out))
    refused(1, "no such file", arguments=("unpack", tmp_path / "none.onnxrd", *out))
    refused(1, "folder", arguments=("unpack", tmp_path, *out))
    refused(1, "not a readable ONNX", arguments=("pack", calib, *out))


def test_an_archive_is_no_model_and_that_is_said(archive, tmp_path, refused, model, calib):
    data = ("--data", calib)
    for command in (
        ("inspect", archive),
        ("pack", archive, "-o", tmp_path / "again.onnxrd"),
        ("evaluate", model, archive, *data),
        ("bound", model, *data, "--against", archive),
        ("compress", archive, *data, "--max-kl", "0.1", "-o", tmp_path / "out.onnx"),
    ):
        refused(1, "archive of `onnxrd pack`", "by `onnxrd unpack` first", arguments=command)


def spoilt(model, external):
    """Models whose external data, as they are said to be, are not among the files of an archive."""

    def entry(key, value):
        changed = onnx.ModelProto.FromString(model)
        for tensor in changed.graph.initializer:
            for given in tensor.external_data:
                given.value = value if given.key == key else given.value
        return changed.SerializeToString()

    yield model, {}
    yield model, {"other.bin": external}
    yield model, {"weights.bin": external[:100]}
    yield b"nonsense", {"weights.bin": external}
    for key, value in (("location", "/etc/passwd"), ("offset", "-8"), ("offset", "x")):
        yield entry(key, value), {"weights.bin": external}


def test_a_session_reads_nothing_but_the_archive(tmp_path, monkeypatch):
    path = networks.external(tmp_path / "model.onnx", "weights.bin")
    monkeypatch.chdir(tmp_path)  # from where onnxruntime would take what is missing
    for model, external in spoilt(path.read_bytes(), (tmp_path / "weights.bin").read_bytes()):
        files = {"": model, **external}
        content = b"".join(files.values())
        table = varint(1) + varint(len(content))
        streams = [Stream(0, len(each), len(each)) for each in (table, content)]
        entries = [Entry(name, len(data)) for name, data in files.items()]
        bad = tmp_path / "bad.onnxrd"
        bad.write_bytes(forged(entries, streams, table + content, content))
        with pytest.raises(ModelError, match="cannot load"):
            onnxrd.load_session(bad)
