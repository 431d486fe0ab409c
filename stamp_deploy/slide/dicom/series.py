"""DICOM slides: one slide is a series of files, of which any may be named.

Headers are read up to the pixel data (see header.py). What is there of people is never kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SlideError
from .elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, HeaderError
from .header import KEPT, Header, read_header_of

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_CHUNK = 1 << 22
_NOT_THE_SLIDE = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")


@dataclass(frozen=True)
class Instance:
    """One file of a series.

    Attributes
    ----------
    flavor : str
        Third value of ImageType, in capitals: "VOLUME", "LABEL" and the like; empty where it is not stated.
    columns, rows : int
        Of the whole picture, pixels; 0 where they are not stated.
    focal_planes : int
    samples, bits : int
        Per pixel, and per sample.
    """

    path: Path
    sop_uid: str
    series_uid: str
    flavor: str
    transfer_syntax: str
    columns: int
    rows: int
    focal_planes: int
    samples: int
    bits: int
    photometric: str

    @property
    def is_volume(self) -> bool:
        """Whether it is a level of the slide, and no picture of its label or of the whole glass."""
        return self.flavor not in _NOT_THE_SLIDE and self.columns > 0


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    try:
        if not path.is_file():
            return False  # opening a pipe would wait
        with path.open("rb") as handle:
            handle.seek(128)
            return handle.read(4) == b"DICM"
    except OSError:
        return False


def flavor_of(image_type: Iterable[object] | None) -> str:
    """The third value of ImageType, in capitals; empty where it is not stated."""
    kinds = [str(value).upper() for value in image_type or ()]
    return kinds[2] if len(kinds) > 2 else ""


def read_instance(path: Path) -> Instance | None:
    """The header of a DICOM file; None where it is none, or is damaged."""
    if not is_dicom(path):
        return None
    try:
        header = _header_or_none(path)
        data, syntax = (header.data, header.transfer_syntax) if header is not None else _by_pydicom(path)
        return Instance(
            path=path,
            sop_uid=str(data.get("SOPInstanceUID", "")),
            series_uid=str(data.get("SeriesInstanceUID", "")),
            flavor=flavor_of(data.get("ImageType")),
            transfer_syntax=syntax,
            columns=_whole(data, "TotalPixelMatrixColumns"),
            rows=_whole(data, "TotalPixelMatrixRows"),
            focal_planes=_whole(data, "TotalPixelMatrixFocalPlanes") or 1,
            samples=_whole(data, "SamplesPerPixel"),
            bits=_whole(data, "BitsAllocated"),
            photometric=str(data.get("PhotometricInterpretation", "")),
        )
    except Exception:
        return None  # damaged headers raise nearly anything; OpenSlide says what is wrong with it


def _header_or_none(path: Path) -> Header | None:
    try:
        return read_header_of(path)
    except HeaderError:
        return None  # pydicom forgives more


def _by_pydicom(path: Path) -> tuple[Any, str]:
    """(data, transfer syntax) of a file in one of the older encodings, or with faults that pydicom forgives."""
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
    return data, str(data.file_meta.get("TransferSyntaxUID", ""))


def _whole(data: Any, name: str) -> int:
    try:
        return int(data.get(name) or 0)
    except (TypeError, ValueError):
        return 0


def volume_instances(path: Path) -> list[Instance]:
    """The levels of the slide that a DICOM file belongs to: files of its series in its folder, sorted by name.

    Of an instance that lies there twice only the first counts. Empty where the file cannot be read.
    """
    own = read_instance(path)
    if own is None or not own.sop_uid:
        return []
    found = {own.sop_uid: own} if own.is_volume else {}
    for other in sorted(path.parent.iterdir()):
        instance = read_instance(other) if other != path else None
        if instance is not None and instance.series_uid == own.series_uid and instance.is_volume and instance.sop_uid:
            found.setdefault(instance.sop_uid, instance)
    return sorted(found.values(), key=lambda instance: instance.path.name)


def slide_in_folder(folder: Path) -> Path:
    """The full-resolution file of the only DICOM slide in a folder.

    Raises
    ------
    SlideError
        The folder holds no DICOM slide, or several.
    """
    series: dict[str, list[Instance]] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SlideError(f"cannot be read: {error.strerror}", path=folder, remedy="check the rights") from error
    for entry in entries:
        instance = read_instance(entry)
        if instance is not None and instance.is_volume:
            series.setdefault(instance.series_uid, []).append(instance)
    if len(series) == 1:
        (levels,) = series.values()
        return max(levels, key=lambda level: (level.columns * level.rows, level.sop_uid)).path
    if any(entry.name.lower() == "slidedat.ini" for entry in entries):
        raise SlideError("holds the data of a MIRAX slide", path=folder, remedy="name the .mrxs file beside it")
    what = f"is a folder of {len(series)} DICOM slides" if series else "is a folder, not a slide"
    raise SlideError(what, path=folder, remedy="name one slide, or score them all with `stamp-deploy batch`")


def pixel_data(path: Path) -> Iterator[bytes]:
    """The pixel data of a DICOM file, in pieces, without the tables of offsets, which writers make again.

    Raises
    ------
    SlideError
        The file ends early, or holds no pixel data.
    OSError
        It cannot be read.
    """
    with path.open("rb") as handle:
        try:
            start, end = _pixels(path)
            handle.seek(start)
            if end:
                yield from _pieces(handle, end - start, path)
                return
            first = True
            while True:
                group, element, size = struct.unpack("<HHL", _exactly(handle, 8, path))
                tag = group << 16 | element
                if tag == SEQUENCE_END:
                    return
                if tag != ITEM:
                    raise _damaged(path)
                if first:
                    _exactly(handle, size, path)  # the basic offset table
                    first = False
                else:
                    yield from _pieces(handle, size, path)
        except (OSError, SlideError):
            raise
        except Exception as error:
            raise _damaged(path) from error


def _pixels(path: Path) -> tuple[int, int]:
    """Where the value of the pixel data begins and ends; the end is 0 where only its items tell."""
    header = _header_or_none(path)
    if header is not None:
        pixels = header.elements[PIXEL_DATA]
        return pixels.start, pixels.end
    import pydicom

    with path.open("rb") as handle:
        data = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        order = "<" if data.is_little_endian is not False else ">"
        group, element = struct.unpack(order + "HH", _exactly(handle, 4, path))
        if group << 16 | element != PIXEL_DATA:
            raise _damaged(path)
        form = "L" if data.is_implicit_VR else "4xL"
        (length,) = struct.unpack(order + form, _exactly(handle, struct.calcsize(order + form), path))
        start = handle.tell()
    return start, 0 if length == UNDEFINED else start + length


def first_stream(path: Path, most: int = 1 << 16) -> bytes:
    """The beginning of the first frame of a file of encapsulated pixel data; empty where there is none.

    Raises
    ------
    OSError
        It cannot be read.
    """
    try:
        return next(pixel_data(path), b"")[:most]
    except SlideError:
        return b""


def _pieces(handle: Any, size: int, path: Path) -> Iterator[bytes]:
    while size:
        piece = _exactly(handle, min(size, _CHUNK), path)
        size -= len(piece)
        yield piece


def _exactly(handle: Any, size: int, path: Path) -> bytes:
    data: bytes = handle.read(size)
    if len(data) != size:
        raise _damaged(path)
    return data


def _damaged(path: Path) -> SlideError:
    return SlideError("its pixel data end early or cannot be found", path=path, remedy="copy it again")
