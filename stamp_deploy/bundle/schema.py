"""The schema of bundle.json: one `validate`, one error a broken rule.

Nothing here reads a file. `validate` takes the parsed JSON and answers with a checked document or a BundleError that
names the rule. Every value that the run time uses has a range.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from ..config import ICC_USES
from ..units import MAX_MPP, MIN_MPP
from .rules import (
    NAME,
    SHA256,
    fail,
    known_keys,
    names,
    number,
    relative_name,
    span,
    text,
    triple,
    whole,
)
from .twins import check_twins
from .validation_block import check_validation

SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)
MAX_FILES = 4096
MAX_FILE_BYTES = 64 * 2**30
MAX_TILE_PX = 4096
MAX_NAMES = 65_536
MAX_CLASSES = 1024
MAX_HEADS = 256
MAX_LOG_HAZARD = 1e6
STD_ABOVE = 1e-4
"""Colours are divided by their standard deviation: one of nothing is a mistake."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
HEAD_KINDS = ("binary", "multiclass", "survival")
TEMPERATURES = (1e-3, 1e3)
"""A fitted temperature lies near 1; outside this range probabilities are all alike, or 0 and 1."""

TISSUE_RANGES: dict[str, tuple[float, float]] = {
    "min_fraction": (0.0, 1.0),
    "mask_mpp": (1.0, 64.0),
    "max_px": (256, 8192),
    "min_saturation": (0.0, 1.0),
    "max_saturation": (0.0, 1.0),
    "blur_um": (0.0, 200.0),
    "close_um": (0.0, 1000.0),
    "min_object_um": (0.0, 10_000.0),
    "min_hole_um": (0.0, 10_000.0),
}
"""Numbers of the tissue rule (`stamp_deploy.tissue.TissueRule`): they bound the memory that finding tissue takes."""
MAX_TISSUE_NUMBER = 1e5

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "name": str,
    "pfm": dict,
    "precision": str,
    "tile_px": int,
    "mpp": (int, float),
    "mean": list,
    "std": list,
    "embedding_dim": int,
    "pathways": list,
    "gene_set_sha256": str,
    "encoder": str,
    "heads": list,
    "tissue": dict,
    "input_range": dict,
    "adapter": dict,
    "training_data": dict,
    "parity": dict,
    "golden": str,
    "created_utc": str,
    "software": dict,
    "files": dict,
}
FIRST_OUTPUTS = ("embedding", "pathways")
ALL_OUTPUTS = (*FIRST_OUTPUTS, "pathways_global")
_SECOND: dict[str, Any] = {"outputs": list(FIRST_OUTPUTS), "validation": None, "trust": None, "twins": []}
"""What schema version 2 asks for beside the keys of version 1, and what stands for "not measured"."""
_HEAD: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "file": str,
    "kind": str,
    "classes": list,
    "thresholds": list,
    "temperature": (int, float),
    "abstain": (list, type(None)),
    "details": dict,
}


def validate(document: dict[str, Any]) -> dict[str, Any]:
    """Check every rule of schema versions 1 and 2 and return the document unchanged.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    version = document.get("schema_version")
    if version not in READ_VERSIONS or isinstance(version, bool):
        known = " and ".join(map(str, READ_VERSIONS))
        fail(f"schema version {repr(version)[:40]} is unknown; this release reads versions {known}")
    _types(document, _REQUIRED, "bundle.json")
    known_keys(document, {*_REQUIRED, *(_SECOND if version == SCHEMA_VERSION else ())}, "bundle.json")
    for key in _SECOND if version == SCHEMA_VERSION else ():
        if key not in document:
            fail(f"bundle.json lacks {key!r}")
    if not NAME.fullmatch(document["name"]):
        fail("'name' may hold only letters, digits, dot, dash and underscore")
    if document["precision"] not in PRECISIONS:
        fail(f"precision {document['precision'][:60]!r} is unknown")
    whole(document["tile_px"], "tile_px", 1, MAX_TILE_PX)
    number(document["mpp"], "mpp", MIN_MPP, MAX_MPP)
    triple(document["mean"], "mean", 0.0, 1.0)
    triple(document["std"], "std", 0.0, 1.0)
    if any(value <= STD_ABOVE for value in document["std"]):
        fail("'std' must be positive")
    whole(document["embedding_dim"], "embedding_dim", 1, 65_536)
    names(document["pathways"], "pathways", 1, MAX_NAMES)
    if not SHA256.fullmatch(document["gene_set_sha256"]):
        fail("gene_set_sha256 is not a SHA-256")
    for key in ("id", "licence"):
        if not document["pfm"].get(key):
            fail(f"'pfm' must state {key!r}")
        text(document["pfm"][key], f"{key} of 'pfm'", 1000)
    names(document["pfm"].get("trained_on", []), "trained_on of 'pfm'", 0, 16)
    if document["pfm"].get("icc", "none") not in ICC_USES:
        fail(f"icc of 'pfm' is not {' or '.join(ICC_USES)}")
    _date(document["created_utc"])
    _tissue(document["tissue"])
    _input_range(document["input_range"])
    check_files(document["files"])
    files = document["files"]
    if document["encoder"] not in files:
        fail("the encoder is not among 'files'")
    if not any(name.startswith(document["golden"] + "/") for name in files):
        fail("the golden folder is not among 'files'")
    if version == SCHEMA_VERSION:
        if document["outputs"] not in (list(FIRST_OUTPUTS), list(ALL_OUTPUTS)):
            fail(f"'outputs' must be {', '.join(FIRST_OUTPUTS)} and may end with {ALL_OUTPUTS[-1]}")
        if document["trust"] is not None and document["trust"] not in files:
            fail("the reference of 'trust' is not among 'files'")
        check_validation(document["validation"], document["pathways"])
        check_twins(document["twins"], files, document["encoder"], PRECISIONS)
    if len(document["heads"]) > MAX_HEADS:
        fail(f"more than {MAX_HEADS} heads")
    heads = [_head(head, files) for head in document["heads"]]
    if len({name.lower() for name in heads}) != len(heads):
        fail("two heads share a name")
    return document


def latest(document: dict[str, Any]) -> dict[str, Any]:
    """A document without its version as one of the latest version: what it does not say is not measured."""
    return {"schema_version": SCHEMA_VERSION, **_SECOND, **document}


def _types(value: dict[str, Any], wanted: dict[str, type | tuple[type, ...]], what: str) -> None:
    for key, kind in wanted.items():
        if key not in value:
            fail(f"{what} lacks {key!r}")
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            fail(f"{key!r} has the wrong type ({type(value[key]).__name__}) in {what}")


def _date(value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        fail("created_utc is not a date and time of ISO 8601")


def _tissue(rule: dict[str, Any]) -> None:
    """Types and ranges; that every key is known is checked where the rule is used."""
    for key, value in rule.items():
        what = f"{key[:60]!r} of the tissue rule"
        kind = str if key == "method" else bool if key == "exclude_ink" else None
        if kind is not None and not isinstance(value, kind):
            fail(f"{what} has the wrong type ({type(value).__name__})")
        if isinstance(value, str) and key not in TISSUE_RANGES:
            text(value, what)
        elif not isinstance(value, bool) or key in TISSUE_RANGES:
            number(value, what, *TISSUE_RANGES.get(key, (-MAX_TISSUE_NUMBER, MAX_TISSUE_NUMBER)))
    if isinstance(rule.get("max_px"), float):
        fail("'max_px' of the tissue rule is not a whole number")
    low, high = rule.get("min_saturation", 0.0), rule.get("max_saturation", 1.0)
    if low > high:
        fail("the saturations of the tissue rule are upside down")


def _input_range(value: dict[str, Any]) -> None:
    if value.get("mpp") is not None:
        low, high = span(value["mpp"], "validated mpp", 0.0, 2 * MAX_MPP)
        if low <= 0 or high < MIN_MPP:
            fail("the validated mpp is no range of microns per pixel")
    if value.get("scores") is not None:
        span(value["scores"], "validated scores", -1e9, 1e9)


def check_files(files: dict[str, Any]) -> None:
    """The rules of ``files``.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    if not 1 <= len(files) <= MAX_FILES:
        fail(f"'files' must list 1 to {MAX_FILES} files")
    for name, entry in files.items():
        relative_name(name)
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size"}:
            fail(f"the entry of {name!r} must hold sha256 and size")
        size = entry["size"]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
            fail(f"the size of {name!r} is not 0 to {MAX_FILE_BYTES}")
        if not isinstance(entry["sha256"], str) or not SHA256.fullmatch(entry["sha256"]):
            fail(f"the sha256 of {name!r} is not a SHA-256")
    if len({name.lower() for name in files}) != len(files):
        fail("two files differ only in upper and lower case")


def _head(head: Any, files: dict[str, Any]) -> str:
    if not isinstance(head, dict):
        fail("a head is not an object")
    _types({"abstain": None, **head}, _HEAD, "a head")
    known_keys(head, set(_HEAD), "a head")
    name: str = head["name"]
    if not NAME.fullmatch(name):
        fail("a head's name may hold only letters, digits, dot, dash and underscore")
    if head["file"] not in files:
        fail(f"the file of head {name!r} is not among 'files'")
    if head["kind"] not in HEAD_KINDS:
        fail(f"head {name!r} is of an unknown kind")
    names(head["classes"], f"classes of head {name!r}", 0, MAX_CLASSES)
    count = len(head["classes"])
    if (head["kind"] == "binary" and count != 2) or (head["kind"] == "multiclass" and count < 2):
        fail(f"head {name!r} is {head['kind']} with {count} classes")
    number(head["temperature"], f"temperature of head {name!r}", *TEMPERATURES)
    _thresholds(head, count)
    return name


def _thresholds(head: dict[str, Any], classes: int) -> None:
    """Probabilities for classes; for survival cuts of the log hazard, in order, that fit the named risk groups."""
    what, cuts = f"thresholds of head {head['name']!r}", head["thresholds"]
    survival = head["kind"] == "survival"
    low, high = (-MAX_LOG_HAZARD, MAX_LOG_HAZARD) if survival else (0.0, 1.0)
    for value in cuts:
        number(value, f"threshold of head {head['name']!r}", low, high)
    if survival:
        if any(left >= right for left, right in pairwise(cuts)):
            fail(f"the {what} are not in ascending order")
        if classes > 1 and classes != len(cuts) + 1:
            fail(f"the {what} are {len(cuts)} and must be {classes - 1} for {classes} risk groups")
        if len(cuts) > MAX_CLASSES:
            fail(f"the {what} are more than {MAX_CLASSES}")
    elif len(cuts) not in ((0, 1) if head["kind"] == "binary" else (0, classes)):
        allowed = "none or one" if head["kind"] == "binary" else f"none or {classes}"
        fail(f"the {what} are {len(cuts)} and must be {allowed}")
    if head.get("abstain") is not None:
        span(head["abstain"], f"abstention band of head {head['name']!r}", low, high)
