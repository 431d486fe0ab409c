"""What one wrong line in the recipe would change: splits, rates, the best weights, heads, places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt
from support.head_slides import slides_of
from torch.nn import functional

from stamp_deploy.grid import Grid
from stamp_deploy.training.cohort.spot_tiles import spot_tiles
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.heads.abmil import GatedABMIL
from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.fitting import class_weights, loss
from stamp_deploy.training.heads.slides import Slides
from stamp_deploy.training.heads.train import train_head
from stamp_deploy.training.loop import fit
from stamp_deploy.training.model import load_run
from stamp_deploy.training.model.checkpoint import read_tensors
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.validation import validation_r

TINY = '{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}'


# a run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "c": "p3"}, spots=32)
    program_gmt(folder / "programs.gmt")
    return folder


def config(place: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "cohort": str(place / "cohort"), "gmt": str(place / "programs.gmt"), "validation": ["c"],
            "pfm": "demo-vit", "timm_kwargs": TINY, "tile_px": 32, "mpp": 1.0, "epochs": 2, "batch_spots": 32,
            "threads": 1, "w_contrastive": 0.0, "precision": "fp32", **changes,
        }
    )  # fmt: skip


def test_the_weights_of_the_best_epoch_are_kept_not_the_last(place: Path, tmp_path: Path) -> None:
    """Steps so large that they ruin the start, which is then the best."""
    settings = config(place, epochs=2, adapt="full", lr=0.3, lr_heads=0.3, warmup_fraction=0.0, patience=0)
    info = fit(settings, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    last = float(dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))["validation_r"])
    best = info.metrics["validation_r"]
    assert best > last + 0.05 and info.metrics["best_epoch"] < 2
    model, loaded = load_run(tmp_path / "run")
    assert validation_r(model, loaded, prepare(settings).validation) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("lr", "lr_heads"), [(0.0, 1e-2), (1e-2, 0.0)])
def test_adapter_and_heads_learn_at_their_own_rates(place: Path, tmp_path: Path, lr: float, lr_heads: float) -> None:
    """The head starts from ridge on the model as it is: what a run of no epochs ends with."""
    shared = {"head_init": "ridge", "head_final": "trained", "validation": [], "val_fraction": 0.0, "epochs": 2}
    fit(config(place, lr=lr, lr_heads=lr_heads, **shared), tmp_path / "run")
    fit(config(place, **{**shared, "epochs": 0}), tmp_path / "start")
    adapter = read_tensors(tmp_path / "run" / "adapter.safetensors")[0]
    moved = max(float(v.abs().max()) for k, v in adapter.items() if "lora_B" in k)  # starts at 0
    heads = [read_tensors(tmp_path / name / "heads.safetensors")[0]["pathway.weight"] for name in ("run", "start")]
    assert (moved > 0) == (lr > 0)
    assert bool((heads[0] - heads[1]).abs().max() > 1e-4) == (lr_heads > 0)


# slide-level heads


def test_rare_classes_weigh_more_and_only_in_training() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    slides = slides_of(np.array([0, 0, 0, 1]))
    raw = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    rows = np.arange(4)
    each = functional.cross_entropy(raw, torch.tensor([0, 0, 0, 1]), reduction="none")
    want = float((each * weights[[0, 0, 0, 1]]).sum() / weights[[0, 0, 0, 1]].sum())
    assert float(loss(raw, slides, rows, "binary", weights)) == pytest.approx(want)
    assert float(loss(raw, slides, rows, "binary", None)) == pytest.approx(float(each.mean()))


def test_the_gate_decides_with_the_content_what_is_attended_to() -> None:
    torch.manual_seed(0)
    head = GatedABMIL(4, 2, hidden=6, attention=3, dropout=0.0).eval()
    head.mean.copy_(torch.randn(4))
    head.scale.copy_(torch.rand(4) + 0.5)
    x = torch.randn(5, 4)
    with torch.no_grad():
        h = torch.relu((x - head.mean) * head.scale @ head.represent[0].weight.T + head.represent[0].bias)
        inner = torch.tanh(head.tanh(h)) * torch.sigmoid(head.gate(h))
        attention = torch.softmax(head.score(inner)[:, 0], 0)
        logits, found = head(x)
        torch.testing.assert_close(found, attention)
        torch.testing.assert_close(logits, head.classify((attention[:, None] * h).sum(0)))


def test_each_fold_predicts_patients_that_it_never_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients of several slides: neither the fold's test patients nor those that stop it are learned from."""
    import h5py

    from stamp_deploy.training.heads import train

    rows = []
    for i in range(36):
        path = tmp_path / f"s{i}.h5"
        with h5py.File(path, "w") as file:
            file["features"] = np.random.default_rng(i).normal(i % 2, 1, (3, 4)).astype(np.float32)
        rows.append(LabelledSlide(Bag(f"s{i}", path), f"p{i // 3}", (i // 3) % 2))
    table = LabelTable(tuple(rows), "binary", ("a", "b"), 0, 0)
    seen: list[tuple[set[str], set[str]]] = []
    original = train.fit_head

    def watch(slides: Slides, learn: np.ndarray, stop: np.ndarray, *rest: Any) -> Any:
        seen.append(({slides.patients[i] for i in learn}, {slides.patients[i] for i in stop}))
        return original(slides, learn, stop, *rest)

    monkeypatch.setattr(train, "fit_head", watch)
    train_head(table, tmp_path / "out", HeadConfig(folds=3, epochs=1, hidden=4, attention=2, draws=10))
    *folds, final = seen
    everyone = {s.patient for s in rows}
    assert len(folds) == 3 and final == (everyone, set())
    for learned, stopped in folds:
        assert stopped and not learned & stopped and len(everyone - learned - stopped) == 4


# places


def test_tiles_of_spots_are_centred_where_pixels_are_not_square() -> None:
    grid = Grid(4000, 3000, 0.5, 0.25, 1.0, 32)  # a tile spans 64 by 128 level-0 pixels
    tiles = spot_tiles(grid, np.array([[1000.0, 1000.0], [500.0, 2000.0]]))
    assert tiles.coords.tolist() == [[968, 936], [468, 1936]]
    assert tiles.columns.tolist() == [15, 7] and tiles.rows.tolist() == [7, 15]
