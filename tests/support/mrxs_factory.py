"""3DHISTECH MIRAX slides for tests, so that OpenSlide opens them: Slidedat.ini, Index.dat and Data*.dat beside a .mrxs.

The scanner takes photos that overlap, and cuts each into images. A coarser level joins 2 x 2 images of the next finer
one, each reduced by 2. The index says of each level which images there are and where they lie; a map may say where
each photo lies on the slide, which is otherwise one step after another.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .slide_factory import encode, reduced

ID = b"0123456789ABCDEF0123456789ABCDEF"
VERSION = b"01.02"
FILL = 255


@dataclass(frozen=True)
class Scan:
    """How a slide is scanned.

    Attributes
    ----------
    side : int
        Of an image, pixels.
    divisions : int
        Images of a photo, along one side.
    overlap : int
        Pixels by which neighbouring photos overlap.
    positions : str
        What says where photos lie: "none", "plain" (VIMSLIDE_POSITION_BUFFER) or "deflated" (StitchingIntensityLayer).
    jitter : int
        By how many pixels photos lie beside their place, at most; it needs a map.
    """

    side: int = 64
    divisions: int = 2
    overlap: int = 0
    positions: str = "none"
    jitter: int = 0

    @property
    def photo(self) -> int:
        """Side of a photo, pixels."""
        return self.side * self.divisions

    def places(self, across: int, down: int) -> NDArray[np.int32]:
        """Where photos lie on the slide, (x, y) pixels of level 0: int32 [down, across, 2]."""
        step = self.photo - self.overlap
        places = np.stack(np.meshgrid(np.arange(across) * step, np.arange(down) * step), axis=-1)
        if self.jitter:
            moved = np.random.default_rng(0).integers(0, self.jitter + 1, places.shape)
            moved[0, 0] = 0
            places = places + moved
        return places.astype(np.int32)

    def size(self, across: int, down: int) -> tuple[int, int]:
        """Width and height of level 0 as its reader has it, pixels."""
        step = self.photo - self.overlap
        return (across - 1) * step + self.photo, (down - 1) * step + self.photo


def images_of(rgb: NDArray[np.uint8], scan: Scan, across: int, down: int) -> NDArray[np.uint8]:
    """The images of all photos of a picture: uint8 [rows, columns, side, side, 3]."""
    n, side = scan.divisions, scan.side
    found = np.full((down * n, across * n, side, side, 3), FILL, np.uint8)
    padded = np.pad(rgb, ((0, scan.photo), (0, scan.photo), (0, 0)), constant_values=FILL)
    for (row, column), (x, y) in zip(np.ndindex(down, across), scan.places(across, down).reshape(-1, 2), strict=True):
        photo = padded[y : y + scan.photo, x : x + scan.photo].reshape(n, side, n, side, 3).swapaxes(1, 2)
        found[row * n : row * n + n, column * n : column * n + n] = photo
    return found


def write_mrxs(
    path: Path,
    rgb: NDArray[np.uint8],
    scan: Scan,
    *,
    levels: int = 1,
    coding: str = "422",
    mpp: float = 0.5,
    quality: int = 90,
    without: Collection[tuple[int, int]] = (),
    change: Callable[[int, bytes], bytes] = lambda number, stream: stream,
    general: Mapping[str, object] | None = None,
) -> Path:
    """Write a slide of as many whole photos as the picture holds.

    Parameters
    ----------
    levels : int
        Of the pyramid, each half of the one before.
    without : collection of (row, column)
        Photos that were not taken.
    change : callable
        (number, stream) to what stands in its place, of the images of level 0.
    general : dict
        Entries of the section GENERAL, in place of what it has.
    """
    step = scan.photo - scan.overlap
    across, down = ((side - scan.overlap) // step for side in (rgb.shape[1], rgb.shape[0]))
    images = images_of(rgb, scan, across, down)
    taken = np.ones((down, across), bool)
    for row, column in without:
        taken[row, column] = False
    there = taken.repeat(scan.divisions, 0).repeat(scan.divisions, 1)
    images[~there] = FILL
    data, records = bytearray(VERSION + ID), []
    for level in range(levels):
        records.append([])
        for row, column, image in _level(images, there, 1 << level):
            stream = encode(image, coding, quality)
            if level == 0:
                stream = change(len(records[0]), stream)
            records[level].append((row * images.shape[1] + column, len(data), len(stream), 0))
            data += stream
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "Data0000.dat").write_bytes(data)
    places = _position_record(scan, across, down)
    (folder / "Data0001.dat").write_bytes(VERSION + ID + places)
    at = len(VERSION + ID), len(places), 1
    (folder / "Index.dat").write_bytes(index_of(records, [] if scan.positions == "none" else [at]))
    (folder / "Slidedat.ini").write_text(_slidedat(scan, across, down, levels, mpp, general or {}), "utf-8-sig")
    preview = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb[::8, ::8])).save(preview, "JPEG")
    path.write_bytes(preview.getvalue())
    return path


def _level(
    images: NDArray[np.uint8], there: NDArray[np.bool_], concat: int
) -> list[tuple[int, int, NDArray[np.uint8]]]:
    """(row, column, image) of what a level holds, by the place of the first of its images of level 0."""
    rows, columns, side = images.shape[:3]
    found = []
    for row in range(0, rows, concat):
        for column in range(0, columns, concat):
            if not there[row : row + concat, column : column + concat].any():
                continue
            part = images[row : row + concat, column : column + concat]
            whole = np.full((concat, concat, side, side, 3), FILL, np.uint8)
            whole[: part.shape[0], : part.shape[1]] = part
            joined = whole.swapaxes(1, 2).reshape(concat * side, concat * side, 3)
            found.append((row, column, joined if concat == 1 else reduced(joined, concat)))
    return found


def _position_record(scan: Scan, across: int, down: int) -> bytes:
    places = b"".join(struct.pack("<Bii", 1, x, y) for x, y in scan.places(across, down).reshape(-1, 2).tolist())
    return zlib.compress(places) if scan.positions == "deflated" else places


def index_of(levels: Sequence[Sequence[tuple[int, int, int, int]]], records: Sequence[tuple[int, int, int]]) -> bytes:
    """Index.dat: of each level a page of (image, offset, length, file); of other records (offset, length, file)."""
    root = len(VERSION + ID)
    data = bytearray(VERSION + ID + bytes(8))
    struct.pack_into("<i", data, root, len(data))
    link = len(data)
    data += bytes(4 * len(levels))
    for number, images in enumerate(levels):
        struct.pack_into("<i", data, link + 4 * number, len(data))
        data += struct.pack("<iiii", 0, len(data) + 8, len(images), 0)
        for image in images:
            data += struct.pack("<iiii", *image)
    struct.pack_into("<i", data, root + 4, len(data))
    link = len(data)
    data += bytes(4 * len(records))
    for number, (offset, length, file) in enumerate(records):
        struct.pack_into("<i", data, link + 4 * number, len(data))
        data += struct.pack("<9i", 0, len(data) + 8, 1, 0, 0, 0, offset, length, file)
    return bytes(data)


def _slidedat(scan: Scan, across: int, down: int, levels: int, mpp: float, general: Mapping[str, object]) -> str:
    sections: dict[str, dict[str, object]] = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": ID.decode(),
            "IMAGENUMBER_X": across * scan.divisions,
            "IMAGENUMBER_Y": down * scan.divisions,
            "OBJECTIVE_MAGNIFICATION": round(10 / mpp),
            "CameraImageDivisionsPerSide": scan.divisions,
            **general,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0 if scan.positions == "none" else 1,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": levels,
            "NONHIER_0_NAME": {"deflated": "StitchingIntensityLayer"}.get(scan.positions, "VIMSLIDE_POSITION_BUFFER"),
            "NONHIER_0_COUNT": 1,
            "NONHIER_0_VAL_0": "default",
            "NONHIER_0_VAL_0_SECTION": "NONHIERLAYER_0_SECTION",
        },
        "NONHIERLAYER_0_SECTION": {"VIMSLIDE_POSITION_DATA_FORMAT_VERSION": 257},
        "DATAFILE": {"FILE_COUNT": 2, "FILE_0": "Data0000.dat", "FILE_1": "Data0001.dat"},
    }
    for level in range(levels):
        sections["HIERARCHICAL"][f"HIER_0_VAL_{level}"] = f"ZoomLevel_{level}"
        sections["HIERARCHICAL"][f"HIER_0_VAL_{level}_SECTION"] = f"LAYER_0_LEVEL_{level}_SECTION"
        scale = 1 << level
        sections[f"LAYER_0_LEVEL_{level}_SECTION"] = {
            "IMAGE_CONCAT_FACTOR": int(level > 0),
            "OVERLAP_X": scan.overlap / scale,
            "OVERLAP_Y": scan.overlap / scale,
            "MICROMETER_PER_PIXEL_X": mpp * scale,
            "MICROMETER_PER_PIXEL_Y": mpp * scale,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": scan.side,
            "DIGITIZER_HEIGHT": scan.side,
            "IMAGE_FORMAT": "JPEG",
        }
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in entries.items())
        for name, entries in sections.items()
    )
