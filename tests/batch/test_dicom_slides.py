"""A DICOM slide is one slide, whichever of its files is named and whoever wrote its headers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from support.archive_slide import SMALL, ScannedSlide, scan
from support.cli_runner import Runner, runner  # noqa: F401
from support.position_slide import position_bundle

from stamp_deploy.batch.planning.identity import ByBytes, ByLevels
from stamp_deploy.slide.dicom import volume_instances
from stamp_deploy.slide.identity import slide_sha256


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> ScannedSlide:
    return scan(tmp_path_factory.mktemp("scanned"))


def sent_by_an_archive(slide: ScannedSlide, folder: Path) -> list[Path]:
    """The same instances with other headers, as C-GET and WADO-RS give them."""
    folder.mkdir()
    paths = []
    for path in slide.levels:
        data = pydicom.dcmread(path)
        data.file_meta.SourceApplicationEntityTitle = "ARCHIVE"
        data.InstitutionName = "added by the archive"
        paths.append(folder / path.name)
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def by_levels() -> ByLevels:
    return ByLevels(
        lambda path: sorted(instance.sop_uid for instance in volume_instances(path)),
        lambda path: slide_sha256(path, "dicom"),
    )


def test_copies_of_an_archive_and_other_files_of_the_series_are_the_same_slide(
    slide: ScannedSlide, tmp_path: Path
) -> None:
    theirs = sent_by_an_archive(slide, tmp_path / "theirs")
    everyone = [*slide.levels, *theirs]
    assert len({ByBytes().fingerprint(path) for path in everyone}) == 4
    assert len({by_levels().fingerprint(path) for path in everyone}) == 1
    assert all(by_levels().same(slide.levels[0], path) for path in everyone)


def test_other_pixels_under_the_same_uids_are_another_slide(slide: ScannedSlide, tmp_path: Path) -> None:
    theirs = sent_by_an_archive(slide, tmp_path / "theirs")
    content = bytearray(theirs[0].read_bytes())
    content[-200] ^= 1
    theirs[0].write_bytes(content)
    assert by_levels().fingerprint(theirs[0]) == by_levels().fingerprint(slide.levels[0])
    assert not by_levels().same(theirs[0], slide.levels[0])


def test_a_batch_scores_it_once(
    slide: ScannedSlide,
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Both of its files named, and the archive's copy of it in another folder."""
    own = tmp_path / "own"
    own.mkdir()
    for path in slide.levels:
        shutil.copy(path, own)
    theirs = sent_by_an_archive(slide, tmp_path / "theirs")
    bundle = position_bundle(tmp_path / "bundle", SMALL)
    named = [own / path.name for path in slide.levels]
    words = ("--bundle", bundle, "-o", tmp_path / "out", "--engine", "onnxruntime", "--write", "json", "--all-tiles")
    done = runner("batch", *named, *theirs, *words)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert len(list((tmp_path / "out").glob("*/DONE"))) == 1
    assert sorted(one["state"] for one in report["slides"]) == ["done", "duplicate", "duplicate", "duplicate"]
