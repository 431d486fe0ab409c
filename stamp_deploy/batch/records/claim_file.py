"""The file of one claim: what it says, and how it comes to exist once and whole."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DiskError
from ..states import AttemptState

UNREADABLE = "claim file unreadable"


@dataclass(frozen=True)
class ClaimRecord:
    """What the claim file of one attempt says.

    ``state`` is RUNNING while held, and how the attempt ended when released.
    """

    key: str
    attempt: int
    token: str
    host: str
    pid: int
    pid_started: str
    state: AttemptState
    reason: str = ""


@contextlib.contextmanager
def claim_errors(path: Path) -> Iterator[None]:
    """An OSError while a claim is written is a DiskError that names it."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write a claim: {error.strerror}", remedy="free some space and run again", path=path
        ) from error


def parse_claim(value: Any, key: str, attempt: int) -> ClaimRecord:
    """The record in a claim file; ValueError, TypeError or KeyError where it holds something else."""
    record = ClaimRecord(**{**value, "state": AttemptState(value["state"])})
    texts = (record.token, record.host, record.pid_started, record.reason)
    if (record.key, record.attempt) != (key, attempt) or not all(isinstance(text, str) for text in texts):
        raise ValueError("the claim of another slide, or of another kind")
    running = record.state == AttemptState.RUNNING
    if running and not (type(record.pid) is int and record.pid > 0 and record.host and record.pid_started):
        raise ValueError("the claim names no holder")
    return record


def create_json_once(path: Path, value: object) -> bool:
    """Write a JSON file that nobody has written yet; False, and nothing changed, where it exists.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        return link_exclusively(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def link_exclusively(source: Path, target: Path) -> bool:
    """Give a complete file its name, unless the name exists; True when this call did it."""
    try:
        os.link(source, target)
        return True
    except FileExistsError:
        return False
    except OSError:
        # No hard links (exFAT, some object-store mounts): O_EXCL is the next best thing.
        try:
            handle = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(source.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            target.unlink(missing_ok=True)
            raise
        return True
