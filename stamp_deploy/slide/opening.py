"""From a path to an open slide: which file, which reader, which levels, which resolution, which route."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import SlideError
from ..system import isolation
from .backends import Backend, UnknownFormatError
from .checks import check_decodes, check_file, check_plain_image, check_size, check_tiff_tiles
from .cog import check_cog
from .colour import check_stated_light, check_tiff_colour
from .dicom import is_dicom, slide_in_folder
from .first_page import check_first_page
from .held import HeldFiles
from .icc import find_colours
from .left_out import find_left_out
from .mirax import read_mirax
from .mpp import find_mpp
from .ndpi import read_ndpi
from .ome import check_ome
from .pyramid import levels_of_the_slide
from .route import check_route, choose_route
from .slide import Slide
from .storage.bif_layout import read_bif
from .storage.index import StorageIndex
from .storage.jpeg_bif import open_bif, stored_pages
from .storage.jpeg_dicom import open_jpeg_dicom
from .storage.jpeg_scn import check_scn
from .storage.open_tiff import open_codec_tiff
from .storage.providers import find_storage
from .storage.shared_tiles import check_shared_tiles
from .storage.sub_pages import with_sub_pages
from .stream_colour import believe_streams

_PADDED = ("ventana", "philips", "leica")
"""Formats by OpenSlide's names whose levels are of another size than their pages."""


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    route: str | None = None,
    accept: Collection[str] = (),
    icc: str | None = None,
) -> Slide:
    """Open a slide and decide its resolution, levels and route.

    Parameters
    ----------
    path : path-like
        A file; of a DICOM slide any of its files, or a folder that holds this one slide.
    mpp : float, optional
        Microns per level-0 pixel that outrank what the file states.
    route : str, optional
        Force one of `route.ROUTES`: "jpeg-tiff", "openslide", "pyvips" and so on.
    accept : collection of str
        What beside 8-bit RGB of a brightfield scanner is read, of `colour.KINDS`: what the bundle was trained on.
    icc : str, optional
        "srgb" converts tiles by the slide's ICC profile; otherwise their colours stay as they are stored.

    Raises
    ------
    SlideError
        The file does not exist, is damaged, of an unknown format, or no brightfield picture in colour.
    MppError
        No believable microns per pixel.
    UsageError
        The forced route cannot read this slide.
    """
    check_route(route)
    path = slide_file(path)
    try:
        held = HeldFiles(path)
        try:
            backend = _open_backend(path, route, accept)
            try:
                return _open(path, backend, held, mpp, route, accept, icc)
            except BaseException:
                backend.close()
                raise
        except BaseException:
            held.close()
            raise
    except OSError as error:
        what = error.strerror or "input/output error"
        raise SlideError(f"cannot be read: {what}", path=path, remedy="check the disk and the rights") from error


def slide_file(path: str | Path) -> Path:
    """The file that stands for a slide: itself, or the full-resolution file of a folder of one DICOM slide.

    Raises
    ------
    SlideError
        It cannot be read, or is a folder of no or several slides.
    """
    path = Path(path)
    isolation.note(slide=str(path), stage="opening the slide")
    try:
        folder = path.is_dir()
    except OSError:
        folder = False  # `check_file` says why it cannot be looked at
    if folder:
        path = slide_in_folder(path)
    check_file(path)
    return path


def _open(
    path: Path,
    backend: Backend,
    held: HeldFiles,
    mpp: float | None,
    route: str | None,
    accept: Collection[str],
    icc: str | None,
) -> Slide:
    check_size(path, backend)
    backend, colour_notes = believe_streams(path, backend)
    colours = find_colours(path, backend, icc)
    check_stated_light(backend.properties, path, accept)
    check_tiff_colour(path, backend.levels, accept)
    if backend.vendor not in _PADDED:  # of those, all pages were looked at before they were opened
        check_tiff_tiles(path, backend.levels)
    check_cog(path)
    page_notes = check_first_page(path, backend)
    check_ome(backend.properties.get("openslide.comment", ""), backend.levels[0].width, backend.levels[0].height, path)
    finding = find_mpp(backend.properties, stated=mpp, path=path)
    check_decodes(backend, backend.levels[-1])
    mirax = read_mirax(path) if backend.vendor == "mirax" else None
    levels, numbers, notes = levels_of_the_slide(backend, mirax.lacking if mirax is not None else None, path=path)
    provider, storage = find_storage(path, backend, levels, numbers, route)
    if isinstance(storage, StorageIndex):
        check_shared_tiles(path, storage)
    elif backend.vendor == "ventana":
        check_shared_tiles(path, stored_pages(path))
    left_out, missing = find_left_out(path, backend.vendor, levels, numbers, storage)
    if mirax is not None:
        missing = mirax.left_out(levels[0].width, levels[0].height)
    return Slide(
        path,
        backend,
        finding,
        choose_route(path, backend, provider, storage, route),
        held=held,
        levels=levels,
        colours=colours,
        level_numbers=numbers,
        notes=(*getattr(backend, "notes", ()), *colour_notes, *colours.notes, *page_notes, *notes),
        accept=frozenset(accept),
        storage=storage if isinstance(storage, StorageIndex) else None,
        left_out=left_out,
        missing=missing,
    )


def _open_backend(path: Path, route: str | None, accept: Collection[str]) -> Backend:
    from .backends.openslide import OpenSlideBackend
    from .backends.vips import VipsBackend

    if route == "pyvips":
        return VipsBackend(path, accept)
    if route != "openslide" and is_dicom(path):
        reader = open_jpeg_dicom(path)
        if not isinstance(reader, str):
            return reader
    vendor = OpenSlideBackend.detect(path)
    # damaged ones are refused here: OpenSlide ends the process on some
    if vendor in _PADDED:
        check_tiff_tiles(path)
    if vendor == "ventana":
        read_bif(path)
    elif vendor == "mirax":
        read_mirax(path)
    elif vendor == "hamamatsu":
        read_ndpi(path)
    elif vendor == "leica":
        check_scn(path)
    try:
        backend = OpenSlideBackend(path)
    except SlideError as first:
        if vendor == "ventana" and route in (None, "jpeg-bif"):
            bif = open_bif(path)
            if not isinstance(bif, str):
                return bif
        # a scanner's file that is damaged must not be taken for a plain image without resolution
        if route not in (None, "codec-tiff") or vendor not in (None, "generic-tiff"):
            raise
        by_pages = open_codec_tiff(path)
        if not isinstance(by_pages, str):
            return by_pages
        check_plain_image(path)
        try:
            return VipsBackend(path, accept)
        except UnknownFormatError:
            raise first from None
    return backend if route == "openslide" else with_sub_pages(path, backend)
