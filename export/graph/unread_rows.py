"""Rows that nobody reads: an encoder that reads the class token alone need not finish the other tokens.

Attention lets every token see every other, so all blocks but the last must compute all tokens. In the last block the
embedding reads one row: the queries, the projection and the MLP of the others are dead, 6 % of
a ViT-S. No runtime finds this by itself, and the row that is read is computed as before.

The pass walks the graph from its end and notes for every tensor whether all of it is read, or one row along one axis.
A node whose output is read in one row, and that treats rows alike, takes one row of its inputs; anywhere else a Slice
is put in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Gelu", "Erf", "Sigmoid", "Tanh", "Relu", "Identity", "Cast"})
SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
LAST_AXIS = frozenset({"LayerNormalization", "Softmax"})

SMALL_BYTES = 4096
"""Constants up to here may be shapes; larger ones are weights, of which only the shape matters."""


@dataclass(frozen=True)
class Row:
    """One row of a tensor: `index` along `axis`."""

    axis: int
    index: int


Demand = Row | None
"""What is read of a tensor; None means all of it."""


def keep_read_rows(model: onnx.ModelProto) -> int:
    """Compute only the rows that are read; returns the number of nodes that do less. The graph is changed in place.

    A model's weights may lie in external files, which are not read.
    """
    if any(a.type in SUBGRAPHS for node in model.graph.node for a in node.attribute):
        return 0  # a branch may read tensors unseen
    work = _Pass(model.graph, _shapes(model))
    done = work.plan()
    if done:
        work.apply()
    return done


class _Pass:
    def __init__(self, graph: onnx.GraphProto, shapes: dict[str, list[int | None]]) -> None:
        self.graph, self.shapes = graph, shapes
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.demands: dict[str, set[Demand]] = {output.name: {None} for output in graph.output}
        self.wanted: dict[int, dict[int, Row]] = {}  # node -> its input -> the row it takes
        self.row_mode: set[int] = set()

    def plan(self) -> int:
        """Decide for every node, from the last to the first."""
        for number in range(len(self.graph.node) - 1, -1, -1):
            node = self.graph.node[number]
            found = {demand for name in node.output for demand in self.demands.get(name, ())}
            rows = self._start(node)
            if rows is None and len(found) == 1 and (row := next(iter(found))) is not None:
                rows = self._through(node, row)
                if rows is not None:
                    self.row_mode.add(number)
            self.wanted[number] = rows or {}
            for index, name in enumerate(node.input):
                self.demands.setdefault(name, set()).add(self.wanted[number].get(index))
        return len(self.row_mode)

    def apply(self) -> None:
        """Rewrite: nodes in row mode give a tensor with one row, others get a Slice where a row is wanted of them."""
        makers = {name: number for number, node in enumerate(self.graph.node) for name in node.output}
        nodes: list[onnx.NodeProto] = []
        sliced: dict[tuple[str, Row], str] = {}
        for number, node in enumerate(self.graph.node):
            if self._start(node) is not None and makers.get(node.input[0]) in self.row_mode:
                node.input[1] = self._constant(np.asarray(0, np.int64), f"{node.output[0]}_row")
            for index, row in self.wanted[number].items():
                name = node.input[index]
                if makers.get(name) in self.row_mode or (self._start(node) is not None):
                    continue
                if (name, row) not in sliced:
                    sliced[name, row] = self._slice(nodes, name, row)
                node.input[index] = sliced[name, row]
            if number in self.row_mode and node.op_type == "Reshape":
                (row,) = set(self.wanted[number].values())
                shape = numpy_helper.to_array(self.weights[node.input[1]]).copy()
                shape[row.axis] = 1
                node.input[1] = self._constant(shape, f"{node.output[0]}_shape")
            nodes.append(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(weights)

    def _start(self, node: onnx.NodeProto) -> dict[int, Row] | None:
        """A Gather of one constant index reads one row."""
        if node.op_type != "Gather" or node.input[1] not in self.weights:
            return None
        index, axis = self.weights[node.input[1]], _attribute(node, "axis", 0)
        if index.dims or axis < 0 or index.data_location == onnx.TensorProto.EXTERNAL:
            return None
        value = int(numpy_helper.to_array(index))
        return {0: Row(axis, value)} if value >= 0 else None

    def _through(self, node: onnx.NodeProto, row: Row) -> dict[int, Row] | None:
        """Which rows of its inputs a node needs to give one row of its output; None where that is not so simple."""
        kind = node.op_type
        shapes = [self.shapes.get(name) for name in node.input]
        out = self.shapes.get(node.output[0])
        if out is None or shapes[0] is None:
            return None
        rank = len(out)
        if kind in ELEMENTWISE:
            return self._elementwise(node, row, rank)
        if kind in LAST_AXIS and _attribute(node, "axis", -1) in (-1, rank - 1) and row.axis < rank - 1:
            return {0: row}
        if kind == "MatMul" and shapes[1] is not None:
            plain = len(shapes[1]) == 2 and row.axis < rank - 1
            if plain or (row.axis == rank - 2 and len(shapes[0]) == rank):
                return {0: row}
        if kind == "Transpose":
            return {0: Row(int(_attribute(node, "perm", list(range(rank))[::-1])[row.axis]), row.index)}
        if kind == "Slice" and self._sliced_axes(node, rank).isdisjoint({None, row.axis}):
            return {0: row}
        if kind == "Split" and _attribute(node, "axis", 0) % rank != row.axis:
            return {0: row}
        if kind == "Reshape" and row.axis == 1 and node.input[1] in self.weights:
            given, length = shapes[0], out[1]
            target = numpy_helper.to_array(self.weights[node.input[1]])
            same_front = given[1:2] == [length] and length is not None and int(target[1]) == length
            rest = [given[2:], out[2:]]
            known = all(None not in part for part in rest)
            if same_front and known and np.prod(rest[0]) == np.prod(rest[1]):  # type: ignore[arg-type]
                return {0: row}
        return None

    def _elementwise(self, node: onnx.NodeProto, row: Row, rank: int) -> dict[int, Row] | None:
        rows = {}
        for index, name in enumerate(node.input):
            shape = self.shapes.get(name)
            if shape is None:
                return None
            axis = row.axis - (rank - len(shape))  # shapes are aligned at their ends
            if axis < 0 or shape[axis] == 1:
                continue  # the same for every row
            if name in self.weights or len(shape) != rank:
                return None
            rows[index] = row
        return rows or None

    def _sliced_axes(self, node: onnx.NodeProto, rank: int) -> set[int | None]:
        """The axes that a Slice cuts; None among them where they are not known."""
        tensor = self.weights.get(node.input[3]) if len(node.input) > 3 else None
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return {None}
        return {int(axis) % rank for axis in numpy_helper.to_array(tensor)}

    def _slice(self, nodes: list[onnx.NodeProto], name: str, row: Row) -> str:
        new = f"{name}_row{row.axis}_{row.index}"
        bounds = [
            self._constant(np.asarray([value], np.int64), f"{new}_{what}")
            for what, value in (("start", row.index), ("end", row.index + 1), ("axis", row.axis))
        ]
        nodes.append(helper.make_node("Slice", [name, *bounds], [new]))
        return new

    def _constant(self, value: Any, name: str) -> str:
        tensor = numpy_helper.from_array(value, name)
        self.graph.initializer.append(tensor)
        self.weights[name] = tensor
        return name


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """The shape of every tensor that inference knows; None for a dimension that is not a number."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= SMALL_BYTES:
            bare.graph.initializer.append(tensor)  # a shape or an axis, perhaps
        else:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    known = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    found: dict[str, list[int | None]] = {tensor.name: list(tensor.dims) for tensor in known.initializer}
    for value in [*known.value_info, *known.input, *known.output]:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    return found


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
