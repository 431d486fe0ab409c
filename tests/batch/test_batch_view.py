"""What a batch says while it runs: no names in the log, a bar and a table on a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.batch.planning.plan import Finding, Plan, PlannedSlide
from stamp_deploy.batch.progress import JsonView, Pace, TerminalView
from stamp_deploy.batch.work_queue import Settled

FOLDER = Path("/ward/Doe_Jane")


def _plan(states: list[str]) -> Plan:
    slides = tuple(
        PlannedSlide(FOLDER / f"Doe-{i}.svs", f"Doe-{i}-00ff", f"{i:064x}", 1000, None, "case-77", state)
        for i, state in enumerate(states)
    )
    findings = (
        Finding("unreadable", "Doe-1.svs", "cannot be opened: Reading Doe-1.svs: no header"),
        Finding("duplicate-content", "Doe-2.svs", "same bytes as Doe-0.svs; run once"),
        Finding("duplicate-name", "Doe-0.svs", "different bytes; result is Doe-0-00ff"),
    )
    return Plan(slides, findings, 10, 100)


def _report(states: list[str]) -> dict[str, Any]:
    rows = [
        {
            "name": f"Doe-{i}.svs",
            "state": state,
            "tiles": {"ok": 12},
            "seconds": 3.2,
            "attempts": 1,
            "reason": "why [x]",
        }
        for i, state in enumerate(states)
    ]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return {"slides": rows, "counts": counts, "exit_code": 3, "seconds": 4.0}


def _tell(view: JsonView | TerminalView, states: list[str]) -> None:
    view.planning(1, 3)
    view.planned(_plan(["run", "bad", "duplicate"]))
    view.progress("Doe-0-00ff", 6, 12)
    view.settled(
        Settled("Doe-0-00ff", "failed", "Doe-0.svs cannot be read in Doe-0-00ff", 1, 2.0), FOLDER / "Doe-0.svs"
    )
    view.finished(_report(states))
    view.close()


def test_json_lines_carry_tokens_and_no_names_cases_or_folders() -> None:
    stream = io.StringIO()
    _tell(JsonView(stream), ["done", "failed"])
    text = stream.getvalue()
    assert "Doe" not in text and "ward" not in text and "case-77" not in text
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events] == ["planned", *["finding"] * 3, "slide", "finished"]
    assert events[1]["slide"] in events[1]["detail"], "the token stands for the name"


def test_json_lines_carry_file_names_when_asked_for() -> None:
    stream = io.StringIO()
    _tell(JsonView(stream, names=True), ["done"])
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert events[2]["name"] == "Doe-2.svs" and "Doe-0.svs" in events[2]["detail"]
    assert "ward" not in stream.getvalue()


def test_terminal_shows_findings_and_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    _tell(TerminalView(), ["done", "failed"])
    shown = capsys.readouterr().out
    assert "3 slides: 1 to run, 1 duplicate, 1 cannot be run" in shown
    assert "same bytes as Doe-0.svs" in shown
    assert "why [x]" in shown, "brackets of a reason are no markup"
    assert shown.rstrip().endswith("1 done, 1 failed; exit code 3")


def test_long_tables_leave_out_what_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    TerminalView().finished(_report(["done"] * 200 + ["failed"]))
    shown = capsys.readouterr().out
    assert "Doe-200.svs" in shown and "Doe-7.svs" not in shown and "200 done, 1 failed" in shown


def test_a_slide_outside_is_done_and_flagged_however_long_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    report = _report(["done"] * 200)
    report["slides"][7] |= {"trust": "outside", "reason": ""}
    report["slides"][9] |= {"trust": "inside", "reason": ""}
    TerminalView().finished(report)
    shown = capsys.readouterr().out
    assert "Doe-7.svs" in shown and "outside what the model knows" in shown and "Doe-9.svs" not in shown
    assert "200 done, 1 outside; exit code" in shown


def test_pace_counts_bytes_of_parts_and_tiles_once() -> None:
    pace = Pace(4000)
    pace.see("a", 50, 100, 2000)
    pace.see("a", 100, 100, 2000)
    pace.finish("a", 2000)
    fraction, rate, left = pace.rates()
    assert fraction == 0.5 and rate > 0 and left is not None and left >= 0
    pace.add(4000)
    assert pace.rates()[0] == 0.25
