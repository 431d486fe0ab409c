"""A short, fixed slice of the harness; `make faults MINUTES=n` runs it for as long as wanted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.attempt import Attempt, Ran, run_forked
from faults.judge import Outcome, judge
from faults.kinds import KINDS
from faults.world import PLANTED, make_world

TESTS = Path(__file__).resolve().parents[1]
SLICE = {"tiff": 10, "jpeg": 7, "dicom": 6, "bundles": 7, "names": 4, "states": 1, "kills": 2}
"""Attempts of each kind, from seed 0 on."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder: hostile names need the room."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    yield folder
    shutil.rmtree(folder)


def test_a_slice_of_every_kind_is_refused_or_survived(place: Path) -> None:
    """In a process of its own: it forks, and pytest has threads and streams of its own."""
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from faults.harness import attempt, prepare\n"
        "world = prepare(Path(sys.argv[1]))\n"
        f"for kind, count in {SLICE!r}.items():\n"
        "    for seed in range(count):\n"
        "        tried = attempt(kind, seed, world, None)\n"
        "        print(kind, seed, tried.what, tried.verdict.outcome, *tried.verdict.problems, sep='; ')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place)],
        cwd=TESTS, env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == sum(SLICE.values())
    assert [line for line in lines if line.split("; ")[3] == Outcome.BROKEN] == []
    assert {line.split("; ")[3] for line in lines} >= {Outcome.REFUSED, Outcome.SURVIVED}


def test_an_attempt_is_its_seed(place: Path) -> None:
    world = make_world(place / "world")
    for kind in ("tiff", "jpeg", "dicom", "bundles", "names"):
        made = []
        for _ in range(2):
            folder = place / kind
            folder.mkdir()
            attempt = KINDS[kind].make(random.Random(5), folder, world)
            made.append((attempt.what, attempt.argv, {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}))
            shutil.rmtree(folder)
        assert made[0] == made[1], kind


GOOD = {
    "code": 4,
    "out": b"",
    "err": b"stamp-deploy: a.svs: is broken - scan it again\n",
    "seconds": 1.0,
    "rss_bytes": 1,
}
BREACHES = {
    "a bug's exit code": ({"code": 1}, "exit code 1"),
    "a signal": ({"code": -11, "err": b""}, "exit code -11"),
    "a hang": ({"hung": True}, "hung"),
    "memory": ({"rss_bytes": 1 << 40}, "of memory"),
    "a traceback": ({"err": b"Traceback (most recent call last):\n"}, "traceback"),
    "two lines": ({"err": b"stamp-deploy: a.svs: x - y\nmore\n"}, "2 lines"),
    "no file": ({"err": b"stamp-deploy: it is broken - scan it again\n"}, "does not name a.svs"),
    "no remedy": ({"err": b"stamp-deploy: a.svs: is broken\n"}, "no remedy"),
    "the patient's name": (
        {"err": f"stamp-deploy: a.svs: {PLANTED} - no\n".encode()},
        "planted name on standard error",
    ),
    "an escape sequence": ({"err": b"stamp-deploy: a.svs: \x1b[31mred - no\n"}, "control characters"),
    "no text": ({"err": b"stamp-deploy: a.svs: M\xfcller - no\n"}, "not UTF-8"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_each_rule_notices_its_breach(breach: str, tmp_path: Path) -> None:
    change, said = BREACHES[breach]
    attempt = Attempt("", (), "a.svs", tmp_path / "out")
    assert judge(attempt, Ran(**{**GOOD, "hung": False}), tmp_path).outcome == Outcome.REFUSED
    verdict = judge(attempt, Ran(**{**GOOD, "hung": False, **change}), tmp_path)
    assert verdict.outcome == Outcome.BROKEN
    assert said in "; ".join(verdict.problems)


def test_what_is_left_behind_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    attempt = Attempt("", (), "a.svs", out)
    (tmp_path / ".partial-1-out").mkdir()
    assert "left behind" in str(judge(attempt, Ran(**GOOD, hung=False), tmp_path).problems)
    (tmp_path / ".partial-1-out").rmdir()
    out.mkdir()
    assert "without DONE" in str(judge(attempt, Ran(**GOOD, hung=False), tmp_path).problems)
    (out / "result.json").write_text(f'"{PLANTED}"')
    assert "planted name is in out/result.json" in str(judge(attempt, Ran(**GOOD, hung=False), tmp_path).problems)
    (out / "DONE").write_text("0" * 64 + "  result.json\n")
    survived = Ran(**{**GOOD, "code": 0, "err": b""}, hung=False)
    assert "half-written" in str(judge(attempt, survived, tmp_path).problems)


def test_a_hang_is_ended_and_a_blow_lands(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from faults.attempt import run_forked\n"
        "def sleep():\n"
        "    time.sleep(60)\n"
        "    return 0\n"
        "hung = run_forked(sleep, Path(sys.argv[1]), 0.3, None)\n"
        "hit = run_forked(sleep, Path(sys.argv[1]), 30, (signal.SIGTERM, 0.1))\n"
        "print(hung.hung, hung.code, hit.hung, hit.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=TESTS, capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    assert done.stdout.split() == ["True", str(-signal.SIGKILL), "False", str(-signal.SIGTERM)]


def test_a_child_s_words_and_code_come_back(tmp_path: Path) -> None:
    def work() -> int:
        os.write(1, b"said")
        return 5

    ran = run_forked(work, tmp_path, 30, None)
    assert (ran.code, ran.out, ran.err, ran.hung) == (5, b"said", b"", False)
    assert ran.rss_bytes > 1_000_000
