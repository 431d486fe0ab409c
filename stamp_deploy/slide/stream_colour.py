"""Whether a slide's colour tag agrees with its JPEG streams, and what is done where it does not.

TIFF's PhotometricInterpretation and DICOM's Photometric Interpretation say whether a stream holds RGB or YCbCr, and
every reader believes them. A stream can say so itself (see jpeg_header.py). Where it does, it counts: it was written
with the pixels. Where it says nothing, as in tiles of Aperio scanners, the tag counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import SlideError
from .backends import Backend
from .backends.by_mosaic import MosaicReader
from .backends.by_storage import StorageReader
from .backends.by_stream import Recoloured
from .dicom import first_stream, is_dicom, volume_instances
from .dicom.part import JPEG
from .jpeg_header import NAMES, RGB, YCBCR, stated_colours
from .storage.index import StorageIndex
from .storage.providers import find_storage
from .tiff import jpeg_colours, read_pages

_TILED = ("aperio", "generic-tiff", "philips", "leica", "ventana", "trestle", "huron")
_COMPILED = ("aperio", "generic-tiff")


@dataclass(frozen=True)
class _Picture:
    """A level, or another picture of the file: its number, its tag and what its streams state."""

    number: int
    tag: int
    stated: frozenset[int]


def believe_streams(path: Path, backend: Backend) -> tuple[Backend, tuple[str, ...]]:
    """A backend that shows colours as the streams state them, and what a reader of the result should know.

    Raises
    ------
    SlideError
        Statements of one stream contradict each other, or the reader of this format cannot be told the right colours.
    """
    pictures = _pictures(path, backend)
    for picture in pictures:
        if picture.stated == {RGB, YCBCR}:
            raise SlideError(
                "its JPEG streams state two colour spaces, RGB and YCbCr: nobody can say which is right",
                path=path,
                remedy="export or scan the slide again",
            )
    wrong = [picture for picture in pictures if picture.stated and picture.tag not in picture.stated]
    if not wrong:
        return backend, ()
    tag, stream = (NAMES[code] for code in (wrong[0].tag, next(iter(wrong[0].stated))))
    note = f"its colour tag says {tag} and its JPEG streams say {stream}: read as the streams say"
    if isinstance(backend, StorageReader | MosaicReader):  # they decode each stream as it says
        return backend, (note,)
    _, index = find_storage(path, backend, backend.levels, tuple(range(len(backend.levels))))
    if isinstance(index, StorageIndex) and not any(isinstance(grids, str) for grids in index.levels):
        backend.close()
        return StorageReader(index, backend.levels, backend.vendor, backend.properties, name=backend.name), (note,)
    if all(picture.tag == RGB for picture in wrong):
        if backend.name != "pyvips":
            return Recoloured(backend, {picture.number for picture in wrong}), (note,)
        if len(wrong) == len(pictures):  # which of the pages are levels is libvips' choice
            return Recoloured(backend, range(len(backend.levels))), (note,)
    _refuse(path, tag, stream)


def _refuse(path: Path, tag: str, stream: str) -> NoReturn:
    raise SlideError(
        f"its colour tag says {tag} and its JPEG streams say {stream}: the reader of this format believes the tag, "
        "and would show wrong colours",
        path=path,
        remedy="correct the tag, or export the slide again, best as tiled JPEG TIFF",
    )


def _pictures(path: Path, backend: Backend) -> list[_Picture]:
    """What the levels of a slide say; none where the format is another, or cannot be walked."""
    try:
        if backend.vendor == "dicom" or is_dicom(path):
            return _dicom(path, backend)
        if backend.name == "pyvips":
            return [_Picture(i, tag, stated) for i, (tag, stated) in enumerate(jpeg_colours(path))]
        if backend.vendor not in _TILED:
            return []
        pages = read_pages(path, None if backend.vendor in _COMPILED else backend.vendor)
    except SlideError:
        return []  # the reader that opened it says what is wrong
    return [
        _Picture(number, page.photometric, page.stated)
        for number, page in enumerate(pages)
        if page.photometric in NAMES
    ]


def _dicom(path: Path, backend: Backend) -> list[_Picture]:
    numbers = {(level.width, level.height): number for number, level in enumerate(backend.levels)}
    found = []
    for instance in volume_instances(path):
        number = numbers.get((instance.columns, instance.rows))
        if number is None or instance.transfer_syntax not in JPEG or instance.samples != 3:
            continue
        tag = RGB if instance.photometric == "RGB" else YCBCR
        found.append(_Picture(number, tag, stated_colours(first_stream(instance.path))))
    return found
