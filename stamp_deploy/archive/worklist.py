"""A worklist over DICOMweb (UPS-RS, PS3.18 chapter 11): find work, claim it, say how far it is, complete it.

A claim is a Transaction UID that the performer makes up; only who knows it may change the workitem afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..errors import ArchiveError
from .client import DICOM_JSON, Client, read_body
from .query import SERIES_UID, SOP_UID, STUDY_UID, Row, SeriesRow, first, rows_of
from .results import ResultObject
from .uids import archive_uid

_STATE, _TRANSACTION, _LABEL = "00741000", "00081195", "00741202"
_INPUTS, _OUTPUTS, _PERFORMED = "00404021", "00404033", "00741216"
_PROGRESS, _PERCENT, _WORDS = "00741002", "00741004", "00741006"
_STATION, _WORKITEM_CODE, _BEGUN, _ENDED = "00404028", "00404019", "00404050", "00404051"
_CANCELLED, _REASON = "00404052", "00741238"
_ALREADY = frozenset({410})
"""It is in that state already."""
_TAKEN = frozenset({400, 409})
"""The state does not allow it: somebody else was quicker."""
ANY_LABEL = "*"


class Worklist:
    """The workitems of a server.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def search(self, label: str = ANY_LABEL) -> list[str]:
        """UIDs of the workitems that wait, in the server's order.

        Raises
        ------
        ArchiveError
        """
        query: dict[str, str | tuple[str, ...]] = {_STATE: "SCHEDULED", "includefield": (_STATE, _LABEL)}
        if label != ANY_LABEL:
            query[_LABEL] = label
        return [
            archive_uid(first(row, SOP_UID), "workitem UID")
            for row in rows_of(self._client, "the search for workitems", "workitems", query)
            if first(row, _STATE) in (None, "SCHEDULED") and label in (ANY_LABEL, first(row, _LABEL))
        ]

    def slides(self, uid: str) -> list[SeriesRow]:
        """The series that a workitem names as its input.

        Raises
        ------
        ArchiveError
            The server fails, or the workitem names none.
        """
        answer = self._client.get_json("a workitem", f"workitems/{uid}")
        row = answer[0] if isinstance(answer, list) and answer else answer
        items = row.get(_INPUTS, {}).get("Value") if isinstance(row, dict) else None
        found = [
            SeriesRow(
                archive_uid(first(one, STUDY_UID), "study of a workitem"),
                archive_uid(series, "series of a workitem"),
                -1,
            )
            for one in items or ()
            if isinstance(one, dict) and (series := first(one, SERIES_UID))
        ]
        if not found:
            raise ArchiveError("a workitem names no series as its input", remedy="correct it where it is made")
        return list(dict.fromkeys(found))

    def claim(self, uid: str, transaction: str) -> bool:
        """Take a workitem; False where somebody else has it. The same claim may be made again.

        Raises
        ------
        ArchiveError
        """
        return self._change(uid, transaction, "IN PROGRESS", accept=_TAKEN)

    def progress(self, uid: str, transaction: str, percent: int, words: str) -> None:
        """Say how far the work is.

        Raises
        ------
        ArchiveError
        """
        step = {_PERCENT: _element("DS", percent), _WORDS: _element("ST", words)}
        self._update(uid, transaction, {_PROGRESS: _element("SQ", step)})

    def complete(self, uid: str, transaction: str, results: Sequence[ResultObject], begun: datetime) -> None:
        """Name the results, and end the workitem as done.

        Raises
        ------
        ArchiveError
        """
        performed = {
            _STATION: _element("SQ", _code("STAMP", "stamp-deploy")),
            _WORKITEM_CODE: _element("SQ", _code("PATHWAYS", "Molecular inference on a slide")),
            _BEGUN: _element("DT", _moment(begun)),
            _ENDED: _element("DT", _moment(datetime.now(UTC))),
            _OUTPUTS: _element("SQ", *_references(results)),
        }
        self._update(uid, transaction, {_PERFORMED: _element("SQ", performed)})
        self._change(uid, transaction, "COMPLETED", accept=_ALREADY)

    def cancel(self, uid: str, transaction: str, reason: str) -> None:
        """Give a workitem up, with the reason.

        Raises
        ------
        ArchiveError
        """
        step = {_CANCELLED: _element("DT", _moment(datetime.now(UTC))), _REASON: _element("LT", reason)}
        self._update(uid, transaction, {_PROGRESS: _element("SQ", step)})
        self._change(uid, transaction, "CANCELED", accept=_ALREADY)

    def _change(self, uid: str, transaction: str, state: str, *, accept: frozenset[int]) -> bool:
        body = {_TRANSACTION: _element("UI", transaction), _STATE: _element("CS", state)}
        return self._send("PUT", f"workitems/{uid}/state", body, accept) not in _TAKEN

    def _update(self, uid: str, transaction: str, changes: dict[str, Any]) -> None:
        # the query is the UID itself (PS3.18 11.6); some servers look into the body for it
        self._send("POST", f"workitems/{uid}?{transaction}", {_TRANSACTION: _element("UI", transaction), **changes})

    def _send(self, method: str, path: str, body: Row, accept: frozenset[int] = frozenset()) -> int:
        content = json.dumps(body).encode()
        headers = {"Content-Type": DICOM_JSON, "Accept": DICOM_JSON}
        what = "the update of a workitem"

        def send() -> int:
            with self._client.open(method, what, path, headers=headers, content=content, accept=accept) as answer:
                read_body(answer, what)
                return answer.status_code

        return self._client.retry.call(send)  # each of them may be made twice


def _references(results: Sequence[ResultObject]) -> list[dict[str, Any]]:
    """Objects by their series, as References to SOP Instances."""
    by_series: dict[tuple[str, str], list[ResultObject]] = {}
    for one in results:
        by_series.setdefault((one.study, one.series), []).append(one)
    return [
        {
            "0040E020": _element("CS", "DICOM"),
            STUDY_UID: _element("UI", study),
            SERIES_UID: _element("UI", series),
            "00081199": _element(
                "SQ",
                *({"00081150": _element("UI", one.sop_class), "00081155": _element("UI", one.uid)} for one in objects),
            ),
        }
        for (study, series), objects in by_series.items()
    ]


def _element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def _code(value: str, meaning: str) -> dict[str, Any]:
    scheme = {"00080100": value, "00080102": "99STAMP", "00080104": meaning}
    return {tag: _element("LO" if tag == "00080104" else "SH", text) for tag, text in scheme.items()}


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
