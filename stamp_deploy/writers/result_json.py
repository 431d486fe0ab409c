"""result.json: the whole record but for the per-tile arrays."""

from __future__ import annotations

import json
from pathlib import Path

from ..result import Result

NAME = "json"
NEEDS: tuple[str, ...] = ()


def write(result: Result, directory: Path) -> list[Path]:
    """Write result.json: UTF-8, indented, no NaN (schema in docs/result.md)."""
    path = directory / "result.json"
    text = json.dumps(result.to_json_dict(), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return [path]
