"""Small random networks from the operators that have rules, as hypothesis draws and shrinks them.

A network takes `x` and has its samples on axis 0 of every activation. A step takes a value that is
there, and appends an operator; a step that does not suit the shape of its value appends nothing.
"""

from math import prod

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

SAMPLES, OPSET = 3, 21
STEPS = []

ALIKE = {"GroupNormalization"}
"""Operators with the shape of their input, which shape inference does not know of."""


class Network:
    """Nodes under construction.

    Attributes:
        draw: hypothesis's.
        seed: of the weights.
        shapes: of activations, by name.
        offered: activations with samples on axis 0, for the next steps.
        weights: floating-point arrays, by name.
        constants: all other arrays.
        steps: what was appended, in words.
    """

    def __init__(self, draw, seed, shape):
        self.draw, self.seed = draw, seed
        self.nodes, self.steps = [], []
        self.shapes, self.offered = {"x": (SAMPLES, *shape)}, ["x"]
        self.weights, self.constants = {}, {}

    def __repr__(self):
        shapes = {name: list(array.shape) for name, array in self.weights.items()}
        return f"Network(x{list(self.shapes['x'])}, {self.steps}, {shapes})"

    def one_of(self, *choices):
        return self.draw(st.sampled_from(choices))

    def activation(self):
        """An activation, rather a late one."""
        return self.one_of(*reversed(self.offered))

    def alike(self, shape):
        """An activation of this shape."""
        return self.one_of(*(n for n in self.offered if self.shapes[n] == shape))

    def order(self, axes):
        return self.draw(st.permutations(axes))

    def weight(self, *shape, low=None, tied=True):
        """A weight of this shape: new, or one that there is; perhaps stored in another way.

        Args:
            low: entries lie between this and three times as much; normal by default.
            tied: may be one that has a use already.
        """
        fitting = [n for n, w in self.weights.items() if w.shape == shape]
        if low is None and tied and fitting and self.one_of(False, False, True):
            return self.one_of(*fitting)
        name = f"w{len(self.weights)}"
        rng = np.random.default_rng([self.seed, len(self.weights)])
        if low is None:
            array = rng.standard_normal(shape) * max(prod(shape[1:]), 1) ** -0.5
        else:
            array = rng.uniform(low, 3 * low, shape)
        how = self.one_of("plain", "plain", "plain", "Transpose", "Reshape", "Identity")
        if how == "Transpose" and len(shape) == 2:
            self.weights[name] = array.T.copy()
            return self._append("Transpose", [name], {"perm": [1, 0]})
        self.weights[name] = array.reshape(-1) if how == "Reshape" else array
        if how == "Reshape":
            return self._append(how, [name, self.constant(shape)], {})
        return self._append(how, [name], {}) if how == "Identity" else name

    def constant(self, values, dtype=np.int64):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, dtype)
        return name

    def node(self, op, *inputs, offer=True, outputs=1, **attributes):
        """Append an operator; its (first) output is a new activation, offered to further steps."""
        name = self._append(op, inputs, attributes, outputs)
        self.shapes[name] = self._shape(self.nodes[-1])
        self.steps.append(f"{op}({', '.join(inputs)}{attributes or ''}) -> {name}")
        if offer:
            assert self.shapes[name][0] == SAMPLES and min(self.shapes[name]) > 0, self
            self.offered.append(name)
        return name

    def _append(self, op, inputs, attributes, outputs=1):
        names = [f"v{len(self.nodes)}", *(f"v{len(self.nodes)}_{k}" for k in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0]

    def _shape(self, node):
        if node.op_type in ALIKE:
            return self.shapes[node.input[0]]
        types = {n: _type(s) for n, s in self.shapes.items()}
        types |= {n: _type(w.shape) for n, w in self.weights.items()}
        types |= {n: _type(c.shape, _code(c)) for n, c in self.constants.items()}
        for made in self.nodes[:-1]:  # the way from a weight to its use
            if made.output[0] in node.input and made.output[0] not in types:
                types |= self._infer(made, types)
        dims = self._infer(node, types)[node.output[0]].tensor_type.shape.dim
        return tuple(d.dim_value for d in dims)

    def _infer(self, node, types):
        schema = onnx.defs.get_schema(node.op_type, OPSET)
        fixed = [n for n in node.input if n in self.constants]
        return infer_node_outputs(
            schema,
            node,
            {n: types[n] for n in node.input if n},
            {n: numpy_helper.from_array(self.constants[n], n) for n in fixed},
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def model(self, dtype, *, fed=()):
        """As a model of this precision from `x` to `y`.

        Args:
            fed: names of the weights that are inputs.
        """
        inputs = {"x": ["N", *self.shapes["x"][1:]]} | {n: self.weights[n].shape for n in fed}
        arrays = {n: w.astype(dtype) for n, w in self.weights.items() if n not in fed}
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [self.offered[-1]], ["y"])],
            "random",
            [helper.make_tensor_value_info(n, code, shape) for n, shape in inputs.items()],
            [helper.make_tensor_value_info("y", code, None)],
            [numpy_helper.from_array(a, n) for n, a in (arrays | self._typed(dtype)).items()],
        )
        imports = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def _typed(self, dtype):
        return {n: c.astype(dtype) if c.dtype.kind == "f" else c for n, c in self.constants.items()}


def _type(shape, code=TensorProto.FLOAT):
    return helper.make_tensor_type_proto(code, shape)


def _code(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def step(*operators):
    """Register a step: (network, activation, its shape), and the operator if there are several."""

    def register(function):
        STEPS.extend((operator, function) for operator in operators)
        return function

    return register


@st.composite
def networks(draw, steps=STEPS, most=7):
    """Networks of 1 to `most` steps that have a weight."""
    shapes = st.sampled_from([(4,), (3, 4), (4, 6, 6), (2, 3, 4)])
    network = Network(draw, draw(st.integers(0, 2**16)), draw(shapes))
    for number in range(draw(st.integers(1, most))):
        x = network.activation() if number else "x"
        operator, function = draw(st.sampled_from(steps))
        if prod(network.shapes[x]) <= 2000:
            function(network, x, network.shapes[x], operator)
    if not network.weights:
        x = network.offered[-1]
        network.node("Mul", x, network.weight(*network.shapes[x][1:]))
    return network


__all__ = ["STEPS", "Network", "networks", "step"]
