"""The summary beside a watch: when it is written, what it keeps, and that nothing it meets stops the watch."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.result_factory import stored
from support.result_folders import slide_result

import stamp_deploy.cases
from stamp_deploy.batch import summary as summary_module
from stamp_deploy.batch.options import BatchOptions
from stamp_deploy.batch.planning.plan import Finding
from stamp_deploy.batch.states import FindingKind
from stamp_deploy.batch.summary import BUSY_S, REST, RunningSummary
from stamp_deploy.cases import thumbnails as pictures
from stamp_deploy.cases import write_summary
from stamp_deploy.cases.slide_record import Unread
from stamp_deploy.cases.thumbnails import Thumbnails
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import DiskError


class Harness:
    """A running summary over a stand-in for `write_summary`, which takes `took_s` by a clock that we turn."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: tuple[str, ...] = ("json",)) -> None:
        self.now, self.took_s, self.written = 1000.0, 2.0, 0
        self.outcome: Callable[[], tuple[Unread, ...]] = tuple
        self.told: list[Finding] = []
        monkeypatch.setattr(stamp_deploy.cases, "write_summary", self.write)
        view = SimpleNamespace(tell=self.told.append)
        options = BatchOptions(bundle=tmp_path, out=tmp_path / "out", infer=InferOptions(writers=writers))
        self.summary = RunningSummary(options, view, clock=lambda: self.now)  # type: ignore[arg-type]

    def write(self, out: Path, thumbnails: Thumbnails) -> SimpleNamespace:
        self.written += 1
        self.now += self.took_s
        return SimpleNamespace(unread=self.outcome())

    def look(self, *, idle: bool) -> int:
        """Look, wait, and say how many were written by now."""
        self.summary.look(idle=idle)
        self.summary.finish(write=False)
        return self.written


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(tmp_path, monkeypatch)


def test_nothing_is_written_before_a_result_and_none_twice(harness: Harness) -> None:
    assert harness.look(idle=True) == 0
    harness.summary.result_added()
    assert harness.look(idle=True) == 1
    harness.now += 1e6
    assert harness.look(idle=True) == 1


def test_an_idle_watch_writes_after_a_rest_that_is_twenty_times_the_work(harness: Harness) -> None:
    harness.summary.result_added()
    assert harness.look(idle=True) == 1
    harness.summary.result_added()
    harness.now += REST * harness.took_s - 0.5
    assert harness.look(idle=True) == 1
    harness.now += 0.5
    assert harness.look(idle=True) == 2


def test_a_busy_watch_writes_once_a_minute_and_rests_as_long(harness: Harness) -> None:
    harness.summary.result_added()
    assert harness.look(idle=False) == 1
    harness.summary.result_added()
    harness.now += BUSY_S - 0.5
    assert harness.look(idle=False) == 1
    harness.now += 0.5
    harness.took_s = 10.0
    assert harness.look(idle=False) == 2
    harness.summary.result_added()
    harness.now += BUSY_S
    assert harness.look(idle=False) == 2
    harness.now += REST * 10.0 - BUSY_S
    assert harness.look(idle=False) == 3


def test_at_the_end_what_came_since_is_taken_in(harness: Harness) -> None:
    harness.summary.result_added()
    assert harness.look(idle=True) == 1
    harness.summary.finish(write=True)
    assert harness.written == 1
    harness.summary.result_added()
    harness.summary.finish(write=False)  # a watch that was stopped: the next one writes it
    assert harness.written == 1
    harness.summary.finish(write=True)
    assert harness.written == 2


def test_it_is_written_beside_the_watch_and_what_comes_meanwhile_counts(harness: Harness) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def outcome() -> tuple[Unread, ...]:
        inside.set()
        assert go_on.wait(60)
        return ()

    harness.outcome = outcome
    harness.summary.result_added()
    harness.summary.look(idle=True)
    assert inside.wait(60)
    harness.summary.result_added()
    harness.now += 1e6
    harness.summary.look(idle=True)  # one is being written: no second one is begun
    go_on.set()
    harness.summary.finish(write=True)
    assert harness.written == 2


@pytest.mark.parametrize("error", [DiskError("the disk is full"), ValueError("of a library"), MemoryError()])
def test_a_failure_is_told_once_and_tried_again_after_a_minute(harness: Harness, error: Exception) -> None:
    def fails() -> tuple[Unread, ...]:
        raise error

    harness.outcome, harness.took_s = fails, 0.0
    harness.summary.result_added()
    assert harness.look(idle=True) == 1
    assert harness.look(idle=True) == 1
    harness.now += BUSY_S
    assert harness.look(idle=True) == 2
    (finding,) = harness.told
    assert finding.kind == FindingKind.NO_SUMMARY and finding.detail.startswith("the results could not be summarised")
    harness.outcome = tuple
    harness.now += BUSY_S
    assert harness.look(idle=True) == 3
    harness.now += BUSY_S
    assert harness.look(idle=True) == 3


def test_a_result_that_cannot_be_read_is_told_once(harness: Harness) -> None:
    harness.outcome, harness.took_s = lambda: (Unread("b-1", "it holds no result.json"),), 0.0
    for number in (1, 2):
        harness.summary.result_added()
        assert harness.look(idle=True) == number
    assert [(one.name, one.detail) for one in harness.told] == [
        ("b-1", "it is not in the summary: it holds no result.json")
    ]


def test_without_json_there_is_nothing_to_summarise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(tmp_path, monkeypatch, writers=("heatmaps",))
    harness.summary.result_added()
    assert harness.look(idle=True) == 0
    harness.summary.finish(write=True)
    assert harness.written == 0


def test_pictures_are_read_once_and_again_where_the_result_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for seed, name in enumerate(("a", "b")):
        stored(slide_result(f"{name}.svs", [0.0] * 5, seed=seed), out / name, ("json", "hdf5"))
    read: list[str] = []
    real = pictures.read_small_thumbnail
    monkeypatch.setattr(pictures, "read_small_thumbnail", lambda path: read.append(path.parent.name) or real(path))
    kept = Thumbnails()
    first = write_summary(out, thumbnails=kept)
    page = (first.folder / "index.html").read_bytes()
    assert sorted(read) == ["a", "b"] and page.count(b"data:image/jpeg;base64,") == 2
    write_summary(out, thumbnails=kept)
    assert len(read) == 2 and (first.folder / "index.html").read_bytes() == page
    stored(slide_result("b.svs", [1.0] * 5, seed=3), out / "other", ("json", "hdf5"))
    (out / "b").rename(out / "gone")
    (out / "other").rename(out / "b")
    (out / "gone" / "DONE").unlink()
    write_summary(out, thumbnails=kept)
    assert read[2:] == ["b"]


LOADED_AHEAD = """
import sys
from pathlib import Path
from stamp_deploy.batch import summary
from stamp_deploy.cases import write_summary

def large():
    return {name.split(".")[0] for name in sys.modules} & {"matplotlib", "pyarrow", "scipy", "PIL"}

print(*sorted(large()))
summary._load()
print(*sorted(large()))
write_summary(Path(sys.argv[1]))
print(*sorted(large()))
"""


def test_what_a_summary_needs_is_loaded_ahead(tmp_path: Path) -> None:
    """No large library is left to load when the summary is written."""
    for seed, name in enumerate(("a", "b")):
        stored(slide_result(f"{name}.svs", [0.0] * 5, seed=seed), tmp_path / name, ("json", "hdf5"))
    command = [sys.executable, "-c", LOADED_AHEAD, str(tmp_path)]
    before, ahead, after = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "matplotlib" not in before and "pyarrow" not in before
    assert ahead == after == "PIL matplotlib pyarrow scipy"


ENDS_AT_ONCE = """
import sys
import threading
from pathlib import Path
from stamp_deploy.batch import summary
from stamp_deploy.batch.options import BatchOptions
from stamp_deploy.config import InferOptions

begun, ended = threading.Event(), threading.Event()

def load(name):
    print("loads", name)
    begun.set()
    ended.wait(0.2)  # the main thread ends meanwhile

summary.import_module = load
summary.load_ahead(BatchOptions(Path("b"), Path("o"), InferOptions(writers=("json",))))
begun.wait()
print("the end")
"""


def test_a_process_that_ends_waits_for_the_library_that_is_being_loaded_and_loads_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS_AT_ONCE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"loads {summary_module.LIBRARIES[0]}", "the end"]


@pytest.mark.parametrize(("writers", "threads"), [(("json", "hdf5"), 1), (("heatmaps",), 0)])
def test_nothing_is_loaded_for_a_summary_that_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: tuple[str, ...], threads: int
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(summary_module, "_load", lambda: loaded.append("all"))
    before = set(threading.enumerate())
    summary_module.load_ahead(BatchOptions(tmp_path, tmp_path, InferOptions(writers=writers)))
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert len(loaded) == threads
