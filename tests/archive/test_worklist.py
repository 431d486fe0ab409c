"""The worklist client against a small, strict server; and a watch that takes its work from there."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.archive_faults import Reply, answering
from support.archive_slide import SMALL, scan
from support.archived_result import SCORING
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import PASSWORD, USER, Orthanc
from support.position_slide import position_bundle
from support.ups_server import PERFORMED, PROGRESS, UpsServer

from stamp_deploy.archive.assigned import PREFIX, Assigned
from stamp_deploy.archive.client import Client
from stamp_deploy.archive.query import SeriesRow
from stamp_deploy.archive.records import SeriesRecords
from stamp_deploy.archive.results import ResultObject
from stamp_deploy.archive.server import Server
from stamp_deploy.archive.worklist import Worklist
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable

from .conftest import AT_ONCE

MINE, THEIRS = "1.9.1", "1.9.2"
RESULT = ResultObject(Path("map-001.dcm"), "1.2.840.10008.5.1.4.1.1.30", "1.5", "1.1", "1.4")


@pytest.fixture
def server() -> UpsServer:
    made = UpsServer()
    made.add("1.7.1", ("1.1", "1.2.1"))
    made.add("1.7.2", ("1.1", "1.2.2"), ("1.1", "1.2.3"))
    made.add("1.7.3", ("1.1", "1.2.4"), label="OTHER")
    return made


@pytest.fixture
def worklist(server: UpsServer) -> Iterator[Worklist]:
    with answering(server.reply) as (url, _), Client(Server(url), AT_ONCE) as client:
        yield Worklist(client)


def test_a_workitem_from_search_to_completion(server: UpsServer, worklist: Worklist) -> None:
    assert worklist.search("STAMP") == ["1.7.1", "1.7.2"] and len(worklist.search()) == 3
    assert worklist.claim("1.7.1", MINE) and not worklist.claim("1.7.1", THEIRS)
    assert worklist.search("STAMP") == ["1.7.2"]
    assert worklist.slides("1.7.1") == [SeriesRow("1.1", "1.2.1", -1)]
    worklist.progress("1.7.1", MINE, 40, "scoring")
    assert server.items["1.7.1"][PROGRESS]["Value"][0]["00741004"]["Value"] == [40]
    worklist.complete("1.7.1", MINE, [RESULT], datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert server.state("1.7.1") == "COMPLETED"
    performed = server.items["1.7.1"][PERFORMED]["Value"][0]
    assert performed["00404050"]["Value"] == ["20260102030405+0000"]
    (output,) = performed["00404033"]["Value"]
    assert output["0020000E"]["Value"] == ["1.4"]
    assert output["00081199"]["Value"][0]["00081155"]["Value"] == ["1.5"]


def test_only_the_owner_may_change_a_workitem(server: UpsServer, worklist: Worklist) -> None:
    worklist.claim("1.7.1", MINE)
    with pytest.raises(ArchiveError, match="HTTP 409"):
        worklist.progress("1.7.1", THEIRS, 1, "")
    with pytest.raises(ArchiveError, match="HTTP 409"):
        worklist.cancel("1.7.1", THEIRS, "")
    worklist.cancel("1.7.1", MINE, "the slide is damaged")
    assert server.state("1.7.1") == "CANCELED"
    assert "damaged" in str(server.items["1.7.1"][PROGRESS])


class Careless(UpsServer):
    """Knows no filter: a search gives every workitem, in whatever state."""

    def reply(self, method: str, target: str, body: bytes) -> Reply:
        address, _, query = target.partition("?")
        start = next((part for part in query.split("&") if part.startswith("offset=")), "offset=0")
        return super().reply(method, f"{address}?{start}" if method == "GET" else target, body)


def test_only_work_that_waits_and_has_the_label_is_found_whatever_the_server_answers() -> None:
    server = Careless()
    for uid, label in (("1.7.1", "STAMP"), ("1.7.2", "OTHER"), ("1.7.3", "STAMP")):
        server.add(uid, ("1.1", "1.2.1"), label=label)
    with answering(server.reply) as (url, _), Client(Server(url), AT_ONCE) as client:
        worklist = Worklist(client)
        assert worklist.claim("1.7.1", THEIRS)
        assert worklist.search("STAMP") == ["1.7.3"]
        assert worklist.search() == ["1.7.2", "1.7.3"]


def test_a_series_that_is_named_twice_is_scored_once(server: UpsServer, worklist: Worklist) -> None:
    server.add("1.7.4", ("1.1", "1.2.6"), ("1.1", "1.2.5"), ("1.1", "1.2.6"))
    assert worklist.slides("1.7.4") == [SeriesRow("1.1", "1.2.6", -1), SeriesRow("1.1", "1.2.5", -1)]


def test_results_are_named_by_study_series_class_and_uid(server: UpsServer, worklist: Worklist) -> None:
    """Two series of one study, and one of another; times are told in UTC, whatever zone they were taken in."""
    results = [
        replace(RESULT, uid="1.5.1"),
        replace(RESULT, uid="1.5.2", sop_class="1.2.840.10008.5.1.4.1.1.66.4", series="1.4.2"),
        replace(RESULT, uid="1.5.3"),
        replace(RESULT, uid="1.5.4", study="1.9"),
    ]
    worklist.claim("1.7.1", MINE)
    begun = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    before = datetime.now(UTC).replace(microsecond=0)
    worklist.complete("1.7.1", MINE, results, begun)
    (performed,) = server.items["1.7.1"][PERFORMED]["Value"]
    told = [
        (one["0020000D"]["Value"], one["0020000E"]["Value"],
         [(item["00081150"]["Value"][0], item["00081155"]["Value"][0]) for item in one["00081199"]["Value"]])
        for one in performed["00404033"]["Value"]
    ]  # fmt: skip
    parametric_map = RESULT.sop_class
    assert told == [
        (["1.1"], ["1.4"], [(parametric_map, "1.5.1"), (parametric_map, "1.5.3")]),
        (["1.1"], ["1.4.2"], [("1.2.840.10008.5.1.4.1.1.66.4", "1.5.2")]),
        (["1.9"], ["1.4"], [(parametric_map, "1.5.4")]),
    ]
    assert performed["00404050"]["Value"] == ["20260101213405+0000"]
    ended = datetime.strptime(performed["00404051"]["Value"][0], "%Y%m%d%H%M%S%z")
    assert before <= ended <= datetime.now(UTC)


@pytest.mark.parametrize("code", [400, 409])
def test_a_claim_that_the_state_forbids_was_somebody_elses(code: int) -> None:
    """Servers say so by either code; anything else is a failure."""
    answers = {400: (400, {}, b""), 409: (409, {}, b"")}
    with answering(lambda *rest: answers[code]) as (url, _), Client(Server(url), AT_ONCE) as client:
        assert Worklist(client).claim("1.7.1", MINE) is False
    refusing = answering(lambda *rest: (403, {}, b""))
    with refusing as (url, _), Client(Server(url), AT_ONCE) as client, pytest.raises(ArchiveError):
        Worklist(client).claim("1.7.1", MINE)


def test_another_performers_workitem_is_not_touched(server: UpsServer, worklist: Worklist, tmp_path: Path) -> None:
    """It was taken between the search and the claim: one refused claim, and nothing else is sent."""
    records, found = SeriesRecords(tmp_path), worklist.search("STAMP")

    class Slow(Worklist):
        def search(self, label: str = "*") -> list[str]:
            return found

    worklist.claim("1.7.1", THEIRS)
    trigger = Assigned(Slow(worklist._client), records, tmp_path, label="STAMP", most=1)
    assert trigger.look() == rows("1.2.2", "1.2.3")
    assert server.refused == ["IN PROGRESS to IN PROGRESS"]
    assert records.names(PREFIX) == [f"{PREFIX}1.7.2"]


def test_a_claim_is_written_down_before_it_is_made(worklist: Worklist, tmp_path: Path) -> None:
    """Its transaction is the one that the server is told: a crash between the two loses nothing."""
    records, told = SeriesRecords(tmp_path), []

    class Crashing(Worklist):
        def claim(self, uid: str, transaction: str) -> bool:
            told.append((records.read(f"{PREFIX}{uid}")["transaction"], transaction))
            raise ArchiveUnreachable("the power is cut")

    with pytest.raises(ArchiveUnreachable):
        Assigned(Crashing(worklist._client), records, tmp_path, label="STAMP", most=1).look()
    ((kept, used),) = told
    assert kept == used
    assert Assigned(worklist, records, tmp_path, label="STAMP", most=1).look() == rows("1.2.1")


def test_an_end_whose_answer_was_lost_is_no_failure(server: UpsServer, worklist: Worklist) -> None:
    worklist.claim("1.7.1", MINE)
    server.lose_answers = 1
    worklist.complete("1.7.1", MINE, [], datetime.now(UTC))
    assert server.state("1.7.1") == "COMPLETED" and server.refused == []


def rows(*series: str) -> list[SeriesRow]:
    return [SeriesRow("1.1", one, -1) for one in series]


def test_work_is_claimed_as_there_is_room_and_ends_with_its_last_slide(
    server: UpsServer, worklist: Worklist, tmp_path: Path
) -> None:
    records = SeriesRecords(tmp_path)
    trigger = Assigned(worklist, records, tmp_path, label="STAMP", most=1)
    assert trigger.look() == rows("1.2.1") and trigger.pending()
    assert server.state("1.7.2") == "SCHEDULED", "it is left to others"
    assert trigger.look() == rows("1.2.1") and trigger.pending(), "it still waits for its turn"
    trigger.ended(rows("1.2.1")[0], "key", "")
    assert server.state("1.7.1") == "COMPLETED"
    assert trigger.look() == rows("1.2.2", "1.2.3")
    assert server.items["1.7.2"][PROGRESS]["Value"][0]["00741006"]["Value"] == ["0 of 2 slides"]
    trigger.ended(rows("1.2.2")[0], "key", "")
    assert server.items["1.7.2"][PROGRESS]["Value"][0]["00741004"]["Value"] == [50]
    trigger.ended(rows("1.2.3")[0], "", "quarantined")
    assert server.state("1.7.2") == "CANCELED" and "1 of 2 slides: quarantined" in str(server.items["1.7.2"][PROGRESS])
    assert trigger.look() == [] and not trigger.pending() and records.names(PREFIX) == []


def test_a_slide_that_ends_is_told_of_its_own_workitem_alone(
    server: UpsServer, worklist: Worklist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = Assigned(worklist, SeriesRecords(tmp_path), tmp_path, label="STAMP", most=2)
    assert trigger.look() == rows("1.2.1", "1.2.2", "1.2.3")
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(worklist, "progress", lambda uid, transaction, percent, text: told.append((uid, percent)))
    trigger.ended(rows("1.2.2")[0], "key", "")
    trigger.ended(rows("1.2.1")[0], "key", "")
    assert told == [("1.7.2", 50)] and server.state("1.7.1") == "COMPLETED"


@pytest.mark.parametrize("claimed", [True, False])
def test_a_crash_in_the_middle_of_a_claim(claimed: bool, server: UpsServer, worklist: Worklist, tmp_path: Path) -> None:
    """The claim is written down before it is made; whether it went through is found out."""
    records = SeriesRecords(tmp_path)
    records.write(f"{PREFIX}1.7.1", {"transaction": MINE, "begun": datetime.now(UTC).isoformat()})
    worklist.claim("1.7.1", MINE if claimed else THEIRS)
    trigger = Assigned(worklist, records, tmp_path, label="STAMP", most=1)
    assert trigger.look() == (rows("1.2.1") if claimed else rows("1.2.2", "1.2.3"))


def test_a_restart_goes_on_with_what_was_claimed(server: UpsServer, worklist: Worklist, tmp_path: Path) -> None:
    records = SeriesRecords(tmp_path)
    Assigned(worklist, records, tmp_path, label="STAMP", most=1).look()
    again = Assigned(worklist, records, tmp_path, label="STAMP", most=1)
    assert again.look() == rows("1.2.1")
    again.ended(rows("1.2.1")[0], "key", "")
    assert server.state("1.7.1") == "COMPLETED"


def test_a_workitem_without_input_is_given_back_with_the_reason(
    server: UpsServer, worklist: Worklist, tmp_path: Path
) -> None:
    server.items.clear()
    server.add("1.7.9")
    assert Assigned(worklist, SeriesRecords(tmp_path), tmp_path, label="*", most=2).look() == []
    assert server.state("1.7.9") == "CANCELED" and "names no series" in str(server.items["1.7.9"][PROGRESS])


def test_a_watch_takes_its_work_from_the_worklist(
    orthanc: Orthanc,
    runner: Runner,  # noqa: F811
    password: Path,
    tmp_path: Path,
) -> None:
    """The slide that was assigned is scored and no other; its workitem names the results."""
    pytest.importorskip("highdicom")
    wanted, other = scan(tmp_path / "scanned", 1), scan(tmp_path / "scanned", 2)
    orthanc.add(*wanted.files, *other.files)
    server = UpsServer()
    server.add("1.7.1", (wanted.study, wanted.series))
    authorization = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def reply(method: str, path: str, body: bytes) -> Reply:
        if path.startswith("/workitems"):
            return server.reply(method, path, body)
        request = urllib.request.Request(orthanc.url + path, data=body if method == "POST" else None, method=method)
        request.add_header("Authorization", authorization)
        request.add_header("Accept", 'multipart/related; type="application/dicom"; transfer-syntax=*')
        if "?" in path or method == "POST":
            request.add_header("Accept", "application/dicom+json")
        if method == "POST":
            boundary = body.split(b"\r\n")[0][2:].decode()
            kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
            request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, {"Content-Type": answer.headers.get("Content-Type", "")}, answer.read()

    bundle = position_bundle(tmp_path / "bundle", SMALL)
    with answering(reply) as (url, _):
        words = ("--worklist", "STAMP", "--poll", "0.1", "--once", "--bundle", bundle, "-o", tmp_path / "out")
        done = runner("dicomweb", "watch", url, "--user", USER, "--password-file", password, *words, *SCORING)
    assert done.code == 0, done.err + done.out
    assert len(list((tmp_path / "out").glob("*/DONE"))) == 1
    assert server.state("1.7.1") == "COMPLETED" and server.refused == []
    outputs = server.items["1.7.1"][PERFORMED]["Value"][0]["00404033"]["Value"]
    assert sum(len(one["00081199"]["Value"]) for one in outputs) == 5
    states = [event.get("state") for line in done.out.splitlines() if (event := json.loads(line))["event"] == "slide"]
    assert states == ["done"]
