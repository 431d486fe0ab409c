"""Standard streams that are closed, full, or without a reader: no traceback, and no file in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.result_factory import make_result, stored

FULL = Path("/dev/full")
COMMAND = [sys.executable, "-m", "stamp_deploy.cli"]


def shell(line: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `line` by sh; "$@" in it is the command with `words`."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(make_result(n_tiles=40), tmp_path_factory.mktemp("streams") / "result")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["formats"], ["--help"], ["models", "--json"], ["infer", "--help"]])
def test_a_full_disk_behind_standard_output_is_an_error_in_one_line(words: list[str]) -> None:
    done = shell('"$@" > /dev/full', *words)
    assert done.returncode == 6
    assert done.stderr.startswith("stamp-deploy: standard output cannot be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_verb_in_a_child_of_its_own_says_it_too(cmu_slide: Path) -> None:
    done = shell('"$@" > /dev/full', "inspect", cmu_slide)
    assert done.returncode == 6 and "standard output cannot be written" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_error_changes_nothing(tmp_path: Path, result: Path) -> None:
    assert shell('"$@" 2> /dev/full', "verify", tmp_path / "none").returncode == 2
    done = shell('"$@" 2> /dev/full', "compare", result, result)
    assert done.returncode == 0 and "40 pairs" in done.stdout


@pytest.mark.parametrize("words", [["models", "--json"], ["formats"], ["--help"]])
def test_a_reader_that_leaves_is_no_failure(words: list[str]) -> None:
    done = shell('{ "$@"; echo "code $?" >&2; } | true', *words)
    assert done.stderr == "code 0\n"


def test_nothing_takes_the_place_of_a_closed_stream(tmp_path: Path, result: Path) -> None:
    """A file that is opened where standard output was would hold what is printed."""
    done = shell('"$@" <&- >&- 2>&-', "compare", result, result, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "comparison.json").read_text().startswith("{")
    assert b"limits of" not in (tmp_path / "out" / "agreement.csv").read_bytes()
    assert shell('"$@" >&-', "formats").returncode == 0


GUARD = "import sys, os; from stamp_deploy.system.streams import guard_streams, on_descriptor; "


def guarded(code: str, line: str = '"$@"', **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python code in a process of its own, by sh; streams are buffered, whatever the environment asks for."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = ["sh", "-c", line, "sh", sys.executable, "-c", GUARD + code]
    return subprocess.run(words, capture_output=True, check=False, env={**own, **environment})


def test_what_was_printed_before_comes_before() -> None:
    done = guarded("print('first'); guard_streams(); print('second'); sys.stdout.flush(); os.write(1, b'third')")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"first\nsecond\nthird", b"")


def test_lines_appear_when_they_are_written() -> None:
    """Who reads a log by a pipe sees each line at once: it is on the descriptor before anything is flushed."""
    done = guarded("guard_streams(); print('one'); sys.stderr.write('two\\n'); os._exit(0)")
    assert (done.stdout, done.stderr) == (b"one\n", b"two\n")


def test_python_s_own_names_are_those_of_the_guarded_streams() -> None:
    done = guarded(
        "guard_streams(); print(sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdout.line_buffering, "
        "sys.stdout.fatal, sys.stderr.fatal, sys.stdout.encoding, sys.stderr.errors)",
        PYTHONIOENCODING="utf-8", PYTHONUTF8="1",
    )  # fmt: skip
    assert done.stdout.decode().split() == ["True", "True", "True", "True", "False", "utf-8", "backslashreplace"]


def test_names_that_are_no_text_are_shown_and_units_keep_their_letters() -> None:
    """A file name may hold bytes of no encoding; an error about it must not fail itself."""
    done = guarded("guard_streams(); print('0.5 \\u00b5m'); sys.stderr.write('no \\udcff.svs\\n')", PYTHONUTF8="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.5 µm\n".encode(), b"no \\udcff.svs\n")


def test_a_closed_standard_input_is_empty() -> None:
    done = guarded("guard_streams(); print(repr(sys.stdin.read()), sys.__stdin__ is sys.stdin)", '"$@" <&-')
    assert (done.returncode, done.stdout) == (0, b"'' True\n")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_once() -> None:
    """And what follows is dropped: a message about the failure must not fail by it."""
    code = (
        "from stamp_deploy.errors import DiskError\n"
        "guard_streams()\n"
        "for number in range(3):\n"
        "    try:\n"
        "        print('x' * 100_000, flush=True)\n"
        "        sys.stderr.write('dropped ')\n"
        "    except DiskError as error:\n"
        "        sys.stderr.write(f'told: {error.remedy} ')\n"
    )
    done = guarded(code, '"$@" > /dev/full')
    assert done.stderr == b"told: free space there, or send it elsewhere dropped dropped "
    assert done.returncode == 0


def test_a_stream_that_is_not_python_s_own_is_left_alone() -> None:
    """A notebook or a test has put its own there."""
    done = guarded(
        "import io; mine = sys.stdout = io.StringIO(); guard_streams(); os._exit(0 if sys.stdout is mine else 3)"
    )
    assert done.returncode == 0
