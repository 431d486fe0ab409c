"""Weighted figures against numpy, and against tiles that are repeated as often as they weigh."""

from __future__ import annotations

import numpy as np
import pytest
from support.result_factory import make_result

from stamp_deploy.summaries import weighted_mean, weighted_percentiles, weighted_sd
from stamp_deploy.validation import GLOBAL_UNIT


def test_equal_weights_give_what_numpy_gives() -> None:
    values = np.random.default_rng(1).normal(size=(101, 3))
    weights = np.full(101, 0.4)
    assert weighted_mean(values, weights) == pytest.approx(values.mean(axis=0))
    assert weighted_sd(values, weights) == pytest.approx(values.std(axis=0, ddof=1))
    want = np.percentile(values, (5, 50, 95), axis=0, method="inverted_cdf")
    assert weighted_percentiles(values, weights, (5, 50, 95)) == pytest.approx(want)


def test_whole_weights_are_repetitions() -> None:
    random = np.random.default_rng(2)
    values, times = random.normal(size=(60, 2)), random.integers(1, 6, 60)
    repeated = values.repeat(times, axis=0)
    assert weighted_mean(values, times.astype(float)) == pytest.approx(repeated.mean(axis=0))
    want = np.percentile(repeated, (5, 25, 50, 75, 95), axis=0, method="inverted_cdf")
    assert weighted_percentiles(values, times.astype(float)) == pytest.approx(want)
    library = np.quantile(values, 0.25, axis=0, weights=times.astype(float), method="inverted_cdf")
    assert weighted_percentiles(values, times.astype(float), (25,))[0] == pytest.approx(library)


def test_the_weighted_sd_is_that_of_nist() -> None:
    # The example of the Dataplot handbook: x = 2 3 5 7 11 13 17 19 23, w = 1 1 0 0 4 1 2 1 0 gives 5.82.
    values = np.array([[2.0, 3, 5, 7, 11, 13, 17, 19, 23]]).T
    weights = np.array([1.0, 1, 0, 0, 4, 1, 2, 1, 0])
    assert weighted_sd(values, weights)[0] == pytest.approx(5.82, abs=0.005)


def test_a_summary_counts_tissue_not_tiles() -> None:
    result = make_result(n_tiles=4, pathways=1)
    result = make_result(
        n_tiles=4,
        pathways=1,
        tissue_fraction=np.array([1, 0.25, 0.25, 0.5], np.float32),
        pathways_global=np.array([[1.0], [5], [5], [2]], np.float32),
    )
    summary = next(iter(result.summary().values()))
    assert summary["mean"] == pytest.approx((1 + 1.25 + 1.25 + 1) / 2)
    assert (summary["p50"], summary["min"], summary["max"]) == (1, 1, 5)
    assert result.to_json_dict()["pathways"]["summarised"] == "pathways_global"
    assert result.summary_unit == GLOBAL_UNIT != result.score_unit
