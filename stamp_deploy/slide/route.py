"""By which route a slide's tiles are read, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .backends import Backend, Level

ROUTES = ("jpeg-tiff", "openslide", "pyvips")


@dataclass(frozen=True)
class Route:
    """How a slide's tiles are read, and why: "jpeg-tiff" is the compiled tiler."""

    name: str
    reason: str


def check_route(route: str | None) -> None:
    """Refuse a forced route that does not exist.

    Raises
    ------
    UsageError
        The name is unknown.
    """
    if route is not None and route not in ROUTES:
        raise UsageError(f"route {route!r} is unknown", remedy=f"use one of {', '.join(ROUTES)}")


def choose_route(
    path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...], forced: str | None
) -> Route:
    """The compiled tiler where it reads the file, otherwise the reader that opened it.

    Raises
    ------
    UsageError
        The compiled tiler is asked for and cannot read the file.
    """
    if forced in ("openslide", "pyvips"):
        return Route(forced, "asked for")
    reason = _why_not_jpeg_tiff(path, backend, levels, numbers)
    if reason is None:
        return Route("jpeg-tiff", "tiled JPEG TIFF: decoded by the compiled tiler")
    if forced == "jpeg-tiff":
        raise UsageError(
            f"the compiled tiler cannot read this slide: {reason}", path=path, remedy="leave the route out"
        )
    return Route(backend.name, reason)


def _why_not_jpeg_tiff(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> str | None:
    """Why the compiled tiler does not read this slide; None where it does."""
    if backend.name != "openslide" or backend.vendor not in ("aperio", "generic-tiff"):
        return f"format {backend.vendor} is read by {backend.name}"
    try:
        from .tiff import why_not_tiler
    except ImportError:
        return "the compiled tiler is not installed"
    return why_not_tiler(path, levels, numbers)
