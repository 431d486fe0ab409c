"""Limits of what was measured of a model, from both sides.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.bundle_limits import refused, without_one

from stamp_deploy.bundle.validation_block import check_validation
from stamp_deploy.validation import QUANTILES


def entry(**other: Any) -> dict[str, Any]:
    value: dict[str, Any] = dict.fromkeys(
        ("r", "r_low", "r_high", "frozen_r", "random_sets_r", "features_r", "depth_r", "global_r", "predictions",
         "targets", "global_predictions", "scale", "scale_global")
    )  # fmt: skip
    return {"name": "P", "sections": 0, "patients": 0, **value, **other}


def measured(**other: Any) -> dict[str, Any]:
    return {"unit": "z", "interval_over": None, "lacks": [], "pathways": [entry(**other)]}


CORRELATIONS = ("frozen_r", "random_sets_r", "features_r", "depth_r", "global_r")


@pytest.mark.parametrize("key", CORRELATIONS)
def test_a_correlation_lies_between_minus_1_and_1(key: str) -> None:
    for good in (-1, 1, 0.0, None):
        check_validation(measured(**{key: good}), ["P"])
    for bad in (-1.0001, 1.0001, "0.5", True):
        refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")


def test_the_interval_of_r() -> None:
    fits = [(None, None, None, 0), (0.5, None, None, 1), (0.5, 0.5, 0.5, 1), (0.5, -1, 1, 1), (None, None, None, 9)]
    breaks = [(0.5, None, None, 0), (0.5, 0.4, None, 1), (0.5, None, 0.6, 1), (None, 0.4, 0.6, 1), (0.5, 0.6, 0.4, 1),
              (0.5, -1.01, 1, 1), (0.5, 0, 1.01, 1)]  # fmt: skip
    for r, low, high, sections in fits:
        check_validation(measured(r=r, r_low=low, r_high=high, sections=sections), ["P"])
    for r, low, high, sections in breaks:
        refused(check_validation, measured(r=r, r_low=low, r_high=high, sections=sections), ["P"], words="'P'")


def rising(*changes: tuple[str, float]) -> dict[str, float]:
    return {name: float(at) for at, name in enumerate(QUANTILES)} | dict(changes)


@pytest.mark.parametrize("key", ["predictions", "targets", "global_predictions"])
def test_quantiles_ascend_and_stay_within_a_thousand_million(key: str) -> None:
    for good in (rising(), rising(("min", -1e9), ("max", 1e9)), rising(("p01", 0.0)), None):
        check_validation(measured(**{key: good}), ["P"])
    for bad in (
        rising(("min", -1.1e9)), rising(("max", 1.1e9)), rising(("p50", 9.0)), rising(("min", 0.5), ("p01", 0.4)),
        rising(("more", 9.0)), {}, [],
    ):  # fmt: skip
        refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")


@pytest.mark.parametrize("key", ["scale", "scale_global"])
def test_a_scale_has_a_spread(key: str) -> None:
    for centre, spread in ((-1e9, 1e-9), (1e9, 1e9)):
        check_validation(measured(**{key: {"centre": centre, "spread": spread}}), ["P"])
    for centre, spread in ((-1.1e9, 1), (1.1e9, 1), (0, 0.9e-9), (0, 1.1e9), (0, -1)):
        refused(check_validation, measured(**{key: {"centre": centre, "spread": spread}}), ["P"], words=f"{key} of 'P'")


def test_counts_and_sentences_of_what_was_measured() -> None:
    for key in ("sections", "patients"):
        check_validation(measured(**{key: 10**9}), ["P"])
        for bad in (-1, 10**9 + 1, 1.0, True, None):
            refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")
    check_validation(measured() | {"lacks": ["a" * 1000] * 64}, ["P"])
    refused(check_validation, measured() | {"lacks": ["a"] * 65}, ["P"], words="at most 64 sentences")
    refused(check_validation, measured() | {"lacks": ["a" * 1001]}, ["P"], words="longer than 1000")
    for over in ("patients", "sections", "blocks", None):
        check_validation(measured() | {"interval_over": over}, ["P"])


def test_records_hold_their_keys_and_no_others() -> None:
    for one in without_one({"centre": 0.0, "spread": 1.0}):
        refused(check_validation, measured(scale=one), ["P"], words="must hold centre and spread")
    for one in without_one(rising()):
        refused(check_validation, measured(targets=one), ["P"], words="must hold the quantiles")
