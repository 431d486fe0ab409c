"""Which provider gives a slide's index of storage tiles. docs/tiles.md says how to add one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...codecs import Coding
from ...errors import SlideError
from ..backends import Backend, Level
from ..backends.by_storage import StorageReader
from .index import StorageIndex
from .jpeg_bif import jpeg_bif
from .jpeg_dicom import jpeg_dicom
from .jpeg_ndpi import jpeg_ndpi
from .jpeg_philips import jpeg_philips
from .jpeg_scn import jpeg_scn
from .jpeg_tiff import codec_tiff, jpeg_tiff

MakeIndex = Callable[[Path, Backend, tuple[Level, ...], tuple[int, ...]], StorageIndex | str]


@dataclass(frozen=True)
class Provider:
    """A format that is read by its storage tiles.

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
    is_compiled : bool
        Whether the compiled tiler decodes the storage tiles of level 0, which are JPEG; others a library decodes.
    """

    name: str
    what: str
    vendors: tuple[str, ...]
    make: MakeIndex
    is_compiled: bool = True


PROVIDERS = (
    Provider("jpeg-tiff", "tiled JPEG TIFF", ("aperio", "generic-tiff"), jpeg_tiff),
    Provider("jpeg-dicom", "DICOM whole-slide image of JPEG frames", ("dicom",), jpeg_dicom),
    Provider("jpeg-scn", "Leica SCN", ("leica",), jpeg_scn),
    Provider("jpeg-philips", "Philips TIFF", ("philips",), jpeg_philips),
    Provider("jpeg-ndpi", "Hamamatsu NDPI", ("hamamatsu",), jpeg_ndpi),
    Provider("jpeg-bif", "Ventana BIF", ("ventana",), jpeg_bif),
    Provider("codec-tiff", "tiled TIFF", ("aperio", "generic-tiff"), codec_tiff, is_compiled=False),
    Provider("codec-dicom", "DICOM whole-slide image", ("dicom",), jpeg_dicom, is_compiled=False),
)


def find_storage(
    path: Path,
    backend: Backend,
    levels: tuple[Level, ...],
    numbers: tuple[int, ...],
    wanted: str | None = None,
) -> tuple[Provider | None, StorageIndex | str]:
    """The provider of a slide's format and its index of storage tiles, or why it is not read by its storage tiles.

    It needs level 0 at least. A slide that was opened by its index keeps it. `wanted` is the name of the one provider
    that is asked; otherwise all of the format are, and the last one's reason counts.
    """
    vendors = [one for one in PROVIDERS if backend.vendor in one.vendors]
    if not vendors or backend.name == "pyvips":
        return None, f"format {backend.vendor} is read by {backend.name}"
    if isinstance(backend, StorageReader):
        index = backend.index.part(numbers)
        return next(one for one in vendors if one.is_compiled == (index.coding is Coding.JPEG)), index
    asked = [one for one in vendors if wanted is None or one.name == wanted] or vendors
    for provider in {one.make: one for one in asked}.values():  # those that make the same index answer alike
        found = _ask(provider, path, backend, levels, numbers)
        if isinstance(found, StorageIndex):
            break
    return provider, found


def _ask(
    provider: Provider, path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]
) -> StorageIndex | str:
    try:
        index = provider.make(path, backend, levels, numbers)
    except SlideError as error:
        return error.cause
    if isinstance(index, StorageIndex) and isinstance(index.levels[0], str):
        return index.levels[0]
    return index
