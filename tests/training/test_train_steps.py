"""What a training does step by step, by hand: rates, gradients, the epoch that is kept, the end, what is written down.

Optimiser and validation are looked at from outside: a recording AdamW, and validation values that are given.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")
pytest.importorskip("accelerate", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt

from stamp_deploy.errors import DataError
from stamp_deploy.training import loop
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.loop import fit
from stamp_deploy.training.model import load_run
from stamp_deploy.training.model.embed import embed_tiles
from stamp_deploy.training.objective import Alignment
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.validation import validation_r

VIT = '{"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}'
BATCHES = 3
"""Of an epoch: two sections of 60 spots, at most 24 of each in a batch, 24 + 24 + 12."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "c": "p3"})
    program_gmt(folder / "programs.gmt")
    return folder


def config(place: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "cohort": str(place / "cohort"), "gmt": str(place / "programs.gmt"), "validation": ["c"], "pfm": "demo-vit",
            "timm_kwargs": VIT, "tile_px": 32, "mpp": 1.0, "epochs": 1, "batch_spots": 24, "threads": 1,
            "lora_dropout": 0.0, "w_contrastive": 0.1, "projection_dim": 8, "clip": 1e9, "precision": "fp32", **changes,
        }
    )  # fmt: skip


class Noted(torch.optim.AdamW):
    """AdamW that notes, at each step, the rate and the gradients of each of its groups."""

    notes: ClassVar[list[list[tuple[float, list[Any]]]]] = []

    def step(self, closure: Any = None) -> Any:
        self.notes.append(
            [(g["lr"], [p.grad.clone() for p in g["params"] if p.grad is not None]) for g in self.param_groups]
        )
        return super().step(closure)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[float, list[Any]]]]:
    """What the optimiser is told in each step."""
    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    Noted.notes = []
    return Noted.notes


def flat(step: list[tuple[float, list[Any]]]) -> Any:
    return torch.cat([gradient.flatten() for _, gradients in step for gradient in gradients])


def test_backbone_and_heads_have_rates_of_their_own_that_rise_and_fall(
    place: Path, tmp_path: Path, steps: list[Any]
) -> None:
    """Three batches, two a step, three epochs: six steps, of which two warm up."""
    settings = config(
        place, epochs=3, accumulation=2, lr=2e-3, lr_heads=7e-3, warmup_fraction=1 / 3, validation=[], val_fraction=0.0
    )  # fmt: skip
    info = fit(settings, tmp_path / "run")
    cosine = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    factors = [0.5, 1.0, *cosine]
    assert (info.metrics["epochs"], info.metrics["steps"], info.metrics["best_epoch"]) == (3, 6, 3)
    assert info.metrics["validation_r"] is None
    for step, factor in zip(steps, factors, strict=True):
        (backbone, lora), (heads, others) = step
        assert (backbone, heads) == pytest.approx((2e-3 * factor, 7e-3 * factor))
        assert (4, 24) in {tuple(g.shape) for g in others} and (4, 24) not in {tuple(g.shape) for g in lora}
        assert {24} < {g.shape[0] for g in lora} | {g.shape[1] for g in lora}  # of the attention, r beside the width


def test_a_step_goes_by_the_mean_gradient_of_its_batches(place: Path, tmp_path: Path, steps: list[Any]) -> None:
    """Nothing moves (the rates are 0), so that the gradients of single batches are known from a run of one a step."""
    still = {"lr": 0.0, "lr_heads": 0.0, "weight_decay": 0.0}
    for together in (1, 2, 3):
        fit(config(place, accumulation=together, **still), tmp_path / f"run{together}")
    assert len(steps) == 3 + 2 + 1
    one, two, three = (flat(step) for step in steps[:3])
    assert not torch.allclose(one, two, rtol=0.1)
    torch.testing.assert_close(flat(steps[3]), (one + two) / 2)
    torch.testing.assert_close(flat(steps[4]), three / 2)  # what is left over counts as much as it did in a full step
    torch.testing.assert_close(flat(steps[5]), (one + two + three) / 3)


def test_the_norm_of_all_gradients_together_is_bounded(place: Path, tmp_path: Path, steps: list[Any]) -> None:
    still = {"lr": 0.0, "lr_heads": 0.0, "weight_decay": 0.0}
    fit(config(place, **still), tmp_path / "free")
    fit(config(place, clip=1e-3, **still), tmp_path / "bounded")
    for free, bounded in zip(steps[:BATCHES], steps[BATCHES:], strict=True):
        assert float(flat(free).norm()) > 1e-2
        torch.testing.assert_close(flat(bounded), flat(free) * 1e-3 / flat(free).norm(), rtol=1e-3, atol=1e-9)


def test_every_step_is_followed_by_what_comes_after_an_update(
    place: Path, tmp_path: Path, steps: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that is an average of its pupil, for one, moves once a step, after it."""
    seen: list[int] = []
    monkeypatch.setattr(Alignment, "after_update", lambda self: seen.append(len(steps)))
    fit(config(place, epochs=2), tmp_path / "run")
    assert seen == list(range(1, 2 * BATCHES + 1))


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[Any]:
    """Validation gives these values, one after the other; what is returned fills with the heads that were validated."""
    seen: list[Any] = []
    left = iter(values)

    def given(model: Any, *rest: Any) -> float:
        seen.append(model.pathway.weight.detach().clone())
        return next(left)

    monkeypatch.setattr(loop, "validation_r", given)
    return seen


def test_the_first_of_the_best_epochs_is_kept_and_patience_counts_since_then(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start .2, then a fall, a new best, its equal, a fall: with patience 2 the fourth epoch is the last."""
    values = [0.2, 0.1, 0.5, 0.5, 0.4, 0.9]
    seen = scripted(monkeypatch, values)
    info = fit(config(place, epochs=9, patience=2, lr=2e-3, lr_heads=2e-3), tmp_path / "run")
    assert (info.metrics["epochs"], info.metrics["best_epoch"], info.metrics["validation_r"]) == (4, 2, 0.5)
    assert info.metrics["pathway_head"] == "trained"
    kept = load_run(tmp_path / "run")[0].pathway.weight.detach()
    assert [torch.equal(kept, weight) for weight in seen] == [False, False, True, False, False]
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [(row["epoch"], row["step"]) for row in rows] == [(str(k), str(BATCHES * k)) for k in (1, 2, 3, 4)]
    assert [float(row["validation_r"]) for row in rows] == values[1:5]


def test_without_patience_a_run_goes_to_its_end(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scripted(monkeypatch, [0.9, 0.1, 0.2, 0.3])
    info = fit(config(place, epochs=3, patience=0, lr_heads=2e-3), tmp_path / "run")
    assert (info.metrics["epochs"], info.metrics["best_epoch"], info.metrics["validation_r"]) == (3, 0, 0.9)
    assert torch.equal(load_run(tmp_path / "run")[0].pathway.weight.detach(), seen[0])


def test_what_is_written_down_of_an_epoch_is_the_mean_over_its_batches(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, float]] = []
    forward = Alignment.forward

    def noted(self: Any, *rest: Any) -> Any:
        loss, terms = forward(self, *rest)
        seen.append({"loss": float(loss.detach()), **{k: float(v) for k, v in terms.items()}})
        return loss, terms

    monkeypatch.setattr(Alignment, "forward", noted)
    fit(config(place, epochs=2), tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert len(seen) == 2 * BATCHES and len(rows) == 2
    for number, row in enumerate(rows):
        own = seen[BATCHES * number : BATCHES * (number + 1)]
        for name in ("loss", "regression", "contrastive"):
            assert float(row[name]) == pytest.approx(np.mean([step[name] for step in own]), rel=1e-4), name


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_ends_the_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    forward = Alignment.forward

    def broken(self: Any, *rest: Any) -> Any:
        loss, terms = forward(self, *rest)
        return loss * value, terms

    monkeypatch.setattr(Alignment, "forward", broken)
    with pytest.raises(
        DataError, match=f"the loss became {value} in epoch 1"
    ):  # at once, and not when weights are gone
        fit(config(place, epochs=2), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_validation_is_the_mean_over_sections_of_the_median_over_pathways() -> None:
    """Four sections of three pathways, by numpy; what is not measured is left out, and a section without any."""
    rng = np.random.default_rng(0)
    model = SimpleNamespace(pathway=torch.nn.Linear(5, 3))
    weight = model.pathway.weight.detach().numpy().astype(np.float64)
    sections, embeddings, medians = [], [], []
    for noise, mask in ((0.2, [1, 1, 1]), (3.0, [1, 1, 0]), (0.5, [1, 1, 1]), (0.1, [0, 0, 0])):
        z = rng.normal(size=(30, 5)).astype(np.float32)
        scores = (z @ weight.T + noise * rng.normal(size=(30, 3))).astype(np.float32)
        sections.append(SimpleNamespace(scores=scores, mask=np.array(mask, bool), tiles=None))
        embeddings.append(z)
        r = [np.corrcoef(scores[:, k], (z @ weight.T)[:, k])[0, 1] for k in range(3) if mask[k]]
        medians += [np.median(r)] if r else []
    found = validation_r(model, None, sections, embeddings)  # type: ignore[arg-type]
    assert len(medians) == 3 and found == pytest.approx(np.mean(medians), abs=1e-5)
    assert abs(np.mean(medians) - np.median(medians)) > 0.05
    assert math.isnan(validation_r(model, None, sections[3:], embeddings[3:]))  # type: ignore[arg-type]


def test_the_global_read_out_is_fitted_to_what_was_learned(place: Path, tmp_path: Path) -> None:
    """Ridge's intercept makes its residuals 0 on average, on the embeddings that it was fitted to and on no others."""
    settings = config(place, epochs=2, lr=3e-2, patience=0, validation=[], val_fraction=0.0)
    fit(settings, tmp_path / "run")
    model, info = load_run(tmp_path / "run")
    train = prepare(settings).train
    level = np.concatenate([section.level for section in train])

    def error() -> float:
        z = np.concatenate([embed_tiles(model, info, section.tiles) for section in train])
        with torch.inference_mode():
            found = model.pathway_global(torch.from_numpy(z)).numpy()
        return float(np.abs((found - level).mean(axis=0)).max())

    learned = error()
    with model.without_adapter():
        frozen = error()
    assert learned < 1e-3 < 10 * learned + 1e-3 < frozen


def test_how_far_the_embedding_has_moved_is_measured_between_start_and_end(place: Path, tmp_path: Path) -> None:
    """By the run itself, and here from the model that it left, with and without its adapter."""
    settings = config(place, epochs=2, lr=2e-2, patience=0, validation=[], val_fraction=0.0)
    info = fit(settings, tmp_path / "run")
    model, loaded = load_run(tmp_path / "run")
    cosines = []
    for section in prepare(settings).train:
        after = embed_tiles(model, loaded, section.tiles).astype(np.float64)
        with model.without_adapter():
            before = embed_tiles(model, loaded, section.tiles).astype(np.float64)
        norms = np.linalg.norm(after, axis=1) * np.linalg.norm(before, axis=1)
        cosines.append((after * before).sum(axis=1) / norms)
    moved = float(np.concatenate(cosines).mean())
    assert moved < 0.999
    assert info.metrics["cosine_to_frozen"] == pytest.approx(moved, abs=1e-4)
