"""Whether a plan computes attention in one kernel, block by block: read out of what the builder says of its layers.

With detailed profiling TensorRT names, for every layer of a plan, the ONNX nodes that it does. A block's attention is
fused where one layer does both of its products and the Softmax between them; apart, the products' result travels
through memory, [N, heads, tokens, tokens]. No name of a kernel is looked at: those change with version and GPU.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system import log

if TYPE_CHECKING:
    import onnx

LAYERS = "Layers:"
"""How the builder's one message about all layers begins, where it is detailed."""
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_BETWEEN = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "Mul", "Div", "Add", "Reshape", "Identity"})
"""Operators that may stand between a product of attention and its Softmax."""


@dataclass(frozen=True)
class FusedAttention:
    """How many attention blocks a plan has, and those that it does not compute in one kernel.

    Attributes
    ----------
    blocks : int
    apart : tuple of str
        Names of their Softmax nodes.
    """

    blocks: int
    apart: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"blocks": self.blocks, "fused": self.blocks - len(self.apart), "apart": list(self.apart)}


def attention_nodes(model: onnx.ModelProto) -> list[tuple[str, str, str]]:
    """Names of MatMul, Softmax and MatMul of every attention block, in the order of the graph."""
    maker = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        if node.op_type != "Softmax":
            continue
        logits = maker.get(node.input[0])
        while logits is not None and logits.op_type in _BETWEEN:
            logits = maker.get(logits.input[0])
        mixed: Any = node
        while mixed is node or (mixed is not None and mixed.op_type in _BETWEEN):
            after = readers.get(mixed.output[0], [])
            mixed = after[0] if len(after) == 1 else None
        if logits is not None and mixed is not None and logits.op_type == mixed.op_type == "MatMul":
            found.append((logits.name, node.name, mixed.name))
    return found


def read_attention(layers: str, blocks: Sequence[tuple[str, str, str]]) -> FusedAttention | None:
    """What the builder's message says of each block.

    Parameters
    ----------
    layers : str
        A line per layer, with ``[ONNX Layer: NAME]`` for every node that it does.
    blocks : sequence of (str, str, str)
        As `attention_nodes` gives them.

    Returns
    -------
    FusedAttention or None
        None where the message does not tell: it is empty, speaks of no Softmax, or of several in one layer, as an older
        builder does that lists a whole graph as one.
    """
    done = list(_nodes_of_layers(layers))
    kernels = [nodes for nodes in done if sum(softmax in nodes for _, softmax, _ in blocks) <= 1]
    if not blocks or any(not any(softmax in nodes for nodes in kernels) for _, softmax, _ in blocks):
        return None
    apart = [block[1] for block in blocks if not any(nodes.issuperset(block) for nodes in kernels)]
    return FusedAttention(len(blocks), tuple(apart))


def attention_of(encoder: Path, layers: str) -> dict[str, Any] | None:
    """How the plan of an ONNX file computes attention, by its builder's words; None where they or onnx are missing."""
    try:
        import onnx
    except ImportError:  # a bundle that needs no conversion is built without it
        return None
    found = read_attention(layers, attention_nodes(onnx.load(encoder, load_external_data=False)))
    return None if found is None else found.to_dict()


def tell_attention(facts: dict[str, Any] | None, *, engine: str, precision: str) -> None:
    """Log it; a block whose attention is not fused is a warning: it costs memory and time, no score."""
    apart = [] if facts is None else facts["apart"]
    log.event(
        "attention of a plan",
        level=logging.WARNING if apart else logging.INFO,
        engine=engine,
        precision=precision,
        attention=in_words(facts),
        not_fused=apart,
    )


def in_words(facts: dict[str, Any] | None) -> str:
    """A plan's record of its attention, for people."""
    return "not known" if facts is None else f"fused in {facts['fused']} of {facts['blocks']} blocks"


def _nodes_of_layers(layers: str) -> Iterator[set[str]]:
    for line in layers.splitlines():
        if nodes := set(_ONNX_NODE.findall(line)):
            yield nodes
