"""The tissue mask: on real slides, on marker ink, on slides that are all glass or all tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy.errors import BundleError
from stamp_deploy.slide import open_slide
from stamp_deploy.tissue import TissueMask, TissueRule, find_tissue, find_tissue_in, tissue

RULE = TissueRule()


def picture(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def flat(colour: tuple[int, int, int], shape: tuple[int, int] = (200, 300), noise: float = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return np.clip(np.array(colour) + rng.normal(0, noise, (*shape, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [("CMU-1-Small-Region.svs", None, 0.32, 0.38), ("tcga-cr-7395-01a-01-ts1.svs", 0.5, 0.58, 0.68)],
)
def test_the_share_of_tissue_of_real_slides(
    data_dir: Path, name: str, mpp: float | None, low: float, high: float
) -> None:
    with open_slide(data_dir / "slides" / name, mpp=mpp) as slide:
        found = find_tissue(slide, RULE)
        rgb = slide.thumbnail(max(found.mask.shape))
    assert low <= found.fraction <= high
    assert found.mask.shape == rgb.shape[:2]
    # glass is brighter than tissue
    assert rgb[found.mask].mean() < 200 < rgb[~found.mask].mean()


def test_a_faint_overview_on_glass(data_dir: Path) -> None:
    """Half a percent of tissue, stained blue-grey as in PAS: all of it is found, and none of the dust."""
    mask, _ = find_tissue_in(picture(data_dir / "slides" / "kidney-48-5.tif"), RULE, mpp=8.0)
    assert 0.002 < mask.mean() < 0.006
    assert mask[500:570, 280:405].sum() > 0.95 * mask.sum()


@pytest.mark.parametrize("mpp", [2.0, 8.0])
def test_pen_marks_are_not_tissue(data_dir: Path, mpp: float) -> None:
    """Ink as told by colour alone: nearly none of it is in the mask, and the tissue beside it is."""
    tiles = data_dir / "tiles"
    green = picture(tiles / "tcga-green-pen.png")
    mask, _ = find_tissue_in(green, RULE, mpp=mpp)
    ink = green[..., 1].astype(int) > green[..., 0].astype(int) + 20
    assert ink.mean() > 0.05
    assert mask[ink].mean() < 0.02
    assert mask[:, 480:].mean() > 0.85

    red = picture(tiles / "tcga-red-pen.png")
    mask, _ = find_tissue_in(red, RULE, mpp=mpp)
    ink = (red[..., 0] > 150) & (red[..., 1] < 60) & (red[..., 2] < 60)
    assert ink.mean() > 0.05
    assert mask[ink].mean() < 0.02
    assert mask[200:, :60].mean() < 0.02
    assert mask[150:320, 300:].mean() > 0.9

    blue = picture(tiles / "wsi-blue-pen.png")
    mask, _ = find_tissue_in(blue, RULE, mpp=mpp)
    ink = blue[..., 2].astype(int) > blue[..., 0].astype(int) + 40
    assert ink.mean() > 0.02
    assert mask[ink].mean() < 0.02
    assert 0.2 < mask.mean() < 0.45


def test_tissue_without_glass_is_all_tissue(data_dir: Path) -> None:
    """Blood is red, but no ink."""
    mask, threshold = find_tissue_in(picture(data_dir / "tiles" / "high-nuclei-score-level0.png"), RULE, mpp=0.5)
    assert mask.mean() > 0.98
    assert threshold <= RULE.max_saturation


@pytest.mark.parametrize("glass", [(243, 243, 243), (255, 255, 255), (240, 234, 222), (225, 232, 240)])
def test_bare_glass_gives_an_empty_mask_whatever_the_lamp(glass: tuple[int, int, int]) -> None:
    mask, _ = find_tissue_in(flat(glass), RULE)
    assert mask.mean() == 0


@pytest.mark.parametrize("stain", [(205, 130, 180), (120, 80, 150), (225, 170, 205), (190, 65, 94)])
@pytest.mark.parametrize("glass", [(243, 243, 243), (240, 234, 222)])
def test_half_and_half(stain: tuple[int, int, int], glass: tuple[int, int, int]) -> None:
    rgb = np.concatenate([flat(glass, (200, 150)), flat(stain, (200, 150))], axis=1)
    mask, _ = find_tissue_in(rgb, RULE)
    assert mask.mean() == pytest.approx(0.5, abs=0.02)
    assert mask[:, 155:].all()


@pytest.mark.parametrize("stain", [(205, 130, 180), (120, 80, 150)])
def test_a_slide_that_is_tissue_from_edge_to_edge(stain: tuple[int, int, int]) -> None:
    """Otsu would split it: the ceiling of the threshold keeps it whole."""
    mask, _ = find_tissue_in(flat(stain, noise=12), RULE)
    assert mask.mean() > 0.99


def test_dust_is_dropped_and_holes_are_filled() -> None:
    rgb = flat((243, 243, 243))
    rgb[50:150, 50:250] = flat((200, 120, 170), (100, 200))
    rgb[20:22, 20:22] = (200, 120, 170)
    rgb[100:104, 100:104] = (243, 243, 243)
    mask, _ = find_tissue_in(rgb, RULE, mpp=8.0)
    assert not mask[10:30, 10:30].any()
    assert mask[60:140, 60:240].all()


def test_black_borders_are_not_tissue() -> None:
    rgb = flat((243, 243, 243))
    rgb[:, :100] = 0
    assert find_tissue_in(rgb, RULE)[0].mean() == 0


def sections(strengths: tuple[float, ...], blue: bool = False) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Sections side by side, each at its own strength of one stain, and where each lies."""
    glass = np.array((243.0, 241.0, 244.0))
    rgb = np.tile(glass, (400, 500 * len(strengths), 1)) + np.random.default_rng(1).normal(
        0, 2, (400, 500 * len(strengths), 1)
    )
    places = []
    for i, strength in enumerate(strengths):
        x = 500 * i + 80
        for left, stain in ((x, (222, 150, 190)), (x + 170, (135, 85, 160))):
            colour = (120, 150, 190) if blue and strength < 1 else stain
            rgb[80:320, left : left + 170] -= (glass - np.array(colour)) * strength
        place = np.zeros(rgb.shape[:2], bool)
        place[80:320, x : x + 340] = True
        places.append(place)
    return rgb.clip(0, 255).astype(np.uint8), places


@pytest.mark.parametrize(
    "strengths", [(0.3,), (1, 0.3), (1, 0.25), (1, 0.4), (1, 0.5), (1, 0.6), (1.6, 0.7), (1, 1, 0.3), (1, 0.25, 0.5)]
)
def test_each_section_is_found_by_its_own_contrast(strengths: tuple[float, ...]) -> None:
    rgb, places = sections(strengths)
    mask, _ = find_tissue_in(rgb, RULE)
    for strength, place in zip(strengths, places, strict=True):
        assert mask[place].mean() > 0.94, strength
    assert not (mask & ~np.any(places, axis=0))[::3, ::3].mean() > 0.002


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", None), ("tcga-cr-7395-01a-01-ts1.svs", 0.5)])
def test_real_tissue_at_a_third_of_its_stain_beside_itself(data_dir: Path, name: str, mpp: float | None) -> None:
    """As much of it is found beside the normal section as alone, and the normal section does not grow."""
    with open_slide(data_dir / "slides" / name, mpp=mpp) as slide:
        rgb = slide.thumbnail(round(max(slide.width, slide.height) * slide.mpp_xy[0] / 8)).astype(float)
    white = np.percentile(rgb.reshape(-1, 3), 95, axis=0)

    def framed(picture: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.tile(white, (picture.shape[0] + 60, picture.shape[1] + 60, 1))
        out[30:-30, 30:-30] = picture
        return out

    normal, faint = framed(rgb), framed(white - (white - rgb) * 0.3)
    alone = [find_tissue_in(part.clip(0, 255).astype(np.uint8), RULE, mpp=8.0)[0].mean() for part in (normal, faint)]
    both, _ = find_tissue_in(np.concatenate([normal, faint], axis=1).clip(0, 255).astype(np.uint8), RULE, mpp=8.0)
    half = normal.shape[1]
    assert both[:, :half].mean() == pytest.approx(alone[0], rel=0.02)
    assert both[:, half:].mean() > 0.95 * alone[1]


class Picture:
    """A slide that is its own thumbnail, at 8 um/px."""

    mpp_xy = (8.0, 8.0)
    damage = ()

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        self.rgb = rgb
        self.height, self.width = rgb.shape[:2]

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        return self.rgb


def test_what_was_found_or_left_below_the_threshold_is_told() -> None:
    found = find_tissue(Picture(sections((1, 0.3))[0]), RULE)
    assert (found.faint_sections, found.left_fraction) == (1, 0)
    assert "own contrast" in found.notes[0]
    left = find_tissue(Picture(sections((1, 0.3), blue=True)[0]), RULE)
    assert (left.faint_sections, len(left.notes)) == (0, 1)
    assert left.left_fraction == pytest.approx(0.2, abs=0.02)
    assert "was not scored" in left.notes[0]
    assert find_tissue(Picture(sections((1, 1))[0]), RULE).notes == ()


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs", "kidney-48-5.tif"])
def test_ordinary_slides_are_found_as_before_and_without_a_warning(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with open_slide(data_dir / "slides" / name, mpp=0.5) as slide:
        found = find_tissue(slide, RULE)
        monkeypatch.setattr("stamp_deploy.tissue.faint.MAX_PIECES", 0)
        np.testing.assert_array_equal(find_tissue(slide, RULE).mask, found.mask)
    assert found.notes == ()


def test_tile_fractions_are_exact_areas() -> None:
    mask = np.zeros((10, 20), bool)
    mask[:, 10:] = True
    found = TissueMask(mask, 32.0, 32.0, RULE, 0.1, 0.5)
    coords = np.array([[0, 0], [256, 0], [320, 0], [304, 0], [576, 0], [0, 256]])
    fractions = found.tile_fractions(coords, 128, 128)
    # the tile at x = 576 reaches half beyond the slide, which counts as glass
    assert fractions == pytest.approx([0, 0.5, 1, 0.875, 0.5, 0], abs=1e-6)


def test_a_rule_survives_json_and_refuses_what_it_does_not_know() -> None:
    rule = TissueRule(min_fraction=0.4, exclude_ink=False)
    assert TissueRule.from_dict(rule.to_dict()) == rule
    assert TissueRule.from_dict({}) == TissueRule()
    for bad in ({"method": "neural"}, {"colour": 1}):
        with pytest.raises(BundleError):
            TissueRule.from_dict(bad)


@pytest.mark.parametrize("mpp", [2.0, 8.0])
def test_bands_leave_no_seam(cmu_slide: Path, monkeypatch: pytest.MonkeyPatch, mpp: float) -> None:
    """The mask is computed band by band: the same mask, whatever the bands' height."""
    with open_slide(cmu_slide) as slide:
        rgb = slide.thumbnail(500)
    monkeypatch.setattr(tissue, "BAND_ROWS", 10_000)
    whole, threshold = find_tissue_in(rgb, RULE, mpp=mpp)
    monkeypatch.setattr(tissue, "BAND_ROWS", 17)
    bands, again = find_tissue_in(rgb, RULE, mpp=mpp)
    assert again == threshold
    np.testing.assert_array_equal(bands, whole)
