"""Every call of the file system fails once, in turn: nothing half-written, nothing lost, and exit code 6.

The way SQLite is tested: the nth write, flush, rename, link or creation fails, for every n. Then the order of writes,
flushes and renames is checked, and that the check would notice each flush that is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from support.fault_shim import in_child

SCENARIOS = [
    "AtomicFile",
    "NewResult",
    "ReplacedResult",
    "ReplacedWithoutExchange",
    "TakenClaim",
    "ReleasedClaim",
    "LedgerRow",
    "AuditEvent",
    "SlideNote",
    "Metrics",
]
Call = list[str]
"""What was called, on which path, and to which other."""


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_call_that_fails_leaves_the_old_or_the_new(scenario: str, error: str) -> None:
    found = in_child("support.nth_scenarios", "exhaust", scenario, error)
    assert found["wrong"] == []
    assert found["calls"] >= 3, "the shim saw nothing"
    assert found["refused"] >= 1, "no failure was told"


@pytest.mark.parametrize("error", ["", "ENOSPC"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_write_that_takes_half_of_its_bytes_is_finished_or_told(scenario: str, error: str) -> None:
    """A write may be short without any error, and the disk may be full from there on."""
    found = in_child("support.nth_scenarios", "exhaust_short", scenario, error)
    assert found["wrong"] == []
    assert found["calls"] >= 3, "the shim saw nothing"
    if error:
        assert found["refused"] >= 1, "no full disk was told"
    else:
        assert found["refused"] == 0, "a short write is no failure"


FORMATS = {
    "json geojson": 1,
    "hdf5": 3,
    "parquet": 1,
    "anndata": 9,  # hundreds of small writes, like those of hdf5
    "heatmaps report": 1,
    "ome-tiff": 1,
    "summaries": 1,
    "spatialdata": 401,  # thousands of calls, and each takes the whole store to be written again
    "dicom-pmap": 1,
    "dicom-seg dicom-sr": 1,
}
"""Formats, and every how manieth of their calls fails."""


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("how", ["fails", "is short", "is short on a full disk"])
def test_each_call_of_a_writer_that_fails_is_a_disk_error_and_leaves_no_result(
    formats: str, how: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, step = "Writers", FORMATS[formats]
    if formats.startswith("dicom"):
        pytest.importorskip("highdicom")
        monkeypatch.setenv("STAMP_TEST_DATA", str(request.getfixturevalue("data_dir")))
        scenario = "DicomWriters"
    if formats == "spatialdata":
        pytest.importorskip("spatialdata")
    error = "" if how == "is short" else "ENOSPC"
    function = "exhaust" if how == "fails" else "exhaust_short"
    if how != "fails":
        step *= 3
    found = in_child("support.nth_scenarios", function, scenario, error, step, *formats.split())
    assert found["wrong"] == []
    if error:
        assert found["refused"] >= 2
    else:
        assert found["refused"] == 0


def order_faults(calls: Sequence[Call]) -> list[str]:
    """What a power cut could spoil: names that appear before what they stand for is on the disk."""
    faults = []
    published = [at for at, (call, _, _) in enumerate(calls) if call in ("rename", "link")]
    for at in published:
        call, source, target = calls[at]
        before = [one for one in calls[:at] if _inside(one[1], source)]
        for kind, path, _ in before:
            if kind == "write" and not _flushed_after(before, ["write", path], path):
                faults.append(f"{path} is not flushed before {call} to {target}")
            elif (
                kind in ("create", "mkdir")
                and path != source
                and not _flushed_after(before, [kind, path], _above(path))
            ):
                faults.append(f"the name of {path} is not flushed before {call} to {target}")
        if call == "rename" and not _flushed_after(calls, [call, source], _above(target)):
            faults.append(f"the name {target} is not flushed after {call}")
        faults += _early_marker(before)
    if not published:
        written = {path for call, path, _ in calls if call == "write"}
        faults += [f"{path} is not flushed" for path in written if not _flushed_after(calls, ["write", path], path)]
    for call, path, _ in calls:
        if call == "mkdir" and ".partial-" not in path and not _flushed_after(calls, [call, path], _above(path)):
            faults.append(f"the folder {path} is not flushed")
    return faults


def _early_marker(calls: Sequence[Call]) -> list[str]:
    marker = next((at for at, one in enumerate(calls) if one[0] == "create" and one[1].endswith("/DONE")), None)
    if marker is None:
        return []
    others = {path for call, path, _ in calls if call == "write" and not path.endswith("/DONE")}
    flushed = {path for call, path, _ in calls[:marker] if call == "fsync"}
    named = {_above(path) for call, path, _ in calls[:marker] if call in ("create", "mkdir")}
    named = {path for path in named if ".partial-" in path}
    return [f"the marker comes before {path} is flushed" for path in (others | named) - flushed]


def _flushed_after(calls: Sequence[Call], call: list[str], path: str) -> bool:
    """Whether `path` is flushed after the last such call."""
    last = max(at for at, one in enumerate(calls) if one[:2] == call)
    return ["fsync", path] in [one[:2] for one in calls[last:]]


def _above(path: str) -> str:
    """The folder of a path below the folder of the scenario, which is ""."""
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "/" else parent


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


ORDERED = ["AtomicFile", "NewResult", "ReplacedResult", "ReplacedWithoutExchange", "TakenClaim", "OneAuditEvent"]


@pytest.mark.parametrize("scenario", ORDERED)
def test_everything_is_on_the_disk_before_its_name_is(scenario: str) -> None:
    assert order_faults(in_child("support.nth_scenarios", "record", scenario)) == []


@pytest.mark.parametrize("scenario", ORDERED)
def test_each_flush_that_is_left_out_is_noticed(scenario: str) -> None:
    recorded = in_child("support.nth_scenarios", "without_each_flush", scenario)
    assert recorded
    assert [nth for nth, calls in enumerate(recorded, start=1) if not order_faults(calls)] == []


def test_a_marker_before_the_flush_is_noticed() -> None:
    calls = in_child("support.nth_scenarios", "record", "NewResult", 0, True)
    assert any("marker" in fault for fault in order_faults(calls))
