"""Rewriting an encoder's graph: fused attention, merged products, a fixed batch (graph_forms.py says for whom)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from .graph_forms import Form

ATTENTION_OPSET = 23


def rewrite(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """The graph in a form, still in fp32; the argument is changed. What does not fit a pattern stays as it is."""
    if form.fused:
        fuse_attention(model)
        merge_products(model)
    if form.batch is not None:
        fix_batch(model, form.batch)
    return model


class _Graph:
    """A graph with its makers and readers; `replace` puts nodes in the place of others."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self.onnx, self.model, self.graph = onnx, model, model.graph
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.index()

    def index(self) -> None:
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.graph.output}

    def only_reader(self, name: str) -> Any:
        """The node that alone reads a tensor, which is no output; None otherwise."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def value(self, name: str) -> Any:
        """A constant as an array; None for anything else."""
        return self.onnx.numpy_helper.to_array(self.weights[name]) if name in self.weights else None

    def add_weight(self, name: str, values: Any) -> str:
        """Add a constant."""
        self.weights[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.graph.initializer.append(self.weights[name])
        return name

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        for one in node.attribute:
            if one.name == name:
                return self.onnx.helper.get_attribute_value(one)
        return default

    def replace(self, old: list[Any], new: list[Any], before: Any) -> None:
        """Remove `old`, and put `new` where `before` stands."""
        gone = {id(node) for node in old}
        kept: list[Any] = []
        for node in self.graph.node:
            if node is before:
                kept.extend(new)
            if id(node) not in gone:
                kept.append(node)
        copies = [self.onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self.index()

    def drop_unread(self) -> None:
        """Remove constants that no node reads."""
        used = {name for node in self.graph.node for name in node.input} | self.outputs
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}


def fuse_attention(model: onnx.ModelProto) -> int:
    """Attention of opset 23 in the place of the plain form; how many. Its softmax_precision stays unset.

    The plain form, as export writes it: queries, keys and values [N, S, H * d] are reshaped to heads and turned,
    queries are scaled, MatMul, Softmax over the last axis, MatMul, turned back and joined.
    """
    graph, count = _Graph(model), 0
    while True:
        found = next(filter(None, (_plain_attention(graph, node) for node in graph.graph.node)), None)
        if found is None:
            break
        old, (query, key, value), heads, scale, out = found
        node = graph.onnx.helper.make_node(
            "Attention", [query, key, value], [out], q_num_heads=heads, kv_num_heads=heads, scale=scale,
            name=f"attention_{count}",
        )  # fmt: skip
        graph.replace(old, [node], old[-1])
        count += 1
    if count:
        graph.drop_unread()
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = max(opset.version, ATTENTION_OPSET)
        model.ir_version = max(model.ir_version, 11)
    return count


def _plain_attention(graph: _Graph, softmax: Any) -> Any:
    """The nodes of one plain attention around its Softmax, its inputs, heads, scale and output; None if it is none."""
    if softmax.op_type != "Softmax" or graph.attribute(softmax, "axis", -1) not in (-1, 3):
        return None
    logits, mixed = graph.maker.get(softmax.input[0]), graph.only_reader(softmax.output[0])
    if logits is None or logits.op_type != "MatMul" or mixed is None or mixed.op_type != "MatMul":
        return None
    if mixed.input[0] != softmax.output[0] or graph.only_reader(logits.output[0]) is None:
        return None
    scaled, scale = graph.maker.get(logits.input[0]), 1.0
    old = [logits, softmax, mixed]
    query_name = logits.input[0]
    if scaled is not None and scaled.op_type == "Mul":
        factor = graph.value(scaled.input[1])
        if factor is None or factor.size != 1 or graph.only_reader(scaled.output[0]) is None:
            return None
        scale, query_name = float(factor.reshape(())), scaled.input[0]
        old.append(scaled)
    parts = [
        _turned(graph, name, turn)
        for name, turn in ((query_name, [0, 2, 1, 3]), (logits.input[1], [0, 2, 3, 1]), (mixed.input[1], [0, 2, 1, 3]))
    ]
    back = graph.only_reader(mixed.output[0])
    if None in parts or back is None or back.op_type != "Transpose":
        return None
    joined = graph.only_reader(back.output[0])
    if graph.attribute(back, "perm") != [0, 2, 1, 3] or joined is None or joined.op_type != "Reshape":
        return None
    heads = {part[1] for part in parts}
    if len(heads) != 1:
        return None
    nodes = [node for part in parts for node in part[2]]
    return [*nodes, *old, back, joined], [part[0] for part in parts], heads.pop(), scale, joined.output[0]


def _turned(graph: _Graph, name: str, turn: list[int]) -> Any:
    """What is reshaped to heads and turned: its name, the number of heads, and the two nodes."""
    transpose = graph.maker.get(name)
    if transpose is None or transpose.op_type != "Transpose" or graph.attribute(transpose, "perm") != turn:
        return None
    reshape = graph.maker.get(transpose.input[0])
    if reshape is None or reshape.op_type != "Reshape":
        return None
    shape = graph.value(reshape.input[1])
    if shape is None or len(shape) != 4 or shape[2] < 1:
        return None
    if graph.only_reader(reshape.output[0]) is None or graph.only_reader(name) is None:
        return None
    return reshape.input[0], int(shape[2]), [reshape, transpose]


def merge_products(model: onnx.ModelProto) -> int:
    """One MatMul, one Add and a Split in the place of MatMuls of one input with biases; how many were made."""
    graph, count = _Graph(model), 0
    merged: set[str] = set()
    while True:
        group = next(filter(None, (_mergeable(graph, name) for name in graph.readers if name not in merged)), None)
        if group is None:
            break
        source = group[0][0].input[0]
        merged.add(source)
        weights = [graph.value(product.input[1]) for product, _, _ in group]
        biases = [graph.value(bias) for _, _, bias in group]
        name = f"merged_{count}"
        make = graph.onnx.helper.make_node
        new = [
            make(
                "MatMul", [source, graph.add_weight(f"{name}_weight", np.concatenate(weights, 1))], [f"{name}_product"]
            ),
            make("Add", [f"{name}_product", graph.add_weight(f"{name}_bias", np.concatenate(biases))], [f"{name}_sum"]),
            make(
                "Split",
                [f"{name}_sum", graph.add_weight(f"{name}_sizes", np.asarray([len(b) for b in biases], np.int64))],
                [add.output[0] for _, add, _ in group],
                axis=-1,
            ),
        ]
        old = [node for product, add, _ in group for node in (product, add)]
        first = next(node for node in graph.graph.node if any(node is one for one in old))
        graph.replace(old, new, first)
        count += 1
    if count:
        graph.drop_unread()
    return count


def _mergeable(graph: _Graph, source: str) -> Any:
    """(MatMul, Add, name of the bias) of each product of a tensor with constants; None where there is but one."""
    group = []
    for product in graph.readers[source]:
        if product.op_type != "MatMul" or product.input[0] != source:
            continue
        weight, add = graph.value(product.input[1]), graph.only_reader(product.output[0])
        if weight is None or weight.ndim != 2 or add is None or add.op_type != "Add":
            continue
        bias = next((name for name in add.input if name != product.output[0]), "")
        values = graph.value(bias)
        if values is not None and values.shape == (weight.shape[1],):
            group.append((product, add, bias))
    return group if len(group) > 1 else None


def fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """The free axis of input and outputs becomes `batch`; what only depends on it becomes constant."""
    graph = _Graph(model)
    tiles = graph.graph.input[0]
    for value in (tiles, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.graph.value_info[:]
    known = [dim.dim_value for dim in tiles.type.tensor_type.shape.dim]
    for node in list(graph.graph.node):
        values = _folded(graph, node, tiles.name, known)
        if values is not None:
            graph.graph.node.remove(node)
            graph.add_weight(node.output[0], values)
    graph.drop_unread()


def _folded(graph: _Graph, node: Any, tiles: str, shape: list[int]) -> Any:
    """The value of a node that depends on the batch alone; None for any other."""
    if node.op_type == "Shape" and node.input[0] == tiles:
        end = graph.attribute(node, "end", len(shape))
        return np.asarray(shape[graph.attribute(node, "start", 0) : end], np.int64)
    values = [graph.value(name) for name in node.input]
    if not values or any(value is None for value in values):
        return None
    if node.op_type == "Concat" and values[0].dtype == np.int64:
        return np.concatenate(values, graph.attribute(node, "axis"))
    if node.op_type == "Expand":
        return np.broadcast_to(values[0], np.broadcast_shapes(values[0].shape, tuple(values[1]))).copy()
    return None
