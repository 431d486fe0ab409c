"""Visium HD: square bins without gaps, pooled into squares of a stated size so that a tile has enough counts.

Reads one folder of binned_outputs, such as square_008um/. Bin size and resolution follow from its own files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from .base import RawSample, Settings, grid_pitch, join
from .tenx import find_matrix, read_matrix
from .visium import full_size, scale_factors
from .xenium import pool

_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


def read(settings: Settings) -> RawSample:
    """Read the bins under tissue and pool them; see docs/cohort.md for the keys.

    Raises
    ------
    DataError
        The pool size is not stated or smaller than a bin, or a file is missing or damaged.
    """
    root, image = settings.path("folder"), settings.path("image")
    spatial = root / "spatial"
    bin_um = scale_factors(spatial / "scalefactors_json.json").get("bin_size_um")
    if not isinstance(bin_um, int | float) or not 0 < bin_um < 1000:
        raise DataError(
            "states no bin_size_um",
            path=spatial / "scalefactors_json.json",
            remedy="name a folder of binned_outputs, such as square_008um",
        )
    pool_um = settings.number("pool_um")
    if pool_um is None or pool_um < bin_um:
        raise DataError(
            f"the sample {settings.sample} needs a pool_um of {bin_um:g} or more",
            path=root,
            remedy="state the side of the squares that bins are pooled into, for example pool_um = 56",
        )
    path = spatial / "tissue_positions.parquet"
    barcodes, tissue, grid, pixels = _positions(path)
    a, b, rms = grid_pitch(grid, pixels, path)
    mpp = bin_um / ((a + b) / 2)
    to_pixels = np.linalg.lstsq(np.c_[grid, np.ones(len(grid))], pixels, rcond=None)[0]
    counts, names_of, names, ids = read_matrix(find_matrix(root, "filtered_feature_bc_matrix"))
    places = {name: (float(x), float(y)) for name, (x, y), inside in zip(barcodes, grid, tissue, strict=True) if inside}
    counts, _, bins = join(counts, names_of, places, path, all_needed=False)
    # array places are those of bin centres: half a bin more makes them lengths from the array's corner
    least = int(settings.number("min_bins") or 1)
    pooled, centres_um, in_square, labels = pool(counts, (bins + 0.5) * bin_um, pool_um, least)
    centres = np.c_[centres_um / bin_um - 0.5, np.ones(len(centres_um))] @ to_pixels
    return RawSample(
        counts=pooled,
        names=names,
        ids=ids,
        barcodes=labels,
        centres=centres,
        image=image,
        mpp=mpp,
        mpp_source=(
            f"bins of {bin_um:g} um are {a:.3f} and {b:.3f} px along the array's axes over {len(grid)} bins "
            f"(affine fit, rms {rms:.2g} px)"
        ),
        platform="Visium HD",
        image_size=full_size(spatial),
        pooled_um=pool_um,
        notes={"bins": counts.shape[0], "pool_um": pool_um, "median_bins_per_spot": float(np.median(in_square))},
    )


def _positions(
    path: Path,
) -> tuple[list[str], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Barcodes, whether they are under tissue, array places (column, row), pixels (x, y)."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot be read: {error}", path=path, remedy="copy spatial/ from the results") from error
    values = {name: table[name].to_numpy() for name in _COLUMNS[1:]}
    grid = np.c_[values["array_col"], values["array_row"]].astype(np.float64)
    pixels = np.c_[values["pxl_col_in_fullres"], values["pxl_row_in_fullres"]].astype(np.float64)
    if not (np.isfinite(grid).all() and np.isfinite(pixels).all()):
        raise DataError("holds bins without a place", path=path, remedy="export the positions again")
    return [str(v) for v in table["barcode"].to_pylist()], values["in_tissue"] == 1, grid, pixels
