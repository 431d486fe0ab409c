"""Logs for machines: one JSON object per line on standard error, without patient data.

Folder names can identify patients, so a path is logged by its file name's hash only, unless the
user asks for names.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

_FIELDS = "stamp_fields"
# without `setup` nothing is shown: not even by Python's handler of last resort, as a bare line among the command's own
logging.getLogger("stamp_deploy").addHandler(logging.NullHandler())


class JsonFormatter(logging.Formatter):
    """A record as one JSON line: time (UTC, ISO 8601), level, event, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, _FIELDS, {}))
        return json.dumps(line, ensure_ascii=False, default=str)


def setup(level: str = "warning", stream: TextIO | None = None) -> None:
    """Send the package's log records to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("stamp_deploy")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event with its fields."""
    logging.getLogger("stamp_deploy").log(level, name, extra={_FIELDS: fields})


def slide_token(path: Path) -> str:
    """A short, stable stand-in for a slide's file name in logs (12 hex digits of its SHA-256)."""
    return sha256(os.fsencode(path.name)).hexdigest()[:12]
