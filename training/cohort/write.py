"""Writing a cohort folder: samples first, cohort.json last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.errors import DataError

from .store import SCHEMA, Cohort, SampleFacts, load_cohort

if TYPE_CHECKING:
    from anndata import AnnData


def write_sample(folder: Path, data: AnnData, tiles: NDArray[np.uint8] | None, facts: SampleFacts) -> SampleFacts:
    """Write one sample into a cohort folder.

    Parameters
    ----------
    folder : Path
        The cohort folder; the sample goes to ``samples/ID``, which is made.
    data : AnnData
        As `Sample.expression` gives it back.
    tiles : uint8 [N, T, T, 3] or None
        None where ``tiles.npy`` is there already (`tiles_file` gives a mapped array to fill).
    facts : SampleFacts
        `spots` and `genes` are taken from `data`.

    Returns
    -------
    SampleFacts
        The row for `write_cohort_json`.

    Raises
    ------
    DataError
        The data do not fit together; see also `SampleFacts.check`.
    """
    facts = replace(facts, spots=int(data.n_obs), genes=int(data.n_vars))
    facts.check()
    if not (data.obs_names.is_unique and data.var_names.is_unique):
        raise DataError(f"barcodes or genes of the sample {facts.id} come twice")
    spatial = np.asarray(data.obsm["spatial"], np.float64) if "spatial" in data.obsm else np.zeros(0)
    if spatial.shape != (data.n_obs, 2) or not np.isfinite(spatial).all():
        raise DataError(f"the sample {facts.id} needs obsm['spatial'] [{data.n_obs}, 2] without gaps")
    place = folder / "samples" / facts.id
    place.mkdir(parents=True, exist_ok=True)
    if tiles is not None:
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or len(tiles) != data.n_obs or tiles.shape[3] != 3:
            raise DataError(f"tiles of the sample {facts.id} are {tiles.dtype} {tiles.shape}, not uint8 [N, T, T, 3]")
        np.save(place / "tiles.npy", tiles, allow_pickle=False)
    data = data.copy()
    data.X = sparse.csr_matrix(data.X, dtype=np.float32)
    data.obsm["spatial"] = spatial
    data.write_h5ad(place / "expression.h5ad", compression="gzip")
    return facts


def tiles_file(folder: Path, sample_id: str, spots: int, tile_px: int) -> NDArray[np.uint8]:
    """A new ``tiles.npy`` of a sample, mapped for writing: uint8 [N, T, T, 3]."""
    place = folder / "samples" / sample_id
    place.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(place / "tiles.npy", mode="w+", dtype=np.uint8, shape=(spots, tile_px, tile_px, 3))


def write_cohort_json(
    folder: Path, samples: Sequence[SampleFacts], *, tile_px: int, mpp: float, **provenance: Any
) -> Cohort:
    """Write cohort.json, last of all files, and open the cohort.

    Parameters
    ----------
    provenance
        Further JSON values, such as the software's version.
    """
    rows = [
        {
            "id": s.id,
            "patient_id": s.patient_id,
            "platform": s.platform,
            "organ": s.organ,
            "mpp": s.mpp,
            "mpp_source": s.mpp_source,
            "spots": s.spots,
            "genes": s.genes,
            "qc": s.qc,
        }
        for s in samples
    ]
    write_json_atomic(
        folder / "cohort.json", {"schema": SCHEMA, "tile_px": tile_px, "mpp": mpp, "samples": rows, **provenance}
    )
    return load_cohort(folder)
