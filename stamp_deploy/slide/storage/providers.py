"""Which provider gives a slide's index of storage tiles. docs/tiles.md says how to add one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import SlideError
from ..backends import Backend, Level
from ..backends.by_storage import StorageReader
from .index import StorageIndex
from .jpeg_dicom import jpeg_dicom
from .jpeg_philips import jpeg_philips
from .jpeg_scn import jpeg_scn
from .jpeg_tiff import jpeg_tiff

MakeIndex = Callable[[Path, Backend, tuple[Level, ...], tuple[int, ...]], StorageIndex | str]


@dataclass(frozen=True)
class Provider:
    """A format that the compiled tiler reads.

    Attributes
    ----------
    name : str
        Also the route's name.
    what : str
        What it reads, in words.
    vendors : tuple of str
        The formats, as the backend that opened the slide names them.
    make : callable
        (path, backend, levels, numbers of the levels in the file) to the index, or why there is none.
    """

    name: str
    what: str
    vendors: tuple[str, ...]
    make: MakeIndex


PROVIDERS = (
    Provider("jpeg-tiff", "tiled JPEG TIFF", ("aperio", "generic-tiff"), jpeg_tiff),
    Provider("jpeg-dicom", "DICOM whole-slide image of JPEG frames", ("dicom",), jpeg_dicom),
    Provider("jpeg-scn", "Leica SCN", ("leica",), jpeg_scn),
    Provider("jpeg-philips", "Philips TIFF", ("philips",), jpeg_philips),
)


def find_storage(
    path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]
) -> tuple[Provider | None, StorageIndex | str]:
    """The provider of a slide's format and its index of storage tiles, or why the compiled tiler does not read it.

    It needs level 0 at least. A slide that was opened by its index keeps it.
    """
    provider = next((one for one in PROVIDERS if backend.vendor in one.vendors), None)
    if provider is None or backend.name == "pyvips":
        return None, f"format {backend.vendor} is read by {backend.name}"
    if isinstance(backend, StorageReader):
        return provider, backend.index.part(numbers)
    try:
        index = provider.make(path, backend, levels, numbers)
    except SlideError as error:
        return provider, error.cause
    if isinstance(index, StorageIndex) and isinstance(index.levels[0], str):
        return provider, index.levels[0]
    return provider, index
