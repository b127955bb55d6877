"""What takes the place of one weight in a graph, and its exact price."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

from onnxrd.encodings import wire
from onnxrd.encodings.slot import Slot
from onnxrd.quantizers import Codebook, Quantized, VectorCodebook, weight_dtype

Array = NDArray[Any]

DOMAIN = "onnxrd"
"""Domain of the functions that decode."""


@dataclass(frozen=True, eq=False)
class Steps:
    """Nodes that several weights share.

    Attributes:
        nodes: in topological order; they read shared tensors and one another.
        values: those of their outputs whose type and shape must be in the file: onnxruntime folds
            nothing of which it cannot foretell the size.
        load_nbytes: bytes of all that they compute.
        turn: when they are folded, see `onnxrd.encodings.turns`.
    """

    nodes: tuple[onnx.NodeProto, ...]
    values: tuple[ir.Value, ...]
    load_nbytes: int
    turn: int = 0


Shared = ir.TensorProtocol | onnx.FunctionProto | onnx.OperatorSetIdProto | Steps
"""Something that a model needs once, whatever the number of weights that use it."""


@dataclass(frozen=True, eq=False)
class Fragment:
    """What an encoding puts in a graph in place of one weight.

    Attributes:
        encoding: name of the encoding.
        output: name of the value that holds the decoded weight.
        nodes:  in topological order; they read tensors, shared tensors and one another.
        tensors: name → tensor, of this weight alone. Packed when read, so that a fragment that
            is only priced costs no memory.
        shared: name → what all weights of the model share. Equal names, equal content.
        listed: all initializers must be listed as graph inputs, too.
        load_nbytes: bytes of memory that onnxruntime holds for this weight alone when it has
            folded all: the decoded weight and everything on the way there.
        dense_nbytes: of this, the decoded weight.
        portion: bytes of what it shares that are there for this weight's sake, such as its codes
            in a stream. Only to be told; `FileSize` knows what shared parts take.
    """

    encoding: str
    output: str
    nodes: tuple[onnx.NodeProto, ...]
    tensors: Mapping[str, ir.TensorProtocol]
    shared: Mapping[str, Shared]
    listed: bool
    load_nbytes: int
    dense_nbytes: int
    portion: int = 0

    @property
    def turn(self) -> int:
        """When the weight is there, see `onnxrd.encodings.turns`."""
        return max(self.turns)

    @property
    def turns(self) -> frozenset[int]:
        """When something of it is decoded."""
        return frozenset({p.turn for p in self.shared.values() if isinstance(p, Steps)} or {0})

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the file that this weight alone takes: nodes and tensors with their names."""
        nodes = sum(wire.node_nbytes(node) for node in self.nodes)
        return nodes + sum(self._tensor_nbytes(name, t) for name, t in self.tensors.items())

    @cached_property
    def shared_nbytes(self) -> Mapping[str, int]:
        """Bytes of the file that each shared part takes, once in a model."""
        return {name: self._shared_nbytes(name, part) for name, part in self.shared.items()}

    def _tensor_nbytes(self, name: str, tensor: ir.TensorProtocol) -> int:
        listing = wire.input_nbytes(name, tensor) if self.listed else 0
        return wire.initializer_nbytes(name, tensor) + listing

    def _shared_nbytes(self, name: str, part: Shared) -> int:
        if isinstance(part, onnx.FunctionProto):
            return wire.function_nbytes(part)
        if isinstance(part, onnx.OperatorSetIdProto):
            return wire.opset_import_nbytes(part)
        if isinstance(part, Steps):
            nodes = sum(wire.node_nbytes(node) for node in part.nodes)
            return nodes + sum(wire.value_nbytes(value) for value in part.values)
        return self._tensor_nbytes(name, part)


def together_nbytes(fragments: Iterable[Fragment]) -> int:
    """Bytes that fragments of one model take, what they share counted once."""
    shared: dict[str, int] = {}
    own = 0
    for fragment in fragments:
        own += fragment.nbytes
        shared |= fragment.shared_nbytes
    return own + sum(shared.values())


def load_nbytes(fragments: Iterable[Fragment]) -> int:
    """Bytes of memory that the weights of one model take at load, what they share counted once.

    onnxruntime keeps every intermediate result until all that has the same turn is folded. This is
    the most at a time; the file itself and onnxruntime's own needs come on top.
    """
    fragments = list(fragments)
    return sum(f.dense_nbytes for f in fragments) + max(
        passing_nbytes(fragments).values(), default=0
    )


def passing_nbytes(fragments: Sequence[Fragment]) -> Counter[int]:
    """Bytes of memory that the weights of one model take on the way to their values, by turn."""
    passing: Counter[int] = Counter()
    for fragment in fragments:
        passing[fragment.turn] += fragment.load_nbytes - fragment.dense_nbytes
    shared = {name: part for f in fragments for name, part in f.shared.items()}
    for part in shared.values():
        if isinstance(part, Steps):
            passing[part.turn] += part.load_nbytes
    return passing


@dataclass
class Builder:
    """Collects the parts of a fragment; every method that adds a tensor returns its name.

    Attributes:
        slot: the place of the weight.
    """

    slot: Slot
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _tensors: dict[str, ir.TensorProtocol] = field(default_factory=dict)
    _shared: dict[str, Shared] = field(default_factory=dict)
    _inlined: int = 0
    _load_nbytes: int = 0

    def tensor(self, name: str, array: Array) -> str:
        """A tensor of this weight."""
        self._tensors[name] = ir.tensor(array)
        return name

    def packed(
        self, name: str, dtype: np.dtype[Any], shape: Sequence[int], pack: Callable[[], Array]
    ) -> str:
        """A big tensor of this weight that `pack` makes when it is written."""
        self._tensors[name] = ir.LazyTensor(
            lambda: ir.tensor(pack()), ir.DataType.from_numpy(dtype), ir.Shape(shape)
        )
        return name

    def shape(self, shape: tuple[int, ...]) -> str:
        """The shape of the weight as a tensor, in varints: 16 bytes for [64, 64, 3, 3]."""
        name = f"{self.slot.stem}s" if self.slot.inner else self.slot.shape
        (self._tensors if self.slot.inner else self._shared)[name] = _varints(shape)
        return name

    def varints(self, name: str, numbers: Sequence[int]) -> str:
        """A tensor of this weight that is small where its integers are."""
        self._tensors[name] = _varints(numbers)
        return name

    def shared_tensor(self, name: str, array: Array) -> str:
        """A tensor that all weights of the model share, its content given by its name."""
        self._shared[name] = ir.tensor(array)
        return name

    def node(self, node: onnx.NodeProto) -> None:
        """A standard operator."""
        self._nodes.append(node)

    def call(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[str],
        output: str | Sequence[str],
        *,
        inner: Sequence[onnx.FunctionProto] = (),
        inline: bool = False,
    ) -> None:
        """A call of a function; its nodes instead on demand, or if the model can have no functions.

        Equal names, equal functions: a body that depends on more than the opset must be inline.

        Args:
            function: what to call.
            inputs: names of values.
            output: name of its result, or those of all.
            inner: the functions that it calls.
            inline: write its nodes.
        """
        outputs = [output] if isinstance(output, str) else output
        if self.slot.has_functions and not inline:
            for needed in (*inner, function):
                self._shared[f"{DOMAIN}::{needed.name}"] = needed
            self._shared[DOMAIN] = onnx.OperatorSetIdProto(domain=DOMAIN, version=1)
            self.node(
                onnx.NodeProto(op_type=function.name, domain=DOMAIN, input=inputs, output=outputs)
            )
            return
        self._inline(function, inputs, outputs, {f.name: f for f in inner})

    def _inline(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[str],
        outputs: Sequence[str],
        inner: Mapping[str, onnx.FunctionProto],
    ) -> None:
        names = dict(zip((*function.input, *function.output), (*inputs, *outputs)))
        stem = self.slot.stem + (f"{self._inlined}." if inner or self.slot.inner else "")
        self._inlined += 1
        for node in function.node:
            read = [names[name] for name in node.input]
            made = [names.setdefault(name, stem + name) for name in node.output]
            if node.domain == DOMAIN:
                self._inline(inner[node.op_type], read, made, inner)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:], copy.output[:] = read, made
            self.node(copy)

    def include(self, fragment: Fragment) -> str:
        """The parts of another fragment, which decodes to an input of what follows."""
        self._nodes.extend(fragment.nodes)
        self._tensors |= fragment.tensors
        self._shared |= fragment.shared
        self._load_nbytes += fragment.load_nbytes
        return fragment.output

    def share(
        self, name: str, values: Sequence[ir.Value], load_nbytes: int, *, turn: int = 0
    ) -> None:
        """Make all nodes and tensors so far a part that weights share, under this name."""
        self._shared |= self._tensors
        self._shared[name] = Steps(tuple(self._nodes), tuple(values), load_nbytes, turn)
        self._tensors, self._nodes = {}, []

    def include_shared(self, other: "Builder") -> None:
        """The shared parts that another builder made."""
        self._shared |= other._shared

    def share_fragment(self, fragment: Fragment) -> str:
        """All of another fragment as parts that weights share: it has a turn of its own."""
        passing = fragment.load_nbytes - fragment.dense_nbytes
        steps = Steps(fragment.nodes, (), passing, fragment.turn)
        self._shared |= {**fragment.shared, **fragment.tensors, f"{fragment.output}s": steps}
        return fragment.output

    def split(self, name: str, pieces: Sequence[str], sizes: Sequence[int], lengths: str) -> None:
        """Cut a value along its first axis; `lengths` is to be the name of the sizes."""
        if self.slot.opset < 13:
            self.node(onnx.helper.make_node("Split", [name], pieces, split=sizes))
            return
        self.varints(lengths, sizes)
        self.node(onnx.helper.make_node("Split", [name, lengths], pieces))

    def build(
        self, encoding: str, quantized: Quantized, *, load_nbytes: int, portion: int = 0
    ) -> Fragment:
        """The fragment, its last node annotated for viewers such as Netron.

        Args:
            encoding: its name.
            quantized: the weight.
            load_nbytes: of all nodes but those of included fragments.
            portion: see `Fragment`.
        """
        if self._nodes and not self.slot.inner and not portion:
            notes = self._nodes[-1].metadata_props
            notes.add(key="encoding", value=encoding)
            if isinstance(quantized, Codebook | VectorCodebook):
                notes.add(key="levels", value=str(len(quantized.levels)))
            bits = 8 * sum(tensor.nbytes for tensor in self._tensors.values())
            notes.add(key="bits", value=f"{bits / max(1, math.prod(quantized.shape)):.2f}")
        dense_nbytes = weight_dtype(quantized).itemsize * math.prod(quantized.shape)
        return self.fragment(
            encoding, load_nbytes=load_nbytes, dense_nbytes=dense_nbytes, portion=portion
        )

    def fragment(
        self, encoding: str, *, load_nbytes: int, dense_nbytes: int, portion: int = 0
    ) -> Fragment:
        """The fragment as it is; see `build` and `Fragment`."""
        return Fragment(
            encoding,
            self.slot.output,
            tuple(self._nodes),
            self._tensors,
            self._shared,
            listed=self.slot.lists_initializers,
            load_nbytes=self._load_nbytes + load_nbytes,
            dense_nbytes=dense_nbytes,
            portion=portion,
        )


def _varints(numbers: Sequence[int]) -> ir.TensorProtocol:
    """int64 [n], in as many bytes as the numbers take at seven bits each."""
    proto = onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=[len(numbers)])
    proto.int64_data.extend(numbers)
    return ir.serde.TensorProtoTensor(proto)


@cache
def decoder(opset: int, signature: str, body: str) -> onnx.FunctionProto:
    """A function of the domain `onnxrd`, from ONNX's own text format.

    Args:
        opset: version of the standard operators, that of the model.
        signature: such as `lookup (q, l) => (w)`.
        body: the nodes. Inner values must not be named like those of a function that the same
            weight calls too.
    """
    own = f', "{DOMAIN}" : 1' if f"{DOMAIN}." in body else ""
    text = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}{own}]>\n{signature} {{\n{body}\n}}'
    parsed = onnx.parser.parse_function(text)
    for node in parsed.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.ClearField("name")
    # serialized as it will be in the file: without the empty fields that the parser sets
    return ir.serde.serialize_function(ir.serde.deserialize_function(parsed))
