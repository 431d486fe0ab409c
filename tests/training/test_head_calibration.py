"""What heads.json says of a head's held-out predictions, by hand: each slide judged by the rule of its own fold."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from support.head_slides import slides_of, table_of

from stamp_deploy.training.heads.calibration import Rule, calibrated_entry, fit_rule
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.metrics import concordance, patient_interval

CONFIG = HeadConfig(name="msi", folds=2, draws=10)


def logits(p: list[float]) -> np.ndarray:
    """Logits [N, 2] of these probabilities of the second class."""
    values = np.array(p)
    return np.stack([np.zeros(len(values)), np.log(values / (1 - values))], axis=1)


def test_every_slide_is_judged_by_the_rule_of_its_fold() -> None:
    """Fold A: cut .5, no band. Fold B: its logits are twice too large, cut .3, no call from .25 to .45."""
    p = np.array([0.9, 0.5, 0.2, 0.6, 0.8, 0.45, 0.3, 0.2, 0.25, 0.1])
    label = np.array([1, 0, 0, 1, 1, 1, 0, 0, 1, 1])
    raw = logits(p.tolist())
    a, b = np.arange(4), np.arange(4, 10)
    raw[b] *= 2
    judged = [(a, Rule(1.0, 0.5, None)), (b, Rule(2.0, 0.3, [0.25, 0.45]))]
    slides = slides_of(label)
    details = calibrated_entry(table_of(slides, "binary", ("no", "yes")), slides, raw, CONFIG, judged=judged)["details"]
    # called positive: .9 .5 .6 of A, .8 .45 .3 of B; wrong: .5 (0), .3 (0), .25 (1), .1 (1)
    assert details["error"] == pytest.approx(4 / 10)
    assert details["sensitivity"] == pytest.approx(4 / 6)
    assert details["specificity"] == pytest.approx(2 / 4)
    # no call: .45, .3, .25, both limits included; of the other seven .5 and .1 are wrong
    assert details["abstention"]["share"] == pytest.approx(3 / 10)
    assert details["abstention"]["error"] == pytest.approx(2 / 7)
    assert (details["abstention"]["met"], details["abstention"]["aim"]) == (False, 0.1)
    pairs = [(x > y) + 0.5 * (x == y) for x in p[label == 1] for y in p[label == 0]]
    assert details["auroc"] == pytest.approx(np.mean(pairs))
    own = np.where(label == 1, p, 1 - p)
    assert details["calibration"]["nll_after"] == pytest.approx(-np.log(own).mean())
    odds = (p / (1 - p)) ** np.where(np.arange(10) < 4, 1, 2)
    before = np.where(label == 1, odds, 1) / (1 + odds)
    assert details["calibration"]["nll_before"] == pytest.approx(-np.log(before).mean())
    top, hit = np.maximum(p, 1 - p), (p > 0.5) == (label == 1)
    place = np.minimum((np.round(top, 9) * 10).astype(int), 9)
    error = sum(
        (place == k).sum() / 10 * abs(top[place == k].mean() - hit[place == k].mean()) for k in np.unique(place)
    )
    assert details["calibration"]["ece_after"] == pytest.approx(error)


def test_without_a_rule_of_its_fold_a_slide_is_judged_by_the_one_that_is_shipped() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(40) % 2
    raw = rng.normal(size=(40, 2)) + 1.2 * np.eye(2)[label]
    slides = slides_of(label)
    table = table_of(slides, "binary", ("no", "yes"))
    rule = fit_rule(raw, label, CONFIG)
    entry = calibrated_entry(table, slides, raw, CONFIG)
    assert (entry["thresholds"], entry["temperature"], entry["abstain"]) == ([rule.cut], rule.temperature, rule.band)
    given = calibrated_entry(table, slides, raw, CONFIG, judged=[(np.arange(40), rule)])
    assert given == entry


def test_a_call_at_the_cut_is_positive_and_both_limits_of_a_band_are_silent() -> None:
    p, wrong, silent = Rule(1.0, 0.5, [0.5, 0.75]).judge(logits([0.5, 0.75, 0.8, 0.4]), np.array([1, 1, 0, 0]))
    assert p[:, 1] == pytest.approx([0.5, 0.75, 0.8, 0.4])
    assert (wrong.tolist(), silent.tolist()) == ([False, False, True, False], [True, True, False, False])
    several = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.35, 0.25]]))
    p, wrong, silent = Rule(1.0, None, [0.0, 0.45]).judge(several, np.array([0, 1, 1]))
    assert (wrong.tolist(), silent.tolist()) == ([False, True, True], [False, False, True])


def test_survival_compares_slides_that_one_model_predicted() -> None:
    """Fold 1's model has risks above all of fold 0's: between the folds that says nothing."""
    rng = np.random.default_rng(3)
    time, event = rng.permutation(np.arange(1.0, 41.0)), rng.random(40) < 0.7
    folds = [np.arange(0, 40, 2), np.arange(1, 40, 2)]
    shift = np.where(np.arange(40) % 2, 4.0, 0.0)
    raw = -time[:, None] / 15 + rng.normal(0, 1, (40, 1)) + shift[:, None] + np.zeros((40, 3))
    slides = slides_of(np.zeros(40, np.int64))
    slides.time[:], slides.event[:] = time, event
    table = table_of(slides, "survival", ())
    found = calibrated_entry(table, slides, raw, CONFIG, folds=folds)["details"]
    fold = np.arange(40) % 2

    def within(rows: np.ndarray) -> float:
        right = pairs = 0.0
        for i in rows:
            for j in rows:
                if fold[i] == fold[j] and event[i] and time[i] < time[j]:
                    pairs += 1
                    right += raw[i, 0] > raw[j, 0]
        return right / pairs

    assert found["c_index"] == pytest.approx(within(np.arange(40)))
    assert found["c_index"] > concordance(time, event, raw[:, 0]) + 0.05
    expected = patient_interval(slides.patients, within, draws=CONFIG.draws, seed=CONFIG.seed)
    assert found["c_index_interval"] == pytest.approx(expected)
