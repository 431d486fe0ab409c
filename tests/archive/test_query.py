"""What is made of an archive's answers, row by row: a server may answer with more than it was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stamp_deploy.archive.query import InstanceRow, SeriesRow, find_instances, find_object, find_series, rows_of
from stamp_deploy.archive.uids import WHOLE_SLIDE
from stamp_deploy.errors import ArchiveError

STUDY, SERIES = "1.2.3", "1.2.3.4"


class Answers:
    """A client whose archive holds these rows."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows
        self.server = SimpleNamespace(host="pacs")

    def get_json(self, what: str, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        start = int(query["offset"])
        return list(self.rows[start : start + int(query["limit"])])


def row(uid: str, **values: Any) -> dict[str, Any]:
    tags = {"series": "0020000E", "study": "0020000D", "sop_class": "00080016", "frames": "00280008",
            "columns": "00480006", "rows": "00480007", "modality": "00080060", "accession": "00080050",
            "container": "00400512", "in_series": "00201209"}  # fmt: skip
    found = {"00080018": {"vr": "UI", "Value": [uid]}}
    found |= {tags[key]: {"Value": [value]} for key, value in values.items() if key in tags}
    if "kind" in values:
        found["00080008"] = {"Value": ["ORIGINAL", "PRIMARY", values["kind"], "NONE"]}
    return found


def test_instances_are_of_the_series_and_levels_of_its_slide() -> None:
    """Those of another series could be another patient's."""
    client: Any = Answers(
        row("9.2", series=SERIES, sop_class=WHOLE_SLIDE, kind="VOLUME", frames=12, columns="640", rows=320),
        row("9.9", series="1.2.3.5", sop_class=WHOLE_SLIDE, kind="VOLUME"),
        row("9.3", series=SERIES, sop_class=WHOLE_SLIDE, kind="LABEL"),
        row("9.4", series=SERIES, sop_class="1.2.840.10008.5.1.4.1.1.66.4"),
        row("9.1", frames="many"),  # one that says nothing of itself may be a level
    )
    assert find_instances(client, STUDY, SERIES) == [
        InstanceRow(STUDY, SERIES, "9.1", "", "", 0, 0, 0),
        InstanceRow(STUDY, SERIES, "9.2", WHOLE_SLIDE, "VOLUME", 12, 640, 320),
    ]


def test_an_object_is_found_by_its_own_uid_alone() -> None:
    client: Any = Answers(row("9.8", study="1.1", series="1.1.1"), row("9.7", study=STUDY, series=SERIES))
    assert find_object(client, "9.7") == (STUDY, SERIES)
    assert find_object(client, "9.6") is None


def test_an_answer_that_is_no_list_of_rows_is_refused() -> None:
    class Wrong(Answers):
        def get_json(self, what: str, path: str, query: dict[str, Any]) -> Any:
            return [1]

    client: Any = Wrong()
    with pytest.raises(ArchiveError, match="pacs answers the search in a form that cannot be read"):
        list(rows_of(client, "the search", "instances", {}))


class Tree(Answers):
    """An archive that knows no filter: every search gives all rows of that path, whatever it asks for."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self.of_path = rows

    def get_json(self, what: str, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        start = int(query["offset"])
        return self.of_path.get(path.rpartition("/")[2], [])[start : start + int(query["limit"])]


def test_of_a_container_only_the_slides_that_name_it_are_found() -> None:
    """Another container is another patient's, an object that is no slide is one of our own results."""
    client: Any = Tree(
        instances=[
            row("9.1", study="1.1", series="1.1.1", modality="SM", container="S26-7 A"),
            row("9.2", study="1.2", series="1.2.1", modality="SM", container="S26-7 B"),
            row("9.3", study="1.1", series="1.1.9", modality="SEG", container="S26-7 A"),
            row("9.4", study="1.3", series="1.3.1", container=" S26-7 A "),  # no modality told, blanks around
            row("9.5", study="1.1", series="1.1.1", modality="SM", container="S26-7 A"),
            row("9.6", study="1.4", series="1.4.1", modality="SM"),
        ]
    )
    assert find_series(client, container="S26-7 A") == [SeriesRow("1.1", "1.1.1", -1), SeriesRow("1.3", "1.3.1", -1)]


def test_slides_are_told_by_their_modality_and_by_what_was_asked_for() -> None:
    client: Any = Tree(
        studies=[
            row("", study="1.1", accession="A 1"),
            row("", study="1.2", accession="A 2"),
            row("", study="1.3", accession=" A 1 "),
        ],
        series=[
            row("", study="1.1", series="1.1.1", modality="SM", in_series=4),
            row("", study="1.1", series="1.1.2", modality="SEG", in_series=1),
            row("", study="1.2", series="1.2.1", modality="SM", in_series=4),
            row("", study="1.3", series="1.3.1", modality="SM"),
            row("", study="1.3", series="1.3.2", in_series=1),  # nothing says that it is a slide
        ],
    )
    slides = [SeriesRow("1.1", "1.1.1", 4), SeriesRow("1.2", "1.2.1", 4), SeriesRow("1.3", "1.3.1", -1)]
    assert find_series(client) == slides
    assert find_series(client, accession="A 1") == [slides[0], slides[2]]
    assert find_series(client, accession="A 1", study="1.3") == [slides[2]]
    assert find_series(client, accession="A 9") == []
    assert find_series(client, study="1.2") == [slides[1]]
    assert find_series(client, series="1.3.1") == [slides[2]]
