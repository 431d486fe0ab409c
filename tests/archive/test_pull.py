"""Slides out of a real Orthanc: as stored, whole or not at all, each instance once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support.archive_faults import Proxy
from support.archive_slide import NAME, ScannedSlide, scan
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import PASSWORD, USER, Orthanc

from stamp_deploy.archive.client import Client
from stamp_deploy.archive.pull import pull_series
from stamp_deploy.archive.query import find_series
from stamp_deploy.archive.server import Server
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, DiskError
from stamp_deploy.slide.identity import slide_sha256

from .conftest import AT_ONCE


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScannedSlide, ScannedSlide]:
    folder = tmp_path_factory.mktemp("scanned")
    return scan(folder, 1), scan(folder, 2)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_pull_brings_the_levels_as_they_are_stored(
    client: Client, orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tmp_path: Path
) -> None:
    orthanc.add(*slides[0].files, *slides[1].files)
    (row,) = find_series(client, accession=slides[0].accession)
    got = pull_series(client, row, tmp_path)
    assert (row.series, row.instances) == (slides[0].series, 3)
    assert list(got.instances) == slides[0].uids and got.fetched == 2
    assert files(tmp_path) == {f"{uid}.dcm" for uid in slides[0].uids}, "and the label, which shows a name, is not here"
    for path in slides[0].levels:
        sent = pydicom.dcmread(path)
        received = pydicom.dcmread(got.folder / f"{sent.SOPInstanceUID}.dcm")
        assert received.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert received.PixelData == sent.PixelData
    assert slide_sha256(got.folder / f"{slides[0].uids[0]}.dcm", "dicom") == slide_sha256(slides[0].levels[1], "dicom")


@pytest.mark.parametrize("by", ["accession", "study", "series", "container"])
def test_slides_are_found_by_what_a_person_knows(
    by: str, client: Client, orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide]
) -> None:
    orthanc.add(*slides[0].files, *slides[1].files)
    rows = find_series(client, **{by: getattr(slides[1], by)})
    assert [row.series for row in rows] == [slides[1].series]
    if by != "accession":
        assert find_series(client, accession=slides[0].accession, **{by: getattr(slides[1], by)}) == []


def test_the_command_pulls_once(
    runner: Runner,  # noqa: F811
    orthanc: Orthanc,
    slides: tuple[ScannedSlide, ScannedSlide],
    password: Path,
    tmp_path: Path,
) -> None:
    orthanc.add(*slides[0].files)
    words = ("dicomweb", "pull", orthanc.url, "--user", USER, "--password-file", password)
    words = (*words, "--accession", slides[0].accession, "-o", tmp_path / "out")
    first, second = runner(*words), runner(*words)
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert "2 levels, 2 fetched" in first.out and "all here already" in second.out
    none = runner(*words[:-3], "S99-9999", "-o", tmp_path / "out")
    assert none.code == 2 and "holds no slide that fits" in none.err
    assert NAME not in first.out + second.out + none.err


def test_a_pull_that_was_cut_goes_on_with_what_is_missing(
    orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tmp_path: Path
) -> None:
    orthanc.add(*slides[0].files)
    smallest = min(path.stat().st_size for path in slides[0].levels)
    with Proxy(orthanc.port, down_limit=smallest + 5000).running() as proxy:
        server = Server(f"http://127.0.0.1:{proxy.port}/dicom-web", user=USER, password=PASSWORD, read_s=20)
        with Client(server, AT_ONCE) as client:
            (row,) = find_series(client, series=slides[0].series)
            with pytest.raises(ArchiveUnreachable, match=r"ended the connection|cannot be reached"):
                pull_series(client, row, tmp_path)
    kept = {path: path.stat().st_ino for path in tmp_path.rglob("*.dcm")}
    assert len(kept) < 2 and files(tmp_path) == {path.name for path in kept}, "nothing half-written is left"
    with Client(Server(orthanc.url, user=USER, password=PASSWORD), AT_ONCE) as client:
        got = pull_series(client, row, tmp_path)
    assert got.fetched == 2 - len(kept)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_a_connection_that_falls_silent_is_given_up(
    orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tmp_path: Path
) -> None:
    orthanc.add(*slides[0].files)
    with Proxy(orthanc.port, down_limit=9000, stall=True).running() as proxy:
        server = Server(f"http://127.0.0.1:{proxy.port}/dicom-web", user=USER, password=PASSWORD, read_s=1)
        with Client(server, AT_ONCE) as client:
            (row,) = find_series(client, series=slides[0].series)
            with pytest.raises(ArchiveUnreachable, match=r"fell silent during .* for 1 s"):
                pull_series(client, row, tmp_path)
    assert files(tmp_path) == set()


def test_what_is_damaged_here_is_fetched_again(
    client: Client, orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tmp_path: Path
) -> None:
    orthanc.add(*slides[0].files)
    (row,) = find_series(client, series=slides[0].series)
    got = pull_series(client, row, tmp_path)
    path = got.folder / f"{got.instances[0]}.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert pull_series(client, row, tmp_path).fetched == 1
    assert path.read_bytes() == whole


def test_a_series_without_a_level_is_refused(
    client: Client, orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tmp_path: Path
) -> None:
    orthanc.add(slides[0].label)
    (row,) = find_series(client, series=slides[0].series)
    with pytest.raises(ArchiveError, match="no level of a slide"):
        pull_series(client, row, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB, which root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    system = ctypes.CDLL(None, use_errno=True)
    if not hasattr(system, "mount") or system.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip("a small file system cannot be mounted here: that needs root")
    yield disk
    system.umount2(os.fsencode(disk), 2)


def test_a_full_disk_ends_the_pull_with_its_name(
    client: Client, orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], tiny_disk: Path
) -> None:
    orthanc.add(*slides[0].files)
    (tiny_disk / "ballast").write_bytes(bytes(48 << 10))
    (row,) = find_series(client, series=slides[0].series)
    with pytest.raises(DiskError, match="No space left on device"):
        pull_series(client, row, tiny_disk)
    assert not [name for name in files(tiny_disk) if name.startswith(".partial")]
