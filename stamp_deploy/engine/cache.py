"""What an engine may keep on this machine: converted encoders, TensorRT plans, and which engine was fastest.

Everything lies below one folder of the user (user_cache.py). A plan is machine code in all but name, so the folder must
belong to the user who runs and be writable by nobody else. Entries appear whole or not at all; a bundle, which may be
read-only, is never written to.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..atomic import disk_errors, write_json_atomic
from ..errors import DiskError, EngineError, StampError
from ..system import log
from ..system.user_cache import user_cache

MAX_ENTRY_BYTES = 1 << 20


def cache_dir() -> Path:
    """The cache folder, made and checked.

    Raises
    ------
    EngineError
        It belongs to somebody else, or others may write to it.
    DiskError
        It cannot be made.
    """
    try:
        folder = user_cache()
    except RuntimeError as error:
        raise EngineError("this user has no home folder to cache in", remedy="name one with STAMP_CACHE_DIR") from error
    with disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            "the cache folder belongs to another user or can be written by others, so nothing in it can be trusted",
            path=folder,
            remedy="chmod go-w it, or name another with STAMP_CACHE_DIR",
        )
    return folder


def cache_folder(name: str, what: str) -> Path | None:
    """A folder of the cache for `what`, which may not exist yet; None, and a warning, where there is no cache."""
    try:
        return cache_dir() / name
    except StampError as error:
        log.event(f"no cache for {what}", level=logging.WARNING, cause=error.cause)
        return None


def key_of(*parts: object) -> str:
    """A file name out of anything: 24 hexadecimal digits of the SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def read_entry(path: Path) -> dict[str, Any] | None:
    """A JSON object from the cache; None where there is none or it cannot be understood."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_ENTRY_BYTES:
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_entry(path: Path, value: dict[str, Any]) -> bool:
    """Keep a JSON object; a cache that cannot be written is not an error. Says whether it was kept."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json_atomic(path, value)
    except (OSError, DiskError):
        return False
    return True


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a folder beside `final` that becomes `final` when the block succeeds, unless somebody was faster."""
    staging = final.with_name(f".partial-{secrets.token_hex(4)}-{final.name}")
    with disk_errors(final):
        staging.mkdir(mode=0o700, parents=True)
        try:
            yield staging
            try:
                os.rename(staging, final)
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
