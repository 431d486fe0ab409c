"""Figures of evaluate-head by hand and by other libraries: shares, net benefit, calibration, survival, a whole report.

The heads here are the identity: the one tile of a slide holds its logits, so that every probability is known.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from scipy.stats import norm

from stamp_deploy.errors import DataError
from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.evaluation.delong import area, area_difference
from stamp_deploy.training.heads.evaluation.evaluate import Options, TrainedHead, evaluate_head
from stamp_deploy.training.heads.evaluation.operating import counts_at, decision_curve, locked_threshold, share
from stamp_deploy.training.heads.evaluation.reliability import reliability
from stamp_deploy.training.heads.evaluation.survival import Followed, cox, over_time, risk_groups

# operating points


@pytest.mark.parametrize(("part", "whole"), [(0, 7), (3, 11), (11, 11), (50, 400)])
def test_wilsons_interval_is_that_of_statsmodels(part: int, whole: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    low, high = proportion.proportion_confint(part, whole, method="wilson")
    found = share(part, whole)
    assert found is not None and found["value"] == part / whole
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-6)
    assert share(0, 0) is None


def test_each_share_has_its_own_numerator_and_denominator() -> None:
    """5 true positives, 3 false positives, 2 missed, 10 right negatives: no two shares are alike."""
    p = np.array([0.9] * 5 + [0.7] * 3 + [0.2] * 2 + [0.1] * 10)
    truth = np.array([True] * 5 + [False] * 3 + [True] * 2 + [False] * 10)
    found = counts_at(p, truth, 0.7)  # a slide at the threshold is called positive
    names = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert [found[name] for name in names] == [5, 3, 2, 10]
    expected = {
        "sensitivity": (5, 7), "specificity": (10, 13), "ppv": (5, 8), "npv": (10, 12), "ruled_out": (12, 20),
    }  # fmt: skip
    for name, (part, whole) in expected.items():
        assert found[name] == share(part, whole), name
    assert counts_at(p, truth, 0.05)["npv"] is None and counts_at(p, truth, 0.95)["ppv"] is None


def test_a_locked_threshold_may_miss_a_whole_case_and_no_part_of_one() -> None:
    """Ten cases: sensitivity 0.9 may miss one, 0.95 none, 0.8 two; the cut is a case that is called."""
    p = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 0.99, 0.01])
    positive = np.array([True] * 10 + [False] * 2)
    cuts = {wanted: locked_threshold(p, positive, wanted) for wanted in (0.8, 0.9, 0.95, 1.0)}
    assert cuts == {0.8: 0.25, 0.9: 0.15, 0.95: 0.05, 1.0: 0.05}


def test_net_benefit_is_that_of_its_definition_at_every_threshold() -> None:
    """Vickers & Elkin: a false positive costs t / (1 - t) true ones."""
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.3
    p = np.round(np.clip(0.2 + 0.3 * positive + rng.normal(0, 0.2, 60), 0, 1), 2)
    curve = decision_curve(p, positive)
    assert curve["threshold"] == pytest.approx([k / 100 for k in range(1, 100)])
    for k, t in enumerate(curve["threshold"]):
        tp = sum(1 for a, y in zip(p, positive, strict=True) if a >= t and y)
        fp = sum(1 for a, y in zip(p, positive, strict=True) if a >= t and not y)
        assert curve["head"][k] == pytest.approx(tp / 60 - fp / 60 * t / (1 - t))
        everybody = positive.mean() - (1 - positive.mean()) * t / (1 - t)
        assert curve["all"][k] == pytest.approx(everybody)


# calibration


def test_calibration_is_that_of_logistic_regressions_with_and_without_a_slope() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    logit = rng.normal(-0.5, 1.2, 400)
    positive = rng.random(400) < 1 / (1 + np.exp(-(-0.8 + 0.7 * logit)))
    found = reliability(1 / (1 + np.exp(-logit)), positive)
    free = sm.Logit(positive.astype(float), sm.add_constant(logit)).fit(disp=0)
    assert (found["intercept"], found["slope"]) == pytest.approx(tuple(free.params), abs=1e-6)
    fixed = sm.GLM(positive.astype(float), np.ones(400), family=sm.families.Binomial(), offset=logit).fit()
    assert found["intercept_at_slope_1"] == pytest.approx(float(fixed.params[0]), abs=1e-6)
    assert found["intercept_at_slope_1"] < 0, "risks are overstated"


def test_brier_scores_and_bins_by_hand() -> None:
    p = np.array([0.05, 0.08, 0.31, 0.33, 0.29, 0.71, 0.75, 1.0])
    y = np.array([0, 1, 0, 0, 1, 1, 1, 1], bool)
    found = reliability(p, y)
    brier = (0.05**2 + 0.92**2 + 0.31**2 + 0.33**2 + 0.71**2 + 0.29**2 + 0.25**2) / 8
    assert found["brier"] == pytest.approx(brier)
    assert found["brier_scaled"] == pytest.approx(1 - brier / (5 / 8 * 3 / 8))
    assert [b["slides"] for b in found["bins"]] == [2, 1, 2, 2, 1]
    assert [b["predicted"] for b in found["bins"]] == pytest.approx([0.065, 0.29, 0.32, 0.73, 1.0])
    assert [b["observed"] for b in found["bins"]] == pytest.approx([0.5, 1.0, 0.0, 1.0, 1.0])
    error = 2 * abs(0.065 - 0.5) + 0.71 + 2 * 0.32 + 2 * 0.27 + 0.0
    assert found["ece"] == pytest.approx(error / 8)


# areas


def test_an_areas_interval_and_p_follow_from_its_variance() -> None:
    """One score by DeLong's structural components, added up here; the interval is cut at 1."""
    positive = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.8, 0.75, 0.3, 0.7, 0.2, 0.2, 0.1, 0.05])
    psi = np.array([[(a > b) + 0.5 * (a == b) for b in score[~positive]] for a in score[positive]])
    auc = psi.mean()
    sd = np.sqrt(psi.mean(1).var(ddof=1) / 4 + psi.mean(0).var(ddof=1) / 5)
    found = area(positive, score)
    assert found.value == pytest.approx(auc) and found.low == pytest.approx(auc - norm.ppf(0.975) * sd)
    assert auc + norm.ppf(0.975) * sd > 1 and found.high == 1.0
    assert found.p == pytest.approx(2 * norm.sf(abs(auc - 0.5) / sd))
    turned = area(positive, -score)
    assert turned.value == pytest.approx(1 - auc) and turned.low == 0.0 and turned.p == pytest.approx(found.p)
    both = area_difference(positive, score, -score)
    assert both.value == pytest.approx(2 * auc - 1) and both.p == pytest.approx(2 * norm.sf((2 * auc - 1) / (2 * sd)))


# survival


def test_risk_groups_are_kaplan_meiers_and_the_cut_belongs_to_the_high_one() -> None:
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    risk = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.8, 0.9, 1.0])
    time = np.array([5.0, 6.0, 6.0, 9.0, 1.0, 2.0, 2.0, 4.0, 7.0])
    event = np.array([True, True, False, False, True, True, True, False, True])
    found = risk_groups(Followed(risk, time, event), 0.5)
    assert found is not None and found["cut"] == 0.5
    low, high = found["groups"]["low"], found["groups"]["high"]
    assert (low["slides"], low["events"], high["slides"], high["events"]) == (4, 2, 5, 4)
    # low: 4 at risk at 5, 3 at 6 (one of them is censored there); high: 5 at 1, 4 at 2 (two die), 2 at 4, 1 at 7
    assert dict(zip(low["time"], low["survival"], strict=True)) == pytest.approx({0: 1, 5: 3 / 4, 6: 1 / 2, 9: 1 / 2})
    steps = {0: 1, 1: 4 / 5, 2: 2 / 5, 4: 2 / 5, 7: 0}
    assert dict(zip(high["time"], high["survival"], strict=True)) == pytest.approx(steps)
    assert low["median"] == 6 and high["median"] == 2
    only = risk_groups(Followed(risk, time, event), 0.0)
    assert only is not None and only["logrank_p"] is None and only["groups"]["low"]["slides"] == 0


def test_the_log_rank_test_is_that_of_scikit_survival() -> None:
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    compare = pytest.importorskip("sksurv.compare", reason="needs the extra [survival]")
    new = followed(3, 0.7)
    from sksurv.util import Surv

    found = risk_groups(new, 0.2)
    assert found is not None
    _, p = compare.compare_survival(Surv.from_arrays(new.event, new.time), new.risk >= 0.2)
    assert found["logrank_p"] == pytest.approx(p, rel=1e-6)


def followed(seed: int, effect: float, count: int = 120) -> Followed:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=count)
    time, censored = rng.exponential(np.exp(-effect * risk)), rng.exponential(2.0, count)
    return Followed(risk, np.minimum(time, censored), time <= censored)


def test_cox_models_are_those_of_statsmodels() -> None:
    """Hazard ratios per standard deviation, Wald intervals, and twice the gain in likelihood against chi squared."""
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    regression = pytest.importorskip("statsmodels.duration.hazard_regression")
    from scipy.stats import chi2

    new = followed(4, 0.5)
    age = 60 + 9 * np.random.default_rng(9).normal(size=120) + 3 * new.risk
    scaled = {"risk": (new.risk - new.risk.mean()) / new.risk.std(), "age": (age - age.mean()) / age.std()}

    def fitted(*names: str) -> Any:
        columns = np.stack([scaled[name] for name in names], axis=1)
        return regression.PHReg(new.time, columns, status=new.event, ties="efron").fit()

    found = cox(new, {"age": age})
    assert found is not None
    both, alone, without = fitted("risk", "age"), fitted("risk"), fitted("age")
    for place, name in enumerate(("risk", "age")):
        row = found["adjusted"][name]
        low, high = np.exp(both.conf_int()[place])
        assert row["hazard_ratio"] == pytest.approx(np.exp(both.params[place]), rel=1e-4)
        assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-4)
        assert row["p"] == pytest.approx(both.pvalues[place], rel=1e-3)
    assert found["alone"]["risk"]["hazard_ratio"] == pytest.approx(np.exp(alone.params[0]), rel=1e-4)
    assert found["added_p"] == pytest.approx(chi2.sf(2 * (both.llf - without.llf), 1), rel=1e-3)
    assert cox(new, {}) == {"alone": found["alone"], "adjusted": None, "added_p": None}


def test_scores_over_time_by_hand_where_nobody_is_censored() -> None:
    """Without censoring the Brier score is a mean of squares, and Uno's C the share of ordered pairs."""
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    pytest.importorskip("sksurv", reason="needs the extra [survival]")
    rng = np.random.default_rng(6)
    risk = rng.normal(size=60)
    training = Followed(risk, rng.exponential(np.exp(-risk)) + 0.05, np.ones(60, bool))
    end = float(training.time.max())
    own = rng.normal(size=25)
    time = np.append(rng.uniform(0.1, 0.8, 23) * end, [end, 2 * end])  # the last two outlive the training side
    new = Followed(own, time, np.ones(25, bool))
    found = over_time(training, new)
    assert found is not None
    inside = time < end
    assert inside.sum() == 23
    first, last = time[inside].min(), time[inside].max()
    assert (found["from"], found["to"]) == pytest.approx((first, last))
    times = np.linspace(first, last, 52)[1:-1]
    flat = np.array([(training.time > t).mean() for t in times])
    alive = time[inside][:, None] > times[None]
    squares = ((alive - flat) ** 2).mean(axis=0)
    expected = np.trapezoid(squares, times) / (times[-1] - times[0])
    assert found["brier_without"] == pytest.approx(expected, rel=1e-6)
    pairs = [(i, j) for i in np.flatnonzero(inside) for j in np.flatnonzero(inside) if time[i] < time[j]]
    assert found["uno_c"] == pytest.approx(np.mean([own[i] > own[j] for i, j in pairs]), abs=1e-9)


def test_the_curves_are_the_training_sides_cox_model() -> None:
    """Breslow's estimate out of statsmodels' coefficient: S(t | risk) = exp(-H0(t) exp(b risk)).

    lifelines draws H0 straight between the deaths.
    """
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    pytest.importorskip("sksurv", reason="needs the extra [survival]")
    regression = pytest.importorskip("statsmodels.duration.hazard_regression")
    rng = np.random.default_rng(8)
    risk = rng.normal(size=80)
    training = Followed(risk, rng.exponential(np.exp(-0.9 * risk)) + 0.05, np.ones(80, bool))
    own = rng.normal(size=30)
    new = Followed(
        own, np.minimum(rng.exponential(np.exp(-0.9 * own)) + 0.1, 0.9 * training.time.max()), np.ones(30, bool)
    )
    found = over_time(training, new)
    assert found is not None
    b = float(regression.PHReg(training.time, risk[:, None], status=training.event).fit().params[0])
    times = np.linspace(new.time.min(), new.time.max(), 52)[1:-1]
    weight = np.exp(b * risk)
    deaths = np.sort(training.time)
    cumulative = np.cumsum([1 / weight[training.time >= t].sum() for t in deaths])
    hazard = np.interp(times, deaths, cumulative)
    curves = np.exp(-hazard[None] * np.exp(b * new.risk)[:, None])
    squares = (((new.time[:, None] > times[None]) - curves) ** 2).mean(axis=0)
    expected = np.trapezoid(squares, times) / (times[-1] - times[0])
    assert found["integrated_brier"] == pytest.approx(expected, rel=1e-3)
    assert expected < found["brier_without"] - 0.01


# a whole report


class Known(torch.nn.Module):
    """The identity: what the one tile of a slide holds is the output."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, x: Any) -> Any:
        return x[0], torch.ones(1)


class TileBag(Bag):
    """One tile, in memory."""

    values: np.ndarray
    encoder = "known"

    def embeddings(self) -> np.ndarray:
        return self.values


def slide(name: str, patient: str, values: Any, label: int = 0, **more: Any) -> LabelledSlide:
    bag = TileBag(name, Path(f"{name}.h5"))
    object.__setattr__(bag, "values", np.array([values], np.float32))
    return LabelledSlide(bag, patient, label, **more)


def logits(p: float, temperature: float) -> list[float]:
    """Logits of two classes whose second has this probability after the temperature."""
    return [0.0, temperature * float(np.log(p / (1 - p)))]


def binary_head(temperature: float = 2.0) -> TrainedHead:
    """Its training side: ten cases at .05 .. .95 and four controls."""
    cases = np.arange(0.05, 1.0, 0.1)
    raw = np.array([logits(p, temperature) for p in [*cases, 0.02, 0.03, 0.04, 0.9]])
    entry = {
        "name": "msi", "kind": "binary", "classes": ["MSS", "MSI"], "thresholds": [0.4], "temperature": temperature,
        "abstain": [0.3, 0.6], "details": {"encoder": "known", "slides": 14},
    }  # fmt: skip
    return TrainedHead(Known(2), entry, {"raw": raw, "label": np.array([1] * 10 + [0] * 4)})


def test_a_binary_head_is_judged_by_what_was_locked() -> None:
    p = [0.95, 0.6, 0.55, 0.4, 0.3, 0.1, 0.7, 0.35, 0.2, 0.02]
    truth = [1, 1, 0, 1, 0, 1, 0, 0, 0, 0]
    rows = tuple(slide(f"s{i}", f"p{i}", logits(a, 2.0), y) for i, (a, y) in enumerate(zip(p, truth, strict=True)))
    found = evaluate_head(binary_head(), LabelTable(rows, "binary", ("MSS", "MSI"), 0, 0), Options(draws=20))
    scores, positive = np.array(p), np.array(truth, bool)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert found["auroc"]["value"] == pytest.approx(np.mean(pairs))
    assert found["auroc"]["delong"]["value"] == pytest.approx(np.mean(pairs))
    assert found["auprc"]["prevalence"] == 0.4
    # positives stand 1st, 3rd, 5th, 9th of the ranking
    assert found["auprc"]["value"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5 + 4 / 9) / 4)
    shipped = found["shipped_threshold"]  # 0.4 itself is called
    assert shipped["threshold"] == 0.4
    names = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert [shipped[name] for name in names] == [3, 2, 1, 4]
    # no call from 0.3 to 0.6, both included: 0.6, 0.55, 0.4, 0.3, 0.35; of the others 0.1 and 0.7 are wrong
    assert found["abstention"] == {"share": 0.5, "error_of_calls": pytest.approx(2 / 5)}
    by_wanted = {point["wanted_sensitivity"]: point for point in found["operating_points"]}
    assert by_wanted[0.90]["training"]["threshold"] == pytest.approx(0.15, abs=1e-6)  # one of ten cases may be missed
    assert by_wanted[0.98]["training"]["threshold"] == pytest.approx(0.05, abs=1e-6)
    assert [by_wanted[0.90]["training"][name] for name in names] == [9, 1, 1, 3]
    assert [by_wanted[0.90]["external"][name] for name in names] == [3, 5, 1, 1]
    assert by_wanted[0.90]["external"]["threshold"] == by_wanted[0.90]["training"]["threshold"]
    assert found["calibration"]["brier"] == pytest.approx(np.mean((scores - positive) ** 2), abs=1e-6)
    roc = found["roc"]
    assert (roc["false_positive"][0], roc["true_positive"][0]) == (0, 0)
    assert np.trapezoid(roc["true_positive"], roc["false_positive"]) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("band", [[0.5, 0.8], [0.2, 0.5]])
def test_both_limits_of_the_band_are_in_it(band: list[float]) -> None:
    """One half is a number that a computer holds: two slides lie on the limit, and none else in the band."""
    rows = tuple(slide(f"s{i}", f"p{i}", logits(p, 2.0), i % 2) for i, p in enumerate([0.5, 0.9, 0.1, 0.5, 0.05, 0.95]))
    head = binary_head()
    head.entry["abstain"] = band
    found = evaluate_head(head, LabelTable(rows, "binary", ("MSS", "MSI"), 0, 0), Options(draws=5))
    assert found["abstention"] == {"share": pytest.approx(2 / 6), "error_of_calls": 0.0}


def test_a_slide_at_the_shipped_threshold_is_called() -> None:
    known = [(0.5, 1), (0.5, 1), (0.1, 0), (0.2, 0)]
    rows = tuple(slide(f"s{i}", f"p{i}", logits(p, 2.0), y) for i, (p, y) in enumerate(known))
    head = binary_head()
    head.entry.update(thresholds=[0.5], abstain=None)
    found = evaluate_head(head, LabelTable(rows, "binary", ("MSS", "MSI"), 0, 0), Options(draws=5))
    assert found["abstention"] == {"share": 0.0, "error_of_calls": 0.0}
    assert found["shipped_threshold"]["true_positive"] == 2


def test_probabilities_of_a_patients_slides_are_averaged_and_the_label_is_the_patients() -> None:
    rows = (
        slide("a1", "a", logits(0.9, 2.0), 1),
        slide("b1", "b", logits(0.2, 2.0), 0),
        slide("a2", "a", logits(0.5, 2.0), 1),
        slide("c1", "c", logits(0.6, 2.0), 1),
        slide("d1", "d", logits(0.65, 2.0), 0),
        slide("d2", "d", logits(0.45, 2.0), 0),
    )
    table = LabelTable(rows, "binary", ("MSS", "MSI"), 0, 0)
    head = binary_head()
    found = evaluate_head(head, table, Options(draws=10, per_patient=True))
    assert found["unit"] == "patients" and found["cohort"]["slides"] == 6 and found["cohort"]["patients"] == 4
    # a .7, b .2, c .6, d .55
    assert found["auroc"]["value"] == 1.0 and found["auprc"]["prevalence"] == 0.5
    assert found["calibration"]["brier"] == pytest.approx((0.3**2 + 0.2**2 + 0.4**2 + 0.55**2) / 4, abs=1e-6)
    slides = evaluate_head(head, table, Options(draws=10))
    assert slides["auroc"]["value"] == pytest.approx(7 / 9)  # .9 above all; .5 and .6 above .45 and .2
    mixed = replace(table, slides=(*rows[:5], replace(rows[5], label=1)))
    with pytest.raises(DataError, match="different labels"):
        evaluate_head(head, mixed, Options(draws=10, per_patient=True))


def test_a_head_of_several_classes_is_judged_class_by_class() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    label = [0, 0, 2, 1, 1, 2]
    rows = tuple(slide(f"s{i}", f"p{i}", 3 * np.log(row), y) for i, (row, y) in enumerate(zip(p, label, strict=True)))
    entry = {
        "name": "cms", "kind": "multiclass", "classes": list("abc"), "thresholds": [], "temperature": 3.0,
        "abstain": None, "details": {},
    }  # fmt: skip
    found = evaluate_head(
        TrainedHead(Known(3), entry, {}), LabelTable(rows, "multiclass", tuple("abc"), 0, 0), Options(draws=5)
    )
    assert found["accuracy"] == pytest.approx(4 / 6)
    for c, name in enumerate("abc"):
        own, other = p[np.array(label) == c, c], p[np.array(label) != c, c]
        expected = np.mean([(a > b) + 0.5 * (abs(a - b) < 1e-6) for a in own for b in other])
        assert found["per_class"][name]["value"] == pytest.approx(expected)


def test_a_survival_head_is_judged_with_the_cut_of_the_training() -> None:
    """Higher risks die sooner in all pairs but one."""
    time = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    risk = [2.0, 1.5, 0.5, 1.0, -1.0, -2.0]
    event = [True, True, True, True, False, True]
    rows = tuple(
        slide(f"s{i}", f"p{i}", [r], time=t, event=e) for i, (r, t, e) in enumerate(zip(risk, time, event, strict=True))
    )
    entry = {
        "name": "os", "kind": "survival", "classes": ["low", "high"], "thresholds": [1.5], "temperature": 1.0,
        "abstain": None, "details": {},
    }  # fmt: skip
    rng = np.random.default_rng(0)
    held = {"raw": rng.normal(size=(30, 3)), "time": rng.exponential(8, 30), "event": np.ones(30, np.uint8)}
    found = evaluate_head(TrainedHead(Known(1), entry, held), LabelTable(rows, "survival", (), 0, 0), Options(draws=10))
    assert found["events"] == 5
    # pairs whose earlier one died: 5 + 4 + 3 + 2 (the censored one comes before one more only); 3 and 4 are turned
    assert found["c_index"]["value"] == pytest.approx(13 / 14)
    if found["risk_groups"] is not None:
        assert {name: g["slides"] for name, g in found["risk_groups"]["groups"].items()} == {"low": 4, "high": 2}
        assert found["risk_groups"]["cut"] == 1.5, "and not the median of this cohort"
