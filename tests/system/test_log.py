"""Without `setup` the package's log says nothing; with it, JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys

LOGS = (
    "import logging; from stamp_deploy.system import log; {setup}"
    "log.event('engine failed', level=logging.ERROR, engine='x')"
)


def stderr_of(setup: str) -> str:
    done = subprocess.run([sys.executable, "-c", LOGS.format(setup=setup)], capture_output=True, text=True, check=True)
    return done.stderr


def test_nothing_is_shown_unasked() -> None:
    assert stderr_of("") == ""


def test_once_set_up_an_event_is_one_json_line() -> None:
    (line,) = stderr_of("log.setup(); ").splitlines()
    assert json.loads(line).items() >= {"level": "error", "event": "engine failed", "engine": "x"}.items()
