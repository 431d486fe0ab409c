"""ST-Align and AIDO.Tissue: what is around a spot is learned from, by each in its way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")

from support.cohort_factory import program_gmt
from support.recipe_runs import CHANCE, SMALL_VIEW, make_niche_cohort, recall_at_5, recipe_settings

from stamp_deploy.errors import UsageError
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.evaluate.retrieval import gene_values, matched_sides, recall_at
from stamp_deploy.training.evaluate.runs import open_run
from stamp_deploy.training.ingredients import load_matching
from stamp_deploy.training.ingredients.gene_transformer import NEIGHBOURS, neighbours_of, pretrain
from stamp_deploy.training.ingredients.niche_alignment import NicheAlignment
from stamp_deploy.training.loop import fit
from stamp_deploy.training.metrics import pearson
from stamp_deploy.training.neighbours import nearest_rows, neighbours_mean
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.sections import learned_genes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("niches")
    make_niche_cohort(folder / "cohort")
    program_gmt(folder / "programs.gmt")
    return folder


TWO_FIELDS = {
    "fields_um": [16.0, 32.0], "tile_px": 16, "timm_kwargs": SMALL_VIEW, "adapt": "last-block", "gene_latent": 32,
}  # fmt: skip


def test_st_align_finds_the_niche_by_the_large_field(place: Path, tmp_path: Path) -> None:
    """Its own neighbourhood's genes among those of the section; without the niche's contrast, at chance."""
    recall = {}
    for name, weight in (("on", 1.0), ("off", 0.0)):
        folder = tmp_path / name
        fit(recipe_settings(place, "st-align", w_niche_contrast=weight, w_cross_contrast=0.0, **TWO_FIELDS), folder)
        run = open_run(folder)
        part = load_matching(folder, run.config, run.model, len(run.info.genes))["niche_alignment"]
        assert isinstance(part, NicheAlignment)
        sample = load_cohort(place / "cohort")["h"]
        xy = np.asarray(sample.expression().obsm["spatial"])
        genes = learned_genes(gene_values(sample, run.info.genes), xy, 0.0)
        with torch.inference_mode():
            picture = part._pictures(torch.from_numpy(run.embedding(sample)))[1].numpy()
            molecules = part.molecules[1](torch.from_numpy(neighbours_mean(genes, xy))).numpy()
        recall[name] = recall_at(picture, molecules)[5]
    assert recall["on"] > 3 * CHANCE and recall["off"] < 2 * CHANCE, recall


def test_st_align_fuses_both_levels(place: Path, tmp_path: Path) -> None:
    """By the cross-level contrast alone, fused pictures and fused molecules find each other."""
    alone = {"w_spot_contrast": 0.0, "w_niche_contrast": 0.0, **TWO_FIELDS}
    fit(recipe_settings(place, "st-align", **alone), tmp_path / "on")
    fit(recipe_settings(place, "st-align", **{**alone, "w_cross_contrast": 1e-9}), tmp_path / "off")
    on, off = (recall_at_5(tmp_path / name, "niche_alignment") for name in ("on", "off"))
    assert min(on) > 3 * CHANCE and max(off) < 2.5 * CHANCE, (on, off)


def test_st_align_takes_the_smallest_and_the_largest_field(place: Path) -> None:
    part = NicheAlignment(4, [1, 0], 6, TrainConfig(gene_latent=8))
    embedding = torch.randn(3, 8)
    spot, niche = part._pictures(embedding)
    torch.testing.assert_close(spot, part.pictures[0](embedding[:, 4:]))
    torch.testing.assert_close(niche, part.pictures[1](embedding[:, :4]))
    with pytest.raises(UsageError, match="two fields of view"):
        prepare(recipe_settings(place, "st-align", fields_um=[]))


def test_neighbours_are_the_nearest_of_the_array() -> None:
    xy = np.array([[0, 0], [100, 0], [100, 100], [900, 900]], float)
    near = nearest_rows(xy, 3)
    assert near[0].tolist() == [1, 2, -1] and near[3].tolist() == [-1, -1, -1]
    assert set(near[1].tolist()) == {0, 2, -1}
    assert nearest_rows(xy[:1], 2).tolist() == [[-1, -1]]


def hidden_error(place: Path, *, steps: int, neighbours: bool) -> float:
    """Mean squared error of hidden genes of the held-out section, of a transformer that learned from the others."""
    config = recipe_settings(place, "aido-tissue", n_genes=24, validation=["h"], held_out=[])
    start = prepare(config)
    near = [nearest_rows(s.xy_um, NEIGHBOURS) for s in start.train]
    if not neighbours:
        near = [np.full_like(n, -1) for n in near]
    model = pretrain([s.genes for s in start.train], near, steps, 0, torch.device("cpu"))
    held = start.validation[0]
    genes = torch.from_numpy(held.genes)
    rows = torch.from_numpy(nearest_rows(held.xy_um, NEIGHBOURS) if neighbours else np.full((len(genes), 6), -1))
    hidden = torch.from_numpy(np.random.default_rng(3).random(genes.shape) < 0.3)
    with torch.inference_mode():
        return float(model.hidden_loss(genes, *neighbours_of(genes, rows), hidden))


def test_the_gene_transformer_learns_to_fill_in_hidden_genes(place: Path) -> None:
    trained, untrained = (hidden_error(place, steps=steps, neighbours=True) for steps in (100, 0))
    start = prepare(recipe_settings(place, "aido-tissue", n_genes=24, validation=["h"], held_out=[]))
    variance = float(start.validation[0].genes.var())
    assert trained < 0.9 * variance < untrained, (trained, untrained, variance)


def test_the_gene_transformer_reads_its_neighbours() -> None:
    """A gene that the spot's own genes do not tell, and the neighbours' do."""
    rng = np.random.default_rng(0)
    xy = np.stack([np.arange(400) % 20, np.arange(400) // 20], 1) * 100.0
    noise = rng.normal(size=(400, 4))
    smooth = neighbours_mean(noise, xy)
    genes = (smooth / smooth.std(axis=0)).astype(np.float32)  # four genes that do not tell of each other
    near = nearest_rows(xy, NEIGHBOURS)
    error = {}
    for name, rows in (("with", near), ("without", np.full_like(near, -1))):
        model = pretrain([genes], [rows], 150, 0, torch.device("cpu"))
        tensors = torch.from_numpy(genes), torch.from_numpy(rows)
        hidden = torch.from_numpy(np.random.default_rng(5).random(genes.shape) < 0.3)
        with torch.inference_mode():
            error[name] = float(model.hidden_loss(tensors[0], *neighbours_of(*tensors), hidden))
    assert error["with"] < 0.85 * error["without"], error


def test_aido_tissue_s_teacher_is_followed(place: Path, tmp_path: Path) -> None:
    """r of what the picture says the teacher would with what it says, over the held-out section."""
    few = {"n_genes": 24, "teacher_steps": 100, "epochs": 15}
    fit(recipe_settings(place, "aido-tissue", **few), tmp_path / "on")
    fit(recipe_settings(place, "aido-tissue", w_teacher=1e-9, **few), tmp_path / "off")
    r = {}
    for name in ("on", "off"):
        made = evaluate(EvaluateOptions(tmp_path / name, tier1=False))
        assert "teacher" in made.document["retrieval"]["aido-tissue"]
        picture, molecules = matched_sides(open_run(tmp_path / name), made.tests[0])["teacher"]
        r[name] = float(np.mean(pearson(molecules, picture)))
    assert r["on"] > 0.15 and abs(r["off"]) < 0.1, r
