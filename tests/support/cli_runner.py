"""Run the command in this process, as `main` would: exit code, standard output, standard error."""

from __future__ import annotations

import math
import signal
import sys
from dataclasses import dataclass

import pytest

from stamp_deploy.cli import main
from stamp_deploy.system import progress
from stamp_deploy.system.isolation import STOP_SIGNALS


@dataclass(frozen=True)
class Done:
    """What a run left."""

    code: int
    out: str
    err: str


class Runner:
    """``runner("infer", slide, "--bundle", bundle)`` gives a `Done`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *args: object) -> Done:
        self._capsys.readouterr()
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        self._monkeypatch.setattr(progress, "LINE_EVERY_S", math.inf)  # a slow machine says no more than a quick one
        self._monkeypatch.setattr(sys, "argv", ["stamp-deploy", *map(str, args)])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        done = self._capsys.readouterr()
        return Done(code, done.out, done.err)


@pytest.fixture
def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The command, run in this process."""
    return Runner(capsys, monkeypatch)
