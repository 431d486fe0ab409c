"""What an archive holds (QIDO-RS): whole-slide series, and the instances of one.

Servers ignore filters that they do not know and answer with everything, so each answer is held against what was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ArchiveError
from ..slide.dicom import flavor_of
from .client import Client, Query
from .uids import WHOLE_SLIDE, archive_uid

PAGE = 200
"""Rows asked for at once."""
MAX_ROWS = 1_000_000
MODALITY = "SM"
"""Slide microscopy. Results are of other modalities (OT, SEG, SR), so that none is ever taken for a slide."""
SOP_CLASS, SOP_UID, SERIES_UID, STUDY_UID = "00080016", "00080018", "0020000E", "0020000D"
_MODALITY, _ACCESSION, _CONTAINER, _IMAGE_TYPE = "00080060", "00080050", "00400512", "00080008"
_FRAMES, _COLUMNS, _ROWS, _IN_SERIES = "00280008", "00480006", "00480007", "00201209"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SeriesRow:
    """A series of slide microscopy; `instances` is their number, -1 where the archive does not say."""

    study: str
    series: str
    instances: int


@dataclass(frozen=True)
class InstanceRow:
    """An instance, as far as the archive tells.

    Attributes
    ----------
    sop_class : str
        Empty where it is not told.
    flavor : str
        Third value of ImageType, as "VOLUME"; empty where it is not told.
    frames, columns, rows : int
        0 where they are not told.
    """

    study: str
    series: str
    uid: str
    sop_class: str
    flavor: str
    frames: int
    columns: int
    rows: int

    @property
    def may_be_level(self) -> bool:
        """Whether it is, or may be, a level of a slide: no label, overview or thumbnail, and no result."""
        return self.sop_class in ("", WHOLE_SLIDE) and self.flavor in ("", "VOLUME")


def find_series(
    client: Client, *, accession: str = "", study: str = "", series: str = "", container: str = ""
) -> list[SeriesRow]:
    """The slides that fit all that is given, in the archive's order.

    Raises
    ------
    ArchiveError
        The archive fails, or answers with something else than was asked for.
    """
    studies = [study] if study else []
    if accession:
        studies = _studies_of(client, accession, study)
    query = {"Modality": MODALITY}
    if series:
        query["SeriesInstanceUID"] = series
    rows: list[SeriesRow] = []
    for path in [f"studies/{one}/series" for one in studies] if studies or accession else ["series"]:
        rows += _series(client, path, query) if not container or studies else _series_of(client, container, query)
    rows = [row for row in rows if (not series or row.series == series) and (not studies or row.study in studies)]
    if container and studies:
        rows = [row for row in rows if _holds(client, row, container)]
    return list(dict.fromkeys(rows))


def find_recent(client: Client, first_day: str, last_day: str) -> list[SeriesRow]:
    """Slides of studies of a range of days (YYYYMMDD).

    Raises
    ------
    ArchiveError
    """
    return _series(client, "series", {"Modality": MODALITY, "StudyDate": f"{first_day}-{last_day}"})


def find_instances(client: Client, study: str, series: str) -> list[InstanceRow]:
    """The instances of a series that may be levels of its slide.

    Raises
    ------
    ArchiveError
    """
    fields = {"includefield": (SOP_CLASS, _IMAGE_TYPE, _FRAMES, _COLUMNS, _ROWS)}
    found = []
    for row in rows_of(client, "the search for instances", f"studies/{study}/series/{series}/instances", fields):
        instance = InstanceRow(
            study=study,
            series=series,
            uid=archive_uid(first(row, SOP_UID), "SOP Instance UID"),
            sop_class=str(first(row, SOP_CLASS) or ""),
            flavor=flavor_of(row.get(_IMAGE_TYPE, {}).get("Value")),
            frames=_number(row, _FRAMES),
            columns=_number(row, _COLUMNS),
            rows=_number(row, _ROWS),
        )
        if first(row, SERIES_UID) in (None, series) and instance.may_be_level:
            found.append(instance)
    return sorted(dict.fromkeys(found), key=lambda instance: instance.uid)


def find_object(client: Client, uid: str) -> tuple[str, str] | None:
    """(study, series) under which an archive keeps an instance; None where it does not.

    Raises
    ------
    ArchiveError
    """
    for row in rows_of(client, "the search for a result", "instances", {"SOPInstanceUID": uid}):
        if first(row, SOP_UID) == uid:
            study, series = first(row, STUDY_UID), first(row, SERIES_UID)
            return archive_uid(study, "Study Instance UID"), archive_uid(series, "Series Instance UID")
    return None


def rows_of(client: Client, what: str, path: str, query: Query) -> Iterator[Row]:
    """All rows of a search, page by page; a server that gives fewer than asked for is asked on.

    Raises
    ------
    ArchiveError
    """
    offset = 0
    seen: set[str] = set()
    while offset < MAX_ROWS:
        page = client.get_json(what, path, {**query, "limit": str(PAGE), "offset": str(offset)}) or []
        if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
            raise ArchiveError(f"{client.server.host} answers {what} in a form that cannot be read")
        fresh = {key: row for row in page if (key := repr(sorted(row.items()))) not in seen}
        seen.update(fresh)
        yield from fresh.values()
        offset += len(page)
        if not fresh:  # the end; or a server that does not page and would give the same again
            return


def first(row: Row, tag: str) -> Any:
    """The first value of an attribute in DICOM JSON; None where there is none."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _studies_of(client: Client, accession: str, study: str) -> list[str]:
    query = {"AccessionNumber": accession} | ({"StudyInstanceUID": study} if study else {})
    rows = rows_of(client, "the search for studies", "studies", query)
    # an archive that does not know the filter gives all studies, of other patients
    fitting = [row for row in rows if str(first(row, _ACCESSION) or "").strip() == accession]
    found = [archive_uid(first(row, STUDY_UID), "Study Instance UID") for row in fitting]
    return [one for one in dict.fromkeys(found) if not study or one == study]


def _series(client: Client, path: str, query: Query) -> list[SeriesRow]:
    fields = {"includefield": _IN_SERIES}
    found = []
    for row in rows_of(client, "the search for series", path, {**query, **fields}):
        if first(row, _MODALITY) == MODALITY:
            study = first(row, STUDY_UID) or (path.split("/")[1] if path.startswith("studies/") else None)
            found.append(
                SeriesRow(
                    archive_uid(study, "Study Instance UID"),
                    archive_uid(first(row, SERIES_UID), "Series Instance UID"),
                    _number(row, _IN_SERIES, otherwise=-1),
                )
            )
    return list(dict.fromkeys(found))


def _series_of(client: Client, container: str, query: Query) -> list[SeriesRow]:
    """Series of which an instance names this container."""
    asked = {**query, "ContainerIdentifier": container, "includefield": _CONTAINER}
    found = []
    for row in rows_of(client, "the search for containers", "instances", asked):
        if str(first(row, _CONTAINER) or "").strip() == container and first(row, _MODALITY) in (None, MODALITY):
            study, series = first(row, STUDY_UID), first(row, SERIES_UID)
            found.append(
                SeriesRow(archive_uid(study, "Study Instance UID"), archive_uid(series, "Series Instance UID"), -1)
            )
    return list(dict.fromkeys(found))


def _holds(client: Client, row: SeriesRow, container: str) -> bool:
    path = f"studies/{row.study}/series/{row.series}/instances"
    asked = {"ContainerIdentifier": container, "includefield": _CONTAINER}
    rows = rows_of(client, "the search for containers", path, asked)
    return any(str(first(one, _CONTAINER) or "").strip() == container for one in rows)


def _number(row: Row, tag: str, *, otherwise: int = 0) -> int:
    try:
        return int(first(row, tag))
    except (TypeError, ValueError):
        return otherwise
