"""The pool of decoded storage tiles: no slot is given twice, none is lost, contents survive growth."""

from __future__ import annotations

import numpy as np
import pytest

from stamp_deploy import _tiler
from stamp_deploy.tiles import slot_pool
from stamp_deploy.tiles.slot_pool import PoolFull, SlotPool

SLOT = 4096


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for four slots at first, for twenty at most."""
    monkeypatch.setattr(slot_pool, "ROOM_BYTES", 4 * SLOT)
    monkeypatch.setattr(slot_pool, "POOL_BYTES", 20 * SLOT)


def pool() -> SlotPool:
    return SlotPool(3, 10, SLOT, 640, 120)


def use(held: SlotPool, cells: list[int]) -> dict[int, int]:
    """As the core does: each cell decoded into a slot of its own."""
    slots = held.take(len(cells))
    held._slot.reshape(-1)[cells] = slots
    held.state[cells] = 0
    return dict(zip(cells, slots.tolist(), strict=True))


@pytest.mark.usefixtures("small")
def test_slots_are_given_once_and_again_after_they_were_forgotten() -> None:
    held = pool()
    first = use(held, [0, 1, 2])
    assert sorted(first.values()) == [0, 1, 2]
    second = use(held, [3])
    assert set(second.values()) == {3}
    assert held.held_most == 4
    held.forget(np.array([1, 2]))
    assert (held.state[[1, 2]] == _tiler.UNREAD).all()
    assert (held.state[[0, 3]] == 0).all()
    assert (held._slot.reshape(-1)[[1, 2]] == -1).all()
    third = use(held, [4, 5])
    assert set(third.values()) == {first[1], first[2]}
    assert third[4] == first[2]  # freed last, given first
    assert held.held_most == 4


@pytest.mark.usefixtures("small")
def test_forgetting_what_was_never_decoded_frees_nothing() -> None:
    held = pool()
    use(held, [0, 1])
    held.forget(np.array([7, 8]))
    held.forget(np.array([0]))
    held.forget(np.array([0]))
    given = held.take(3).tolist()
    assert len(set(given)) == 3
    assert 1 not in given


@pytest.mark.usefixtures("small")
def test_slots_into_which_nothing_was_decoded_are_given_back() -> None:
    held = pool()
    cells = np.array([0, 1, 2])
    slots = held.take(3)
    held._slot.reshape(-1)[[0, 2]] = slots[[0, 2]]
    held.give_back_unused(cells, slots)
    assert set(held.take(2).tolist()) == {int(slots[1]), 3}


@pytest.mark.usefixtures("small")
def test_a_pool_that_grows_keeps_what_it_holds() -> None:
    held = pool()
    before = use(held, [0, 1, 2, 3])
    for cell, slot in before.items():
        held._pool[slot] = cell + 1
    held.forget(np.array([1]))
    after = use(held, [4, 5, 6])
    assert held._pool.shape == (2 * 4 + 2, SLOT)
    assert len({before[0], before[2], before[3], *after.values()}) == 6
    for cell in (0, 2, 3):
        assert (held._pool[before[cell]] == cell + 1).all()
    assert held.held_most == 6


@pytest.mark.usefixtures("small")
def test_a_pool_grows_to_its_limit_and_says_what_it_would_need() -> None:
    held = pool()
    use(held, list(range(4)))
    use(held, list(range(4, 10)))  # 2 * 4 + 6: 14 slots
    assert len(held._pool) == 14
    use(held, list(range(10, 18)))  # 2 * 14 + 4 would be 32: so only what is short
    assert len(held._pool) == 18
    use(held, [18, 19])
    assert len(held._pool) == 20
    with pytest.raises(PoolFull) as full:
        held.take(1)
    assert (full.value.slots, full.value.slot_bytes) == (21, SLOT)


def test_the_pool_begins_with_64_mib_and_one_slot_at_least() -> None:
    assert len(SlotPool(1, 1, 1 << 20, 10, 10)._pool) == 64
    assert len(SlotPool(1, 1, 65 << 20, 10, 10)._pool) == 1
    assert slot_pool.POOL_BYTES == 1 << 30
