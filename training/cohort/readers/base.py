"""What every reader gives back, and what all of them need to read."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy.errors import DataError

MATCH = 0.5
"""A sample is refused where fewer of its barcodes than this share have a position."""


@dataclass(frozen=True, eq=False)
class RawSample:
    """A sample as its files state it: nothing is filtered by quality or renamed yet.

    Attributes
    ----------
    counts : CSR array [N, G]
    names : tuple of str, G
        Gene names as given: symbols or identifiers.
    ids : tuple of str or None, G
        The file's own identifiers beside the names.
    barcodes : tuple of str, N
    centres : float64 [N, 2]
        Spot centres (x, y) in pixels of `image` at its full resolution.
    image : Path
    mpp : float or None
        Microns per pixel that the reader derived; None where only the config or the image can tell.
    mpp_source : str
        How, in words.
    platform, organ, patient_id : str
        Where the files state them; empty otherwise. The config outranks them.
    image_size : tuple of int or None
        Width and height that the image must have, where the files tell; 1 % off is accepted.
    pooled_um : float
        Side of the squares that cells or bins were pooled into; 0 where spots are the platform's own.
    unit : str
        Of `centres`, "px" or "um" (microns); empty where nothing states it.
    notes : dict
        Numbers for cohort.json.
    """

    counts: sparse.csr_array
    names: tuple[str, ...]
    barcodes: tuple[str, ...]
    centres: NDArray[np.float64]
    image: Path
    ids: tuple[str, ...] | None = None
    mpp: float | None = None
    mpp_source: str = ""
    platform: str = ""
    organ: str = ""
    patient_id: str = ""
    image_size: tuple[float, float] | None = None
    pooled_um: float = 0.0
    unit: Literal["px", "um", ""] = "px"
    notes: dict[str, Any] = field(default_factory=dict)


class Settings:
    """The config table of one sample: typed look-ups with messages that name the key and the sample."""

    def __init__(self, values: Mapping[str, Any], folder: Path, sample: str) -> None:
        self.values, self.folder, self.sample = dict(values), folder, sample

    def path(self, key: str) -> Path:
        """A path that must exist, relative to the config's folder."""
        found = self.optional_path(key)
        if found is None:
            raise DataError(f"the sample {self.sample} does not state {key}", remedy=f'add {key} = "..."')
        return found

    def optional_path(self, key: str) -> Path | None:
        """A path that must exist where it is stated."""
        value = self.values.get(key)
        if value is None:
            return None
        path = self.folder / Path(str(value)).expanduser()
        if not path.exists():
            raise DataError(
                f"does not exist ({key} of the sample {self.sample})",
                path=path,
                remedy="paths are relative to the config file",
            )
        return path

    def number(self, key: str) -> float | None:
        """A positive number, where stated."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not (np.isfinite(value) and value > 0):
            raise DataError(f"{key} = {value!r} of the sample {self.sample} is not a positive number")
        return float(value)

    def text(self, key: str, default: str = "") -> str:
        """A text, where stated."""
        return str(self.values.get(key, default))


def join(
    counts: sparse.csr_array,
    barcodes: Sequence[str],
    positions: Mapping[str, tuple[float, float]],
    path: Path,
    *,
    all_needed: bool,
) -> tuple[sparse.csr_array, tuple[str, ...], NDArray[np.float64]]:
    """Rows of counts with their positions, matched by barcode: the order of either file does not matter.

    Parameters
    ----------
    positions : mapping
        Barcode -> (x, y).
    path : Path
        Of the positions, for the message.
    all_needed : bool
        Whether every row of the counts must have a position.

    Raises
    ------
    DataError
        A barcode comes twice, or too few of them have a position.
    """
    if len(set(barcodes)) != len(barcodes):
        repeated = Counter(barcodes).most_common(1)[0][0]
        raise DataError(f"the barcode {repeated} comes twice in the counts", remedy="export the counts again")
    if counts.shape[0] != len(barcodes):
        raise DataError(f"{counts.shape[0]} rows of counts but {len(barcodes)} barcodes", path=path)
    rows = [i for i, b in enumerate(barcodes) if b in positions]
    lost = len(barcodes) - len(rows)
    if not rows or (all_needed and lost) or len(rows) < MATCH * len(barcodes):
        example = next((b for b in barcodes if b not in positions), "")
        raise DataError(
            f"{lost} of {len(barcodes)} barcodes of the counts have no position (such as {example}; positions name "
            f"{next(iter(positions), 'none')})",
            path=path,
            remedy="use counts and positions of the same sample and the same run",
        )
    kept = tuple(barcodes[i] for i in rows)
    return counts[rows], kept, np.array([positions[b] for b in kept], np.float64)


def open_text(path: Path) -> TextIO:
    """A text file, gzipped or not."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")


def grid_pitch(grid: NDArray[np.float64], pixels: NDArray[np.float64], path: Path) -> tuple[float, float, float]:
    """Pixels per unit of an array's own coordinates, by a least-squares affine map.

    Parameters
    ----------
    grid : float64 [N, 2]
        Array coordinates in units in which both axes are equal lengths.
    pixels : float64 [N, 2]

    Returns
    -------
    pitch_a, pitch_b : float
        Pixels per unit along each array axis.
    rms : float
        Root mean square distance of the spots from the map, pixels.

    Raises
    ------
    DataError
        Too few spots, or both axes lie on one line.
    """
    design = np.c_[grid, np.ones(len(grid))]
    if len(grid) < 4 or np.linalg.matrix_rank(design) < 3:
        raise DataError("too few spots to find their pitch in pixels", path=path, remedy="state mpp")
    matrix = np.linalg.lstsq(design, pixels, rcond=None)[0]
    left = pixels - design @ matrix
    a, b = float(np.linalg.norm(matrix[0])), float(np.linalg.norm(matrix[1]))
    if min(a, b) <= 0 or max(a, b) > 1.1 * min(a, b):
        raise DataError(
            f"the spots are {a:.4g} px apart along one axis of the array and {b:.4g} px along the other",
            path=path,
            remedy="check the columns of the positions, or state mpp",
        )
    return a, b, float(np.sqrt((left**2).sum(axis=1).mean()))
