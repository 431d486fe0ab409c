"""Planning reports everything that is wrong before anything is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.batch.planning import inputs
from stamp_deploy.batch.planning.inputs import Entry, expand_inputs
from stamp_deploy.batch.planning.plan import Plan, SlideFacts, parse_shard
from stamp_deploy.batch.planning.planner import plan_batch
from stamp_deploy.errors import EngineError, MppError, SlideError, UsageError


def _probe(path: Path, mpp: float | None) -> SlideFacts:
    if "bad" in path.name:
        raise SlideError("truncated header", remedy="copy it again", path=path)
    if "nompp" in path.name and mpp is None:
        raise MppError("states no microns per pixel", remedy="give --mpp", path=path)
    return SlideFacts(10_000, 8_000, mpp or 0.5, mpp or 0.5, "aperio", "jpeg-tiff")


def _plan(entries: list[Entry], out: Path, **more: object) -> Plan:
    arguments: dict[str, object] = {
        "probe": _probe, "is_done": lambda key: False, "bytes_per_tile": 1000, "tile_span_um": 112.0, **more,
    }  # fmt: skip
    return plan_batch(entries, out, **arguments)  # type: ignore[arg-type]


def _files(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / f"{name}.svs").write_text(text)
    return folder


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    _files(tmp_path / "a", good="1", bad="2", nompp="3", zcopy="1")
    _files(tmp_path / "b", good="4")
    entries = [*expand_inputs([tmp_path / "a", tmp_path / "b"]), Entry(tmp_path / "gone.svs")]
    plan = _plan(entries, tmp_path / "out")
    kinds = sorted((finding.kind, finding.name) for finding in plan.findings)
    assert kinds == [
        ("duplicate-content", "zcopy.svs"),
        ("duplicate-name", "good.svs"),
        ("missing", "gone.svs"),
        ("missing-mpp", "nompp.svs"),
        ("unreadable", "bad.svs"),
    ]
    assert [slide.state for slide in plan.slides] == ["bad", "run", "bad", "duplicate", "run", "bad"]
    assert len({slide.key for slide in plan.of_state("run")}) == 2


def test_manifest_gives_mpp_and_case(tmp_path: Path) -> None:
    _files(tmp_path, nompp="1", other="2")
    manifest = tmp_path / "list.csv"
    manifest.write_text("\ufeffSlide,MPP,Case ID\nnompp.svs,0.25,C-1\nother.svs,,\n", encoding="utf-8")
    entries = expand_inputs([manifest])
    assert entries == [Entry(tmp_path / "nompp.svs", 0.25, "C-1"), Entry(tmp_path / "other.svs", None, "")]
    assert [slide.state for slide in _plan(entries, tmp_path / "out").slides] == ["run", "run"]


def test_mpp_for_all_is_for_slides_that_record_none(tmp_path: Path) -> None:
    _files(tmp_path, nompp="1", other="2")
    plan = _plan(expand_inputs([tmp_path]), tmp_path / "out", mpp=0.25)
    found = {slide.path.stem: (slide.state, slide.mpp, slide.facts and slide.facts.mpp_x) for slide in plan.slides}
    assert found == {"nompp": ("run", 0.25, 0.25), "other": ("run", None, 0.5)}
    keys = {slide.path.stem: slide.key for slide in plan.slides}
    assert keys["nompp"].endswith("-mpp0.25") and "mpp" not in keys["other"]
    again = _plan(expand_inputs([tmp_path]), tmp_path / "out", mpp=0.25, is_done=lambda key: key in keys.values())
    assert [(slide.state, slide.key) for slide in again.slides] == [("done", slide.key) for slide in plan.slides]


@pytest.mark.parametrize(
    "text",
    [
        "name,mpp\na.svs,1\n",
        "slide,mpp\na.svs,x\n",
        "slide,mpp\na.svs,inf\n",
        "slide,mpp\n,0.5\n",
        "slide\na,b\n",
    ],
)
def test_wrong_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError):
        expand_inputs([tmp_path / "m.csv"])


def test_folders_globs_and_hidden_files(tmp_path: Path) -> None:
    _files(tmp_path / "in" / "sub", one="1")
    _files(tmp_path / "in" / ".hidden", two="2")
    _files(tmp_path / "in" / "out", three="3")
    (tmp_path / "in" / "notes.txt").write_text("x")
    found = expand_inputs([tmp_path / "in"], skip=tmp_path / "in" / "out")
    assert [entry.path.name for entry in found] == ["one.svs"]
    found = expand_inputs([tmp_path / "in" / "*" / "*.svs", tmp_path / "in"])
    assert sorted(entry.path.name for entry in found) == ["one.svs", "three.svs"]
    with pytest.raises(UsageError, match="no slides"):
        expand_inputs([tmp_path / "in" / "*.nothing"])


def test_dicom_series_is_one_slide(tmp_path: Path, data_dir: Path) -> None:
    for name in ("osp_boxes_0.dcm", "osp_boxes_1.dcm"):
        (tmp_path / name).write_bytes((data_dir / "dicom" / name).read_bytes())
    (tmp_path / "zbroken.dcm").write_bytes(b"no dicom")
    assert [path.name for path in inputs.find_slides(tmp_path)] == ["osp_boxes_0.dcm", "zbroken.dcm"]


def test_shards_cover_every_slide_once(tmp_path: Path) -> None:
    _files(tmp_path / "in", **{f"s{i}": str(i) for i in range(30)})
    entries = expand_inputs([tmp_path / "in"])
    shards = [_plan(entries, tmp_path, shard=(i, 4)).slides for i in range(4)]
    names = [slide.path.name for shard in shards for slide in shard]
    assert sorted(names) == sorted(entry.path.name for entry in entries)
    assert all(shards)


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "0/0"])
def test_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shard(text)


def test_a_probe_that_cannot_start_blames_no_slide(tmp_path: Path) -> None:
    def cannot(path: Path, mpp: float | None) -> SlideFacts:
        raise EngineError("the process that opens slides cannot be started", remedy="see the log")

    _files(tmp_path, a="1")
    with pytest.raises(EngineError):
        _plan(expand_inputs([tmp_path / "a.svs"]), tmp_path, probe=cannot)


def test_done_slides_are_not_opened(tmp_path: Path) -> None:
    _files(tmp_path, a="1")
    plan = _plan(
        expand_inputs([tmp_path / "a.svs"]),
        tmp_path,
        is_done=lambda key: True,
        probe=lambda path, mpp: pytest.fail(),
    )
    assert [slide.state for slide in plan.slides] == ["done"]


def test_too_little_disk_is_fatal(tmp_path: Path) -> None:
    _files(tmp_path, a="1")
    plan = _plan(expand_inputs([tmp_path / "a.svs"]), tmp_path, bytes_per_tile=10**13)
    assert [(finding.kind, finding.fatal) for finding in plan.findings] == [("disk-space", True)]


def test_equal_samples_with_different_bytes_are_two_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stamp_deploy.batch.planning.identity.SAMPLE_BYTES", 2)
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "a.svs").write_text("ab1234567890cdxx12345678yz")
    (tmp_path / "y" / "a.svs").write_text("ab9234567890cdxx12345678yz")
    plan = _plan(expand_inputs([tmp_path]), tmp_path)
    assert [slide.state for slide in plan.slides] == ["run", "run"]
    assert plan.slides[0].fingerprint == plan.slides[1].fingerprint
    assert plan.slides[0].key != plan.slides[1].key


DRY_RUN = """
import sys
from stamp_deploy import cli
code = cli.run()
print("parsers:", *{"pydicom", "openslide", "pyvips", "tifffile"} & set(sys.modules))
sys.exit(code)
"""


def test_the_planning_process_loads_no_parser(tmp_path: Path, data_dir: Path) -> None:
    """What is damaged can end or hang the child alone: the parent has nothing to parse a slide with."""
    make_bundle(tmp_path / "bundle", tile_px=64)
    (tmp_path / "in").mkdir()
    for name in ("osp_boxes_0.dcm", "osp_boxes_1.dcm"):
        (tmp_path / "in" / name).write_bytes((data_dir / "dicom" / name).read_bytes())
    (tmp_path / "in" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 5000)
    os.mkfifo(tmp_path / "in" / "pipe.dcm")
    words = ["batch", tmp_path / "in", "--bundle", tmp_path / "bundle", "-o", tmp_path / "out", "--dry-run"]
    command = [sys.executable, "-c", DRY_RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "parsers:", done
    assert "in a folder with a named pipe" in done.stdout + done.stderr  # and not: hung for 60 s
    assert "is a named pipe, not a file" in done.stdout + done.stderr
