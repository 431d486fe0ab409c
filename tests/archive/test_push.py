"""Results into a real Orthanc: each object once, compared with what the archive keeps, whatever happens on the way."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from support.archive_faults import Proxy, Reply, answering
from support.archive_slide import NAME
from support.archived_result import Scored
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import PASSWORD, USER, Orthanc, running

from stamp_deploy.archive.client import Client
from stamp_deploy.archive.push import WebKeeper, push_object, push_result
from stamp_deploy.archive.results import find_results, result_objects
from stamp_deploy.archive.server import Server
from stamp_deploy.archive.stow import store
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, DataError, UsageError

from .conftest import AT_ONCE

pytest.importorskip("highdicom")


@pytest.fixture
def copy(scored: Scored, tmp_path: Path) -> Path:
    """A copy of the result, which a test may change."""
    return Path(shutil.copytree(scored.result, tmp_path / "copy"))


def kept(orthanc: Orthanc) -> dict[str, int]:
    """How many instances of each modality the archive holds."""
    found: dict[str, int] = {}
    for series in orthanc.rest("series"):
        facts = orthanc.rest(f"series/{series}")
        modality = facts["MainDicomTags"]["Modality"]
        found[modality] = found.get(modality, 0) + len(facts["Instances"])
    return found


def changed(path: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    """The object with another content under the same UID."""
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path, enforce_file_format=True)
    return path


def test_a_result_goes_in_once_and_comes_back_the_same(
    client: Client, orthanc: Orthanc, scored: Scored, tmp_path: Path
) -> None:
    orthanc.add(*scored.slide.files)
    first = push_result(WebKeeper(client), scored.result)
    assert (first.sent, first.already, first.corrected) == (5, 0, ())
    assert kept(orthanc) == {"SM": 3, "OT": 3, "SEG": 1, "SR": 1}
    (study,) = orthanc.rest("studies")
    assert len(orthanc.rest(f"studies/{study}")["Series"]) == 4, "the results lie in the slide's study"
    arrived = orthanc.arrivals()
    again = push_result(WebKeeper(client), scored.result)
    assert (again.sent, again.already) == (0, 5)
    assert orthanc.arrivals() == arrived, "a second push sends nothing"


def test_a_result_scored_again_from_the_archives_copy_is_the_same_result(
    client: Client,
    orthanc: Orthanc,
    scored: Scored,
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    """DICOM's rule: the same UID has the same bytes."""
    from support.archived_result import SCORING

    from stamp_deploy.archive.pull import pull_series
    from stamp_deploy.archive.query import find_series

    orthanc.add(*scored.slide.files)
    (row,) = find_series(client, series=scored.slide.series)
    got = pull_series(client, row, tmp_path)
    done = runner("infer", got.folder, "--bundle", scored.bundle, "-o", tmp_path / "again", *SCORING)
    assert done.code == 0, done.err
    theirs = sorted((tmp_path / "again" / "dicom").glob("*.dcm"))
    assert [path.read_bytes() for path in theirs] == [path.read_bytes() for path in scored.objects]


def test_the_command_pushes_results_of_a_batch(
    orthanc: Orthanc,
    scored: Scored,
    runner: Runner,  # noqa: F811
    password: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(scored.result, tmp_path / "out" / "one")
    words = ("dicomweb", "push", tmp_path / "out", orthanc.url, "--user", USER, "--password-file", password)
    first, second = runner(*words), runner(*words)
    assert (first.code, first.err) == (0, "") and "result one: 5 objects, 5 sent, 0 there already" in first.out
    assert (second.code, second.err) == (0, "") and "result one: 5 objects, 0 sent, 5 there already" in second.out
    wrong = runner(*words[:-1], scored.result / "result.json")
    assert wrong.code == 8 and "HTTP 401" in wrong.err


def test_another_copy_under_the_uid_is_an_error_with_the_cause(
    client: Client,
    orthanc: Orthanc,
    scored: Scored,
    runner: Runner,  # noqa: F811
    password: Path,
    tmp_path: Path,
) -> None:
    """Orthanc answers success and keeps the old object: only a comparison shows it."""
    theirs = shutil.copy(scored.objects[0], tmp_path / "theirs.dcm")
    orthanc.add(changed(Path(theirs), lambda data: setattr(data, "SeriesDescription", NAME)))
    done = runner("dicomweb", "push", scored.result, orthanc.url, "--user", USER, "--password-file", password)
    assert done.code == 8
    assert "keeps another object under this UID: SeriesDescription differ" in done.err
    assert NAME not in done.err, "names of attributes, not what is in them"


def test_an_archive_that_answers_success_and_keeps_another_object(copy: Path) -> None:
    """What is asked after the transfer, not only before it."""
    one = result_objects(copy)[0]
    other = io.BytesIO()
    data = pydicom.dcmread(one.path)
    data.ContentLabel = "OTHER"
    data.save_as(other, enforce_file_format=True)
    place = {"0020000D": one.study, "0020000E": one.series, "00080018": one.uid}
    row = [{tag: {"vr": "UI", "Value": [value]} for tag, value in place.items()}]
    arrived: list[bytes] = []

    def reply(method: str, path: str, body: bytes) -> Reply:
        if method == "POST":
            arrived.append(body)
            return 200, {}, json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": row[0]["00080018"]}]}}).encode()
        if "offset=0" in path:
            return 200, {}, json.dumps(row if arrived else []).encode()
        return (200, {}, b"[]") if "?" in path else (200, {"Content-Type": "application/dicom"}, other.getvalue())

    with (
        answering(reply) as (url, _),
        Client(Server(url), AT_ONCE) as stub,
        pytest.raises(ArchiveError, match="another object under this UID: ContentLabel differ"),
    ):
        push_object(WebKeeper(stub), one)
    assert len(arrived) == 1


def test_corrections_of_the_patient_are_told_and_are_no_other_object(
    client: Client, orthanc: Orthanc, scored: Scored, tmp_path: Path
) -> None:
    theirs = Path(shutil.copy(scored.objects[0], tmp_path / "theirs.dcm"))
    orthanc.add(changed(theirs, lambda data: setattr(data, "PatientName", "Married^Name")))
    done = push_result(WebKeeper(client), scored.result)
    assert (done.sent, done.already, done.corrected) == (4, 1, ("PatientName",))


def test_a_server_killed_in_the_middle_of_a_transfer(scored: Scored, tmp_path: Path) -> None:
    """Afterwards the same push brings exactly what is missing."""
    from support.orthanc import why_not

    if reason := why_not():
        pytest.skip(reason)
    largest = max(path.stat().st_size for path in scored.objects)
    with running(tmp_path / "server") as server:
        with Proxy(server.port, up_limit=largest, on_limit=server.kill).running() as proxy:
            url = f"http://127.0.0.1:{proxy.port}/dicom-web"
            with (
                Client(Server(url, user=USER, password=PASSWORD, read_s=10), AT_ONCE) as client,
                pytest.raises(ArchiveUnreachable),
            ):
                push_result(WebKeeper(client), scored.result)
        server.start()
        before = sum(kept(server).values())
        assert before < len(scored.objects)
        with Client(Server(server.url, user=USER, password=PASSWORD), AT_ONCE) as client:
            done = push_result(WebKeeper(client), scored.result)
            assert (done.sent, done.already) == (len(scored.objects) - before, before)
            assert push_result(WebKeeper(client), scored.result).sent == 0
        assert kept(server) == {"OT": 3, "SEG": 1, "SR": 1}


def test_a_transfer_that_stalls_is_given_up(orthanc: Orthanc, scored: Scored) -> None:
    with Proxy(orthanc.port, up_limit=3000, stall=True).running() as proxy:
        url = f"http://127.0.0.1:{proxy.port}/dicom-web"
        with (
            Client(Server(url, user=USER, password=PASSWORD, read_s=0.5), AT_ONCE) as client,
            pytest.raises(ArchiveUnreachable, match=r"fell silent during .* for 0\.5 s"),
        ):
            push_result(WebKeeper(client), scored.result)


FAILURES = [
    (200, 0x0124, ArchiveError, "this account may not store"),
    (409, 0x0122, ArchiveError, "no objects of this kind"),
    (409, 0xC000, ArchiveError, "cannot use it"),
    (200, 0xA700, ArchiveUnreachable, "no room"),
]


@pytest.mark.parametrize(("status", "reason", "kind", "match"), FAILURES)
def test_a_failure_is_read_even_where_the_status_is_success(
    status: int, reason: int, kind: type[ArchiveError], match: str, scored: Scored
) -> None:
    one = result_objects(scored.result)[0]
    item = {"00081155": {"vr": "UI", "Value": [one.uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    said = json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
    with (
        answering(lambda *_: (status, {}, said)) as (url, _),
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(kind, match=match) as caught,
    ):
        store(client, one)
    assert type(caught.value) is kind


def test_an_archive_that_loses_what_it_accepts(scored: Scored) -> None:
    with (
        answering(lambda method, *_: (200, {}, b"{}" if method == "POST" else b"[]")) as (url, _),
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(ArchiveUnreachable, match="accepted a result but does not list it"),
    ):
        push_result(WebKeeper(client), scored.result)


def test_a_busy_archive_gets_it_later(scored: Scored) -> None:
    """503 to the first transfer; what is sent again is sent whole."""
    one = result_objects(scored.result)[0]
    sizes: list[int] = []

    def reply(method: str, path: str, body: bytes) -> Reply:
        if method == "POST":
            sizes.append(len(body))
            return (503, {}, b"") if len(sizes) == 1 else (200, {}, b"{}")
        return 200, {}, b"[]"

    with (
        answering(reply) as (url, _),
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(ArchiveUnreachable, match="does not list it"),
    ):
        push_object(WebKeeper(client), one)
    assert len(sizes) == 2 and sizes[0] == sizes[1] > one.path.stat().st_size


def test_only_results_that_are_as_they_were_written_are_sent(scored: Scored, copy: Path, tmp_path: Path) -> None:
    changed(copy / "dicom" / "map-001.dcm", lambda data: setattr(data, "ContentLabel", "X"))
    with pytest.raises(DataError, match=r"map-001\.dcm' has been changed"):
        result_objects(copy)
    (copy / "DONE").unlink()
    with pytest.raises(UsageError, match="holds no finished result"):
        find_results(copy)
    with pytest.raises(UsageError, match="no such folder"):
        find_results(tmp_path / "none")
