"""A copy of the checkout for tests to run in, and the environment that they run with; the standard library alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from real_slides import DATA, ROOT


def copy_checkout(place: Path) -> None:
    """Copy what git tracks, as it lies in the working tree, links as links."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name, follow_symlinks=False)


def environment() -> dict[str, str]:
    """One thread per library, and the data where tests/conftest.py looks for them beside the real checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "STAMP_TEST_DATA": str(DATA)}
