"""Open a slide, a bundle, an engine; score a slide; read a result back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .. import engine as engines
from .. import infer, result_files
from ..bundle import Bundle
from ..bundle import load_bundle as _load_bundle
from ..config import DEFAULT_WRITERS, InferOptions
from ..engine import Engine
from ..errors import UsageError
from ..slide import open_slide as _open_slide
from ..system.progress import show_progress
from .slide_result import PathLike, SlideResult
from .slide_tiles import OpenSlide


def load_bundle(path: PathLike, *, require_signature: PathLike | None = None, adapter: str | None = None) -> Bundle:
    """Load a bundle; every file of it is checked first.

    Parameters
    ----------
    path : path-like
        The bundle's folder.
    require_signature : path-like, optional
        Public key (PEM) that must have signed it.
    adapter : str, optional
        Which adapter of a bundle that holds several.

    Raises
    ------
    BundleError
        It is missing, altered, malformed or not signed by that key.

    >>> load_bundle("bundle").tile_px
    64
    """
    key = None if require_signature is None else Path(require_signature)
    return _load_bundle(Path(path), require_signature=key, adapter=adapter)


def open_slide(path: PathLike, *, mpp: float | None = None) -> OpenSlide:
    """Open a slide: its levels, its resolution and the evidence for it, its tiles.

    Parameters
    ----------
    path : path-like
    mpp : float, optional
        Microns per level-0 pixel; outranks what the file states.

    Raises
    ------
    SlideError
        The file does not exist, is damaged or of an unknown format.
    MppError
        No believable microns per pixel.

    >>> with open_slide("slide.svs") as slide:
    ...     slide.width, slide.height, slide.mpp.mpp_x
    (400, 400, 0.5)
    """
    return OpenSlide.of(_open_slide(path, mpp=mpp))


def load_engine(
    bundle: Bundle | PathLike,
    name: str = "auto",
    *,
    batch: int = 32,
    threads: int = 0,
    precision: str | None = None,
    url: str | None = None,
) -> Engine:
    """Load an engine once, to score many slides with it: ``infer_slide(..., engine=engine)``.

    Parameters
    ----------
    bundle : Bundle or path-like
    name : str
        "auto" takes the fastest engine that reproduces the bundle's golden outputs on this machine.
    batch, threads, precision, url
        As in `InferOptions`.

    Raises
    ------
    EngineError
        The engine cannot be used on this machine.
    ParityError
        No engine reproduces the bundle's golden outputs.

    >>> engine = load_engine("bundle", "onnxruntime")
    >>> infer_slide("slide.svs", "bundle", engine=engine, progress=False).engine.name
    'onnxruntime'
    >>> engine.close()
    """
    return engines.load_engine(_bundle_of(bundle), name, batch=batch, threads=threads, precision=precision, url=url)


def infer_slide(
    slide: PathLike,
    bundle: Bundle | PathLike,
    out: PathLike | None = None,
    *,
    formats: Sequence[str] = DEFAULT_WRITERS,
    engine: Engine | str = "auto",
    progress: bool = True,
    **options: Any,
) -> SlideResult:
    """Score one slide: pathway maps and slide-level calls.

    Parameters
    ----------
    slide : path-like
        The whole-slide image.
    bundle : Bundle or path-like
        The model.
    out : path-like, optional
        Result folder to be made, whole or not at all; without it nothing is written.
    formats : sequence of str
        What is written into `out`.
    engine : Engine or str
        An engine of `load_engine`, kept open; or the name of one.
    progress : bool
        Show a bar, or a line per minute where there is no place for one.
    **options
        Further fields of `InferOptions`: mpp, batch, threads, precision, url, adapter, exact, all_tiles, min_fraction,
        roi, roi_use, tissue_mask, max_unreadable, time_limit_s, overwrite.

    Raises
    ------
    StampError
        With the cause and the remedy; no output is left behind.

    >>> result = infer_slide("slide.svs", "bundle", progress=False)
    >>> result.pathway_names
    ('HYPOXIA', 'ANGIOGENESIS', 'APOPTOSIS', 'G2M_CHECKPOINT')
    >>> result.map("apoptosis").shape
    (6, 6)
    """
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    chosen = engine if isinstance(engine, str) else "auto"
    asked = {field.name for field in fields(InferOptions)} - {"engine", "writers"}
    for name in sorted(options.keys() - asked):
        close = get_close_matches(name, asked, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"one of: {', '.join(sorted(asked))}"
        raise UsageError(f"infer_slide has no option {name!r}", remedy=remedy)
    settings = InferOptions(engine=chosen, writers=names, **options)
    with show_progress("tiles", enabled=progress) as advance:
        result = infer.infer_slide(
            Path(slide),
            _bundle_of(bundle, settings.adapter),
            None if out is None else Path(out),
            settings,
            engine=None if isinstance(engine, str) else engine,
            progress=advance,
        )
    return SlideResult.of(result)


def read_result(folder: PathLike, *, slide: PathLike | None = None) -> SlideResult:
    """Read a result back from its folder, which must hold the formats json and hdf5 (the default has them).

    Parameters
    ----------
    folder : path-like
        A finished result.
    slide : path-like, optional
        Where its slide lies, for the formats that read its headers again (DICOM). It is hashed.

    Raises
    ------
    UsageError
        This is no finished result, it lacks a file, or the slide is another one.
    DataError
        The result is damaged.

    >>> result = read_result("result")
    >>> result.slide.name, result.tiles.ok
    ('slide.svs', 36)
    """
    result = SlideResult.of(result_files.read_result(Path(folder)))
    if slide is None:
        return result
    with _open_slide(slide) as opened:
        if opened.sha256() != result.slide.sha256:
            raise UsageError(
                "this is not the slide that was scored: its SHA-256 differs", path=slide, remedy="name the scored slide"
            )
    return replace(result, source_path=Path(slide))


def _bundle_of(bundle: Bundle | PathLike, adapter: str | None = None) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else load_bundle(bundle, adapter=adapter)
