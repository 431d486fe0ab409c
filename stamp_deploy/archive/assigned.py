"""Slides that a worklist assigns, for a watch: claimed when there is room, completed when their results are there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ArchiveError, ArchiveUnreachable, UsageError
from .query import SeriesRow
from .records import SeriesRecords
from .results import ResultObject, result_objects
from .uids import is_uid
from .worklist import Worklist

PREFIX = "workitem-"


class Assigned:
    """Workitems as a `Trigger`.

    What was claimed is written down before the claim is made: after a crash the same Transaction UID finds it again.

    Parameters
    ----------
    worklist, records
    out : Path
        The results.
    label : str
        Of the worklist; "*" for any.
    most : int
        Workitems that are claimed at once; the others are left to other performers.
    """

    def __init__(self, worklist: Worklist, records: SeriesRecords, out: Path, *, label: str, most: int) -> None:
        self._worklist, self._records, self._out = worklist, records, out
        self._label, self._most = label, most
        self._ended: dict[str, tuple[str, str]] = {}
        self._left = True

    def look(self) -> list[SeriesRow]:
        """See `Trigger.look`.

        Raises
        ------
        ArchiveError
        DiskError
        """
        rows = [SeriesRow(study, series, -1) for item in self._claimed() for study, series in item["slides"]]
        for name in self._records.names(PREFIX):
            if "slides" not in self._records.read(name):  # it was stopped in the middle of a claim
                rows += self._claim(name.removeprefix(PREFIX))
        self._left = False
        for uid in self._worklist.search(self._label):
            if len(self._claimed()) >= self._most:
                self._left = True
                break
            rows += self._claim(uid)
        return list(dict.fromkeys(rows))

    def pending(self) -> bool:
        """See `Trigger.pending`."""
        return self._left

    def ended(self, row: SeriesRow, result: str, reason: str) -> None:
        """See `Trigger.ended`: a workitem ends with the last of its slides.

        Raises
        ------
        ArchiveError
            The server does not take it; the next look tries again.
        """
        self._ended[row.series] = (result, reason)
        for name in self._records.names(PREFIX):
            item, uid = self._records.read(name), name.removeprefix(PREFIX)
            series = [one for _, one in item.get("slides", ())]
            if row.series not in series:
                continue
            done = [one for one in series if one in self._ended]
            if len(done) < len(series):
                percent = round(100 * len(done) / len(series))
                self._worklist.progress(uid, item["transaction"], percent, f"{len(done)} of {len(series)} slides")
                continue
            failed = [reason for one in series if (reason := self._ended[one][1])]
            if failed:
                self._worklist.cancel(uid, item["transaction"], f"{len(failed)} of {len(series)} slides: {failed[0]}")
            else:
                results = [one for each in series for one in self._objects(self._ended[each][0])]
                begun = datetime.fromisoformat(item["begun"])
                self._worklist.complete(uid, item["transaction"], results, begun)
            self._records.remove(name)

    def all_ended(self) -> None:
        """Nothing is remembered of slides that are done."""
        self._ended.clear()

    def _claimed(self) -> list[dict[str, Any]]:
        return [item for name in self._records.names(PREFIX) if "slides" in (item := self._records.read(name))]

    def _claim(self, uid: str) -> list[SeriesRow]:
        """The slides of a workitem that is ours now; none where somebody else has it, or it asks for nothing."""
        from pydicom.uid import generate_uid

        name = f"{PREFIX}{uid}"
        kept = self._records.read(name)
        was_tried = is_uid(kept.get("transaction")) and isinstance(kept.get("begun"), str)
        item = kept if was_tried else {"transaction": str(generate_uid()), "begun": datetime.now(UTC).isoformat()}
        self._records.write(name, item)
        transaction = str(item["transaction"])
        if not self._worklist.claim(uid, transaction) and not (was_tried and self._is_ours(uid, transaction)):
            self._records.remove(name)
            return []
        try:
            rows = self._worklist.slides(uid)
        except ArchiveUnreachable:
            raise  # the claim stands, and is taken up again
        except ArchiveError as error:
            self._worklist.cancel(uid, transaction, error.cause)
            self._records.remove(name)
            return []
        self._records.write(name, {**item, "slides": [[row.study, row.series] for row in rows]})
        self._worklist.progress(uid, transaction, 0, f"0 of {len(rows)} slides")
        return rows

    def _is_ours(self, uid: str, transaction: str) -> bool:
        """Whether a claim went through whose answer was lost: only its owner may say how far it is."""
        try:
            self._worklist.progress(uid, transaction, 0, "claimed")
        except ArchiveUnreachable:
            raise
        except ArchiveError:
            return False
        return True

    def _objects(self, key: str) -> list[ResultObject]:
        try:
            return result_objects(self._out / key)
        except UsageError:  # written without DICOM formats
            return []
