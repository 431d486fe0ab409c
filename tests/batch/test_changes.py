"""A slide whose bytes have changed since it was scored is noticed, at the cost of a stat where they have not."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stamp_deploy.atomic import staged_directory
from stamp_deploy.batch.planning.changes import Changes
from stamp_deploy.batch.planning.dicom_series import read_series
from stamp_deploy.batch.planning.inputs import Entry
from stamp_deploy.batch.planning.plan import Plan, PlannedSlide, SlideFacts
from stamp_deploy.batch.planning.planner import plan_batch
from stamp_deploy.batch.records.slide_states import SlideStates, file_state

SIZE = 8 << 20
BETWEEN = 2 << 20
"""A place between the samples of the fingerprint."""


class Folder:
    """Slides, an output folder, and how often a slide was hashed whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.states = SlideStates(self.out / ".stamp" / "slides")
        self.hashed: list[str] = []

    def identity(self, path: Path) -> str:
        self.hashed.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def plan(self, path: Path, *, note: bool = True) -> Plan:
        return plan_batch(
            [Entry(path)],
            self.out,
            probe=lambda path, mpp: SlideFacts(10, 10, 0.5, 0.5, "aperio", "jpeg-tiff"),
            is_done=lambda key: (self.out / key / "DONE").exists(),
            changes=Changes(self.out, self.states, self.identity, read_series, note=note),
            bytes_per_tile=1,
            tile_span_um=1.0,
        )

    def slide(self, path: Path) -> PlannedSlide:
        (slide,) = self.plan(path).slides
        return slide

    def score(self, path: Path, *, sha256: str | None = None) -> PlannedSlide:
        """As a run does: a whole result, and the note about it."""
        slide = self.slide(path)
        assert slide.state == "run"
        with staged_directory(self.out / slide.key) as staging:
            (staging / "tiles.h5").write_text("x")
        self.states.put(
            slide.key, hashlib.sha256(path.read_bytes()).hexdigest() if sha256 is None else sha256, slide.file_state
        )
        return slide


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "a.svs").write_bytes(bytes(SIZE))
    return Folder(tmp_path)


def _change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(BETWEEN)
        file.write(b"other bytes")


def test_an_unchanged_slide_is_done_and_not_hashed(folder: Folder) -> None:
    first = folder.score(folder.folder / "a.svs")
    again = folder.slide(folder.folder / "a.svs")
    assert (again.state, again.key) == ("done", first.key)
    assert folder.hashed == []


def test_changed_bytes_of_equal_samples_are_scored_again(folder: Folder) -> None:
    path = folder.folder / "a.svs"
    first = folder.score(path)
    _change(path)
    plan = folder.plan(path)
    (changed,) = plan.slides
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (changed.state, changed.key) == ("run", f"{first.key}-{sha256[:12]}")
    assert changed.fingerprint == first.fingerprint  # the cheap look does not see it
    assert [finding.kind for finding in plan.findings] == ["changed-content"]
    assert (folder.out / first.key / "DONE").exists()  # the result of the old bytes stays
    with staged_directory(folder.out / changed.key) as staging:
        (staging / "tiles.h5").write_text("y")
    folder.states.put(changed.key, sha256, changed.file_state)
    assert folder.slide(path).state == "done"


@pytest.mark.parametrize("trick", ["times set back", "in place of an equal name", "touched"])
def test_what_can_hide_a_change_is_seen(folder: Folder, trick: str) -> None:
    path = folder.folder / "a.svs"
    folder.score(path)
    before = path.stat()
    if trick == "in place of an equal name":
        other = folder.folder / "new"
        shutil.copyfile(path, other)
        _change(other)
        os.replace(other, path)
    elif trick == "times set back":
        _change(path)
    time.sleep(0.02)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert folder.slide(path).state == ("done" if trick == "touched" else "run")
    assert folder.hashed == ["a.svs"]


def test_a_moved_slide_is_hashed_once(folder: Folder) -> None:
    folder.score(folder.folder / "a.svs")
    (folder.folder / "moved").mkdir()
    moved = folder.folder / "moved" / "a.svs"
    shutil.copyfile(folder.folder / "a.svs", moved)
    assert folder.slide(moved).state == "done"
    assert folder.slide(moved).state == "done"
    assert folder.slide(folder.folder / "a.svs").state == "done"  # the first place is not forgotten
    assert folder.hashed == ["a.svs"]


def test_a_slide_that_changed_between_plan_and_score_is_found_out(folder: Folder) -> None:
    """The run's own hash is of other bytes than the plan saw."""
    path = folder.folder / "a.svs"
    other = bytes(SIZE - 1) + b"x"
    first = folder.score(path, sha256=hashlib.sha256(other).hexdigest())
    assert folder.slide(path).state == "done"  # nothing has changed since
    os.utime(path)
    again = folder.slide(path)
    assert again.state == "run" and again.key != first.key


def test_a_dry_run_writes_nothing(folder: Folder) -> None:
    path = folder.folder / "a.svs"
    slide = folder.score(path)
    shutil.rmtree(folder.states.folder)
    assert folder.plan(path, note=False).slides[0].state == "done"
    assert folder.states.get(slide.key) is None and folder.hashed == []


def test_a_result_without_a_note_is_compared_with_what_it_says_itself(folder: Folder) -> None:
    path = folder.folder / "a.svs"
    slide = folder.score(path)
    shutil.rmtree(folder.states.folder)
    (folder.out / slide.key / "result.json").write_text('{"slide": {"sha256": "' + "0" * 64 + '"}}')
    assert folder.slide(path).state == "run"


def test_a_result_of_which_nothing_is_known_is_trusted_and_watched(folder: Folder) -> None:
    path = folder.folder / "a.svs"
    folder.score(path)
    shutil.rmtree(folder.states.folder)
    assert folder.slide(path).state == "done"
    _change(path)
    assert folder.slide(path).state == "run"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"sha256": 5, "states": [1]}', '{"sha256": "a", "states": 3}', "\0" * 50]
)
def test_a_damaged_note_is_as_good_as_none(folder: Folder, content: str) -> None:
    path = folder.folder / "a.svs"
    slide = folder.score(path)
    (folder.states.folder / f"{slide.key}.json").write_text(content)
    assert folder.states.get(slide.key) is None
    assert folder.slide(path).state == "done"


def test_a_slide_that_failed_is_tried_again_once_it_looks_otherwise(folder: Folder) -> None:
    path = folder.folder / "a.svs"
    slide = folder.slide(path)
    assert not slide.again
    folder.states.put(slide.key, "", slide.file_state)
    assert not folder.slide(path).again
    _change(path)
    assert replace(folder.slide(path), file_state="").again


def test_parts_of_a_slide_count(folder: Folder, data_dir: Path) -> None:
    names = ("osp_boxes_0.dcm", "osp_boxes_1.dcm")
    for name in names:
        shutil.copyfile(data_dir / "dicom" / name, folder.folder / name)
    changes = Changes(folder.out, folder.states, folder.identity, read_series)
    first = changes.state(folder.folder / names[0])
    assert first == changes.state(folder.folder / names[0])
    os.utime(folder.folder / names[1])
    assert first != changes.state(folder.folder / names[0])
    (folder.folder / "m.mrxs").write_bytes(b"x")
    (folder.folder / "m").mkdir()
    before = changes.state(folder.folder / "m.mrxs")
    (folder.folder / "m" / "Data0001.dat").write_bytes(b"y")
    assert before != changes.state(folder.folder / "m.mrxs")


def test_the_state_of_what_is_gone_is_empty(tmp_path: Path) -> None:
    assert file_state([tmp_path / "gone"]) == ""
