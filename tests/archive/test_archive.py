"""Archives restore every byte, are small, and always the same."""

import lzma

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from onnxrd.archive import coders
from onnxrd.archive.pieces import pieces_of_model
from tests import networks


def packed(tmp_path, model):
    archive = tmp_path / "model.onnxrd"
    onnxrd.pack(model, archive)
    return archive


def restored(tmp_path, archive):
    folder = tmp_path / "restored"
    folder.mkdir(exist_ok=True)
    onnxrd.unpack(archive, folder / "back.onnx")
    return folder / "back.onnx"


@pytest.fixture
def quantized(model, calib, tmp_path):
    output = tmp_path / "small.onnx"
    onnxrd.quantize(model, output, clusters=6, data=calib, options=onnxrd.Options(force=True))
    return output


def test_every_byte_comes_back(model, quantized, tmp_path):
    for path in (model, quantized):
        assert restored(tmp_path, packed(tmp_path, path)).read_bytes() == path.read_bytes()


def test_nothing_but_the_content_decides_on_the_bytes(quantized, tmp_path):
    first = packed(tmp_path, quantized).read_bytes()
    other = tmp_path / "elsewhere.onnx"
    other.write_bytes(quantized.read_bytes())
    assert packed(tmp_path, other).read_bytes() == first


def test_smaller_than_lzma_of_the_whole_file(tmp_path, calib):
    path = networks.mlp(tmp_path / "model.onnx", sizes=(12, 300, 300, 5))
    output = tmp_path / "small.onnx"
    onnxrd.quantize(path, output, clusters=6, data=calib)
    archive = packed(tmp_path, output)
    assert archive.stat().st_size < 0.99 * len(lzma.compress(output.read_bytes(), preset=9))


@pytest.mark.parametrize("location", ["weights.bin", "data/of/weights.bin"])
def test_external_data_come_back_under_their_names(location, tmp_path):
    source = tmp_path / "source"
    data = source / location
    data.parent.mkdir(parents=True)
    path = networks.external(source / "model.onnx", location)
    content = (source / "weights.bin").read_bytes() + b"a gap that no tensor claims"
    (source / "weights.bin").unlink()
    data.write_bytes(content)
    back = restored(tmp_path, packed(tmp_path, path))
    assert back.read_bytes() == path.read_bytes()
    assert {p for p in back.parent.rglob("*") if p.is_file()} == {back, back.parent / location}
    assert (back.parent / location).read_bytes() == content


def test_external_data_replace_nothing(tmp_path, refused):
    path = networks.external(tmp_path / "model.onnx", "weights.bin")
    archive = packed(tmp_path, path)
    output = tmp_path / "x.onnx"
    refused(1, "weights.bin", "in its way", arguments=("unpack", archive, "-o", output))


def feeds():
    return {"x": networks.normal(3, 12)}


def test_a_session_from_an_archive_says_the_same(quantized, tmp_path):
    expected = ort.InferenceSession(quantized).run(None, feeds())
    for path in (packed(tmp_path, quantized), quantized):
        found = onnxrd.load_session(path).run(None, feeds())
        np.testing.assert_array_equal(found[0], expected[0])


def test_a_session_from_an_archive_with_external_data(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    path = networks.external(source / "model.onnx", "weights.bin")
    expected = ort.InferenceSession(path).run(None, feeds())
    options = ort.SessionOptions()
    session = onnxrd.load_session(packed(tmp_path, path), session_options=options)
    np.testing.assert_array_equal(session.run(None, feeds())[0], expected[0])


def test_a_session_from_an_archive_with_external_data_anywhere(tmp_path):
    """In a Constant, in the branches of an If, and of four bits."""
    made, info = helper.make_node, helper.make_tensor_value_info

    def constant(name, output, seed):
        array = numpy_helper.from_array(networks.normal(12, 12, seed=seed), name)
        return made("Constant", [], [output], value=array)

    def branch(name, seed):
        return helper.make_graph([constant(name, f"{name}y", seed)], name, [], [output(f"{name}y")])

    def output(name):
        return info(name, TensorProto.FLOAT, None)

    four = helper.make_tensor("q", TensorProto.INT4, [12, 12], bytes(range(72)), raw=True)
    half = numpy_helper.from_array(np.float32(0.5), "half")
    nodes = [
        constant("c", "w0", 0),
        made("If", ["yes"], ["w1"], then_branch=branch("t", 1), else_branch=branch("e", 2)),
        made("DequantizeLinear", ["q", "half"], ["w2"]),
        made("Sum", ["w0", "w1", "w2"], ["w"]),
        made("MatMul", ["x", "w"], ["y"]),
    ]
    yes = numpy_helper.from_array(np.bool_(True), "yes")
    inputs = [info("x", TensorProto.FLOAT, ["N", 12])]
    graph = helper.make_graph(nodes, "g", inputs, [output("y")], [four, half, yes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, feeds())
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    settings = {"location": "weights.bin", "size_threshold": 10, "convert_attribute": True}
    onnx.save(model, path, save_as_external_data=True, **settings)
    assert (path.parent / "weights.bin").stat().st_size >= 3 * 4 * 144 + 72
    found = onnxrd.load_session(packed(tmp_path, path)).run(None, feeds())
    np.testing.assert_array_equal(found[0], expected[0])


def test_commands_tell_the_sizes(quantized, tmp_path, run):
    archive, back = tmp_path / "m.onnxrd", tmp_path / "back.onnx"
    ran = run("pack", quantized, "-o", archive)
    assert ran.code == 0
    assert "× smaller" in ran.out
    ran = run("unpack", archive, "-o", back, "--json")
    assert ran.code == 0
    assert f'"archive_nbytes": {archive.stat().st_size}' in ran.out
    assert back.read_bytes() == quantized.read_bytes()


def test_inputs_are_never_overwritten(model, tmp_path, refused):
    refused(1, "never overwritten", arguments=("pack", model, "-o", model))
    archive = packed(tmp_path, model)
    refused(1, "never overwritten", arguments=("unpack", archive, "-o", archive))


tensors = st.tuples(
    st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64, np.int32]),
    st.integers(0, 9000),
    st.integers(1, 100),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(tensors, max_size=6), st.integers(0, 2**32 - 1))
def test_any_model_comes_back(tmp_path, shapes, seed):
    rng = np.random.default_rng(seed)
    weights = [
        onnx.numpy_helper.from_array(rng.integers(0, most, size).astype(dtype), f"w{n}")
        for n, (dtype, size, most) in enumerate(shapes)
    ]
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    graph = onnx.helper.make_graph(
        nodes, "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])], weights
    )
    path = tmp_path / "any.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert restored(tmp_path, packed(tmp_path, path)).read_bytes() == path.read_bytes()


@given(st.binary(max_size=400))
def test_pieces_of_anything_add_up(data):
    position = 0
    for piece in pieces_of_model(memoryview(data)):
        assert piece.start == position
        assert piece.nbytes > 0
        position += piece.nbytes
    assert position == len(data)


def test_tensors_are_found_wherever_they_are():
    """Initializers, Constant nodes, subgraphs and functions."""
    tensor = onnx.numpy_helper.from_array(networks.normal(5, 5), "t")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "b", [], [], [tensor])
    nodes = [constant, onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], [tensor]))
    model.functions.append(
        onnx.helper.make_function("d", "f", ["a"], ["c"], [constant], model.opset_import)
    )
    data = model.SerializeToString()
    found = [p for p in pieces_of_model(memoryview(data)) if p.width == 4]
    assert len(found) == 5
    assert all(data[p.start : p.start + p.nbytes] == tensor.raw_data for p in found)


@given(st.sampled_from(range(len(coders.CODERS))), st.binary(max_size=3000), st.integers(1, 999))
def test_every_coder_gives_back_what_it_took_in_any_portions(coder, data, portion):
    encoder, decoder = coders.CODERS[coder].encoder(), coders.CODERS[coder].decoder()
    coded = encoder.compress(data) + encoder.flush()
    out, at = b"", 0
    while len(out) < len(data):
        fed = b""
        if decoder.hungry:
            fed = coded[at : at + portion]
            at += len(fed)
        some = decoder.decode(fed, portion)
        assert len(some) <= portion
        out += some
    assert out == data
