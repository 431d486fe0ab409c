"""Tier 1: single genes, after the protocol of HEST-Bench (Jaume et al. 2024).

log1p of raw counts, the 50 most variable genes, embeddings standardised and reduced to 256 principal components, ridge
with alpha = 100 / (components x genes), Pearson r per gene over the spots of the test patients, mean over genes, then
over folds. Most variable means here: the largest variance of log1p counts among genes found in 10 % of the spots or
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..cohort import Sample
from ..metrics import pearson
from ..sections import shared_genes

GENES = 50
COMPONENTS = 256
MIN_DETECTED = 0.1


@dataclass(frozen=True, eq=False)
class GeneTargets:
    """log1p counts of the chosen genes.

    Attributes
    ----------
    genes : tuple of str
    values : list of float32 [N, G], one per sample
    """

    genes: tuple[str, ...]
    values: list[NDArray[np.float32]]


@dataclass(frozen=True)
class Fold:
    """Positions of samples to learn from and to test on, and what the fold is called."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def gene_targets(samples: Sequence[Sample], genes: int = GENES) -> GeneTargets:
    """The most variable genes over all samples, among those that every sample measures.

    Samples are read one after the other: what is kept of each are sums, and then the chosen genes.
    """
    names = shared_genes(samples)
    spots, sums, squares, detected = 0, *(np.zeros(len(names)) for _ in range(3))
    for sample in samples:
        x = _log_counts(sample, names)
        spots += x.shape[0]
        sums += np.asarray(x.sum(axis=0), np.float64).ravel()
        squares += np.asarray(x.multiply(x).sum(axis=0), np.float64).ravel()
        detected += np.diff(sparse.csc_array(x).indptr)
    variance = squares / spots - (sums / spots) ** 2
    variance[detected < MIN_DETECTED * spots] = -1
    best = np.sort(np.argsort(-variance, kind="stable")[:genes])
    best = best[variance[best] > 0]
    chosen = [names[i] for i in best]
    return GeneTargets(tuple(chosen), [_log_counts(sample, chosen).toarray() for sample in samples])


def _log_counts(sample: Sample, genes: Sequence[str]) -> sparse.csr_array:
    """log1p of raw counts float32 [N, G] of some genes."""
    x = sparse.csr_array(sample.expression()[:, list(genes)].X).astype(np.float32)
    x.data = np.log1p(x.data)
    return x


def patient_folds(samples: Sequence[Sample]) -> list[Fold]:
    """Each patient held out in turn; each section where all are of one patient."""
    patients = list(dict.fromkeys(s.patient for s in samples))
    everyone = range(len(samples))
    if len(patients) > 1:
        groups = [tuple(i for i in everyone if samples[i].patient == p) for p in patients]
        names = [f"patient {k + 1}" for k in range(len(patients))]
    else:
        groups, names = [(i,) for i in everyone], [f"section {s.id}" for s in samples]
    return [
        Fold(name, tuple(i for i in everyone if i not in group), group)
        for name, group in zip(names, groups, strict=True)
        if len(group) < len(samples)
    ]


def hest_r(
    embeddings: Sequence[NDArray[np.floating]], targets: GeneTargets, folds: Sequence[Fold], seed: int = 0
) -> dict[str, float]:
    """Mean Pearson r over genes of every fold; NaN where a fold has no gene that varies."""
    out: dict[str, float] = {}
    for fold in folds:
        train, test = (
            [np.concatenate([part[i] for i in rows]) for part in (embeddings, targets.values)]
            for rows in (fold.train, fold.test)
        )
        r = protocol_r(*train, *test, seed=seed)
        out[fold.name] = float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
    return out


def protocol_r(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    x_test: NDArray[np.floating],
    y_test: NDArray[np.floating],
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Pearson r per gene [G] by HEST-Bench's regression; NaN where the truth does not vary.

    The published code fits targets that are not centred, without an intercept; as principal components of the training
    split have mean 0, the weights are the same.

    Parameters
    ----------
    x, x_test : float [N, D], [M, D]
    y, y_test : float [N, G], [M, G]
        log1p of raw counts.
    seed : int
        Of the PCA.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x, x_test = np.asarray(x, np.float64), np.asarray(x_test, np.float64)
    scaler = StandardScaler().fit(x)
    components = min(COMPONENTS, *x.shape)
    pca = PCA(components, random_state=seed).fit(scaler.transform(x))
    ridge = Ridge(alpha=100 / (components * y.shape[1]), solver="cholesky", fit_intercept=False)
    ridge.fit(pca.transform(scaler.transform(x)), np.asarray(y, np.float64) - y.mean(axis=0, dtype=np.float64))
    return pearson(y_test, ridge.predict(pca.transform(scaler.transform(x_test))))
