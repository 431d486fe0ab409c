"""What an independent validator says of a DICOM object."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def complaints(path: Path) -> list[str]:
    """Errors that dciodvfy finds in an object."""
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy found: apt-get install dicom3tools")
    said = subprocess.run([validator, path], capture_output=True, text=True, check=False).stderr
    return [line for line in said.splitlines() if line.startswith("Error")]
