"""JSON as a bundle's files are read: nothing that two parsers could read in two ways, nothing endless."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import BundleError
from .rules import MAX_DIGITS, REMEDY, fail

MAX_JSON_BYTES = 16 * 2**20


def parse_json(data: bytes, what: str = "bundle.json") -> dict[str, Any]:
    """Strict JSON: UTF-8, no duplicate keys, no NaN, no endless numbers, an object at the top.

    Parameters
    ----------
    data : bytes
    what : str
        The name of the file, for messages.

    Raises
    ------
    BundleError
        The bytes are not such a document.
    """
    if len(data) > MAX_JSON_BYTES:
        fail(f"{what} is {len(data)} bytes, more than the {MAX_JSON_BYTES} allowed")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_short_int,
            parse_float=_finite_float,
        )
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what} is not valid JSON ({type(error).__name__})", remedy=REMEDY) from error
    if not isinstance(value, dict):
        fail(f"{what} does not hold an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        fail("the file repeats a key")
    return result


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        fail(f"the file holds a number of {len(digits)} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if len(digits) > 64 or value in (float("inf"), float("-inf")):
        fail(f"the file holds a number that no one measures ({len(digits)} characters)")
    return value


def _no_constant(word: str) -> NoReturn:
    fail(f"the file holds {word}")
