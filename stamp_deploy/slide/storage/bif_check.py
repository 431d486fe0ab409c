"""Whether what a Ventana BIF says of its storage tiles agrees with its pages and with itself.

OpenSlide takes much of it as it stands: an area that lies beyond its page ends the process, and one whose rows are
counted wrong shows storage tiles in the places of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bif_layout import Area


class ContradictionError(ValueError):
    """What a file says contradicts itself; the text holds nothing of the file but numbers."""


def check_areas(areas: Sequence[Area], size_px: tuple[int, int], tile_px: tuple[int, int]) -> None:
    """Hold the parts that scanned areas take of a page against the page and each other.

    Parameters
    ----------
    areas : sequence of Area
    size_px, tile_px : (int, int)
        Width and height of the page and of its storage tiles, pixels.

    Raises
    ------
    ContradictionError
        An area reaches beyond the page, or two share a storage tile.
    """
    columns, rows = (-(-size // side) for size, side in zip(size_px, tile_px, strict=True))
    for number, area in enumerate(areas):
        if area.column + area.across > columns or area.row + area.down > rows:
            raise ContradictionError(f"scanned area {number} lies beyond its page of {columns} x {rows} storage tiles")
        if any(_share(area, other) for other in areas[:number]):
            raise ContradictionError(f"scanned area {number} shares storage tiles with another")


def _share(a: Area, b: Area) -> bool:
    across = a.column < b.column + b.across and b.column < a.column + a.across
    return across and a.row < b.row + b.down and b.row < a.row + a.down


def check_joint(area: Area, number_1: int, number_2: int, *, is_across: bool) -> None:
    """Hold a joint against the numbers of the two storage tiles that it joins: they must be neighbours.

    Raises
    ------
    ContradictionError
        The area has no such storage tile, or they do not lie side by side, or above each other.
    """
    (column_1, row_1), (column_2, row_2) = (_place(area, number) for number in (number_1, number_2))
    apart = abs(column_1 - column_2), abs(row_1 - row_2)
    if apart != ((1, 0) if is_across else (0, 1)):
        raise ContradictionError(f"it joins storage tiles {number_1} and {number_2}, which are no such neighbours")


def _place(area: Area, number: int) -> tuple[int, int]:
    """(column, row) of a storage tile: counted from 1, row by row from below, every other row from right to left."""
    if not 1 <= number <= area.across * area.down:
        raise ContradictionError(f"an area of {area.across} x {area.down} storage tiles has no number {number}")
    row, column = divmod(number - 1, area.across)
    return (area.across - 1 - column if row % 2 else column), row


def check_levels(sizes_px: Iterable[tuple[int, int]], downsamples: Iterable[float], tile_px: tuple[int, int]) -> None:
    """Hold the sizes of pages, which are padded to whole storage tiles, against the magnifications that they state.

    Raises
    ------
    ContradictionError
        A page is larger or smaller than its magnification says.
    """
    sizes = list(sizes_px)
    for number, (size, scale) in enumerate(zip(sizes, downsamples, strict=True)):
        for side, full, tile in zip(size, sizes[0], tile_px, strict=True):
            if abs(side * scale - full) > tile * scale:
                raise ContradictionError(
                    f"level {number} has {size[0]} x {size[1]} px, and is reduced by {scale:.4g} by its magnification"
                )
