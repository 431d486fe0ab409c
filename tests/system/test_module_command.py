"""Helpers and workers import nothing from the folder where the user stands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

from stamp_deploy.system.child_process import ChildProcess, module_command

POISON = "raise SystemExit('imported from the folder where the user stands')\n"


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the user stands, with files that are named like modules."""
    monkeypatch.chdir(tmp_path)
    for name in ("argparse", "json", "numpy", "random", "stamp_deploy"):
        (tmp_path / f"{name}.py").write_text(POISON)
    return tmp_path


def test_a_module_is_run_without_the_users_folder(poisoned: Path) -> None:
    done = subprocess.run(module_command("json.tool", "--help"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout
    done = subprocess.run(
        [*module_command("json.tool")[:1], "-m", "json.tool"], capture_output=True, text=True, input=""
    )
    assert "where the user stands" in done.stderr  # the poison works


def test_helpers_are_started_so() -> None:
    assert ChildProcess("some.module", "a", "b")._command == module_command("some.module", "a", "b")


def test_a_batch_runs_beside_files_that_are_named_like_modules(poisoned: Path, runner: Runner) -> None:  # noqa: F811
    write_slide(poisoned / "one.svs", texture(400, 400, 0))
    bundle = make_bundle(poisoned / "bundle", tile_px=64)
    settings = ("--engine", "onnxruntime", "--all-tiles", "-o", poisoned / "out", "--write", "json")
    done = runner("batch", poisoned / "one.svs", "--bundle", bundle, *settings)
    assert done.code == 0, done.err
