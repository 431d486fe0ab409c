"""The stage that is named as the limit: start-up and writing count, too."""

from __future__ import annotations

import pytest
from support.result_factory import make_result

from stamp_deploy.timing import add_time, limiting_stage

TIMING = {
    "start_up": 2.0,
    "open_and_tissue": 1.0,
    "wait_for_tiles": 3.0,
    "engine": 7.0,
    "stream": 10.0,
    "heads": 0.5,
    "tiler_read": 1.0,
    "tiler_decode": 5.0,
    "tiler_resample": 2.0,
}


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({}, "engine"),
        ({"wait_for_tiles": 8.0, "engine": 2.0}, "decode"),
        ({"start_up": 11.0}, "start_up"),
        ({"open_and_tissue": 11.0}, "open_and_tissue"),
        ({"heads": 11.0}, "heads"),
        ({"write": 11.0}, "write"),
        ({"write": 9.0}, "engine"),
    ],
)
def test_the_longest_stage_is_named(changes: dict[str, float], stage: str) -> None:
    assert limiting_stage({**TIMING, **changes}) == stage


def test_nothing_measured_names_the_engine() -> None:
    assert limiting_stage({}) == "engine"


def test_writing_is_added_to_a_result() -> None:
    result = add_time(make_result(n_tiles=20, timing=TIMING), "write", 25.0)
    assert (result.timing["write"], result.limiting) == (25.0, "write")
