"""Scores that do not depend on sequencing depth: by least squares, and by thinning counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stamp_deploy.training.depth import Depth, downsample, score_spots, spot_depth
from stamp_deploy.training.gene_sets import GeneSets, read_gmt


@pytest.fixture
def world(tmp_path: Path) -> tuple[np.ndarray, list[str], GeneSets]:
    """400 spots whose depth varies tenfold; the set's genes are expressed like the others, a little above them."""
    rng = np.random.default_rng(0)
    genes = [f"S{i}" for i in range(30)] + [f"O{i}" for i in range(600)]
    depth = np.exp(rng.uniform(np.log(0.15), np.log(1.5), 400))
    rate = np.where(np.arange(630) < 30, 1.6, 1.0)
    counts = rng.poisson(depth[:, None] * rate)
    path = tmp_path / "s.gmt"
    path.write_text("SET\tx\t" + "\t".join(genes[:30]) + "\nOTHER\tx\t" + "\t".join(genes[30:60]) + "\n")
    return counts, genes, read_gmt(path)


def depth_r(world: tuple[np.ndarray, list[str], GeneSets], depth: Depth) -> float:
    """r of the first score with the log of detected genes."""
    counts, genes, sets = world
    values = score_spots(counts, genes, sets, "ucell", depth).values
    return float(np.corrcoef(values[:, 0], spot_depth(counts)[:, 1])[0, 1])


def test_scores_follow_depth_unless_it_is_taken_out(world: tuple[np.ndarray, list[str], GeneSets]) -> None:
    assert depth_r(world, "none") > 0.5
    assert abs(depth_r(world, "residual")) < 1e-4
    assert abs(depth_r(world, "downsample")) < 0.5 * depth_r(world, "none")


def test_a_residual_keeps_the_section_s_mean(world: tuple[np.ndarray, list[str], GeneSets]) -> None:
    counts, genes, sets = world
    raw, left = (score_spots(counts, genes, sets, "ucell", d).values for d in ("none", "residual"))
    np.testing.assert_allclose(raw.mean(axis=0), left.mean(axis=0), rtol=1e-4)


def test_thinning_keeps_poor_spots_and_is_the_same_every_time(world: tuple[np.ndarray, list[str], GeneSets]) -> None:
    counts, genes, sets = world
    thin = downsample(counts, 200.0, np.random.default_rng(0)).toarray()
    totals = counts.sum(axis=1)
    np.testing.assert_array_equal(thin[totals <= 200], counts[totals <= 200])
    assert thin[totals > 200].sum(axis=1).mean() == pytest.approx(200, rel=0.03)
    assert (thin <= counts).all()
    a, b = (score_spots(counts, genes, sets, "ucell", "downsample").values for _ in range(2))
    np.testing.assert_array_equal(a, b)
