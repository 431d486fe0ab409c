"""The tissue mask: on real slides, on marker ink, on slides that are all glass or all tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy import tissue
from stamp_deploy.errors import BundleError
from stamp_deploy.slide import open_slide
from stamp_deploy.tissue import TissueMask, TissueRule, find_tissue, find_tissue_in

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
