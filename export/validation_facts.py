"""bundle.json's ``validation``: what `stamp-deploy evaluate` measured of the run, and in words what nobody measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file

EVALUATION = "evaluation/evaluation.json"
_CONTROLS = {
    "frozen_r": "the frozen model",
    "random_sets_r": "random gene sets",
    "features_r": "29 stain and texture features",
}


def read_validation(run: Path, names: tuple[str, ...], evaluation: Path | None = None) -> dict[str, Any] | None:
    """The block, or None where nothing was evaluated.

    Parameters
    ----------
    run : Path
        The run's folder; its own evaluation lies in ``evaluation/``.
    names : tuple of str
        The run's pathways.
    evaluation : Path, optional
        Another folder that ``stamp-deploy evaluate`` wrote.

    Raises
    ------
    UsageError
        The evaluation is of another run or other pathways, or of a version that measured less.
    """
    path = (evaluation / "evaluation.json") if evaluation is not None else run / EVALUATION
    if not path.is_file():
        if evaluation is not None:
            raise UsageError("this is no evaluation: it holds no evaluation.json", path=evaluation)
        return None
    again = "evaluate the run again: stamp-deploy evaluate RUN --overwrite"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        of_run, block = document["run"].get("sha256"), document.get("validation")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the evaluation cannot be read: {error}", path=path, remedy=again) from error
    if of_run != sha256_file(run / "run.json"):
        raise UsageError("the evaluation is of another run, or of an older version", path=path, remedy=again)
    if block is None:
        return None
    if [entry["name"] for entry in block["pathways"]] != list(names):
        raise UsageError("the evaluation is of other pathways", path=path, remedy=again)
    return {**block, "lacks": lacks(block)}


def lacks(block: dict[str, Any]) -> list[str]:
    """What was not measured, or not on what a reader would think, in sentences."""
    entries = block["pathways"]
    notes = []
    unmeasured = [entry["name"] for entry in entries if entry["r"] is None]
    if unmeasured:
        notes.append(f"{len(unmeasured)} of {len(entries)} pathways have no held-out correlation")
    measured = [entry for entry in entries if entry["r"] is not None]
    patients = max((entry["patients"] for entry in measured), default=0)
    if measured and not patients:
        notes.append("every correlation is on sections of patients that were trained on")
    elif patients == 1:
        notes.append("every correlation is on sections of one patient")
    over = {"sections": "sections", "blocks": "blocks of 600 um in sections"}.get(block["interval_over"])
    if measured and over:
        notes.append(f"the intervals are over {over} of one patient and say nothing about other patients")
    if measured and block["interval_over"] is None:
        notes.append("there are no intervals: the sections tested are too few or too small")
    for key, control in _CONTROLS.items():
        if all(entry[key] is None for entry in entries):
            notes.append(f"no control with {control} was run")
    return notes
