"""Standard streams that are closed, full, or without a reader: no traceback, and no file in their place."""

from __future__ import annotations

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
