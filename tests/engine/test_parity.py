"""The comparison: right numbers, NaN fails, every number that is out of tolerance is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stamp_deploy.engine import parity
from stamp_deploy.engine.agreement import norm_error, pearson, row_cosine, spearman
from stamp_deploy.engine.head_model import to_probabilities
from stamp_deploy.engine.parity import Outputs, compare, to_table
from stamp_deploy.engine.tolerances import TOLERANCES, Tolerance, correlation_floor
from stamp_deploy.errors import ExitCode, ParityError

NAMES = ("A", "B", "C")


def outputs(seed: int = 0, tiles: int = 50, heads: dict | None = None) -> Outputs:
    rng = np.random.default_rng(seed)
    return Outputs(
        rng.normal(size=(tiles, 8)).astype(np.float32), rng.normal(size=(tiles, 3)).astype(np.float32), heads or {}
    )


def report(reference: Outputs, candidate: Outputs, precision: str = "fp32"):
    names = ("the reference", "the candidate")
    return compare(reference, candidate, stage="a -> b", names=names, precision=precision, pathways=NAMES)


def test_the_same_passes_and_is_true():
    found = report(outputs(), outputs())
    assert found and found.passed and found.metrics["max_abs"] == 0 and found.metrics["spearman_min"] == 1
    found.raise_if_failed()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["embedding", "pathways"])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_values_that_are_not_finite_fail_in_every_precision(value, side, precision):
    bad = outputs()
    getattr(bad, side)[7, 1] = value
    found = report(outputs(), bad, precision)
    assert not found and any("not finite in 1 of 50 tiles" in failure for failure in found.failures)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_reference_that_is_not_finite_is_no_reference():
    bad = outputs()
    bad.embedding[0, 0] = np.nan
    with pytest.raises(ParityError, match="reference itself"):
        report(bad, outputs())


@pytest.mark.parametrize("side", ["embedding", "pathways", "pathways_global"])
def test_nor_is_one_with_a_read_out_that_is_not_finite(side):
    good, bad = (replace(outputs(), pathways_global=outputs(seed=1).pathways) for _ in range(2))
    getattr(bad, side)[4, 2] = np.inf
    with pytest.raises(ParityError, match="reference itself"):
        report(bad, good)


def test_needed_is_the_smallest_tolerance_that_passes():
    reference, candidate = outputs(), outputs()
    candidate.embedding[3, 2] += 2e-4
    found = report(reference, candidate)
    need = found.needed["max_abs"]
    assert not found and need == pytest.approx(2e-4 / max(1, float(np.abs(reference.embedding).max())), rel=1e-2)
    for slack, passes in ((1.0001, True), (0.9999, False)):
        limits = TOLERANCES["fp32"].__class__(**{**vars(TOLERANCES["fp32"]), "max_abs": need * slack})
        again = compare(
            reference, candidate, stage="s", names=("a", "b"), precision="fp32", pathways=NAMES, tolerance=limits
        )
        assert bool(again) is passes


def test_swapped_pathways_fail_and_every_number_is_named():
    good = outputs()
    swapped = Outputs(good.embedding, good.pathways[:, [1, 0, 2]])
    with pytest.raises(ParityError, match=r"spearman_min is -?0\.\d+ and must be >= 0.98; pearson_min is") as caught:
        report(good, swapped, "int8").raise_if_failed()
    assert caught.value.exit_code == ExitCode.BAD_BUNDLE


def test_a_pathway_that_became_constant_fails():
    flat = outputs()
    flat.pathways[:, 1] = 0.5
    found = report(outputs(), flat, "int8")
    assert not found and found.spearman["B"] is None and found.metrics["spearman_min"] is None
    assert {"spearman_min is not a number", "pearson_min is not a number"} <= set(found.failures)


def test_heads_are_judged():
    a = outputs(heads={"msi": np.float32([0.2, 0.8])})
    assert report(a, outputs(heads={"msi": np.float32([0.2, 0.8])}))
    bad = report(a, outputs(heads={"msi": np.float32([0.25, 0.75])}))
    assert not bad and bad.metrics["head_max_abs"] == pytest.approx(0.05, abs=1e-6)
    assert not report(a, outputs(heads={"msi": np.float32([np.nan, 0.8])}))
    with pytest.raises(ParityError, match="different heads"):
        report(a, outputs())


def test_the_worst_of_several_heads_is_judged():
    good = {"a": np.float32([0.5]), "b": np.float32([0.2, 0.8]), "c": np.float32([0.1])}
    for name in good:
        bad = report(outputs(heads=good), outputs(heads={**good, name: good[name] + np.float32(0.05)}))
        assert not bad and bad.metrics["head_max_abs"] == pytest.approx(0.05, abs=1e-6)


def test_the_second_read_out_must_be_finite_too():
    good, bad = (replace(outputs(), pathways_global=outputs(seed=1).pathways) for _ in range(2))
    assert report(good, good)
    assert bad.pathways_global is not None
    bad.pathways_global[[3, 9], 1] = np.nan
    assert "pathway values are not finite in 2 of 50 tiles" in report(good, bad).failures


@pytest.mark.parametrize("at_least", [True, False])
def test_a_limit_is_kept_by_its_own_value(at_least):
    failures: list[str] = []
    parity._judge(failures, "x", 0.5, 0.5, at_least=at_least)
    assert failures == []
    parity._judge(failures, "x", 0.49 if at_least else 0.51, 0.5, at_least=at_least)
    assert len(failures) == 1


def test_correlations_are_judged_by_the_number_of_tiles_and_not_of_rows(monkeypatch):
    asked = []
    monkeypatch.setattr(parity, "correlation_floor", lambda limit, tiles: asked.append(tiles) or 0.0)
    reference = outputs(tiles=20)
    index = np.tile(np.arange(20), 3)
    rows = Outputs(reference.embedding[index], reference.pathways[index])
    assert compare(rows, rows, stage="s", names=("a", "b"), precision="fp32", pathways=NAMES, tiles=20)
    assert asked == [20, 20]


def test_lengths_are_compared_by_their_median_ratio():
    lengths = np.array([[1.0], [2.0], [100.0], [0.0]])
    assert norm_error(lengths, lengths * [[1.1], [1.2], [3.0], [7.0]]) == pytest.approx(0.2)
    assert norm_error(np.zeros((2, 1)), np.ones((2, 1))) == 0.0


def test_log_hazards_are_judged_by_their_size():
    """A log hazard has no unit and no bounds; probabilities have 1."""
    a = outputs(heads={"os": np.float32([4.0])})
    found = report(a, outputs(heads={"os": np.float32([4.08])}), "bf16")
    assert found and found.metrics["head_max_abs"] == pytest.approx(0.02, abs=1e-6)
    assert not report(a, outputs(heads={"os": np.float32([4.16])}), "bf16")
    small = outputs(heads={"os": np.float32([0.4])})
    assert not report(small, outputs(heads={"os": np.float32([0.44])}), "bf16")


def test_differences_are_measured_by_the_reference():
    """What the candidate says of its own size must not make a difference smaller."""
    reference, candidate = outputs(), outputs()
    candidate.embedding[:] *= 4
    found = report(reference, candidate, "int8").metrics
    largest = float(np.abs(reference.embedding).max())
    assert found["max_abs"] == pytest.approx(3 * largest / max(1.0, largest), rel=1e-6)
    assert found["norm_max"] == pytest.approx(3, rel=1e-6)
    assert found["cosine_median"] == pytest.approx(1)


def test_the_middle_cosine_is_the_median():
    candidate = outputs()
    candidate.embedding[:20] *= -1
    found = report(outputs(), candidate, "int8").metrics
    assert (found["cosine_min"], found["cosine_median"]) == (pytest.approx(-1), pytest.approx(1))


@pytest.mark.parametrize("wrong", ["pathways", "pathways_global"])
def test_the_worse_read_out_is_judged(wrong):
    good, bad = (replace(outputs(), pathways_global=outputs(seed=1).pathways) for _ in range(2))
    getattr(bad, wrong)[:, 1] += np.float32(0.05)
    found = report(good, bad)
    largest = float(np.abs(getattr(good, wrong)).max())
    assert found.metrics["pathway_max_abs"] == pytest.approx(0.05 / max(1, largest), rel=1e-4)
    assert found.metrics["bias_max"] == pytest.approx(0.05 / getattr(good, wrong)[:, 1].std(), rel=1e-4)
    getattr(bad, wrong)[:, 1] *= -1
    name = "B" if wrong == "pathways" else "B (global)"
    assert {key: value < 0.9 for key, value in report(good, bad).spearman.items()} == {
        key: key == name for key in (*NAMES, *(f"{key} (global)" for key in NAMES))
    }


def test_a_tolerance_that_is_given_is_the_one_that_holds():
    bad = outputs()
    bad.embedding[0] += 0.5
    common = {"stage": "s", "names": ("a", "b"), "pathways": NAMES}
    assert compare(outputs(), bad, precision="fp32", tolerance=LOOSE, **common).tolerance == LOOSE
    assert compare(outputs(), bad, precision="fp32", tolerance=LOOSE, **common)
    assert not compare(outputs(), bad, precision="fp32", **common)


def test_a_record_says_whether_it_passed():
    bad = outputs()
    bad.embedding[0] *= -1
    assert [report(outputs(), side).to_dict()["passed"] for side in (outputs(), bad)] == [True, False]


def test_a_head_that_only_the_candidate_has_is_an_error():
    with pytest.raises(ParityError, match="different heads"):
        report(outputs(), outputs(heads={"msi": np.float32([0.2, 0.8])}))


def test_cosines_of_infinite_rows_are_no_numbers():
    """Overflow of fp16: an infinite row agrees with nothing, and not with itself."""
    rows = np.array([[np.inf, 1.0], [3.0, 4.0]])
    np.testing.assert_array_equal(row_cosine(rows, rows), [np.nan, 1.0])


def test_shapes_must_agree():
    wide = replace(outputs(), pathways=outputs().pathways[:, [0, 1, 2, 2]])
    with pytest.raises(ParityError, match="pathway scores are"):
        report(wide, wide)
    with pytest.raises(ParityError, match="embeddings are"):
        report(outputs(), outputs(tiles=49))
    with pytest.raises(ParityError, match="embeddings are"):
        report(outputs(tiles=49), outputs())
    with pytest.raises(ParityError, match="pathway scores are"):
        report(outputs(), Outputs(outputs().embedding, outputs().pathways[:, :2]))
    with pytest.raises(ParityError, match="at least two"):
        report(outputs(tiles=1), outputs(tiles=1))


def test_correlations_are_scipys():
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)  # x has many ties
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_cosine_of_rows():
    a = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    b = np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-3.0, -4.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(row_cosine(a, b), [1.0, 1.0, 0.0, -1.0, np.nan])


def test_limits_are_those_that_were_agreed():
    """A limit that is loosened lets another engine score: docs/parity.md states them, and so does this."""
    names = ("cosine_min", "cosine_median", "max_abs", "pathway_max_abs", "spearman_min", "pearson_min", "bias_max",
             "slope_max", "norm_max", "head_max_abs")  # fmt: skip
    assert {key: tuple(getattr(one, name) for name in names) for key, one in TOLERANCES.items()} == {
        "fp32": (0.99999, 0.999999, 1e-5, 1e-4, 0.9999, 0.99999, 0.001, 0.001, 0.0001, 1e-4),
        "fp16": (0.999, 0.9999, None, None, 0.995, 0.999, 0.01, 0.01, 0.002, 0.01),
        "bf16": (0.99, 0.999, None, None, 0.99, 0.99, 0.05, 0.03, 0.01, 0.03),
        "int8": (0.9, 0.98, None, None, 0.98, 0.98, 0.2, 0.15, 0.1, 0.05),
        "fp8": (0.9, 0.98, None, None, 0.98, 0.98, 0.2, 0.15, 0.1, 0.05),
    }


def test_the_floor_is_the_lower_end_of_a_99_percent_interval():
    """By scipy, of Fisher's z with the variance of Bonett and Wright."""
    for limit, tiles in ((0.99, 32), (0.98, 64), (0.9999, 10)):
        z = stats.norm.ppf(0.01, np.arctanh(limit), np.sqrt((1 + limit**2 / 2) / (tiles - 3)))
        assert correlation_floor(limit, tiles) == pytest.approx(np.tanh(z), abs=1e-5)


def test_tolerances_state_their_reason_and_order():
    order = ("fp32", "fp16", "bf16", "int8")
    for name in ("cosine_min", "cosine_median", "spearman_min", "pearson_min"):
        values = [getattr(TOLERANCES[precision], name) for precision in order]
        assert values == sorted(values, reverse=True)
    assert all(len(tolerance.reason) > 30 for tolerance in TOLERANCES.values())
    assert TOLERANCES["bf16"].spearman_min >= 0.99 and TOLERANCES["int8"].spearman_min >= 0.98


def test_probabilities():
    np.testing.assert_allclose(to_probabilities("binary", [1e4, 1e4 + 2.0], 2.0), [0.26894, 0.73106], atol=1e-5)
    assert to_probabilities("survival", [0.7], 2.0).tolist() == [0.7]


def test_the_table_names_failures():
    bad = outputs()
    bad.embedding[0] *= -1
    text = to_table([report(outputs(), outputs()), report(outputs(), bad)])
    assert "pass" in text and "FAIL" in text and "a -> b: cosine_min is -1 and must be >= 0.99999" in text


def test_small_numbers_of_the_table_have_three_digits_and_those_near_one_seven():
    """0.9999 and 1 must not look alike, and a difference of 0.000123 must show."""
    found = replace(
        report(outputs(), outputs()), metrics={**report(outputs(), outputs()).metrics, "cosine_min": 0.99991234,
                                               "max_abs": 1.23456e-4, "spearman_min": 0.5, "pearson_min": -0.75,
                                               "bias_max": 0.4999, "slope_max": 1.25, "head_max_abs": None},
    )  # fmt: skip
    (row,) = to_table([found]).splitlines()[1:]
    assert row.split() == [
        "a", "->", "b", "50", "0.9999123", "0.000123", "0.5000000", "-0.7500000", "0.5", "1.2500000", "-", "pass",
    ]  # fmt: skip


def noisy(scale: float = 1e-3, tiles: int = 50) -> Outputs:
    rng = np.random.default_rng(9)
    good = outputs(tiles=tiles, heads={"msi": np.float32([0.2, 0.8])})
    return Outputs(
        (good.embedding * (1 + scale) + scale * rng.normal(size=good.embedding.shape)).astype(np.float32),
        (good.pathways * (1 + scale) + scale * (1 + rng.normal(size=good.pathways.shape))).astype(np.float32),
        {"msi": np.float32([0.2 + scale, 0.8 - scale])},
    )


LOOSE = Tolerance(
    cosine_min=-1, cosine_median=-1, max_abs=9, pathway_max_abs=9, spearman_min=-0.9, pearson_min=-0.9, bias_max=9,
    slope_max=9, norm_max=9, head_max_abs=9, reason="everything passes",
)  # fmt: skip


@pytest.mark.parametrize("gate", [name for name in vars(LOOSE) if name != "reason"])
def test_each_gate_is_judged_alone(gate):
    reference = outputs(heads={"msi": np.float32([0.2, 0.8])})

    def judged(limits):
        return compare(
            reference, noisy(), stage="s", names=("a", "b"), precision="fp32", pathways=NAMES, tolerance=limits
        )

    assert judged(LOOSE)
    strict = 1 - 1e-12 if gate.endswith(("_min", "_median")) else 1e-9
    found = judged(replace(LOOSE, **{gate: strict}))
    assert [failure.split(" ")[0] for failure in found.failures] == [gate]
    assert found.metrics[gate] is not None


@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_gate_of_a_precision_is_a_real_limit(precision):
    limits = vars(TOLERANCES[precision])
    for name in ("cosine_min", "cosine_median", "spearman_min", "pearson_min"):
        assert 0.8 < limits[name] < 1
    for name in ("bias_max", "slope_max", "norm_max", "head_max_abs"):
        assert 0 < limits[name] <= 0.2
    assert (limits["max_abs"] is None) == (precision != "fp32") == (limits["pathway_max_abs"] is None)


def test_bias_and_slope_are_what_they_say():
    reference = outputs(tiles=400)
    candidate = Outputs(
        reference.embedding * 1.03, reference.pathways * np.float32([1, 0.9, 1]) + np.float32([0, 0, 2])
    )
    found = report(reference, candidate, "bf16").metrics
    sd = reference.pathways[:, 2].astype(np.float64).std()
    assert found["bias_max"] == pytest.approx(2 / sd, rel=1e-6)
    assert found["slope_max"] == pytest.approx(0.1, abs=1e-6)
    assert found["norm_max"] == pytest.approx(0.03, abs=1e-6)


def test_a_constant_pathway_has_a_bias_and_no_slope():
    reference = outputs()
    reference.pathways[:, 1] = 0.25
    same = Outputs(reference.embedding, reference.pathways.copy())
    assert report(reference, same)
    moved = Outputs(reference.embedding, reference.pathways + np.float32([0, 0.2, 0]))
    assert report(reference, moved, "int8").metrics["bias_max"] == pytest.approx(0.2, abs=1e-6)


class TestFewTiles:
    """A Spearman over few tiles scatters: an engine at its limit gets one verdict, whatever the number of tiles."""

    def test_the_floor_nears_the_limit_with_more_tiles(self):
        floors = [correlation_floor(0.99, tiles) for tiles in (8, 16, 32, 64, 512, 100_000)]
        assert floors == sorted(floors) and floors[-1] == pytest.approx(0.99, abs=1e-3)
        assert correlation_floor(0.99, 32) < 0.975 < correlation_floor(0.99, 64) < 0.99
        assert correlation_floor(1.0, 64) == 1.0

    @pytest.mark.parametrize("tiles", [16, 32, 64, 512])
    @pytest.mark.parametrize(("rho", "share"), [(0.992, (0.9, 1.0)), (0.9, (0.0, 0.1))])
    def test_what_is_within_the_limit_passes_and_what_is_far_from_it_does_not(self, tiles, rho, share):
        """Pairs of normals whose true Spearman is rho; bf16 asks for 0.99."""
        r = 2 * np.sin(np.pi * rho / 6)
        rng = np.random.default_rng(tiles)
        passed = []
        for _ in range(200):
            x, noise = rng.normal(size=(2, tiles))
            found = spearman(x, r * x + np.sqrt(1 - r * r) * noise)
            passed.append(found >= correlation_floor(0.99, tiles))
        low, high = share
        if not (tiles == 16 and rho == 0.9):  # sixteen tiles cannot tell 0.9 from 0.99 as surely
            assert low <= np.mean(passed) <= high

    def test_rows_that_repeat_tiles_count_as_passes(self):
        reference = outputs(tiles=20)
        index = np.tile(np.arange(20), 3)
        good = Outputs(reference.embedding[index], reference.pathways[index])
        bad = Outputs(good.embedding, good.pathways.copy())
        bad.pathways[40:60] = bad.pathways[40:60][::-1]  # the third pass alone is in another order

        def judged(candidate):
            return compare(good, candidate, stage="s", names=("a", "b"), precision="bf16", pathways=NAMES, tiles=20)

        assert judged(good) and judged(good).tiles == 20
        found = judged(bad)
        assert not found and found.metrics["spearman_min"] < 0.9
        for spoilt, gate in ((good.pathways[40:] + 0.5, "bias_max"), (good.pathways[40:] * 1.2, "slope_max")):
            late = Outputs(good.embedding, np.concatenate([good.pathways[:40], spoilt]))
            assert any(failure.startswith(gate) for failure in judged(late).failures)
