"""The siblings' recipes: each reads, trains on the shared loop, and its own ingredient does something that a run
without it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt
from support.recipe_runs import CHANCE, recall_at_5, recipe_settings

from stamp_deploy.training.ablations import ablation_configs, possible_recipes, train_ablations
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.evaluate.retrieval import gene_values, recall_at
from stamp_deploy.training.evaluate.runs import open_run
from stamp_deploy.training.ingredients import load_matching
from stamp_deploy.training.ingredients.gene_alignment import GeneAlignment
from stamp_deploy.training.loop import fit
from stamp_deploy.training.metrics import pearson
from stamp_deploy.training.recipes import ingredients_of, read_recipe, recipe_names
from stamp_deploy.training.run_setup import prepare


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "h": "p3"})
    program_gmt(folder / "programs.gmt")
    return folder


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_settings_that_exist(name: str) -> None:
    config = TrainConfig.from_dict(read_recipe(name))
    laid_over = TrainConfig().with_(**ingredients_of(name))
    assert all(getattr(laid_over, key) == getattr(config, key) for key in ingredients_of(name))
    assert not {"pfm", "lr", "epochs", "cohort"} & set(ingredients_of(name))


def test_recall_counts_the_own_counterpart() -> None:
    x = np.eye(6)
    assert recall_at(x, x)[1] == 1.0
    assert recall_at(x, np.roll(x, 1, axis=0))[1] == 0.0
    assert recall_at(np.ones((10, 2)), np.ones((10, 2)))[1] == 0.0, "what is all alike is not found"


def test_seal_finds_genes_by_pictures_and_pictures_by_genes(place: Path, tmp_path: Path) -> None:
    """Without its contrast, both sides stay in spaces of their own."""
    fit(recipe_settings(place, "seal"), tmp_path / "on")
    fit(recipe_settings(place, "seal", w_gene_contrast=0.0, w_gene_decoding=0.0), tmp_path / "off")
    on, off = (recall_at_5(tmp_path / name, "gene_alignment") for name in ("on", "off"))
    assert min(on) > 3 * CHANCE, on
    assert max(off) < 2 * CHANCE, off


def test_seal_decodes_genes_from_the_picture(place: Path, tmp_path: Path) -> None:
    """Genes of the programs that leave a trace, on the held-out section: r of what the decoder makes of the picture."""
    r = {}
    for name, weight in (("on", 1.0), ("off", 0.0)):
        folder = tmp_path / name
        fit(recipe_settings(place, "seal", w_gene_decoding=weight, w_gene_contrast=0.0), folder)
        run = open_run(folder)
        part = load_matching(folder, run.config, run.model, len(run.info.genes))["gene_alignment"]
        assert isinstance(part, GeneAlignment)
        sample = load_cohort(place / "cohort")["h"]
        with torch.inference_mode():
            made = part.autoencoder.decode(part.picture_side(torch.from_numpy(run.embedding(sample)))).numpy()
        found = pearson(gene_values(sample, run.info.genes), made)
        shown = [i for i, gene in enumerate(run.info.genes) if gene.startswith(("RED", "GREEN", "BLUE"))]
        r[name] = float(np.median(found[shown]))
    assert r["on"] > 0.5 and abs(r["off"]) < 0.3, r


def test_a_shuffled_run_shuffles_genes_too(place: Path) -> None:
    """Or the control would learn from the true genes."""
    plain, shuffled = (
        prepare(recipe_settings(place, "seal", control=control, targets="pathways")).train[0]
        for control in ("", "shuffled")
    )
    assert not np.array_equal(plain.genes, shuffled.genes)
    rows = {tuple(row) for row in np.round(plain.genes, 4).tolist()}
    assert all(tuple(row) in rows for row in np.round(shuffled.genes, 4).tolist())
    paired = {tuple(np.round(g, 4)): tuple(np.round(t, 4)) for g, t in zip(plain.genes, plain.target, strict=True)}
    assert all(
        paired[tuple(np.round(g, 4))] == tuple(np.round(t, 4))
        for g, t in zip(shuffled.genes, shuffled.target, strict=True)
    )


def test_recipes_are_rows_of_the_ablation_table(place: Path, tmp_path: Path) -> None:
    base = recipe_settings(place, "stamp", fields_um=[], field_steps="joined", cache_views=0, shift_um=0.0, epochs=1)
    said: list[str] = []
    assert possible_recipes(ablation_configs(base), said.append) == ["seal", "mint", "aido-tissue"]
    assert len(said) == 1 and said[0].startswith("st-align") and "two fields of view" in said[0]
    assert list(dict(train_ablations(base, tmp_path, ("seal",)))) == ["seal"]
    fit(base.with_(adapt="lora"), tmp_path / "lora")
    made = evaluate(EvaluateOptions(tmp_path / "lora", ablations=tmp_path, tier1=False))
    rows = {(row.key, row.how) for row in made.rows if row.result is not None}
    assert {("seal", "head"), ("seal", "probe"), ("lora", "head")} <= rows
    assert not any(row.key == "st-align" for row in made.rows), "a recipe that nobody asked for is no missing row"
