"""The output folder of a batch: it belongs to one bundle and one set of options, and what is broken in it is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..atomic import is_done, sweep, write_json_atomic
from ..bundle import Bundle
from ..errors import DiskError, UsageError
from .options import BatchOptions
from .planning.plan import Finding
from .records.audit import read_audit
from .records.claim_file import create_json_once
from .states import FindingKind

CONFIG_FILE = "config.json"
Tell = Callable[[Finding], None]
"""Told of what was found and mended."""


def open_output(options: BatchOptions, bundle: Bundle, tell: Tell = lambda finding: None) -> None:
    """Make the output folder, or check that what it holds came from the same bundle and options.

    A damaged record of these is written again where the audit log shows that every run was with them, or where there
    is no result yet.

    Raises
    ------
    UsageError
        When the folder belongs to another bundle or other options, or nothing shows that it does not: results must
        not be mixed.
    DiskError
        When it cannot be made.
    """
    path = options.state / CONFIG_FILE
    ours = {
        "bundle_sha256": bundle.sha256,
        "options": {
            **replace(options.infer, mpp=None).scoring_dict(),
            "writers": sorted(options.infer.writers),
        },
    }
    try:
        options.state.mkdir(parents=True, exist_ok=True)
        sweep(options.state, ".*")
        if not path.exists():
            create_json_once(path, ours)
        theirs = _read(path)
    except OSError as error:
        raise DiskError(
            f"the output folder cannot be used: {error.strerror}",
            remedy="name another with -o",
            path=options.out,
        ) from error
    if theirs is None:
        if not _was_always(options, bundle):
            raise UsageError(
                f"the record of bundle and options, {path.parent.name}/{CONFIG_FILE}, is damaged, and the results "
                "may be of others",
                remedy=f"name another folder with -o; if they are all of this bundle, delete {CONFIG_FILE}",
                path=options.out,
            )
        write_json_atomic(path, ours)
        detail = f"{CONFIG_FILE} was damaged and is written again: every run was with this bundle and these options"
        tell(Finding(FindingKind.REPAIRED, "", detail))
        return
    if theirs != ours:
        what = "another bundle" if theirs.get("bundle_sha256") != bundle.sha256 else "other options"
        raise UsageError(
            f"the output folder holds results of {what}",
            remedy="name another folder with -o",
            path=options.out,
        )


@contextmanager
def system_errors(out: Path) -> Iterator[None]:
    """Turn what the operating system refuses, and nothing below has put into words, into a DiskError.

    Raises
    ------
    DiskError
        Naming the file concerned, or the output.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"the operating system refuses: {error.strerror or error}",
            path=os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else out,
            remedy="check the disk, its permissions and its network; then run the same command again",
        ) from error


def _read(path: Path) -> dict[str, Any] | None:
    """The record; None where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and {"bundle_sha256", "options"} <= value.keys() else None


def _was_always(options: BatchOptions, bundle: Bundle) -> bool:
    """Whether every run that the audit logs know was with this bundle and these options, or nothing was scored yet."""
    runs = [
        (event.get("bundle_sha256"), event.get("config_sha256"))
        for path in options.state.glob("audit-*.jsonl")
        if path.is_file()
        for event in read_audit(path)
        if event.get("event") == "run"
    ]
    if not runs:
        return not any(is_done(folder) for folder in options.out.iterdir() if folder.is_dir())
    return set(runs) == {(bundle.sha256, options.infer.sha256())}
