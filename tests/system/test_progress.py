"""Long jobs without a terminal print a line per minute."""

from __future__ import annotations

import io

from stamp_deploy.system.progress import Lines, duration, show_progress


def test_a_line_a_minute_where_there_is_no_terminal() -> None:
    now = [0.0]
    out = io.StringIO()
    advance = Lines("tiles", out, clock=lambda: now[0])
    for second in range(0, 181):
        now[0] = float(second)
        advance(second * 10, 3600)
    assert out.getvalue().splitlines() == [
        "tiles: 600 of 3,600, about 5 min left",
        "tiles: 1,200 of 3,600, about 4 min left",
        "tiles: 1,800 of 3,600, about 3 min left",
    ]


def test_a_job_that_is_gone_on_with_is_timed_by_what_it_does_now() -> None:
    now = [0.0]
    out = io.StringIO()
    advance = Lines("training, steps", out, clock=lambda: now[0])
    advance(901, 1000)
    now[0] = 60.0
    advance(930, 1000)
    assert out.getvalue() == "training, steps: 930 of 1,000, about 2 min left\n"


def test_short_jobs_and_silenced_ones_print_nothing() -> None:
    out = io.StringIO()
    with show_progress("tiles", stream=out) as advance:
        assert isinstance(advance, Lines)
        advance(1, 2)
    with show_progress("tiles", enabled=False, stream=out) as silent:
        assert silent is None
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with show_progress("tiles", stream=out) as advance:
        assert advance is not None
        advance(1, 2)
    assert "tiles" in out.getvalue()


def test_durations_in_words() -> None:
    assert [duration(s) for s in (3, 89.4, 90, 3000, 12000)] == ["3 s", "89 s", "2 min", "50 min", "3 h 20 min"]
