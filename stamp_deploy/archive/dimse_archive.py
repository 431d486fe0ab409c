"""Slides and results by DIMSE, with the same checks as by DICOMweb."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..slide.dicom import flavor_of
from .dimse import Peer, find, get, store
from .pull import Pulled, pull_instances
from .push import Place
from .query import MODALITY, InstanceRow, SeriesRow
from .results import ResultObject
from .retry import Retry
from .transfer_folder import sweep_transfers
from .uids import archive_uid


def find_series(peer: Peer, retry: Retry, *, accession: str = "", study: str = "", series: str = "") -> list[SeriesRow]:
    """The slides that fit all that is given.

    Raises
    ------
    ArchiveError
    UsageError
        A series is asked for without anything of its study: DIMSE finds none by itself.
    """
    if series and not (study or accession):
        raise UsageError("by DIMSE a series is found by its study", remedy="add --study or --accession")
    studies = [study] if study else []
    if accession:
        keys = {"AccessionNumber": accession, "StudyInstanceUID": study}
        rows = retry.call(partial(find, peer, "STUDY", keys))
        # an archive that does not match by it gives studies of others
        fitting = [row for row in rows if str(row.get("AccessionNumber") or "").strip() == accession]
        studies = [archive_uid(_text(row, "StudyInstanceUID"), "Study Instance UID") for row in fitting]
    found = []
    for one in dict.fromkeys(studies):
        keys = {"StudyInstanceUID": one, "SeriesInstanceUID": series, "Modality": MODALITY}
        keys["NumberOfSeriesRelatedInstances"] = ""
        for row in retry.call(partial(find, peer, "SERIES", keys)):
            uid = archive_uid(_text(row, "SeriesInstanceUID"), "Series Instance UID")
            if row.get("Modality") == MODALITY and series in ("", uid):
                count = row.get("NumberOfSeriesRelatedInstances")
                found.append(SeriesRow(one, uid, -1 if count in (None, "") else int(count)))
    return found


def pull_series(peer: Peer, retry: Retry, row: SeriesRow, out: Path) -> Pulled:
    """Fetch the levels of a slide that are not here yet into ``out/SERIES/UID.dcm``.

    Raises
    ------
    ArchiveError, DiskError
        As by DICOMweb.
    """
    keys = _keys(row.study, row.series, "") | {"SOPClassUID": "", "NumberOfFrames": "", "ImageType": ""}
    found = retry.call(partial(find, peer, "IMAGE", keys))

    def fetch(wanted: InstanceRow, path: Path) -> None:
        get(peer, wanted.sop_class, _keys(wanted.study, wanted.series, wanted.uid), path)

    sweep_transfers(out / row.series)
    return pull_instances(list(_levels(row, found)), out / row.series, fetch, retry)


class DimseKeeper:
    """An archive by DIMSE, as a push uses it."""

    def __init__(self, peer: Peer, retry: Retry) -> None:
        self._peer = peer
        self.host, self.retry = peer.name, retry

    def find(self, one: ResultObject) -> Place | None:
        keys = _keys(one.study, one.series, one.uid)
        for row in find(self._peer, "IMAGE", keys):
            if _text(row, "SOPInstanceUID") == one.uid:
                return one.study, one.series
        return None

    def fetch(self, one: ResultObject, place: Place, path: Path) -> None:
        get(self._peer, one.sop_class, _keys(*place, one.uid), path)

    def send(self, one: ResultObject) -> None:
        import pydicom

        syntax = str(pydicom.filereader.read_file_meta_info(one.path).TransferSyntaxUID)
        store(self._peer, one.sop_class, syntax, one.path)


def _levels(row: SeriesRow, found: list[Any]) -> Iterator[InstanceRow]:
    for one in found:
        frames = one.get("NumberOfFrames")
        instance = InstanceRow(
            study=row.study,
            series=row.series,
            uid=archive_uid(_text(one, "SOPInstanceUID"), "SOP Instance UID"),
            sop_class=_text(one, "SOPClassUID"),
            flavor=flavor_of(one.get("ImageType")),
            frames=int(frames) if frames else 0,
            columns=0,
            rows=0,
        )
        if instance.may_be_level:
            yield instance


def _keys(study: str, series: str, uid: str) -> dict[str, str]:
    return {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": uid}


def _text(row: Any, keyword: str) -> str:
    return str(row.get(keyword) or "")
