"""What ``import stamp_deploy as sd`` gives: slides, bundles and results as a notebook wants them.

Everything here is made of the modules below it; nothing of the flow is done anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import engine as engines
from . import infer, result_files
from .atomic import staged_directory
from .bundle import Bundle
from .bundle import load_bundle as _load_bundle
from .config import DEFAULT_WRITERS, InferOptions
from .engine import Engine
from .errors import UsageError
from .grid import TileSet, make_grid, select_tiles
from .maps import score_map
from .result import Result
from .slide import Slide
from .slide import open_slide as _open_slide
from .system.progress import show_progress
from .tiles import TileBatch, open_tiles
from .tissue import TissueMask, TissueRule, find_tissue
from .writers import check_names, write_all
from .writers.formats import FORMATS
from .writers.names import find_name

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from PIL.Image import Image
    from pyarrow import Table

PathLike = str | Path


class SlideResult(Result):
    """A `Result` with what a notebook wants of it: tables, pictures, files.

    In a notebook it shows itself: the slide, its first maps, its calls.
    """

    @classmethod
    def of(cls, result: Result) -> SlideResult:
        """The same record, with these methods."""
        return cls(**{field.name: getattr(result, field.name) for field in fields(Result)})

    @property
    def scores(self) -> DataFrame:
        """One row a tile: position, tissue fraction, pathways, attention. Needs pandas; `to_arrow` does not.

        >>> result = read_result("result")
        >>> list(result.scores.columns[:6])
        ['x', 'y', 'column', 'row', 'tissue_fraction', 'HYPOXIA']
        """
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError as error:
            raise UsageError(
                "`scores` is a pandas table, and pandas is not installed",
                remedy="pip install 'stamp-deploy[formats]', or use to_arrow()",
            ) from error
        return self.to_arrow().to_pandas()

    def to_arrow(self) -> Table:
        """The same table as a `pyarrow.Table`, which the base install has.

        >>> read_result("result").to_arrow().num_rows
        36
        """
        from .writers.parquet import to_table

        return to_table(self)

    def to_anndata(self) -> AnnData:
        """Tiles as observations and pathways as variables, for scanpy and squidpy. Needs the extra ``formats``.

        >>> read_result("result").to_anndata().shape
        (36, 4)
        """
        check_names(["anndata"])
        from .writers.anndata import to_anndata

        return to_anndata(self)

    def map(self, pathway: str) -> NDArray[np.float32]:
        """One pathway laid out on the grid: float32 [rows, columns], NaN where no tile was scored.

        >>> read_result("result").map("hypoxia").shape
        (6, 6)
        """
        return score_map(self, self.pathway_names[find_name(self.pathway_names, pathway)])

    def plot(self, pathway: str) -> Image:
        """The heat map of one pathway over the slide, with its colour bar and scale bar.

        Parameters
        ----------
        pathway : str
            Its name, or the part of it that people say: "hypoxia" for "HALLMARK_HYPOXIA".

        Returns
        -------
        PIL.Image.Image
            A notebook shows it; ``.save("map.png")`` keeps it.

        Raises
        ------
        UsageError
            No pathway of that name, or several.

        >>> read_result("result").plot("hypoxia").mode
        'RGB'
        """
        from .writers.heatmaps import draw
        from .writers.picture import make_view, result_styles

        index = find_name(self.pathway_names, pathway)
        style = next(style for style in result_styles(self) if style.index == index)
        return draw(self, make_view(self), style)

    def write(self, out: PathLike, formats: Sequence[str] = DEFAULT_WRITERS, *, overwrite: bool = False) -> list[Path]:
        """Write the result into a folder that appears whole or not at all.

        Parameters
        ----------
        out : path-like
            The folder to be made.
        formats : sequence of str
            Output formats; ``stamp-deploy formats`` lists them.
        overwrite : bool
            Replace a finished result.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        UsageError
            A format is unknown, lacks its package, or needs the slide, and where that lies is not known.
        DiskError
            The folder cannot be written.

        >>> files = read_result("result").write("again", formats=["report", "geojson"])
        >>> [path.name for path in files]
        ['report.html', 'tiles.geojson']
        """
        out = Path(out)
        names = [formats] if isinstance(formats, str) else list(formats)
        check_names(names, self.source_path)
        homeless = [name for name in names if FORMATS[name].needs_slide and self.source_path is None]
        if homeless:
            raise UsageError(
                f"{', '.join(homeless)} reads the slide's own headers, and a stored result does not say where it lies",
                remedy="name the slide: --slide on the command line, read_result(folder, slide=...) in Python",
            )
        with staged_directory(out, overwrite=overwrite, hashes=True) as staging:
            written = [path.relative_to(staging) for path in write_all(self, staging, names)]
        return [out / path for path in written]

    def _repr_html_(self) -> str:
        from .writers.card import card_html

        return card_html(self)


class OpenSlide(Slide):
    """An open slide with its tiles; closes itself at the end of a ``with`` block.

    Everything of `Slide` is here: ``levels``, ``mpp``, ``route``, ``thumbnail(max_px)``, ``read_region(...)``.
    """

    @classmethod
    def of(cls, slide: Slide) -> OpenSlide:
        """Take over an open slide: the given one must not be used or closed any more."""
        taken = cls.__new__(cls)
        taken.__dict__.update(slide.__dict__)
        return taken

    def __enter__(self) -> OpenSlide:
        return self

    def tissue(self, rule: TissueRule | None = None) -> TissueMask:
        """Where the tissue is, by `rule` or the default one."""
        return find_tissue(self, rule or TissueRule())

    def tiles(
        self,
        bundle: Bundle | None = None,
        *,
        tile_px: int = 224,
        mpp: float = 0.5,
        overlap_px: int = 0,
        batch: int = 32,
        all_tiles: bool = False,
        threads: int = 0,
        exact: bool = False,
    ) -> Iterator[TileBatch]:
        """Iterate over the slide's tiles of tissue, decoded by the compiled tiler where the slide allows.

        Parameters
        ----------
        bundle : Bundle, optional
            Take tile size, resolution and tissue rule from a bundle, as inference does.
        tile_px, mpp, overlap_px : int, float, int
            Side of a tile, its microns per pixel, pixels that neighbours share; without a bundle.
        batch : int
            Tiles a batch; the last one may be smaller.
        all_tiles : bool
            Glass, too.
        threads : int
            Decoding threads; 0 takes every core.
        exact : bool
            Decode at full scale instead of the reduced JPEG scales.

        Yields
        ------
        TileBatch
            ``pixels`` uint8 [N, T, T, 3], a copy of your own; ``coords`` int64 [N, 2], level-0 pixels; ``index`` and
            ``status`` [N]. A tile whose status is not ``TileStatus.OK`` could not be read.

        Raises
        ------
        SlideError
            The slide is coarser than `mpp`, or cannot be read.

        >>> with open_slide("slide.svs") as slide:
        ...     sum(len(batch.pixels) for batch in slide.tiles(tile_px=64, all_tiles=True))
        36
        """
        rule = TissueRule() if bundle is None else TissueRule.from_dict(bundle.tissue)
        tileset = self._tileset(bundle, rule, tile_px, mpp, overlap_px, all_tiles)
        with closing(open_tiles(self, tileset, batch=batch, threads=threads, exact=exact)) as source:
            for filled in source:
                # The ring is filled again behind the consumer's back: list(slide.tiles()) must hold true.
                yield replace(filled, pixels=filled.pixels.copy())

    def _tileset(
        self, bundle: Bundle | None, rule: TissueRule, tile_px: int, mpp: float, overlap_px: int, all_tiles: bool
    ) -> TileSet:
        if bundle is not None:
            tile_px, mpp, overlap_px = bundle.tile_px, bundle.mpp, 0
        grid = make_grid(self, target_mpp=mpp, tile_px=tile_px, overlap_px=overlap_px)
        return select_tiles(grid, None if all_tiles else find_tissue(self, rule), rule.min_fraction)


def load_bundle(path: PathLike, *, require_signature: PathLike | None = None) -> Bundle:
    """Load a bundle; every file of it is checked first.

    Parameters
    ----------
    path : path-like
        The bundle's folder.
    require_signature : path-like, optional
        Public key (PEM) that must have signed it.

    Raises
    ------
    BundleError
        It is missing, altered, malformed or not signed by that key.

    >>> load_bundle("bundle").tile_px
    64
    """
    return _load_bundle(Path(path), require_signature=None if require_signature is None else Path(require_signature))


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
    bundle: Bundle | PathLike, name: str = "auto", *, batch: int = 32, threads: int = 0, precision: str | None = None
) -> Engine:
    """Load an engine once, to score many slides with it: ``infer_slide(..., engine=engine)``.

    Parameters
    ----------
    bundle : Bundle or path-like
    name : str
        "auto" takes the fastest engine that reproduces the bundle's golden outputs on this machine.
    batch, threads, precision
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
    return engines.load_engine(_bundle_of(bundle), name, batch=batch, threads=threads, precision=precision)


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
        Show a bar, or a line a minute where there is no place for one.
    **options
        Further fields of `InferOptions`: mpp, batch, threads, precision, exact, all_tiles, max_unreadable,
        time_limit_s, overwrite.

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
    unknown = sorted(options.keys() - asked)
    if unknown:
        raise UsageError(f"infer_slide has no option {unknown[0]!r}", remedy=f"one of: {', '.join(sorted(asked))}")
    settings = InferOptions(engine=chosen, writers=names, **options)
    with show_progress("tiles", enabled=progress) as advance:
        result = infer.infer_slide(
            Path(slide),
            _bundle_of(bundle),
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


def _bundle_of(bundle: Bundle | PathLike) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
