"""Small pictures of slides for the page, kept while a process writes one summary after another."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path

from ..atomic import DONE_MARKER
from ..result_files import TILES, read_small_thumbnail

State = tuple[int, int, int]


class Thumbnails:
    """Pictures by result folder. One that was read is kept until the folder holds another result."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[State, str]] = {}

    def of(self, folder: Path) -> str:
        """A result's picture as a small JPEG in base64; empty where it holds none."""
        facts = (folder / DONE_MARKER).stat()
        state = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        kept = self._kept.get(folder)
        if kept is None or kept[0] != state:
            kept = self._kept[folder] = (state, _thumbnail(folder / TILES))
        return kept[1]


def _thumbnail(path: Path) -> str:
    from PIL import Image

    pixels = read_small_thumbnail(path)
    if pixels is None:
        return ""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=78)
    return b64encode(file.getvalue()).decode()
