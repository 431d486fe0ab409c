"""What one wrong line in the recipe would change: losses by hand, splits, rates, the best weights, heads, places."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt
from torch.nn import functional

from stamp_deploy.grid import Grid
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.cohort.spot_tiles import spot_tiles
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.heads.abmil import GatedABMIL
from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.calibration import Slides, calibrated_entry
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.metrics import auprc, auroc, patient_interval, softmax
from stamp_deploy.training.heads.train import _class_weights, _loss, train_head
from stamp_deploy.training.loop import fit
from stamp_deploy.training.losses import contrastive_loss
from stamp_deploy.training.model import load_run
from stamp_deploy.training.model.checkpoint import read_tensors
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.split import split_cohort
from stamp_deploy.training.validation import validation_r

TINY = '{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}'


# the contrastive loss


def one_slide_info_nce(image: Any, molecular: Any, target: Any, temperature: float) -> Any:
    """Both directions over one slide, written out row by row."""
    n = len(image)
    profile = target - target.mean(1, keepdim=True)
    profile = profile / profile.norm(dim=1, keepdim=True)
    cosine = (image / image.norm(dim=1, keepdim=True)) @ (molecular / molecular.norm(dim=1, keepdim=True)).T
    alike = torch.softmax(profile @ profile.T / 0.1, dim=1)
    total = torch.zeros(())
    for i in range(n):
        for j in range(n):
            wanted = 0.5 * float(alike[i, j]) + 0.5 * (i == j)
            from_image = torch.log_softmax(cosine[i] / temperature, 0)[j]
            from_profile = torch.log_softmax(cosine[:, j] / temperature, 0)[i]
            total = total - wanted * (from_image + from_profile) / (2 * n)
    return total


def test_the_contrastive_loss_by_hand() -> None:
    """Its temperature, both directions, and negatives of the own slide only."""
    torch.manual_seed(0)
    image, molecular, target = torch.randn(9, 5), torch.randn(9, 5), torch.randn(9, 4)
    slide = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 1])
    for temperature in (0.07, 0.5):
        parts = [
            one_slide_info_nce(image[slide == s], molecular[slide == s], target[slide == s], temperature)
            for s in (0, 1)
        ]
        found = contrastive_loss(image, molecular, target, slide, torch.tensor(math.log(temperature)))
        assert float(found) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)


def test_tiles_of_one_slide_learn_nothing_from_profiles_of_another() -> None:
    torch.manual_seed(0)
    image, molecular, target = torch.randn(8, 5, requires_grad=True), torch.randn(8, 5), torch.randn(8, 4)
    slide = torch.tensor([0] * 4 + [1] * 4)
    gradients = []
    for moved in (molecular, torch.cat([molecular[:4], torch.randn(4, 5)])):
        image.grad = None
        contrastive_loss(image, moved, target, slide, torch.tensor(-2.0)).backward()
        gradients.append(image.grad[:4].clone())
    assert torch.equal(gradients[0], gradients[1]) and gradients[0].abs().sum() > 0


# which patients stop the training


def test_validation_draws_whole_patients_by_their_share(tmp_path: Path) -> None:
    sections = {f"{p}{i}": p for p in "abcdefgh" for i in (1, 2)}
    cohort = load_cohort(make_cohort(tmp_path, sections, spots=8))
    drawn = set()
    for seed in range(6):
        split = split_cohort(cohort, TrainConfig(val_fraction=0.25, seed=seed, held_out=("h1", "h2")))
        patients = {s.patient for s in split.validation}
        assert len(patients) == 2 and len(split.validation) == 4  # a quarter of 7 patients, both their sections
        assert not patients & {s.patient for s in split.train} and len(split.train) == 10
        assert "h" not in patients
        drawn.add(frozenset(patients))
    assert len(drawn) > 1
    assert not split_cohort(cohort, TrainConfig(val_fraction=0.0)).validation
    assert len({s.patient for s in split_cohort(cohort, TrainConfig(val_fraction=0.01)).validation}) == 1


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
    weights = _class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    slides = slides_of(np.array([0, 0, 0, 1]))
    raw = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    rows = np.arange(4)
    each = functional.cross_entropy(raw, torch.tensor([0, 0, 0, 1]), reduction="none")
    want = float((each * weights[[0, 0, 0, 1]]).sum() / weights[[0, 0, 0, 1]].sum())
    assert float(_loss(raw, slides, rows, "binary", weights)) == pytest.approx(want)
    assert float(_loss(raw, slides, rows, "binary", None)) == pytest.approx(float(each.mean()))


def slides_of(label: np.ndarray, patients: list[str] | None = None) -> Slides:
    n = len(label)
    bags = [torch.zeros(1, 2) for _ in range(n)]
    names = patients or [f"p{i}" for i in range(n)]
    return Slides(bags, label, np.zeros(n), np.zeros(n, bool), names, np.zeros(n, np.int64), np.zeros(0))


def test_the_average_precision_is_that_of_the_positive_class() -> None:
    label = np.array([0, 1, 0, 0, 1, 0])
    positive = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.1])
    p = np.stack([1 - positive, positive], axis=1)
    # positives stand second and fourth: precision 1/2 and 2/4
    assert auprc(label, p) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert auroc(label, p) == pytest.approx(5 / 8)  # of 8 pairs, 5 in order


def test_the_interval_draws_patients_not_slides() -> None:
    """Two patients of 30 equal slides each: means of a draw are 0, 1/2 or 1; drawing slides would stay near 1/2."""
    value = np.repeat([0.0, 1.0], 30)
    patients = ["a"] * 30 + ["b"] * 30
    seen = set()
    interval = patient_interval(patients, lambda rows: seen.add(v := float(value[rows].mean())) or v)
    assert seen == {0.0, 0.5, 1.0} and interval == (0.0, 1.0)


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


def test_probabilities_thresholds_and_bands_are_of_the_calibrated_head() -> None:
    """Logits three times too sure: the temperature says so, and what is decided is decided after it."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (600, 2))
    label = np.array([rng.choice(2, p=p) for p in softmax(true)])
    raw = 3 * true
    slides = slides_of(label, [f"p{i // 2}" for i in range(600)])
    bag = Bag("x", Path("x"))
    table = LabelTable(tuple(LabelledSlide(bag, p, int(y)) for p, y in zip(slides.patients, label, strict=True)),
                       "binary", ("no", "yes"), 0, 0)  # fmt: skip
    entry = calibrated_entry(table, slides, raw, HeadConfig(draws=20, max_error=0.15))
    assert entry["temperature"] == pytest.approx(3, rel=0.15)
    calibration = entry["details"]["calibration"]
    assert calibration["ece_after"] < 0.05 < calibration["ece_before"]
    p = softmax(raw, entry["temperature"])[:, 1]
    low, high = entry["abstain"]
    called = (p < low) | (p > high)
    wrong = (p >= entry["thresholds"][0]) != (label == 1)
    assert wrong[called].mean() == pytest.approx(entry["details"]["abstention"]["error"])
    assert wrong[called].mean() <= 0.15 < wrong.mean()


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
    original = train._fit

    def watch(slides: Slides, learn: np.ndarray, stop: np.ndarray, *rest: Any) -> Any:
        seen.append(({slides.patients[i] for i in learn}, {slides.patients[i] for i in stop}))
        return original(slides, learn, stop, *rest)

    monkeypatch.setattr(train, "_fit", watch)
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
