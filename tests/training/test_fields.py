"""Several fields of view as one embedding: what they cut, how they train, and that the exported graph does the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")

from support.cohort_factory import TILE, make_cohort, program_gmt

from stamp_deploy.errors import UsageError
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.loop import fit
from stamp_deploy.training.model import StampModel, load_run
from stamp_deploy.training.model.embed import embed_tiles
from stamp_deploy.training.model.fields import Fields, resize_matrix

VIT = json.dumps({"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 2})


def test_resizing_is_torch_s_antialiased_bilinear() -> None:
    x = torch.rand(2, 3, 30, 30)
    for side in (12, 30, 44):
        weights = resize_matrix(30, side)
        assert torch.allclose(weights.sum(1), torch.ones(side), atol=1e-6)
        theirs = torch.nn.functional.interpolate(x, size=side, mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(weights @ x @ weights.T, theirs, atol=1e-5, rtol=1e-5)


def test_fields_are_cut_from_the_middle() -> None:
    fields = Fields((8, 16, 32), 16)
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 12:20, 12:20] = 1
    assert torch.equal(fields(x, 0), torch.ones(1, 1, 16, 16))
    assert torch.equal(fields(x, 1), x[:, :, 8:24, 8:24])
    assert fields(x, 2).sum() == pytest.approx(16, rel=1e-4)  # a quarter of the 64 pixels


def test_the_embedding_joins_the_fields() -> None:
    model = StampModel(torch.nn.Flatten(), "pool", 1, dim=2 * 3 * 16, fields=Fields((4, 8), 4))
    x = torch.rand(5, 3, 8, 8)
    whole = model.embedding(x)
    assert whole.shape == (5, 96)
    torch.testing.assert_close(whole, torch.cat([model.embedding_of(x, 0), model.embedding_of(x, 1)], 1))
    torch.testing.assert_close(model.embedding_of(x, 0), x[:, :, 2:6, 2:6].flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "h": "p3"})
    program_gmt(folder / "programs.gmt")
    return folder


def config(place: Path, **changes: Any) -> TrainConfig:
    """16 px seen of fields of 16 and 32 um, on tiles of 32 px."""
    return TrainConfig.from_dict(
        {
            "cohort": str(place / "cohort"), "gmt": str(place / "programs.gmt"), "held_out": ["h"],
            "pfm": "timm/vit_tiny_patch16_224", "timm_kwargs": VIT, "tile_px": 16, "mpp": 1.0,
            "fields_um": [16, 32], "field_steps": "one", "adapt": "last-block", "lr": 3e-3, "epochs": 3,
            "batch_spots": 30, "val_fraction": 0.0, "w_contrastive": 0.0, "w_anchor": 0.1, "head_final": "ridge",
            "precision": "fp32", "threads": 1, "progress": False, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("cache_views", [0, 2])
def test_a_run_of_two_fields_learns_exports_and_infers_the_same(place: Path, tmp_path: Path, cache_views: int) -> None:
    from stamp_deploy.engine import open_engine
    from stamp_deploy.export.export import export_run
    from stamp_deploy.training.cohort import load_cohort

    info = fit(config(place, cache_views=cache_views), tmp_path / "run")
    assert (info.tile_px, info.view_px, info.fields_px, info.embedding_dim) == (TILE, 16, (16, 32), 96)
    assert info.metrics["cosine_to_frozen"] < 1 - 1e-6
    model, again = load_run(tmp_path / "run")
    assert again.fields_px == (16, 32) and model.pathway.in_features == 96
    tiles = np.array(load_cohort(place / "cohort")["h"].tiles())
    embedding = embed_tiles(model, again, tiles)
    frozen = embed_tiles(model, again, tiles, frozen=True)
    assert np.abs(embedding - frozen).max() > 1e-3, "the last block has learned, and what it was is still there"
    bundle = export_run(tmp_path / "run", tmp_path / "bundle", tiles=np.repeat(tiles, 9, axis=0)[:512])
    assert bundle.tile_px == TILE
    engine = open_engine(bundle, "onnxruntime", batch=16)
    found = engine.run(tiles[:16])
    engine.close()
    np.testing.assert_allclose(np.asarray(found.embedding)[:16], embedding[:16], atol=1e-3)


def test_kept_views_teach_what_fresh_ones_do(place: Path, tmp_path: Path) -> None:
    """Without augmentation a kept view is the tile itself: both ways learn the same, but for float16."""
    plain = {"flips": False, "hed_jitter": 0.0, "epochs": 2, "w_anchor": 0.0, "fields_um": [], "tile_px": 32}
    plain |= {"field_steps": "joined", "timm_kwargs": VIT.replace("16", "32", 1)}
    fit(config(place, **plain), tmp_path / "fresh")
    fit(config(place, **plain, cache_views=1), tmp_path / "kept")
    fresh, kept = (load_run(tmp_path / name)[0] for name in ("fresh", "kept"))
    moves = []
    for model in (fresh, kept):
        own = dict(model.backbone.named_parameters())
        moves.append(torch.cat([(own[name] - start).flatten() for name, start in model.start.items()]))
    assert moves[0].abs().max() > 1e-3, "something learned"
    assert torch.nn.functional.cosine_similarity(*moves, dim=0) > 0.95


def test_kept_views_are_shared_by_runs_of_one_trunk(place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "views"
    fit(config(place, cache_views=2, cache_dir=str(cache), epochs=1), tmp_path / "one")
    made = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(made) == 2 * 2  # sections x fields
    again = config(place, cache_views=2, cache_dir=str(cache), epochs=2, lr=1e-3, weights=str(tmp_path / "w"))
    load_run(tmp_path / "one")
    from safetensors.torch import load_file, save_file

    whole = load_file(tmp_path / "one" / "backbone.safetensors") | load_file(tmp_path / "one" / "frozen.safetensors")
    save_file(whole, tmp_path / "w.safetensors")
    fit(again.with_(weights=str(tmp_path / "w.safetensors")), tmp_path / "two")
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == made


def test_evaluation_by_way_of_the_trunk_is_the_same(place: Path, tmp_path: Path) -> None:
    from stamp_deploy.training.cohort import load_cohort
    from stamp_deploy.training.evaluate.runs import open_run

    fit(config(place, epochs=1), tmp_path / "run")
    plain, kept = open_run(tmp_path / "run"), open_run(tmp_path / "run", cache=tmp_path / "cache")
    sample = load_cohort(place / "cohort")["h"]
    for how in ("embedding", "frozen"):
        np.testing.assert_allclose(getattr(plain, how)(sample), getattr(kept, how)(sample), atol=1e-4)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # one per field: adapted and frozen share them


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"fields_um": []}, "fields_um is empty"),
        ({"head_final": "trained"}, 'head_final is not "ridge"'),
        ({"w_contrastive": 0.2}, "w_contrastive is not 0"),
        ({"fields_um": [16, 64]}, "the model wants 64 px"),
        ({"fields_um": [-1]}, "must be positive"),
        ({"field_steps": "joined", "cache_views": 2}, "of one field each"),
        ({"adapt": "full", "cache_views": 2}, "comes before the blocks, and learns"),
        ({"mean": [0.5, 0.5]}, "is not three numbers"),
        ({"std": [0.5, 0.5, 0.0]}, "is not three numbers"),
    ],
)
def test_settings_that_contradict_are_refused(place: Path, tmp_path: Path, changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        fit(config(place, **changes), tmp_path / "run")


def test_mean_and_std_are_settings(place: Path, tmp_path: Path) -> None:
    info = fit(config(place, epochs=0, mean=[0.7, 0.5, 0.6], std=[0.2, 0.2, 0.2]), tmp_path / "run")
    assert (info.mean, info.std) == ((0.7, 0.5, 0.6), (0.2, 0.2, 0.2))
