"""tiles.parquet: one row per tile, one column per pathway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..result import Result

if TYPE_CHECKING:
    from pyarrow import Table

NAME = "parquet"
NEEDS = ("pyarrow",)
_FIXED = ("x", "y", "column", "row", "tissue_fraction", "trust_distance", "trust_percentile", "trust_flags", "left_out")
_PREFIXES = ("attention.", "global.")


def column_names(result: Result) -> list[str]:
    """The pathway columns' names: "pathway." is put in front of one that would shadow another column."""
    return [
        f"pathway.{name}" if name in _FIXED or name.startswith(_PREFIXES) else name for name in result.pathway_names
    ]


def write(result: Result, directory: Path) -> list[Path]:
    """Write tiles.parquet, the table of `to_table`."""
    from pyarrow import parquet

    path = directory / "tiles.parquet"
    parquet.write_table(to_table(result), path, compression="zstd")
    return [path]


def to_table(result: Result) -> Table:
    """One row per tile, as a `pyarrow.Table`.

    Columns: x, y (int64, level-0 pixels of the tile's top-left corner), column, row (int32, grid position),
    tissue_fraction (float32), a float32 column per pathway, global.<pathway> where the bundle has a read-out that is
    comparable across slides, and attention.<head> for each slide-level head. Where the slide was judged: trust_distance
    and trust_percentile (float32, NaN where the tile was not measured), trust_flags (uint16) and left_out (bool). The
    embeddings stand in tiles.h5. The schema's metadata names slide, bundle, grid and unit.
    """
    import pyarrow as pa

    cells = result.tile_cells.astype(np.int32)
    columns: dict[str, np.ndarray] = {
        "x": result.coords[:, 0],
        "y": result.coords[:, 1],
        "column": cells[:, 0],
        "row": cells[:, 1],
        "tissue_fraction": result.tissue_fraction,
    }
    columns.update({name: result.pathways[:, i] for i, name in enumerate(column_names(result))})
    columns.update({f"attention.{head.name}": head.attention for head in result.heads if head.attention is not None})
    if result.pathways_global is not None:
        columns |= {f"global.{name}": result.pathways_global[:, i] for i, name in enumerate(result.pathway_names)}
    if result.trust is not None:
        columns |= result.trust.columns()
    metadata = {
        "slide_sha256": result.slide.sha256,
        "bundle_sha256": result.bundle.sha256,
        "score_unit": result.score_unit,
        "tile_px": str(result.grid.tile_px),
        "target_mpp": repr(float(result.grid.target_mpp)),
        "level0_mpp_x": repr(float(result.slide.mpp_x)),
        "level0_mpp_y": repr(float(result.slide.mpp_y)),
        "span_x_level0": repr(float(result.grid.span_x)),
        "span_y_level0": repr(float(result.grid.span_y)),
        "research_use": result.research_use,
    }
    table = pa.table({name: pa.array(np.ascontiguousarray(values)) for name, values in columns.items()})
    return table.replace_schema_metadata(metadata)
