"""Which level of the file serves which zoom."""

from __future__ import annotations

import pytest

from stamp_deploy.slide.backends.base import levels_of_sizes
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
