"""What a value in bundle.json may be: small checks that name the rule that is broken. Nothing here reads a file."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from ..errors import BundleError

REMEDY = "get the bundle again from its source, or export it again"
MAX_DIGITS = 32
"""Longer numbers than this are no measurement: they only cost memory and break converters."""
MAX_NAME_CHARACTERS = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}")


def fail(cause: str) -> NoReturn:
    """Refuse the bundle."""
    raise BundleError(cause, remedy=REMEDY)


def number(value: Any, what: str, low: float, high: float) -> float:
    """A number from `low` to `high`; anything else, NaN included, is refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fail(f"the {what} is not a finite number")
    if not low <= value <= high:
        fail(f"the {what} must be {low:g} to {high:g}")
    return float(value)


def whole(value: Any, what: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        fail(f"{what} must be {low} to {high}")
    return value


def triple(value: Any, what: str, low: float, high: float) -> None:
    """Three numbers, one a colour."""
    if not isinstance(value, list) or len(value) != 3:
        fail(f"{what!r} must hold three numbers")
    for item in value:
        number(item, what, low, high)


def text(value: Any, what: str, longest: int = MAX_NAME_CHARACTERS) -> str:
    """A line of printable text without blanks at its ends."""
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        fail(f"the {what} must be printable text")
    if len(value) > longest:
        fail(f"the {what} is longer than {longest} characters")
    return value


def names(value: Any, what: str, least: int, most: int) -> None:
    """A list of `least` to `most` different names."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        fail(f"the {what} must be a list of names, {least} to {most} of them")
    for item in value:
        text(item, f"names of the {what}")
    if len(set(value)) != len(value):
        fail(f"the {what} repeat a name")


def span(value: Any, what: str, low: float, high: float) -> tuple[float, float]:
    """A pair [low, high] in order."""
    if not isinstance(value, list) or len(value) != 2:
        fail(f"the {what} must be [low, high]")
    first, last = (number(item, what, low, high) for item in value)
    if first > last:
        fail(f"the {what} is upside down")
    return first, last


def known_keys(value: dict[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    """No keys but the known ones."""
    unknown = sorted(set(value) - known)
    if unknown:
        fail(f"{what} holds an unknown key {unknown[0][:60]!r}")


def relative_name(name: object) -> str:
    """A file name inside the bundle: relative POSIX, plain characters, no `.`, `..` or hidden parts."""
    if not isinstance(name, str) or not name or len(name) > 512:
        fail(f"file name {str(name)[:60]!r} is not usable")
    if any(not PART.fullmatch(part) for part in name.split("/")):
        fail(f"file name {name[:60]!r} leaves the bundle or holds characters that are not allowed")
    return name
