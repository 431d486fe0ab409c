"""What every reader of slide files offers to slide.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import SlideError


class UnknownFormatError(SlideError):
    """A reader does not know the file's format; another one may."""


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: its size in its own pixels and its downsample against level 0."""

    index: int
    width: int
    height: int
    downsample_x: float
    downsample_y: float


def levels_of_sizes(sizes: Iterable[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels that all show the whole of the first one: their widths and heights give their downsamples."""
    (width, height), *coarser = sizes
    return (
        Level(0, width, height, 1.0, 1.0),
        *(Level(i, w, h, width / w, height / h) for i, (w, h) in enumerate(coarser, 1)),
    )


class Backend(Protocol):
    """An open slide file.

    `read` takes a position in level-0 pixels and a size in the level's pixels, and returns uint8
    [h, w, 3] RGB, white beyond the image. It raises SlideError when the file cannot be decoded there,
    and stays usable. One thread at a time. `forget` drops decoded pixels that it keeps. `transparent` tells of
    the last read where the file holds nothing, bool [h, w]; None where it holds all, or the reader cannot tell.
    """

    name: str
    vendor: str
    levels: tuple[Level, ...]
    properties: dict[str, str]
    transparent: NDArray[np.bool_] | None

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]: ...

    def forget(self) -> None: ...

    def close(self) -> None: ...
