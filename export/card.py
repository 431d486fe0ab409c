"""The model card: what the bundle is, what it was taught, what it was checked for, in plain Markdown."""

from __future__ import annotations

import json
from typing import Any

from stamp_deploy.engine.parity import StageReport, to_table

STATEMENT = (
    "For research use only. Not a medical device; not for diagnosis. Slides from another scanner, stain or tissue "
    "than the training data are outside what was validated."
)


def write_card(document: dict[str, Any], stages: list[StageReport]) -> str:
    """card.md from the content of bundle.json and the parity reports."""
    pathways = document["pathways"]
    shown = ", ".join(pathways[:12]) + (f" and {len(pathways) - 12} more" if len(pathways) > 12 else "")
    lines = [
        f"# {document['name']}",
        "",
        STATEMENT,
        "",
        "| | |",
        "|---|---|",
        f"| Foundation model | {document['pfm']['id']} |",
        f"| Its licence | {document['pfm']['licence']} |",
        f"| Tiles | {document['tile_px']} px at {document['mpp']:g} um/px |",
        f"| Embedding | {document['embedding_dim']} values |",
        f"| Pathways | {len(pathways)}: {shown} |",
        f"| Heads | {', '.join(head['name'] for head in document['heads']) or 'none'} |",
        f"| Precision | {document['precision']} |",
        f"| Made | {document['created_utc']} |",
        "",
        "## Adapter",
        "",
        *_block(document["adapter"]),
        "## Training data",
        "",
        *_block(document["training_data"]),
        "## Validated input range",
        "",
        *_block(document["input_range"]),
        "## Parity",
        "",
        "```text",
        to_table(stages),
        "```",
        "",
    ]
    return "\n".join(lines)


def _block(value: dict[str, Any]) -> list[str]:
    return ["```json", json.dumps(value, indent=2, ensure_ascii=False), "```", ""]
