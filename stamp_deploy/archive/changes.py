"""Orthanc's list of changes, read from where the last look ended: quicker than a search, for that server alone."""

from __future__ import annotations

from typing import Any

from ..errors import ArchiveError
from .client import Client, NotThere
from .query import MODALITY, SeriesRow
from .records import SeriesRecords
from .uids import archive_uid

PAGE = 100
STABLE = "StableSeries"
"""Told by Orthanc when nothing has arrived in a series for its StableAge (60 s by default)."""
_POSITION = "changes"
_WHAT = "the list of changes"


class Changes:
    """Series that became stable, slide microscopy only: the changes that our own results raise are passed over.

    Parameters
    ----------
    client
    records
        Keeps the place in the list, which moves on once everything before it is done.
    root : str
        Of Orthanc's own interface; the DICOMweb root without its last part by default.
    """

    def __init__(self, client: Client, records: SeriesRecords, root: str = "") -> None:
        self._client, self._records = client, records
        self._root = root or client.server.url.rstrip("/").rpartition("/")[0]
        self._found: dict[str, SeriesRow] = {}
        self._at: int | None = None

    def look(self) -> list[SeriesRow]:
        """See `Trigger.look`; at the very first, what the archive holds already is left alone.

        Raises
        ------
        ArchiveError
        DiskError
        """
        if self._at is None:
            self._at = self._start()
        while True:
            page = self._ask("changes", {"since": str(self._at), "limit": str(PAGE)})
            for change in page.get("Changes") or ():
                if change.get("ChangeType") == STABLE and (row := self._series(str(change.get("ID", "")))):
                    self._found[row.series] = row
            last = page.get("Last")
            if not isinstance(last, int):
                raise ArchiveError(
                    f"{self._client.server.host} has no {_WHAT}",
                    remedy="leave --changes out",
                )
            done, self._at = page.get("Done", True) or last <= self._at, max(last, self._at)
            if done:
                return list(self._found.values())

    def pending(self) -> bool:
        """See `Trigger.pending`: what is not stable yet is not known here."""
        return self._at is None

    def ended(self, row: SeriesRow, result: str, reason: str) -> None:
        """See `Trigger.ended`."""
        self._found.pop(row.series, None)

    def all_ended(self) -> None:
        """Keep the place up to which all is done."""
        if self._at is not None and self._records.read(_POSITION).get("since") != self._at:
            self._records.write(_POSITION, {"since": self._at})

    def _start(self) -> int:
        newest = self._ask("changes", {"last": ""}).get("Last")
        newest = newest if isinstance(newest, int) else 0
        kept = self._records.read(_POSITION).get("since")
        if isinstance(kept, int) and 0 <= kept <= newest:
            return kept
        # the first look; or the server was set up anew, and its list begins again
        self._records.write(_POSITION, {"since": 0 if isinstance(kept, int) else newest})
        return 0 if isinstance(kept, int) else newest

    def _series(self, name: str) -> SeriesRow | None:
        """The series behind Orthanc's own name; None where it is no slide, or was deleted meanwhile."""
        try:
            series = self._ask(f"series/{name}")
            if series.get("MainDicomTags", {}).get("Modality") != MODALITY:
                return None
            study = self._ask(f"studies/{series.get('ParentStudy', '')}")
        except NotThere:
            return None
        return SeriesRow(
            archive_uid(study.get("MainDicomTags", {}).get("StudyInstanceUID"), "Study Instance UID"),
            archive_uid(series["MainDicomTags"].get("SeriesInstanceUID"), "Series Instance UID"),
            len(series.get("Instances") or ()),
        )

    def _ask(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self._client.get_json(_WHAT, path, query, root=self._root)
        if not isinstance(answer, dict):
            raise ArchiveError(f"{self._client.server.host} answers {_WHAT} in a form that cannot be read")
        return answer
