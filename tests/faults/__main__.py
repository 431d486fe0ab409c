"""The command of the harness: see harness.py."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .harness import Tried, attempt, prepare, start_worker
from .judge import Outcome, Verdict
from .kinds import KINDS
from .report import write_report

APART = 1_000_000
"""Seeds of two workers lie so far apart."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000 * 10 * APART)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--keep", type=Path, default=Path("build/faults"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--again", metavar="KIND:SEED")
    options = parser.parse_args()
    keep, kinds = options.keep.absolute(), options.kinds.split(",")
    # not a TemporaryDirectory: forked children would remove it at their end
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        os.environ["TMPDIR"] = tempfile.tempdir = str(place)
        if options.again:
            return _again(options.again, place, keep)
        began = time.monotonic()
        print(f"seed {options.seed}, {options.jobs} processes, {options.minutes:g} minutes; broken ones go to {keep}")
        logs = [place / f"log.{number}" for number in range(options.jobs)]
        pids = [
            start_worker(options.minutes, options.seed + number * APART, place / f"at-{number}", keep, kinds, path)
            for number, path in enumerate(logs)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        tried = [_read(line) for path in logs if path.exists() for line in path.read_text().splitlines()]
        print(write_report(tried, options.results, seed=options.seed, minutes=(time.monotonic() - began) / 60))
        return int(any(codes) or any(one.verdict.outcome == Outcome.BROKEN for one in tried))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _again(name: str, place: Path, keep: Path) -> int:
    kind, _, seed = name.partition(":")
    tried = attempt(kind, int(seed), prepare(place), keep)
    print(json.dumps({"what": tried.what, **tried.verdict.__dict__, "kept": tried.kept}, indent=2))
    return int(tried.verdict.outcome == Outcome.BROKEN)


def _read(line: str) -> Tried:
    value = json.loads(line)
    verdict = value.pop("verdict")
    return Tried(**value, verdict=Verdict(**{**verdict, "outcome": Outcome(verdict["outcome"])}))


if __name__ == "__main__":
    sys.exit(main())
