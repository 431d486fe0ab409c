"""Batches from end to end: real slides, a tiny real bundle, the command line, exit codes and batch.json."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from support.bundle_factory import make_bundle

from stamp_deploy.atomic import is_done
from stamp_deploy.batch.records.audit import verify_audit
from stamp_deploy.cases import SUMMARY_FOLDER

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from stamp_deploy.verbs.batch import batch, watch; from stamp_deploy import cli;"
    "cli.cli.add_command(batch); cli.cli.add_command(watch); cli.main()",
]


def result_folders(out: Path) -> list[Path]:
    """Every folder of an output but the batch's own: also what was left half-written."""
    return sorted(path for path in out.iterdir() if path.is_dir() and path.name not in (".stamp", SUMMARY_FOLDER))


def make_slide(path: Path, seed: int, *, side: int = 768, mpp: float | None = 0.5) -> Path:
    """A tiled JPEG TIFF of coloured noise on white, tissue in the middle; microns per pixel in its tags."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 245, np.uint8)
    small = rng.integers(60, 200, (side // 32, side // 32, 3))
    blocks = np.kron(small, np.ones((16, 16, 1))).astype(np.uint8)
    blocks[..., 1] //= 2
    edge = side // 4
    image[edge : edge + blocks.shape[0], edge : edge + blocks.shape[1]] = blocks
    more: dict[str, Any] = {}
    if mpp is not None:
        more = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None, **more)
    return path


def run(*arguments: object, verb: str = "batch", writers: str = "json,hdf5") -> subprocess.CompletedProcess[str]:
    """The command, with the engine that needs no comparison with others first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, verb, *map(str, arguments), "--engine", "onnxruntime", "--write", writers],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = []
    for path in tasks:
        try:
            found += [int(number) for number in path.read_text().split()]
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def test_batch_scores_resumes_and_reports(tmp_path: Path, bundle: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for i in range(3):
        make_slide(slides / f"s{i}.tif", i)
    dry = run(slides, "--bundle", bundle, "-o", out, "--dry-run")
    assert dry.returncode == 0 and not out.exists()
    assert lines(dry)[0]["slides"] == {"run": 3}
    first = run(slides, "--bundle", bundle, "-o", out)
    assert first.returncode == 0, first.stderr
    report = json.loads((out / "batch.json").read_text())
    assert report["counts"]["done"] == 3
    assert all(is_done(out / row["key"]) and row["tiles"]["ok"] > 0 for row in report["slides"])
    logs = list((out / ".stamp").glob("audit-*.jsonl"))
    assert verify_audit(logs[0], head=report["audit_head"]) == 4
    assert "s0" not in logs[0].read_text() and "s0" not in first.stdout
    assert 'stamp_slides_total{state="done"} 3.0' in (out / ".stamp" / "stamp.prom").read_text()
    make_slide(slides / "s3.tif", 3)
    second = run(slides, "--bundle", bundle, "-o", out)
    assert second.returncode == 0
    settled = [line for line in lines(second) if line["event"] == "slide"]
    assert len(settled) == 1 and settled[0]["state"] == "done"


def test_only_bad_files_is_exit_4_and_no_files_is_exit_2(tmp_path: Path, bundle: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    nothing = run(slides, "--bundle", bundle, "-o", tmp_path / "out")
    assert nothing.returncode == 2 and "no slides were found" in nothing.stderr
    (slides / "bad.svs").write_bytes(b"not a slide" * 100)
    assert run(slides, "--bundle", bundle, "-o", tmp_path / "out").returncode == 4


def test_output_of_another_bundle_is_refused(tmp_path: Path, bundle: Path) -> None:
    slide, out = make_slide(tmp_path / "s.tif", 1), tmp_path / "out"
    assert run(slide, "--bundle", bundle, "-o", out).returncode == 0
    other = make_bundle(tmp_path / "other", seed=5)
    refused = run(slide, "--bundle", other, "-o", out)
    assert refused.returncode == 2 and "another bundle" in refused.stderr
    (other / "encoder.onnx").write_bytes(b"changed")
    assert run(slide, "--bundle", other, "-o", tmp_path / "out2").returncode == 5


def test_manifest_mpp_and_case_reach_the_report(tmp_path: Path, bundle: Path) -> None:
    make_slide(tmp_path / "s.tif", 1, mpp=None)
    (tmp_path / "list.csv").write_text("slide,mpp,case_id\ns.tif,0.5,C-7\n")
    done = run(tmp_path / "list.csv", "--bundle", bundle, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads((tmp_path / "out" / "batch.json").read_text())["slides"][0]
    assert row["case_id"] == "C-7" and row["key"].endswith("-mpp0.5")


def test_two_processes_share_one_folder(tmp_path: Path, bundle: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for i in range(5):
        make_slide(slides / f"s{i}.tif", i)
    arguments = [
        *COMMAND,
        "batch",
        str(slides),
        "--bundle",
        str(bundle),
        "-o",
        str(out),
        "--engine",
        "onnxruntime",
        "--write",
        "json,hdf5",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    events = [json.loads(line) for output in outputs for line in output.splitlines()]
    own = [event for event in events if event["event"] == "slide" and event["attempts"] == 1]
    assert len(own) == 5  # every slide was scored once, by one of the two
    assert sum(is_done(path) for path in out.iterdir() if path.is_dir()) == 5


def test_sigterm_to_every_process_is_exit_75_and_blames_no_slide(tmp_path: Path, bundle: Path) -> None:
    """As schedulers do it: first to the worker, then to the batch."""
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for i in range(3):
        make_slide(slides / f"s{i}.tif", i)
    options = ("batch", slides, "--bundle", bundle, "-o", out, "--engine", "onnxruntime", "--write", "json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*COMMAND, *map(str, options)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    planned = json.loads(process.stdout.readline())
    assert planned["event"] == "planned"
    deadline = time.monotonic() + 60
    while not (workers := children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for number in (*workers, process.pid):
        os.kill(number, signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 75, rest
    report = json.loads((out / "batch.json").read_text())
    assert report["counts"]["failed"] == report["counts"]["quarantined"] == 0
    again = run(*options[1:6], writers="json")
    assert again.returncode == 0, again.stdout + again.stderr


def test_watch_scores_what_arrives_and_resumes(tmp_path: Path, bundle: Path) -> None:
    inbox, out = tmp_path / "in", tmp_path / "out"
    (inbox / "urgent").mkdir(parents=True)
    make_slide(inbox / "a.tif", 1)
    make_slide(inbox / "urgent" / "b.tif", 2)
    (inbox / "bad.svs").write_bytes(b"no slide" * 50)
    arguments = (inbox, "--bundle", bundle, "-o", out, "--settle", 0.5, "--poll", 0.2, "--once", "--names")
    first = run(*arguments, verb="watch")
    assert first.returncode == 0, first.stderr
    states = [(line["name"], line["state"]) for line in lines(first) if line["event"] == "slide"]
    assert set(states) == {("a.tif", "done"), ("b.tif", "done"), ("bad.svs", "failed")}
    assert [name for name, state in states if state == "done"] == ["b.tif", "a.tif"]
    metrics = (out / ".stamp" / "stamp.prom").read_text()
    for line in (
        'stamp_slides_total{state="done"} 2.0',
        'stamp_slides_total{state="failed"} 1.0',
        'stamp_trust_total{verdict="not judged"} 2.0',
        "stamp_slides_waiting 0.0",
    ):
        assert line in metrics.splitlines(), metrics
    names = [path.name for path in sorted((out / "summary").iterdir())]
    assert {"index.html", "pathways.csv", "pathways.parquet", "calls.csv", "heatmap.png"} <= set(names)
    assert not [name for name in names if name.startswith(".")]
    rows = (out / "summary" / "pathways.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[1] for row in rows) == ["a.tif", "b.tif"]
    (out / "summary" / "pathways.csv").unlink()
    again = run(*arguments, verb="watch")
    assert [line["name"] for line in lines(again) if line["event"] == "slide"] == ["bad.svs"]
    assert (out / "summary" / "pathways.csv").read_text().splitlines()[1:] == rows


def test_an_idle_watch_says_again_and_again_that_it_lives(tmp_path: Path, bundle: Path) -> None:
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    options = [inbox, "--bundle", bundle, "-o", out, "--poll", 0.2, "--engine", "onnxruntime", "--write", "json"]
    watching = subprocess.Popen(
        [*COMMAND, "watch", *map(str, options)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    written, seen = out / ".stamp" / "stamp.prom", set()
    try:
        deadline = time.monotonic() + 240
        while len(seen) < 3 and watching.poll() is None and time.monotonic() < deadline:
            if written.exists():
                (line,) = [x for x in written.read_text().splitlines() if x.startswith("stamp_metrics_written_timesta")]
                seen.add(line)
            time.sleep(0.1)
    finally:
        watching.terminate()
        watching.wait(timeout=240)
    assert len(seen) == 3, "no slide came, and yet the file was replaced"


def test_a_running_watch_scores_a_slide_again_when_its_bytes_change(tmp_path: Path, bundle: Path) -> None:
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    slide = make_slide(inbox / "a.tif", 1)
    hashes = [sha256(slide.read_bytes()).hexdigest()]
    options = ["--bundle", bundle, "-o", out, "--settle", 0.5, "--poll", 0.2, "--names", "--engine", "onnxruntime"]
    watching = subprocess.Popen(
        [*COMMAND, "watch", str(inbox), *map(str, options), "--write", "json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert watching.stdout is not None
    guard = threading.Timer(240, watching.kill)
    guard.start()
    done = 0
    try:
        for line in watching.stdout:  # ends with the process
            event = json.loads(line)
            if event["event"] != "slide":
                continue
            assert event["state"] == "done", event
            done += 1
            if done == 2:
                break
            os.replace(make_slide(tmp_path / "other.tif", 2), slide)
            hashes.append(sha256(slide.read_bytes()).hexdigest())
    finally:
        guard.cancel()
        watching.terminate()
        watching.communicate(timeout=60)
    results = {json.loads(path.read_text())["slide"]["sha256"]: path.parent for path in out.glob("*/result.json")}
    assert set(results) == set(hashes)  # the result of the old bytes stays
    assert all(is_done(folder) for folder in results.values())
