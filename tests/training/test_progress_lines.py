"""What long jobs say where there is no terminal."""

from __future__ import annotations

import io
import sys

import pytest

from stamp_deploy.training.progress import show_steps


def test_without_a_terminal_a_step_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with show_steps("evaluating") as progress:
        for step in ("run: a", "run: b"):
            for done in (256, 300):
                progress(step, done, 300)
    assert said.getvalue() == "evaluating: run: a, 300 tiles\nevaluating: run: b, 300 tiles\n"


def test_a_terminal_gets_a_status_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    with show_steps("evaluating") as progress:
        progress("run: a", 256, 300)
    assert "evaluating: run: a" not in said.getvalue()


def test_nothing_is_shown_where_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with show_steps("evaluating", enabled=False) as progress:
        progress("run: a", 1, 2)
    assert said.getvalue() == ""
