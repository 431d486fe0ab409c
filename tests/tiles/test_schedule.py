"""The order of serving, what it needs and when it may forget: against every storage tile counted one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.tiles import schedule
from stamp_deploy.tiles.schedule import Serving, Storage


def serving(
    columns: int = 10,
    rows: int = 6,
    span: tuple[float, float] = (30.0, 50.0),
    step: tuple[float, float] = (30.0, 50.0),
    *,
    keep: NDArray[np.bool_] | None = None,
    inside: float = 1.0,
    **storage: Any,
) -> Serving:
    """A grid over storage tiles of 64 x 40 decoded pixels; `keep` leaves tiles out.

    Of the last tiles, the share `inside` lies in the picture.
    """
    row, column = np.divmod(np.arange(columns * rows), columns)
    corners = np.stack([column * step[0], row * step[1]], axis=1)
    width, height = corners.max(0) + np.array(span) * inside
    keep = np.ones(len(row), bool) if keep is None else keep
    size: dict[str, Any] = {"tile_w": 64, "tile_h": 40, "slot_bytes": 64 * 40 * 3, **storage}
    across, down = -(-int(width) // size["tile_w"]), -(-int(height) // size["tile_h"])
    return Serving(
        corners[keep], column[keep].astype(np.int32), row[keep].astype(np.int32), *span, Storage(down, across, **size)
    )


def touched(plan: Serving, tile: int) -> set[int]:
    """Storage tiles that share a pixel with a tile, pixel by pixel."""
    (x, y), storage = plan.corners[tile], plan.storage
    columns = {int(p) // storage.tile_w for p in range(int(np.floor(x)), int(np.ceil(x + plan.span_x - 1e-6)))}
    rows = {int(p) // storage.tile_h for p in range(int(np.floor(y)), int(np.ceil(y + plan.span_y - 1e-6)))}
    return {r * storage.columns + c for r in rows if r < storage.rows for c in columns if c < storage.columns}


@pytest.fixture(params=[2, 3, 100])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Strips of so many storage tiles."""
    monkeypatch.setattr(schedule, "MIN_STRIP", request.param)
    monkeypatch.setattr(schedule, "MAX_STRIP", request.param)
    return int(request.param)


CASES: dict[str, dict[str, Any]] = {
    "touching": {},
    "overlapping": {"step": (20.0, 35.0)},
    "apart": {"step": (80.0, 95.0)},
    "broken sizes": {"span": (30.7, 50.3), "step": (30.7, 50.3)},
    "on the borders": {"span": (64.0, 40.0), "step": (64.0, 40.0)},
    "a hair over the borders": {"span": (64.0000001, 40.0000001), "step": (64.0, 40.0)},
    "scattered": {"keep": np.random.default_rng(1).random(60) > 0.6},
    "beyond the picture": {"inside": 0.5, "span": (150.0, 90.0), "step": (150.0, 90.0)},
    "small": {"span": (3.0, 4.0), "step": (3.0, 4.0), "columns": 40, "rows": 30},
}


@pytest.mark.parametrize("case", CASES)
def test_strips_are_served_row_by_row(case: str, narrow: int) -> None:
    plan = serving(**CASES[case])
    assert plan.tiles_across == max(1, int(narrow * 64 / plan.span_x))
    order = plan.order()
    assert sorted(order.tolist()) == list(range(len(plan.corners)))
    column, row = plan.grid_columns[order], plan.grid_rows[order]
    key = np.stack([column // plan.tiles_across, row, column], axis=1).tolist()
    assert key == sorted(key)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seam", [0, 1 << 30])
def test_each_storage_tile_is_there_when_it_is_needed_and_gone_after(
    case: str, seam: int, narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "SEAM_BYTES", seam)
    plan = serving(**CASES[case])
    order = plan.order()
    needed = [touched(plan, int(tile)) for tile in order]
    strips = list(plan.strips(order))
    assert [strip.start for strip in strips] == [0, *(strip.stop for strip in strips[:-1])]
    assert strips[-1].stop == len(order)
    for number, strip in enumerate(strips):
        inside = range(strip.start, strip.stop)
        cells = set.union(*(needed[i] for i in inside))
        first = {cell: next(i for i in inside if cell in needed[i]) for cell in cells}
        last = {cell: max(i for i in inside if cell in needed[i]) for cell in cells}
        assert dict(zip(strip.by_first_use.tolist(), strip.first_use.tolist(), strict=True)) == first
        assert (np.diff(strip.first_use) >= 0).all()
        assert (np.diff(strip.last_use) >= 0).all()
        kept: set[int] = set()
        if seam and number + 1 < len(strips):
            later = strips[number + 1]
            kept = cells & set.union(*(needed[i] for i in range(later.start, later.stop)))
        gone = {cell: place for cell, place in last.items() if cell not in kept}
        assert dict(zip(strip.by_last_use.tolist(), strip.last_use.tolist(), strict=True)) == gone


def test_a_seam_is_kept_up_to_32_mib_of_decoded_tiles() -> None:
    assert schedule.SEAM_BYTES == 32 << 20
    plan = serving(columns=200, rows=2)
    for slot_bytes, kept in ((plan.storage.rows and (32 << 20) // plan.storage.rows, True), ((32 << 20), False)):
        plan = serving(columns=200, rows=2, slot_bytes=slot_bytes)
        first, second, *_ = plan.strips(plan.order())
        on_the_seam = set(first.by_first_use.tolist()) & set(second.by_first_use.tolist())
        assert on_the_seam
        assert (on_the_seam & set(first.by_last_use.tolist()) == set()) == kept


@pytest.mark.parametrize(
    ("slot_bytes", "wide"), [(1, 96), (43_690, 96), (43_700, 95), (100_000, 41), (174_000, 24), (1 << 20, 24)]
)
def test_a_strip_is_four_mib_wide_within_24_to_96_storage_tiles(slot_bytes: int, wide: int) -> None:
    plan = serving(span=(64.0, 40.0), slot_bytes=slot_bytes)
    assert plan.tiles_across == wide


def test_a_tile_wider_than_a_strip_is_one_column() -> None:
    plan = serving(columns=3, rows=2, span=(64.0 * 30, 40.0), step=(64.0 * 30, 40.0), slot_bytes=1 << 20)
    assert plan.tiles_across == 1


def test_no_tiles_need_no_strips() -> None:
    plan = serving(keep=np.zeros(60, bool))
    assert list(plan.strips(plan.order())) == []


@pytest.mark.parametrize(
    ("corner", "length", "uses"),
    [
        (0.0, 64.0, (0, 0)), (64.0, 64.0, (1, 1)), (63.0, 64.0, (0, 1)), (63.0, 65.0, (0, 1)), (63.0, 66.0, (0, 2)),
        (64.0, 64.0 + 8e-7, (1, 1)), (64.0 - 8e-7, 64.0, (1, 1)), (64.0 + 5e-7, 64.0 + 8e-7, (1, 1)),
        (64.0 + 5e-7, 64.0, (1, 1)), (64.1, 64.0, (1, 2)), (64.0, 64.1, (1, 2)), (-40.0, 64.0, (0, 0)),
        (-40.0, 30.0, (0, -1)), (-0.5, 130.0, (0, 2)), (500.0, 200.0, (7, 8)), (0.25, 63.75, (0, 0)),
    ],
)  # fmt: skip
def test_the_first_and_the_last_storage_tile_of_an_edge(corner: float, length: float, uses: tuple[int, int]) -> None:
    """Nine of 64 px; a millionth of a pixel is rounding."""
    first, last = schedule._span(np.array([corner]), length, 64, 9)
    assert (int(first[0]), int(last[0])) == uses
