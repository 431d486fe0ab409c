"""Xenium output: cells, pooled into squares of a stated size so that a tile has enough counts.

Cells are placed in microns of the morphology image. An H&E image scanned afterwards needs the alignment that Xenium
Explorer exports: a 3 x 3 matrix from pixels of that image to pixels of the morphology image.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy.errors import DataError
from stamp_deploy.tables import read_table

from .base import RawSample, Settings, join
from .tenx import find_matrix, read_matrix


def read(settings: Settings) -> RawSample:
    """Read the cells and pool them; see docs/cohort.md for the keys.

    Raises
    ------
    DataError
        The pool size or the alignment is not stated, or a file is missing or damaged.
    """
    root, image = settings.path("folder"), settings.path("image")
    pool_um = settings.number("pool_um")
    if pool_um is None:
        raise DataError(
            f"the sample {settings.sample} states no pool_um",
            path=root,
            remedy="state the side of the squares that cells are pooled into, for example pool_um = 55",
        )
    counts, barcodes, names, ids = read_matrix(find_matrix(root, "cell_feature_matrix"))
    cells_path, cells = _cells(root)
    counts, _, microns = join(counts, barcodes, cells, cells_path, all_needed=True)
    pixel_um = settings.number("pixel_size_um") or _pixel_size(root / "experiment.xenium")
    mpp, source, to_image = _alignment(settings, pixel_um)
    pooled, centres_um, cells_in, labels = pool(counts, microns, pool_um, int(settings.number("min_cells") or 1))
    return RawSample(
        counts=pooled,
        names=names,
        ids=ids,
        barcodes=labels,
        centres=to_image(centres_um),
        image=image,
        mpp=mpp,
        mpp_source=source,
        platform="Xenium",
        pooled_um=pool_um,
        notes={"cells": counts.shape[0], "pool_um": pool_um, "median_cells_per_spot": float(np.median(cells_in))},
    )


def pool(
    counts: sparse.csr_array, microns: NDArray[np.float64], pool_um: float, min_cells: int = 1
) -> tuple[sparse.csr_array, NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    """Sum cells over the squares of a grid that starts at the origin.

    Parameters
    ----------
    counts : CSR array [C, G]
    microns : float64 [C, 2]
    pool_um : float
        Side of a square.
    min_cells : int
        Squares with fewer cells are left out.

    Returns
    -------
    counts : CSR array [N, G]
    centres : float64 [N, 2]
        Of the squares, microns.
    cells : int64 [N]
    labels : tuple of str
        ``COLUMNxROW`` of each square.
    """
    square = np.floor(microns / pool_um).astype(np.int64)
    unique, member = np.unique(square, axis=0, return_inverse=True)
    member = member.reshape(-1)
    cells = np.bincount(member, minlength=len(unique))
    summing = sparse.csr_array(
        (np.ones(len(member), np.float32), (member, np.arange(len(member)))), shape=(len(unique), len(member))
    )
    pooled = sparse.csr_array(summing @ counts)
    keep = np.flatnonzero(cells >= min_cells)
    labels = tuple(f"{x}x{y}" for x, y in unique[keep])
    centres = np.asarray((unique[keep] + 0.5) * pool_um, np.float64)
    return pooled[keep], centres, cells[keep].astype(np.int64), labels


def _cells(root: Path) -> tuple[Path, dict[str, tuple[float, float]]]:
    """Cell -> centre in microns."""
    path = root / "cells.parquet"
    if path.is_file():
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=["cell_id", "x_centroid", "y_centroid"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot be read: {error}", path=path) from error
        ids = [v.decode() if isinstance(v, bytes) else str(v) for v in table["cell_id"].to_pylist()]
        xy = np.c_[table["x_centroid"].to_numpy(), table["y_centroid"].to_numpy()]
        if not np.isfinite(xy).all():
            raise DataError("holds cells without a place", path=path, remedy="export the cells again")
        return path, {cell: (float(x), float(y)) for cell, (x, y) in zip(ids, xy, strict=True)}
    for name in ("cells.csv.gz", "cells.csv"):
        path = root / name
        if path.is_file():
            cells = read_table(path, error=DataError)
            cells.require("cell_id", "x_centroid", "y_centroid")
            return path, {
                row["cell_id"]: (cells.number(i, "x_centroid"), cells.number(i, "y_centroid"))
                for i, row in enumerate(cells.rows)
            }
    raise DataError("holds neither cells.parquet nor cells.csv.gz", path=root, remedy="copy the cells from the results")


def _pixel_size(path: Path) -> float:
    """Microns per pixel of the morphology image."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("pixel_size")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"cannot be read: {error}", path=path, remedy="copy it from the results, or state pixel_size_um"
        ) from error
    if not isinstance(value, int | float) or not 0 < value < 10:
        raise DataError("states no pixel_size", path=path, remedy="state pixel_size_um")
    return float(value)


class _ToImage:
    """Microns of the morphology image -> pixels of the H&E image."""

    def __init__(self, matrix: NDArray[np.float64], pixel_um: float) -> None:
        self.inverse, self.pixel_um = np.linalg.inv(matrix), pixel_um

    def __call__(self, microns: NDArray[np.float64]) -> NDArray[np.float64]:
        homogeneous = np.c_[microns / self.pixel_um, np.ones(len(microns))] @ self.inverse.T
        return np.ascontiguousarray(homogeneous[:, :2])


def _alignment(settings: Settings, pixel_um: float) -> tuple[float, str, _ToImage]:
    stated = settings.text("alignment")
    if not stated:
        raise DataError(
            f"the sample {settings.sample} does not state how its image lies on the cells",
            remedy='add alignment = "FILE.csv" (exported by Xenium Explorer), or alignment = "identity" where the '
            "image has the same pixels as the morphology image",
        )
    if stated == "identity":
        return pixel_um, f"pixel_size of the morphology image, {pixel_um:g} um", _ToImage(np.eye(3), pixel_um)
    path = settings.path("alignment")
    try:
        matrix = np.loadtxt(path, delimiter=",", dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as numbers: {error}", path=path) from error
    if matrix.shape != (3, 3) or not np.allclose(matrix[2], [0, 0, 1]) or abs(np.linalg.det(matrix)) < 1e-9:
        raise DataError("is not a 3 x 3 affine matrix", path=path, remedy="export it again from Xenium Explorer")
    scale_x, scale_y = np.linalg.norm(matrix[:2, 0]), np.linalg.norm(matrix[:2, 1])
    if max(scale_x, scale_y) > 1.1 * min(scale_x, scale_y):
        raise DataError(f"stretches x by {scale_x:.3g}, y by {scale_y:.3g}", path=path, remedy="align the image again")
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    mpp = pixel_um * scale
    source = f"alignment: a pixel of the image is {scale:.4g} pixels of {pixel_um:g} um of the morphology image"
    return mpp, source, _ToImage(matrix, pixel_um)
