"""Ridge from sums over sections against ridge on the table of all spots; genes that are chosen one sample at a time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stamp_deploy.training import gram_ridge
from stamp_deploy.training.gram_ridge import Moments, fit_over_sections
from stamp_deploy.training.ridge import ALPHAS, fit_ridge, fit_ridge_cv, fit_ridge_measured


def sections(count: int, spots: int = 30, dim: int = 12, targets: int = 4, seed: int = 0) -> tuple[list, list, list]:
    """Features of very unequal size and mean, targets of unequal noise, and names."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, targets))
    scale, shift = np.exp(rng.normal(size=dim) * 2), 30 * rng.normal(size=dim)
    x, y = [], []
    for _ in range(count):
        z = rng.normal(size=(spots + int(rng.integers(0, 9)), dim)) + rng.normal(size=dim)
        x.append((z * scale + shift).astype(np.float32))
        y.append((z @ mix + np.array([0.1, 1, 10, 100]) * rng.normal(size=(len(z), targets)) + 5).astype(np.float32))
    return x, y, [f"s{i}" for i in range(count)]


@pytest.mark.parametrize("floor", [0.0, 0.9])
def test_sums_give_the_ridge_of_the_whole_table(floor: float) -> None:
    x, y, names = sections(6)
    weights, intercept, alpha = fit_over_sections(x, y, names, ALPHAS, floor=floor)
    groups = [n for n, part in zip(names, y, strict=True) for _ in part]
    want = fit_ridge_cv(np.concatenate(x), np.concatenate(y), groups, floor=floor)
    assert len(set(alpha)) > 1
    np.testing.assert_array_equal(alpha, want.alpha)
    np.testing.assert_allclose(weights, want.weights, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(intercept, want.intercept, rtol=1e-6)
    fixed = fit_over_sections(x, y, names, (7.0,), floor=floor)
    np.testing.assert_allclose(fixed[0], fit_ridge(np.concatenate(x), np.concatenate(y), 7.0, floor=floor).weights)


def test_the_error_of_a_fold_is_that_of_its_predictions() -> None:
    x, y, _ = sections(3)
    parts = [Moments.none(12, 4) for _ in range(3)]
    for part, own_x, own_y in zip(parts, x, y, strict=True):
        part.add(own_x.astype(float), own_y.astype(float))
    fit = gram_ridge.Fit(parts[0].plus(parts[1]), 0.0)
    errors = fit.errors(parts[2], (0.1, 100.0))
    for alpha, error in zip((0.1, 100.0), errors, strict=True):
        model = fit_ridge(np.concatenate(x[:2]), np.concatenate(y[:2]), alpha)
        np.testing.assert_allclose(error, ((y[2] - model.predict(x[2])) ** 2).sum(axis=0), rtol=1e-5)


def test_many_groups_are_dealt_whole_to_ten_folds_of_like_size() -> None:
    names = [f"p{i % 37}" for i in range(111)]
    sizes = [10 + i % 50 for i in range(111)]
    fold_of = gram_ridge._dealt(names, sizes)
    assert set(fold_of) == set(names) and sorted(set(fold_of.values())) == list(range(10))
    spots = np.zeros(10)
    for name, size in zip(names, sizes, strict=True):
        spots[fold_of[name]] += size
    assert spots.max() < 1.3 * spots.min()
    assert sorted(gram_ridge._dealt(["a", "b", "a"], [1, 1, 1]).values()) == [0, 1]


def test_each_section_is_read_once_and_no_table_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty sections as mapped files would come: the number of reads, and nothing that joins them."""
    x, y, names = sections(40)
    reads = itertools.count()

    class Mapped(list):
        def __iter__(self) -> Any:
            for part in super().__iter__():
                next(reads)
                yield part

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the sections were joined")

    monkeypatch.setattr(np, "concatenate", refuse)
    found = fit_over_sections(Mapped(x), y, names, ALPHAS)
    monkeypatch.undo()
    assert next(reads) == 40
    want = fit_ridge(np.concatenate(x), np.concatenate(y), found[2])
    np.testing.assert_allclose(found[0], want.weights, rtol=1e-5, atol=1e-8)


def test_sections_that_lack_a_target_still_take_the_way_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.training import ridge

    x, y, names = sections(5)
    masks = [np.array([True, True, i != 2, False]) for i in range(5)]
    used = []
    original = ridge.fit_over_sections
    monkeypatch.setattr(ridge, "fit_over_sections", lambda *a, **k: used.append(len(a[0])) or original(*a, **k))
    found = fit_ridge_measured(x, y, masks, names)
    assert sorted(used) == [4, 5] and np.isnan(found.alpha[3]) and not found.weights[:, 3].any()
    some = [i for i in range(5) if i != 2]
    groups = [names[i] for i in some for _ in y[i]]
    want = fit_ridge_cv(np.concatenate([x[i] for i in some]), np.concatenate([y[i][:, 2:3] for i in some]), groups)
    np.testing.assert_allclose(found.weights[:, 2], want.weights[:, 0], rtol=1e-6, atol=1e-8)


def test_variable_genes_hold_one_table_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is that of all tables together; a table is let go before the next is read."""
    import gc
    import weakref

    pytest.importorskip("anndata", reason="training needs the extra [train]")
    from support.cohort_factory import make_cohort

    from stamp_deploy.training.cohort import Sample, load_cohort
    from stamp_deploy.training.evaluate.single_genes import gene_targets
    from stamp_deploy.training.sections import variable_genes

    samples = load_cohort(make_cohort(tmp_path / "c", {"a": "p1", "b": "p2", "c": "p3"})).samples
    logs = np.concatenate([np.log1p(s.expression().X.toarray()) for s in samples])
    names = np.array(samples[0].expression().var_names, dtype=str)
    logs_cp10k = []
    for sample in samples:
        counts = sample.expression().X.toarray()
        logs_cp10k.append(np.log1p(counts / counts.sum(1, keepdims=True) * 1e4).var(axis=0))
    alive: list[weakref.ref[Any]] = []
    original = Sample.expression

    def watched(self: Sample) -> Any:
        if sum(ref() is not None for ref in alive) > 1:
            gc.collect()  # a cycle may hold what nobody uses
        assert sum(ref() is not None for ref in alive) <= 1
        table = original(self)
        alive.append(weakref.ref(table))
        return table

    monkeypatch.setattr(Sample, "expression", watched)
    genes = variable_genes(samples, 20)
    assert set(genes) == set(names[np.argsort(-np.sum(logs_cp10k, axis=0))[:20]])
    found = gene_targets(samples, 15)
    assert set(found.genes) == set(names[np.argsort(-logs.var(axis=0))[:15]])
    np.testing.assert_allclose(np.concatenate(found.values), logs[:, [list(names).index(g) for g in found.genes]])
