"""Both sides of a limit of a bundle's files: values put in their place, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stamp_deploy.errors import BundleError


def refused(check: Callable[..., Any], *arguments: Any, words: str = "") -> None:
    with pytest.raises(BundleError) as caught:
        check(*arguments)
    assert words in caught.value.cause and caught.value.remedy


def ends(place: str, low: Any, under: Any, high: Any, over: Any) -> tuple[Any, ...]:
    """A range of one value of the document: both ends are in it."""
    return place, (low, high), (under, over)


def put(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    *steps, last = (step.replace("\0", ".") for step in place.replace("\\.", "\0").split("."))
    inner: Any = document
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return document


def without_one(value: dict[str, Any]) -> list[dict[str, Any]]:
    """All that have a key less, one more, and another instead."""
    less = [{k: v for k, v in value.items() if k != key} for key in value]
    return [*less, {**value, "more": 1}, *({**one, "other": 1} for one in less), {}]
