"""The real slides that are measured, and large ones that make_wsi.py makes of their JPEG tiles.

They are found as the tests find theirs: STAMP_TEST_DATA, or shared/data beside the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STAMP_TEST_DATA", ROOT.parent / "shared" / "data"))
SMALL_REGION = Path("slides", "CMU-1-Small-Region.svs")
"""Of the data: the slide whose JPEG tiles the large ones hold."""


def make_slide(
    path: Path, tiles: str, *, tissue: float = 0.5, recode: str | None = None, seed: int = 0, data: Path = DATA
) -> Path:
    """A slide of make_wsi.py at 0.25 um/px, so many storage tiles as "200x160" says; returns its path.

    Raises
    ------
    SystemExit
        The data are not there.
    """
    script, source = data.parent / "tools" / "make_wsi.py", data / SMALL_REGION
    if not (script.is_file() and source.is_file()):
        raise SystemExit(f"{source} and {script} are needed; name the folder of test data by STAMP_TEST_DATA")
    command = [sys.executable, script, source, path, "--tiles", tiles, "--tissue", tissue, "--mpp", 0.25]
    command += ["--seed", seed]
    if recode:
        command += ["--recode", recode]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return path
