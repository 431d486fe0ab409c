"""Pathways that some sections do not measure are missing there, not 0: in levels, components and ridge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anndata", reason="needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt

from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.gene_sets import read_gmt
from stamp_deploy.training.metrics import pearson
from stamp_deploy.training.ridge import fit_ridge_cv, fit_ridge_measured
from stamp_deploy.training.sections import make_sections
from stamp_deploy.training.targets import keep_components


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three sections; A alone measures the genes of RED."""
    import anndata

    folder = make_cohort(tmp_path / "cohort", {"A": "p1", "B": "p2", "C": "p3"})
    for name in ("B", "C"):
        path = folder / "samples" / name / "expression.h5ad"
        data = anndata.read_h5ad(path)
        data[:, [not str(g).startswith("RED") for g in data.var_names]].copy().write_h5ad(path)
    return folder


def test_levels_are_standardised_over_the_sections_that_measure(cohort: Path, tmp_path: Path) -> None:
    sets = read_gmt(program_gmt(tmp_path / "p.gmt"))
    made = make_sections(TrainConfig(), load_cohort(cohort).samples, sets, ())
    assert [bool(s.mask[0]) for s in made] == [True, False, False]
    assert made[0].level[:, 0].mean() == pytest.approx(0, abs=1e-5)
    assert made[0].level[:, 0].std() == pytest.approx(1, abs=1e-4)
    assert all((s.level[:, 0] == 0).all() for s in made[1:])
    everywhere = np.concatenate([s.level[:, 1] for s in made])
    assert everywhere.std() == pytest.approx(1, abs=1e-4)


def test_components_of_a_target_that_a_third_measures() -> None:
    """As zeros, the other two thirds pull the target to nothing and away from what it varies with."""
    rng = np.random.default_rng(0)
    factors, loadings = rng.normal(size=(300, 2)), rng.normal(size=(2, 12))
    clean = (factors @ loadings).astype(np.float32)
    noisy = (clean + 0.7 * rng.normal(size=clean.shape)).astype(np.float32)
    parts, truth = np.split(noisy, 3), np.split(clean, 3)
    masks = [np.ones(12, bool) for _ in range(3)]
    for i in (1, 2):
        masks[i][0] = False
        parts[i][:, 0] = 0
    kept = keep_components(parts, 2, masks)
    as_zeros = keep_components(parts, 2)
    whole = keep_components(np.split(noisy, 3), 2)

    def error(found: list[np.ndarray]) -> float:
        return float(((found[0][:, 0] - truth[0][:, 0]) ** 2).mean() / truth[0][:, 0].var())

    assert error(kept) < 1.5 * error(whole) and error(kept) < 0.3 * error(as_zeros)
    others = np.concatenate(kept)[:, 1:]
    assert ((others - clean[:, 1:]) ** 2).mean() < ((np.concatenate(as_zeros)[:, 1:] - clean[:, 1:]) ** 2).mean()


def test_ridge_is_fitted_on_the_sections_that_measure() -> None:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(80, 6)) for _ in range(3)]
    y = [part @ rng.normal(size=(6, 2)) * 0 + part[:, :2] for part in x]
    masks = [np.array([True, True]), np.array([True, False]), np.array([True, False])]
    zeros = [np.where(m, part, 0) for m, part in zip(masks, y, strict=True)]
    names = ["a", "b", "c"]
    found = fit_ridge_measured(x, zeros, masks, names)
    alone = fit_ridge_cv(x[0], y[0][:, 1:], ["a"] * 80)
    np.testing.assert_allclose(found.weights[:, 1], alone.weights[:, 0])
    assert pearson(y[2][:, 1:], found.predict(x[2])[:, 1:])[0] > 0.99
    np.testing.assert_allclose(found.weights[1, 1], 1, atol=0.05)  # not shrunk to a third by the zeros
    never = fit_ridge_measured(x, zeros, [np.array([True, False])] * 3, names)
    assert (never.weights[:, 1] == 0).all() and np.isnan(never.alpha[1])


def test_a_dead_feature_that_wakes_up_does_not_break_ridge() -> None:
    """One unit in fifty fires once in training and everywhere in the tested section."""
    rng = np.random.default_rng(2)
    x, test = rng.normal(size=(200, 50)), rng.normal(size=(200, 50))
    x[:, 0], test[:, 0] = 0.0, 40 * rng.random(200)
    x[:2, 0] = 0.3
    weights = rng.normal(size=(50, 1)) * (np.arange(50) > 0)[:, None]
    groups = ["a"] * 100 + ["b"] * 100
    y = x @ weights + 3 * rng.normal(size=(200, 1))
    models = {floor: fit_ridge_cv(x, y, groups, floor=floor) for floor in (0.0, 0.9)}
    r = {floor: pearson(test @ weights, model.predict(test))[0] for floor, model in models.items()}
    assert r[0.9] > 0.85 and r[0.9] > r[0.0] + 0.1
