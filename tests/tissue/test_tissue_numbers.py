"""Every number of the tissue rule at its edge: islands and holes, inks, dark, white, thresholds, fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.tissue import TissueMask, TissueRule, find_tissue, find_tissue_in, tissue
from stamp_deploy.tissue.components import BAND_ROWS, areas, dilate, drop_small, some_of
from stamp_deploy.tissue.faint import FaintTissue, _grown, _own_threshold, _stands_out, find_faint
from stamp_deploy.tissue.ink import find_ink, ink_hues

GLASS, STAIN = (243, 243, 243), (200, 120, 170)
SHARP = TissueRule(blur_um=0.01, close_um=0.0)
"""No blur and no closing: what is left are sizes and thresholds."""


def glass(height: int = 200, width: int = 300) -> NDArray[np.uint8]:
    return np.tile(np.array(GLASS, np.uint8), (height, width, 1))


def test_the_defaults_are_the_documented_ones() -> None:
    """A bundle without a rule is scored by these: a change would change every result."""
    assert TissueRule().to_dict() == {
        "method": "saturation-otsu", "min_fraction": 0.25, "mask_mpp": 8.0, "max_px": 4096, "min_saturation": 0.06,
        "max_saturation": 0.25, "blur_um": 8.0, "close_um": 24.0, "min_object_um": 80.0, "min_hole_um": 80.0,
        "exclude_ink": True,
    }  # fmt: skip


# Islands and holes: a square of n x n pixels is kept from the area of the disk on.


@pytest.mark.parametrize("mpp", [4.0, 8.0])
@pytest.mark.parametrize("diameter_um", [80.0, 120.0])
def test_islands_are_kept_from_the_area_of_their_disk_on(mpp: float, diameter_um: float) -> None:
    """80 um at 8 um/px: a disk of 78.5 pixels, so 8 x 9 pixels are dropped and 8 x 10 stay."""
    rule = TissueRule(blur_um=0.01, close_um=0.0, min_object_um=diameter_um, min_hole_um=0.0)
    area = np.pi / 4 * (diameter_um / mpp) ** 2
    side = int(np.sqrt(area))
    enough = int(np.ceil(area / side))
    for width, kept in ((enough - 1, False), (enough, True)):
        rgb = glass()
        rgb[50 : 50 + side, 60 : 60 + width] = STAIN
        mask, _ = find_tissue_in(rgb, rule, mpp=mpp)
        assert mask.sum() == kept * side * width


@pytest.mark.parametrize("mpp", [4.0, 8.0])
@pytest.mark.parametrize("diameter_um", [80.0, 120.0])
def test_holes_are_filled_below_the_area_of_their_disk(mpp: float, diameter_um: float) -> None:
    rule = TissueRule(blur_um=0.01, close_um=0.0, min_object_um=0.0, min_hole_um=diameter_um)
    area = np.pi / 4 * (diameter_um / mpp) ** 2
    side = int(np.sqrt(area))
    enough = int(np.ceil(area / side))
    for width, filled in ((enough - 1, True), (enough, False)):
        rgb = glass()
        rgb[20:180, 30:270] = STAIN
        rgb[80 : 80 + side, 90 : 90 + width] = GLASS
        mask, _ = find_tissue_in(rgb, rule, mpp=mpp)
        assert mask[80 : 80 + side, 90 : 90 + width].all() == filled
        assert (~mask[20:180, 30:270]).sum() == (not filled) * side * width


def test_islands_and_holes_have_their_own_sizes() -> None:
    rgb = glass()
    rgb[20:180, 30:200] = STAIN
    rgb[80:90, 90:100] = GLASS  # a hole of 100 pixels
    rgb[80:90, 250:260] = STAIN  # an island of 100 pixels
    for objects, holes, island, hole in ((80, 120, True, True), (120, 80, False, False)):
        rule = TissueRule(blur_um=0.01, close_um=0.0, min_object_um=objects, min_hole_um=holes)
        mask, _ = find_tissue_in(rgb, rule)
        assert (mask[80:90, 250:260].all(), mask[80:90, 90:100].all()) == (island, hole)


@pytest.mark.parametrize(("gap", "closed"), [(5, True), (6, True), (7, False)])
def test_gaps_up_to_twice_the_closing_radius_are_closed(gap: int, closed: bool) -> None:
    """24 um at 8 um/px: three pixels from each side."""
    rule = TissueRule(blur_um=0.01, min_object_um=0, min_hole_um=0)
    rgb = glass()
    rgb[20:180, 30:100] = STAIN
    rgb[20:180, 100 + gap : 200] = STAIN
    mask, _ = find_tissue_in(rgb, rule, mpp=8.0)
    assert mask[20:180, 30:200].all() == closed
    assert not mask[:17].any()  # nothing grows outwards
    assert not mask[20:180, :30].any()


def test_closing_does_not_reach_in_from_the_edge_of_the_picture() -> None:
    rule = TissueRule(blur_um=0.01, min_object_um=0, min_hole_um=0)
    rgb = glass()
    rgb[10:, 3:] = STAIN
    mask, _ = find_tissue_in(rgb, rule, mpp=8.0)
    assert not mask[:, :3].any()
    assert not mask[:10].any()


def test_pieces_are_joined_by_sides_and_counted_over_bands() -> None:
    """Corners do not join; and a piece that crosses the bands in which areas are counted is one piece."""
    mask = np.zeros((400, 20), bool)
    mask[100:300, 5] = True
    mask[300:304, 6:10] = True  # touches by its corner
    np.testing.assert_array_equal(np.flatnonzero(drop_small(mask, 17).any(0)), [5])
    np.testing.assert_array_equal(drop_small(mask, 16), mask)
    np.testing.assert_array_equal(drop_small(mask, 200)[:, 5], mask[:, 5])
    assert not drop_small(mask, 201).any()
    assert not drop_small(np.zeros((3, 3), bool), 1).any()
    labels = np.zeros((400, 20), np.int32)
    labels[100:300, 5], labels[300:304, 6:10] = 1, 2
    assert areas(labels, 3).tolist() == [8000 - 216, 200, 16, 0]
    where = np.zeros(labels.shape, bool)
    where[:150] = True
    assert areas(labels, 3, where).tolist() == [150 * 20 - 50, 50, 0, 0]


def test_growing_by_a_radius_reaches_sides_and_corners() -> None:
    mask = np.zeros((11, 11), bool)
    mask[5, 5] = True
    for radius in (1, 3):
        expected = np.zeros((11, 11), bool)
        expected[5 - radius : 6 + radius, 5 - radius : 6 + radius] = True
        np.testing.assert_array_equal(dilate(mask, radius), expected)


# Dark, white, and the bounds of the threshold.


@pytest.mark.parametrize(("top", "kept"), [(38, False), (42, True)])
def test_what_is_darker_than_40_is_no_tissue_whatever_its_hue(top: int, kept: bool) -> None:
    rgb = glass()
    rgb[50:150, 50:150] = (top, top // 2, top * 8 // 10)
    rule = TissueRule(blur_um=0.01, close_um=0.0, exclude_ink=False)
    mask, _ = find_tissue_in(rgb, rule)
    assert mask[60:140, 60:140].all() == kept
    assert mask.any() == kept


@pytest.mark.parametrize("colour", [(38, 19, 30), (0, 0, 0), (20, 160, 90)])
def test_holes_of_what_is_dark_or_ink_are_not_filled(colour: tuple[int, int, int]) -> None:
    rgb = glass()
    rgb[50:150, 50:150] = STAIN
    rgb[98:102, 98:102] = colour
    mask, _ = find_tissue_in(rgb, TissueRule(blur_um=0.01, min_hole_um=300.0), mpp=8.0)
    assert not mask[98:102, 98:102].any()
    assert mask[60:90, 60:140].all()


def saturated(share: float, top: int = 240) -> tuple[int, int, int]:
    """A pink of that HSV saturation."""
    low = round(top * (1 - share))
    return top, low, (top + low) // 2


@pytest.mark.parametrize(("share", "kept"), [(0.05, False), (0.07, True)])
def test_nothing_below_the_floor_is_tissue(share: float, kept: bool) -> None:
    rgb = glass()
    rgb[50:150, 50:150] = saturated(share)
    mask, threshold = find_tissue_in(rgb, SHARP)
    assert threshold >= 0.06
    assert mask[50:150, 50:150].all() == kept


def test_the_threshold_stays_within_its_bounds() -> None:
    rgb = glass()
    rgb[:, :150], rgb[:, 150:] = saturated(0.3), saturated(0.8)
    mask, threshold = find_tissue_in(rgb, SHARP)
    assert threshold == 0.25
    assert mask.all()
    assert find_tissue_in(glass(), TissueRule(min_saturation=0.1, max_saturation=0.2))[1] == 0.2


def test_otsus_threshold_lies_half_way_between_two_values() -> None:
    """Two clusters of one value each: every cut between them is best, and the middle is taken."""
    values = np.repeat(np.float32([0.1, 0.5]), 500).reshape(10, 100)
    everywhere = np.ones(values.shape, bool)
    assert tissue._otsu(values, everywhere) == pytest.approx(0.3, abs=1 / 256)
    assert tissue._otsu(values[:5], everywhere[:5]) == 1.0
    assert tissue._otsu(values, ~everywhere) == 1.0
    assert tissue._otsu(values, values < 0.2) == 1.0


def test_otsu_counts_every_band_of_rows() -> None:
    """Bands of 128 rows: what only the second or third one holds counts, too."""
    values = np.full((384, 50), 0.1, np.float32)
    everywhere = np.ones(values.shape, bool)
    for rows in (slice(128, 256), slice(256, 384), slice(0, 128)):
        one = values.copy()
        one[rows] = 0.5
        assert tissue._otsu(one, everywhere) == pytest.approx(0.3, abs=1 / 256)


def test_otsu_agrees_with_the_definition() -> None:
    """The cut that maximises the variance between the classes, tried one by one."""
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(0.08, 0.02, 9000), rng.normal(0.4, 0.1, 3000)]).clip(0, 1).astype(np.float32)
    centres = (np.clip(np.floor(values * 256), 0, 255) + 0.5) / 256
    best = max(
        (
            (low := centres[centres < cut / 256]).size
            * (high := centres[centres > cut / 256]).size
            * (low.mean() - high.mean()) ** 2,
            cut / 256,
        )
        for cut in range(2, 255)
        if (centres < cut / 256).any() and (centres > cut / 256).any()
    )[1]
    found = tissue._otsu(values.reshape(400, 30), np.ones((400, 30), bool))
    assert found == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("white", "balanced"),
    [((240, 234, 222), True), ((182, 181, 180), True), ((179, 179, 179), False), ((240, 230, 214), False)],
)
def test_white_is_made_grey_where_it_can_be_glass(white: tuple[int, int, int], balanced: bool) -> None:
    """Bright enough (180) and hardly coloured (10 %); the brightest percent decides, its median colour."""
    rgb = np.full((200, 200, 3), 120, np.uint8)
    rgb[1:10:2] = white  # 2.5 %: glass may be little; a small picture is looked at pixel by pixel
    gains = tissue._white_balance(rgb)
    expected = max(white) / np.array(white) if balanced else np.ones(3)
    np.testing.assert_allclose(gains, expected, rtol=1e-6)


# Ink, hue by hue: the bits are cool core, cool halo, warm core, warm halo, black.

CORE_COOL, HALO_COOL, CORE_WARM, HALO_WARM, BLACK = 1, 2, 4, 8, 16


@pytest.mark.parametrize(
    ("colour", "bits"),
    [
        # green ink, and how far green must stand above red
        ((20, 160, 90), CORE_COOL | HALO_COOL),
        ((150, 168, 140), HALO_COOL),  # 18 above, but pale
        ((100, 109, 80), HALO_COOL),  # 9 above red: the halo alone
        ((100, 108, 80), 0),  # 8 above red: no ink
        ((90, 106, 70), HALO_COOL),  # 16 above is no core yet
        ((90, 107, 70), CORE_COOL | HALO_COOL),
        # blue ink: green within 25 of blue, or blue 25 above red
        ((100, 120, 144), CORE_COOL | HALO_COOL),
        ((120, 130, 155), HALO_COOL),
        ((120, 129, 145), HALO_COOL),
        # haematoxylin: red above green, however blue
        ((120, 80, 150), 0),
        ((90, 95, 150), 0),
        # saturation of the halo: above 0.12
        ((176, 200, 190), 0),
        ((175, 200, 190), HALO_COOL),
        # saturation of the core: above 0.25
        ((150, 200, 170), 0 | HALO_COOL),
        ((149, 200, 170), CORE_COOL | HALO_COOL),
        # red ink: blue as low as green
        ((220, 40, 45), CORE_WARM | HALO_WARM),
        ((220, 45, 40), CORE_WARM | HALO_WARM),
        ((110, 20, 22), HALO_WARM),  # too dark for the core
        ((111, 20, 22), CORE_WARM | HALO_WARM),
        ((200, 100, 112), HALO_WARM),  # blue 12 % of the span above green
        ((200, 100, 111), CORE_WARM | HALO_WARM),
        ((200, 100, 136), 0),  # blue 36 % of the span above green: eosin
        ((200, 100, 135), HALO_WARM),
        ((200, 120, 121), HALO_WARM),  # 40 % below red is no core
        ((200, 112, 110), HALO_WARM),  # saturation 0.45
        ((200, 109, 109), CORE_WARM | HALO_WARM),
        ((100, 92, 92), 0),  # 8 below red
        ((100, 91, 91), HALO_WARM),
        # black ink: below 90 and grey
        ((89, 70, 89), BLACK),
        ((89, 89, 89), BLACK),
        ((60, 50, 89), 0),  # a dark nucleus has a colour
        ((90, 90, 90), 0),
        ((89, 67, 89), BLACK),
        ((88, 66, 88), 0),  # saturation 0.25
    ],
)
def test_the_hues_of_ink_at_their_edges(colour: tuple[int, int, int], bits: int) -> None:
    red, green, blue = (np.full((1, 1), value, np.float32) for value in colour)
    saturation = np.full((1, 1), (max(colour) - min(colour)) / max(colour), np.float32)
    assert int(ink_hues(red, green, blue, saturation)[0, 0]) == bits


@pytest.mark.parametrize("mpp", [4.0, 8.0])
def test_ink_takes_its_halo_for_160_microns_and_a_border_of_24(mpp: float) -> None:
    """A stroke in the middle of a row that is all halo: grown by 160 um within it, then by 24 um to every side."""
    steps, border = round(160 / mpp), round(24 / mpp)
    hues = np.zeros((41, 201), np.uint8)
    hues[20] = HALO_COOL
    hues[18:23, 98:103] = CORE_COOL | HALO_COOL
    ink = find_ink(hues, mpp)
    columns = np.flatnonzero(ink[20])
    assert (columns[0], columns[-1]) == (98 - steps - border, 102 + steps + border)
    rows = np.flatnonzero(ink[:, 100])
    assert (rows[0], rows[-1]) == (18 - border, 22 + border)


def test_each_ink_spreads_in_its_own_halo_alone_and_specks_are_none() -> None:
    hues = np.zeros((41, 201), np.uint8)
    hues[20] = HALO_WARM
    hues[18:23, 98:103] = CORE_COOL | HALO_COOL
    columns = np.flatnonzero(find_ink(hues, 8.0)[20])
    assert (columns[0], columns[-1]) == (98 - 3, 102 + 3)
    hues[18:23, 98:103] = CORE_WARM | HALO_WARM
    columns = np.flatnonzero(find_ink(hues, 8.0)[20])
    assert (columns[0], columns[-1]) == (98 - 20 - 3, 102 + 20 + 3)
    hues[18:23, 98:103] = BLACK
    columns = np.flatnonzero(find_ink(hues, 8.0)[20])
    assert (columns[0], columns[-1]) == (98 - 3, 102 + 3)
    speck = np.zeros((41, 201), np.uint8)
    speck[20, 100:102] = BLACK  # no stroke: thinner than a cross of three
    assert not find_ink(speck, 8.0).any()


def test_coarse_pictures_still_have_a_halo_and_a_border_of_two_pixels() -> None:
    hues = np.zeros((41, 201), np.uint8)
    hues[20] = HALO_COOL
    hues[18:23, 98:103] = CORE_COOL | HALO_COOL
    columns = np.flatnonzero(find_ink(hues, 500.0)[20])
    assert (columns[0], columns[-1]) == (98 - 2 - 2, 102 + 2 + 2)


def test_ink_is_left_out_of_the_mask_or_kept_by_the_rule() -> None:
    rgb = glass()
    rgb[50:150, 50:250] = STAIN
    rgb[80:120, 100:140] = (20, 160, 90)
    without, _ = find_tissue_in(rgb, TissueRule())
    assert not without[80:120, 100:140].any()
    assert without[60:140, 180:240].all()
    with_ink, _ = find_tissue_in(rgb, TissueRule(exclude_ink=False))
    assert with_ink[60:140, 60:240].all()


# Faint sections: the arithmetic of their threshold.


def of(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("values", "around", "expected"),
    [
        (of(0.071, 0.071, 0.2), of(0.04), True),  # 0.031 above the glass
        (of(0.069, 0.069, 0.2), of(0.04), False),
        # glass of spread 0.02 (median deviation; times 1.4826): 0.089 are needed
        (of(0.13), of(0.02, 0.04, 0.06), True),
        (of(0.128), of(0.02, 0.04, 0.06), False),
        (of(0.01), of(), True),
    ],
)
def test_a_piece_stands_out_from_the_glass_around_it(
    values: NDArray[np.float32], around: NDArray[np.float32], expected: bool
) -> None:
    assert _stands_out(values, around) is expected


@pytest.mark.parametrize(
    ("values", "around", "expected"),
    [
        (of(0.1, 0.16, 0.9), of(0.04), 0.1),
        (of(0.16), of(), 0.08),
        (of(0.07), of(0.01), 0.06),  # never below the floor
        (of(0.6), of(0.1), 0.2),  # never above the slide's
    ],
)
def test_its_threshold_lies_half_way_to_the_glass(
    values: NDArray[np.float32], around: NDArray[np.float32], expected: float
) -> None:
    assert _own_threshold(values, around, 0.06, 0.2) == pytest.approx(expected)


def test_a_window_grows_to_every_side_within_the_picture() -> None:
    assert _grown((slice(10, 20), slice(5, 8)), 3, (100, 50)) == (slice(7, 23), slice(2, 11))
    assert _grown((slice(1, 99), slice(2, 49)), 3, (100, 50)) == (slice(0, 100), slice(0, 50))


# The mask on the slide.


class Sized:
    """A slide of plain colour that notes which thumbnail it was asked for."""

    def __init__(self, width: int, height: int, mpp: tuple[float, float], shape: tuple[int, int]) -> None:
        self.width, self.height, self.mpp_xy, self.shape = width, height, mpp, shape
        self.damage: tuple[tuple[int, int, int, int], ...] = ()
        self.asked = 0

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        self.asked = max_px
        rgb = glass(*self.shape)
        rgb[:, : self.shape[1] // 2] = STAIN
        return rgb


@pytest.mark.parametrize(
    ("width", "height", "mpp", "expected"),
    [
        (16000, 8000, (0.5, 0.5), 1000),
        (8000, 16000, (0.5, 0.5), 1000),
        (8000, 8000, (0.5, 0.25), 500),
        (8000, 8000, (0.25, 0.5), 500),
        (200_000, 100, (0.5, 0.5), 4096),
        (4, 4, (0.5, 0.5), 1),
    ],
)
def test_the_thumbnail_has_the_rules_resolution_along_the_longest_side(
    width: int, height: int, mpp: tuple[float, float], expected: int
) -> None:
    slide = Sized(width, height, mpp, (50, 100))
    find_tissue(slide, TissueRule())
    assert slide.asked == expected


def test_a_mask_knows_its_scales_its_share_and_its_rule() -> None:
    slide = Sized(16000, 4000, (0.5, 0.5), (50, 100))
    found = find_tissue(slide, SHARP)
    assert (found.scale_x, found.scale_y) == (160, 80)
    assert found.fraction == 0.5
    assert found.rule is SHARP
    assert found.mask[:, :50].all()
    assert not found.mask[:, 50:].any()


def test_sizes_are_judged_at_the_mean_resolution_of_both_directions() -> None:
    """A mask pixel of 4 x 12 um counts as 8 um: an island of 80 pixels stays, one of 78 does not."""
    for width, kept in ((10, True), (9, False)):
        slide = Sized(4000, 12000, (0.2, 0.2), (200, 200))
        rgb = glass(200, 200)
        rgb[20:28, 20 : 20 + width] = STAIN
        slide.thumbnail = lambda max_px, rgb=rgb: rgb  # type: ignore[method-assign]
        assert find_tissue(slide, TissueRule(blur_um=0.01, close_um=0)).mask.any() == kept


def test_damage_counts_as_tissue_so_that_its_tiles_are_tried() -> None:
    slide = Sized(16000, 4000, (0.5, 0.5), (50, 100))
    slide.damage = ((12800, 800, 1600, 800),)
    mask = find_tissue(slide, SHARP).mask
    expected = np.zeros((50, 100), bool)
    expected[:, :50] = True
    expected[10:21, 80:91] = True
    np.testing.assert_array_equal(mask, expected)


def test_fractions_of_tiles_that_are_no_squares_of_the_mask() -> None:
    """Mask pixels of 10 x 20 level-0 pixels, tiles of 25 x 30: against areas counted pixel by pixel."""
    mask = np.random.default_rng(3).random((8, 12)) > 0.5
    level0 = np.kron(mask, np.ones((20, 10)))
    found = TissueMask(mask, 10.0, 20.0, TissueRule(), 0.1, float(mask.mean()))
    coords = np.array([[0, 0], [25, 0], [0, 50], [33, 71], [95, 110], [119, 159], [117, 3]])
    expected = [level0[y : y + 30, x : x + 25].sum() / (25 * 30) for x, y in coords]
    fractions = found.tile_fractions(coords, 25, 30)
    assert fractions.dtype == np.float32
    np.testing.assert_allclose(fractions, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("left", "fraction", "told"),
    [(0.0011, 0.0, True), (0.001, 0.0, False), (0.0251, 0.5, True), (0.025, 0.5, False), (0.0, 0.0, False)],
)
def test_what_was_left_is_told_from_a_share_of_the_slide_or_of_its_tissue_on(
    left: float, fraction: float, told: bool
) -> None:
    mask = TissueMask(np.zeros((2, 2), bool), 1, 1, TissueRule(), 0.1234, fraction, 0, left)
    assert bool(mask.notes) == told
    if told:
        assert mask.notes[0].startswith(f"{left:.1%} of the slide")
        assert "0.123" in mask.notes[0]


def test_faint_sections_are_counted_in_a_note_of_their_own() -> None:
    notes = TissueMask(np.zeros((2, 2), bool), 1, 1, TissueRule(), 0.1, 0.5, 2, 0.3).notes
    assert len(notes) == 2
    assert notes[0].endswith("2 pieces of tissue")


def test_a_mask_has_nothing_to_tell_by_default() -> None:
    assert TissueMask(np.zeros((2, 2), bool), 1, 1, TissueRule(), 0.1, 0.5).notes == ()


def faint(saturation: NDArray[np.float32], **changes: Any) -> FaintTissue:
    """At 8 um/px, with a threshold of 0.2 and objects of 10 pixels."""
    given: dict[str, Any] = {"usable": np.ones(saturation.shape, bool), "stained": np.ones(saturation.shape, bool)}
    given |= {"threshold": 0.2, "floor": 0.06, "object_px": 10.0, "mpp": 8.0}
    return find_faint(saturation, **{**given, **changes})


def two_sections(weak: float) -> NDArray[np.float32]:
    """A strong section, and one of 50 x 60 pixels at (60, 150), over glass of 0.01."""
    saturation = np.full((160, 300), 0.01, np.float32)
    saturation[20:80, 20:80] = 0.8
    saturation[60:110, 150:210] = weak
    return saturation


def test_a_weak_section_below_the_threshold_is_taken_whole() -> None:
    found = faint(two_sections(0.15))
    assert found.sections == 1
    expected = np.zeros((160, 300), bool)
    expected[60:110, 150:210] = True
    # opening takes its corners off
    assert (found.mask ^ expected).sum() <= 4
    assert not found.left.any()


@pytest.mark.parametrize(("rows", "sections"), [(4, 0), (6, 1)])
def test_a_section_nine_tenths_of_which_were_found_is_not_looked_at_again(rows: int, sections: int) -> None:
    """Of its 50 rows, 4 (8 %) or 6 (12 %) lie below the threshold."""
    saturation = two_sections(0.3)
    saturation[60 : 60 + rows, 150:210] = 0.16
    found = faint(saturation)
    assert found.sections == sections
    assert found.mask[62:64, 160:200].all() == bool(sections)


@pytest.mark.parametrize(("weak", "sections"), [(0.55, 1), (0.65, 0)])
def test_a_section_at_three_quarters_of_the_strongest_is_not_faint(weak: float, sections: int) -> None:
    """0.6 is three quarters of 0.8."""
    saturation = two_sections(weak)
    saturation[60:72, 150:210] = 0.1
    assert faint(saturation).sections == sections


@pytest.mark.parametrize(("side", "sections"), [(10, 0), (13, 1)])
def test_a_faint_section_is_larger_than_dust(side: int, sections: int) -> None:
    """A disk of 1.25 times the smallest object: 122.7 pixels; opening takes 4 corners."""
    saturation = two_sections(0.01)
    saturation[60 : 60 + side, 150 : 150 + side] = 0.15
    found = faint(saturation)
    assert found.sections == sections


def test_what_is_not_stained_is_left_and_measured() -> None:
    stained = np.ones((160, 300), bool)
    stained[60:110, 150:210] = False
    found = faint(two_sections(0.15), stained=stained)
    assert (found.sections, found.mask.any()) == (0, False)
    assert found.left[65:105, 155:205].all()
    half = np.ones((160, 300), bool)
    half[60:86, 150:210] = False  # 52 % of it
    assert faint(two_sections(0.15), stained=half).sections == 0
    half[60:86] = True
    half[60:82, 150:210] = False  # 44 %
    assert faint(two_sections(0.15), stained=half).sections == 1


@pytest.mark.parametrize(("glass_level", "weak", "left"), [(0.05, 0.07, False), (0.05, 0.09, True), (0.03, 0.07, True)])
def test_what_is_left_exceeds_the_glass_by_three_hundredths(glass_level: float, weak: float, left: bool) -> None:
    saturation = two_sections(weak)
    saturation[saturation == np.float32(0.01)] = glass_level
    found = faint(saturation, stained=np.zeros(saturation.shape, bool))
    assert found.left.any() == left


def test_what_lies_within_120_microns_of_tissue_is_its_edge() -> None:
    """15 pixels to every side at 8 um/px."""
    nothing = np.zeros((160, 300), bool)
    for gap, left in ((14, False), (17, True)):
        saturation = two_sections(0.01)
        saturation[20:80, 80 + gap : 80 + gap + 1] = 0.15
        saturation[20:80, 80 + gap : 82 + gap + 15] = 0.15
        found = faint(saturation, stained=nothing)
        assert found.left[30:70, 80 + gap].any() == left


def test_where_all_is_tissue_nothing_is_looked_for() -> None:
    found = faint(np.full((50, 60), 0.5, np.float32), threshold=0.06)
    assert (found.sections, found.mask.any(), found.left.any()) == (0, False, False)
    found = faint(np.zeros((50, 60), np.float32))
    assert (found.sections, found.mask.any(), found.left.any()) == (0, False, False)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(16000, 8012, (501, 1000)), (8012, 16000, (1000, 501)), (16000, 8004, (500, 1000)), (9, 3, (1, 1))],
)
def test_the_shape_of_the_mask_is_known_before_it_is_made(width: int, height: int, shape: tuple[int, int]) -> None:
    """At 0.5 um/px and 8 um a mask pixel, 16 level-0 pixels a side, rounded to the next whole number."""
    assert tissue.mask_shape(Sized(width, height, (0.5, 0.5), (2, 2)), TissueRule()) == shape


@pytest.mark.parametrize("most", [1, 7, 100, 1000, 10**6])
def test_some_of_the_values_are_every_nth_of_all_bands_together(most: int) -> None:
    draw = np.random.default_rng(most)
    values = draw.random((2 * BAND_ROWS + 9, 11)).astype(np.float32)
    where = draw.random(values.shape) < 0.3
    where[BAND_ROWS : 2 * BAND_ROWS] = False  # a band without any
    expected = values[where][:: max(1, where.sum() // most)]
    np.testing.assert_array_equal(some_of(values, where, most), expected)
    assert not len(some_of(values, np.zeros_like(where), most))


def test_small_pieces_are_dropped_in_every_band() -> None:
    mask = np.zeros((3 * BAND_ROWS, 20), bool)
    large = np.zeros_like(mask)
    large[BAND_ROWS - 3 : 2 * BAND_ROWS + 3, 5:8] = True  # one piece over three bands
    mask |= large
    mask[[0, BAND_ROWS, -1], 15] = True
    np.testing.assert_array_equal(drop_small(mask, 4), large)
