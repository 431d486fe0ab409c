"""Which level of the file serves which zoom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stamp_deploy.codecs import Coding
from stamp_deploy.slide.backends.base import levels_of_sizes
from stamp_deploy.slide.storage.index import StorageGrid, StorageIndex
from stamp_deploy.viewer.zoom_levels import PICTURE, zoom_levels


@pytest.mark.parametrize(("width", "near"), [(497, True), (488, False), (511, False), (492, True), (508, True)])
def test_a_level_within_two_percent_of_a_power_of_two_is_taken_as_it_is(width: int, near: bool) -> None:
    """Two percent of the downsample, not of a pixel: 16.1 is as near to 16 as 4.02 is to 4."""
    levels = levels_of_sizes([(8000, 6000), (1980, 1485), (width, width * 3 // 4)])
    found = zoom_levels(levels, None, (100, 75))
    by_step = {round(8000 / level.width): level for level in found}
    assert (by_step[4].width, by_step[4].source) == (1980, 1)
    assert (by_step[16].width, by_step[16].source) == ((width, 2) if near else (500, 2 if width > 500 else 1))
    assert by_step[2].source == 0 and by_step[8].source == 1
    assert found[0].source in (PICTURE, 2) and found[0].columns == found[0].rows == 1


def grid(side: tuple[int, int], coding: Coding = Coding.JPEG, *, origin_x: int = 0) -> StorageGrid:
    """The storage tiles of a level of 512 x 400 px."""
    shape = -(-400 // side[1]), -(-512 // side[0])
    places = np.full(shape, 8, np.int64)
    return StorageGrid(512, 400, *side, 6, b"", places, places, True, origin_x=origin_x, coding=coding)


@pytest.mark.parametrize(
    ("grids", "passed_on"),
    [
        ([grid((256, 128))], (256, 128)),
        ([grid((128, 1024))], (128, 1024)),
        ([grid((256, 127))], None),  # too many requests
        ([grid((1032, 256))], None),  # too much at once
        ([grid((256, 256), Coding.JPEG_2000)], None),  # no browser shows it
        ([grid((256, 256), Coding.DEFLATE)], None),
        ([grid((256, 256)), grid((256, 256), origin_x=512)], None),  # two scanned areas have two grids
        ([grid((256, 256), origin_x=64)], None),  # the grid does not start at the level's corner
    ],
)
def test_storage_tiles_are_passed_on_where_a_browser_can_use_them(
    grids: list[StorageGrid], passed_on: tuple[int, int] | None
) -> None:
    levels = levels_of_sizes([(512, 400)])
    (_, finest) = zoom_levels(levels, StorageIndex((Path("x.svs"),), (tuple(grids),)), (64, 50))
    assert finest.stored == (passed_on is not None)
    assert (finest.tile_width, finest.tile_height) == (passed_on or (256, 256))
