"""The receiver of slides by DIMSE, which feeds a watched folder: whom it takes what from, and what it survives."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from support.archive_faults import FullDisk, certificates
from support.archive_slide import ScannedSlide
from support.archived_result import Scored
from support.orthanc import free_port
from support.thread_signals import signal_another_thread

pytest.importorskip("pynetdicom")
from pynetdicom import AE

from stamp_deploy.archive.dimse import Peer, store
from stamp_deploy.archive.receiver import Caller, Receiver, Reception, parse_caller
from stamp_deploy.archive.server import calling_tls, listening_tls
from stamp_deploy.archive.uids import WHOLE_SLIDE
from stamp_deploy.batch.planning.folder import find_slides
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, UsageError

JPEG = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    how = Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER", "127.0.0.1"),), port=0)
    made = Receiver(how)
    try:
        yield made
    finally:
        made.close()


def scanner(receiver: Receiver, **more: object) -> Peer:
    return Peer("127.0.0.1", receiver.port, "STAMP", "SCANNER", read_s=10, **more)  # type: ignore[arg-type]


def test_what_is_received_is_a_slide_for_the_watch(receiver: Receiver, slide: ScannedSlide, tmp_path: Path) -> None:
    for path in slide.files:
        store(scanner(receiver), WHOLE_SLIDE, JPEG, path)
    folder = tmp_path / "incoming" / slide.series
    assert sorted(path.stem for path in folder.iterdir()) == slide.uids, "the label is taken and not kept"
    assert len(find_slides(tmp_path / "incoming")) == 1, "a watch sees one slide"
    for path in slide.levels:
        sent = pydicom.dcmread(path)
        assert pydicom.dcmread(folder / f"{sent.SOPInstanceUID}.dcm").PixelData == sent.PixelData
    assert list((tmp_path / "incoming" / ".receiving").iterdir()) == []
    assert receiver.received == 2


def test_strangers_and_other_objects_are_turned_away(
    receiver: Receiver, slide: ScannedSlide, scored: Scored, tmp_path: Path
) -> None:
    stranger = Peer("127.0.0.1", receiver.port, "STAMP", "STRANGER", read_s=5)
    with pytest.raises(ArchiveError, match="rejects STRANGER"):
        store(stranger, WHOLE_SLIDE, JPEG, slide.levels[0])
    with pytest.raises(ArchiveError, match="rejects SCANNER"):
        store(Peer("127.0.0.1", receiver.port, "OTHER", "SCANNER"), WHOLE_SLIDE, JPEG, slide.levels[0])
    map_class = str(pydicom.dcmread(scored.objects[1], stop_before_pixels=True).SOPClassUID)
    with pytest.raises(ArchiveError):
        store(scanner(receiver), map_class, "1.2.840.10008.1.2.1", scored.objects[1])
    assert [path for path in (tmp_path / "incoming").rglob("*") if path.is_file()] == []


def test_a_caller_from_another_address_is_turned_away(slide: ScannedSlide, tmp_path: Path) -> None:
    said: list[str] = []
    how = Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER", "10.9.8.7"),), port=0)
    receiver = Receiver(how, said.append)
    try:
        with pytest.raises(ArchiveError):
            store(scanner(receiver), WHOLE_SLIDE, JPEG, slide.levels[0])
    finally:
        receiver.close()
    assert said == ["a caller that is not allowed was turned away"]


def test_a_damaged_slide_is_refused(receiver: Receiver, slide: ScannedSlide, tmp_path: Path) -> None:
    data = pydicom.dcmread(slide.levels[0])
    data.NumberOfFrames = int(data.NumberOfFrames) + 1
    data.save_as(tmp_path / "damaged.dcm", enforce_file_format=True)
    with pytest.raises(ArchiveError, match="0xc000"):
        store(scanner(receiver), WHOLE_SLIDE, JPEG, tmp_path / "damaged.dcm")
    assert not (tmp_path / "incoming" / slide.series).exists()


def test_reception_over_tls(slide: ScannedSlide, tmp_path: Path) -> None:
    ca, chain = certificates(tmp_path / "tls")
    other, _ = certificates(tmp_path / "other")
    how = Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER"),), port=0, tls=listening_tls(chain, ca))
    receiver = Receiver(how)
    try:
        store(scanner(receiver, tls=calling_tls(ca, chain, None)), WHOLE_SLIDE, JPEG, slide.levels[0])
        for trusted, own in ((other, chain), (ca, None)):
            with pytest.raises(ArchiveUnreachable):
                store(scanner(receiver, tls=calling_tls(trusted, own, None)), WHOLE_SLIDE, JPEG, slide.levels[1])
    finally:
        receiver.close()
    assert receiver.received == 1


@pytest.mark.parametrize("said", [b"", b"\x01\x00"])
def test_a_silent_caller_keeps_nobody_out(slide: ScannedSlide, tmp_path: Path, said: bytes) -> None:
    ca, chain = certificates(tmp_path / "tls")
    how = Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER"),), port=0, tls=listening_tls(chain, ca))
    receiver = Receiver(how)
    try:
        with socket.create_connection(("127.0.0.1", receiver.port)) as silent:
            silent.sendall(said)
            store(scanner(receiver, tls=calling_tls(ca, chain, None)), WHOLE_SLIDE, JPEG, slide.levels[0])
    finally:
        receiver.close()
    assert receiver.received == 1


def test_a_caller_that_falls_silent_in_a_message_is_given_up(tmp_path: Path) -> None:
    receiver = Receiver(Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER"),), port=0, read_s=0.5))
    try:
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=60) as silent:
            silent.sendall(b"\x01\x00\x00")  # half the head of an association request
            assert silent.recv(100)[:1] in (b"", b"\x07"), "closed, or aborted"
    finally:
        receiver.close()


def test_what_is_being_sent_when_it_is_stopped_still_arrives(slide: ScannedSlide, tmp_path: Path) -> None:
    receiver = Receiver(Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER"),), port=0))
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(WHOLE_SLIDE, JPEG)
    link = entity.associate("127.0.0.1", receiver.port, ae_title="STAMP")
    assert link.is_established
    stopping = threading.Thread(target=receiver.close, args=(60,))
    stopping.start()
    while is_listening(receiver.port):
        pass
    assert link.send_c_store(slide.levels[0]).Status == 0x0000
    link.release()
    stopping.join(timeout=60)
    assert not stopping.is_alive() and receiver.received == 1


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_receiver_goes_on_after_its_disk_was_full(
    slide: ScannedSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    receiver = Receiver(Reception(tmp_path / "incoming", "STAMP", (Caller("SCANNER"),), port=0), said.append)
    try:
        with monkeypatch.context() as disk:
            disk.setattr("pynetdicom.dimse_messages.NamedTemporaryFile", FullDisk)
            with pytest.raises(ArchiveUnreachable):
                store(scanner(receiver), WHOLE_SLIDE, JPEG, slide.levels[0])
        store(scanner(receiver), WHOLE_SLIDE, JPEG, slide.levels[0])
    finally:
        receiver.close()
    assert said == ["a slide could not be kept: No space left on device"] and receiver.received == 1
    assert "Traceback" not in capsys.readouterr().err


def test_nobody_may_send_unless_named(tmp_path: Path) -> None:
    before = tempfile.tempdir
    with pytest.raises(UsageError, match="nobody is allowed"):
        Reception(tmp_path, "STAMP", ())
    with pytest.raises(UsageError, match="AE title"):
        parse_caller("@10.0.0.1")
    assert parse_caller("SCANNER@10.0.0.1") == Caller("SCANNER", "10.0.0.1")
    assert tempfile.tempdir == before


def test_the_command_receives_until_it_is_stopped(slide: ScannedSlide, tmp_path: Path) -> None:
    words = ["dimse", "receive", str(tmp_path / "in"), "--allow", "SCANNER", "--port", str(port := free_port())]
    command = [sys.executable, "-m", "stamp_deploy.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening  STAMP on 127.0.0.1:{port}\n"
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context("1.2.840.10008.1.1")
        link = entity.associate("127.0.0.1", port, ae_title="STAMP")
        assert link.send_c_echo().Status == 0x0000
        link.release()
        store(Peer("127.0.0.1", port, "STAMP", "SCANNER"), WHOLE_SLIDE, JPEG, slide.levels[0])
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(b"\x01")
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "stopped    1 instances received\n"
            assert process.wait(timeout=45) == 0, "who says nothing holds up nobody, and would for 60 s"


def test_a_signal_that_another_thread_takes_stops_it(tmp_path: Path) -> None:
    words = ["dimse", "receive", str(tmp_path / "in"), "--allow", "SCANNER", "--port", str(free_port())]
    with subprocess.Popen([sys.executable, "-m", "stamp_deploy.cli", *words], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            signal_another_thread(process.pid, signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
            assert (said, process.returncode) == (b"stopped    0 instances received\n", 0)
        finally:
            process.kill()
