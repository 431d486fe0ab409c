"""What is made of an archive's answers, row by row: a server may answer with more than it was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stamp_deploy.archive.query import InstanceRow, find_instances, find_object, rows_of
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
            "columns": "00480006", "rows": "00480007"}  # fmt: skip
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
