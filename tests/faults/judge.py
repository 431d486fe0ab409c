"""The rules that every attempt is judged by: refused in one documented line, or survived with right output."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .attempt import MEMORY_BYTES, Attempt, Ran, ask
from .world import PLANTED

_CONTAINED = re.compile(rb"was ended by SIG|\"cause\": \"crash|was killed by SIG")
_TRACE = re.compile(rb"Traceback|\w+Error: |Fatal Python error|Segmentation|core dumped|double free|corrupted size")


class Outcome(StrEnum):
    """What became of an attempt."""

    SURVIVED = "survived"
    REFUSED = "refused"
    CONTAINED = "crash contained"
    STOPPED = "stopped"
    BROKEN = "broken"


@dataclass
class Verdict:
    """The outcome and, where it is BROKEN, the rules that were broken."""

    outcome: Outcome
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    rss_bytes: int = 0
    said: str = ""


def judge(attempt: Attempt, ran: Ran, folder: Path) -> Verdict:
    """Hold what an attempt left against the rules."""
    problems = [*_process(attempt, ran), *_words(attempt, ran), *_files(attempt, ran, folder)]
    if ran.code == 0 and not problems and attempt.right is not None and (wrong := ask(attempt.right, folder)):
        problems.append(f"wrong output: {wrong}")
    outcome = Outcome.SURVIVED if ran.code == 0 else Outcome.REFUSED
    if attempt.blow is not None and ran.code != 0:
        outcome = Outcome.STOPPED
    elif _CONTAINED.search(ran.err + ran.out):
        outcome = Outcome.CONTAINED
    if problems:
        outcome = Outcome.BROKEN
    return Verdict(outcome, problems, ran.seconds, ran.rss_bytes, ran.err.decode(errors="replace")[-700:])


def _process(attempt: Attempt, ran: Ran) -> list[str]:
    problems = []
    if ran.hung:
        problems.append(f"hung: still running after {ran.seconds:.0f} s")
    elif ran.code not in attempt.codes:
        problems.append(f"exit code {ran.code}, not one of {sorted(attempt.codes)}")
    if ran.rss_bytes > MEMORY_BYTES:
        problems.append(f"took {ran.rss_bytes / 1e9:.1f} GB of memory")
    return problems


def _words(attempt: Attempt, ran: Ran) -> list[str]:
    problems = []
    for name, said in (("standard output", ran.out), ("standard error", ran.err)):
        if _TRACE.search(said):
            problems.append(f"a traceback on {name}")
        if PLANTED.encode() in said:
            problems.append(f"the planted name on {name}")
        text = said.decode("utf-8", "replace")
        if text.encode() != said:
            problems.append(f"{name} is not UTF-8")
        if odd := {c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}:
            problems.append(f"control characters on {name}: {sorted(map(ascii, odd))}")
    if attempt.one_line and ran.code > 0 and not ran.hung and attempt.blow is None:
        lines = ran.err.decode("utf-8", "replace").splitlines()
        if len(lines) != 1 or not lines[0].startswith("stamp-deploy: "):
            problems.append(f"{len(lines)} lines on standard error instead of one that begins with stamp-deploy:")
        else:
            if attempt.subject and attempt.subject not in lines[0]:
                problems.append(f"the error does not name {attempt.subject}")
            if " - " not in lines[0]:
                problems.append("the error names no remedy")
    return problems


def _files(attempt: Attempt, ran: Ran, folder: Path) -> list[str]:
    problems = []
    killed = attempt.blow is not None and ran.code < 0
    if attempt.out is not None:
        there, done = attempt.out.exists(), (attempt.out / "DONE").is_file()
        if there and not done:
            problems.append("the output folder is there without DONE")
        if ran.code == 0 and not done:
            problems.append("exit code 0, but no finished output")
        if ran.code > 0 and there and attempt.blow is None:
            problems.append("refused, but the output folder is there")
        if done and (wrong := ask(lambda: _unverified(attempt.out), folder)):
            problems.append(f"half-written output: {wrong}")
        if not killed and (left := [path.name for path in attempt.out.parent.glob(".partial*")]):
            problems.append(f"left behind: {left}")
    if leak := _leak(attempt, folder):
        problems.append(f"the planted name is in {leak}")
    return problems


def _unverified(out: Path | None) -> str:
    from stamp_deploy.checks.verify import verify_path
    from stamp_deploy.errors import StampError

    assert out is not None
    try:
        verify_path(out)
    except StampError as error:
        return str(error)
    return ""


def _leak(attempt: Attempt, folder: Path) -> str:
    """The first output file with the planted name in it, or in its own name."""
    if attempt.out is None:
        return ""
    for base, _, names in os.walk(attempt.out):
        for name in names:
            path = Path(base, name)
            if PLANTED in str(path.relative_to(folder)) or PLANTED.encode() in path.read_bytes():
                return str(path.relative_to(folder))
    return ""
