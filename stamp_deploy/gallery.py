"""The gallery of a result: pictures of the tiles that score highest and lowest, fine enough to see nuclei.

Heat maps say where a pathway is high; a pathologist wants to see what is there. The pictures are taken from the slide
while it is open (gallery_tiles.py) and travel with the result: afterwards no slide is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILES_A_SIDE = 4
"""Highest tiles and lowest tiles that are shown of a pathway."""
MAX_PATHWAYS = 12
"""Pathways that have a gallery: the first ones in the order of the maps. More would not fit a page of 8 MB."""
MIN_TISSUE = 0.5
"""Share of a tile that should be tissue. Our own choice: tiles with little tissue score differently for that alone
(Spearman of score and tissue fraction -.47 on one slide), and show little."""
ARRAYS = tuple(f"gallery/{name}" for name in ("highest", "lowest", "tiles", "jpeg", "jpeg_end", "picture", "rule"))
"""Datasets of tiles.h5."""
MAX_STORED_BYTES = 32 << 20
RULE = (
    "the 4 highest and the 4 lowest tiles, no two of them neighbours, among those that summaries count and that are at "
    "least half tissue; where these are too few, among all"
)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of some tiles.

    Attributes
    ----------
    highest, lowest : int64 [P, TILES_A_SIDE]
        Numbers of tiles, in the result's order, the most extreme first; -1 where there is none.
    tiles : int64 [M]
        The tiles whose pictures follow, ascending.
    jpeg : tuple of bytes
        One JPEG file per tile.
    side_px : int
        Width and height of a picture, pixels.
    mpp : float
        Microns per pixel of a picture, across.
    rule : str
        How tiles were chosen, in words.
    """

    highest: NDArray[np.int64]
    lowest: NDArray[np.int64]
    tiles: NDArray[np.int64]
    jpeg: tuple[bytes, ...]
    side_px: int
    mpp: float
    rule: str = RULE

    def __post_init__(self) -> None:
        known = {-1, *self.tiles.tolist()}
        if len(self.tiles) != len(self.jpeg) or not set(np.r_[self.highest, self.lowest].ravel().tolist()) <= known:
            raise ValueError("the gallery names tiles that it has no picture of")

    def to_arrays(self) -> dict[str, Any]:
        """What tiles.h5 holds, by the names of `ARRAYS`: the files one after the other, and where each ends."""
        ends = np.cumsum([len(file) for file in self.jpeg], dtype=np.int64)
        values = (
            self.highest, self.lowest, self.tiles, np.frombuffer(b"".join(self.jpeg), np.uint8), ends,
            np.array([self.side_px, self.mpp]), self.rule,
        )  # fmt: skip
        return dict(zip(ARRAYS, values, strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Gallery | None:
        """The inverse of `to_arrays`; None where the file holds no gallery.

        Raises
        ------
        ValueError
            The datasets contradict each other.
        """
        if ARRAYS[0] not in arrays:
            return None
        highest, lowest, tiles, jpeg, ends, picture, rule = (arrays[name] for name in ARRAYS)
        if len(ends) and (ends[-1] != len(jpeg) or (np.diff(ends, prepend=0) < 0).any()):
            raise ValueError("the gallery's pictures do not end where it says")
        files = tuple(jpeg[a:b].tobytes() for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        return cls(highest, lowest, tiles, files, int(picture[0]), float(picture[1]), rule.decode())


def extremes(
    scores: NDArray[np.floating],
    tissue_fraction: NDArray[np.floating],
    cells: NDArray[np.int64],
    counted: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The highest and the lowest tiles of one pathway by `RULE`, the most extreme first.

    Parameters
    ----------
    scores, tissue_fraction : float [N]
    cells : int64 [N, 2]
        (column, row) of each tile.
    counted : bool [N]
        Tiles that summaries count.

    Returns
    -------
    (int64 [H], int64 [L])
        H and L at most `TILES_A_SIDE`; no tile is in both.
    """
    usable = counted & (tissue_fraction >= MIN_TISSUE)
    if usable.sum() < 2 * TILES_A_SIDE:
        usable = counted if counted.sum() >= 2 * TILES_A_SIDE else np.ones(len(scores), bool)
    numbers = np.flatnonzero(usable)
    order = numbers[np.argsort(scores[numbers], kind="stable")]
    half = (len(order) + 1) // 2
    return _apart(order[::-1][:half], cells), _apart(order[: len(order) - half], cells)


def _apart(order: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first tiles of `order` no two of which touch; then the first of the others, where these are too few."""
    chosen: list[int] = []
    for tile in order.tolist():
        if len(chosen) == TILES_A_SIDE:
            break
        if all(np.abs(cells[tile] - cells[other]).max() > 1 for other in chosen):
            chosen.append(tile)
    rest = [tile for tile in order[: 2 * TILES_A_SIDE].tolist() if tile not in chosen]
    chosen += rest[: TILES_A_SIDE - len(chosen)]
    return np.array(sorted(chosen, key=order.tolist().index), np.int64)


def as_table(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of at most `TILES_A_SIDE` numbers as one table, filled up with -1."""
    table = np.full((len(rows), TILES_A_SIDE), -1, np.int64)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = numbers
    return table
