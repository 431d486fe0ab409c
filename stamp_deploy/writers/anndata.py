"""tiles.h5ad: tiles as observations, pathways as variables, for scanpy and squidpy.

`X` float32 [N, P] holds the scores, `obsm["spatial"]` the tiles' centres in level-0 pixels (squidpy's
convention, with `uns["spatial"]` holding the thumbnail and its scale), `obsm["X_embedding"]` the
embeddings. `layers["pathways_global"]` holds the read-out that is comparable across slides, and `obs` says
how far each tile is from what the model knows, where the bundle can tell.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from ..result import Result
from .hdf5_file import hdf5_file
from .summary_table import TEXT_COLUMNS, column_names, summary_rows

if TYPE_CHECKING:
    from anndata import AnnData

NAME = "anndata"
NEEDS = ("anndata", "pandas")


def write(result: Result, directory: Path) -> list[Path]:
    """Write tiles.h5ad."""
    from anndata.io import write_elem

    path = directory / "tiles.h5ad"
    data = to_anndata(result)
    data.strings_to_categoricals()
    with hdf5_file(path) as file:
        write_elem(file, "/", data, dataset_kwargs={"compression": "gzip"})
    return [path]


def to_anndata(result: Result) -> AnnData:
    """The result as an AnnData object [N tiles, P pathways]."""
    import pandas as pd
    from anndata import AnnData

    grid, cells = result.grid, result.tile_cells
    index = pd.Index([f"{x}_{y}" for x, y in result.coords.tolist()], name="tile")
    obs = pd.DataFrame(
        {
            "x": result.coords[:, 0],
            "y": result.coords[:, 1],
            # squidpy and scanpy know a grid by these two names.
            "array_row": cells[:, 1],
            "array_col": cells[:, 0],
            "tissue_fraction": result.tissue_fraction,
            **(result.trust.columns() if result.trust is not None else {}),
            # "/" would make a group in the file
            **{
                "attention_" + head.name.replace("/", "_"): head.attention
                for head in result.heads
                if head.attention is not None
            },
        },
        index=index,
    )
    data = AnnData(
        X=result.pathways.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(result.pathway_names, name="pathway")),
    )
    if result.pathways_global is not None:
        data.layers["pathways_global"] = result.pathways_global.astype(np.float32)
    data.obsm["spatial"] = result.coords + np.array([grid.span_x, grid.span_y]) / 2
    data.obsm["X_embedding"] = result.embedding
    wide = result.thumbnail.shape[1]
    data.uns["spatial"] = {
        PurePath(result.slide.name).stem: {
            "images": {"hires": result.thumbnail},
            "scalefactors": {
                "tissue_hires_scalef": wide / result.slide.width,
                "spot_diameter_fullres": grid.span_x,
            },
        }
    }
    # As text: nested lists and nulls of the record have no place in HDF5's attributes.
    data.uns["stamp_deploy"] = {
        "result_json": json.dumps(result.to_json_dict()),
        "score_unit": result.score_unit,
        "summaries": pd.DataFrame(summary_rows(result.summaries), columns=column_names()).astype(_kinds()),
    }
    return data


def _kinds() -> dict[str, str]:
    """Types of the summaries' columns: a column without any value would have none that HDF5 knows."""
    return {name: "str" if name in TEXT_COLUMNS else "float64" for name in column_names()}
