"""From what the user named (files, folders, globs, CSV manifests) to a list of slides."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ...tables import Table, read_table
from ...units import MAX_MPP, MIN_MPP
from .dicom_series import SeriesOf, read_series
from .folder import EXTENSIONS, Skipped, find_slides

__all__ = ["EXTENSIONS", "Entry", "expand_inputs", "find_slides", "read_manifest"]

MANIFESTS = frozenset({".csv", ".tsv"})
SLIDE_COLUMNS = ("slide", "path", "file", "filename", "wsi")
CASE_COLUMNS = ("case_id", "case")
"""Columns of a manifest, the first that exists is taken."""


@dataclass(frozen=True)
class Entry:
    """A slide as asked for; its `mpp` is a manifest's and outranks what the slide records."""

    path: Path
    mpp: float | None = None
    case_id: str = ""


def expand_inputs(
    inputs: Iterable[Path],
    *,
    skip: Path | None = None,
    series_of: SeriesOf = read_series,
    skipped: Skipped | None = None,
) -> list[Entry]:
    """Turn files, folders, globs and CSV manifests into slides.

    Parameters
    ----------
    inputs : iterable of Path
        A folder is searched for slides (folder.py), sub-folders and linked ones included, hidden ones not.
    skip : Path, optional
        A folder not to search (the output).
    series_of : callable
        Gives the series of a DICOM file; a batch reads it in a child process.
    skipped : Skipped, optional
        Told of what was left out of folders.

    Raises
    ------
    UsageError
        For a manifest that is not understood, or where nothing is found at all.
    """
    entries: list[Entry] = []
    for item in inputs:
        if os.path.isdir(item):
            entries += [Entry(path) for path in find_slides(item, skip=skip, series_of=series_of, skipped=skipped)]
        elif item.suffix.lower() in MANIFESTS:
            entries += read_manifest(item)
        elif not os.path.lexists(item) and glob.has_magic(str(item)):
            matches = sorted(glob.glob(str(item), recursive=True))
            entries += [Entry(Path(match)) for match in matches if os.path.isfile(match)]
        else:
            entries.append(Entry(item))
    unique: dict[str, Entry] = {}
    for entry in entries:
        unique.setdefault(os.path.abspath(entry.path), entry)
    if not unique:
        raise UsageError("no slides were found", remedy="name slide files, folders, globs or a CSV manifest")
    return list(unique.values())


def read_manifest(path: Path) -> list[Entry]:
    """Read a manifest (CSV or TSV) with the column ``slide`` and, optionally, ``mpp`` and ``case_id``.

    Slides are relative to the manifest's folder; further columns are left alone.

    Raises
    ------
    UsageError
        No column of slides, a row without a slide, or an mpp that is no believable resolution.
    """
    table = read_table(path)
    slide = table.column(*SLIDE_COLUMNS, what="slides")
    case = table.column(*CASE_COLUMNS) if any(map(table.has, CASE_COLUMNS)) else ""
    mpp = table.column("mpp") if table.has("mpp") else ""
    entries = []
    for i, row in enumerate(table.rows):
        if not row[slide]:
            raise table.refuse(f"line {table.lines[i]} names no slide", "name its file, or remove the line")
        entries.append(Entry(path.parent / row[slide], _mpp(table, i) if mpp else None, row[case] if case else ""))
    return entries


def _mpp(table: Table, row: int) -> float | None:
    value = table.optional_number(row, "mpp")
    if value is not None and not MIN_MPP <= value <= MAX_MPP:
        raise table.refuse(
            f"line {table.lines[row]}: mpp {value:g} is no believable resolution",
            f"give microns per pixel, {MIN_MPP:g} to {MAX_MPP:g}",
        )
    return value
