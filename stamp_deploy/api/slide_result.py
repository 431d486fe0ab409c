"""A result as a notebook wants it: tables, pictures, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..atomic import staged_directory
from ..config import DEFAULT_WRITERS
from ..errors import UsageError
from ..maps import score_map
from ..result import Result
from ..writers import check_names, write_all
from ..writers.formats import FORMATS
from ..writers.names import find_name

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
        """One row per tile: position, tissue fraction, pathways, attention. Needs pandas; `to_arrow` does not.

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
        from ..writers.parquet import to_table

        return to_table(self)

    def to_anndata(self) -> AnnData:
        """Tiles as observations and pathways as variables, for scanpy and squidpy. Needs the extra ``formats``.

        >>> read_result("result").to_anndata().shape
        (36, 4)
        """
        check_names(["anndata"])
        from ..writers.anndata import to_anndata

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
        from ..writers.heatmaps import draw
        from ..writers.picture import make_view, result_styles

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
        from ..writers.card import card_html

        return card_html(self)
