"""Records do not change after they are made, but for those whose purpose it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGES = {
    "OnnxFacts", "StageTimes", "TileSource", "Skipped", "_InWork", "_Begun", "Position", "Row", "Evaluation",
    "_Image",
}  # fmt: skip
"""Gathered or counted piece by piece."""
HOLDS = {
    "Prepared", "Batch", "Section", "Run", "Moments", "Runs", "Slides", "HeldOut", "Seen", "Start", "TrainSection",
    "Views", "Shared", "_Own", "Source",
}  # fmt: skip
"""Holders of models, open files or arrays at work."""


def thawed() -> Iterator[str]:
    """Names of dataclasses that are not frozen."""
    for package in ("stamp_deploy", "training", "export"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    marks = [ast.unparse(mark) for mark in node.decorator_list]
                    if any(mark.startswith("dataclass") and "frozen=True" not in mark for mark in marks):
                        yield node.name


def test_what_is_not_frozen_is_listed() -> None:
    assert set(thawed()) == CHANGES | HOLDS
