"""What a MIRAX slide says of its images: looked at before OpenSlide is, which ends the process on some of what is here.

The scanner takes photos that overlap a little, and cuts each into `divisions` x `divisions` images. Images of a coarser
level join those of level 0. Not every photo is taken: what lies between is glass. But where a coarser level shows what
level 0 lacks, or the other way round, the index or a copy of it is damaged: OpenSlide would show white there.
"""

from __future__ import annotations

import configparser
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import COPY_AGAIN, SlideError
from .checks import MAX_SIDE
from .identity import slide_files
from .left_out import LeftOut
from .tiff_pages import file_key

MAX_IMAGES, MAX_IMAGE_SIDE, MAX_LEVELS, MAX_FILES, MAX_PAGES = 10_000_000, 16_384, 32, 10_000, 100_000
MAX_INI_BYTES, MAX_INDEX_BYTES = 1 << 20, 1 << 30
_VERSION = "01.02"
_OVERLAPS = ("OVERLAP_X", "OVERLAP_Y")
_MAPS = ("VIMSLIDE_POSITION_BUFFER", "StitchingIntensityLayer")
_PLACE = np.dtype([("flag", "u1"), ("x", "<i4"), ("y", "<i4")])


@dataclass(frozen=True, eq=False)
class MiraxLayout:
    """The images of a slide.

    Attributes
    ----------
    there : tuple of bool [rows, columns]
        Of each level, which images it shows, as they were taken.
    concats : tuple of int
        Of each level, how many of them one of its own joins along a side.
    divisions : int
        Images of a photo, along one side.
    image_w, image_h : int
        Of an image as it was taken, pixels: level 0 may join some already.
    places : int64 [photo rows, photo columns, 2]
        Where photos begin, (x, y) of the same pixels.
    """

    there: tuple[NDArray[np.bool_], ...]
    concats: tuple[int, ...]
    divisions: int
    image_w: int
    image_h: int
    places: NDArray[np.int64]

    @property
    def lacking(self) -> Mapping[int, str]:
        """Levels that lack images which level 0 has, by their number, with the reason in words."""
        counts = {n: int((self.there[0] & ~there).sum()) for n, there in enumerate(self.there)}
        return {n: f"lacks {count} images of the slide" for n, count in counts.items() if count}

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Images that level 0 lacks although a coarser level shows them: bool [rows, columns].

        An image of a coarser level that joins photos may join some that were not taken, but not these alone.
        """
        full = self.there[0]
        found = np.zeros_like(full)
        for there, concat in zip(self.there[1:], self.concats[1:], strict=True):
            if self.divisions % concat:
                there = there & ~_spread(full, concat)
            found |= there & ~full
        return found

    def left_out(self, width: int, height: int) -> LeftOut | None:
        """The same in pixels of level 0, which is `width` x `height`; None where there is none."""
        missing = self.missing
        if not missing.any():
            return None
        side, joined = max(1, min(self.image_w, self.image_h) // 2), self.concats[0]
        cells = np.zeros((-(-height // side), -(-width // side)), bool)
        for row, column in np.argwhere(missing).tolist():
            x, y = self.places[row // self.divisions, column // self.divisions].tolist()
            x, y = x + column % self.divisions * self.image_w, y + row % self.divisions * self.image_h
            left, top = max(0, x) // joined // side, max(0, y) // joined // side
            right, bottom = (x + self.image_w) // joined, (y + self.image_h) // joined
            cells[top : max(0, -(-bottom // side)), left : max(0, -(-right // side))] = True
        return LeftOut(cells, side, side)


def _spread(there: NDArray[np.bool_], concat: int) -> NDArray[np.bool_]:
    """True for all images of level 0 under one of a coarser level where any of them is there."""
    rows, columns = there.shape
    padded = np.pad(there, ((0, -rows % concat), (0, -columns % concat)))
    blocks = padded.reshape(padded.shape[0] // concat, concat, padded.shape[1] // concat, concat).any((1, 3))
    return np.asarray(blocks.repeat(concat, 0).repeat(concat, 1)[:rows, :columns])


def read_mirax(path: Path) -> MiraxLayout | None:
    """The layout; None where the slide's Slidedat.ini is not there, of which OpenSlide tells.

    Raises
    ------
    SlideError
        What it says of its images contradicts itself, or no slide is so.
    """
    folder = path.with_suffix("")
    try:
        if not (folder / "Slidedat.ini").is_file():
            return None
        return _read_once(folder, tuple(file_key(part) for part in slide_files(path, "mirax")))
    except (KeyError, ValueError, ArithmeticError, struct.error, zlib.error, configparser.Error) as error:
        why = str(error) if isinstance(error, _ContradictionError) else "it cannot be read"
        raise SlideError(
            f"what its Slidedat.ini and its index say of the images is damaged: {why}", path=path, remedy=COPY_AGAIN
        ) from error


class _ContradictionError(ValueError):
    """What the files say cannot be, in words that quote nothing of them but numbers."""


def _need(good: bool, why: str) -> None:
    if not good:
        raise _ContradictionError(why)


@lru_cache(maxsize=4)
def _read_once(folder: Path, key: tuple[tuple[int, ...], ...]) -> MiraxLayout:
    """Cached by the identity of its files: the check before OpenSlide opens the slide and what comes later ask."""
    _need((folder / "Slidedat.ini").stat().st_size <= MAX_INI_BYTES, "Slidedat.ini is larger than any slide's")
    ini = configparser.RawConfigParser(delimiters=("=",), strict=False)
    ini.optionxform = str  # type: ignore[assignment,method-assign]
    ini.read_string((folder / "Slidedat.ini").read_text("utf-8-sig", "replace"))
    general, tree = ini["GENERAL"], ini["HIERARCHICAL"]
    columns, rows = int(general["IMAGENUMBER_X"]), int(general["IMAGENUMBER_Y"])
    divisions = int(general.get("CameraImageDivisionsPerSide", "1"))
    _need(min(columns, rows, divisions) > 0 and columns * rows <= MAX_IMAGES, f"{columns} x {rows} images")
    whole = columns % divisions == 0 and rows % divisions == 0
    _need(whole, f"{columns} x {rows} images are not whole photos of {divisions} x {divisions}")
    count = int(tree["HIER_0_COUNT"])
    _need(0 < count <= MAX_LEVELS, f"{count} levels")
    levels = [ini[tree[f"HIER_0_VAL_{number}_SECTION"]] for number in range(count)]
    exponents = np.cumsum([int(level["IMAGE_CONCAT_FACTOR"]) for level in levels]).tolist()
    _need(min(exponents) >= 0 and max(exponents) < MAX_LEVELS, "a level joins more images than any slide has")
    for level in levels:
        sides = int(level["DIGITIZER_WIDTH"]), int(level["DIGITIZER_HEIGHT"])
        _need(min(sides) > 0 and max(sides) <= MAX_IMAGE_SIDE, f"images of {sides[0]} x {sides[1]} px")
    first = levels[0]
    image_w, image_h = int(first["DIGITIZER_WIDTH"]), int(first["DIGITIZER_HEIGHT"])
    photo = image_w * divisions, image_h * divisions
    overlaps = [
        [_overlap(level[name], side / (1 << exponent)) for side, name in zip(photo, _OVERLAPS, strict=True)]
        for level, exponent in zip(levels, exponents, strict=True)
    ]
    steps = [side - overlap for side, overlap in zip(photo, overlaps[0], strict=True)]
    width, height = columns // divisions * steps[0], rows // divisions * steps[1]
    _need(max(width, height) <= MAX_SIDE, f"a picture of {width:.0f} x {height:.0f} px")
    files = int(ini["DATAFILE"]["FILE_COUNT"])
    _need(0 < files <= MAX_FILES, f"{files} data files")
    paths = [_file(folder, ini["DATAFILE"][f"FILE_{number}"], f"data file {number}") for number in range(files)]
    index = _index(_file(folder, tree["INDEXFILE"], "index"), general["SLIDE_ID"])
    concats = tuple(1 << exponent for exponent in exponents)
    there = tuple(_images(index, number, concat, columns, rows) for number, concat in enumerate(concats))
    _need(bool(there[0].any()), "its index names no image of level 0")
    photos = rows // divisions, columns // divisions
    places = _places(paths, tree, index, photos, steps, concats[0])
    taken = there[0].reshape(photos[0], divisions, photos[1], divisions).any((1, 3))
    for axis, (side, step) in enumerate(((width, steps[0]), (height, steps[1]))):
        at = places[taken][:, axis]
        far = bool((at < -abs(step)).any() or (at > side + abs(step)).any())
        _need(not far, "a photo lies off the slide")
    return MiraxLayout(there, concats, divisions, image_w, image_h, places)


def _overlap(text: str, photo: float) -> float:
    overlap = float(text)
    _need(math.isfinite(overlap) and abs(overlap) < photo, "photos overlap by more than their size")
    return overlap


def _file(folder: Path, name: str, what: str) -> Path:
    """A file of the slide, which lies in its folder; a pipe or a device is none."""
    _need(Path(name).name == name and (folder / name).is_file(), f"its {what} is not there")
    return folder / name


@dataclass(frozen=True)
class _Index:
    """The bytes of Index.dat, as numbers where they are asked for."""

    data: bytes
    root: int

    def number(self, at: int) -> int:
        (value,) = struct.unpack_from("<i", self.data, at)
        _need(value >= 0 and at >= 0, "its index points before its begin")
        return int(value)


def _index(path: Path, slide_id: str) -> _Index:
    _need(path.stat().st_size <= MAX_INDEX_BYTES, "its index is larger than any slide's")
    data, head = path.read_bytes(), (_VERSION + slide_id).encode()
    _need(data.startswith(head), "its index is another slide's, or of another version")
    return _Index(data, len(head))


def _images(index: _Index, level: int, concat: int, columns: int, rows: int) -> NDArray[np.bool_]:
    """Which images of level 0 a level shows: bool [rows, columns]."""
    at = index.number(index.number(index.root) + 4 * level)
    _need(index.number(at) == 0, "its index is torn")
    at, found = index.number(at + 4), np.zeros((-(-rows // concat), -(-columns // concat)), bool)
    for _ in range(MAX_PAGES):
        count, follows = index.number(at), index.number(at + 4)
        entries = np.frombuffer(index.data, "<i4", 4 * count, at + 8).reshape(-1, 4)
        _need(bool((entries >= 0).all()), "its index points before its begin")
        row, column = entries[:, 0] // columns, entries[:, 0] % columns
        good = (row < rows) & (row % concat == 0) & (column % concat == 0)
        _need(bool(good.all()), f"an image of level {level} lies off its grid")
        cells = row // concat, column // concat
        flat = np.ravel_multi_index(cells, found.shape)
        twice = found[cells].any() or len(np.unique(flat)) < len(flat)
        _need(not twice, f"two images of level {level} lie in one place")
        found[cells] = True
        at += 8 + 16 * count
        if follows == 0:
            return np.asarray(found.repeat(concat, 0).repeat(concat, 1)[:rows, :columns])
    raise _ContradictionError("its index has no end")


def _places(
    paths: list[Path],
    tree: Mapping[str, str],
    index: _Index,
    photos: tuple[int, int],
    steps: list[float],
    concat: int,
) -> NDArray[np.int64]:
    """Where photos begin, pixels of level 0: by the slide's map of them, or one step after another."""
    record, found = 0, dict[str, int]()
    for number in range(min(int(tree["NONHIER_COUNT"]), MAX_LEVELS * MAX_LEVELS)):
        found.setdefault(tree[f"NONHIER_{number}_NAME"], record)
        record += int(tree[f"NONHIER_{number}_COUNT"])
    name = next((name for name in _MAPS if name in found), None)
    if name is None:
        grid = np.meshgrid(np.arange(photos[1]) * steps[0], np.arange(photos[0]) * steps[1])
        return np.stack(grid, -1).astype(np.int64)
    at = index.number(index.number(index.number(index.root + 4) + 4 * found[name]) + 4)
    offset, size, number = (index.number(at + skip) for skip in (16, 20, 24))
    _need(number < len(paths), "its map of photos lies in no file")
    wanted = photos[0] * photos[1] * _PLACE.itemsize
    with paths[number].open("rb") as handle:
        handle.seek(offset)
        data = handle.read(min(size, 2 * wanted + 1024))
    if name == _MAPS[1]:
        data = zlib.decompressobj().decompress(data, wanted + 1)
    _need(len(data) == wanted, "its map of photos has another number of them")
    map_ = np.frombuffer(data, _PLACE).reshape(photos)
    return np.stack([map_["x"], map_["y"]], -1).astype(np.int64) * concat
