"""Pathway scores of spots: UCell, or a weighted z-mean.

UCell (Andreatta & Carmona 2021) uses only the order of genes within a spot, so it asks nothing of the spot's depth or
of the platform. Ranks are computed over sparse blocks of spots: memory does not grow with the number of spots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy.errors import DataError

from .gene_sets import MIN_COVERAGE, MIN_GENES, GeneSets, membership

MAX_RANK = 1500
BLOCK_VALUES = 4_000_000
"""Non-zero counts that a block may hold: bounds the working memory to some 100 MB."""
_TABLE_VALUES = 4096


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of spots.

    Attributes
    ----------
    values : float32 [N, P]
        In the order of the sets; 0 in the columns of sets that are not valid.
    mask : bool [P]
        Whether enough genes of the set are measured.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GeneStatistics:
    """Mean and standard deviation, float64 [G], of log1p CP10k over the spots of a platform's training samples."""

    genes: tuple[str, ...]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


def score(
    counts: Any,
    genes: Sequence[str],
    sets: GeneSets,
    method: str = "ucell",
    *,
    max_rank: int = MAX_RANK,
    min_genes: int = MIN_GENES,
    min_coverage: float = MIN_COVERAGE,
    statistics: GeneStatistics | None = None,
    block_values: int = BLOCK_VALUES,
) -> Scores:
    """Score every spot on every gene set.

    Parameters
    ----------
    counts : sparse or dense array [N, G]
        Counts of spots by genes, 0 or more. UCell gives the same for any scaling of a spot.
    genes : sequence of str
        The G gene symbols, each once.
    sets : GeneSets
    method : str
        "ucell" or "zmean".
    max_rank : int
        R of UCell: ranks beyond it count as R. It is lowered to the number of genes G where G is smaller, and raised to
        the size of a set that has more measured genes, so that scores stay within 0 and 1.
    min_genes, min_coverage
        A set is valid with at least so many measured genes, and that share of its genes.
    statistics : GeneStatistics, optional
        For "zmean": of the platform's training spots; by default of these spots.
    block_values : int
        Non-zero counts a block of spots; bounds the memory.

    Raises
    ------
    DataError
        NaN, infinite or negative counts, a gene twice, or no gene of any set among the genes.
    """
    genes = [str(g) for g in genes]
    matrix = as_counts(counts, len(genes))
    if len(set(genes)) != len(genes):
        raise DataError("a gene comes twice", remedy="sum the counts of genes with one name (cohort build does so)")
    covered = sets.coverage(genes)
    if not any(c.measured for c in covered):
        raise DataError(
            f"no gene of any gene set is among the {len(genes)} measured genes "
            f"(such as {', '.join(genes[:3])}; the sets hold {', '.join(sets.genes[0][:3])})",
            remedy="use gene sets of the same species and the same kind of names",
        )
    mask = np.array([c.valid(min_genes, min_coverage) for c in covered])
    valid = np.flatnonzero(mask)
    values = np.zeros((matrix.shape[0], len(sets)), np.float32)
    if valid.size and matrix.shape[0]:
        chosen = sets.select([sets.names[i] for i in valid])
        if method == "ucell":
            values[:, valid] = _ucell(matrix, genes, chosen, max_rank, block_values)
        elif method == "zmean":
            values[:, valid] = _zmean(matrix, genes, chosen, statistics, block_values)
        else:
            raise DataError(f"there is no scoring method {method!r}", remedy='use "ucell" or "zmean"')
    return Scores(values, mask)


class GeneSums:
    """Mean and standard deviation of log1p CP10k of genes, sample by sample; each over the spots of the samples that
    measure it. What is kept grows with the genes, not with the samples."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._sums = np.zeros((3, 0))

    def add(self, counts: Any, genes: Sequence[str]) -> None:
        """Take in a sample: counts [N, G] of its genes."""
        matrix = as_counts(counts, len(genes))
        index = np.array([self._place.setdefault(gene, len(self._place)) for gene in genes], np.int64)
        self._sums = np.pad(self._sums, ((0, 0), (0, len(self._place) - self._sums.shape[1])))
        self._sums[0, index] += matrix.shape[0]
        for block in _blocks(matrix, BLOCK_VALUES):
            part = log_cp10k(matrix[block])
            self._sums[1, index] += np.bincount(part.indices, part.data, minlength=len(genes))
            self._sums[2, index] += np.bincount(part.indices, part.data**2, minlength=len(genes))

    def statistics(self) -> GeneStatistics:
        """Of all samples so far, genes in order of appearance."""
        n = np.maximum(self._sums[0], 1)
        mean = self._sums[1] / n
        return GeneStatistics(tuple(self._place), mean, np.sqrt(np.maximum(self._sums[2] / n - mean**2, 0)))


def gene_statistics(counts: Any, genes: Sequence[str]) -> GeneStatistics:
    """Mean and standard deviation of log1p CP10k of every gene: the training statistics of a platform."""
    sums = GeneSums()
    sums.add(counts, genes)
    return sums.statistics()


def log_cp10k(counts: sparse.csr_array) -> sparse.csr_array:
    """log(1 + counts per 10,000 of the spot), float64; a spot without counts stays zero."""
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    factor = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
    out = counts.astype(np.float64, copy=True)
    out.data = np.log1p(out.data * np.repeat(factor, np.diff(out.indptr)))
    return out


def robust_z(values: NDArray[np.floating], clip: float = 4.0) -> NDArray[np.float32]:
    """Within-slide robust z-scores: (x - median) / (1.4826 MAD) per column, clipped; float32 [N, P].

    A column whose MAD is 0 falls back on its standard deviation, and is 0 where that is 0 too.
    """
    x = np.asarray(values, np.float64)
    centred = x - np.median(x, axis=0)
    scale = 1.4826 * np.median(np.abs(centred), axis=0)
    scale = np.where(scale > 1e-12, scale, x.std(axis=0))
    z = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 1e-12)
    return np.clip(z, -clip, clip).astype(np.float32)


def as_counts(counts: Any, columns: int) -> sparse.csr_array:
    """Counts as a CSR array without stored zeros, checked to be finite and not negative.

    Raises
    ------
    DataError
        As described, or the width is not the number of genes.
    """
    matrix = sparse.csr_array(counts)
    if matrix.ndim != 2 or matrix.shape[1] != columns:
        raise DataError(f"counts of shape {matrix.shape} do not fit {columns} genes")
    if matrix.data.size:
        low, high = float(matrix.data.min()), float(matrix.data.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError("counts hold NaN or infinite values", remedy="export the raw counts again")
        if low < 0:
            raise DataError(f"counts are negative (down to {low:g})", remedy="use raw counts, not scaled values")
    if not matrix.has_canonical_format or (matrix.data == 0).any():
        matrix = matrix.copy()  # may share the caller's memory
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def _blocks(matrix: sparse.csr_array, block_values: int) -> list[slice]:
    """Slices of rows with at most `block_values` non-zeros each (one row at least)."""
    n, indptr = matrix.shape[0], matrix.indptr
    out, start = [], 0
    while start < n:
        stop = int(np.searchsorted(indptr, int(indptr[start]) + block_values, side="right")) - 1
        stop = min(max(stop, start + 1), n, start + 65_536)
        out.append(slice(start, stop))
        start = stop
    return out


def _ucell(
    matrix: sparse.csr_array, genes: Sequence[str], sets: GeneSets, max_rank: int, block_values: int
) -> NDArray[np.float32]:
    """S = 1 - (sum_g min(r_g, R) - n (n + 1) / 2) / (n R - n (n + 1) / 2) for every spot and set.

    r_g is the rank of gene g in the spot, 1 for the highest count, ties averaged; genes without counts tie at the end.
    The n genes are the set's measured ones.
    """
    rows, columns, _ = membership(sets, genes)
    members = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(genes), len(sets)))
    n = np.bincount(columns, minlength=len(sets)).astype(np.float64)
    limits = np.maximum(min(max_rank, len(genes)), n)
    out = np.empty((matrix.shape[0], len(sets)), np.float32)
    for block in _blocks(matrix, block_values):
        part = matrix[block]
        ranks, empty_rank = average_ranks(part)
        for limit in np.unique(limits):
            these = np.flatnonzero(limits == limit)
            last = np.minimum(empty_rank, limit)
            below = np.minimum(ranks, limit) - np.repeat(last, np.diff(part.indptr))
            shifted = sparse.csr_array((below, part.indices, part.indptr), shape=part.shape)
            size = n[these]
            total = (shifted @ members[:, these]).toarray() + last[:, None] * size
            least = size * (size + 1) / 2
            out[block, these] = 1 - (total - least) / (size * limit - least)
    return out


def average_ranks(part: sparse.csr_array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ranks within each row, 1 for the largest, ties averaged.

    Returns
    -------
    ranks : float64 [nnz]
        Of the stored values, in their order.
    empty_rank : float64 [N]
        The rank that all values which are not stored share.
    """
    stored = np.diff(part.indptr)
    empty_rank = stored + (part.shape[1] - stored + 1) / 2
    data = part.data
    if not data.size:
        return np.zeros(0), empty_rank
    highest = float(data.max())
    whole = highest < _TABLE_VALUES and bool((data == np.floor(data)).all())
    ranks = _ranks_by_table(data, part.indptr, int(highest)) if whole else _ranks_by_sort(data, part.indptr)
    return ranks, empty_rank


def _ranks_by_table(data: NDArray[Any], indptr: NDArray[Any], highest: int) -> NDArray[np.float64]:
    """Ranks of whole numbers: how many values of the row are larger, from a table [rows, values]."""
    width = highest + 1
    values = data.astype(np.int64)
    ranks = np.empty(len(data))
    step = max(1, 4_000_000 // width)
    for first in range(0, len(indptr) - 1, step):
        last = min(first + step, len(indptr) - 1)
        a, b = int(indptr[first]), int(indptr[last])
        cell = np.repeat(np.arange(last - first) * width, np.diff(indptr[first : last + 1])) + values[a:b]
        table = np.bincount(cell, minlength=(last - first) * width).reshape(-1, width)
        larger = np.cumsum(table[:, ::-1], axis=1)[:, ::-1] - table
        ranks[a:b] = (larger + (table + 1) / 2).reshape(-1)[cell]
    return ranks


def _ranks_by_sort(data: NDArray[Any], indptr: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks of any numbers, by one sort over (row, value)."""
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((-data, row))
    sorted_row, sorted_data = row[order], data[order]
    new = np.ones(len(data), bool)
    new[1:] = (sorted_row[1:] != sorted_row[:-1]) | (sorted_data[1:] != sorted_data[:-1])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(data))
    mean_place = (starts + ends + 1) / 2 - indptr[sorted_row[starts]]
    ranks = np.empty(len(data))
    ranks[order] = np.repeat(mean_place, ends - starts)
    return ranks


def _zmean(
    matrix: sparse.csr_array,
    genes: Sequence[str],
    sets: GeneSets,
    statistics: GeneStatistics | None,
    block_values: int,
) -> NDArray[np.float32]:
    """sum_g w_g z_g / sum_g |w_g|, z_g the gene's log1p CP10k standardised by the training statistics.

    Genes that do not vary in training are left out of their sets.
    """
    if statistics is None:
        statistics = gene_statistics(matrix, genes)
    place = {gene: i for i, gene in enumerate(statistics.genes)}
    index = np.array([place.get(gene, -1) for gene in genes])
    sd = np.where(index >= 0, statistics.sd[index], 0.0)
    mean = np.where(index >= 0, statistics.mean[index], 0.0)
    rows, columns, weights = membership(sets, genes, weighted=True)
    usable = sd[rows] > 1e-12
    rows, columns, weights = rows[usable], columns[usable], weights[usable]
    total = np.bincount(columns, np.abs(weights), minlength=len(sets))
    scaled = weights / np.where(total > 0, total, 1.0)[columns] / sd[rows]
    members = sparse.csr_array((scaled, (rows, columns)), shape=(len(genes), len(sets)))
    offset = np.bincount(columns, scaled * mean[rows], minlength=len(sets))
    out = np.empty((matrix.shape[0], len(sets)), np.float32)
    for block in _blocks(matrix, block_values):
        out[block] = (log_cp10k(matrix[block]) @ members).toarray() - offset
    return out
