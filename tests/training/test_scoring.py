"""UCell and the z-mean against independent implementations, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from stamp_deploy.errors import DataError
from stamp_deploy.training import scoring
from stamp_deploy.training.gene_sets import GeneSets, read_gmt
from stamp_deploy.training.scoring import GeneStatistics, gene_statistics, log_cp10k, robust_z, score


def by_rankdata(counts: NDArray[Any], genes: list[str], sets: GeneSets, limit: int) -> NDArray[np.float64]:
    """UCell as its formula is written, one spot and one set at a time."""
    out = np.zeros((len(counts), len(sets)))
    for i, row in enumerate(counts):
        ranks = rankdata(-row, method="average")
        for p, members in enumerate(sets.genes):
            r = np.array([ranks[genes.index(g)] for g in members if g in genes])
            n = len(r)
            cap = max(min(limit, len(genes)), n)
            out[i, p] = 1 - (np.minimum(r, cap).sum() - n * (n + 1) / 2) / (n * cap - n * (n + 1) / 2)
    return out


def example(seed: int, spots: int, width: int, rate: float = 0.7) -> tuple[NDArray[Any], list[str], GeneSets]:
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(rate, 0.3, (spots, width)).astype(np.float32)
    genes = [f"G{i}" for i in range(width)]
    sets = GeneSets(
        ("SMALL", "LARGE", "PARTLY"),
        (
            tuple(rng.choice(genes, 12, replace=False)),
            tuple(rng.choice(genes, width // 3, replace=False)),
            (*rng.choice(genes, 20, replace=False), *(f"MISSING{i}" for i in range(30))),
        ),
    )
    return counts, genes, sets


@pytest.mark.parametrize(("width", "limit"), [(120, 1500), (400, 50), (400, 1500), (2500, 1500)])
def test_ucell_is_its_formula(width: int, limit: int) -> None:
    counts, genes, sets = example(1, 15, width)
    got = score(sparse.csr_array(counts), genes, sets, max_rank=limit)
    assert got.values.dtype == np.float32
    assert got.mask.all()
    np.testing.assert_allclose(got.values, by_rankdata(counts, genes, sets, limit), atol=2e-6)
    assert got.values.min() >= 0 and got.values.max() <= 1


def test_ucell_agrees_with_pyucell() -> None:
    pyucell = pytest.importorskip("pyucell", reason="pyucell is in the extra dev")
    import anndata
    import pandas as pd

    # as many zeros as a real spot has: then both implementations put genes without counts at rank R
    counts, genes, sets = example(2, 40, 6000, rate=0.06)
    data = anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=genes))
    signatures = {name: list(members) for name, members in zip(sets.names, sets.genes, strict=True)}
    pyucell.compute_ucell_scores(data, signatures=signatures, max_rank=1500, missing_genes="skip")
    theirs = np.stack([data.obs[f"{name}_UCell"].to_numpy() for name in sets.names], axis=1)
    ours = score(counts, genes, sets)
    # the set of 2,000 genes has more members than R: pyucell leaves the range 0 to 1 there, we raise R
    small = [i for i, members in enumerate(sets.genes) if len(members) <= 1500]
    np.testing.assert_allclose(ours.values[:, small], theirs[:, small], atol=1e-5)


def test_real_spots_agree_with_rankdata(data_dir: Path) -> None:
    from stamp_deploy.training.cohort.readers.legacy_st import read_counts

    counts, _, genes = read_counts(data_dir / "st" / "her2st" / "B4.tsv.gz")
    some = counts[[0, 5, 100, 200]]
    sets = read_gmt(data_dir / "gmt" / "h.all.v2025.1.Hs.symbols.gmt").select(
        ["HALLMARK_MYC_TARGETS_V1", "HALLMARK_HYPOXIA"]
    )
    got = score(some, genes, sets)
    np.testing.assert_allclose(got.values, by_rankdata(some.toarray(), list(genes), sets, 1500), atol=2e-6)


@pytest.mark.parametrize("method", ["ucell", "zmean"])
def test_the_order_of_genes_does_not_matter(method: str) -> None:
    counts, genes, sets = example(3, 30, 500)
    order = np.random.default_rng(0).permutation(500)
    first = score(counts, genes, sets, method)
    second = score(counts[:, order], [genes[i] for i in order], sets, method)
    np.testing.assert_allclose(first.values, second.values, atol=1e-6)


def test_ties_share_their_rank() -> None:
    genes = [f"G{i}" for i in range(20)]
    sets = GeneSets(("FIRST", "LAST"), (tuple(genes[:10]), tuple(genes[10:])))
    same = np.full((1, 20), 3.0)
    got = score(same, genes, sets)
    assert got.values[0, 0] == pytest.approx(got.values[0, 1])
    nothing = score(np.zeros((1, 20)), genes, sets)
    assert nothing.values[0, 0] == pytest.approx(nothing.values[0, 1])


def test_ucell_ignores_depth_but_not_order() -> None:
    counts, genes, sets = example(4, 10, 600)
    np.testing.assert_array_equal(score(counts, genes, sets).values, score(counts * 7, genes, sets).values)
    logged = score(np.log1p(counts / 3), genes, sets).values  # not whole numbers: the sorting route
    np.testing.assert_allclose(score(counts, genes, sets).values, logged, atol=1e-6)


def test_both_ranking_routes_agree() -> None:
    counts, _, _ = example(5, 50, 300)
    part = sparse.csr_array(counts)
    table = scoring._ranks_by_table(part.data, part.indptr, int(part.data.max()))
    ordered = scoring._ranks_by_sort(part.data, part.indptr)
    np.testing.assert_allclose(table, ordered)


def test_blocks_change_nothing() -> None:
    counts, genes, sets = example(6, 64, 200)
    counts[10] = 0
    whole = score(counts, genes, sets)
    pieces = score(counts, genes, sets, block_values=500)
    np.testing.assert_array_equal(whole.values, pieces.values)


def test_sets_with_too_few_genes_are_masked() -> None:
    counts, genes, _ = example(7, 5, 100)
    sets = GeneSets(
        ("GOOD", "FEW", "THIN"),
        (tuple(genes[:10]), tuple(genes[:9]), (*genes[:11], *(f"NO{i}" for i in range(60)))),
    )
    got = score(counts, genes, sets)
    assert got.mask.tolist() == [True, False, False]
    assert (got.values[:, 1:] == 0).all()
    assert score(counts, genes, sets, min_genes=5, min_coverage=0.1).mask.all()


def test_zmean_is_its_formula_with_training_statistics() -> None:
    counts, genes, _ = example(8, 40, 80)
    sets = GeneSets(("A",), (tuple(genes[:12]),), (tuple(np.linspace(-1, 2, 12)),))
    train = counts[:25]
    x = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    t = np.log1p(train / train.sum(1, keepdims=True) * 1e4)
    z = (x - t.mean(0)) / t.std(0)
    weights = np.linspace(-1, 2, 12)
    expected = (z[:, :12] * weights).sum(1) / np.abs(weights).sum()
    got = score(counts, genes, sets, "zmean", statistics=gene_statistics(train, genes))
    np.testing.assert_allclose(got.values[:, 0], expected, atol=1e-4)


def test_zmean_leaves_out_genes_that_training_lacks() -> None:
    counts, genes, _ = example(9, 30, 60)
    sets = GeneSets(("A",), (tuple(genes[:12]),))
    known = gene_statistics(counts[:, 4:], genes[4:])
    fewer = score(counts, genes, GeneSets(("A",), (tuple(genes[4:12]),)), "zmean", statistics=known, min_genes=5)
    got = score(counts, genes, sets, "zmean", statistics=known)
    np.testing.assert_allclose(got.values, fewer.values, atol=1e-6)


def test_log_cp10k_keeps_empty_spots() -> None:
    out = log_cp10k(sparse.csr_array(np.array([[0.0, 0], [1, 3]])))
    np.testing.assert_allclose(out.toarray(), [[0, 0], [np.log1p(2500), np.log1p(7500)]])


def test_robust_z_survives_outliers_and_constants() -> None:
    x = np.random.default_rng(0).normal(5, 2, (500, 3))
    x[0, 0], x[:, 2] = 1e6, 4.0
    z = robust_z(x)
    assert abs(np.median(z[:, 0])) < 1e-6 and 0.8 < z[1:, 0].std() < 1.2
    assert z[0, 0] == 4.0
    assert (z[:, 2] == 0).all()


def test_a_rare_score_falls_back_on_the_deviation() -> None:
    x = np.zeros((100, 1))
    x[:10] = 1.0
    assert robust_z(x)[:10].min() > 1


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda c, g: (np.where(c == c.max(), np.nan, c), g), "NaN"),
        (lambda c, g: (np.where(c == c.max(), np.inf, c), g), "NaN or infinite"),
        (lambda c, g: (c - 1, g), "negative"),
        (lambda c, g: (c, ["G0", *g[:-1]]), "twice"),
        (lambda c, g: (c, [f"X{i}" for i in range(len(g))]), "no gene of any gene set"),
        (lambda c, g: (c, g[:-1]), "do not fit"),
    ],
)
def test_bad_counts_are_refused(change: Any, cause: str) -> None:
    counts, genes, sets = example(10, 5, 100)
    counts, genes = change(counts, genes)
    with pytest.raises(DataError, match=cause):
        score(counts, genes, sets)


def test_the_caller_s_matrix_is_left_alone() -> None:
    counts, genes, sets = example(11, 5, 100)
    matrix = sparse.csr_array(counts)
    matrix.data[0] = 0  # a stored zero
    before = matrix.copy()
    score(matrix, genes, sets)
    assert matrix.nnz == before.nnz
    np.testing.assert_array_equal(matrix.data, before.data)


def test_unknown_genes_of_statistics_do_not_crash() -> None:
    counts, genes, sets = example(12, 8, 100)
    none = GeneStatistics(("ZZZ",), np.zeros(1), np.ones(1))
    assert (score(counts, genes, sets, "zmean", statistics=none).values == 0).all()
