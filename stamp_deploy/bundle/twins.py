"""Twins: the encoder in another precision, in the same bundle, for the engines that run that file well.

A bundle has one encoder that every engine can load. Beside it there may be others of the same model: an int8 file that
one CPU engine runs at three times the speed of fp32 may be slow in another. docs/bundle.md lists the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .rules import fail, text

MAX_TWINS = 16
MAX_ENGINES = 16
_KEYS = {"file", "precision", "engines", "by_default", "way", "parity"}


@dataclass(frozen=True)
class Twin:
    """One of them.

    Attributes
    ----------
    file : str
        Its ONNX file, with the inputs and outputs of the encoder.
    precision : str
    engines : tuple of str
        Names of the engines that it is for.
    by_default : bool
        Whether ``--engine auto`` may take it without being asked; otherwise ``--precision`` must name it or be "auto".
    way : str
        How it was made.
    parity : dict
        What export measured: tiles/s and the least Spearman correlation, for instance.
    """

    file: str
    precision: str
    engines: tuple[str, ...]
    by_default: bool
    way: str
    parity: dict[str, Any] = field(default_factory=dict)


def check_twins(value: Any, files: dict[str, Any], encoder: str, precisions: tuple[str, ...]) -> None:
    """The rules of ``twins``.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    if not isinstance(value, list) or len(value) > MAX_TWINS:
        fail(f"'twins' must be a list of at most {MAX_TWINS}")
    served: set[tuple[str, str]] = set()
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            fail(f"a twin must hold {', '.join(sorted(_KEYS))}")
        _one(entry, files, encoder, precisions)
        for engine in entry["engines"]:
            if (engine, entry["precision"]) in served:
                fail(f"two twins are for {engine} in {entry['precision']}")
            served.add((engine, entry["precision"]))


def _one(entry: dict[str, Any], files: dict[str, Any], encoder: str, precisions: tuple[str, ...]) -> None:
    file, engines = entry["file"], entry["engines"]
    if not isinstance(file, str) or file not in files or not file.endswith(".onnx"):
        fail("the file of a twin is no ONNX file among 'files'")
    if file == encoder:
        fail("a twin is the encoder itself")
    if entry["precision"] not in precisions:
        fail("the precision of a twin is unknown")
    if not isinstance(engines, list) or not 1 <= len(engines) <= MAX_ENGINES:
        fail(f"the engines of a twin must be a list of 1 to {MAX_ENGINES}")
    for name in engines:
        text(name, "engines of a twin", 64)
    if not isinstance(entry["by_default"], bool):
        fail("'by_default' of a twin is neither true nor false")
    text(entry["way"], "way of a twin", 200)
    if not isinstance(entry["parity"], dict):
        fail("'parity' of a twin is not an object")


def read_twins(document: dict[str, Any]) -> tuple[Twin, ...]:
    """The twins of a checked document; none in schema version 1."""
    return tuple(Twin(**{**entry, "engines": tuple(entry["engines"])}) for entry in document.get("twins", []))
