"""A file that came from an archive: what is checked before it counts as received."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArchiveError
from ..slide.dicom import flavor_of
from ..slide.dicom.elements import PIXEL_DATA, HeaderError
from ..slide.dicom.frames import find_frames
from ..slide.dicom.header import Header, read_header
from ..slide.dicom.part import JPEG
from .query import InstanceRow
from .uids import WHOLE_SLIDE

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_AGAIN = "run it again; if it stays so, the archive's copy is damaged"


@dataclass(frozen=True)
class Received:
    """What a file states of itself."""

    uid: str
    series: str
    sop_class: str
    flavor: str
    frames: int

    @property
    def is_level(self) -> bool:
        """Whether it is a level of a slide: no label, overview or thumbnail."""
        return self.sop_class == WHOLE_SLIDE and self.flavor == "VOLUME"


def check_received(path: Path, wanted: InstanceRow | None) -> Received:
    """Hold a file against what was asked for, if anything: UIDs, number of frames, and that all frames are inside it.

    Raises
    ------
    ArchiveError
        It is something else, or cut short.
    OSError
        It cannot be read.
    """
    try:
        found = _look(path)
    except HeaderError as error:
        raise ArchiveError(f"the archive sent a damaged instance: {error}", remedy=_AGAIN) from error
    except OSError:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged values
        raise ArchiveError("the archive sent something that is not DICOM", remedy=_AGAIN) from error
    if wanted is None:
        return found
    if (found.uid, found.series) != (wanted.uid, wanted.series):
        raise ArchiveError("the archive sent another instance than was asked for", remedy="ask its administrator")
    if wanted.frames and found.frames != wanted.frames:
        raise ArchiveError(
            f"the archive sent {found.frames} of the {wanted.frames} frames that it lists for an instance",
            remedy=_AGAIN,
        )
    return found


def _look(path: Path) -> Received:
    size = path.stat().st_size
    with path.open("rb") as handle:
        header = read_header(handle, size)
        if header is None:
            return _as_received(_by_pydicom(path))
        found = _as_received(header.data)
        if found.is_level:
            _check_frames(handle, header, found.frames, size)
        return found


def _check_frames(handle: Any, header: Header, count: int, size: int) -> None:
    pixels = header.elements[PIXEL_DATA]
    if pixels.end > size:
        raise HeaderError("its pixel data end early")
    if header.transfer_syntax in JPEG:
        frames = find_frames(handle, header, count, size)
        if len(frames.offsets) and int((frames.offsets + frames.sizes).max()) > size:
            raise HeaderError("a frame reaches beyond the file")
    elif header.transfer_syntax in _NATIVE:
        data = header.data
        bits = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel) * int(data.BitsAllocated) * count
        if pixels.end - pixels.start < bits // 8:
            raise HeaderError(f"its pixel data are too short for {count} frames")


def _as_received(data: Any) -> Received:
    return Received(
        uid=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        sop_class=str(data.get("SOPClassUID", "")),
        flavor=flavor_of(data.get("ImageType")),
        frames=int(data.get("NumberOfFrames") or 1),
    )


def _by_pydicom(path: Path) -> Any:
    import pydicom

    names = ["SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID", "ImageType", "NumberOfFrames"]
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names)
