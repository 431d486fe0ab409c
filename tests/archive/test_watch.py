"""A watched archive: one result per slide after any number of looks and restarts, and no look at our own results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from support.archive_faults import Proxy, Reply, answering
from support.archive_slide import NAME, SMALL, ScannedSlide, scan
from support.archived_result import SCORING
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import USER, Orthanc
from support.position_slide import position_bundle

from stamp_deploy.archive.arrivals import ArchiveArrivals, ArchiveWatch
from stamp_deploy.archive.changes import Changes
from stamp_deploy.archive.client import Client
from stamp_deploy.archive.query import SeriesRow
from stamp_deploy.archive.records import SeriesRecord, SeriesRecords
from stamp_deploy.archive.retry import Retry
from stamp_deploy.archive.server import Server
from stamp_deploy.archive.trigger import Search, Trigger
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, UsageError

pytest.importorskip("highdicom")
TODAY = date(2026, 1, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return position_bundle(tmp_path_factory.mktemp("bundle") / "bundle", SMALL)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScannedSlide, ScannedSlide]:
    folder, day = tmp_path_factory.mktemp("scanned"), f"{date.today():%Y%m%d}"
    return scan(folder, 1, day=day), scan(folder, 2, day=day)


@pytest.fixture
def words(orthanc: Orthanc, bundle: Path, password: Path, tmp_path: Path) -> list[object]:
    """A watch that ends when everything is done."""
    access = ("--user", USER, "--password-file", password)
    pace = ("--settle", "0", "--poll", "0.1", "--once")
    return ["dicomweb", "watch", orthanc.url, *access, "--bundle", bundle, "-o", tmp_path / "out", *pace, *SCORING]


def results(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("*/DONE"))


def events(out: str) -> list[dict[str, object]]:
    """Its JSON lines; how far a slow machine is is left out."""
    return [event for line in out.splitlines() if (event := json.loads(line))["event"] != "progress"]


def test_one_result_for_each_slide_after_many_looks_and_restarts(
    orthanc: Orthanc,
    slides: tuple[ScannedSlide, ScannedSlide],
    words: list[object],
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    orthanc.add(*slides[0].files)
    first = runner(*words)
    assert first.code == 0, first.err + first.out
    assert [event["state"] for event in events(first.out) if event["event"] == "slide"] == ["done"]
    arrived = orthanc.arrivals()
    for _ in range(3):
        again = runner(*words)
        assert (again.code, events(again.out)) == (0, []), "our own results are no slides, and nothing is scored twice"
    assert orthanc.arrivals() == arrived, "nothing was sent again"
    assert len(results(tmp_path / "out")) == 1
    modalities = {orthanc.rest(f"series/{one}")["MainDicomTags"]["Modality"] for one in orthanc.rest("series")}
    assert modalities == {"SM", "OT", "SEG", "SR"}
    orthanc.add(*slides[1].files)
    second = runner(*words)
    assert second.code == 0 and len(results(tmp_path / "out")) == 2
    assert list((tmp_path / "out" / ".stamp" / "slides-of-archive").iterdir()) == [], "slides are removed"
    assert NAME not in first.out + first.err + second.out + second.err
    audit = next((tmp_path / "out" / ".stamp").glob("audit-*.jsonl")).read_text().splitlines()
    assert [json.loads(line)["event"] for line in audit].count("slide") == 2


def test_a_push_that_failed_is_made_up_for_without_scoring(
    orthanc: Orthanc,
    slides: tuple[ScannedSlide, ScannedSlide],
    words: list[object],
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    orthanc.add(*slides[0].files)
    assert runner(*words, "--no-push").code == 0
    assert len(orthanc.rest("series")) == 1
    done = runner(*words)
    assert (done.code, events(done.out)) == (0, [])
    assert len(orthanc.rest("series")) == 4


def test_changes_of_orthanc_in_place_of_a_search(
    orthanc: Orthanc,
    slides: tuple[ScannedSlide, ScannedSlide],
    client: Client,
    tmp_path: Path,
) -> None:
    """Only what becomes stable after the first look; the changes that results raise are passed over."""
    orthanc.add(*slides[0].files)
    records = SeriesRecords(tmp_path)
    assert Changes(client, records).look() == []
    trigger = Changes(client, records)
    orthanc.add(*slides[1].files)
    rows = wait_for(trigger.look)
    assert [row.series for row in rows if row.series == slides[1].series] == [slides[1].series]
    assert wait_for(Changes(client, records).look), "a restart begins where all was done"
    for row in rows:
        trigger.ended(row, "key", "")
    trigger.all_ended()
    assert Changes(client, records).look() == []


def test_a_series_that_was_deleted_meanwhile_is_passed_over(tmp_path: Path) -> None:
    page = {"Changes": [{"ChangeType": "StableSeries", "ID": "gone"}], "Last": 1, "Done": True}

    def reply(method: str, path: str, body: bytes) -> Reply:
        return (200, {}, json.dumps(page).encode()) if path.startswith("/changes") else (404, {}, b"")

    with answering(reply) as (url, asked), Client(Server(url), Retry(attempts=1)) as client:
        assert Changes(client, SeriesRecords(tmp_path), url).look() == []
    assert asked[-1] == "GET /series/gone"


def wait_for(look: Callable[[], list[SeriesRow]]) -> list[SeriesRow]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.2)
    return []


def test_a_watch_is_stopped_by_a_signal_and_goes_on(
    orthanc: Orthanc, slides: tuple[ScannedSlide, ScannedSlide], words: list[object], tmp_path: Path
) -> None:
    """Ten looks and more of a real process, stopped and started again: one result."""
    orthanc.add(*slides[0].files)
    said = []

    def is_pushed() -> bool:
        records = (tmp_path / "out" / ".stamp" / "archive").glob(f"{slides[0].series}.json")
        return any('"pushed": true' in path.read_text() for path in records)

    with Proxy(orthanc.port).running() as proxy:
        through = {orthanc.url: f"http://127.0.0.1:{proxy.port}/dicom-web"}
        forever = [str(through.get(str(word), word)) for word in words if word != "--once"]
        for _ in range(2):
            before = proxy.requests
            command = [sys.executable, "-m", "stamp_deploy.cli", *forever]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                until = time.monotonic() + 240
                # a look is a search of one page or two; fetching and pushing the slide takes about 40 requests
                while time.monotonic() < until and not (is_pushed() and proxy.requests >= before + 80):
                    time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            said += events(out)
    assert len(results(tmp_path / "out")) == 1
    assert [event["event"] for event in said] == ["slide"]


def test_a_refused_first_look_ends_the_command(
    orthanc: Orthanc,
    words: list[object],
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "password").write_text("wrong\n")
    done = runner(*words)
    assert done.code == 8 and "HTTP 401" in done.err


def test_two_watches_of_one_output(tmp_path: Path) -> None:
    first = SeriesRecords(tmp_path)
    with pytest.raises(UsageError, match="another watch"):
        SeriesRecords(tmp_path)
    first.close()
    SeriesRecords(tmp_path).close()


def test_pushing_needs_something_to_push(words: list[object], runner: Runner) -> None:  # noqa: F811
    done = runner(*words, "--write", "json")
    assert done.code == 2 and "no DICOM format is written" in done.err


class Archive(Trigger):
    """An archive of rows, and a clock."""

    def __init__(self, *rows: SeriesRow) -> None:
        self.rows, self.now, self.error = list(rows), 0.0, None
        self.told: list[str] = []

    def look(self) -> list[SeriesRow]:
        if self.error is not None:
            raise self.error
        return list(self.rows)

    def pending(self) -> bool:
        return False

    def ended(self, row: SeriesRow, result: str, reason: str) -> None:
        self.told.append(f"{row.series} {result}{reason}")

    def all_ended(self) -> None:
        self.told.append("all")


ROWS = [SeriesRow("1.1", f"1.2.{number}", 3) for number in range(4)]


def arrivals(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch, **how: object
) -> tuple[ArchiveArrivals, SeriesRecords, list[str]]:
    """Arrivals of an archive whose slides are fetched without a network."""
    records, said = SeriesRecords(folder / "records"), list[str]()

    def pull(client: object, row: SeriesRow, out: Path) -> object:
        (out / row.series).mkdir(parents=True, exist_ok=True)
        return type("Pulled", (), {"folder": out / row.series})

    monkeypatch.setattr("stamp_deploy.archive.arrivals.pull_series", pull)
    monkeypatch.setattr("stamp_deploy.archive.arrivals.slide_in_folder", lambda path: path / "0.dcm")
    settings = {"push": False, "poll_s": 10.0, **how}
    watch = ArchiveWatch(folder / "slides", **settings)  # type: ignore[arg-type]
    made = ArchiveArrivals(
        Client(Server("http://127.0.0.1:9")),
        records,
        lambda known: archive,
        watch,
        folder / "out",
        lambda series, detail: said.append(detail),
        clock=lambda: archive.now,
    )
    return made, records, said


def finish(folder: Path, key: str) -> None:
    (folder / "out" / key).mkdir(parents=True)
    (folder / "out" / key / "DONE").write_text("done\n")


def test_what_is_fetched_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(*ROWS)
    made, records, _ = arrivals(archive, tmp_path, monkeypatch, ahead=2)
    first = made.poll()
    assert [path.parent.name for path, _ in first] == ["1.2.0", "1.2.1"] and made.pending()
    assert made.poll() == []
    finish(tmp_path, "a")
    made.settled(first[0][0], "a", AttemptState.DONE)
    assert [path.parent.name for path, _ in made.poll()] == ["1.2.2"]
    assert records.get("1.2.0") == SeriesRecord(3, "a", AttemptState.DONE)
    assert not (tmp_path / "slides" / "1.2.0").exists() and (tmp_path / "slides" / "1.2.1").exists()
    archive.now = 10.0
    assert made.poll() == [], "what is done is not given again"


def test_a_series_that_has_grown_or_lost_its_result_is_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(*ROWS[:3])
    made, records, _ = arrivals(archive, tmp_path, monkeypatch, ahead=9)
    finish(tmp_path, "a")
    finish(tmp_path, "b")
    records.put("1.2.0", SeriesRecord(3, "a", AttemptState.DONE))
    records.put("1.2.1", SeriesRecord(2, "b", AttemptState.DONE))
    records.put("1.2.2", SeriesRecord(3, "gone", AttemptState.DONE))
    assert [path.parent.name for path, _ in made.poll()] == ["1.2.1", "1.2.2"]


@pytest.mark.parametrize(("retry", "given"), [(False, 0), (True, 1)])
def test_a_slide_that_failed_is_left_alone_until_it_is_asked_for(
    retry: bool, given: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(ROWS[0])
    made, records, _ = arrivals(archive, tmp_path, monkeypatch, retry_failed=retry)
    records.put("1.2.0", SeriesRecord(3, "a", AttemptState.QUARANTINED))
    assert len(made.poll()) == given


def test_an_archive_that_fails_later_is_asked_again_more_and_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive()
    made, _, said = arrivals(archive, tmp_path, monkeypatch)
    made.poll()
    archive.error = ArchiveError("refused")
    pauses = []
    for _ in range(4):
        while len(said) == len(pauses):
            archive.now += 1.0
            made.poll()
        pauses.append(float(said[-1].rsplit(" ", 2)[1]))
    assert pauses == [10.0, 20.0, 40.0, 80.0]
    archive.error = None
    archive.now += 100.0
    made.poll()
    assert made.exit_code == 0


def test_a_stop_in_the_middle_of_a_look_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    made, _, said = arrivals(archive, tmp_path, monkeypatch)

    def look() -> list[SeriesRow]:
        made.stop()
        raise ArchiveUnreachable("stopped")

    monkeypatch.setattr(archive, "look", look)
    assert made.poll() == [] and said == [] and made.exit_code == 0
    made.finish()


def test_a_slide_that_is_being_scored_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(*ROWS[:1])
    made, records, _ = arrivals(archive, tmp_path, monkeypatch, ahead=9)
    ((path, _),) = made.poll()
    archive.now = 10.0
    assert made.poll() == [] and not made.pending()
    finish(tmp_path, "a")
    made.settled(path, "a", AttemptState.DONE)
    made.settled(path, "b", AttemptState.FAILED)  # told twice: the first word counts
    made.finish()
    assert records.get("1.2.0") == SeriesRecord(3, "a", AttemptState.DONE)
    assert archive.told == ["1.2.0 a"]


@pytest.mark.parametrize("keep", [False, True])
def test_slides_that_were_scored_are_removed_unless_they_are_to_stay(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = arrivals(Archive(*ROWS[:2]), tmp_path, monkeypatch, keep_slides=keep)
    (first, _), (second, _) = made.poll()
    finish(tmp_path, "a")
    made.settled(first, "a", AttemptState.DONE)
    made.settled(second, "b", AttemptState.FAILED)
    made.finish()
    assert first.parent.exists() == keep
    assert second.parent.exists(), "what failed stays, to be looked at"


def test_results_are_pushed_until_the_archive_has_them_and_then_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, sent = Archive(*ROWS[:2]), list[str]()
    refused = True

    def push(keeper: object, folder: Path) -> None:
        sent.append(folder.name)
        if refused:
            raise ArchiveError("full")

    monkeypatch.setattr("stamp_deploy.archive.arrivals.push_result", push)
    made, records, said = arrivals(archive, tmp_path, monkeypatch, push=True)
    (first, _), (second, _) = made.poll()
    finish(tmp_path, "a")
    made.settled(first, "a", AttemptState.DONE)
    made.settled(second, "b", AttemptState.FAILED)  # there is nothing to push
    made.poll()
    assert sent == ["a"] and len(said) == 1 and made.exit_code == 8
    assert records.get("1.2.0") == SeriesRecord(3, "a", AttemptState.DONE, pushed=False)
    assert archive.told == ["1.2.1 failed"], "the other one has not ended"
    archive.now = 9.0
    made.poll()
    assert sent == ["a"], "not before its time"
    refused, archive.now = False, 10.0
    made.poll()
    assert sent == ["a", "a"] and records.get("1.2.0") == SeriesRecord(3, "a", AttemptState.DONE, pushed=True)
    assert archive.told[1:] == ["1.2.0 a", "1.2.0 a", "1.2.1 failed", "all"]
    archive.now = 100.0
    made.poll()
    assert sent == ["a", "a"] and made.exit_code == 0 and archive.told[-1] == "all"


def test_that_all_is_done_is_said_when_nothing_waits_to_be_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(ROWS[0])

    def push(keeper: object, folder: Path) -> None:
        raise ArchiveError("full")

    monkeypatch.setattr("stamp_deploy.archive.arrivals.push_result", push)
    made, records, _ = arrivals(archive, tmp_path, monkeypatch, push=True)
    finish(tmp_path, "a")
    records.put("1.2.0", SeriesRecord(3, "a", AttemptState.DONE))
    for seconds in (0.0, 10.0, 20.0, 30.0):
        archive.now = seconds
        assert made.poll() == []
    assert archive.told == []


def test_a_pause_is_never_longer_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(ROWS[0])
    made, _, said = arrivals(archive, tmp_path, monkeypatch)

    def pull(*rest: object) -> object:
        raise ArchiveError("refused")

    monkeypatch.setattr("stamp_deploy.archive.arrivals.pull_series", pull)
    pauses = []
    for _ in range(9):
        made.poll()
        pauses.append(float(said[-1].rsplit(" ", 2)[1]))
        archive.now += pauses[-1]
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert not made.pending(), "what failed is not waited for"


class Answers:
    """A client whose searches give series rows, and that remembers the windows asked for."""

    def __init__(self) -> None:
        self.rows: list[SeriesRow] = []
        self.windows: list[tuple[str, str]] = []

    def find(self, client: object, first: str, last: str) -> list[SeriesRow]:
        self.windows.append((first, last))
        return list(self.rows)


def search(
    answers: Answers, records: SeriesRecords, now: list[float], monkeypatch: pytest.MonkeyPatch, today: date = TODAY
) -> Search:
    monkeypatch.setattr("stamp_deploy.archive.trigger.find_recent", answers.find)
    return Search(
        None,  # type: ignore[arg-type]
        records,
        lambda row: False,
        days=7,
        settle_s=60.0,
        clock=lambda: now[0],
        today=lambda: today,
    )


def test_a_series_is_due_when_its_number_of_instances_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, now = Answers(), [0.0]
    trigger = search(answers, SeriesRecords(tmp_path), now, monkeypatch)
    due = {}
    for seconds, count in ((0, 1), (30, 2), (80, 3), (100, 3), (139, 3), (140, 3)):
        now[0], answers.rows = float(seconds), [SeriesRow("1.1", "1.2", count)]
        due[seconds] = len(trigger.look())
        assert trigger.pending() == (not due[seconds])
    assert due == {0: 0, 30: 0, 80: 0, 100: 0, 139: 0, 140: 1}


def test_windows_overlap_and_wait_for_what_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, now = Answers(), [0.0]
    records = SeriesRecords(tmp_path)
    search(answers, records, now, monkeypatch).look()
    later = search(answers, records, now, monkeypatch, date(2026, 2, 20))
    later.look()
    later.all_ended()
    later.look()
    assert answers.windows == [("20251227", "20260104"), ("20251227", "20260221"), ("20260213", "20260221")]


def test_damaged_records_count_as_none(tmp_path: Path) -> None:
    records = SeriesRecords(tmp_path)
    for text in ("", "[]", "{", '{"instances": "x", "key": "a", "state": "done", "pushed": true}', "\xff"):
        (tmp_path / "1.2.json").write_text(text)
        assert records.get("1.2") is None
    assert os.listdir(tmp_path)
