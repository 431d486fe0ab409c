"""What is done while a call of the file system fails, and what must hold afterwards: in a child, see fault_shim.py.

A scenario makes its folder ready, acts, and says what is wrong with what it left. `exhaust` runs it with its first call
failing, then its second, until it needs no more.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from stamp_deploy import atomic
from stamp_deploy.batch.records.audit import AuditLog, verify_audit
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.records.metrics import BatchMetrics
from stamp_deploy.batch.records.slide_states import SlideStates
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DataError, DiskError
from support.fault_shim import armed

MOST_CALLS = 5000


class Scenario:
    """One thing that is done to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ready(self) -> None: ...

    def act(self) -> None: ...

    def wrong(self, succeeded: bool) -> Iterator[str]:
        """What is wrong with what is there, after `act` returned or raised."""
        yield from ()


class AtomicFile(Scenario):
    def ready(self) -> None:
        atomic.write_json_atomic(self.folder / "a.json", {"v": "old"})

    def act(self) -> None:
        atomic.write_json_atomic(self.folder / "a.json", {"v": "new"})

    def wrong(self, succeeded: bool) -> Iterator[str]:
        found = json.loads((self.folder / "a.json").read_text())["v"]
        if found != "new" and (succeeded or found != "old"):
            yield f"the file holds {found}"
        if [path.name for path in self.folder.iterdir()] != ["a.json"]:
            yield "something is left beside it"


class NewResult(Scenario):
    def act(self) -> None:
        with atomic.staged_directory(self.folder / "deep" / "result", hashes=True) as staging:
            (staging / "maps").mkdir()
            (staging / "maps" / "one.png").write_bytes(b"1" * 5000)
            (staging / "tiles.h5").write_bytes(b"2" * 5000)

    def wrong(self, succeeded: bool) -> Iterator[str]:
        final = self.folder / "deep" / "result"
        if final.exists() and not atomic.is_whole(final):
            yield "half a result is there"
        if succeeded and not final.exists():
            yield "the result is lost"
        if final.parent.exists() and any(path != final for path in final.parent.iterdir()):
            yield "something is left beside it"


class ReplacedResult(Scenario):
    def _write(self, text: str) -> None:
        with atomic.staged_directory(self.folder / "result", overwrite=True, hashes=True) as staging:
            (staging / "a.txt").write_text(text)

    def ready(self) -> None:
        self._write("old")

    def act(self) -> None:
        self._write("new")

    def wrong(self, succeeded: bool) -> Iterator[str]:
        final = self.folder / "result"
        if not atomic.is_whole(final):
            yield "neither the old result nor the new one is there whole"
        elif (final / "a.txt").read_text() != "new" and succeeded:
            yield "the old result is there"
        if [path.name for path in self.folder.iterdir()] != ["result"]:
            yield "something is left beside it"


class ReplacedWithoutExchange(ReplacedResult):
    """As on NFS, where two folders cannot change places in one step."""

    def act(self) -> None:
        exchange = atomic._exchange
        atomic._exchange = lambda one, other: False
        try:
            super().act()
        finally:
            atomic._exchange = exchange


class TakenClaim(Scenario):
    def ready(self) -> None:
        self.claims = Claims(self.folder / "claims", host="one")
        self.record: Any = None

    def act(self) -> None:
        self.record = self.claims.take("k")

    def wrong(self, succeeded: bool) -> Iterator[str]:
        other = Claims(self.folder / "claims", host="two")
        with closing(self.claims), closing(other):
            taken = other.take("k")
            if succeeded and (self.record is None or taken is not None):
                yield "two hold one claim" if taken else "the claim was not given"
            if not succeeded and taken is None:
                yield "a claim that failed keeps others out"
            if any(record.reason for record in other.history("k")):
                yield "half a claim is there"
        if list((self.folder / "claims").glob(".*")):
            yield "something is left beside it"


class ReleasedClaim(Scenario):
    def ready(self) -> None:
        self.claims = Claims(self.folder / "claims", host="one")
        assert self.claims.take("k")

    def act(self) -> None:
        self.claims.release("k", AttemptState.CRASHED, "SIGSEGV")

    def wrong(self, succeeded: bool) -> Iterator[str]:
        self.claims.close()
        (record,) = self.claims.history("k")
        if record.state not in ("crashed", "running", "interrupted") or (succeeded and record.state != "crashed"):
            yield f"the claim says {record.state}"
        if record.reason == "claim file unreadable":
            yield "half a claim is there"
        if list((self.folder / "claims").glob(".*")):
            yield "something is left beside it"


class LedgerRow(Scenario):
    def ready(self) -> None:
        self.ledger = Ledger(self.folder, "h")
        self.ledger.start("kept", 1, "kept.svs")
        self.ledger.end("kept", 1, AttemptState.DONE, tiles=7)

    def act(self) -> None:
        self.ledger.start("k", 1, "a.svs")
        self.ledger.end("k", 1, AttemptState.DONE, tiles=5)
        self.ledger.refuse("bad", "b.svs", "no slide")

    def wrong(self, succeeded: bool) -> Iterator[str]:
        self.ledger.close()
        again = Ledger(self.folder, "h")
        rows = {row.key: (row.state, row.tiles) for row in again.attempts()}
        again.start("later", 1, "c.svs")
        again.close()
        if rows.pop("kept", None) != ("done", 7):
            yield "a row that was there is lost"
        if succeeded and rows != {"k": ("done", 5), "bad": ("failed", 0)}:
            yield f"what was written is lost: {rows}"
        if rows.get("k") not in (None, ("running", 0), ("done", 5)):
            yield f"half a row is there: {rows}"


class AuditEvent(Scenario):
    def ready(self) -> None:
        self.log = AuditLog(self.folder, "h")
        self.heads = [self.log.append("run", state="started")]

    def act(self) -> None:
        self.heads.append(self.log.append("slide", state="done"))
        self.heads.append(self.log.append("slide", state="failed"))

    def wrong(self, succeeded: bool) -> Iterator[str]:
        last = AuditLog(self.folder, "h").append("run", state="started")
        for head in (*self.heads, last):
            try:
                verify_audit(self.log.path, head=head)
            except DataError as error:
                yield str(error)


class OneAuditEvent(AuditEvent):
    def act(self) -> None:
        self.log.append("slide", state="done")


class SlideNote(Scenario):
    def ready(self) -> None:
        SlideStates(self.folder / "slides").put("k", "aa", "s1")

    def act(self) -> None:
        SlideStates(self.folder / "slides").put("k", "aa", "s2")

    def wrong(self, succeeded: bool) -> Iterator[str]:
        record = SlideStates(self.folder / "slides").get("k")
        if record is None or record.states not in (("s1", "s2"), ("s1",)) or (succeeded and "s2" not in record.states):
            yield f"the note is {record}"


class Metrics(Scenario):
    def ready(self) -> None:
        self.metrics = BatchMetrics(self.folder / "stamp.prom", version="1", bundle_sha256="x")
        self.metrics.write()

    def act(self) -> None:
        self.metrics.slide_ended(AttemptState.DONE, 1.0)
        self.metrics.write()

    def wrong(self, succeeded: bool) -> Iterator[str]:
        text = (self.folder / "stamp.prom").read_text()
        if "stamp_metrics_written_timestamp_seconds" not in text or not text.endswith("\n"):
            yield "half a file is there"


class Writers(Scenario):
    """Some formats, into a result folder."""

    formats: tuple[str, ...] = ()
    whole: ClassVar[dict[str, bytes]] = {}
    """What an undisturbed run writes: file -> SHA-256."""

    def act(self) -> None:
        from stamp_deploy.writers import write_all

        with atomic.staged_directory(self.folder / "result", hashes=True) as staging:
            write_all(small_result(), staging, self.formats)

    def wrong(self, succeeded: bool) -> Iterator[str]:
        final = self.folder / "result"
        if final.exists() and not atomic.is_whole(final):
            yield "half a result is there"
        if succeeded and not final.exists():
            yield "the result is lost"
        if any(path != final for path in self.folder.iterdir()):
            yield "something is left beside it"
        if final.exists():
            written = {str(path.relative_to(final)): path for path in final.rglob("*") if path.is_file()}
            found = {name: sha256(path.read_bytes()).digest() for name, path in written.items()}
            spoilt = {name for name in found | self.whole if found.get(name) != self.whole.get(name)}
            if self.whole and spoilt:
                yield f"other bytes than those of an undisturbed run: {sorted(spoilt)[:5]}"
            elif not self.whole:
                self.whole.update(found)


class DicomWriters(Writers):
    """Formats that describe a DICOM slide; the slide lies elsewhere."""

    def act(self) -> None:
        from stamp_deploy.writers import write_all

        with atomic.staged_directory(self.folder / "result", hashes=True) as staging:
            write_all(small_dicom_result(), staging, self.formats)


@cache
def small_result() -> Any:
    """A result of few tiles, made once."""
    from support.result_factory import make_result

    return make_result(16, thumbnail_px=64)


@cache
def small_dicom_result() -> Any:
    """A result of a few tiles of a DICOM slide, made once."""
    from writers.test_writers_dicom import dicom_result

    return dicom_result(Path(os.environ["STAMP_TEST_DATA"]) / "dicom" / "highdicom_sm_image.dcm")


def exhaust(scenario: str, error: str, step: int = 1, *formats: str, short: bool = False) -> dict[str, Any]:
    """Run a scenario with each of its calls failing once; with a step, with every so manieth.

    `error` is a name of errno. With `short`, the call writes half of its bytes instead, and what is written after it
    fails with `error`, or, where that is "", does not.

    Returns
    -------
    dict
        "calls": how many there are; "wrong": what did not hold, as [which call, what]; "refused": how often it raised.
    """
    kind: Callable[[Path], Scenario] = globals()[scenario]
    wrong: list[tuple[int, str]] = []
    refused = 0
    # first undisturbed: what it writes is what it must write later, and what libraries set up once is set up
    for nth in (0, *range(1, MOST_CALLS, step)):
        folder = Path(tempfile.mkdtemp(prefix="nth-"))
        try:
            made = kind(folder)
            if formats:
                made.formats = formats  # type: ignore[attr-defined]
            made.ready()
            succeeded, calls = True, []
            try:
                with armed(folder, nth, getattr(errno, error) if error else 0, short=short) as calls:
                    made.act()
            except DiskError:
                succeeded = False
            except BaseException as error_:
                succeeded = False
                wrong.append((nth, f"{type(error_).__name__}: {error_} {traceback.format_exc()[-600:]}"))
            refused += not succeeded
            wrong += [(nth, f"{calls[nth - 1] if len(calls) >= nth else ''}: {what}") for what in made.wrong(succeeded)]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if nth and len(calls) < nth:
            break
    return {"calls": nth - 1, "wrong": wrong, "refused": refused}


def exhaust_short(scenario: str, error: str, step: int = 1, *formats: str) -> dict[str, Any]:
    """`exhaust` with each call cut short in turn."""
    return exhaust(scenario, error, step, *formats, short=True)


def record(scenario: str, without_flush: int = 0, marker_first: bool = False) -> list[tuple[str, str, str]]:
    """The calls that a scenario makes, its folder's name left out; with the nth flush left out, or the marker early."""
    folder = Path(tempfile.mkdtemp(prefix="nth-"))
    fsync, flush_tree, flushed = os.fsync, atomic._flush_tree, 0

    def skipping(descriptor: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed != without_flush:
            fsync(descriptor)

    made = globals()[scenario](folder)
    made.ready()
    os.fsync = skipping  # type: ignore[assignment]
    if marker_first:
        atomic._flush_tree = lambda directory: (  # type: ignore[assignment,return-value]
            atomic._write_marker(directory, b"done\n"),
            flush_tree(directory),
        )
    try:
        with armed(folder) as calls:
            made.act()
    finally:
        os.fsync, atomic._flush_tree = fsync, flush_tree
    with suppress(AttributeError):
        made.claims.close()
    shutil.rmtree(folder)
    return [(call, path.removeprefix(f"{folder}"), to.removeprefix(f"{folder}")) for call, path, to in calls]


def without_each_flush(scenario: str) -> list[list[tuple[str, str, str]]]:
    """The calls with the first flush left out, with the second, and so on."""
    number = sum(call == "fsync" for call, _, _ in record(scenario))
    return [record(scenario, nth) for nth in range(1, number + 1)]
