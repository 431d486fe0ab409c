"""What a benchmark imports in the middle of a run is there, so that it does not end after minutes of measuring."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_OURS = {"cosmic_ray", "fastslide", "hs2p", "pyucell", "tiffslide", "wsidicom"}
"""Packages that a benchmark compares with or works by, and that need not be installed for the tests."""


def imports(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import in a file, in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, tuple(alias.name for alias in node.names)


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda file: file.stem)
def test_every_module_and_name_that_a_benchmark_imports_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [entry for entry in sys.path if not entry.startswith(str(ROOT / "tests"))]  # pytest's own are not there
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), str(ROOT / "tests"), *others])
    wanted = list(imports(file))
    assert wanted
    for module, names in wanted:
        top = module.split(".")[0]
        if top in NOT_OURS:
            continue
        if top in ("stamp_deploy", "support") or (ROOT / "benchmarks" / f"{top}.py").exists():
            found = importlib.import_module(module)
            missing = [name for name in names if not hasattr(found, name)]
            for name in missing:
                importlib.import_module(f"{module}.{name}")
        else:
            assert importlib.util.find_spec(top) is not None, f"{file.name} imports {module}"
