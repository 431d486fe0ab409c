"""Samples of different gene panels: genes of any of them, missing where a panel lacks them, never 0."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
anndata = pytest.importorskip("anndata", reason="training needs the extra [train]")

from scipy import sparse
from support.cohort_factory import TILE, make_cohort

from stamp_deploy.errors import DataError
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.gene_sets import GeneSets
from stamp_deploy.training.ingredients.gene_transformer import pretrain
from stamp_deploy.training.loop import fit
from stamp_deploy.training.losses import measured_error
from stamp_deploy.training.neighbours import nearest_rows
from stamp_deploy.training.scoring import gene_statistics
from stamp_deploy.training.sections import (
    control_sets,
    make_sections,
    panels,
    platform_statistics,
    variable_genes,
)

VIT = {"img_size": TILE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}


def panel(
    name: str, genes: list[str], varying: list[str], *, spots: int = 200, seed: int = 0, mean: float = 5.0
) -> Any:
    """A sample in memory whose `varying` genes follow the place of a spot; the others are even."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 2, spots)
    rate = np.stack([mean * level if g in varying else np.full(spots, mean) for g in genes], axis=1)
    data = anndata.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    data.var_names, data.obs_names = genes, [f"s{i}" for i in range(spots)]
    data.obsm["spatial"] = np.stack([np.arange(spots) % 20, np.arange(spots) // 20], 1) * 100.0
    return SimpleNamespace(id=name, platform="xenium", mpp=1.0, n_spots=spots, qc={}, expression=data.copy)


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


def test_the_most_variable_genes_of_disjoint_panels() -> None:
    """Each panel has two genes that vary; a third varies in one of the two samples that measure it."""
    first = panel("x", [*names("A", 30), "BOTH"], ["A3", "A7", "BOTH"])
    second = panel("y", [*names("B", 200), "BOTH"], ["B5", "B9"], seed=1)
    assert variable_genes([first, second], 4, measured_by="any") == ("A3", "A7", "B5", "B9")
    assert variable_genes([first, second], 5, measured_by="any") == ("A3", "A7", "BOTH", "B5", "B9")
    with pytest.raises(DataError, match="share 1 genes, fewer than n_genes = 4") as caught:
        variable_genes([first, second], 4)
    assert "genes_measured_by" in str(caught.value.remedy)
    with pytest.raises(DataError, match="measure 231 genes"):
        variable_genes([first, second], 232, measured_by="any")
    assert len(variable_genes([first, second], 232, measured_by="any", at_most=True)) == 231


def test_a_small_panel_is_not_taken_for_a_variable_one() -> None:
    """In a shallow panel of 20 genes a single count is a thousand of 10,000: every gene's plain variance is above those
    of the genes that do vary in a panel of 1,000."""
    small, large = panel("x", names("A", 20), [], mean=0.5), panel("y", names("B", 1000), ["B1", "B2"], seed=1)
    plain = [gene_statistics(s.expression().X, list(map(str, s.expression().var_names))).sd for s in (small, large)]
    assert plain[0].min() > plain[1].max()
    assert variable_genes([small, large], 2, measured_by="any") == ("B1", "B2")


def test_with_one_panel_any_and_all_agree_on_who_varies() -> None:
    both = [panel(n, names("A", 40), ["A2", "A5", "A30"], seed=i) for i, n in enumerate("xy")]
    assert variable_genes(both, 3) == variable_genes(both, 3, measured_by="any") == ("A2", "A5", "A30")


def test_targets_of_a_panel_are_missing_where_it_lacks_the_gene() -> None:
    first = panel("x", [*names("A", 30), "BOTH"], ["A3"])
    second = panel("y", [*names("B", 30), "BOTH"], ["B5"], seed=1)
    genes = ("A3", "BOTH", "B5")
    config = TrainConfig(targets="genes", genes_measured_by="any", target_rank=2)
    a, b = make_sections(config, [first, second], None, genes)
    assert a.mask.tolist() == [True, True, False] and b.mask.tolist() == [False, True, True]
    alone = make_sections(config.with_(target_rank=0), [first], None, ("A3", "BOTH"))[0]
    np.testing.assert_allclose(a.level[:, 0], alone.level[:, 0], atol=1e-5)  # of the sample that measures it alone
    assert not a.level[:, 2].any() and a.scores.shape == (200, 3)
    with pytest.raises(DataError, match="B5 is not measured in the sample x"):
        make_sections(config.with_(genes_measured_by="all"), [first, second], None, genes)


def test_what_losses_learn_from_says_what_is_measured() -> None:
    first = panel("x", [*names("A", 30), "BOTH"], ["A3"])
    second = panel("y", [*names("B", 30), "BOTH"], ["B5"], seed=1)
    config = TrainConfig(w_genes=1.0, genes_measured_by="any")
    sets = GeneSets(("P",), (("A3", "BOTH", *names("A", 12), *names("B", 12)),))
    a, b = make_sections(config, [first, second], sets, ("A3", "BOTH", "B5"))
    assert a.measured is not None and b.measured is not None
    assert a.gather(np.array([4, 7]))["measured"].tolist() == [[1, 1, 0]] * 2
    assert b.gather(np.array([1]))["measured"].tolist() == [[0, 1, 1]] and not a.genes[:, 2].any()
    same = make_sections(config, [first], sets, ("A3", "BOTH"))[0]
    assert same.measured is None and "measured" not in same.gather(np.array([0])), "where all measure all"


def test_an_error_counts_what_is_measured() -> None:
    made, wanted = torch.tensor([[1.0, 9.0], [2.0, 4.0]], requires_grad=True), torch.zeros(2, 2)
    loss = measured_error(made, wanted, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert float(loss.detach()) == pytest.approx((1 + 4 + 16) / 3)
    loss.backward()
    assert made.grad is not None and made.grad[0, 1] == 0 and made.grad[1, 1] != 0
    assert float(measured_error(made, wanted).detach()) == pytest.approx((1 + 81 + 4 + 16) / 4)
    assert float(measured_error(made, wanted, torch.zeros(2, 2)).detach()) == 0


def test_the_teacher_is_not_asked_for_genes_that_a_panel_lacks() -> None:
    """A gene that no section measures is never predicted, so its place in the transformer does not move."""
    rng = np.random.default_rng(0)
    genes = [rng.normal(size=(40, 4)).astype(np.float32) for _ in range(2)]
    for table in genes:
        table[:, 3] = 0
    near = [nearest_rows(np.stack([np.arange(40), np.zeros(40)], 1), 2)] * 2
    known = [np.array([True, True, True, False])] * 2

    def loss_on(measured: Any) -> list[int]:
        asked: list[int] = []
        from stamp_deploy.training.ingredients.gene_transformer import GeneTransformer

        original = GeneTransformer.hidden_loss

        def watch(self: Any, values: Any, around: Any, there: Any, hidden: Any) -> Any:
            asked.extend(hidden.sum(0).tolist())
            return original(self, values, around, there, hidden)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GeneTransformer, "hidden_loss", watch)
            pretrain(genes, near, 3, 0, torch.device("cpu"), measured)
        return asked

    assert loss_on(known)[3::4] == [0, 0, 0] and all(loss_on(())[3::4])
    nothing = [np.zeros(4, bool), known[0]]
    assert np.isfinite(loss_on(nothing)).all() and loss_on(nothing)[3::4] == [0, 0, 0]


def test_a_pathways_coverage_follows_from_each_panel() -> None:
    """12 of its genes in one panel, 4 in the other: it is a target in one sample and masked in the other."""
    sets = GeneSets(("OF_A", "OF_B"), (tuple(names("A", 12)), tuple(names("B", 12))))
    first = panel("x", [*names("A", 60), *names("B", 4)], ["A3"])
    second = panel("y", [*names("B", 60), *names("A", 4)], ["B5"], seed=1)
    a, b = make_sections(TrainConfig(), [first, second], sets, ())
    assert a.mask.tolist() == [True, False] and b.mask.tolist() == [False, True]
    assert not a.level[:, 1].any() and not b.level[:, 0].any()


def test_random_sets_are_covered_as_the_real_ones_are_in_each_sample() -> None:
    first = panel("x", [*names("A", 60), *names("S", 30)], ["A3"])
    second = panel("y", [*names("B", 90), *names("S", 30)], ["B5"], seed=1)
    assert sorted(map(len, panels([first, second]))) == [30, 60, 90]
    sets = GeneSets(("ONE", "TWO"), ((*names("A", 14), *names("S", 5)), (*names("B", 11), "NOWHERE")))
    config = TrainConfig(control="random-sets", genes_measured_by="any")
    drawn = control_sets(config, sets, [first, second])
    for sample in (first, second):
        known = [str(g) for g in sample.expression().var_names]
        assert [c.measured for c in drawn.coverage(known)] == [c.measured for c in sets.coverage(known)]
    assert drawn.genes != sets.genes and all(len(set(g)) == len(g) for g in drawn.genes)
    pool = names("A", 60)
    before = [sets.random_like(np.random.default_rng(s), pool).genes for s in range(3)]
    assert before == [sets.random_from(np.random.default_rng(s), [pool]).genes for s in range(3)]


def test_platform_statistics_are_over_the_samples_that_measure_a_gene() -> None:
    first = panel("x", [*names("A", 30), "BOTH"], ["A3"])
    second = panel("y", ["BOTH", *names("B", 30)], ["B5"], seed=1)
    found = platform_statistics([first, second])["xenium"]
    place = {g: i for i, g in enumerate(found.genes)}
    one, two = (gene_statistics(s.expression().X, [str(g) for g in s.expression().var_names]) for s in (first, second))
    assert found.mean[place["A3"]] == pytest.approx(one.mean[3]) and found.sd[place["A3"]] == pytest.approx(one.sd[3])
    assert found.mean[place["BOTH"]] == pytest.approx((one.mean[30] + two.mean[0]) / 2)
    assert len(found.genes) == 61


def test_memory_does_not_grow_with_the_samples() -> None:
    genes = names("A", 400)
    tables = [panel(f"s{i}", genes, ["A3"], spots=300, seed=i) for i in range(2)]
    nbytes = tables[0].expression().X.data.nbytes

    def peak(samples: list[Any]) -> int:
        tracemalloc.start()
        variable_genes(samples, 20, measured_by="any")
        platform_statistics(samples)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(tables)
    assert peak(tables * 20) < peak(tables) + 2 * nbytes, "40 samples against 2"


def two_panels(folder: Path) -> Path:
    """A cohort whose samples measure half of the programs each, and share one."""
    cohort = make_cohort(folder, {"a": "p1", "b": "p2", "v": "p3"}, spots=80)
    drop = {"a": ("RED",), "b": ("GREEN",), "v": ()}
    document = json.loads((cohort / "cohort.json").read_text())
    for sample in load_cohort(cohort):
        data = sample.expression()
        data = data[:, [not str(g).startswith(drop[sample.id]) if drop[sample.id] else True for g in data.var_names]]
        data.copy().write_h5ad(sample.folder / "expression.h5ad")
        next(s for s in document["samples"] if s["id"] == sample.id)["genes"] = int(data.n_vars)
    (cohort / "cohort.json").write_text(json.dumps(document))
    return cohort


@pytest.mark.parametrize("more", [{"targets": "genes"}, {"w_genes": 0.5, "w_teacher": 0.5, "teacher_steps": 3}])
def test_a_run_over_two_panels_learns_what_each_measures(more: dict[str, Any], tmp_path: Path) -> None:
    from support.cohort_factory import program_gmt

    config = TrainConfig(
        cohort=str(two_panels(tmp_path / "cohort")), gmt=str(program_gmt(tmp_path / "p.gmt")), validation=("v",),
        pfm="timm/vit_tiny_patch16_224", timm_kwargs=json.dumps(VIT), tile_px=TILE, mpp=1.0, precision="fp32",
        threads=1, epochs=1, batch_spots=20, progress=False, controls=False, n_genes=12,
        genes_measured_by="any", **more,
    )  # fmt: skip
    info = fit(config, tmp_path / "run")
    genes = info.pathway_names if "targets" in more else info.genes
    assert any(g.startswith("RED") for g in genes) and any(g.startswith("GREEN") for g in genes)
    assert np.isfinite(info.metrics["validation_r"]) and info.metrics["validation_r"] > 0
