"""Storage tiles that name the same bytes.

A writer may keep glass once and name it many times. Tissue is nowhere the same twice: where a file names a storage tile
of it at two places, one of them is wrong, and the slide would be scored with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import COPY_AGAIN, SlideError
from ..backends.by_storage import StorageReader
from .index import StorageGrid, StorageIndex

SAMPLES = 32
"""Storage tiles of a level that are decoded, of those that name the same bytes as another."""
MAX_GLASS_CONTRAST = 8.0
"""Standard deviation of any colour, grey levels: glass with the noise of a camera stays below."""


def check_shared_tiles(path: Path, index: StorageIndex) -> None:
    """Refuse a slide that shows the same stored picture at two places, unless it is glass.

    Raises
    ------
    SlideError
        It does.
    """
    reader = StorageReader(index, (), "", {})
    try:
        for number, grids in enumerate(index.levels):
            again = [] if isinstance(grids, str) else _named_again(grids)
            for sample in np.unique(np.linspace(0, len(again) - 1, SAMPLES).astype(int)) if again else ():
                if _is_textured(reader, number, *again[sample]):
                    raise SlideError(
                        f"names {len(again)} storage tiles of level {number} twice: tissue would be shown at the place "
                        "of other tissue",
                        path=path,
                        remedy=COPY_AGAIN,
                    )
    finally:
        reader.close()


def _named_again(grids: tuple[StorageGrid, ...]) -> list[tuple[int, int, int]]:
    """(grid, row, column) of each storage tile whose bytes another one has named before."""
    offsets = np.concatenate([grid.offsets.ravel() for grid in grids])
    files = np.concatenate([grid.files.ravel() for grid in grids])
    present = np.flatnonzero(np.concatenate([grid.sizes.ravel() for grid in grids]) > 0)
    order = present[np.lexsort((offsets[present], files[present]))]
    same = (np.diff(offsets[order]) == 0) & (np.diff(files[order]) == 0)
    begins = np.cumsum([0, *(grid.offsets.size for grid in grids)])
    found = []
    for tile in np.sort(order[1:][same]):
        grid = int(np.searchsorted(begins, tile, "right")) - 1
        row, column = divmod(int(tile - begins[grid]), grids[grid].offsets.shape[1])
        found.append((grid, row, column))
    return found


def _is_textured(reader: StorageReader, level: int, grid: int, row: int, column: int) -> bool:
    try:
        pixels = reader.tile(level, grid, row, column)
    except SlideError:
        return False  # damage is for the budget of unreadable tiles
    return float(pixels.std(axis=(0, 1)).max()) > MAX_GLASS_CONTRAST
