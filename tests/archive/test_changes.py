"""Orthanc's list of changes, page by page: what is new since the last look, each change once, and slides alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("httpx")

from stamp_deploy.archive.changes import PAGE, Changes
from stamp_deploy.archive.client import NotThere
from stamp_deploy.archive.query import SeriesRow
from stamp_deploy.archive.records import SeriesRecords
from stamp_deploy.errors import ArchiveError

ROOT = "http://pacs/orthanc"


class Orthanc:
    """A client of an Orthanc that has so many changes; change n, from 1, made the series "s{n}" stable."""

    def __init__(self, newest: int, *, pages_of: int = PAGE, modality: str = "SM", kind: str = "StableSeries") -> None:
        self.newest, self.pages_of, self.modality, self.kind = newest, pages_of, modality, kind
        self.asked: list[tuple[str, Any]] = []
        self.roots: set[str] = set()
        self.gone: set[str] = set()
        self.always_more = False
        self.server = SimpleNamespace(host="pacs", url=f"{ROOT}/dicom-web/")

    def get_json(self, what: str, path: str, query: dict[str, str] | None = None, *, root: str = "") -> Any:
        self.asked.append((path, query))
        self.roots.add(root)
        if path == "changes" and query is not None and "last" in query:
            return {"Changes": [], "Last": self.newest, "Done": True}
        if path == "changes" and query is not None:
            since = int(query["since"])
            last = min(since + min(self.pages_of, int(query["limit"])), self.newest)
            changes = [{"ChangeType": self.kind, "ID": f"s{n}", "Seq": n} for n in range(since + 1, last + 1)]
            return {"Changes": changes, "Last": max(last, 0), "Done": last >= self.newest and not self.always_more}
        kind, _, name = path.partition("/")
        if name in self.gone:
            raise NotThere("gone")
        if kind == "studies":
            return {"MainDicomTags": {"StudyInstanceUID": f"1.{name[1:]}"}}
        number = name[1:]
        return {
            "MainDicomTags": {"Modality": self.modality, "SeriesInstanceUID": f"1.{number}.9"},
            "ParentStudy": f"t{number}", "Instances": ["x"] * (int(number) % 7),
        }  # fmt: skip


def slide(number: int) -> SeriesRow:
    return SeriesRow(f"1.{number}", f"1.{number}.9", number % 7)


def started(client: Any, folder: Path, since: int) -> Changes:
    """The changes after a look that ended there."""
    records = SeriesRecords(folder)
    records.write("changes", {"since": since})
    return Changes(client, records)


def test_every_change_since_the_last_look_is_seen_once_over_all_pages(tmp_path: Path) -> None:
    client = Orthanc(250)
    changes = started(client, tmp_path, 20)
    assert changes.look() == [slide(n) for n in range(21, 251)]
    pages = [query for path, query in client.asked if path == "changes"]
    assert pages == [{"last": ""}, *({"since": str(n), "limit": "100"} for n in (20, 120, 220))]
    assert client.roots == {ROOT}, "Orthanc's own interface lies beside DICOMweb's"
    client.newest, client.asked = 252, []
    changes.ended(slide(30), "key", "")
    found = changes.look()
    assert found == [slide(n) for n in range(21, 253) if n != 30], "until they have ended"
    assert [query for path, query in client.asked if path == "changes"] == [{"since": "250", "limit": "100"}]
    for row in found:
        changes.ended(row, "key", "")
    assert changes.look() == []


def test_a_server_that_never_says_done_is_asked_until_nothing_is_new(tmp_path: Path) -> None:
    client = Orthanc(3)
    client.always_more = True
    assert started(client, tmp_path, 1).look() == [slide(2), slide(3)]


def test_the_first_look_leaves_what_is_there_alone_and_remembers_the_place(tmp_path: Path) -> None:
    client = Orthanc(40)
    records = SeriesRecords(tmp_path)
    first = Changes(client, records)
    assert first.pending() and first.look() == [] and not first.pending()
    assert records.read("changes") == {"since": 40}
    client.newest = 41
    assert Changes(client, records).look() == [slide(41)]


@pytest.mark.parametrize(
    ("kept", "found"), [(5, []), (4, [5]), (0, [1, 2, 3, 4, 5]), (6, [1, 2, 3, 4, 5]), (-1, [1, 2, 3, 4, 5])]
)
def test_a_place_beyond_the_list_means_that_the_server_was_set_up_anew(
    tmp_path: Path, kept: int, found: list[int]
) -> None:
    """Its list begins again, and so does the watch: nothing that arrived since then is passed over."""
    client = Orthanc(5)
    changes = started(client, tmp_path, kept)
    assert changes.look() == [slide(n) for n in found]
    again = Changes(client, changes._records)
    assert again.look() == [slide(n) for n in found], "a crash now finds them again"
    changes.all_ended()
    assert SeriesRecords.read(changes._records, "changes") == {"since": 5}


def test_the_place_moves_on_when_all_is_done(tmp_path: Path) -> None:
    client = Orthanc(5)
    changes = started(client, tmp_path, 2)
    changes.look()
    assert changes._records.read("changes") == {"since": 2}, "a crash now finds them again"
    changes.all_ended()
    assert changes._records.read("changes") == {"since": 5}


def test_only_slides_that_became_stable_are_taken(tmp_path: Path) -> None:
    for name, client in (("seg", Orthanc(3, modality="SEG")), ("new", Orthanc(3, kind="NewSeries"))):
        assert started(client, tmp_path / name, 0).look() == []
    deleted = Orthanc(3)
    deleted.gone = {"s1", "t2"}  # a series, and the study of another
    assert started(deleted, tmp_path / "gone", 0).look() == [slide(3)]


def test_a_server_without_such_a_list_is_told(tmp_path: Path) -> None:
    client = Orthanc(3)
    client.get_json = lambda *rest, **more: {"Changes": []}  # type: ignore[method-assign]
    with pytest.raises(ArchiveError, match="pacs has no") as caught:
        started(client, tmp_path, 0).look()
    assert "--changes" in caught.value.remedy
