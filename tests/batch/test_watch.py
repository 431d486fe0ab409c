"""The watch folder: only complete slides, urgent ones first, nothing forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stamp_deploy.batch.arrivals import NORMAL, URGENT, FolderWatcher, WatchOptions


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _watcher(folder: Path, clock: Clock, **options: object) -> FolderWatcher:
    return FolderWatcher(folder, WatchOptions(settle_s=30, **options), clock=clock)  # type: ignore[arg-type]


def test_growing_file_is_not_taken_until_it_settles(tmp_path: Path, clock: Clock) -> None:
    watcher, slide = _watcher(tmp_path, clock), tmp_path / "a.svs"
    for second in range(0, 100, 20):
        clock.now = float(second)
        with slide.open("ab") as file:
            file.write(b"x" * 10)
        assert watcher.poll() == []
    clock.now = 109
    assert watcher.poll() == []
    clock.now = 110
    assert watcher.poll() == [(slide, NORMAL)]
    assert watcher.poll() == [] and not watcher.pending()


def test_touched_file_of_equal_size_starts_over(tmp_path: Path, clock: Clock) -> None:
    watcher, slide = _watcher(tmp_path, clock), tmp_path / "a.svs"
    slide.write_bytes(b"x")
    watcher.poll()
    clock.now = 29
    os.utime(slide, (1, 1))
    watcher.poll()
    clock.now = 58
    assert watcher.poll() == [] and watcher.pending()
    clock.now = 59
    assert watcher.poll() == [(slide, NORMAL)]


def test_stalled_copy_is_given_again_when_it_goes_on(tmp_path: Path, clock: Clock) -> None:
    watcher, slide = _watcher(tmp_path, clock), tmp_path / "a.svs"
    slide.write_bytes(b"half")
    watcher.poll()
    clock.now = 30
    assert watcher.poll() == [(slide, NORMAL)]
    slide.write_bytes(b"all of it")
    assert watcher.poll() == []
    clock.now = 60
    assert watcher.poll() == [(slide, NORMAL)]


def test_urgent_folder_goes_first(tmp_path: Path, clock: Clock) -> None:
    for name in ("a/1.svs", "urgent/2.svs", "b/urgent/3.svs", "4.svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (int(name[-5]), int(name[-5])))
    watcher = _watcher(tmp_path, clock)
    watcher.poll()
    clock.now = 30
    assert [(path.name, priority) for path, priority in watcher.poll()] == [
        ("2.svs", URGENT),
        ("3.svs", URGENT),
        ("1.svs", NORMAL),
        ("4.svs", NORMAL),
    ]


def test_marker_alone_decides_when_asked_for(tmp_path: Path, clock: Clock) -> None:
    watcher, slide = _watcher(tmp_path, clock, marker=".ok"), tmp_path / "a.svs"
    slide.write_bytes(b"x")
    watcher.poll()
    clock.now = 1000
    assert watcher.poll() == []
    (tmp_path / "a.svs.ok").touch()
    assert watcher.poll() == [(slide, NORMAL)]


def test_mrxs_is_complete_with_its_folder(tmp_path: Path, clock: Clock) -> None:
    watcher, slide = _watcher(tmp_path, clock), tmp_path / "a.mrxs"
    slide.write_bytes(b"x")
    (tmp_path / "a").mkdir()
    watcher.poll()
    clock.now = 29
    (tmp_path / "a" / "Data0001.dat").write_bytes(b"y")
    watcher.poll()
    clock.now = 31
    assert watcher.poll() == []
    clock.now = 59
    assert watcher.poll() == [(slide, NORMAL)]


def test_dicom_series_is_complete_with_its_last_instance(tmp_path: Path, clock: Clock, data_dir: Path) -> None:
    watcher = _watcher(tmp_path, clock)
    names = ("osp_boxes_0.dcm", "osp_boxes_1.dcm")
    first, second = (tmp_path / name for name in names)
    first.write_bytes((data_dir / "dicom" / names[0]).read_bytes())
    watcher.poll()
    clock.now = 20
    second.write_bytes((data_dir / "dicom" / names[1]).read_bytes())
    watcher.poll()
    clock.now = 31
    assert watcher.poll() == [], "the series was still arriving"
    clock.now = 50
    assert watcher.poll() == [(first, NORMAL)]


def test_empty_hidden_and_removed_files_are_ignored(tmp_path: Path, clock: Clock) -> None:
    watcher = _watcher(tmp_path, clock)
    (tmp_path / "empty.svs").touch()
    (tmp_path / ".part.svs").write_bytes(b"x")
    (tmp_path / "gone.svs").write_bytes(b"x")
    watcher.poll()
    (tmp_path / "gone.svs").unlink()
    clock.now = 60
    assert watcher.poll() == []
