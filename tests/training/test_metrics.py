"""Numbers of `evaluate`: r, medians, depth, intervals, each against another way to compute it."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.training.intervals import (
    Difference,
    Interval,
    block_r,
    bootstrap,
    paired_difference,
    pathway_intervals,
)
from stamp_deploy.training.metrics import (
    SectionResult,
    headline,
    mean_r,
    median_r,
    pearson,
    pooled_r,
    section_median_r,
    section_z,
    without_depth,
)
from stamp_deploy.training.summary import summary


def test_pearson_is_numpy_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(pearson(a, b), expected)


def test_a_constant_prediction_is_worth_nothing_and_a_constant_truth_has_no_r() -> None:
    a = np.c_[np.arange(10.0), np.full(10, 3.0)]
    r = pearson(a, np.c_[np.full(10, 7.0), np.arange(10.0)])
    assert r[0] == 0 and np.isnan(r[1])
    assert median_r(r) == 0


def result(name: str, patient: str, seed: int, noise: float, mask: list[bool] | None = None) -> SectionResult:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(80, 3))
    return SectionResult(name, patient, truth, truth + noise * rng.normal(size=(80, 3)), np.array(mask or [True] * 3))


def test_the_headline_is_the_mean_over_sections_of_the_median_over_pathways() -> None:
    sections = [result("a", "p", 1, 0.5), result("b", "q", 2, 2.0)]
    expected = np.mean([np.median(pearson(s.truth, s.predicted)) for s in sections])
    assert headline(sections) == pytest.approx(expected)
    assert section_median_r(sections[0].truth, sections[0].predicted) == pytest.approx(median_r(sections[0].r))


def test_masked_pathways_do_not_count() -> None:
    s = result("a", "p", 1, 0.5, [True, False, True])
    assert np.isnan(s.r[1])
    pooled = pooled_r([s, result("b", "q", 2, 0.5)])
    assert np.isfinite(pooled).all()
    assert np.isnan(pooled_r([s])[1])


def test_pooling_removes_each_section_s_level_and_spread() -> None:
    a, b = result("a", "p", 1, 0.3), result("b", "q", 2, 0.3)
    moved = SectionResult("b", "q", b.truth * 50 + 1000, b.predicted * 0.01 - 5, b.mask)
    np.testing.assert_allclose(pooled_r([a, b]), pooled_r([a, moved]))


def test_intervals_draw_patients_then_sections_then_do_not_exist() -> None:
    many = [result(f"{p}{i}", p, 7 * i + ord(p), 0.5 + i) for p in "pqrs" for i in range(2)]
    patients = bootstrap(many)
    assert patients.unit == "patients" and patients.low is not None and patients.high is not None
    assert patients.low <= headline(many) <= patients.high
    assert bootstrap(many) == patients
    one = bootstrap(many[:2])
    assert one.unit == "sections" and "one patient" in one.note
    alone = bootstrap(many[:1])
    assert alone.low is None and "no interval exists" in alone.note


def test_two_sections_of_a_patient_are_drawn_together() -> None:
    # sections of a patient are equal: drawing sections would give a narrower interval than drawing patients
    same = [
        SectionResult(f"{p}{i}", p, s.truth, s.predicted, s.mask)
        for p, noise in (("p", 0.3), ("q", 3.0))
        for s in [result(p, p, 1, noise)]
        for i in range(20)
    ]
    interval = bootstrap(same)
    medians = [median_r(s.r) for s in (same[0], same[-1])]
    assert interval.low == pytest.approx(min(medians)) and interval.high == pytest.approx(max(medians))


def test_summaries_are_json() -> None:
    document = summary([result("a", "p", 1, 0.5, [True, False, True])], ["X", "Y", "Z"])
    text = json.dumps(document, allow_nan=False)
    assert document["per_pathway"]["Y"]["mean_r"] is None and '"a"' in text


def test_pearson_needs_pairs() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        pearson(np.zeros((3, 2)), np.zeros((3, 1)))


def test_what_varies_too_little_does_not_vary() -> None:
    steps = np.arange(4.0)[:, None]
    assert np.isnan(pearson(steps * 1e-10, steps)).all() and pearson(steps * 1e-3, steps)[0] == pytest.approx(1)
    assert pearson(steps, steps * 1e-15)[0] == 0
    assert section_z(steps * 1e-10).tolist() == [[0.0]] * 4


def test_z_within_a_section_by_hand() -> None:
    z = section_z(np.array([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0]]))
    assert z.tolist() == [[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]


def with_depth(seed: int = 0) -> SectionResult:
    """Truth and prediction that both follow the depth, and each other beyond it."""
    rng = np.random.default_rng(seed)
    depth = rng.normal(5, 1, (200, 2))
    shared = rng.normal(size=(200, 2))
    truth = shared + depth @ np.array([[1.0, 0.0], [0.5, 2.0]]) + rng.normal(size=(200, 2))
    predicted = 0.5 * shared + depth @ np.array([[0.0, 1.0], [1.0, 1.0]]) + rng.normal(size=(200, 2))
    return SectionResult("s", "p", truth, predicted, np.array([True, True]), depth=depth)


def test_r_with_the_depth_is_with_the_number_of_genes() -> None:
    s = with_depth()
    genes = s.depth[:, 1]
    for found, values in ((s.depth_r, s.truth), (s.predicted_depth_r, s.predicted)):
        assert found == pytest.approx([np.corrcoef(values[:, p], genes)[0, 1] for p in range(2)])


def test_the_partial_r_is_that_of_the_inverse_covariance() -> None:
    s = with_depth()
    for p in range(2):
        table = np.column_stack([s.truth[:, p], s.predicted[:, p], s.depth])
        inverse = np.linalg.inv(np.cov(table.T))
        assert s.partial_r[p] == pytest.approx(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))
    assert (np.abs(s.partial_r - s.r) > 0.02).all()
    rest = without_depth(s.truth, s.depth)
    assert np.abs(np.corrcoef(np.column_stack([rest, s.depth]).T)[:2, 2:]).max() < 1e-9
    assert rest.mean() == pytest.approx(0, abs=1e-9)


def test_depth_that_is_not_known_or_masked_has_no_r() -> None:
    s = with_depth()
    bare = SectionResult("s", "p", s.truth, s.predicted, s.mask)
    masked = SectionResult("s", "p", s.truth, s.predicted, np.array([False, True]), depth=s.depth)
    for name in ("depth_r", "predicted_depth_r", "partial_r"):
        assert np.isnan(getattr(bare, name)).tolist() == [True, True]
        assert np.isnan(getattr(masked, name)).tolist() == [True, False]


def test_medians_and_means_leave_out_what_has_no_r() -> None:
    nan = float("nan")
    assert median_r(np.array([0.1, nan, 0.5, 0.2])) == pytest.approx(0.2)
    assert np.isnan(median_r(np.array([nan]))) and np.isnan(headline([])) and np.isnan(mean_r([]))
    a, b = result("a", "p", 1, 0.5, [True, False, True]), result("b", "q", 2, 2.0)
    assert mean_r([a, b]) == pytest.approx(np.mean([np.nanmean(a.r), np.mean(b.r)]))
    mask = np.array([True, False, True])
    assert section_median_r(a.truth, a.predicted, mask) == pytest.approx(np.nanmedian(a.r))


def test_a_pathway_is_pooled_over_the_sections_that_measure_it() -> None:
    a, b, c = result("a", "p", 1, 0.5), result("b", "q", 2, 1.0, [False, True, True]), result("c", "r", 3, 2.0)
    found = pooled_r([a, b, c])

    def z(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return (values - values.mean()) / values.std()

    for p, use in ((0, (a, c)), (1, (a, b, c)), (2, (a, b, c))):
        truth = np.concatenate([z(s.truth[:, p]) for s in use])
        predicted = np.concatenate([z(s.predicted[:, p]) for s in use])
        assert found[p] == pytest.approx(np.corrcoef(truth, predicted)[0, 1])


def four_patients(noise: float = 0.0) -> list[SectionResult]:
    """Patients of one, two, one and three sections, better and worse."""
    many = [("p", 1.0), ("q", 0.3), ("q", 3.0), ("r", 2.0), ("s", 0.5), ("s", 5.0), ("s", 1.5)]
    return [result(f"{name}{i}", name, 10 + i, level + noise) for i, (name, level) in enumerate(many)]


def all_draws(values: dict[str, list[float]]) -> NDArray[np.float64]:
    """The mean over sections in each of the equally likely draws of patients."""
    groups = list(values.values())
    picks = product(range(len(groups)), repeat=len(groups))
    return np.array([np.mean(np.concatenate([groups[i] for i in pick])) for pick in picks])


def by_patient(sections: list[SectionResult], value: list[float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for s, v in zip(sections, value, strict=True):
        groups.setdefault(s.patient, []).append(v)
    return groups


def test_an_interval_is_that_of_all_draws_of_patients() -> None:
    """Four patients: 256 draws are equally likely, so the percentiles are known."""
    sections = four_patients()
    found = bootstrap(sections, draws=20_000, seed=1)
    expected = np.percentile(all_draws(by_patient(sections, [median_r(s.r) for s in sections])), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.015)
    assert found.note == "only 4 patients"
    fifth = [*sections, result("t", "t", 99, 1.0)]
    assert bootstrap(fifth).note == bootstrap([*fifth, result("u", "u", 98, 1.0)]).note == ""


def test_an_interval_over_sections_of_one_patient_draws_each_alone() -> None:
    sections = [SectionResult(s.id, "p", s.truth, s.predicted, s.mask) for s in four_patients()[:4]]
    found = bootstrap(sections, draws=20_000, seed=2)
    expected = np.percentile(all_draws({s.id: [median_r(s.r)] for s in sections}), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.015)
    assert found.unit == "sections"


def test_two_rows_are_compared_on_the_same_draws() -> None:
    better, worse = four_patients(), four_patients(noise=1.0)
    found = paired_difference(better, worse, draws=20_000, seed=3)
    each = [float(np.mean(a.r) - np.mean(b.r)) for a, b in zip(better, worse, strict=True)]
    expected = np.percentile(all_draws(by_patient(better, each)), [2.5, 97.5])
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected), abs=0.015)
    assert found.value == pytest.approx(np.mean(each)) and found.word == "shown"
    assert paired_difference(worse, better, draws=500).word == "harmful"
    same = paired_difference(better, better, draws=500)
    assert (same.value, same.interval.low, same.interval.high, same.word) == (0.0, 0.0, 0.0, "not shown")


def test_a_difference_without_an_interval_is_not_shown() -> None:
    alone = paired_difference(four_patients()[:1], four_patients(1.0)[:1])
    assert alone.value > 0 and alone.interval.low is None and alone.word == "not shown"
    assert Difference(1.0, Interval(0.1, 2.0, "patients")).word == "shown"
    assert Difference(1.0, Interval(-0.1, 2.0, "patients")).word == "not shown"
    assert Difference(-1.0, Interval(-2.0, -0.1, "patients")).word == "harmful"


def test_the_interval_of_a_pathway_is_that_of_all_draws() -> None:
    sections = four_patients()
    sections[0] = result("p0", "p", 10, 1.0, [True, False, True])
    sections[3] = result("r3", "r", 13, 2.0, [True, False, True])
    found = pathway_intervals(sections, draws=20_000, seed=4)
    assert found.unit == "patients"
    for p in (0, 2):
        expected = np.percentile(all_draws(by_patient(sections, [float(s.r[p]) for s in sections])), [2.5, 97.5])
        assert (found.low[p], found.high[p]) == pytest.approx(tuple(expected), abs=0.015)
    # the second is measured in two patients of four: draws of neither have no value and are left out
    groups = by_patient(sections, [float(s.r[1]) for s in sections])
    draws = [np.concatenate([list(groups.values())[i] for i in pick]) for pick in product(range(4), repeat=4)]
    means = [np.nanmean(d) for d in draws if np.isfinite(d).any()]
    assert (found.low[1], found.high[1]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.015)


def test_a_pathway_of_one_patient_has_no_interval() -> None:
    only = [True, True, False]
    sections = [result("a", "p", 1, 0.5), result("b", "q", 2, 0.5, only), result("c", "r", 3, 0.5, only)]
    found = pathway_intervals(sections, draws=200)
    assert np.isfinite(found.low).tolist() == np.isfinite(found.high).tolist() == [True, True, False]
    alone = pathway_intervals(sections[:1], draws=200)
    assert alone.unit is None and np.isnan(alone.low).all() and np.isnan(alone.high).all()


def test_sections_of_one_patient_are_drawn_where_places_are_not_known() -> None:
    found = pathway_intervals([result("a", "p", 1, 0.2), result("b", "p", 2, 4.0)], draws=500)
    r = np.array([result("a", "p", 1, 0.2).r, result("b", "p", 2, 4.0).r])
    assert found.unit == "sections"
    assert found.low == pytest.approx(r.min(axis=0)) and found.high == pytest.approx(r.max(axis=0))


def test_blocks_of_space_give_intervals_around_r_and_too_few_give_none() -> None:
    xy = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) * 200.0
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(400, 3))
    predicted = truth + rng.normal(size=truth.shape)
    section = SectionResult("s", "p", truth, predicted, np.array([True, True, False]), xy)
    found = pathway_intervals([section], draws=500)
    assert found.unit == "blocks" and np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [
        False,
        False,
        True,
    ]
    # of independent spots: Fisher's interval
    for p in range(2):
        z = np.arctanh(section.r[p]) + np.array([-1.96, 1.96]) / np.sqrt(397)
        assert (found.low[p], found.high[p]) == pytest.approx(tuple(np.tanh(z)), abs=0.04)
    small = SectionResult("tiny", "p", truth[:9], predicted[:9], section.mask, xy[:9])
    assert pathway_intervals([section, small]).unit is None
    none = bootstrap([section, small])
    assert none.low is None and none.unit == "blocks" and "tiny is too small" in none.note


def placed(name: str, patient: str, seed: int) -> SectionResult:
    """Spots on a grid of 200 um, 20 in a row."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(400, 3))
    places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2) * 200.0
    return SectionResult(name, patient, truth, truth + rng.normal(size=(400, 3)), np.ones(3, bool), places)


def test_the_interval_of_a_pathway_over_blocks_is_that_of_their_draws() -> None:
    sections = [placed("a", "p", 1), placed("b", "p", 2)]
    found = pathway_intervals(sections, draws=300, seed=4)
    low, high = np.percentile(np.mean(block_r(sections, 300, 4), axis=0), [2.5, 97.5], axis=0)
    assert found.unit == "blocks"
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)


def test_each_section_draws_blocks_of_its_own() -> None:
    """With the same draws in all of them, errors of sections of one shape would add up instead of averaging out."""
    first, second = block_r([placed("a", "p", 1), placed("b", "p", 1)], 300, 4)
    assert np.abs(first - second).max() > 0.01
    again = block_r([placed("a", "p", 1)], 300, 4)[0]
    np.testing.assert_array_equal(first, again)


def test_patients_are_drawn_where_there_are_two_although_places_are_known() -> None:
    assert pathway_intervals([placed("a", "p", 1), placed("b", "q", 2)], draws=50).unit == "patients"


def test_a_summary_holds_what_the_functions_say() -> None:
    rng = np.random.default_rng(6)
    sections = []
    for i, (name, patient) in enumerate((("a", "p"), ("b", "q"))):
        s = result(name, patient, i, 1.0 + i, [True, i == 0, True])
        spots = 80 - 30 * i  # of one size, their pooled r would be the mean of theirs
        depth = rng.normal(5, 1, (spots, 2))
        sections.append(SectionResult(name, patient, s.truth[:spots], s.predicted[:spots], s.mask, depth=depth))
    a, b = sections
    document = summary(sections, ["X", "Y", "Z"], seed=2)
    assert document["mean_of_medians"] == pytest.approx(headline(sections), abs=1e-6)
    assert document["mean_r"] == pytest.approx(mean_r(sections), abs=1e-6)
    assert document["pooled_median"] == pytest.approx(np.median(pooled_r(sections)), abs=1e-6)
    for key in ("depth_r", "predicted_depth_r", "partial_r"):
        assert document[key] == pytest.approx(np.mean([median_r(getattr(s, key)) for s in sections]), abs=1e-6)
        assert document["per_pathway"]["X"][key] == pytest.approx(
            (getattr(a, key)[0] + getattr(b, key)[0]) / 2, abs=1e-6
        )
        assert document["per_pathway"]["Y"][key] == pytest.approx(getattr(a, key)[1], abs=1e-6)
    interval = bootstrap(sections, seed=2)
    assert document["interval"] == {
        "low": interval.low, "high": interval.high, "unit": interval.unit, "note": interval.note
    }  # fmt: skip
    assert document["per_section"]["b"] == {
        "median_r": pytest.approx(median_r(b.r), abs=1e-6),
        "spots": 50,
        "pathways": 2,
    }
    assert document["per_pathway"]["Z"]["mean_r"] == pytest.approx((a.r[2] + b.r[2]) / 2, abs=1e-6)
    assert document["per_pathway"]["Y"]["mean_r"] == pytest.approx(a.r[1], abs=1e-6)
    for i, name in enumerate("XYZ"):
        assert document["per_pathway"][name]["pooled_r"] == pytest.approx(pooled_r(sections)[i], abs=1e-6)
    assert abs(document["per_pathway"]["X"]["pooled_r"] - document["per_pathway"]["X"]["mean_r"]) > 1e-3


def test_no_sections_have_no_interval() -> None:
    for interval in (bootstrap([]), paired_difference([], []).interval):
        assert (interval.low, interval.high) == (None, None) and "no interval exists" in interval.note


@pytest.mark.parametrize("patients", ["pqr", "ppp"])
def test_a_pathway_that_nobody_measured_has_no_interval_and_no_unit(patients: str) -> None:
    nobody = [result(f"{i}", p, i, 1.0, [False] * 3) for i, p in enumerate(patients)]
    found = pathway_intervals(nobody)
    assert found.unit is None and np.isnan(found.low).all() and np.isnan(found.high).all()


def test_draws_are_two_thousand_from_seed_0_unless_told() -> None:
    sections, other = ([result(f"{i}", f"p{i}", i, 0.2 + step * i) for i in range(12)] for step in (0.3, 0.2))
    assert bootstrap(sections) == bootstrap(sections, draws=2000, seed=0) != bootstrap(sections, draws=2000, seed=1)
    assert bootstrap(sections) != bootstrap(sections, draws=2001)
    told = paired_difference(sections, other, draws=2000, seed=0)
    assert paired_difference(sections, other) == told != paired_difference(sections, other, draws=2001)
    found = pathway_intervals(sections)
    np.testing.assert_array_equal(found.low, pathway_intervals(sections, draws=2000, seed=0).low)
    for changed in (pathway_intervals(sections, draws=2001), pathway_intervals(sections, seed=1)):
        assert (found.low != changed.low).any()
