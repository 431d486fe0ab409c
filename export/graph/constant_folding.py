"""Simplification of an exported graph: what does not depend on the tiles is computed once, here.

Vision transformers with a dynamic image size resample their position table in every call, by an antialiased bicubic
Resize that TensorRT does not know. The tile size of a bundle is fixed, so the outcome is a constant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from .unread_rows import keep_read_rows

GROWTH_BYTES = 1 << 20
"""A constant may be larger than what it is made of by this much; an Expand of a weight is left alone."""
RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})


def simplify_file(path: Path) -> None:
    """Fold constants of an ONNX file and drop rows that nobody reads, in place; weights beside the graph stay there."""
    model = onnx.load(path, load_external_data=False)
    folded = fold(model, path.parent)
    if keep_read_rows(model) + folded:
        path.write_bytes(model.SerializeToString())


def fold(model: onnx.ModelProto, folder: Path | None = None) -> int:
    """Replace every node that depends on constants alone by its value; returns the number of nodes replaced."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    known, constant = set(weights), []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant" or (inputs and known.issuperset(inputs) and _foldable(node)):
            constant.append(node)
            known.update(node.output)
    if not constant:
        return 0
    made = {name for node in constant for name in node.output}
    rest = [node for node in graph.node if not made.intersection(node.output)]
    outputs = {output.name for output in graph.output}
    wanted = sorted(made & ({name for node in rest for name in node.input} | outputs))
    values = _evaluate(model, constant, wanted, weights, folder)
    total = sum(len(t.raw_data) for t in weights.values())
    if sum(value.nbytes for value in values) > total + GROWTH_BYTES:
        return 0
    used = {name for node in rest for name in node.input} - set(wanted)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in zip(wanted, values, strict=True))
    return len(constant)


def _foldable(node: onnx.NodeProto) -> bool:
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return node.op_type not in RANDOM and not any(a.type in graphs for a in node.attribute)


def _evaluate(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    wanted: list[str],
    weights: dict[str, onnx.TensorProto],
    folder: Path | None,
) -> list[Any]:
    """The wanted tensors' values, by ONNX Runtime."""
    import onnxruntime

    needed = {name for node in nodes for name in node.input if name in weights}
    loaded = []
    for name in sorted(needed):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(weights[name])
        if folder is not None and uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
        loaded.append(tensor)
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = "constants"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(loaded)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(wanted, {}))
