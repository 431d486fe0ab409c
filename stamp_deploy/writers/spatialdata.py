"""slide.zarr: a SpatialData store of thumbnail, tile polygons and scores, for squidpy and napari.

Elements share the coordinate system "global", level-0 pixels: image `thumbnail` (scaled up to it), shapes
`tiles` (one square per tile), table `scores` (pathways as variables, annotating `tiles`).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..result import Result
from .anndata import to_anndata

NAME = "spatialdata"
NEEDS = ("spatialdata", "geopandas", "shapely", "anndata", "pandas")


def write(result: Result, directory: Path) -> list[Path]:
    """Write slide.zarr."""
    import geopandas
    import shapely
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    grid, slide = result.grid, result.slide
    corners = np.hstack([result.coords, result.coords + np.array([grid.span_x, grid.span_y])])
    boxes = shapely.box(*corners.T)
    table = to_anndata(result)
    frame = geopandas.GeoDataFrame(geometry=boxes, index=table.obs_names.astype(str))
    high, wide = result.thumbnail.shape[:2]
    scale = Scale([slide.width / wide, slide.height / high], axes=("x", "y"))
    image = Image2DModel.parse(
        np.ascontiguousarray(result.thumbnail.transpose(2, 0, 1)),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations={"global": scale},
    )
    table.obs["region"] = np.full(len(table), "tiles")
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance"] = table.obs_names.to_numpy()
    data = SpatialData(
        images={"thumbnail": image},
        shapes={"tiles": ShapesModel.parse(frame, transformations={"global": Identity()})},
        tables={"scores": TableModel.parse(table, region="tiles", region_key="region", instance_key="instance")},
    )
    path = directory / "slide.zarr"
    with warnings.catch_warnings():
        # spatialdata, ome-zarr and zarr announce their own next versions here: nothing that a user could act on.
        warnings.simplefilter("ignore", (UserWarning, DeprecationWarning))
        data.write(path)
    return [path]
