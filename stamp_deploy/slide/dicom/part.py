"""One file of a DICOM whole-slide image: what it says about its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...codecs import Coding
from ..jpeg_header import RGB, YCBCR
from .elements import PER_FRAME, HeaderError
from .header import Header, read_header_of
from .series import JPEG_2000

if TYPE_CHECKING:
    from ..storage.index import StorageGrid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""Baseline and extended; of the second, streams of 12 bits are refused when they are decoded."""
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
CODINGS = {
    **dict.fromkeys(JPEG, Coding.JPEG),
    **dict.fromkeys(JPEG_2000 + HTJ2K, Coding.JPEG_2000),
}
"""By transfer syntax."""
LEVEL_TYPE = ("PRIMARY", "VOLUME")
"""Second and third value of a level's ImageType. Writers misspell the first, "ORIGINAL" or "DERIVED"."""
LEVEL_STEPS = ("NONE", "RESAMPLED")
"""Fourth value of a level's ImageType, where it is stated."""
BRIGHTFIELD, EPIFLUORESCENCE = "111744", "111743"
_COLOURS = {"RGB": RGB, "YBR_FULL": YCBCR, "YBR_FULL_422": YCBCR, "YBR_RCT": RGB, "YBR_ICT": RGB}
"""What the decoder gives: JPEG 2000 undoes its own transforms of colour."""
_TILED_FULL = "TILED_FULL"
MM_TO_UM = 1000.0


@dataclass(frozen=True)
class Part:
    """A level of the slide, or a part of one that is kept in several files.

    Attributes
    ----------
    width, height, tile_width, tile_height : int
        Of the whole picture and of a frame, pixels.
    frames, first_frame : int
        How many the file holds, and how many of the image come before them in other files.
    total_parts : int
        Files of the image; 0 where it is not stated.
    source_uid : str
        The image: equal for its parts.
    illuminations : tuple of str
        The code of the light of each optical path; empty where it is not stated.
    photometric : int
        2 (RGB) or 6 (YCbCr), as TIFF numbers them.
    coding : Coding
        Of the frames.
    is_full : bool
        Whether all frames are there, in order; otherwise each states its place.
    mpp : (str, str)
        Of x and y, um; empty where they are not stated.
    power : str
        Of the objective; empty where it is not stated.
    icc : bytes
        The ICC profile of the brightfield path; empty where there is none.
    """

    path: Path
    size_bytes: int
    header: Header
    width: int
    height: int
    tile_width: int
    tile_height: int
    frames: int
    first_frame: int
    total_parts: int
    source_uid: str
    focal_planes: int
    optical_paths: int
    illuminations: tuple[str, ...]
    photometric: int
    coding: Coding
    is_full: bool
    mpp: tuple[str, str]
    power: str
    icc: bytes

    @property
    def brightfield_path(self) -> int:
        """The number of the path that is read.

        Raises
        ------
        HeaderError
            There are several, and not one of them alone says that it is brightfield.
        """
        if self.optical_paths == 1:
            return 0
        bright = [i for i, code in enumerate(self.illuminations) if code == BRIGHTFIELD]
        if len(bright) != 1 or len(self.illuminations) != self.optical_paths:
            raise HeaderError(
                f"which of its {self.optical_paths} optical paths is the brightfield picture is not stated"
            )
        return bright[0]

    @property
    def like(self) -> tuple[object, ...]:
        """What the parts of one image have in common."""
        return (
            self.tile_width, self.tile_height, self.photometric, self.header.transfer_syntax, self.is_full,
            self.focal_planes, self.optical_paths,
        )  # fmt: skip

    def properties(self, grids: Sequence[StorageGrid]) -> dict[str, str]:
        """OpenSlide-style properties of the slide, of which this is level 0."""
        found = {"openslide.vendor": "dicom", "openslide.level-count": str(len(grids))}
        for i, grid in enumerate(grids):
            found[f"openslide.level[{i}].width"] = str(grid.width)
            found[f"openslide.level[{i}].height"] = str(grid.height)
            found[f"openslide.level[{i}].tile-width"] = str(grid.tile_width)
            found[f"openslide.level[{i}].tile-height"] = str(grid.tile_height)
        stated = {
            "openslide.mpp-x": self.mpp[0],
            "openslide.mpp-y": self.mpp[1],
            "openslide.objective-power": self.power,
        }
        found.update((name, value) for name, value in stated.items() if value)
        if EPIFLUORESCENCE in self.illuminations and BRIGHTFIELD not in self.illuminations:
            found["dicom.illumination"] = "fluorescence"
        return found


def read_part(path: Path) -> Part | str:
    """A level, or why it is none that can be read here.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    try:
        header = read_header_of(path)
        if header is None:
            return "its header is not in explicit VR, little endian"
        return _read_part(path, header)
    except OSError:
        raise
    except HeaderError as error:
        return f"its header is damaged: {error}"
    except Exception:  # pydicom raises nearly anything on damaged values
        return "its header is damaged"


def _read_part(path: Path, header: Header) -> Part | str:
    data = header.data
    if str(data.get("SOPClassUID", "")) != WHOLE_SLIDE:
        return "it is no whole-slide image"
    image_type = tuple(str(value) for value in data.get("ImageType") or ())
    if image_type[1:3] != LEVEL_TYPE or not set(image_type[3:]) <= set(LEVEL_STEPS):
        return "its image flavor is no level's"
    coding = CODINGS.get(header.transfer_syntax)
    if coding is None:
        return f"its frames are coded as transfer syntax {header.transfer_syntax}"
    if coding.why_not is not None:
        return coding.why_not
    wanted = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    if any(_whole(data, name) != value for name, value in wanted.items()) or _whole(data, "PlanarConfiguration"):
        return "its pixels are not 8-bit RGB"
    if str(data.get("PhotometricInterpretation", "")) not in _COLOURS:
        return "its photometric interpretation is neither RGB nor YBR_FULL"
    uid = str(data.get("SOPInstanceUID", ""))
    organisation = str(data.get("DimensionOrganizationType", ""))
    illuminations = tuple(
        str(_first(path, "IlluminationTypeCodeSequence").get("CodeValue", ""))
        for path in data.get("OpticalPathSequence") or ()
    )
    spacing = _first(_first(data, "SharedFunctionalGroupsSequence"), "PixelMeasuresSequence").get("PixelSpacing")
    down, across = spacing if spacing is not None and len(spacing) == 2 else (None, None)  # of rows, then of columns
    part = Part(
        path=path,
        size_bytes=path.stat().st_size,
        header=header,
        width=_whole(data, "TotalPixelMatrixColumns"),
        height=_whole(data, "TotalPixelMatrixRows"),
        tile_width=_whole(data, "Columns"),
        tile_height=_whole(data, "Rows"),
        frames=_whole(data, "NumberOfFrames") or 1,
        first_frame=_whole(data, "ConcatenationFrameOffsetNumber"),
        total_parts=_whole(data, "InConcatenationTotalNumber"),
        source_uid=str(data.get("SOPInstanceUIDOfConcatenationSource") or data.get("ConcatenationUID") or uid),
        focal_planes=max(1, _whole(data, "TotalPixelMatrixFocalPlanes")),
        optical_paths=max(1, _whole(data, "NumberOfOpticalPaths") or len(illuminations)),
        illuminations=illuminations,
        photometric=_COLOURS[str(data.get("PhotometricInterpretation", ""))],
        coding=coding,
        is_full=organisation == _TILED_FULL or (not organisation and PER_FRAME not in header.elements),
        mpp=(_number(across, MM_TO_UM), _number(down, MM_TO_UM)),
        power=_number(_first(data, "OpticalPathSequence").get("ObjectiveLensPower"), 1),
        icc=_profile(data, illuminations),
    )
    if not part.is_full and (part.focal_planes > 1 or part.optical_paths > 1):
        return "it holds several focal planes or optical paths, and states a place for each frame"
    return part


def _number(value: Any, unit: float) -> str:
    """A decimal number in another unit; empty where it is none."""
    try:
        return f"{float(value) * unit:.15g}"
    except (TypeError, ValueError):
        return ""


def _first(data: Any, name: str) -> Any:
    """The first item of a sequence; an empty mapping where there is none."""
    return next(iter(data.get(name) or ()), {})


def _profile(data: Any, illuminations: Sequence[str]) -> bytes:
    """The ICC profile of the brightfield path, or of the only one."""
    paths = list(data.get("OpticalPathSequence") or ())
    number = illuminations.index(BRIGHTFIELD) if BRIGHTFIELD in illuminations else 0
    return bytes(paths[number].get("ICCProfile") or b"") if paths else b""


def _whole(data: Any, name: str) -> int:
    return int(data.get(name) or 0)
