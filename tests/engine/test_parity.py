"""The comparison: right numbers, NaN fails, every number that is out of tolerance is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from stamp_deploy.engine.parity import (
    TOLERANCES,
    Outputs,
    compare,
    head_probabilities,
    pearson,
    row_cosine,
    spearman,
    to_table,
)
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


def test_heads_are_judged():
    a = outputs(heads={"msi": np.float32([0.2, 0.8])})
    assert report(a, outputs(heads={"msi": np.float32([0.2, 0.8])}))
    bad = report(a, outputs(heads={"msi": np.float32([0.25, 0.75])}))
    assert not bad and bad.metrics["head_max_abs"] == pytest.approx(0.05, abs=1e-6)
    assert not report(a, outputs(heads={"msi": np.float32([np.nan, 0.8])}))
    with pytest.raises(ParityError, match="different heads"):
        report(a, outputs())


def test_shapes_must_agree():
    with pytest.raises(ParityError, match="embeddings are"):
        report(outputs(), outputs(tiles=49))
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


def test_tolerances_state_their_reason_and_order():
    order = ("fp32", "fp16", "bf16", "int8")
    for name in ("cosine_min", "cosine_median", "spearman_min", "pearson_min"):
        values = [getattr(TOLERANCES[precision], name) for precision in order]
        assert values == sorted(values, reverse=True)
    assert all(len(tolerance.reason) > 30 for tolerance in TOLERANCES.values())
    assert TOLERANCES["bf16"].spearman_min >= 0.99 and TOLERANCES["int8"].spearman_min >= 0.98


def test_probabilities():
    np.testing.assert_allclose(head_probabilities([1e4, 1e4 + 2.0], 2.0, "binary"), [0.26894, 0.73106], atol=1e-5)
    assert head_probabilities([0.7], 2.0, "survival").tolist() == [np.float32(0.7)]


def test_the_table_names_failures():
    bad = outputs()
    bad.embedding[0] *= -1
    text = to_table([report(outputs(), outputs()), report(outputs(), bad)])
    assert "pass" in text and "FAIL" in text and "a -> b: cosine_min is -1 and must be >= 0.99999" in text
