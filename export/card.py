"""The model card: what the bundle is, what it was taught, what it was checked for, in plain Markdown."""

from __future__ import annotations

import json
from typing import Any

from stamp_deploy.bundle.reference import NO_REFERENCE
from stamp_deploy.bundle.schema import SCHEMA_VERSION
from stamp_deploy.bundle.validation_block import read_validation
from stamp_deploy.engine.parity import StageReport, to_table
from stamp_deploy.validation import PathwayValidation

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
        "## What the scores are worth",
        "",
        *_validation(document),
        "## Parity",
        "",
        "```text",
        to_table(stages),
        "```",
        "",
    ]
    return "\n".join(lines)


def _validation(document: dict[str, Any]) -> list[str]:
    """A table of the pathways, and what was not measured."""
    block = document.get("validation")
    found = read_validation({"schema_version": SCHEMA_VERSION, **document})
    lines = []
    if block is not None:
        lines = [
            f"Unit: {found.unit}. r: Pearson correlation within sections that training never read, mean over sections, "
            "with its 95 % interval. Controls: r of the same sections from the frozen model, random gene sets, and 29 "
            "stain and texture features. A dash was not measured.",
            "",
            "| pathway | r | 95 % | sections | patients | frozen | random sets | 29 features | validated |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_row(entry) for entry in found.pathways),
            "",
        ]
    unknown = [*filter(None, found.lacks.split("; ")), *([] if document.get("trust") else [NO_REFERENCE])]
    return lines + [f"- Not known: {sentence}." for sentence in unknown] + [""]


def _row(entry: PathwayValidation) -> str:
    interval = f"{_r(entry.r_low)} to {_r(entry.r_high)}" if entry.r_low is not None else "-"
    cells = (entry.name, _r(entry.r), interval, entry.sections, entry.patients, _r(entry.frozen_r))
    more = (_r(entry.random_sets_r), _r(entry.features_r), "yes" if entry.validated else "no")
    return "| " + " | ".join(map(str, (*cells, *more))) + " |"


def _r(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _block(value: dict[str, Any]) -> list[str]:
    return ["```json", json.dumps(value, indent=2, ensure_ascii=False), "```", ""]
