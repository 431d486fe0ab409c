"""What the viewer sends back, before it becomes HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON, JPEG, BINARY, GEOJSON = "application/json", "image/jpeg", "application/octet-stream", "application/geo+json"


@dataclass(frozen=True)
class Answer:
    """What is sent back: a status of HTTP, the body and its media type, and further headers."""

    status: int
    body: bytes
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200) -> Answer:
    """A JSON value as an answer; NaN is refused."""
    return Answer(status, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def error_answer(status: int, error: str, remedy: str = "") -> Answer:
    """A failure, in words."""
    return json_answer({"error": error, "remedy": remedy}, status)
