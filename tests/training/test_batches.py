"""Which batches a process gets, in which order, and what stands beside each tile: without tiles and without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.data import Batches, Loader, batch_of, planned
from stamp_deploy.training.epoch_plan import LEAST, plan_epoch
from stamp_deploy.training.schedule import rate_factor

CONFIG = TrainConfig.from_dict({"cohort": "c", "gmt": "g", "batch_slides": 2, "batch_spots": 24, "seed": 3})


class Rows(Batches):
    """Batches that say what they hold."""

    def make(self, rows: Any, epoch: int, number: int) -> Any:
        return epoch, number, [(i, index.tolist()) for i, index in rows]


def sections(*sizes: int) -> list[Any]:
    """Sections whose numbers tell the section and the row: target 100 i + row, gene 1000 i + row."""
    return [
        SimpleNamespace(
            target=np.array([[100.0 * i + row, 0.0] for row in range(size)], np.float32),
            genes=np.array([[1000.0 * i + row] for row in range(size)], np.float32),
            mask=np.array([True, i % 2 == 0]),
            sample=SimpleNamespace(platform="xy"[i % 2]),
            gather=lambda index, i=i: {"measured": np.full((len(index), 1), i, np.int64), "row": index.copy()},
        )
        for i, size in enumerate(sizes)
    ]


def test_what_stands_beside_a_tile_is_of_its_section_and_row() -> None:
    rows = [(2, np.array([5, 1])), (0, np.array([7])), (1, np.array([3, 0, 2]))]
    batch = batch_of(torch.arange(6.0)[:, None], sections(9, 9, 9), rows)
    assert batch.slide.tolist() == [2, 2, 0, 1, 1, 1]
    assert batch.target[:, 0].tolist() == [205, 201, 7, 103, 100, 102]
    assert batch.genes[:, 0].tolist() == [2005, 2001, 7, 1003, 1000, 1002]
    assert batch.mask[:, 1].tolist() == [True, True, True, False, False, False]
    assert batch.tables["measured"][:, 0].tolist() == [2, 2, 0, 1, 1, 1]
    assert batch.tables["row"].tolist() == [5, 1, 7, 3, 0, 2]
    assert batch.tiles[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    moved = batch.to("cpu")
    assert moved.field is None and torch.equal(moved.tables["row"], batch.tables["row"])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_process_takes_every_so_manieth_batch_and_all_take_as_many(world: int) -> None:
    cohort = sections(100, 60, 90)
    plan = [[(i, index.tolist()) for i, index in rows] for rows in planned(cohort, CONFIG, 4)]
    ranks = [Rows(cohort, CONFIG, rank=rank, world=world) for rank in range(world)]
    share = len(plan) // world
    assert len(plan) > 3 and {one.batches_per_epoch() for one in ranks} == {share}
    for rank, one in enumerate(ranks):
        assert [rows for _, _, rows in one.epoch(4)] == plan[rank::world][:share]


def test_more_processes_than_batches_have_one_each() -> None:
    cohort = sections(20)
    for rank in range(3):
        found = list(Rows(cohort, CONFIG, rank=rank, world=3).epoch(0))
        assert len(found) == 1 and sorted(found[0][2][0][1]) == list(range(20))


def test_a_run_that_goes_on_gets_the_batches_that_were_left() -> None:
    one = Rows(sections(100, 60, 90), CONFIG)
    whole = list(one.epoch(2))
    assert [(epoch, number) for epoch, number, _ in whole] == [(2, k) for k in range(len(whole))]
    for start in (0, 1, len(whole) - 1, len(whole)):
        assert list(one.epoch(2, start)) == whole[start:]


def test_chance_follows_from_seed_and_epoch_alone() -> None:
    cohort = sections(100, 60, 90)
    first, again, later = (list(Rows(cohort, CONFIG).epoch(epoch)) for epoch in (1, 1, 2))
    other = list(Rows(cohort, CONFIG.with_(seed=4)).epoch(1))
    assert first == again
    assert [rows for *_, rows in first] != [rows for *_, rows in later]
    assert [rows for *_, rows in first] != [rows for *_, rows in other]


def test_a_tile_looks_different_in_every_epoch_batch_and_process_and_the_same_when_a_run_goes_on() -> None:
    (section,) = sections(8)
    section.tiles = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
    rows = [(0, np.arange(8))]

    def seen(epoch: int, number: int, rank: int = 0) -> Any:
        loader = Loader([section], CONFIG, 32, (0.5,) * 3, (0.2,) * 3, 1.0, rank=rank, world=2)
        return loader.make(rows, epoch, number).tiles.clone()

    first = seen(0, 0)
    assert torch.equal(first, seen(0, 0))
    assert not any(torch.equal(first, other) for other in (seen(1, 0), seen(0, 1), seen(0, 0, 1)))


def test_rows_of_a_section_are_shuffled_and_cut_into_pieces_of_their_size() -> None:
    """100 rows in pieces of 24: four of 24 and one of 28, as a rest of 4 is too few for losses within a slide."""
    batches = plan_epoch([100, 50], 2, 24, np.random.default_rng(0))
    pieces = [index for rows in batches for i, index in rows if i == 0]
    assert sorted(map(len, pieces)) == [24, 24, 24, 28] and LEAST == 8
    assert sorted(np.concatenate(pieces).tolist()) == list(range(100))
    assert not any(np.array_equal(np.sort(piece), np.arange(piece.min(), piece.max() + 1)) for piece in pieces)
    exact = [len(index) for rows in plan_epoch([56], 1, 24, np.random.default_rng(0)) for _, index in rows]
    assert exact == [24, 24, 8]


def test_sections_of_a_group_are_shown_by_their_size() -> None:
    """60 pieces are 30 of each group; within it a section that is three times as large has three times as many."""
    cohort = sections(240, 120, 720, 360)  # x: 10 and 30 pieces; y: 5 and 15
    plan = planned(cohort, CONFIG.with_(balance="platform"), 0)
    count = [sum(i == section for rows in plan for i, _ in rows) for section in range(4)]
    assert count == [8, 8, 22, 22]


def test_the_rate_rises_to_its_top_and_falls_as_a_cosine_to_the_last_step() -> None:
    rates = [rate_factor(step, 12, 0.25) for step in range(12)]
    cosine = [0.5 * (1 + np.cos(np.pi * k / 9)) for k in range(9)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, *cosine])
    assert rate_factor(0, 5, 0.0) == 1.0, "one step at the least"
    assert rate_factor(4, 4, 1.0) == 1.0
