"""A slide as a scanner sends it, and its result with DICOM objects, scored by the command."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .archive_slide import SMALL, ScannedSlide, scan
from .position_slide import position_bundle

WRITERS = "json,hdf5,dicom-pmap,dicom-seg,dicom-sr"
SCORING = ("--engine", "onnxruntime", "--write", WRITERS, "--all-tiles")


@dataclass(frozen=True)
class Scored:
    """A slide, the bundle, and the folder of the result."""

    slide: ScannedSlide
    bundle: Path
    result: Path

    @property
    def objects(self) -> list[Path]:
        return sorted((self.result / "dicom").glob("*.dcm"))


def score(folder: Path) -> Scored:
    """Scan and score slide 1 in a folder."""
    slide = scan(folder / "scanned", 1)
    bundle = position_bundle(folder / "bundle", SMALL)
    words = ["infer", str(slide.levels[0]), "--bundle", str(bundle), "-o", str(folder / "result"), *SCORING]
    subprocess.run([sys.executable, "-m", "stamp_deploy.cli", *words], check=True, capture_output=True, timeout=120)
    return Scored(slide, bundle, folder / "result")
