"""What is refused before any work: files that cannot be a slide, or that a few bytes blow up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import COPY_AGAIN, SlideError
from ..system.files import refuse_special, special_kind
from .backends import Backend, Level
from .dicom import is_dicom
from .foreign import BIO_FORMATS, HEAD_BYTES, check_foreign
from .tiff import sub_pages
from .tiff_pages import tiff_pages

MAX_SIDE = 2_000_000
_SEVERAL_FILES = ("dicom", "mirax", "hamamatsu")
BOMB_PIXELS, BOMB_RATIO = 200_000_000, 500
"""A picture of more pixels, with more bytes of pixels for each byte of the file: no scan is so empty."""


def check_file(path: Path) -> None:
    """Refuse what no reader could open, with the operating system's reason instead of a reader's guess.

    Raises
    ------
    SlideError
        The file is absent, empty, no file, not to be read, or a preview of a slide that lies elsewhere.
    """
    refuse_special(path, SlideError)
    try:
        if path.is_dir():
            raise SlideError("is a folder, not a slide", path=path, remedy="name a file in it")
        with path.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
    except FileNotFoundError:
        raise SlideError("does not exist", path=path, remedy="check the name") from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise SlideError(f"cannot be read: {what}", path=path, remedy="check its name, permissions and disk") from error
    if not head:
        raise SlideError("is empty", path=path, remedy="copy it again")
    check_foreign(path, head)
    _check_neighbours(path)
    _check_preview(path)


def _check_neighbours(path: Path) -> None:
    """Refuse a DICOM slide beside a pipe or a device: OpenSlide looks for the series in every file of the folder."""
    for other in path.parent.iterdir() if is_dicom(path) else ():
        kind = special_kind(other)
        if kind is not None:
            raise SlideError(
                f"lies in a folder with {kind}, on which its reader would wait without end",
                path=path,
                remedy="move the files of the slide into a folder of their own",
            )


def _check_preview(path: Path) -> None:
    """Refuse an Olympus .vsi, whose pixels lie in .ets files in a folder _NAME_ beside it; it holds small pictures."""
    data = path.parent / f"_{path.stem}_"
    beside = data.is_dir() and next(data.glob("*/*.ets"), None) is not None
    if path.suffix.lower() in (".vsi", ".ets") or beside:
        raise SlideError(
            "belongs to an Olympus VSI slide: a .vsi holds its preview, and the .ets files beside it cannot be read",
            path=path,
            remedy=f"{BIO_FORMATS}; or export it as tiled SVS, TIFF or DICOM from the scanner's software",
        )


def check_plain_image(path: Path) -> None:
    """Refuse to read the .mrxs of a MIRAX slide as the picture that it holds, where OpenSlide finds no slide in it.

    Raises
    ------
    SlideError
        The file is a preview of a slide whose data are not there.
    """
    if path.suffix.lower() == ".mrxs":
        raise SlideError(
            f"is the preview of a MIRAX slide, whose data in the folder {path.stem} are missing or incomplete",
            path=path,
            remedy="copy the .mrxs file and the folder of its name to one place",
        )


def check_size(path: Path, backend: Backend) -> None:
    """Refuse sizes that no slide has, and a small file that unpacks to a huge picture.

    Raises
    ------
    SlideError
        The size is impossible or the file a decompression bomb.
    """
    level = backend.levels[0]
    if not (1 <= level.width <= MAX_SIDE and 1 <= level.height <= MAX_SIDE):
        raise SlideError(
            f"states a size of {level.width} x {level.height} px",
            path=path,
            remedy="the file is damaged; copy it again",
        )
    pixels = level.width * level.height
    size_bytes = path.stat().st_size
    if pixels < BOMB_PIXELS or pixels * 3 < BOMB_RATIO * size_bytes or backend.vendor in _SEVERAL_FILES:
        return
    present = _present_pixels(path, level)
    if present >= BOMB_PIXELS and present * 3 > BOMB_RATIO * size_bytes:
        raise SlideError(
            f"unpacks to {level.width} x {level.height} px out of {size_bytes} bytes: no scan is so empty",
            path=path,
            remedy="it is damaged or made to fill the memory; copy or export it again",
        )


def check_tiff_tiles(path: Path, levels: Sequence[Level] = ()) -> None:
    """Refuse a TIFF that lists another number of storage tiles than a level's size needs: readers would show each in
    the place of another. Other files pass.

    Parameters
    ----------
    path : Path
    levels : sequence of Level, optional
        The levels, where their pages are of the same size; otherwise all tiled pages are looked at.

    Raises
    ------
    SlideError
        It does.
    """
    import tifffile

    sizes = {(level.width, level.height) for level in levels}
    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.is_ndpi:
                return  # see ndpi.py
            found = list(tiff_pages(tiff))
            pages = [page for page in found if not sizes or (page.imagewidth, page.imagelength) in sizes]
            tiled = [page for page in [*pages, *sub_pages(found[0])] if page.is_tiled]
            counts = [(page.imagewidth, page.imagelength, *_tile_counts(page)) for page in tiled]
    except Exception:
        return  # not a TIFF, or one that tifffile cannot walk: the reader that opened it says what is wrong
    for width, height, places, lengths, needed in counts:
        if places != needed:
            why = f"lists {places} storage tiles where its {width} x {height} px need {needed}"
        elif lengths != places:
            why = f"lists the places of {places} storage tiles of {width} x {height} px and the lengths of {lengths}"
        else:
            continue
        raise SlideError(why, path=path, remedy=COPY_AGAIN)


def _tile_counts(page: Any) -> tuple[int, int, int]:
    """How many places and how many lengths of storage tiles a page lists, and how many it needs."""
    planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
    needed = int(-(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength) * planes)
    return len(page.dataoffsets), len(page.databytecounts), needed


def _present_pixels(path: Path, level: Level) -> int:
    """Pixels of a level that its file holds: a sparse TIFF leaves out most."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            for page in tiff_pages(tiff):
                if (page.imagewidth, page.imagelength) == (level.width, level.height) and page.is_tiled:
                    there = sum(1 for count in page.databytecounts if count)
                    return int(there * page.tilewidth * page.tilelength)
    except Exception:
        pass  # not a TIFF that tifffile walks: all of it counts
    return level.width * level.height


def check_decodes(backend: Backend, level: Level) -> None:
    """Decode a few spots of a level, so that a broken file is refused before any work.

    One that decodes is enough: a slide with a damaged storage tile is for the budget of unreadable tiles.

    Raises
    ------
    SlideError
        Nothing decodes.
    """
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
