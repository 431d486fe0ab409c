"""The board by itself, without workers: which slide is given out next, how often, and what its end is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.atomic import DONE_MARKER
from stamp_deploy.batch import work_queue
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.states import AttemptState, OutcomeState
from stamp_deploy.batch.work_queue import MAX_ATTEMPTS, MAX_INTERRUPTIONS, Board, clear_place
from stamp_deploy.batch.workers.tasks import Outcome, Settled, Task

Made = Callable[..., Board]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Boards on one output folder; what is settled goes into `board.told`."""
    monkeypatch.setattr(work_queue, "LOOK_AGAIN_S", 0.0)
    opened: list[Claims] = []

    def make(*, host: str = "here", **how: Any) -> Board:
        claims = Claims(tmp_path / "claims", host=host)
        opened.append(claims)
        told: list[Settled] = []
        board = Board(claims, Ledger(tmp_path / "ledger", host), on_settled=told.append, **how)
        board.told = told  # type: ignore[attr-defined]
        return board

    yield make
    for claims in opened:
        claims.close()


def task(folder: Path, key: str, **more: Any) -> Task:
    return Task(key, folder / f"{key}.svs", folder / "out" / key, **more)


def finish(out: Path) -> None:
    out.mkdir(parents=True)
    (out / DONE_MARKER).write_text("done\n")


def attempts(board: Board, key: str) -> list[tuple[int, str]]:
    return [(row.attempt, str(row.state)) for row in board._ledger.attempts(key)]


def test_lower_priorities_go_first_and_equal_ones_in_order_of_arrival(made: Made, tmp_path: Path) -> None:
    board = made()
    for key, priority in (("c", 1), ("b", 0), ("z", 0), ("a", -1)):
        board.add(task(tmp_path, key, priority=priority))
    assert board.counts() == (4, 0)
    given = [board.take(wait=False) for _ in range(5)]
    assert [one and one.key for one in given] == ["a", "b", "z", "c", None]
    assert board.counts() == (0, 4) and not board.finished()


@pytest.mark.parametrize("state", [OutcomeState.CRASHED, OutcomeState.TIMEOUT])
def test_a_slide_that_takes_its_worker_down_is_tried_once_more_alone_then_quarantined(
    made: Made, tmp_path: Path, state: OutcomeState
) -> None:
    board = made()
    board.add(task(tmp_path, "a"))
    assert MAX_ATTEMPTS == 2
    first = board.take(wait=False)
    assert first is not None and not first.solo
    board.outcome(Outcome("a", state, "lost"))
    board.add(task(tmp_path, "b"))
    other = board.take(wait=False)
    assert other is not None and other.key == "b", "a busy worker gets no slide that must run alone"
    board.outcome(Outcome("b", OutcomeState.DONE))
    second = board.take(wait=True)
    assert second is not None and (second.key, second.solo) == ("a", True)
    board.outcome(Outcome("a", state, "lost again"))
    assert board.settled["a"].state == AttemptState.QUARANTINED and board.settled["a"].attempts == 2
    assert attempts(board, "a") == [(1, str(state)), (2, "quarantined")]
    assert board.take(wait=False) is None


def test_what_fails_with_a_reason_is_not_tried_again(made: Made, tmp_path: Path) -> None:
    board = made()
    board.add(task(tmp_path, "a"))
    board.take(wait=False)
    board.outcome(Outcome("a", OutcomeState.FAILED, "no microns per pixel", 1.5))
    assert board.settled["a"] == Settled("a", AttemptState.FAILED, "no microns per pixel", 1, 1.5)
    assert board.finished() and board.told == [board.settled["a"]]  # type: ignore[attr-defined]
    later = made()
    later.add(task(tmp_path, "a"))
    assert later.take(wait=False) is None
    assert (later.settled["a"].state, later.settled["a"].by) == (AttemptState.FAILED, "an earlier attempt")
    again = made(retry_failed=True)
    again.add(task(tmp_path, "a"))
    assert again.take(wait=False) is not None
    again.outcome(Outcome("a", OutcomeState.FAILED, "still none"))
    again.add(task(tmp_path, "a"))
    assert again.take(wait=False) is None, "a retry is asked for once a run"
    changed = made()
    changed.add(task(tmp_path, "a"))
    changed.take(wait=False)
    changed.add(task(tmp_path, "a", again=True))
    assert "a" not in changed.settled
    assert changed.take(wait=False) is not None, "the slide has changed since"


def test_interruptions_are_nobodys_fault_until_they_are_too_many(made: Made, tmp_path: Path) -> None:
    board = made()
    board.add(task(tmp_path, "a"))
    for number in range(MAX_INTERRUPTIONS):
        given = board.take(wait=False)
        assert given is not None and not given.solo, number
        board.outcome(Outcome("a", OutcomeState.INTERRUPTED, "the node went away"))
    assert "a" not in board.settled
    assert board.take(wait=False) is not None
    board.outcome(Outcome("a", OutcomeState.INTERRUPTED, "the node went away"))
    assert board.settled["a"].state == AttemptState.QUARANTINED
    assert attempts(board, "a")[-1] == (MAX_INTERRUPTIONS + 1, "quarantined")


def test_after_a_stop_nothing_is_given_out_or_tried_again(made: Made, tmp_path: Path) -> None:
    board = made()
    for key in "ab":
        board.add(task(tmp_path, key))
    board.take(wait=False)
    board.stop()
    assert board.take(wait=True) is None and board.finished()
    board.outcome(Outcome("a", OutcomeState.INTERRUPTED, "stopped"))
    assert board.counts() == (1, 0) and board.settled == {}
    later = made()
    later.add(task(tmp_path, "a"))
    assert later.take(wait=False) is not None


def test_a_full_disk_stops_the_batch_and_counts_against_no_slide(made: Made, tmp_path: Path) -> None:
    board = made()
    for key in "ab":
        board.add(task(tmp_path, key))
    board.take(wait=False)
    board.outcome(Outcome("a", OutcomeState.DISK, "no space"))
    assert board.disk_error == "no space" and board.settled == {}
    assert board.take(wait=True) is None
    assert attempts(board, "a") == [(1, "interrupted")]


def test_a_result_that_is_there_is_not_made_again_and_one_that_was_deleted_is(made: Made, tmp_path: Path) -> None:
    board = made()
    finish(tmp_path / "out" / "a")
    board.add(task(tmp_path, "a"))
    assert board.take(wait=False) is None and board.settled["a"].by == "another process"
    board.add(task(tmp_path, "b"))
    given = board.take(wait=False)
    assert given is not None
    finish(given.out)
    board.outcome(Outcome("b", OutcomeState.DONE, "", 2.0, {"tiles": {"ok": 7}}))
    (row,) = board._ledger.attempts("b")
    assert (row.state, row.tiles, row.seconds) == (AttemptState.DONE, 7, 2.0)
    (given.out / DONE_MARKER).unlink()
    later = made()
    later.add(task(tmp_path, "b"))
    assert later.take(wait=False) is not None, "it is wanted again"
    aside = list((tmp_path / "out" / work_queue.STATE_FOLDER / work_queue.SET_ASIDE).iterdir())
    assert [path.name.split(".")[0] for path in aside] == ["b"], "somebody may have put something into it"


def test_a_slide_that_another_process_holds_is_waited_for_where_that_is_wanted(made: Made, tmp_path: Path) -> None:
    holder = made()
    holder.add(task(tmp_path, "a"))
    assert holder.take(wait=False) is not None
    waiting, hurried = made(), made(wait_for_others=False)
    for board in (waiting, hurried):
        board.add(task(tmp_path, "a"))
        assert board.take(wait=False) is None and board.counts() == (1, 0)
    assert hurried.finished() and hurried.take(wait=True) is None
    assert not waiting.finished()
    finish(tmp_path / "out" / "a")
    holder.outcome(Outcome("a", OutcomeState.DONE))
    assert waiting.take(wait=True) is None and waiting.settled["a"].state == AttemptState.DONE


def test_while_a_folder_is_watched_the_work_is_not_over(made: Made, tmp_path: Path) -> None:
    board = made()
    board.hold_open(True)
    assert not board.finished() and board.take(wait=False) is None
    board.hold_open(False)
    assert board.finished() and board.take(wait=True) is None


def test_leftovers_of_a_killed_worker_are_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out" / "a"
    clear_place(out)
    (out.parent).mkdir(exist_ok=True)
    out.write_text("a file in the place of the result")
    clear_place(out)
    assert not out.exists()
    (kept,) = (out.parent / work_queue.STATE_FOLDER / work_queue.SET_ASIDE).iterdir()
    assert kept.read_text().startswith("a file")


def test_words_of_states() -> None:
    assert {state for state in AttemptState if state.final} == {
        AttemptState.DONE, AttemptState.FAILED, AttemptState.QUARANTINED,
    }  # fmt: skip
    assert {state for state in AttemptState if state.counts} == {AttemptState.CRASHED, AttemptState.TIMEOUT}


def test_a_tasks_words_are_json(tmp_path: Path) -> None:
    one = replace(task(tmp_path, "a"), mpp=0.25)
    assert one.to_dict() == {
        "key": "a",
        "slide": str(tmp_path / "a.svs"),
        "out": str(tmp_path / "out" / "a"),
        "mpp": 0.25,
    }
