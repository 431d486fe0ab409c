"""An open slide: its levels, its resolution with the evidence for it, and which route reads its tiles."""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import isolation
from ..errors import SlideError, UsageError
from ..files import refuse_special
from ..memory import release_memory
from .backends import Backend, Level
from .mpp import MppFinding, find_mpp

__all__ = ["Level", "MppFinding", "Route", "Slide", "open_slide"]

ROUTES = ("jpeg-tiff", "openslide", "pyvips")
MAX_SIDE = 2_000_000
# Vendor fields that cannot hold a name: everything else stays in the file.
_ALLOWED = re.compile(
    r"openslide\.(vendor|mpp-[xy]|objective-power|level-count|level\[\d+\]\.(downsample|height|width|tile-\w+))"
    r"|aperio\.(MPP|AppMag|OriginalWidth|OriginalHeight)|tiff\.(XResolution|YResolution|ResolutionUnit)"
)
_CHUNK = 1 << 22
STRIP_ROWS, STRIP_BYTES = 256, 8_000_000
"""Rows and bytes of a thumbnail's source that are held at once, at most."""
DAMAGE_BLOCK_PX, MAX_DAMAGE = 256, 200
"""How finely a damaged strip is read again, and how many blocks may fail before the slide is given up."""


@dataclass(frozen=True)
class Route:
    """How a slide's tiles are read, and why: "jpeg-tiff" is the compiled tiler."""

    name: str
    reason: str


class Slide:
    """An open slide.

    Attributes
    ----------
    path : Path
    vendor : str
    levels : tuple of Level
        Level 0 is the full resolution.
    mpp : MppFinding
        Microns per level-0 pixel and the evidence.
    route : Route
    properties : dict of str
        Allow-listed vendor fields, none of which can identify a patient.
    deadline : float
        Moment of time.monotonic() at which a thumbnail that is being read is given up.
    damage : list of (x, y, w, h)
        Blocks that the last thumbnail could not show, level-0 pixels.
    """

    def __init__(self, path: Path, backend: Backend, mpp: MppFinding, route: Route) -> None:
        self.path = path
        self.vendor = backend.vendor
        self.levels = backend.levels
        self.mpp = mpp
        self.route = route
        self.properties = {k: v for k, v in sorted(backend.properties.items()) if _ALLOWED.fullmatch(k)}
        self.size_bytes = path.stat().st_size
        self._backend = backend
        self.deadline = math.inf
        self._sha256: str | None = None
        self.damage: list[tuple[int, int, int, int]] = []
        self._thumbnail: NDArray[np.uint8] | None = None
        self._hashing = threading.Lock()

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
        """
        return self._backend.read(level, x, y, w, h)

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        """The whole slide as RGB, uint8 [h, w, 3], its longer side at most `max_px`.

        Read in strips from the coarsest pyramid level that is fine enough, so that memory stays bounded. The last
        one is kept: one that is asked for next, and is smaller, is made from it instead of from the file.
        """
        longest = max(self.width, self.height)
        if self._thumbnail is not None and max(self._thumbnail.shape) >= min(max_px, longest):
            scale = max(longest / max_px, 1)
            size = max(1, round(self.width / scale)), max(1, round(self.height / scale))
            if size == self._thumbnail.shape[1::-1]:
                return self._thumbnail
            return np.asarray(Image.fromarray(self._thumbnail).resize(size, Image.Resampling.BOX))
        self.damage = []
        self._thumbnail = self._read_thumbnail(max_px)
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
        parts = []
        for top in range(0, level.height, strip):
            self._check_deadline()
            rows = min(strip, level.height - top)
            pixels = self._read_strip(level, top, rows)
            parts.append(np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels)
        whole = np.concatenate(parts)
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
        for y in range(top, top + rows, DAMAGE_BLOCK_PX):
            for x in range(0, level.width, DAMAGE_BLOCK_PX):
                w, h = min(DAMAGE_BLOCK_PX, level.width - x), min(DAMAGE_BLOCK_PX, top + rows - y)
                self._check_deadline()
                x0, y0 = round(x * level.downsample_x), round(y * level.downsample_y)
                try:
                    out[y - top : y - top + h, x : x + w] = self.read_region(level.index, x0, y0, w, h)
                except SlideError:
                    self.damage.append((x0, y0, round(w * level.downsample_x), round(h * level.downsample_y)))
                    if len(self.damage) > MAX_DAMAGE:
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
        """SHA-256 of the file, hex; of every file of a multi-file slide's main file only. Cached, in any thread."""
        with self._hashing:
            if self._sha256 is None:
                digest = hashlib.sha256()
                with self.path.open("rb") as handle:
                    while chunk := handle.read(_CHUNK):
                        digest.update(chunk)
                self._sha256 = digest.hexdigest()
            return self._sha256

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_slide(path: str | Path, *, mpp: float | None = None, route: str | None = None) -> Slide:
    """Open a slide and decide its resolution and route.

    Parameters
    ----------
    path : path-like
    mpp : float, optional
        Microns per level-0 pixel that outrank what the file states.
    route : str, optional
        Force "jpeg-tiff", "openslide" or "pyvips".

    Raises
    ------
    SlideError
        The file does not exist, is damaged or of an unknown format.
    MppError
        No believable microns per pixel.
    UsageError
        The forced route cannot read this slide.
    """
    path = Path(path)
    isolation.note(slide=str(path), stage="opening the slide")
    if route is not None and route not in ROUTES:
        raise UsageError(f"route {route!r} is unknown", remedy=f"use one of {', '.join(ROUTES)}")
    _check_file(path)
    backend = _open_backend(path, route)
    try:
        _check_size(path, backend)
        finding = find_mpp(backend.properties, stated=mpp, path=path)
        _check_decodes(path, backend)
        return Slide(path, backend, finding, _choose_route(path, backend, route))
    except BaseException:
        backend.close()
        raise


def _check_file(path: Path) -> None:
    """Refuse what no reader could open, with the operating system's reason instead of a reader's guess."""
    refuse_special(path, SlideError)
    try:
        if path.is_dir():
            raise SlideError("is a folder, not a slide", path=path, remedy="name a file in it")
        with path.open("rb") as handle:
            empty = not handle.read(1)
    except FileNotFoundError:
        raise SlideError("does not exist", path=path, remedy="check the name") from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise SlideError(f"cannot be read: {what}", path=path, remedy="check its name, permissions and disk") from error
    if empty:
        raise SlideError("is empty", path=path, remedy="copy it again")


def _open_backend(path: Path, route: str | None) -> Backend:
    from .backends.openslide import OpenSlideBackend
    from .backends.vips import VipsBackend

    if route == "pyvips":
        return VipsBackend(path)
    try:
        return OpenSlideBackend(path)
    except SlideError as first:
        # a scanner's file that is damaged must not be taken for a plain image without resolution
        if route is not None or OpenSlideBackend.detect(path) not in (None, "generic-tiff"):
            raise
        try:
            return VipsBackend(path)
        except SlideError:
            raise first from None


def _check_size(path: Path, backend: Backend) -> None:
    level = backend.levels[0]
    if not (1 <= level.width <= MAX_SIDE and 1 <= level.height <= MAX_SIDE):
        raise SlideError(
            f"states a size of {level.width} x {level.height} px",
            path=path,
            remedy="the file is damaged; copy it again",
        )


def _check_decodes(path: Path, backend: Backend) -> None:
    """Decode a few spots of the coarsest level, so that a broken file is refused before any work.

    One that decodes is enough: a slide with a damaged storage tile is for the budget of unreadable tiles.
    """
    level = backend.levels[-1]
    w, h = min(16, level.width), min(16, level.height)
    failure: SlideError | None = None
    for fy, fx in ((0.5, 0.5), (0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)):
        x = int((level.width - w) * fx * level.downsample_x)
        y = int((level.height - h) * fy * level.downsample_y)
        try:
            backend.read(level.index, x, y, w, h)
        except SlideError as error:
            failure = failure or error
        else:
            return
    assert failure is not None
    raise failure


def _choose_route(path: Path, backend: Backend, forced: str | None) -> Route:
    if forced in ("openslide", "pyvips"):
        return Route(forced, "asked for")
    reason = _why_not_jpeg_tiff(path, backend)
    if reason is None:
        return Route("jpeg-tiff", "tiled JPEG TIFF: decoded by the compiled tiler")
    if forced == "jpeg-tiff":
        raise UsageError(
            f"the compiled tiler cannot read this slide: {reason}", path=path, remedy="leave the route out"
        )
    return Route(backend.name, reason)


def _why_not_jpeg_tiff(path: Path, backend: Backend) -> str | None:
    """Why the compiled tiler does not read this slide; None where it does."""
    if backend.name != "openslide" or backend.vendor not in ("aperio", "generic-tiff"):
        return f"format {backend.vendor} is read by {backend.name}"
    try:
        from .tiff import why_not_tiler
    except ImportError:
        return "the compiled tiler is not installed"
    return why_not_tiler(path, backend.levels)
