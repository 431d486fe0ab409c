"""The results that are shown: one, or all of a batch's output folder, with what became of the other slides."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from ..atomic import DONE_MARKER, is_done
from ..cases.slide_record import SlideRecord, Unread, batch_rows, read_slide_record
from ..errors import UsageError
from ..result import Result
from ..result_files import read_result

MOST_RESULTS = 6
"""Results that are held in memory at once."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A result that is shown.

    Attributes
    ----------
    key : str
        Name of its folder.
    version : str
        Another one when the slide is scored again.
    result : Result
        Without embeddings.
    """

    key: str
    version: str
    result: Result


class ShownResults:
    """What a result folder, or an output folder, holds at the moment.

    Parameters
    ----------
    given : Path
        A finished result, or a folder of them.

    Raises
    ------
    UsageError
        It is neither.
    """

    def __init__(self, given: Path) -> None:
        self.given = given
        self.is_batch = not is_done(given)
        if not given.is_dir():
            raise UsageError("no such folder", path=given, remedy="name a result, or the output folder of a batch")
        self._records: dict[str, tuple[str, SlideRecord | Unread]] = {}
        self._results: OrderedDict[tuple[str, str], Shown] = OrderedDict()
        self._lock, self._reading = Lock(), Lock()
        if self.is_batch and not self._folders() and not batch_rows(given):
            raise UsageError(
                "it holds no finished result", path=given, remedy="name a result, or the output folder of a batch"
            )

    @property
    def home(self) -> Path:
        """The folder beside whose results annotations lie."""
        return self.given if self.is_batch else self.given.resolve().parent

    def rows(self) -> list[dict[str, Any]]:
        """The slides for the page's list: finished ones, then those of batch.json that have no result."""
        rows, found = batch_rows(self.given) if self.is_batch else [], []
        cases = {row["key"]: row["case_id"] for row in rows}
        folders = self._folders()
        for key, folder in folders.items():
            record = self._record(key, folder, cases.get(key, ""))
            found.append(_unread_row(record) if isinstance(record, Unread) else _row(record, cases.get(key, "")))
        found.sort(key=lambda row: (row["case"] == "", row["case"], row["name"], row["key"]))
        known = set(folders)
        for row in rows:
            if row["key"] not in known and row["state"] != "done":
                known.add(row["key"])
                found.append(_other_row(row))
        return found

    def shown(self, key: str) -> Shown:
        """A result, read when it is first asked for.

        Raises
        ------
        KeyError
            There is none of this key.
        StampError
            It cannot be read back.
        """
        folder = self._folders()[key]
        version = _version(folder)
        with self._reading:
            with self._lock:
                held = self._results.get((key, version))
                if held is not None:
                    self._results.move_to_end((key, version))
                    return held
            shown = Shown(key, version, read_result(folder, embeddings=False))
            with self._lock:
                self._results[key, version] = shown
                while len(self._results) > MOST_RESULTS:
                    self._results.popitem(last=False)
            return shown

    def _folders(self) -> dict[str, Path]:
        """Finished results by key. A key is compared with these, and never becomes a path."""
        if not self.is_batch:
            return {self.given.resolve().name: self.given}
        try:
            return {path.name: path for path in sorted(self.given.iterdir()) if path.is_dir() and is_done(path)}
        except OSError:
            return {}

    def _record(self, key: str, folder: Path, case_id: str) -> SlideRecord | Unread:
        version = _version(folder)
        held = self._records.get(key)
        if held is None or held[0] != version:
            held = version, read_slide_record(folder, case_id)
            self._records[key] = held
        return held[1]


def _version(folder: Path) -> str:
    try:
        return str((folder / DONE_MARKER).stat().st_mtime_ns)
    except OSError:
        return ""


def _row(slide: SlideRecord, case_id: str) -> dict[str, Any]:
    return {
        "key": slide.folder.resolve().name,
        "name": slide.name,
        "case": case_id or slide.case_id,
        "state": "done",
        "verdict": slide.verdict,
        "reasons": [*slide.reasons, *slide.warnings],
        "tiles": int(slide.record["tiles"]["ok"]),
        "left_out": slide.left_out_tiles,
        "calls": [
            [str(head["name"]), str(head["call"] or ("no call" if head["abstained"] else ""))]
            for head in slide.record["heads"]
        ],
    }


def _unread_row(unread: Unread) -> dict[str, Any]:
    return _none(unread.key, unread.key, "", "unreadable", unread.cause)


def _other_row(row: dict[str, str]) -> dict[str, Any]:
    return _none(row["key"], row["name"], row["case_id"], row["state"], row["reason"])


def _none(key: str, name: str, case: str, state: str, reason: str) -> dict[str, Any]:
    reasons = [reason] if reason else []
    return {
        "key": key,
        "name": name,
        "case": case,
        "state": state,
        "verdict": "",
        "reasons": reasons,
        "tiles": 0,
        "left_out": 0,
        "calls": [],
    }
