"""A bundle as a model repository of NVIDIA's Triton Inference Server: one model for the encoder, one per head.

    REPO/NAME/config.pbtxt, pathways.txt, 1/encoder.onnx[.data]
    REPO/NAME-HEAD/config.pbtxt, [classes.txt,] 1/HEAD.onnx

The server batches tiles of several clients for the encoder. A head's rows are the tiles of one slide and belong
together, so heads are not batched. docs/triton.md tells how a client uses both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import Bundle, HeadSpec

QUEUE_DELAY_US = 2000
"""How long the server may hold tiles back to fill a batch: short beside the milliseconds that a batch takes."""


def write_repository(
    bundle: Bundle,
    repository: Path,
    *,
    max_batch: int = 64,
    instances: int = 1,
    device: str = "gpu",
    overwrite: bool = False,
) -> list[str]:
    """Write the encoder and every head as models; returns their names.

    Each model folder appears whole or not at all. Other models of the repository are left alone.

    Raises
    ------
    UsageError
        A model of that name is there already.
    DiskError
        The repository cannot be written.
    """
    from ..atomic import check_output, staged_directory

    models = {bundle.name: encoder_config(bundle, max_batch, instances, device)}
    models |= {f"{bundle.name}-{head.name}": head_config(bundle, head, instances) for head in bundle.heads}
    for name in models:
        check_output(repository / name, overwrite=overwrite)
    heads = {f"{bundle.name}-{head.name}": head for head in bundle.heads}
    for name, config in models.items():
        with staged_directory(repository / name, overwrite=overwrite) as staging:
            (staging / "1").mkdir()
            (staging / "config.pbtxt").write_text(config, encoding="utf-8")
            if name in heads:
                model, labels = bundle.read_head(heads[name]), heads[name].classes
            else:
                model, labels = bundle.read_encoder(), bundle.pathways
            (staging / "1" / model.path.name).write_bytes(model.graph)
            for location, data in model.data.items():
                (staging / "1" / location).parent.mkdir(parents=True, exist_ok=True)
                (staging / "1" / location).write_bytes(data)
            if labels:
                (staging / _labels(name in heads)).write_text("\n".join(labels) + "\n", encoding="utf-8")
    return list(models)


def encoder_config(bundle: Bundle, max_batch: int, instances: int, device: str) -> str:
    """config.pbtxt of the encoder. Shapes leave the batch axis out, as Triton's do where it batches."""
    side, queue = bundle.tile_px, f"max_queue_delay_microseconds: {QUEUE_DELAY_US}"
    return _header(bundle, bundle.name, bundle.encoder.name, max_batch) + "\n".join(
        [
            "input [",
            f'  {{ name: "tiles" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }}',
            "]",
            "output [",
            ",\n".join(_output(name, width) for name, width in bundle.widths.items()),
            "]",
            f"dynamic_batching {{ preferred_batch_size: [ {max_batch} ] {queue} }}",
            f"instance_group [ {{ count: {instances} kind: KIND_{device.upper()} }} ]",
            "model_warmup [",
            f'  {{ name: "one full batch" batch_size: {max_batch} inputs {{ key: "tiles" value: '
            f"{{ data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] zero_data: true }} }} }}",
            "]",
            "",
        ]
    )


def head_config(bundle: Bundle, head: HeadSpec, instances: int) -> str:
    """config.pbtxt of a head: it is small and stays on the CPU; its first axis is one slide's tiles, not a batch."""
    count = 1 if head.kind == "survival" else len(head.classes)
    labels = f' label_filename: "{_labels(True)}"' if head.classes else ""
    return _header(bundle, f"{bundle.name}-{head.name}", head.file.rsplit("/", 1)[-1], 0, head) + "\n".join(
        [
            "input [",
            f'  {{ name: "embeddings" data_type: TYPE_FP32 dims: [ -1, {bundle.embedding_dim} ] }}',
            "]",
            "output [",
            f'  {{ name: "logits" data_type: TYPE_FP32 dims: [ {count} ]{labels} }},',
            '  { name: "attention" data_type: TYPE_FP32 dims: [ -1 ] }',
            "]",
            f"instance_group [ {{ count: {instances} kind: KIND_CPU }} ]",
            "",
        ]
    )


def _header(bundle: Bundle, name: str, file: str, max_batch: int, head: HeadSpec | None = None) -> str:
    facts = {
        "stamp_bundle": bundle.name,
        "stamp_bundle_sha256": bundle.sha256,
        "stamp_precision": bundle.precision,
        "stamp_tile_px": str(bundle.tile_px),
        "stamp_mpp": f"{bundle.mpp:g}",
        "stamp_research_use": "for research use only",
    }
    if head is not None:
        facts |= {
            "stamp_head_kind": head.kind,
            "stamp_temperature": f"{head.temperature:g}",
            "stamp_thresholds": json.dumps(list(head.thresholds)),
            "stamp_abstain": json.dumps(head.abstain),
        }
    lines = [
        f"name: {_text(name)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_text(file)}",
        f"max_batch_size: {max_batch}",
        "version_policy { latest { num_versions: 1 } }",
        *(f"parameters {{ key: {_text(k)} value: {{ string_value: {_text(v)} }} }}" for k, v in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def _output(name: str, width: int) -> str:
    labels = "" if name == "embedding" else f' label_filename: "{_labels(False)}"'
    return f'  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {width} ]{labels} }}'


def _labels(of_head: bool) -> str:
    return "classes.txt" if of_head else "pathways.txt"


def _text(value: str) -> str:
    """A string of protobuf's text format."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
