"""Limits of the reference of what a model knows, from both sides.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.bundle_limits import ends, put, refused, without_one

from stamp_deploy.bundle.reference import read_reference


def reference() -> dict[str, Any]:
    return {
        "schema": "stamp-deploy/trust/1", "mpp": 0.5, "tile_px": 64, "left_out_by": "patient", "groups": 2, "tiles": 9,
        "statistics": {"centre": [1.0, 2.0], "spread": [1.0, 1.0], "whiten": [[1.0, 0.0], [0.0, 1.0]],
                       "distances": [float(i) for i in range(101)], "median": 3.0},
        "limits": {"low": [0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0]},
        "embedding": {"centre": [0.0] * 4, "whiten": [[1.0]] * 4, "median": 2.0, "tiles": 9},
    }  # fmt: skip


def read(value: dict[str, Any]) -> Any:
    return read_reference(json.dumps(value).encode(), mpp=0.5, tile_px=64, embedding_dim=4)


REFERENCE = [
    ends("groups", 1, 0, 1_000_000, 1_000_001),
    ends("tiles", 1, 0, 1_000_000_000, 1_000_000_001),
    ends("statistics.median", 1e-6, 0.9e-6, 1e6, 1.1e6),
    ends("statistics.centre.1", -1e6, -1.1e6, 1e6, 1.1e6),
    ends("statistics.spread.0", 1e-12, 0.0, 1e6, -1.0),
    ends("statistics.distances.0", 0.0, -1e-9, 1.0, 1 + 1e-9),  # the next is 1
    ends("statistics.distances.100", 99.0, 98.9, 1e6, 1.1e6),
    ends("limits.low.2", -1e6, -1.1e6, 1.0, 1 + 1e-9),
    ends("limits.high.0", 0.0, -1e-9, 1e6, 1.1e6),
    ends("embedding.median", 1e-6, 0.9e-6, 1e6, 1.1e6),
    ends("embedding.tiles", 1, 0, 1_000_000_000, 1_000_000_001),
    ends("embedding.whiten", [[1.0]] * 4, [[1.0]] * 3, [[1.0] * 64] * 4, [[1.0] * 65] * 4),
    ends("embedding.centre", [0] * 4, [0.0] * 3, [-1e6] * 4, [0.0] * 5),
]


@pytest.mark.parametrize(("place", "inside", "outside"), REFERENCE, ids=[row[0] for row in REFERENCE])
def test_both_ends_of_what_a_reference_holds(place: str, inside: Any, outside: Any) -> None:
    for value in inside:
        read(put(reference(), place, value))
    for value in outside:
        refused(read, put(reference(), place, value))


def test_a_reference_is_read_into_its_own_fields() -> None:
    found = read(reference())
    assert (found.mpp, found.tile_px, found.left_out_by, found.groups, found.tiles) == (0.5, 64, "patient", 2, 9)
    assert found.centre.tolist() == [1, 2] and found.spread.tolist() == [1, 1] and found.median == 3
    assert found.whiten.tolist() == [[1, 0], [0, 1]] and found.distances.tolist() == list(range(101))
    assert found.low.tolist() == [0, 0, 0] and found.high.tolist() == [1, 1, 1]
    assert found.embedding.whiten.tolist() == [[1]] * 4 and (found.embedding.median, found.embedding.tiles) == (2, 9)
    assert json.loads(found.to_json()) == reference()
    assert json.loads(read(reference() | {"embedding": None}).to_json()) == reference() | {"embedding": None}


def test_a_reference_keeps_seven_digits() -> None:
    found = json.loads(read(put(reference(), "statistics.centre.0", 1.23456789)).to_json())
    assert found["statistics"]["centre"][0] == 1.234568


def test_records_hold_their_keys_and_no_others() -> None:
    for place in ("", "statistics", "limits", "embedding"):
        value = reference()
        for one in without_one(value[place] if place else value):
            refused(read, {**value, place: one} if place else one)
