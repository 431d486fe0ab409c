"""The lock, the bill of materials, the hooks: they fit the project and name no place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"runtime": (), "demo": ("train", "export")}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    rows = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) == 2 * len(rows), "a line of the lock is neither a version nor its hash"
    assert "://" not in text
    return dict(rows)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_a_version_that_fits_for_everything_that_is_needed(name: str) -> None:
    versions = locked(name)
    needed = [*PROJECT["dependencies"]]
    for extra in LOCKS[name]:
        needed += PROJECT["optional-dependencies"][extra]
    for text in needed:
        wanted = Requirement(text)
        found = versions.get(canonicalize_name(wanted.name))
        assert found is not None, f"{wanted.name} is not locked: run .ci/lock"
        assert wanted.specifier.contains(found, prereleases=True), f"{wanted.name} {found} is not {wanted.specifier}"


def test_the_bill_of_materials_lists_the_locked_versions(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    target = tmp_path / "bom.json"
    command = [
        sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", str(ROOT / "pyproject.toml"),
        "--output-reproducible", "--of", "JSON", "-o", str(target), str(ROOT / "locks" / "runtime.txt"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    bill = json.loads(target.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "stamp-deploy"
    assert {part["name"]: part["version"] for part in bill["components"]} == locked("runtime")
    make = (ROOT / "Makefile").read_text()
    assert "cyclonedx-py requirements" in make and "locks/runtime.txt" in make


def test_lint_checks_the_format_and_the_hooks_fetch_nothing() -> None:
    assert "ruff format --check ." in (ROOT / "Makefile").read_text()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "repo: local" in hooks
    assert "://" not in hooks
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f"entry: .venv/bin/{tool}" in hooks


def test_the_metadata_names_every_python_that_other_pythons_tries() -> None:
    newest = re.search(r"^NEWEST_TRIED = (\d+)$", (ROOT / ".ci" / "other-pythons").read_text(), re.MULTILINE)
    assert newest is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name]
    assert named == [f"3.{minor}" for minor in range(11, int(newest[1]) + 1)]
    assert project["requires-python"] == f">={named[0]}"
