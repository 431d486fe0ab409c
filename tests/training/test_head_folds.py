"""Who learns, who stops and who is predicted in each fold of a head, seen from outside: nothing is fitted here.

`fit_head` and `predict` are replaced by ones that note their rows and give each slide its own known output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from stamp_deploy.errors import DataError
from stamp_deploy.training.heads import nested, train
from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.folds import EVENTS_TO_STOP, fold_numbers, patient_folds, stopping_rows
from stamp_deploy.training.heads.slides import load_slides
from stamp_deploy.training.heads.train import train_head

CONFIG = HeadConfig(name="msi", folds=3, inner_folds=2, epochs=9, bins=3, draws=20)


class NumberBag(Bag):
    """One tile of two numbers, in memory."""

    encoder = "known"

    def embeddings(self) -> np.ndarray:
        return np.full((1, 2), float(self.name), np.float32)


def table_of(count: int, task: str = "binary", *, slides_each: int = 2, events: Any = None) -> LabelTable:
    """Slides 0, 1, 2 ...; two of a patient; labels and events by patient."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        patient = i // slides_each
        event = bool(patient % 3 == 0) if events is None else bool(events[i])
        rows.append(
            LabelledSlide(
                NumberBag(str(i), Path(f"{i}.h5")), f"p{patient}", patient % 2, float(rng.exponential(5)), event
            )
        )
    classes = ("no", "yes") if task == "binary" else ()
    return LabelTable(tuple(rows), task, classes, 0, 0)  # type: ignore[arg-type]


class Fitted(torch.nn.Module):
    """What a fit gives: it knows which fit it was."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.baseline = torch.nn.Parameter(torch.tensor([1.0, 2.0, 4.0]) * (number + 1))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows of each fit and of what it then predicts."""
    seen: list[dict[str, Any]] = []

    def fit_head(slides: Any, learn: Any, stop: Any, problem: Any, config: HeadConfig, number: int) -> Any:
        seen.append({"learn": learn, "stop": stop, "number": number, "epochs": config.epochs, "test": None})
        return Fitted(number), {0: 3, 1: 8, 2: 4}.get(number, 1)

    def predict(head: Fitted, slides: Any, rows: Any) -> Any:
        (own,) = [fit for fit in seen if fit["number"] == head.number]
        own["test"] = rows
        width = 3 if slides.edges.size else 2
        raw = np.zeros((len(rows), width))
        raw[:, 1] = rows - 17.5 + 40 * (slides.label[rows] == 1)
        return raw + (head.baseline.detach().numpy() if slides.edges.size else 0)

    for module in (train, nested):
        monkeypatch.setattr(module, "fit_head", fit_head)
        monkeypatch.setattr(module, "predict", predict)
    return seen


def patients(table: LabelTable, rows: Any) -> set[str]:
    return {table.slides[i].patient for i in rows}


def check_parts(table: LabelTable, fit: dict[str, Any], allowed: set[int]) -> None:
    """Learning, stopping and predicted slides are all there are, and share no patient."""
    parts = [fit[name] for name in ("learn", "stop", "test")]
    assert sorted(np.concatenate(parts).tolist()) == sorted(allowed)
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not patients(table, one) & patients(table, other)
    assert len(fit["stop"]) > 0


def test_no_patient_teaches_stops_and_is_predicted(fits: list[dict[str, Any]], tmp_path: Path) -> None:
    table = table_of(60)
    entry = train_head(table, tmp_path, CONFIG)
    outer = [fit for fit in fits if fit["number"] < 3]
    final = fits[3]
    assert [fit["number"] for fit in outer] == [0, 1, 2] and final["number"] == CONFIG.folds
    every = set(range(60))
    for fit in outer:
        check_parts(table, fit, every)
    assert sorted(np.concatenate([fit["test"] for fit in outer]).tolist()) == sorted(every)
    # the head that is kept learns from all, for the median of 3, 8 and 4 epochs
    assert (final["learn"].tolist(), len(final["stop"]), final["epochs"]) == (list(range(60)), 0, 4)
    assert entry["details"]["best_epochs"] == [3, 8, 4]
    inner = fits[4:]
    assert len({fit["number"] for fit in inner}) == len(inner) == 6 and min(fit["number"] for fit in inner) >= 500
    for place, fit in enumerate(inner):
        check_parts(table, fit, every - set(outer[place // 2]["test"].tolist()))
    for fold in range(3):
        tested = np.concatenate([fit["test"] for fit in inner[2 * fold : 2 * fold + 2]])
        assert sorted(tested.tolist()) == sorted(every - set(outer[fold]["test"].tolist()))


def test_held_out_predictions_stand_at_their_slides_with_label_and_fold(
    fits: list[dict[str, Any]], tmp_path: Path
) -> None:
    table = table_of(60)
    train_head(table, tmp_path, CONFIG)
    tensors, _ = train.read_tensors(tmp_path / "heads" / "msi.heldout.safetensors")
    label = np.array([s.label for s in table.slides])
    np.testing.assert_allclose(tensors["raw"][:, 1], np.arange(60) - 17.5 + 40 * label)
    assert tensors["label"].tolist() == label.tolist()
    for number, fit in enumerate(fits[:3]):
        assert set(tensors["fold"][fit["test"]].tolist()) == {number}


def test_risks_of_folds_are_brought_to_one_baseline(fits: list[dict[str, Any]], tmp_path: Path) -> None:
    """Each fold's model has a baseline of its own: it is taken off, and that of the kept head put in its place."""
    table = table_of(120, "survival", events=[True] * 120)
    entry = train_head(table, tmp_path, CONFIG)
    tensors, _ = train.read_tensors(tmp_path / "heads" / "msi.heldout.safetensors")
    raw = np.zeros((120, 3))
    raw[:, 1] = np.arange(120) - 17.5 + 40 * np.array([s.label for s in table.slides])
    kept = Fitted(CONFIG.folds).baseline.detach().numpy()
    np.testing.assert_allclose(tensors["raw"].numpy(), raw + kept)
    risk = np.log(np.maximum(np.logaddexp(0, raw + kept).sum(1), 1e-6))
    assert entry["thresholds"] == [pytest.approx(np.median(risk))]
    assert tensors["time"].tolist() == [s.time for s in table.slides] and tensors["event"].sum() == 120


def test_a_folds_rule_is_fitted_on_inner_predictions_with_their_own_labels(
    fits: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, seen = table_of(60), []
    label = np.array([s.label for s in table.slides])
    fit_rule = nested.fit_rule

    def noted(raw: Any, own: Any, config: HeadConfig) -> Any:
        seen.append((raw, own))
        return fit_rule(raw, own, config)

    monkeypatch.setattr(nested, "fit_rule", noted)
    for inner in (2, 0):
        train_head(table, tmp_path / str(inner), CONFIG.with_(inner_folds=inner))
        tests = [fit["test"] for fit in fits if fit["number"] < 3]
        for test, (raw, own) in zip(tests, seen, strict=True):
            rest = np.setdiff1d(np.arange(60), test)
            assert own.tolist() == label[rest].tolist()
            np.testing.assert_allclose(raw[:, 1], rest - 17.5 + 40 * label[rest])
        seen.clear()
        fits.clear()


def test_folds_hold_classes_or_events_evenly_and_patients_whole() -> None:
    table = table_of(60)
    folds = patient_folds(table.slides, "survival", 5, 0)
    events = [sum(table.slides[i].event for i in rows) for rows in folds]
    assert sum(events) == 20 and events == [4] * 5
    labels = [sum(table.slides[i].label for i in rows) for rows in patient_folds(table.slides, "binary", 5, 0)]
    assert labels == [6] * 5
    assert all(len(rows) % 2 == 0 for rows in folds), "both slides of a patient"
    other = patient_folds(table.slides, "survival", 5, 1)
    assert any(set(a) != set(b) for a, b in zip(folds, other, strict=True))
    found = fold_numbers(folds, 60)
    assert all(set(found[rows].tolist()) == {number} for number, rows in enumerate(folds))


def test_too_few_patients_or_a_class_of_one_are_refused() -> None:
    table = table_of(60)
    with pytest.raises(DataError, match="4 patients are too few for 5 folds"):
        patient_folds(table.slides[:8], "binary", 5, 0)
    assert len(patient_folds(table.slides[:10], "binary", 5, 0)) == 5
    one = tuple(replace(s, label=int(s.patient == "p3")) for s in table.slides)
    with pytest.raises(DataError, match="occurs in one patient only"):
        patient_folds(one, "binary", 5, 0)


@pytest.mark.parametrize(("stopping", "stops"), [(EVENTS_TO_STOP - 1, False), (EVENTS_TO_STOP, True)])
def test_survival_stops_on_twenty_events_and_not_on_fewer(
    stopping: int, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the table, and not places among those that were given."""
    assert EVENTS_TO_STOP == 20
    rows = np.arange(30, 90)
    table = table_of(100, "survival", events=[False] * 40 + [True] * stopping + [False] * (60 - stopping))
    part = np.arange(10, 40)  # places of rows 40 to 69
    monkeypatch.setattr(
        "stamp_deploy.training.heads.folds.patient_folds", lambda *rest: [part, np.arange(10), np.arange(40, 60)]
    )
    found = stopping_rows(table, rows, CONFIG, 0)
    assert found.tolist() == (list(range(40, 70)) if stops else [])


def test_times_fall_into_bins_by_quantiles_of_the_events() -> None:
    """Nine events at 1 to 9: edges at 1/3 and 2/3 of them; a time at an edge lies in the bin above it."""
    times = [*range(1, 10), 100.0, 200.0, 300.0, 11 / 3]
    events = [True] * 9 + [False] * 4
    table = table_of(13, "survival")
    rows = tuple(replace(s, time=float(t), event=e) for s, t, e in zip(table.slides, times, events, strict=True))
    slides = load_slides(replace(table, slides=rows), CONFIG)
    assert slides.edges == pytest.approx([1 + 8 / 3, 1 + 16 / 3])
    assert slides.bin_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1]
    few = tuple(replace(s, event=i < 2) for i, s in enumerate(rows))
    with pytest.raises(DataError, match="2 events are too few for 3 time bins"):
        load_slides(replace(table, slides=few), CONFIG)
    enough = tuple(replace(s, event=i < 3) for i, s in enumerate(rows))
    assert load_slides(replace(table, slides=enough), CONFIG).edges.tolist() == pytest.approx([1 + 2 / 3, 1 + 4 / 3])
