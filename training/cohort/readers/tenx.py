"""Count matrices of 10x Genomics: a folder of MatrixMarket files, or an HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from stamp_deploy.errors import DataError

from .base import open_text

EXPRESSION = "Gene Expression"


def find_matrix(folder: Path, stem: str) -> Path:
    """``STEM.h5`` or ``STEM/`` in a folder of results, or the folder itself where it holds matrix.mtx.

    Raises
    ------
    DataError
        There is none of them.
    """
    for name in (f"{stem}.h5", stem):
        if (folder / name).exists():
            return folder / name
    if any((folder / name).is_file() for name in ("matrix.mtx.gz", "matrix.mtx")):
        return folder
    raise DataError(f"holds neither {stem}.h5 nor {stem}/", path=folder, remedy="name the folder of the results")


def read_matrix(path: Path) -> tuple[sparse.csr_array, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Counts [N, G], barcodes, gene names and gene identifiers, gene expression features only.

    Raises
    ------
    DataError
        A file is missing or damaged, or sizes differ.
    """
    counts, barcodes, names, ids, kinds = _read_h5(path) if path.is_file() else _read_folder(path)
    if counts.shape != (len(barcodes), len(names)):
        raise DataError(
            f"the matrix of {counts.shape[1]} genes and {counts.shape[0]} spots does not fit {len(names)} features and "
            f"{len(barcodes)} barcodes",
            path=path,
            remedy="use the three files of one run",
        )
    keep = np.array([kind in ("", EXPRESSION) for kind in kinds])
    if not keep.any():
        raise DataError(f"holds no feature of the type {EXPRESSION}", path=path)
    index = np.flatnonzero(keep)
    return counts[:, index], barcodes, tuple(names[i] for i in index), tuple(ids[i] for i in index)


_Parts = tuple[sparse.csr_array, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _read_h5(path: Path) -> _Parts:
    try:
        with h5py.File(path, "r") as handle:
            group = handle["matrix"]
            shape = tuple(int(n) for n in group["shape"][:])
            matrix = sparse.csc_array((group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape)
            features = group["features"]
            columns = (group["barcodes"], features["name"], features["id"], features["feature_type"])
            text = [tuple(v.decode() if isinstance(v, bytes) else str(v) for v in column[:]) for column in columns]
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"is not a 10x count matrix: {error}", path=path) from error
    return sparse.csr_array(matrix.T), text[0], text[1], text[2], text[3]


def _read_folder(folder: Path) -> _Parts:
    from scipy.io import mmread

    matrix_path = _one_of(folder, "matrix.mtx.gz", "matrix.mtx")
    features_path = _one_of(folder, "features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")
    barcodes_path = _one_of(folder, "barcodes.tsv.gz", "barcodes.tsv")
    try:
        matrix = mmread(str(matrix_path))
        with open_text(features_path) as handle:
            features = [line.rstrip("\r\n").split("\t") for line in handle if line.strip()]
        with open_text(barcodes_path) as handle:
            barcodes = tuple(line.strip().split("\t")[0] for line in handle if line.strip())
    except (OSError, ValueError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", path=folder) from error
    ids = tuple(f[0] for f in features)
    names = tuple(f[1] if len(f) > 1 and f[1] else f[0] for f in features)
    kinds = tuple(f[2] if len(f) > 2 else "" for f in features)
    return sparse.csr_array(sparse.coo_array(matrix).T), barcodes, names, ids, kinds


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"holds no {names[0]}", path=folder, remedy="keep the three files of the matrix together")
