"""An open slide: its levels, its resolution with the evidence for it, and which route reads its tiles."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import SlideError
from ..system.memory import release_memory
from .backends import Backend, Level
from .colour import check_brightfield
from .held import HeldFiles
from .icc import Colours
from .identity import slide_files, slide_sha256
from .left_out import LeftOut
from .mpp import MppFinding
from .properties import public_properties, scanned_bounds
from .read_faults import read_again
from .route import Route
from .storage.index import StorageIndex

STRIP_ROWS, STRIP_BYTES = 256, 8_000_000
"""Rows and bytes of a thumbnail's source that are held at once, at most."""
DAMAGE_BLOCK_PX, MAX_DAMAGE = 256, 200
"""How finely a damaged strip is read again, and how many blocks may fail before the slide is given up."""


class Slide:
    """An open slide.

    Attributes
    ----------
    path : Path
    vendor : str
    levels : tuple of Level
        Level 0 is the full resolution.
    level_numbers : tuple of int
        The number of each in the file: levels that do not show the slide are left out.
    mpp : MppFinding
        Microns per level-0 pixel and the evidence.
    route : Route
    properties : dict of str
        Allow-listed vendor fields, none of which can identify a patient.
    bounds : (x, y, width, height), optional
        The box that holds everything scanned, where the file states one: level-0 pixels.
    size_bytes : int
        Of all files that are scored.
    notes : tuple of str
        What a reader of the result should know of the file, such as levels that were left out.
    deadline : float
        Moment of time.monotonic() at which a thumbnail that is being read is given up.
    damage : list of (x, y, w, h)
        Blocks that the last thumbnail could not show, level-0 pixels.
    storage : StorageIndex, optional
        Where the storage tiles lie, one entry for each of `levels`; None where the compiled tiler cannot read the file.
    colours : Colours
        Its ICC profile, and whether tiles are converted by it.
    left_out : LeftOut, optional
        What the file leaves out, which its format may: background.
    missing : LeftOut, optional
        What the file lacks although its format leaves out nothing: damage.
    """

    def __init__(
        self,
        path: Path,
        backend: Backend,
        mpp: MppFinding,
        route: Route,
        *,
        held: HeldFiles,
        levels: tuple[Level, ...],
        colours: Colours,
        level_numbers: tuple[int, ...],
        notes: tuple[str, ...] = (),
        accept: frozenset[str] = frozenset(),
        storage: StorageIndex | None = None,
        left_out: LeftOut | None = None,
        missing: LeftOut | None = None,
    ) -> None:
        self.path = path
        self.vendor = backend.vendor
        self.levels = levels
        self.mpp = mpp
        self.route = route
        self.notes = notes
        self.colours = colours
        self.properties = {**public_properties(backend.properties), **colours.properties}
        self.bounds = scanned_bounds(backend.properties)
        self._parts = slide_files(path, backend.vendor)
        held.add(self._parts)
        self._held = held
        self.size_bytes = sum(part.stat().st_size for part in self._parts)
        self._backend = backend
        self.level_numbers = level_numbers
        self._accept = accept
        self.storage = storage
        self.left_out, self.missing = left_out, missing
        self.deadline = math.inf
        self._sha256: str | None = None
        self.damage: list[tuple[int, int, int, int]] = []
        self._thumbnail: NDArray[np.uint8] | None = None
        self._hashing = threading.Lock()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.path.name}: {self.width} x {self.height} px at "
            f"{self.mpp.mpp_x:g} x {self.mpp.mpp_y:g} um/px, {self.route.name}>"
        )

    @property
    def width(self) -> int:
        """Width of level 0, pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height of level 0, pixels."""
        return self.levels[0].height

    @property
    def mpp_xy(self) -> tuple[float, float]:
        """(mpp_x, mpp_y), microns per level-0 pixel."""
        return self.mpp.mpp_x, self.mpp.mpp_y

    def read_region(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region: uint8 [h, w, 3], white beyond the image.

        Parameters
        ----------
        level : int
        x, y : int
            Top-left corner in level-0 pixels.
        w, h : int
            Size in the level's pixels.

        Raises
        ------
        SlideError
            The file cannot be decoded there; the slide stays usable.
        ReadError
            The disk, the network or memory failed, and went on failing.
        """
        number = self.level_numbers[level]

        def read() -> NDArray[np.uint8]:
            return self._backend.read(number, x, y, w, h)

        try:
            return read()
        except (SlideError, MemoryError) as error:
            return read_again(read, error, self.path, self._parts)

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        """The whole slide as RGB, uint8 [h, w, 3], its longer side at most `max_px`.

        Read in strips from the coarsest pyramid level that is fine enough, so that memory stays bounded. The last
        one is kept: one that is asked for next, and is smaller, is made from it instead of from the file.

        Raises
        ------
        SlideError
            Too much of it cannot be decoded, or it shows fluorescence.
        """
        longest = max(self.width, self.height)
        if self._thumbnail is not None and max(self._thumbnail.shape) >= min(max_px, longest):
            scale = max(longest / max_px, 1)
            size = max(1, round(self.width / scale)), max(1, round(self.height / scale))
            if size == self._thumbnail.shape[1::-1]:
                return self._thumbnail
            return np.asarray(Image.fromarray(self._thumbnail).resize(size, Image.Resampling.BOX))
        self.damage = self.missing.rectangles() if self.missing is not None else []
        picture = self._read_thumbnail(max_px)
        check_brightfield(picture, self.path, self._accept)
        self._thumbnail = picture
        self._backend.forget()
        release_memory()
        return self._thumbnail

    def _read_thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        scale = max(self.width, self.height) / max_px
        level = max(
            (lv for lv in self.levels if max(lv.downsample_x, lv.downsample_y) <= max(scale, 1.0)),
            key=lambda lv: lv.downsample_x,
        )
        out_w, out_h = max(1, round(self.width / max(scale, 1))), max(1, round(self.height / max(scale, 1)))
        ratio_x, ratio_y = level.width / out_w, level.height / out_h
        whole_ratio = ratio_x == ratio_y == int(ratio_x)  # then the strips are reduced to the end
        factor = max(1, int(ratio_x) if whole_ratio else int(min(ratio_x, ratio_y) / 2))
        rows_at_once = min(STRIP_ROWS, STRIP_BYTES // (level.width * 3))
        strip = max(factor, rows_at_once // factor * factor)
        parts, holes = [], []
        for top in range(0, level.height, strip):
            self._check_deadline()
            rows = min(strip, level.height - top)
            pixels = self._read_strip(level, top, rows)
            if self.vendor == "dicom" and self.storage is None:  # which frames are there the pixels alone tell
                holes.append(_reduce_all(self._backend.transparent, pixels.shape[:2], factor))
            parts.append(np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels)
        whole = np.concatenate(parts)
        if any(part.any() for part in holes):
            self.left_out = LeftOut(np.concatenate(holes), level.downsample_x * factor, level.downsample_y * factor)
        del parts, pixels
        if whole.shape[:2] == (out_h, out_w):
            return whole
        return np.asarray(Image.fromarray(whole).resize((out_w, out_h), Image.Resampling.BOX, reducing_gap=None))

    def _read_strip(self, level: Level, top: int, rows: int) -> NDArray[np.uint8]:
        """Rows of a level, uint8 [rows, w, 3]; blocks that cannot be decoded are white and noted in `damage`."""
        try:
            return self.read_region(level.index, 0, round(top * level.downsample_y), level.width, rows)
        except SlideError:
            pass
        out = np.full((rows, level.width, 3), 255, np.uint8)
        damaged = len(self.damage) - (len(self.missing.rectangles()) if self.missing is not None else 0)
        for y in range(top, top + rows, DAMAGE_BLOCK_PX):
            for x in range(0, level.width, DAMAGE_BLOCK_PX):
                w, h = min(DAMAGE_BLOCK_PX, level.width - x), min(DAMAGE_BLOCK_PX, top + rows - y)
                self._check_deadline()
                x0, y0 = round(x * level.downsample_x), round(y * level.downsample_y)
                try:
                    out[y - top : y - top + h, x : x + w] = self.read_region(level.index, x0, y0, w, h)
                except SlideError:
                    self.damage.append((x0, y0, round(w * level.downsample_x), round(h * level.downsample_y)))
                    damaged += 1
                    if damaged > MAX_DAMAGE:
                        raise
        return out

    def _check_deadline(self) -> None:
        if time.monotonic() > self.deadline:
            raise SlideError(
                "was given up: reading its thumbnail took longer than the time limit allows",
                path=self.path,
                remedy="raise --time-limit, or look at the slide with `stamp-deploy inspect`",
            )

    def sha256(self) -> str:
        """SHA-256 that identifies the slide, hex (see identity.py). Cached, in any thread, also of a closed slide.

        Raises
        ------
        SlideError
            It cannot be read, or has changed since it was opened: asked for at the end, it vouches for what was read.
        """
        with self._hashing:
            before = self._sha256
            self._sha256 = None
            digest = before or self._hash()
            if not self._held.check():
                # links or rights have changed, or somebody has set the time of a change back
                if before is None or self._hash() != before:
                    raise self._held.changed(self.path)
                self._held.accept()
            self._sha256 = digest
            return digest

    def _hash(self) -> str:
        return slide_sha256(self.path, self.vendor, self._held)

    def descriptor(self, part: Path | None = None) -> int:
        """A descriptor of the file that was opened, or of another one of the slide's, the caller's to close.

        Raises
        ------
        SlideError
            It is another file by now.
        OSError
            It cannot be opened.
        """
        return self._held.duplicate(part)

    def close(self) -> None:
        self._backend.close()
        self._held.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reduce_all(mask: NDArray[np.bool_] | None, shape: tuple[int, ...], factor: int) -> NDArray[np.bool_]:
    """Blocks of factor x factor pixels that are True everywhere; none where there is no mask."""
    rows, columns = (-(-side // factor) for side in shape)
    if mask is None:
        return np.zeros((rows, columns), bool)
    padded = np.pad(mask, ((0, rows * factor - shape[0]), (0, columns * factor - shape[1])), constant_values=True)
    return np.asarray(padded.reshape(rows, factor, columns, factor).all(axis=(1, 3)))
