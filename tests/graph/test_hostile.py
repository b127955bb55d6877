"""Files made to do harm, or damaged: a message, never a traceback, a hang or a huge allocation."""

import itertools
import os
import re
import subprocess
import sys
import tracemalloc

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxrd
from onnxrd.errors import ModelError, OnnxrdError
from tests import networks
from tests.mutations import mutated

node = helper.make_node
NETWORKS = (
    networks.mlp,
    networks.cnn,
    networks.recurrent,
    networks.with_function,
    networks.with_branches,
    networks.external,
)


def in_circles(model):
    model.graph.node[0].input[0] = model.graph.node[3].output[0]


def on_itself(model):
    model.graph.node[1].input[0] = model.graph.node[1].output[0]


def through_a_body(model):
    """The body of an If reads what is made from its result."""
    body = helper.make_graph(
        [node("Identity", ["y"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    model.graph.node[0].CopyFrom(
        node("If", ["x"], [model.graph.node[0].output[0]], then_branch=body, else_branch=body)
    )


def twice(model):
    model.graph.node.append(model.graph.node[0])


def from_nowhere(model):
    model.graph.node[2].input[0] = "nowhere"


def output_from_nowhere(model):
    model.graph.output[0].name = "nowhere"


def huge(model):
    model.graph.initializer[0].dims[:] = [2**60]


def overflowing(model):
    model.graph.initializer[0].dims[:] = [2**32, 2**32]


def negative(model):
    model.graph.initializer[0].dims[0] = -1


def short(model):
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


def empty(model):
    model.graph.initializer[0].ClearField("raw_data")


def two_kinds_of_data(model):
    model.graph.initializer[0].float_data.append(1)


def of_no_type(model):
    model.graph.initializer[0].data_type = 0


def of_an_unknown_type(model):
    model.graph.initializer[0].data_type = 99


def wrong_attribute(model):
    gemm = model.graph.node[0]
    gemm.attribute.append(helper.make_attribute("alpha", "one"))


def attribute_twice(model):
    model.graph.node[0].attribute.extend(list(model.graph.node[0].attribute))


def negative_opset(model):
    model.opset_import[0].version = -5


def huge_opset(model):
    model.opset_import[0].version = 2**40


def sparse(model):
    model.graph.sparse_initializer.add().dims.append(4)


def nested_functions(model):
    """Each calls the one before twice: 2^60 nodes in the end."""
    call = [node("Neg", ["a"], ["b"])]
    for level in range(60):
        body = [node("Add", ["a", "a"], ["b"])] if not level else call
        function = helper.make_function(
            "laughs", f"f{level}", ["a"], ["b"], body, [helper.make_opsetid("", 17)]
        )
        model.functions.append(function)
        call = [
            node(f"f{level}", ["a"], ["m"], domain="laughs"),
            node(f"f{level}", ["m"], ["b"], domain="laughs"),
        ]
    model.opset_import.append(helper.make_opsetid("laughs", 1))
    model.graph.node.append(node("f59", ["y"], ["z"], domain="laughs"))


def endless_functions(model):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("laughs", 1)]
    for name, other in (("f", "g"), ("g", "f")):
        body = [node(other, ["a"], ["b"], domain="laughs")]
        model.functions.append(helper.make_function("laughs", name, ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("laughs", 1))
    model.graph.node.append(node("f", ["y"], ["z"], domain="laughs"))


def untyped_input(model):
    model.graph.input[0].type.tensor_type.elem_type = 0


@pytest.mark.parametrize(
    ("harm", "telling"),
    [
        (in_circles, "circles"),
        (on_itself, "circles"),
        (through_a_body, "circles"),
        (twice, "'h0' is computed twice"),
        (from_nowhere, "nothing computes the value 'nowhere'"),
        (output_from_nowhere, "nothing computes the value 'nowhere'"),
        (huge, "'w0' of shape [1152921504606846976] holds more or less"),
        (overflowing, "'w0' of shape"),
        (negative, "negative length"),
        (short, "'w0' of shape [40, 12] holds more or less"),
        (empty, "'w0' of shape [40, 12] holds more or less"),
        (two_kinds_of_data, "'w0' of shape [40, 12] holds more or less"),
        (of_no_type, "'w0' has no element type"),
        (of_an_unknown_type, "'w0' has no element type"),
        (wrong_attribute, "'alpha' of Gemm"),
        (attribute_twice, "the same one"),
        (negative_opset, "version -5"),
        (huge_opset, "version 1099511627776"),
        (sparse, "sparse"),
        (nested_functions, "functions come to more than"),
        (endless_functions, "functions call each other in circles"),
        (untyped_input, "'x' has no element type"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_makes_no_sense_is_refused_at_the_door(harm, telling, model, refused, calib, tmp_path):
    proto = onnx.load(model)
    harm(proto)
    model.write_bytes(proto.SerializeToString())
    out, data = ("-o", tmp_path / "out"), ("--data", calib)
    tracemalloc.start()
    for command in (
        ("inspect", model),
        ("importance", model, *out, *data),
        ("quantize", model, *out),
        ("prune", model, *out, "--ratio", "0.5"),
        ("evaluate", model, model, *data),
    ):
        refused(1, "model.onnx", telling, arguments=command)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def field(number, content):
    """A length-delimited field of a protobuf message."""
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


@pytest.mark.parametrize("levels", [20, 30, 200, 10000])
def test_deep_nesting(levels, model, refused, run):
    """Of bodies within bodies: protobuf itself ends that."""
    body = b""
    for _ in range(levels):
        attribute = field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, body)
        body = field(1, field(4, b"If") + field(5, attribute))
    model.write_bytes(model.read_bytes() + field(7, body))  # messages given twice are merged
    ran = run("inspect", model)
    assert "unexpected" not in ran.err
    if levels > 30:
        refused(1, "not a readable ONNX model", arguments=("inspect", model))


def test_a_long_way_from_a_weight_to_its_use(tmp_path):
    nodes = [node("Identity", ["w" if not n else f"i{n - 1}"], [f"i{n}"]) for n in range(3000)]
    nodes.append(node("MatMul", ["x", "i2999"], ["y"]))
    path = networks.save(
        tmp_path / "m.onnx",
        nodes,
        {"w": networks.normal(12, 20)},
        {"x": ["N", 12]},
        {"y": ["N", 20]},
    )
    (weight,) = onnxrd.find_weights(onnxrd.load_model(path))
    assert len(weight.uses[0].moved) == 3000
    assert weight.channel_axis == 1


def test_a_constant_that_doubles_sixty_times(tmp_path):
    """There are 2^60 ways from it to its use."""
    names = ["w", *(f"a{n}" for n in range(60))]
    nodes = [node("Add", [a, a], [b]) for a, b in itertools.pairwise(names)]
    nodes.append(node("MatMul", ["x", "a59"], ["y"]))
    weights = {"w": networks.normal(12, 20)}
    path = networks.save(tmp_path / "m.onnx", nodes, weights, {"x": ["N", 12]}, {"y": ["N", 20]})
    assert len(onnxrd.find_weights(onnxrd.load_model(path))) == 1


@pytest.mark.parametrize(
    ("key", "value", "telling"),
    [
        ("offset", "-1", "offset '-1'"),
        ("offset", str(2**62), "cut short"),
        ("offset", "many", "offset 'many'"),
        ("length", str(2**62), "is said to take"),
        ("length", "1", "is said to take"),
        ("length", "-8", "length '-8'"),
        ("location", "", "missing"),
        ("location", ".", "missing"),
        ("location", "we\0ird", "not a readable ONNX model"),
        ("location", "x" * 5000, "not a readable ONNX model"),
        ("elsewhere", "weights.bin", "which file"),
    ],
)
def test_external_data_that_make_no_sense(key, value, telling, refused, tmp_path):
    path = networks.external(tmp_path / "m.onnx")
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    if key == "elsewhere":
        (entry,) = [e for e in entries if e.key == "location"]
        entry.key = key
    else:
        kept = [e for e in entries if e.key != key]
        del entries[:]
        entries.extend(kept)
        entries.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    refused(1, telling, arguments=("quantize", path, "-o", tmp_path / "out"))


def test_a_hard_link_to_some_other_file(refused, tmp_path):
    path = networks.external(tmp_path / "m.onnx")
    os.link(tmp_path / "weights.bin", tmp_path / "other")
    refused(1, "hard link", arguments=("inspect", path))


def test_external_data_within_a_function(refused, tmp_path):
    """They are read where a weight of a function is, so they are checked there, too."""
    path = networks.with_function(tmp_path / "m.onnx")
    proto = onnx.load(path)
    tensor = proto.functions[0].node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret").write_bytes(bytes(12 * 12 * 4))
    (tmp_path / "inner" / "m.onnx").write_bytes(proto.SerializeToString())
    refused(1, "outside", arguments=("inspect", tmp_path / "inner" / "m.onnx"))


def test_names_are_only_names(model, run, calib, tmp_path):
    """With separators, with dots, empty: nothing of that goes into a path."""
    names = {"w0": "../../w", "w1": "/etc/passwd", "w2": "a\\b:c"}
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for operator in proto.graph.node:
        operator.input[:] = [names.get(name, name) for name in operator.input]
    onnx.save(proto, model)
    before = set(tmp_path.parent.iterdir())
    importance, small = tmp_path / "i.npz", tmp_path / "small.onnx"
    assert run("importance", model, "-o", importance, "--data", calib).code == 0
    ran = run("quantize", model, "-o", small, "--importance", importance, "--json")
    assert ran.code == 0
    assert {w.name for w in onnxrd.find_weights(onnxrd.load_model(model)) if not w.skip} == {
        *names.values()
    }
    assert set(tmp_path.parent.iterdir()) == before


def test_an_absurd_input_is_not_made_up(model, refused, tmp_path):
    proto = onnx.load(model)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**50
    onnx.save(proto, model)
    refused(1, "too large to make up", arguments=("quantize", model, "-o", tmp_path / "out"))


def test_outputs_listed_twice(model, run, calib, tmp_path):
    proto = onnx.load(model)
    proto.graph.output.append(proto.graph.output[0])
    onnx.save(proto, model)
    ran = run("quantize", model, "-o", tmp_path / "out.onnx", "--data", calib)
    assert ran.code in (0, 1)
    assert "unexpected" not in ran.err


def test_tensors_whose_data_are_typed_are_no_harm(tmp_path):
    path = networks.mlp(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        typed = helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.ravel())
        tensor.CopyFrom(typed)
    packed = helper.make_tensor("int4", TensorProto.INT4, [3], [1, 2, 3])
    half = helper.make_tensor("half", TensorProto.FLOAT16, [3], [1, 2, 3])
    several = helper.make_tensor("complex", TensorProto.COMPLEX64, [2], [1j, 2])
    text = helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"b"])
    proto.graph.initializer.extend([packed, half, several, text])
    path.write_bytes(proto.SerializeToString())
    assert onnxrd.load_model(path)


def fuzzed(folder, seeds):
    """Load, list and compress broken versions of all networks: only errors on purpose come out."""
    outcomes = {"refused": 0, "compressed": 0}
    sources = []
    for build in NETWORKS:
        (folder / build.__name__).mkdir()
        path = build(folder / build.__name__ / "m.onnx")
        sources.append((path, path.read_bytes()))
    for seed in seeds:
        path, content = sources[seed % len(sources)]
        path.write_bytes(mutated(content, seed))
        print(f"seed {seed}: {path.parent.name}", flush=True)
        try:
            onnxrd.find_weights(onnxrd.load_model(path))
            onnxrd.quantize(path, path.with_name("out.onnx"), clusters=4)
            outcomes["compressed"] += 1
        except OnnxrdError as error:
            outcomes["refused"] += bool(str(error))
        for left in path.parent.iterdir():
            assert left.name in ("m.onnx", "weights.bin", "out.onnx")
    return outcomes


def in_another_process(folder, first, count):
    """onnxruntime must not take this process down, nor all of the memory."""
    code = (
        "import resource, sys; from pathlib import Path;"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30));"
        "from tests.graph.test_hostile import fuzzed;"
        f"print(fuzzed(Path(sys.argv[1]), range({first}, {first + count})))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300 + 2 * count)
    assert ran.returncode == 0, ran.stdout[-300:] + ran.stderr[-3000:]
    return ran.stdout.splitlines()[-1]


def test_what_cannot_be_written_again_is_refused(tmp_path):
    proto = onnx.load(networks.mlp(tmp_path / "m.onnx"))
    proto.graph.name = "name of bytes"
    for content in (
        proto.SerializeToString().replace(b"name of bytes", b"name \xb7f bytes"),
        with_a_device_without_a_name(proto),
    ):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="not a readable ONNX model"):
            onnxrd.load_model(path)


def with_a_device_without_a_name(proto):
    proto.ir_version = 11
    proto.graph.node[0].device_configurations.add()
    return proto.SerializeToString()


def test_broken_files(tmp_path):
    last = in_another_process(tmp_path, 0, 120)
    refused, compressed = (int(n) for n in re.findall(r"\d+", last))
    assert refused + compressed == 120
    assert min(refused, compressed) > 20


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 21000, 1000))
def test_many_broken_files(first, tmp_path):
    in_another_process(tmp_path, first, 1000)


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(ModelError, match="folder"):
        onnxrd.load_model(tmp_path)
