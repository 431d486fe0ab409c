"""bundle.json's ``validation`` (schema version 2): its rules, and the records that are read out of it.

Null means that nothing was measured; a null inside means that this number was not. docs/bundle.md lists the keys.
"""

from __future__ import annotations

from typing import Any

from ..validation import QUANTILES, SCALES, PathwayValidation, Scale, Validation
from .rules import fail, known_keys, number, text, whole

MAX_SCORE = 1e9
MIN_SPREAD = 1e-9
MAX_COUNT = 1_000_000_000
MAX_NOTES = 64
_CORRELATIONS = ("r", "r_low", "r_high", "frozen_r", "random_sets_r", "features_r", "depth_r", "global_r")
_COUNTS = ("sections", "patients")
_QUANTILES = ("predictions", "targets", "global_predictions")
_KEYS = {"name", *SCALES, *_CORRELATIONS, *_COUNTS, *_QUANTILES}
LACKS_ALL = (
    "the bundle says nothing of how its scores were validated: no held-out correlation, no controls, no range of scores"
)
LACKS_GLOBAL = "it has no read-out that is comparable across slides"
FIRST_VERSION = "it is of schema version 1, which cannot say more"


def check_validation(value: Any, pathways: list[str]) -> None:
    """The rules of the block.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    if value is None:
        return
    if not isinstance(value, dict):
        fail("'validation' is neither an object nor null")
    known_keys(value, {"unit", "interval_over", "pathways", "lacks"}, "'validation'")
    text(value.get("unit"), "unit of 'validation'")
    if value.get("interval_over") not in (None, "patients", "sections", "blocks"):
        fail("the intervals of 'validation' are over something else than patients, blocks of space or sections")
    notes = value.get("lacks")
    if not isinstance(notes, list) or len(notes) > MAX_NOTES:
        fail(f"what 'validation' lacks must be a list of at most {MAX_NOTES} sentences")
    for note in notes:
        text(note, "sentences on what 'validation' lacks", 1000)
    entries = value.get("pathways")
    if not isinstance(entries, list) or len(entries) != len(pathways):
        fail(f"'validation' must hold one entry per pathway, {len(pathways)} of them")
    for entry, name in zip(entries, pathways, strict=True):
        _pathway(entry, name)


def _pathway(entry: Any, name: str) -> None:
    if not isinstance(entry, dict) or entry.get("name") != name:
        fail(f"the entry of {name!r} in 'validation' is missing or out of order")
    known_keys(entry, _KEYS, f"the validation of {name!r}")
    missing = sorted(_KEYS - set(entry))
    if missing:
        fail(f"the validation of {name!r} lacks {missing[0]!r}; null stands for what was not measured")
    for key in _CORRELATIONS:
        if entry[key] is not None:
            number(entry[key], f"{key} of {name!r}", -1.0, 1.0)
    for key in _COUNTS:
        whole(entry[key], f"{key} of {name!r}", 0, MAX_COUNT)
    if entry["r"] is not None and entry["sections"] == 0:
        fail(f"{name!r} has an r and was measured on no section")
    if (entry["r_low"] is None) != (entry["r_high"] is None) or (entry["r"] is None and entry["r_low"] is not None):
        fail(f"the interval of r of {name!r} is incomplete")
    if entry["r_low"] is not None and entry["r_low"] > entry["r_high"]:
        fail(f"the interval of r of {name!r} is upside down")
    for key in _QUANTILES:
        _quantiles(entry[key], f"{key} of {name!r}")
    for key in SCALES:
        _scale(entry[key], f"{key} of {name!r}")


def _scale(value: Any, what: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or set(value) != {"centre", "spread"}:
        fail(f"the {what} must hold centre and spread")
    number(value["centre"], f"centre in the {what}", -MAX_SCORE, MAX_SCORE)
    number(value["spread"], f"spread in the {what}", MIN_SPREAD, MAX_SCORE)


def _quantiles(value: Any, what: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or set(value) != set(QUANTILES):
        fail(f"the {what} must hold the quantiles {', '.join(QUANTILES)}")
    numbers = [number(value[key], what, -MAX_SCORE, MAX_SCORE) for key in QUANTILES]
    if numbers != sorted(numbers):
        fail(f"the quantiles of the {what} do not ascend")


def read_validation(document: dict[str, Any]) -> Validation:
    """The records of a checked document; for one that says nothing, what it lacks in words."""
    value = document.get("validation")
    notes = [] if value is not None else [LACKS_ALL]
    notes += list((value or {}).get("lacks", ()))
    if "pathways_global" not in document.get("outputs", ()):
        notes.append(LACKS_GLOBAL)
    if document["schema_version"] == 1:
        notes.append(FIRST_VERSION)
    if value is None:
        return Validation("", tuple(PathwayValidation(name) for name in document["pathways"]), "; ".join(notes))
    entries = tuple(_read_pathway(entry) for entry in value["pathways"])
    return Validation(value["unit"], entries, "; ".join(notes))


def _read_pathway(entry: dict[str, Any]) -> PathwayValidation:
    values: dict[str, Any] = {key: None if entry[key] is None else float(entry[key]) for key in _CORRELATIONS}
    values |= {key: int(entry[key]) for key in _COUNTS}
    values |= {key: {name: float(v) for name, v in (entry[key] or {}).items()} for key in _QUANTILES}
    for key in SCALES:
        scale = entry[key]
        values[key] = None if scale is None else Scale(float(scale["centre"]), float(scale["spread"]))
    return PathwayValidation(name=entry["name"], **values)
