"""What is found in a folder, and what is left out of it and said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stamp_deploy.batch.planning.folder import Skipped, find_slides
from stamp_deploy.batch.planning.inputs import expand_inputs
from stamp_deploy.batch.planning.plan import SlideFacts
from stamp_deploy.batch.planning.planner import plan_batch


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path))


def _names(folder: Path, skipped: Skipped | None = None, skip: Path | None = None) -> list[str]:
    found = find_slides(folder, skipped=skipped, skip=skip)
    return [path.relative_to(folder).as_posix() for path in found]


def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "elsewhere"
    _touch(inside / "a" / "one.svs", outside / "two.svs", outside / "deep" / "three.svs")
    (inside / "linked").symlink_to(outside)
    (inside / "again").symlink_to(outside)
    (inside / "a" / "up").symlink_to(inside)
    (outside / "deep" / "back").symlink_to(inside)
    (inside / "self").symlink_to(inside / "self")
    assert _names(inside) == ["a/one.svs", "again/deep/three.svs", "again/two.svs"]


def test_a_folder_that_is_no_link_comes_before_one_that_is(tmp_path: Path) -> None:
    _touch(tmp_path / "z" / "one.svs")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert _names(tmp_path) == ["z/one.svs"]


def test_the_output_is_left_out_by_whatever_name(tmp_path: Path) -> None:
    _touch(tmp_path / "in" / "one.svs", tmp_path / "out" / "two.svs")
    (tmp_path / "in" / "results").symlink_to(tmp_path / "out")
    assert _names(tmp_path / "in", skip=tmp_path / "out") == ["one.svs"]


@pytest.mark.parametrize("name", ["a.btf", "a.BTF", "a.tf8", "a.SVS", "a.dicom"])
def test_endings_of_slides(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / name)
    assert _names(tmp_path) == [name]


def test_dicom_without_an_ending_is_one_slide_a_series(tmp_path: Path, data_dir: Path) -> None:
    shutil.copyfile(data_dir / "dicom" / "osp_boxes_0.dcm", tmp_path / "1.2.840.10008.55")
    shutil.copyfile(data_dir / "dicom" / "osp_boxes_1.dcm", tmp_path / "IM0002")
    shutil.copyfile(data_dir / "dicom" / "osp_boxes_1.dcm", tmp_path / "DICOMDIR")
    (tmp_path / "README").write_text("no DICOM, though it is long enough " * 9)
    skipped = Skipped()
    assert _names(tmp_path, skipped) == ["1.2.840.10008.55"]
    details = [detail for _, _, detail in skipped.findings()]
    assert details == [
        "1 left out, listing a DICOM medium (others 1)",
        "1 left out, without a slide's name (others 1)",
    ]


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    _touch(tmp_path / "a.svs", tmp_path / "scan.vsi", tmp_path / "b.JPG", tmp_path / "c.png", tmp_path / "d.zip")
    _touch(tmp_path / ".hidden.svs", tmp_path / ".DS_Store", tmp_path / "notes.txt", tmp_path / "A1.Doe Jane")
    _touch(tmp_path / "m.mrxs", tmp_path / "m" / "Data0001.dat", tmp_path / "v.vms", tmp_path / "v_macro.jpg")
    skipped = Skipped()
    assert _names(tmp_path, skipped) == ["a.svs", "m.mrxs", "v.vms"]
    assert [detail for _, _, detail in skipped.findings()] == [
        "1 left out, hidden (.svs 1)",
        "1 left out, of a format that is not read (.vsi 1)",
        "1 left out, packed: unpack them (.zip 1)",
        "2 left out, pictures: name one itself if it is a slide (.jpg 1, .png 1)",
        "2 left out, without a slide's name (.txt 1, others 1)",
    ]
    assert skipped.total == 7
    assert not any("Doe" in detail for _, _, detail in skipped.findings())


def test_the_plan_tells_it(tmp_path: Path) -> None:
    _touch(tmp_path / "in" / "a.svs", tmp_path / "in" / "b.isyntax")
    skipped = Skipped()
    plan = plan_batch(
        expand_inputs([tmp_path / "in"], skipped=skipped),
        tmp_path / "out",
        probe=lambda path, mpp: SlideFacts(10, 10, 0.5, 0.5, "aperio", "jpeg-tiff"),
        is_done=lambda key: False,
        skipped=skipped,
        bytes_per_tile=1,
        tile_span_um=1.0,
    )
    assert plan.skipped == 1
    assert [(f.kind, f.detail) for f in plan.findings] == [
        ("skipped", "1 left out, of a format that is not read (.isyntax 1)")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    _touch(tmp_path / "shut" / "a.svs", tmp_path / "b.svs")
    (tmp_path / "shut").chmod(0)
    skipped = Skipped()
    assert _names(tmp_path, skipped) == ["b.svs"]
    assert skipped.folders == [("shut", "the folder cannot be read: Permission denied")]


def test_a_folder_that_goes_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "gone" / "a.svs", tmp_path / "b.svs")
    scandir = os.scandir

    def failing(path: Path) -> object:
        if Path(path).name == "gone":
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    skipped = Skipped()
    assert _names(tmp_path, skipped) == ["b.svs"]
    assert skipped.folders == [("gone", "the folder cannot be read: Input/output error")]
