"""The one folder of the user in which anything is kept: engine choices, plans, converted encoders, the font list."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """$STAMP_CACHE_DIR, else $XDG_CACHE_HOME/stamp-deploy, else ~/.cache/stamp-deploy. Not made, not checked.

    Raises
    ------
    RuntimeError
        None of them is set and the user has no home folder.
    """
    stated, base = os.environ.get("STAMP_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    return Path(stated or Path(base or Path.home() / ".cache", "stamp-deploy"))
