"""Any AnnData file with raw counts and obsm["spatial"] in pixels of a named image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from stamp_deploy.errors import DataError

from ..genes import is_ensembl
from .base import RawSample, Settings

if TYPE_CHECKING:
    from anndata import AnnData

_ID_COLUMNS = ("gene_ids", "ensembl_id", "gene_id")
_SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "feature_name")
"""Read where the file's own names are Ensembl identifiers and the config names no column."""
_UNITS: dict[str, Literal["px", "um", ""]] = {"": "", "px": "px", "um": "um"}


def read(settings: Settings) -> RawSample:
    """Read counts and places; see docs/cohort.md for the keys.

    Raises
    ------
    DataError
        The file cannot be read, or lacks obsm["spatial"] or the layer.
    """
    path = settings.path("counts")
    data = open_h5ad(path)
    return from_anndata(data, path, settings, settings.path("image"))


def open_h5ad(path: Path) -> AnnData:
    """An AnnData file, whole in memory."""
    import anndata

    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"cannot be read as AnnData: {error}", path=path) from error


def from_anndata(data: AnnData, path: Path, settings: Settings, image: Path, **facts: Any) -> RawSample:
    """A RawSample of an AnnData object."""
    if "spatial" not in data.obsm:
        raise DataError(
            "has no obsm['spatial']", path=path, remedy="store the spot centres there, in pixels of the full image"
        )
    centres = np.asarray(data.obsm["spatial"], np.float64)
    if centres.ndim != 2 or centres.shape[1] != 2 or not np.isfinite(centres).all():
        raise DataError(f"obsm['spatial'] of shape {centres.shape} is not [{data.n_obs}, 2] without gaps", path=path)
    unit = settings.text("coordinates")
    if unit not in _UNITS:
        raise DataError(f"coordinates = {unit!r} does not exist", remedy='use "px" (pixels of the image) or "um"')
    layer = settings.text("layer")
    if layer and layer not in data.layers:
        raise DataError(f"has no layer {layer}", path=path, remedy="layers: " + (", ".join(data.layers) or "none"))
    counts = data.layers[layer] if layer else data.X
    if counts is None:
        raise DataError("has no X", path=path, remedy='name the layer of the raw counts: layer = "counts"')
    if not data.obs_names.is_unique:
        raise DataError("has barcodes that come twice", path=path, remedy="make obs_names unique")
    column = settings.text("gene_column")
    if column and column not in data.var:
        raise DataError(f"has no var column {column}", path=path, remedy="columns: " + ", ".join(map(str, data.var)))
    ids = next((data.var[c].astype(str) for c in _ID_COLUMNS if c in data.var), None)
    if not column and sum(map(is_ensembl, map(str, data.var_names))) > data.n_vars / 2:
        column = next((c for c in _SYMBOL_COLUMNS if c in data.var), "")
        ids = data.var_names.to_series() if column else ids
    names = data.var[column].astype(str) if column else data.var_names
    return RawSample(
        counts=sparse.csr_array(counts),
        names=tuple(map(str, names)),
        ids=None if ids is None else tuple(ids),
        barcodes=tuple(map(str, data.obs_names)),
        centres=centres,
        image=image,
        unit=_UNITS[unit],
        **facts,
    )
