"""tiles.h5: features and coordinates as CLAM and TRIDENT read them, with our pathway scores beside them.

`features` float32 [N, D] and `coords` int64 [N, 2] (x, y of the top-left corner, level-0 pixels) are the
two datasets that CLAM and TRIDENT read; the attributes of `coords` carry TRIDENT's names. TRIDENT's
magnifications are nominal classes (40 for about 0.25 um/px), so the exact mpp stands beside them. No
attribute holds a path.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePath

import numpy as np

from ..result import Result
from ..result_files import MASK, SMALL_THUMBNAIL, attention_name, small_thumbnail
from ..trust import TileFlag
from ..validation import GLOBAL_UNIT
from .hdf5_file import hdf5_file

NAME = "hdf5"
NEEDS = ("h5py",)
_MAGNIFICATIONS = (1.25, 2.5, 5, 10, 20, 40, 80)
_MPP_AT_40X = 0.25


def write(result: Result, directory: Path) -> list[Path]:
    """Write tiles.h5."""
    import h5py

    grid, slide = result.grid, result.slide
    path = directory / "tiles.h5"
    with hdf5_file(path) as file:
        features = file.create_dataset("features", data=result.embedding.astype(np.float32, copy=False))
        features.attrs["encoder"] = result.bundle.pfm_id
        coords = file.create_dataset("coords", data=result.coords.astype(np.int64, copy=False))
        coords.attrs.update(
            {
                "name": PurePath(slide.name).stem,
                "patch_size": grid.tile_px,
                "patch_size_level0": round(grid.span_x),
                "level0_magnification": nominal_magnification(slide.mpp_x),
                "target_magnification": nominal_magnification(grid.target_mpp),
                "overlap": grid.overlap_px,
                "level0_width": slide.width,
                "level0_height": slide.height,
                "mpp": grid.target_mpp,
                "level0_mpp_x": slide.mpp_x,
                "level0_mpp_y": slide.mpp_y,
                "span_x_level0": grid.span_x,
                "span_y_level0": grid.span_y,
            }
        )
        pathways = file.create_dataset("pathways", data=result.pathways.astype(np.float32, copy=False))
        pathways.attrs["unit"] = result.score_unit
        if result.pathways_global is not None:
            shared = file.create_dataset("pathways_global", data=result.pathways_global.astype(np.float32, copy=False))
            shared.attrs["unit"] = GLOBAL_UNIT
        if result.trust is not None:
            file.create_dataset("trust/distance", data=result.trust.tile_distance)
            file.create_dataset("trust/percentile", data=result.trust.tile_percentile)
            flags = file.create_dataset("trust/flags", data=result.trust.tile_flags)
            flags.attrs.update({flag.name or "": int(flag) for flag in TileFlag})
        # A dataset, not an attribute: attributes are limited to 64 KiB, less than a thousand long names.
        file.create_dataset("pathway_names", data=list(result.pathway_names), dtype=h5py.string_dtype())
        file.create_dataset("tissue_fraction", data=result.tissue_fraction.astype(np.float32, copy=False))
        # What `render` and `read_result` draw on: lossless, so that pictures made later are the same.
        file.create_dataset("thumbnail", data=result.thumbnail, chunks=True, compression="gzip", compression_opts=1)
        file.create_dataset(SMALL_THUMBNAIL, data=small_thumbnail(result.thumbnail))
        if result.gallery is not None:
            for name, values in result.gallery.to_arrays().items():
                file.create_dataset(name, data=values)
        if result.tissue_mask is not None:
            file.create_dataset(MASK, data=result.tissue_mask, chunks=True, compression="gzip", compression_opts=1)
        for head in result.heads:
            if head.attention is not None:
                file.create_dataset(attention_name(head.name), data=head.attention)
        file.attrs.update(
            {
                "schema": "stamp-deploy/tiles",
                "schema_version": 1,
                "slide_sha256": slide.sha256,
                "bundle_sha256": result.bundle.sha256,
                "config_sha256": result.config_sha256,
                "software": f"stamp-deploy {result.software.get('stamp-deploy', '')}".strip(),
                "research_use": result.research_use,
            }
        )
    return [path]


def nominal_magnification(mpp: float) -> float | int:
    """The magnification class nearest to `mpp` on a ratio scale: 40 for 0.25 um/px, 20 for 0.5."""
    exact = 40 * _MPP_AT_40X / mpp
    nearest = min(_MAGNIFICATIONS, key=lambda value: abs(math.log(exact / value)))
    return int(nearest) if nearest == int(nearest) else nearest
