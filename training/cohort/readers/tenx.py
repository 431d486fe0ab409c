"""Count matrices of 10x Genomics: a folder of MatrixMarket files, or an HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    HDF5 files of Cell Ranger and Space Ranger from version 2 on, and of programs that write alike; a file without types
    of features holds genes only. Where a file of version 2 holds several genomes, names and identifiers carry that of
    their genome in front, as they do since version 3.

    Raises
    ------
    DataError
        A file is missing, damaged or of another kind, or sizes differ.
    """
    counts, barcodes, names, ids, kinds = _read_h5(path) if path.is_file() else _read_folder(path)
    if counts.shape != (len(barcodes), len(names)) or len(ids) != len(names):
        raise DataError(
            f"the matrix of {counts.shape[1]} genes and {counts.shape[0]} spots does not fit {len(names)} features and "
            f"{len(barcodes)} barcodes",
            path=path,
            remedy="use the three files of one run",
        )
    keep = np.array([kind in ("", EXPRESSION) for kind in kinds])
    if not keep.any():
        raise DataError(
            f"holds no feature of the type {EXPRESSION}, only {', '.join(sorted(set(kinds)))}",
            path=path,
            remedy="name the matrix of the gene expression library",
        )
    index = np.flatnonzero(keep)
    return counts[:, index], barcodes, tuple(names[i] for i in index), tuple(ids[i] for i in index)


_Parts = tuple[sparse.csr_array, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_MOLECULES = {"barcode_idx", "umi", "molecule_idx", "barcode_corrected_reads"}


def _read_h5(path: Path) -> _Parts:
    try:
        with h5py.File(path, "r") as handle:
            if "matrix" in handle:
                return _version_3(handle["matrix"])
            genomes = [name for name, group in handle.items() if isinstance(group, h5py.Group) and "indptr" in group]
            if genomes:
                return _version_2(handle, genomes, path)
            found = sorted(handle)
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        cause = str(error).strip("\"'")
        raise DataError(f"is not a 10x count matrix: {cause}", path=path, remedy="export the matrix again") from error
    remedy = "name filtered_feature_bc_matrix.h5 of the same results"
    if _MOLECULES & set(found):
        raise DataError("holds molecules, not a count matrix: it is a molecule_info.h5", path=path, remedy=remedy)
    if {"X", "obs", "var"} <= set(found):
        raise DataError("is an AnnData file, not a 10x count matrix", path=path, remedy='use format = "anndata"')
    raise DataError(
        f"is not a 10x count matrix: it holds {', '.join(found[:6]) or 'nothing'}", path=path, remedy=remedy
    )


def _text(column: Any) -> tuple[str, ...]:
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in column[:])


def _counts(group: Any) -> sparse.csr_array:
    shape = tuple(int(n) for n in group["shape"][:])
    return sparse.csr_array(
        sparse.csc_array((group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape).T
    )


def _version_3(group: Any) -> _Parts:
    features = group["features"]
    names = _text(features["name"])
    ids = _text(features["id"]) if "id" in features else names
    kinds = _text(features["feature_type"]) if "feature_type" in features else ("",) * len(names)
    return _counts(group), _text(group["barcodes"]), names, ids, kinds


def _version_2(handle: Any, genomes: list[str], path: Path) -> _Parts:
    """One group a genome; several hold the same spots."""
    barcodes = _text(handle[genomes[0]]["barcodes"])
    blocks, names, ids = [], [], []
    for genome in genomes:
        group = handle[genome]
        if _text(group["barcodes"]) != barcodes:
            raise DataError(
                f"the genomes {', '.join(genomes)} hold different spots", path=path, remedy="export one of them alone"
            )
        front = f"{genome}_" if len(genomes) > 1 else ""
        blocks.append(_counts(group))
        names += [front + name for name in _text(group["gene_names"])]
        ids += [front + identifier for identifier in _text(group["genes"])]
    counts = sparse.csr_array(sparse.hstack(blocks, format="csr"))
    return counts, barcodes, tuple(names), tuple(ids), ("",) * len(names)


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
