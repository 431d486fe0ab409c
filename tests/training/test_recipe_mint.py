"""MINT: the ST token, self-distillation and patches, each on and off; and what of it is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")

from safetensors.torch import load_file
from support.cohort_factory import make_cohort, program_gmt
from support.recipe_runs import recipe_settings

from stamp_deploy.errors import UsageError
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.ingredients.patch_regression import patch_rows, turn_together
from stamp_deploy.training.ingredients.self_distillation import SelfDistillation, random_parts
from stamp_deploy.training.loop import fit
from stamp_deploy.training.metrics import pearson
from stamp_deploy.training.model import build_model, load_run
from stamp_deploy.training.model.embed import embed_tiles
from stamp_deploy.training.ridge import fit_ridge_cv
from stamp_deploy.training.run_setup import prepare


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mint")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "h": "p3"})
    program_gmt(folder / "programs.gmt")
    return folder


def settings(place: Path, **changes: Any) -> Any:
    return recipe_settings(place, "mint", **{"adapt": "lora", "epochs": 3, **changes})


def test_the_token_s_part_follows_the_model_s_own_embedding(place: Path) -> None:
    """Of the model before adapting, the token is no part: it gives what timm's own forward gives."""
    start = prepare(settings(place))
    torch.manual_seed(0)
    model = build_model(start.info).eval()
    x = torch.rand(3, 3, 32, 32)
    own, info_rule = model.frozen_dim, start.info.embed
    assert start.info.embedding_dim == model.dim == own + 48
    with torch.inference_mode():
        embedding = model.embedding(x)
        assert embedding.shape == (3, model.dim)
        with model.without_adapter():
            bare = model.embedding(x)
            tokens = model.backbone.get_base_model().forward_features(x)
        assert bare.shape == (3, own) and info_rule == "mean"
        torch.testing.assert_close(bare, tokens[:, 1:].mean(1))
        assert torch.equal(model.tokens(x)[:, 1], embedding[:, own:]), "the token is the last of the prefix"
        assert model.st_token is not None
        model.st_token += torch.randn(48)
        assert not torch.allclose(model.embedding(x)[:, own:], embedding[:, own:], atol=1e-3)


def test_a_lora_run_carries_the_token_and_so_does_its_export(place: Path, tmp_path: Path) -> None:
    from stamp_deploy.engine import open_engine
    from stamp_deploy.export.export import export_run

    info = fit(settings(place), tmp_path / "run")
    assert info.st_token and info.metrics["cosine_to_frozen"] > 0.8
    token = load_file(tmp_path / "run" / "heads.safetensors")["st_token"]
    torch.manual_seed(0)
    assert token.shape == (1, 1, 48) and float(token.abs().max()) > 0
    model, again = load_run(tmp_path / "run")
    assert torch.equal(model.st_token, token)
    tiles = np.array(load_cohort(place / "cohort")["h"].tiles())
    here = embed_tiles(model, again, tiles)
    bundle = export_run(tmp_path / "run", tmp_path / "bundle", tiles=np.repeat(tiles, 9, axis=0)[:512])
    engine = open_engine(bundle, "onnxruntime", batch=8)
    try:
        out = engine.run(tiles[:8])
    finally:
        engine.close()
    np.testing.assert_allclose(out.embedding, here[:8], atol=2e-4)


def test_the_token_learns_and_serves_the_read_out(place: Path, tmp_path: Path) -> None:
    """Beside a frozen backbone, the token learns, and its part of the embedding tells of programs on a held-out
    section."""
    size = {}
    for name, rate in (("on", 2e-2), ("off", 0.0)):
        fit(
            settings(place, adapt="frozen", lr_heads=rate, epochs=15, w_distillation=0.0, w_patches=0.0),
            tmp_path / name,
        )
        size[name] = float(load_file(tmp_path / name / "heads.safetensors")["st_token"].norm())
    assert size["on"] > 1.5 * size["off"], "the token has learned"
    config = settings(place, validation=["h"], held_out=[])
    r = {}
    for name in size:
        model, info = load_run(tmp_path / name)
        start = prepare(config)
        own = model.frozen_dim
        x, held = (embed_tiles(model, info, s.tiles)[:, own:] for s in (start.train[0], start.validation[0]))
        ridge = fit_ridge_cv(x, start.train[0].target[:, :3], [str(i % 4) for i in range(len(x))])
        r[name] = float(np.mean(pearson(start.validation[0].scores[:, :3], ridge.predict(held))))
    assert r["on"] > 0.5, r


def test_an_evaluation_compares_with_the_model_without_the_token(place: Path, tmp_path: Path) -> None:
    fit(settings(place, epochs=1), tmp_path / "run")
    made = evaluate(EvaluateOptions(tmp_path / "run", tier1=False))
    rows = {(row.key, row.how) for row in made.rows if row.result is not None}
    assert {("mint", "head"), ("mint", "probe"), ("frozen_ridge_cv", "baseline"), ("frozen_head", "head")} <= rows
    assert made.document["guard"]["mean_cosine"] > 0.8


def test_self_distillation_makes_parts_and_whole_agree(place: Path, tmp_path: Path) -> None:
    """Cross-entropy to the slow copy falls; without the term nothing pulls at the model but the anchor."""
    import csv

    off = settings(place, w_regression=0.0, w_correlation=0.0, w_patches=0.0, w_anchor=0.0, w_distillation=0.0)
    on = off.with_(w_distillation=1.0, epochs=15)
    for name, config in (("on", on.with_(head_final="ridge")), ("off", off.with_(head_final="ridge"))):
        fit(config, tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "on" / "metrics.csv").open()))
    assert float(rows[-1]["distillation"]) < 0.9 * float(rows[0]["distillation"])
    moved = {
        name: max(
            float(v.abs().max()) for k, v in load_file(tmp_path / name / "adapter.safetensors").items() if "lora_B" in k
        )
        for name in ("on", "off")
    }
    assert moved["on"] > 0 and moved["off"] == 0


def test_the_slow_copy_follows_and_the_model_is_put_back(place: Path) -> None:
    start = prepare(settings(place))
    model = build_model(start.info)
    part = SelfDistillation(model)
    before = [p.detach().clone() for p in model.parameters()]
    from stamp_deploy.training.ingredients import Seen

    tiles = torch.rand(6, 3, 32, 32)
    empty = torch.zeros(6, 0)
    seen = Seen(model, tiles, model.embedding(tiles), None, None, empty, empty, empty, empty)
    loss = part(seen)["distillation"]
    loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    learning = [p for p in model.backbone.parameters() if p.requires_grad]
    assert any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in learning)
    with torch.no_grad():
        for p in learning:
            p.add_(1.0)
    slow = [b.clone() for n, b in part.named_buffers() if n.startswith("slow")]
    part.after_update()
    after = [b for n, b in part.named_buffers() if n.startswith("slow")]
    steps = [float((b - a).abs().max()) for a, b in zip(slow, after, strict=True)]
    assert max(steps) == pytest.approx(0.01, rel=1e-3), "a hundredth of the way"


def test_parts_of_a_tile_are_of_it() -> None:
    torch.manual_seed(0)
    tiles = torch.linspace(0, 1, 32)[None, None, None].expand(5, 3, 32, 32).contiguous()
    parts = random_parts(tiles)
    assert parts.shape == tiles.shape and float(parts.min()) >= 0 and float(parts.max()) <= 1
    spread = parts.flatten(1).amax(1) - parts.flatten(1).amin(1)
    assert bool((spread < 0.95).all() and (spread > 0.35).all())


def test_patches_hold_the_places_that_lie_in_them() -> None:
    """Four places 10 um apart; a tile of 40 um with four patches a side."""
    xy = np.array([[0, 0], [10, 0], [0, 10], [200, 200]], float)
    rows = patch_rows(xy, 40.0, 4)
    assert rows.shape == (4, 4, 4)
    assert rows[0, 2, 2] == 0 and rows[0, 2, 3] == 1 and rows[0, 3, 2] == 2  # [y, x]
    assert (rows[0] >= 0).sum() == 3 and (rows[3] >= 0).sum() == 1


def test_tiles_and_maps_turn_together() -> None:
    torch.manual_seed(1)
    maps = torch.arange(16.0).reshape(1, 4, 4, 1).repeat(40, 1, 1, 1)
    tiles = maps.permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    turned, moved = turn_together(tiles, maps)
    assert torch.equal(turned[:, 0, ::8, ::8], moved[..., 0])
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 8


def make_fine_cohort(folder: Path) -> Path:
    """Places 8 um apart under tiles of 32 um: the tile's patches show what was measured there, each its own colour."""
    import anndata
    import pandas as pd
    from scipy import sparse
    from support.cohort_factory import GENES, PROGRAMS, TILE

    from stamp_deploy.training.cohort import SampleFacts
    from stamp_deploy.training.cohort.write import write_cohort_json, write_sample

    rows = []
    for seed, name in enumerate(("a", "b", "h")):
        rng = np.random.default_rng(seed)
        side = 9
        level = rng.uniform(0, 1, (side, side, 4))
        picture = 60 + 150 * level[:, :, :3].repeat(8, 0).repeat(8, 1)
        picture = np.pad(picture, ((16, 16), (16, 16), (0, 0)), mode="edge")
        xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * 8.0 + 4
        tiles = np.stack([picture[int(y) : int(y) + TILE, int(x) : int(x) + TILE] for x, y in xy.astype(int)])
        flat = level.reshape(-1, 4)
        rate = np.concatenate([np.repeat(flat * 60, GENES, axis=1), np.full((len(flat), 200), 30.0)], axis=1)
        data = anndata.AnnData(
            sparse.csr_matrix(rng.poisson(rate).astype(np.float32)),
            obs=pd.DataFrame(index=[f"s{i}" for i in range(len(flat))]),
            var=pd.DataFrame(index=[f"{p}{i}" for p in PROGRAMS for i in range(GENES)] + [f"O{i}" for i in range(200)]),
            obsm={"spatial": xy},
        )
        noisy = np.clip(tiles + rng.normal(0, 6, tiles.shape), 0, 255).astype(np.uint8)
        rows.append(write_sample(folder, data, noisy, SampleFacts(name, f"p{seed}", "fine", "none", 1.0, "stated")))
    write_cohort_json(folder, rows, tile_px=TILE, mpp=1.0)
    return folder


def test_patch_tokens_learn_what_was_measured_in_them(tmp_path: Path) -> None:
    """r of the patch read-out with the scores of the places there, over the held-out section's tiles."""
    import csv

    make_fine_cohort(tmp_path / "cohort")
    program_gmt(tmp_path / "programs.gmt")
    shared = {"adapt": "full", "epochs": 25, "w_distillation": 0.0, "w_anchor": 0.0, "batch_spots": 81}
    start = prepare(settings(tmp_path, **shared))
    assert start.train[0].patch_rows is not None and (start.train[0].patch_rows >= 0).mean() > 0.6
    losses = {}
    for name, weight in (("on", 1.0), ("off", 1e-9)):
        fit(settings(tmp_path, w_patches=weight, **shared), tmp_path / name)
        rows = list(csv.DictReader((tmp_path / name / "metrics.csv").open()))
        losses[name] = float(rows[-1]["patches"])
    assert losses["on"] < 0.8 * losses["off"], losses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pfm": "efficientnet-lite0", "timm_kwargs": "", "w_patches": 0.0, "w_distillation": 0.0}, "gives no tokens"),
        ({"fields_um": [16.0, 32.0]}, "several fields of view"),
        ({"cache_views": 2}, "kept views"),
        ({"shift_um": 4.0}, "moved crops"),
    ],
)
def test_what_cannot_go_together_is_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(settings(place, **changes))
