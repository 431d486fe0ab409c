"""Options are checked when they are made, and hashed by what can change a score."""

from __future__ import annotations

import dataclasses

import pytest

from stamp_deploy.config import InferOptions
from stamp_deploy.errors import UsageError


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0},
        {"batch": 5000},
        {"threads": -1},
        {"max_unreadable": 1.5},
        {"max_unreadable": float("nan")},
        {"time_limit_s": 0.0},
        {"time_limit_s": float("inf")},
        {"writers": ()},
    ],
)
def test_impossible_values_are_refused(values: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError):
        InferOptions(**values)


def test_the_hash_covers_what_changes_scores_only() -> None:
    base = InferOptions()
    assert dataclasses.replace(base, threads=2, overwrite=True).sha256() == base.sha256()
    assert dataclasses.replace(base, exact=True).sha256() != base.sha256()
    assert dataclasses.replace(base, mpp=0.25).sha256() != base.sha256()
