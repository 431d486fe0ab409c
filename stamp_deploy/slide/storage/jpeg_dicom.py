"""DICOM whole-slide images of JPEG or JPEG 2000 frames: the levels of a series, and the index of their frames.

Opened without OpenSlide, which reads less of the standard and parses an item for each frame. What is not read here, and
why, is a sentence; OpenSlide then tries the slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import SlideError
from ..backends import Backend, Level, levels_of_sizes
from ..backends.by_storage import StorageReader
from ..checks import MAX_SIDE
from ..dicom import volume_instances
from ..dicom.elements import PER_FRAME, HeaderError
from ..dicom.frames import Frames, find_frames
from ..dicom.part import Part, read_part
from ..dicom.positions import NOT_STATED, read_per_frame
from .index import MAX_TILE_SIDE, MIN_TILE_SIDE, Framing, StorageGrid, StorageIndex

MAX_CELLS = 40_000_000
"""Places of frames in one level, there or not."""
MAX_PARTS = 1_000


def jpeg_dicom(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """Why a slide that was not opened by its index is left to another reader (see providers.py)."""
    reader = open_jpeg_dicom(path)
    reason = reader if isinstance(reader, str) else "that was asked for"
    return f"format dicom is read by {backend.name}: {reason}"


def open_jpeg_dicom(path: Path) -> StorageReader | str:
    """A reader of the slide that a DICOM file belongs to, or why it is left to OpenSlide.

    Raises
    ------
    SlideError
        The files of the series contradict each other or themselves, or some are missing.
    OSError
        A file cannot be read.
    """
    parts: list[Part] = []
    for instance in volume_instances(path):
        part = read_part(instance.path)
        if isinstance(part, str):
            return part  # all levels by one reader
        parts.append(part)
    if not 0 < len(parts) <= MAX_PARTS:
        return f"its series holds {len(parts)} levels and parts of levels"
    levels: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        levels.setdefault((part.width, part.height), []).append(part)
    files = tuple(part.path for part in parts)
    numbers = {part.path: number for number, part in enumerate(parts)}
    grids, notes = [], []
    for size in sorted(levels, reverse=True):
        whole = levels[size]
        if len({part.source_uid for part in whole}) > 1:
            return "several of its images have one size"
        try:
            grid, note = _grid(whole, numbers)
        except HeaderError as error:
            raise SlideError(
                f"contradicts itself: {error}", path=whole[0].path, remedy="copy or export the series again"
            ) from error
        grids.append((grid,))
        notes += [note] if note else []
    full = levels[max(levels)][0]
    shapes = [grid for (grid,) in grids]
    return StorageReader(
        StorageIndex(files, tuple(grids)),
        levels_of_sizes((grid.width, grid.height) for grid in shapes),
        "dicom",
        full.properties(shapes),
        notes=tuple(dict.fromkeys(notes)),
        icc=full.icc,
    )


def _grid(parts: Sequence[Part], numbers: dict[Path, int]) -> tuple[StorageGrid, str]:
    """The frames of one level, which may be cut into parts (a concatenation), and what is to be told of them.

    Raises
    ------
    HeaderError
        What the parts say does not fit together.
    """
    first = parts[0]
    _check_alike(parts)
    shape = -(-first.height // first.tile_height), -(-first.width // first.tile_width)
    if not (0 < first.width <= MAX_SIDE and 0 < first.height <= MAX_SIDE) or shape[0] * shape[1] > MAX_CELLS:
        raise HeaderError(f"it states {first.width} x {first.height} px")
    parts = _in_order(parts)
    found = [_frames(part) for part in parts]
    offsets, sizes = np.concatenate([f.offsets for f in found]), np.concatenate([f.sizes for f in found])
    files = np.repeat(np.array([numbers[part.path] for part in parts], np.int32), [len(f.offsets) for f in found])
    if first.is_full:
        chosen, note = _full(first, offsets, shape)
    else:
        cells = _sparse(parts, shape)
        chosen, note = np.full(shape[0] * shape[1], -1, np.int64), ""
        chosen[cells] = np.arange(len(cells))
        if np.count_nonzero(chosen >= 0) != len(cells):
            raise HeaderError("it holds two frames for one place")
    there = chosen >= 0
    grid = StorageGrid(
        width=first.width,
        height=first.height,
        tile_width=first.tile_width,
        tile_height=first.tile_height,
        photometric=first.photometric,
        tables=b"",
        offsets=np.where(there, offsets[chosen], 0).reshape(shape),
        sizes=np.where(there, sizes[chosen], 0).reshape(shape),
        files=np.where(there, files[chosen], files[0]).astype(np.int32).reshape(shape),
        framing=Framing.DICOM_ITEMS,
        coding=first.coding,
        absent_is_glass=True,
    )
    return grid, note


def _check_alike(parts: Sequence[Part]) -> None:
    first = parts[0]
    if not all(MIN_TILE_SIDE <= side <= MAX_TILE_SIDE for side in (first.tile_width, first.tile_height)):
        raise HeaderError(f"its frames are {first.tile_width} x {first.tile_height} px")
    for part in parts[1:]:
        if part.like != first.like:
            raise HeaderError("the parts of one image differ in how they are coded")


def _in_order(parts: Sequence[Part]) -> list[Part]:
    """The parts of a concatenation, each beginning with the frame after the last one of the part before."""
    ordered, expected = sorted(parts, key=lambda part: part.first_frame), 0
    for part in ordered:
        if part.first_frame != expected:
            raise HeaderError(f"frames {expected} to {part.first_frame} of one image are missing, or there twice")
        expected += part.frames
    total = max(part.total_parts for part in parts)
    if total and total != len(parts):
        raise HeaderError(f"{len(parts)} of {total} parts of one image are there")
    return ordered


def _frames(part: Part) -> Frames:
    with part.path.open("rb", buffering=1 << 16) as handle:
        return find_frames(handle, part.header, part.frames, part.size_bytes)


def _full(first: Part, offsets: NDArray[np.int64], shape: tuple[int, int]) -> tuple[NDArray[np.int64], str]:
    """The frame of each place, flat, where all are there: column by column, row by row, then planes, then paths."""
    places = shape[0] * shape[1]
    if len(offsets) != places * first.focal_planes * first.optical_paths:
        raise HeaderError(
            f"it states {len(offsets)} frames, and its {first.width} x {first.height} px need "
            f"{places * first.focal_planes * first.optical_paths}"
        )
    plane = first.focal_planes // 2
    chosen = np.arange(places) + places * (first.brightfield_path * first.focal_planes + plane)
    note = f"it holds {first.focal_planes} focal planes: number {plane + 1} of them, the middle one, is read"
    return chosen, note if first.focal_planes > 1 else ""


def _sparse(parts: Sequence[Part], shape: tuple[int, int]) -> NDArray[np.int64]:
    """The place of each frame, flat, by the positions that the frames state."""
    first = parts[0]
    columns, rows = (np.empty(0, np.int64) for _ in range(2))
    for part in parts:
        element = part.header.elements.get(PER_FRAME)
        if element is None:
            raise HeaderError("it states no place for its frames")
        with part.path.open("rb") as handle:
            found = read_per_frame(handle, element.start, element.end, part.size_bytes)
        if len(found.columns) != part.frames:
            raise HeaderError(f"it states places for {len(found.columns)} of {part.frames} frames")
        columns, rows = np.append(columns, found.columns), np.append(rows, found.rows)
    if (columns == NOT_STATED).any() or (rows == NOT_STATED).any():
        raise HeaderError("it states no place for some of its frames")
    across, down = columns - 1, rows - 1
    if (across % first.tile_width).any() or (down % first.tile_height).any():
        raise HeaderError("its frames do not lie side by side")
    across, down = across // first.tile_width, down // first.tile_height
    if across.min() < 0 or down.min() < 0 or across.max() >= shape[1] or down.max() >= shape[0]:
        raise HeaderError("a frame lies outside of the picture")
    return down * shape[1] + across
