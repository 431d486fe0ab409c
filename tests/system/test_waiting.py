"""Waits in pieces, which end like `Event.wait`."""

from __future__ import annotations

import threading

import pytest

from stamp_deploy.system.waiting import PIECE_S, wait_for


class Told(threading.Event):
    """Notes the waits, and is set in one of them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.asked: list[float] = []
        self._at = at

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked.append(timeout)
        if len(self.asked) == self._at:
            self.set()
        return self.is_set()


def test_a_wait_without_an_end_is_made_in_pieces() -> None:
    event = Told(at=4)
    assert wait_for(event)
    assert event.asked == [PIECE_S] * 4


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_it_ends_after_its_time(seconds: float) -> None:
    event = Told(at=-1)
    assert not wait_for(event, seconds)
    assert all(piece <= seconds for piece in event.asked)


def test_what_is_set_already_needs_no_time() -> None:
    event = threading.Event()
    event.set()
    assert wait_for(event, 0) and wait_for(event)
