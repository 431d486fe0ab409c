"""Slides out of an archive: each level as it is stored, streamed to the disk, checked, and renamed when it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..atomic import disk_errors, fsync_path, staging_name, sweep
from ..errors import ArchiveError
from .client import Client
from .query import InstanceRow, SeriesRow, find_instances
from .received import Received, check_received
from .retrieve import retrieve
from .retry import Retry

Fetch = Callable[[InstanceRow, Path], object]


@dataclass(frozen=True)
class Pulled:
    """A slide that is here.

    Attributes
    ----------
    folder : Path
        Holds its levels and nothing else.
    instances : tuple of str
        Their SOP Instance UIDs, sorted.
    fetched : int
        How many of them were not here before.
    size_bytes : int
        Of what was fetched.
    """

    folder: Path
    instances: tuple[str, ...]
    fetched: int
    size_bytes: int


def pull_series(client: Client, row: SeriesRow, out: Path) -> Pulled:
    """Fetch the levels of a slide that are not here yet into ``out/SERIES/UID.dcm``.

    Raises
    ------
    ArchiveError
        The archive fails, or the series holds no slide.
    DiskError
        The files cannot be written; nothing half-written is left.
    """

    def fetch(wanted: InstanceRow, path: Path) -> None:
        retrieve(client, wanted.study, wanted.series, wanted.uid, path)

    return pull_instances(find_instances(client, row.study, row.series), out / row.series, fetch, client.retry)


def pull_instances(rows: Iterable[InstanceRow], folder: Path, fetch: Fetch, retry: Retry) -> Pulled:
    """Fetch those instances that are levels of a slide and not in the folder yet.

    Parameters
    ----------
    fetch : callable
        Brings an instance into a new file; one attempt.
    retry : Retry
        For fetching an instance and checking it.

    Raises
    ------
    ArchiveError, DiskError
        As `pull_series`.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, ".partial-*")
    got, fetched, size = [], 0, 0
    for instance in rows:
        path = folder / f"{instance.uid}.dcm"
        if not _is_here(path, instance):
            here = _fetch(fetch, retry, instance, path)
            if here == 0:
                continue  # a label or an overview, which the list did not tell
            fetched, size = fetched + 1, size + here
        got.append(instance.uid)
    if not got:
        _remove_empty(folder)
        raise ArchiveError("the series holds no level of a slide", remedy="ask for a series of whole-slide images")
    _drop_others(folder, got)
    with disk_errors(folder):
        fsync_path(folder)
    return Pulled(folder, tuple(sorted(got)), fetched, size)


def _is_here(path: Path, wanted: InstanceRow) -> bool:
    """Whether an earlier pull fetched it: names are given only to files that are whole."""
    try:
        return path.is_file() and check_received(path, wanted).is_level
    except (ArchiveError, OSError):
        return False


def _fetch(fetch: Fetch, retry: Retry, wanted: InstanceRow, path: Path) -> int:
    """Bytes of an instance that is now at `path`; 0 where it is no level, and is not kept."""
    staging = path.with_name(staging_name(path.name))

    def attempt() -> Received:
        staging.unlink(missing_ok=True)
        fetch(wanted, staging)
        with disk_errors(path):
            return check_received(staging, wanted)

    try:
        if not retry.call(attempt).is_level:
            return 0
        with disk_errors(path):
            size = staging.stat().st_size
            fsync_path(staging)
            os.replace(staging, path)
        return size
    finally:
        staging.unlink(missing_ok=True)


def _drop_others(folder: Path, kept: Iterable[str]) -> None:
    """Remove levels of an earlier pull that the archive no longer lists: they are not of this slide any more."""
    names = {f"{uid}.dcm" for uid in kept}
    for path in folder.glob("*.dcm"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
