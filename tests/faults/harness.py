"""Attempt after attempt, for so many minutes; keep what breaks a rule, and write the figures.

    python -m faults --minutes 60 [--seed N] [--jobs N] [--keep FOLDER] [--results FILE.md]
    python -m faults --again tiff:12345            one attempt, kept and told in full

An attempt is its kind and its seed: `--again` repeats it exactly. Each is made, run and judged in processes of its own,
forked from one that has loaded the libraries, so a second holds several.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .attempt import run, run_forked
from .judge import Outcome, Verdict, judge
from .kinds import KINDS, states
from .world import World, make_world, new_slide

ATTEMPT_LIMIT_S = 200.0


@dataclass(frozen=True)
class Tried:
    """An attempt and its verdict."""

    kind: str
    seed: int
    what: str
    verdict: Verdict
    kept: str = ""


def prepare(folder: Path) -> World:
    """The world, with a finished batch; this process loads what commands would load each."""
    os.environ.update(HOME=str(folder), STAMP_CACHE_DIR=str(folder / "cache"), OMP_NUM_THREADS="1")
    world = make_world(folder / "world")
    source = new_slide(folder, "one.svs", world.slides["420"]).parent
    new_slide(folder, "two.svs", world.slides["rgb"])

    def batch() -> int:
        from stamp_deploy.cli import main

        sys.argv = ["stamp-deploy", *states.options(world, source, world.batch)]
        main()
        return 0

    done = run_forked(batch, folder, 300, None)
    assert (world.batch / "batch.json").exists(), done.err.decode(errors="replace")
    import h5py  # noqa: F401
    import onnxruntime  # noqa: F401
    import openslide  # noqa: F401 - before pyvips
    import pydicom  # noqa: F401
    import pyvips  # noqa: F401
    import tifffile  # noqa: F401

    import stamp_deploy.infer
    import stamp_deploy.verbs.slide  # noqa: F401

    return world


def attempt(kind: str, seed: int, world: World, keep: Path | None) -> Tried:
    """Make, run and judge one attempt; a broken one's folder goes to `keep`."""
    place = Path(tempfile.mkdtemp(prefix=f"{kind}-{seed}-"))
    answer = place / "answer.json"
    folder = place / "run"
    folder.mkdir()

    def work() -> int:
        made = KINDS[kind].make(random.Random(f"{kind}:{seed}"), folder, world)
        ran = run(made, folder)
        answer.write_text(json.dumps({"what": made.what, **asdict(judge(made, ran, folder))}))
        return 0

    try:
        ended = run_forked(work, place, ATTEMPT_LIMIT_S, None)
        if ended.code == 0:
            said = json.loads(answer.read_text())
            what, verdict = said.pop("what"), Verdict(**{**said, "outcome": Outcome(said["outcome"])})
        else:
            what, why = "?", ended.err.decode(errors="replace")[-1500:]
            verdict = Verdict(Outcome.BROKEN, [f"the harness itself ended with {ended.code}: {why}"])
        kept = ""
        if verdict.outcome in (Outcome.BROKEN, Outcome.CONTAINED) and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            kept = str(keep / f"{kind}-{seed}")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
        return Tried(kind, seed, what, verdict, kept)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def try_for(minutes: float, seed: int, world: World, keep: Path | None, kinds: Sequence[str]) -> Iterator[Tried]:
    """Attempts for so long, each kind with its share of the time."""
    spent = dict.fromkeys(kinds, 0.0)
    number = dict.fromkeys(kinds, 0)
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        kind = min(spent, key=lambda name: spent[name] / KINDS[name].SHARE)
        began = time.monotonic()
        yield attempt(kind, seed + number[kind], world, keep)
        spent[kind] += time.monotonic() - began
        number[kind] += 1


def worker(minutes: float, seed: int, folder: Path, keep: Path | None, kinds: Sequence[str], log: Path) -> None:
    """One process of several: its attempts, one JSON line each."""
    world = prepare(folder)
    with log.open("w") as lines:
        for tried in try_for(minutes, seed, world, keep, kinds):
            print(json.dumps(asdict(tried)), file=lines, flush=True)
            if tried.verdict.outcome == Outcome.BROKEN:
                print(f"{tried.kind}:{tried.seed} ({tried.what}) {'; '.join(tried.verdict.problems)}", flush=True)


def start_worker(*arguments: object) -> int:
    """Fork a worker; its process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        worker(*arguments)  # type: ignore[arg-type]
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
