"""kill -9 at random points, then resume: nothing is lost and the bytes are the same.

``pytest -m kill --kills 100`` is the full run; the default is a handful.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.bundle_factory import make_bundle
from test_batch import COMMAND, ROOT, children, make_slide, result_folders

from stamp_deploy.atomic import is_done

SLIDES = 5
VOLATILE = {"started_utc", "timing_seconds", "limiting_stage"}
"""Fields of result.json that say when and how fast; everything else must be equal."""


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of a result; of JSON records without the volatile fields."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.name == "result.json":
            record: dict[str, Any] = json.loads(data)
            record["software"].pop("revision", None)  # a commit during the test changes it
            data = json.dumps({k: v for k, v in record.items() if k not in VOLATILE}, sort_keys=True).encode()
        elif path.name == "DONE":  # it holds the hash of result.json, volatile fields included
            data = b"".join(sorted(line for line in data.splitlines() if not line.endswith(b"  result.json")))
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def start_arguments(slides: Path, bundle: Path, out: Path) -> list[str]:
    return [
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
        "json,hdf5,parquet,geojson",
    ]


def start(slides: Path, bundle: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        start_arguments(slides, bundle, out),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def published(out: Path) -> list[Path]:
    return [path for path in result_folders(out) if not path.name.startswith(".")] if out.is_dir() else []


@pytest.mark.kill
def test_kill_and_resume_gives_the_same_bytes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = int(request.config.getoption("--kills"))
    seed = int(os.environ.get("STAMP_KILL_SEED", "0")) or int(time.time())
    print(f"STAMP_KILL_SEED={seed}")
    rng = random.Random(seed)
    bundle = make_bundle(tmp_path / "bundle", pathways=("HYPOXIA", "ANGIOGENESIS"))
    slides = tmp_path / "slides"
    slides.mkdir()
    for i in range(SLIDES):
        make_slide(slides / f"s{i}.tif", i)
    began = time.monotonic()
    assert start(slides, bundle, tmp_path / "reference").wait() == 0
    whole = time.monotonic() - began
    reference = {folder.name: contents(folder) for folder in published(tmp_path / "reference")}
    assert len(reference) == SLIDES

    done, rounds, parents, workers, unfinished = 0, 0, 0, 0, 0
    while done < kills:
        out = tmp_path / f"out{rounds}"
        rounds += 1
        while done < kills:
            fresh, began = not out.exists(), time.monotonic()
            process = start(slides, bundle, out)
            try:
                process.wait(timeout=rng.uniform(0.1, 1.1 * whole))
                assert process.returncode == 0
                # It got to the end between kills. The machine may have become quicker: aim anew.
                whole = min(whole, time.monotonic() - began) if fresh else whole
                break
            except subprocess.TimeoutExpired:
                pass
            victims = children(process.pid)
            if victims and rng.random() < 0.3:
                os.kill(rng.choice(victims), signal.SIGKILL)  # the batch must go on by itself
                workers += 1
            else:
                process.kill()
                parents += 1
            done += 1
            print(f"kill {done}, round {rounds}", flush=True)
            assert process.wait() in (0, 3, -signal.SIGKILL)
            unfinished += sum(1 for _ in out.glob(".partial-*")) if out.is_dir() else 0
            for folder in published(out):  # whole or not at all, at any moment
                assert is_done(folder)
                assert contents(folder) == reference[folder.name]
        # A worker that was killed with a slide in it twice is quarantined, rightly: ask again for those.
        last = subprocess.run(
            [*start_arguments(slides, bundle, out), "--retry-failed"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert last.returncode == 0, last.stdout + last.stderr
        found = {folder.name: contents(folder) for folder in published(out)}
        assert found.keys() == reference.keys()
        assert [
            (key, name) for key in found for name in found[key] if found[key][name] != reference[key].get(name)
        ] == []
        assert found == reference
        assert not list(out.glob(".partial-*"))
    print(f"{done} kills ({parents} of the batch, {workers} of a worker), {rounds} rounds, {unfinished} leftovers seen")
