"""Batch effects: how well platform, patient and sample are told from embeddings, and how far apart they lie.

A model whose embeddings name the laboratory has learned the laboratory. The probe is a logistic regression on principal
components; it is judged on sections that it never saw where every class has two or more, else on blocks of 600 um of
the sections. The silhouette (Rousseeuw 1987) is scikit-learn's, the classes being the clusters: 0 where they overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..space_blocks import space_blocks
from .runs import Run, Section

LABELS = ("platform", "patient", "sample")
SECTIONS, SPOTS = 40, 200
"""At most so many sections, and spots of each: evenly spread over those that there are."""
COMPONENTS, FOLDS = 32, 5


def batch_effects(run: Run, sections: Sequence[Section]) -> dict[str, Any] | None:
    """The metric before (frozen) and after adapting, on the same spots; None with fewer than two sections."""
    chosen = [sections[i] for i in _spread(len(sections), SECTIONS)]
    if len(chosen) < 2:
        return None
    rows = [_spread(len(s.truth), SPOTS) for s in chosen]
    labels = {
        "platform": [s.sample.platform for s in chosen],
        "patient": [s.sample.patient for s in chosen],
        "sample": [s.sample.id for s in chosen],
    }
    blocks = [space_blocks(s.xy_um)[r] for s, r in zip(chosen, rows, strict=True)]
    out = {
        "adapted": separation([run.embedding(s.sample)[r] for s, r in zip(chosen, rows, strict=True)], labels, blocks)
    }
    if run.has_frozen:
        frozen = [run.frozen(s.sample)[r] for s, r in zip(chosen, rows, strict=True)]
        out["frozen"] = separation(frozen, labels, blocks)
    return {k: v for k, v in out.items() if v} or None


def separation(
    embeddings: Sequence[NDArray[np.floating]],
    labels: Mapping[str, Sequence[str]],
    blocks: Sequence[NDArray[np.int64]],
) -> dict[str, Any]:
    """Probe and silhouette for each kind of label that has two or more values.

    Parameters
    ----------
    embeddings : sequence of float [N, D]
        Of sections.
    labels : mapping
        Kind -> the label of each section.
    blocks : sequence of int64 [N]
        The block of space of each spot.
    """
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    x = np.concatenate(embeddings).astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    x = PCA(min(COMPONENTS, *x.shape), random_state=0).fit_transform(x)
    sizes = [len(e) for e in embeddings]
    section = np.repeat(np.arange(len(sizes)), sizes)
    block = section * 100_000 + np.concatenate(blocks)
    out: dict[str, Any] = {}
    for kind, values in labels.items():
        if len(set(values)) < 2:
            continue
        y = np.repeat(np.array(values, dtype=str), sizes)
        several = min(list(values).count(v) for v in set(values)) > 1
        accuracy = _probe(x, y, section if several else block)
        out[kind] = {
            "classes": len(set(values)),
            "probe": None if accuracy is None else round(accuracy, 4),
            "chance": round(1 / len(set(values)), 4),
            "held_out": "sections" if several else "blocks",
            "silhouette": round(float(silhouette_score(x, y)), 4),
        }
    return out


def _probe(x: NDArray[np.float64], y: NDArray[Any], groups: NDArray[np.int64]) -> float | None:
    """Balanced accuracy on held-out groups; None where they are too few."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    least = min(len(np.unique(groups[y == label])) for label in np.unique(y))
    if least < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    folds = StratifiedGroupKFold(min(FOLDS, least))
    return float(balanced_accuracy_score(y, cross_val_predict(probe, x, y, groups=groups, cv=folds)))


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` places, evenly spread."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.int64))
