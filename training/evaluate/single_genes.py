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
    """The most variable genes over all samples, among those that every sample measures."""
    data = [s.expression() for s in samples]
    shared = set.intersection(*(set(map(str, d.var_names)) for d in data))
    names = np.array([str(g) for g in data[0].var_names if str(g) in shared])
    logs = []
    for d in data:
        x = sparse.csr_array(d[:, names].X).astype(np.float32)
        x.data = np.log1p(x.data)
        logs.append(x)
    stacked = sparse.csc_array(sparse.vstack(logs, format="csc"))
    n = stacked.shape[0]
    mean = np.asarray(stacked.sum(axis=0)).ravel() / n
    variance = np.asarray(stacked.multiply(stacked).sum(axis=0)).ravel() / n - mean**2
    variance[np.diff(stacked.indptr) < MIN_DETECTED * n] = -1
    best = np.sort(np.argsort(-variance, kind="stable")[:genes])
    best = best[variance[best] > 0]
    return GeneTargets(tuple(names[best]), [x[:, best].toarray() for x in logs])


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
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    out: dict[str, float] = {}
    for fold in folds:
        x = np.concatenate([embeddings[i] for i in fold.train]).astype(np.float64)
        y = np.concatenate([targets.values[i] for i in fold.train]).astype(np.float64)
        x_test = np.concatenate([embeddings[i] for i in fold.test]).astype(np.float64)
        y_test = np.concatenate([targets.values[i] for i in fold.test])
        scaler = StandardScaler().fit(x)
        components = min(COMPONENTS, *x.shape)
        pca = PCA(components, random_state=seed).fit(scaler.transform(x))
        ridge = Ridge(alpha=100 / (components * y.shape[1]), solver="cholesky", fit_intercept=False)
        ridge.fit(pca.transform(scaler.transform(x)), y - y.mean(axis=0))
        r = pearson(y_test, ridge.predict(pca.transform(scaler.transform(x_test))))
        out[fold.name] = float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
    return out
