"""Measures and calibration of slide-level heads, against values by hand and against other ways to compute them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from support.head_slides import slides_of, table_of

from stamp_deploy.training.heads.bag_model import risk_score
from stamp_deploy.training.heads.calibration import calibrated_entry
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.metrics import (
    abstention_band,
    auprc,
    auroc,
    binary_threshold,
    calibration_error,
    concordance,
    fit_temperature,
    negative_log_likelihood,
    patient_interval,
    softmax,
)


def test_concordance_by_hand() -> None:
    time, event = np.array([1.0, 2.0, 3.0, 2.0]), np.array([True, True, False, False])
    # known pairs: 0 before 1, 2, 3; 1 before 2; 1 before 3, which is censored at the same time
    assert concordance(time, event, np.array([4.0, 3.0, 1.0, 2.0])) == 1.0
    assert concordance(time, event, np.array([1.0, 2.0, 4.0, 3.0])) == 0.0
    assert concordance(time, event, np.zeros(4)) == 0.5
    assert concordance(time, event, np.array([4.0, 1.0, 2.0, 0.0])) == pytest.approx(4 / 5)
    assert np.isnan(concordance(time, np.zeros(4, bool), time))


def test_concordance_counts_pairs_as_a_loop_does() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 8, 40).astype(float), rng.random(40) < 0.6
    risk = np.round(rng.normal(size=40), 1)
    wins = pairs = 0.0
    for i, j in product(range(40), range(40)):
        if i != j and event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs += 1
            wins += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    assert concordance(time, event, risk) == pytest.approx(wins / pairs)


def test_concordance_of_groups_counts_pairs_within_them_alone() -> None:
    rng = np.random.default_rng(1)
    time, event = rng.integers(1, 20, 40).astype(float), rng.random(40) < 0.6
    risk, group = rng.normal(size=40), rng.integers(0, 3, 40)
    wins = pairs = 0
    for i, j in product(range(40), range(40)):
        if group[i] == group[j] and event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs += 1
            wins += risk[i] > risk[j]
    assert concordance(time, event, risk, group) == pytest.approx(wins / pairs)
    assert wins / pairs != pytest.approx(concordance(time, event, risk), abs=1e-3)
    assert np.isnan(concordance(time, event, risk, np.arange(40)))


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


def test_areas_of_several_classes_are_means_over_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    label = np.array([0, 1, 2, 0, 1, 2, 2, 0])
    p = softmax(rng.normal(size=(8, 3)))
    pairs = [
        np.mean([(p[i, c] > p[j, c]) + 0.5 * (p[i, c] == p[j, c])
                 for i in np.flatnonzero(label == c) for j in np.flatnonzero(label != c)])
        for c in range(3)
    ]  # fmt: skip
    assert auroc(label, p) == pytest.approx(np.mean(pairs))
    precisions = []
    for c in range(3):
        ranked = (label == c)[np.argsort(-p[:, c])]
        precisions.append(np.mean([ranked[: i + 1].mean() for i in np.flatnonzero(ranked)]))
    assert auprc(label, p) == pytest.approx(np.mean(precisions))


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_without_one_of_the_classes_there_is_no_area(label: list[int]) -> None:
    p = np.array([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])
    assert np.isnan(auroc(np.array(label), p)) and np.isnan(auprc(np.array(label), p))
    three = np.hstack([p * 0.9, np.full((3, 1), 0.1)])  # the third class never occurs
    assert np.isnan(auroc(np.array([0, 1, 0]), three))


def test_an_interval_is_that_of_all_draws_of_patients() -> None:
    """Four patients of unequal size: 256 draws are equally likely, so the percentiles are known."""
    patients = ["d", "a", "b", "c", "a", "a", "d", "b", "c", "c", "c", "c"]
    value = np.array([0.0, 1.0, 5.0, 2.0, 2.0, 9.0, 4.0, 7.0, 3.0, 3.5, 1.5, 8.0])
    rows = [np.flatnonzero(np.array(patients) == p) for p in "abcd"]
    every = [value[np.concatenate([rows[i] for i in pick])].mean() for pick in product(range(4), repeat=4)]
    found = patient_interval(patients, lambda r: float(value[r].mean()), draws=20_000, seed=1)
    assert found == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=0.12)
    assert found == patient_interval(patients, lambda r: float(value[r].mean()), draws=20_000, seed=1)


def test_draws_without_a_value_are_left_out_until_they_are_half() -> None:
    seen: list[int] = []

    def every_other(rows: Any) -> float:
        seen.append(1)
        return float(len(seen)) if len(seen) % 2 else float("nan")

    assert patient_interval(["a", "b"], every_other, draws=100) == pytest.approx((1 + 98 * 0.025, 1 + 98 * 0.975))
    assert len(seen) == 100
    seen.clear()
    assert patient_interval(["a", "b"], lambda r: every_other(r) if len(seen) % 3 else every_other(r) * np.nan) is None


def test_softmax_divides_by_the_temperature_and_does_not_overflow() -> None:
    p = softmax(np.array([[np.log(2.0), np.log(6.0)]]))
    assert p.tolist() == [pytest.approx([0.25, 0.75])]
    assert softmax(np.array([[0.0, 2 * np.log(3.0)]]), 2.0).tolist() == [pytest.approx([0.25, 0.75])]
    assert softmax(np.array([[1e4, 0.0, -1e4]])).tolist() == [[1.0, 0.0, 0.0]]


def test_the_likelihood_is_that_of_the_true_classes_and_stays_finite() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    assert negative_log_likelihood(logits, np.array([1, 2])) == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2)
    assert negative_log_likelihood(np.array([[0.0, 1e4]]), np.array([0])) == pytest.approx(-np.log(1e-12))
    tempered = negative_log_likelihood(np.array([[0.0, 2 * np.log(3.0)]]), np.array([1]), 2.0)
    assert tempered == pytest.approx(-np.log(0.75))


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.92, 0.08], [0.65, 0.35], [0.0, 1.0]])
    label = np.array([0, 1, 0, 1])
    # bins .9 to 1 (with 1.0 itself): confidence (.95 + .92 + 1) / 3, right 2 of 3; .6 to .7: .65, right
    expected = 3 / 4 * abs((0.95 + 0.92 + 1.0) / 3 - 2 / 3) + 1 / 4 * abs(0.65 - 1.0)
    assert calibration_error(p, label) == pytest.approx(expected)
    assert calibration_error(p, label, bins=1) == pytest.approx(abs((0.95 + 0.92 + 1.0 + 0.65) / 4 - 3 / 4))


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 3))
    label = np.array([rng.choice(3, p=p) for p in softmax(true)])
    found = fit_temperature(3 * true, label)
    assert found == pytest.approx(3, rel=0.1)
    assert negative_log_likelihood(3 * true, label, found) < negative_log_likelihood(3 * true, label)


def test_abstention_band_is_the_narrowest_that_meets_the_aim() -> None:
    value = np.array([0.05, 0.1, 0.45, 0.48, 0.52, 0.9])
    wrong = np.array([False, False, False, True, True, False])
    band = abstention_band(value, wrong, 0.5, max_error=0.0, max_share=0.5)
    assert band["band"] == [0.48, 0.52] and band["met"] and band["error"] == 0 and band["share"] == pytest.approx(1 / 3)
    assert abstention_band(value, ~wrong, 0.5, max_error=0.0, max_share=0.5)["met"] is False
    assert abstention_band(value, np.zeros(6, bool), 0.5, max_error=0.1, max_share=0.5)["band"] is None


def test_threshold_and_interval() -> None:
    p, label = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1])
    assert binary_threshold(p, label) == pytest.approx(0.25)
    assert patient_interval(["a", "a"], lambda r: 1.0) is None
    low, high = patient_interval(list("abcdef"), lambda r: float(np.mean(r)), draws=200)  # type: ignore[misc]
    assert low < 2.5 < high


def test_the_temperature_stays_between_a_fifth_and_twenty() -> None:
    logits, label = np.array([[3.0, 0.0], [0.0, 3.0]] * 20), np.array([0, 1] * 20)
    assert fit_temperature(logits, label) == pytest.approx(0.2, rel=1e-3)
    assert fit_temperature(logits, label[::-1]) == pytest.approx(20.0, rel=1e-3)


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    p, label = np.array([0.1, 0.3, 0.45, 0.8]), np.array([0, 1, 0, 1])
    # above .2: 1 + 1/2; above .625: 1/2 + 1
    assert binary_threshold(p, label) == pytest.approx(0.625)
    assert binary_threshold(np.array([0.7, 0.7]), np.array([0, 1])) == 0.5
    assert binary_threshold(np.array([0.2, 0.9]), np.array([1, 0])) == pytest.approx(0.55)


def test_a_band_grows_by_the_nearest_until_the_aim_or_the_share_is_reached() -> None:
    value = np.array([0.5, 0.4, 0.65, 0.2, 0.9])
    wrong = np.array([False, True, False, True, False])
    part = abstention_band(value, wrong, 0.5, max_error=0.25, max_share=0.6)
    assert part == {"band": [0.4, 0.5], "share": 0.4, "error": pytest.approx(1 / 3), "met": False}
    whole = abstention_band(value, wrong, 0.5, max_error=0.25, max_share=0.8)
    assert whole == {"band": [0.2, 0.65], "share": 0.8, "error": 0.0, "met": True}
    exact = abstention_band(value, wrong, 0.5, max_error=0.4, max_share=0.8)
    assert exact == {"band": None, "share": 0.0, "error": pytest.approx(0.4), "met": True}
    everything = abstention_band(value, np.ones(5, bool), 0.5, max_error=0.0, max_share=1.0)
    assert everything == {"band": [0.2, 0.9], "share": 1.0, "error": 0.0, "met": True}


def test_where_no_band_helps_there_is_none() -> None:
    """The wrong calls are the surest ones: what is left after the nearest are taken away is worse."""
    value, wrong = np.array([0.45, 0.48, 0.52, 0.1, 0.9]), np.array([False, False, False, True, True])
    found = abstention_band(value, wrong, 0.5, max_error=0.0, max_share=0.6)
    assert found == {"band": None, "share": 0.0, "error": pytest.approx(0.4), "met": False}


def test_an_interval_is_the_same_each_time_and_its_seed_is_0() -> None:
    patients, value = list("abcdefgh"), np.arange(8.0) ** 2
    seeds = [patient_interval(patients, lambda r: float(value[r].mean()), draws=40, seed=s) for s in (0, 1, 2)]
    assert len(set(seeds)) == 3
    assert patient_interval(patients, lambda r: float(value[r].mean()), draws=40) == seeds[0]
    assert patient_interval(patients, lambda r: float(value[r].mean())) == patient_interval(
        patients, lambda r: float(value[r].mean()), draws=1000, seed=0
    )


def test_probabilities_thresholds_and_bands_are_of_the_calibrated_head() -> None:
    """Logits three times too sure: the temperature says so, and what is decided is decided after it."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (600, 2))
    label = np.array([rng.choice(2, p=p) for p in softmax(true)])
    raw = 3 * true
    slides = slides_of(label, [f"p{i // 2}" for i in range(600)])
    table = table_of(slides, "binary", ("no", "yes"))
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


def test_the_entry_tells_what_was_measured() -> None:
    rng = np.random.default_rng(2)
    label = np.array([0, 1] * 30)
    raw = rng.normal(size=(60, 2)) + np.eye(2)[label]
    slides = slides_of(label, [f"p{i // 2}" for i in range(60)])
    config = HeadConfig(name="msi", folds=4, draws=50, max_error=0.05, max_abstain=0.1)
    entry = calibrated_entry(table_of(slides, "binary", ("no", "yes")), slides, raw, config)
    details, p = entry["details"], softmax(raw, entry["temperature"])
    assert (entry["name"], entry["kind"], entry["classes"]) == ("msi", "binary", ["no", "yes"])
    assert (details["slides"], details["patients"], details["folds"]) == (60, 30, 4)
    assert details["class_counts"] == {name: {"slides": 30, "patients": 30} for name in ("no", "yes")}
    for name, measure in (("auroc", auroc), ("auprc", auprc)):
        assert details[name] == pytest.approx(measure(label, p))
        expected = patient_interval(slides.patients, lambda r, m=measure: m(label[r], p[r]), draws=50, seed=0)
        assert details[f"{name}_interval"] == pytest.approx(expected)
    assert entry["thresholds"] == [binary_threshold(p[:, 1], label)]
    wrong = (p[:, 1] >= entry["thresholds"][0]) != (label == 1)
    assert details["error"] == pytest.approx(wrong.mean())
    assert details["abstention"]["share"] <= 0.1 and details["abstention"]["aim"] == 0.05
    calibration = details["calibration"]
    assert calibration["nll_before"] == pytest.approx(negative_log_likelihood(raw, label))
    assert calibration["nll_after"] <= calibration["nll_before"]
    assert calibration["ece_before"] == pytest.approx(calibration_error(softmax(raw), label))
    assert calibration["ece_after"] == pytest.approx(calibration_error(p, label))


def test_a_head_of_several_classes_abstains_where_it_is_least_sure() -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 90)
    raw = 1.5 * np.eye(3)[label] + rng.normal(size=(90, 3))
    slides = slides_of(label)
    entry = calibrated_entry(table_of(slides, "multiclass", "abc"), slides, raw, HeadConfig(draws=10))
    assert entry["thresholds"] == [] and entry["classes"] == ["a", "b", "c"]
    p = softmax(raw, entry["temperature"])
    top, wrong = p.max(1), p.argmax(1) != label
    low, high = entry["abstain"]
    assert low == 0.0 and 1 / 3 < high < 1
    kept = top > high
    assert entry["details"]["error"] == pytest.approx(wrong.mean())
    assert entry["details"]["abstention"]["share"] == pytest.approx(1 - kept.mean())
    assert wrong[kept].mean() == pytest.approx(entry["details"]["abstention"]["error"])
    assert wrong[kept].mean() < wrong[~kept].mean()


def test_a_survival_head_cuts_at_the_median_risk() -> None:
    rng = np.random.default_rng(4)
    raw = rng.normal(size=(21, 4))
    slides = slides_of(np.zeros(21, np.int64), [f"p{i % 7}" for i in range(21)])
    slides.time[:], slides.event[:] = rng.exponential(5, 21), rng.random(21) < 0.7
    slides.edges = np.array([1.0, 2.0, 4.0])
    entry = calibrated_entry(table_of(slides, "survival", ()), slides, raw, HeadConfig(draws=40))
    risk = risk_score(torch.from_numpy(raw)).numpy()
    details = entry["details"]
    assert entry["classes"] == ["low", "high"] and entry["temperature"] == 1.0 and entry["abstain"] is None
    assert entry["thresholds"] == [pytest.approx(np.median(risk))]
    assert details["c_index"] == pytest.approx(concordance(slides.time, slides.event, risk))
    low, high = details["c_index_interval"]
    assert low < details["c_index"] < high
    expected = patient_interval(
        slides.patients, lambda r: concordance(slides.time[r], slides.event[r], risk[r]), draws=40, seed=0
    )
    assert (low, high) == pytest.approx(expected)
    assert details["events"] == int(slides.event.sum()) and details["bin_edges"] == [1.0, 2.0, 4.0]
