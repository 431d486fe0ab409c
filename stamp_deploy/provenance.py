"""Where a result comes from: software, revision and machine, as plain values for result.json."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from . import __version__

RESEARCH_USE = (
    "For research use only. Not a medical device; not for use in diagnostic procedures. "
    "Scores are predictions of a model from morphology, not measurements of gene expression."
)

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "openslide-python",
    "openslide-bin",
    "pyvips-binary",
    "pillow",
    "h5py",
    "pyarrow",
)
_REVISION = re.compile(r"[0-9a-f]{40}")


def software() -> dict[str, str]:
    """Versions of what computed the result; packages that are not installed are left out."""
    found = {
        "stamp-deploy": __version__,
        "revision": revision(),
        "python": platform.python_version(),
        "platform": platform.platform(aliased=True, terse=True),
        "machine": platform.machine(),
        "cpu_count": str(os.cpu_count() or 0),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(package: Path | None = None) -> str:
    """The source revision that runs, or "unknown".

    An environment variable STAMP_REVISION (set by image builds) comes first; in a checkout the
    revision is read from .git without running git. "unknown" is what an installed wheel says: its
    version number identifies it.
    """
    stated = os.environ.get("STAMP_REVISION", "")
    if stated:
        return stated
    git = (package or Path(__file__).resolve().parent).parent / ".git"
    try:
        if git.is_file():  # a linked worktree
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head if _REVISION.fullmatch(head) else "unknown"
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        if common.is_file():
            git = (git / common.read_text().strip()).resolve()
        loose = git / name
        if loose.is_file():
            return loose.read_text().strip()
        for line in (git / "packed-refs").read_text().splitlines():
            if line.endswith(f" {name}"):
                return line.split()[0]
    except OSError:
        pass
    return "unknown"
