"""DIMSE against a real Orthanc: the slides and results that DICOMweb gives."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from support.archive_faults import FullDisk, Proxy
from support.archive_slide import NAME, ScannedSlide
from support.archived_result import Scored
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import AE_TITLE, OUR_AE_TITLE, Orthanc, free_port

pytest.importorskip("pynetdicom")
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from stamp_deploy.archive.dimse import Peer, find, get, parse_address
from stamp_deploy.archive.dimse_archive import DimseKeeper, find_series, pull_series
from stamp_deploy.archive.push import push_result
from stamp_deploy.archive.uids import WHOLE_SLIDE
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, DiskError, UsageError

from .conftest import AT_ONCE

JPEG = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def peer(orthanc: Orthanc) -> Peer:
    return Peer("127.0.0.1", orthanc.dicom_port, AE_TITLE, OUR_AE_TITLE, read_s=20)


def test_a_pull_by_dimse_brings_the_same_slide(
    peer: Peer, orthanc: Orthanc, slide: ScannedSlide, tmp_path: Path
) -> None:
    orthanc.add(*slide.files)
    (row,) = find_series(peer, AT_ONCE, accession=slide.accession)
    assert row.series == slide.series
    assert find_series(peer, AT_ONCE, accession="S99") == []
    got = pull_series(peer, AT_ONCE, row, tmp_path)
    assert list(got.instances) == slide.uids and got.fetched == 2
    assert {path.name for path in tmp_path.rglob("*.*") if path.is_file()} == {f"{uid}.dcm" for uid in slide.uids}
    for path in slide.levels:
        sent = pydicom.dcmread(path)
        received = pydicom.dcmread(got.folder / f"{sent.SOPInstanceUID}.dcm")
        assert received.file_meta.TransferSyntaxUID == JPEG, "as it is stored"
        assert received.PixelData == sent.PixelData
    assert pull_series(peer, AT_ONCE, row, tmp_path).fetched == 0


def test_commands_pull_and_push(
    orthanc: Orthanc,
    slide: ScannedSlide,
    scored: Scored,
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    orthanc.add(*slide.files)
    address = f"127.0.0.1:{orthanc.dicom_port}"
    access = ("--called", AE_TITLE, "--calling", OUR_AE_TITLE)
    done = runner("dimse", "pull", address, *access, "--accession", slide.accession, "-o", tmp_path / "out")
    assert (done.code, done.err) == (0, "") and "2 levels, 2 fetched" in done.out
    first = runner("dimse", "push", scored.result, address, *access)
    second = runner("dimse", "push", scored.result, address, *access)
    assert (first.code, first.err) == (0, "") and "5 objects, 5 sent" in first.out
    assert (second.code, second.err) == (0, "") and "0 sent, 5 there already" in second.out


def test_another_copy_under_the_uid_is_an_error(peer: Peer, orthanc: Orthanc, scored: Scored, tmp_path: Path) -> None:
    data = pydicom.dcmread(scored.objects[0])
    data.SeriesDescription = NAME
    data.save_as(tmp_path / "theirs.dcm", enforce_file_format=True)
    orthanc.add(tmp_path / "theirs.dcm")
    with pytest.raises(ArchiveError, match="another object under this UID: SeriesDescription differ"):
        push_result(DimseKeeper(peer, AT_ONCE), scored.result)


def test_an_archive_that_does_not_know_us(orthanc: Orthanc) -> None:
    """Orthanc lets strangers connect and does nothing for them; others reject them."""
    stranger = Peer("127.0.0.1", orthanc.dicom_port, AE_TITLE, "STRANGER", read_s=5)
    with pytest.raises(ArchiveError):
        find_series(stranger, AT_ONCE, accession="S26-0001")


def test_an_archive_that_is_not_there_or_falls_silent(orthanc: Orthanc, slide: ScannedSlide, tmp_path: Path) -> None:
    nobody = Peer("127.0.0.1", free_port(), AE_TITLE, OUR_AE_TITLE, connect_s=2)
    with pytest.raises(ArchiveUnreachable, match="cannot be reached"):
        find_series(nobody, AT_ONCE, accession="S26-0001")
    orthanc.add(*slide.files)
    with Proxy(orthanc.dicom_port, down_limit=6000, stall=True).running() as proxy:
        stalled = Peer("127.0.0.1", proxy.port, AE_TITLE, OUR_AE_TITLE, connect_s=4, read_s=1)
        (row,) = find_series(stalled, AT_ONCE, accession=slide.accession)
        with pytest.raises(ArchiveUnreachable, match=r"fell silent, or ended|cannot be reached"):
            pull_series(stalled, replace(AT_ONCE, attempts=2), row, tmp_path)
        assert not proxy.gave_up, "the silence was ended by us, in the middle of a message"
    assert list((tmp_path / slide.series).iterdir()) == [], "nothing of the half of an instance is kept"


def test_what_comes_slowly_comes(orthanc: Orthanc, slide: ScannedSlide, tmp_path: Path) -> None:
    """A level of gigabytes takes longer than the longest silence, part by part."""
    large = pydicom.dcmread(slide.levels[0])
    large.private_block(0x0009, "PADDING", create=True).add_new(0x01, "OB", bytes(100_000))
    large.SOPInstanceUID = large.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    large.save_as(tmp_path / "large.dcm", enforce_file_format=True)
    orthanc.add(tmp_path / "large.dcm")
    keys = {name: str(large[name].value) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    read_s, pause_s, kilobytes_per_part = 3.0, 0.05, 16
    assert kilobytes_per_part * pause_s < read_s < 100 * pause_s
    with Proxy(orthanc.dicom_port, pause_s=pause_s).running() as proxy:
        slow = Peer("127.0.0.1", proxy.port, AE_TITLE, OUR_AE_TITLE, connect_s=60, read_s=read_s)
        AT_ONCE.call(lambda: get(slow, WHOLE_SLIDE, keys, tmp_path / "got.dcm"))
    assert pydicom.dcmread(tmp_path / "got.dcm").PixelData == large.PixelData


def test_a_disk_that_ends_while_an_instance_arrives(
    peer: Peer, orthanc: Orthanc, slide: ScannedSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.add(*slide.files)
    (row,) = find_series(peer, AT_ONCE, accession=slide.accession)
    monkeypatch.setattr("pynetdicom.dimse_messages.NamedTemporaryFile", FullDisk)
    with pytest.raises(DiskError, match="No space left"):
        pull_series(peer, AT_ONCE, row, tmp_path)
    assert list((tmp_path / slide.series).iterdir()) == []


def test_an_archive_that_never_answers_is_given_up(tmp_path: Path) -> None:
    entity, never = AE(ae_title=AE_TITLE), threading.Event()
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def answer(event: evt.Event) -> Iterator[tuple[int, None]]:
        never.wait(60)
        yield 0x0000, None

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    assert server is not None
    try:
        silent = Peer("127.0.0.1", server.server_address[1], AE_TITLE, OUR_AE_TITLE, read_s=0.5)
        with pytest.raises(ArchiveUnreachable, match="fell silent"):
            find(silent, "STUDY", {"AccessionNumber": "S26-0001"})
        assert not never.is_set()
    finally:
        never.set()
        server.shutdown()


def test_what_a_killed_pull_was_receiving_is_removed(
    peer: Peer, orthanc: Orthanc, slide: ScannedSlide, tmp_path: Path
) -> None:
    orthanc.add(*slide.files)
    (row,) = find_series(peer, AT_ONCE, accession=slide.accession)
    old, young = (tmp_path / slide.series / f".partial-0000000{n}-transfer" for n in (1, 2))
    for place in (old, young):
        place.mkdir(parents=True)
        (place / "tmp1.dcm").write_bytes(b"half")
    for path in (old / "tmp1.dcm", old):
        os.utime(path, (0, 0))
    pull_series(peer, AT_ONCE, row, tmp_path)
    assert not old.exists() and (young / "tmp1.dcm").exists(), "another process may be at work in it"


@pytest.mark.parametrize("text", ["pacs", "pacs:", ":104", "pacs:0", "pacs:70000", "pacs:x"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("name", ["connect_s", "read_s"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_time_limits_that_are_none(name: str, seconds: float) -> None:
    with pytest.raises(UsageError, match="time-out"):
        Peer("127.0.0.1", 104, "PACS", "STAMP", **{name: seconds})  # type: ignore[arg-type]
