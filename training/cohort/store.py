"""A cohort folder: spatial transcriptomics samples ready for training.

cohort.json                     what the samples are, tile size and resolution, provenance
samples/ID/expression.h5ad      AnnData: X raw counts (CSR float32) spots x genes, obsm["spatial"] spot centres
samples/ID/tiles.npy            uint8 [N, T, T, 3], row i belongs to spot i; or
samples/ID/tiles.json           and shards of compressed tiles: see shards.py
samples/ID/qc.png               picture for a person to look at
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from .shards import INDEX, ShardedTiles, Tiles

if TYPE_CHECKING:
    from anndata import AnnData

SCHEMA = "stamp-deploy/cohort/1"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class SampleFacts:
    """What cohort.json says about a sample.

    Attributes
    ----------
    id : str
        Letters, digits, ``.``, ``_`` and ``-``: also the folder's name.
    patient_id : str
        Whose tissue it is: a pseudonym. Folds never part a patient.
    platform, organ : str
    mpp : float
        Microns per pixel of the image that the tiles were cut from, at its full resolution.
    mpp_source : str
        How that was found.
    spots, genes : int
    qc : dict
        Numbers of the quality control.
    """

    id: str
    patient_id: str
    platform: str = "unknown"
    organ: str = "unknown"
    mpp: float = math.nan
    mpp_source: str = ""
    spots: int = 0
    genes: int = 0
    qc: dict[str, Any] = dataclass_field(default_factory=dict)

    def check(self, path: Path | None = None) -> None:
        """Refuse facts that training must not build on.

        Raises
        ------
        DataError
            No patient id, no microns per pixel, or a name that cannot be a folder.
        """
        if not _ID.fullmatch(self.id):
            raise DataError(
                f"{self.id!r} cannot be a sample's id", path=path, remedy="use letters, digits and . _ - only"
            )
        if not self.patient_id.strip():
            raise DataError(
                f"the sample {self.id} has no patient id",
                path=path,
                remedy="state patient_id: without it, sections of one patient would be trained and tested on",
            )
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            raise DataError(f"the microns per pixel of the sample {self.id} are unknown", path=path, remedy="state mpp")


@dataclass(frozen=True)
class Sample:
    """A sample of a cohort folder; see SampleFacts for the fields that are not explained here.

    Attributes
    ----------
    patient : str
    folder : Path
    n_spots : int
    tile_px : int
    """

    id: str
    patient: str
    platform: str
    organ: str
    mpp: float
    mpp_source: str
    folder: Path
    n_spots: int
    tile_px: int
    qc: dict[str, Any] = dataclass_field(default_factory=dict)

    def expression(self) -> AnnData:
        """Raw counts: X CSR float32 [N, G], var_names gene symbols, obsm["spatial"] float64 [N, 2] level-0 pixels.

        Raises
        ------
        DataError
            The file is missing or does not hold as many spots as cohort.json says.
        """
        import anndata

        path = self.folder / "expression.h5ad"
        try:
            data = anndata.read_h5ad(path)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", path=path, remedy="build the cohort again") from error
        if data.n_obs != self.n_spots:
            raise DataError(
                f"{data.n_obs} spots where cohort.json says {self.n_spots}", path=path, remedy="build the cohort again"
            )
        return data

    def tiles(self) -> Tiles:
        """RGB tiles uint8 [N, T, T, 3], read-only; row i belongs to spot i. Mapped from the disk, or of shards, which
        are decoded as they are indexed.

        Raises
        ------
        DataError
            The file is missing, or of another shape.
        """
        expected = (self.n_spots, self.tile_px, self.tile_px, 3)
        if (self.folder / INDEX).is_file():
            return ShardedTiles(self.folder, expected)
        path = self.folder / "tiles.npy"
        try:
            tiles: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", path=path, remedy="build the cohort again") from error
        if tiles.shape != expected or tiles.dtype != np.uint8:
            raise DataError(
                f"holds {tiles.dtype} {tiles.shape}, not uint8 {expected}", path=path, remedy="build the cohort again"
            )
        return tiles


@dataclass(frozen=True)
class Cohort:
    """The samples of a cohort folder.

    Attributes
    ----------
    path : Path
    samples : tuple of Sample
    tile_px : int
    mpp : float
        Microns per pixel of the tiles.
    """

    path: Path
    samples: tuple[Sample, ...]
    tile_px: int
    mpp: float

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, sample_id: str) -> Sample:
        for sample in self.samples:
            if sample.id == sample_id:
                return sample
        known = ", ".join(s.id for s in self.samples)
        raise DataError(f"there is no sample {sample_id}", path=self.path, remedy=f"samples: {known}")

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients, each once, in order of appearance."""
        return tuple(dict.fromkeys(s.patient for s in self.samples))

    def describe(self) -> dict[str, Any]:
        """Provenance for run.json, as JSON values: no patient ids."""
        return {
            "schema": SCHEMA,
            "tile_px": self.tile_px,
            "mpp": self.mpp,
            "patients": len(self.patients),
            "spots": sum(s.n_spots for s in self.samples),
            "samples": [
                {
                    "id": s.id,
                    "platform": s.platform,
                    "organ": s.organ,
                    "mpp": s.mpp,
                    "mpp_source": s.mpp_source,
                    "spots": s.n_spots,
                }
                for s in self.samples
            ],
        }


def load_cohort(path: str | Path) -> Cohort:
    """Open a cohort folder. Nothing large is read.

    Raises
    ------
    DataError
        The folder is no cohort, of another schema, or a sample lacks its patient, its resolution or its folder.
    """
    path = Path(path)
    source = path / "cohort.json"
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            "this is not a cohort folder: it holds no cohort.json",
            path=path,
            remedy="make one with: stamp-deploy cohort build CONFIG -o DIR",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON: {error}", path=source) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"is not of the schema {SCHEMA}", path=source, remedy="build the cohort again")
    try:
        tile_px, mpp = int(document["tile_px"]), float(document["mpp"])
        facts = [SampleFacts(**{**row, "qc": row.get("qc", {})}) for row in document["samples"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"lacks or has wrong fields: {error}", path=source, remedy="build the cohort again") from error
    samples: list[Sample] = []
    for row in facts:
        row.check(source)
        folder = path / "samples" / row.id
        if not folder.is_dir():
            raise DataError(f"the folder of sample {row.id} is gone", path=source, remedy="build the cohort again")
        if any(s.id == row.id for s in samples):
            raise DataError(f"the sample {row.id} comes twice", path=source)
        samples.append(
            Sample(
                id=row.id,
                patient=row.patient_id,
                platform=row.platform,
                organ=row.organ,
                mpp=row.mpp,
                mpp_source=row.mpp_source,
                folder=folder,
                n_spots=row.spots,
                tile_px=tile_px,
                qc=row.qc,
            )
        )
    if not samples:
        raise DataError("holds no samples", path=source)
    return Cohort(path, tuple(samples), tile_px, mpp)
