"""Trust on real slides: the demo's kind of training tiles, and sections of two patients of her2st."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

pytest.importorskip("sklearn")
pytest.importorskip("torch")

from stamp_deploy.bundle.reference import TrustReference
from stamp_deploy.export.demo.synthetic import Section
from stamp_deploy.export.trust_reference import ReferenceTiles, fit_reference
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tissue import TissueRule, find_tissue
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.trust.judge import judge
from stamp_deploy.trust.sample import chosen
from stamp_deploy.trust.statistics import measure_tiles

DEMO_PX, DEMO_MPP = 64, 1.0
HER2ST_PX, HER2ST_MPP = 112, 0.68


def verdict(reference: TrustReference, measures: NDArray[np.float64]) -> SlideTrust:
    return judge(reference, len(measures), np.arange(len(measures)), measures, np.zeros((len(measures), 1), np.float32))


def demo_tiles(seed: int) -> NDArray[np.uint8]:
    """Tiles of 64 px at 1 um/px at the spots of a synthetic section, as the demo's cohort has them."""
    section = Section(seed, 1920, 1920)
    small = section.picture().reshape(960, 2, 960, 2, 3).mean((1, 3)).round().astype(np.uint8)
    corners = (section.spots() / 2 - DEMO_PX / 2).astype(int)
    keep = [(x, y) for x, y in corners if x >= 0 and y >= 0 and max(x, y) + DEMO_PX <= 960]
    return np.stack([small[y : y + DEMO_PX, x : x + DEMO_PX] for x, y in keep])


def test_a_real_slide_is_outside_what_a_synthetic_demo_knows(data_dir: Path) -> None:
    groups = tuple(demo_tiles(seed) for seed in (11, 12, 13))
    reference = fit_reference(ReferenceTiles(groups, "patient"), DEMO_MPP)
    assert verdict(reference, measure_tiles(demo_tiles(99))).verdict in ("inside", "doubtful")
    with open_slide(data_dir / "slides" / "CMU-1-Small-Region.svs") as slide:
        grid = make_grid(slide, target_mpp=DEMO_MPP, tile_px=DEMO_PX)
        tiles = select_tiles(grid, find_tissue(slide, TissueRule()), 0.25)
        wanted = chosen(tiles.tissue_fraction)
        with open_tiles(slide, tiles, batch=32) as source:
            parts = [measure_tiles(b.pixels[wanted[b.index] & (b.status == TileStatus.OK)]) for b in source]
    trust = verdict(reference, np.concatenate(parts))
    assert trust.verdict == "outside" and trust.distance is not None and trust.distance > 3
    assert len(trust.reasons) > 2


def section_tiles(data: Path, name: str) -> NDArray[np.uint8]:
    folder = data / "st" / "her2st"
    with (folder / f"{name}_selection.tsv").open(newline="") as handle:
        rows = [r for r in csv.DictReader(handle, delimiter="\t") if r["selected"] == "1"]
    picture = np.asarray(Image.open(folder / f"{name}_HE.jpg").convert("RGB"))
    half = HER2ST_PX // 2
    centres = [(round(float(r["pixel_x"])), round(float(r["pixel_y"]))) for r in rows]
    return np.stack([picture[y - half : y + half, x - half : x + half] for x, y in centres])


def test_held_out_sections_are_inside_and_a_blurred_one_is_not(data_dir: Path) -> None:
    """C2 and C3 are the reference; C5 is of the same patient, B4 of another."""
    train = tuple(section_tiles(data_dir, name) for name in ("C2", "C3"))
    reference = fit_reference(ReferenceTiles(train, "section"), HER2ST_MPP)
    for name in ("C5", "B4"):
        tiles = section_tiles(data_dir, name)
        clean = verdict(reference, measure_tiles(tiles))
        assert clean.verdict == "inside", (name, clean.reasons)
        assert clean.left_out.mean() <= 0.05
        soft = np.stack([ndimage.gaussian_filter(tile, (1, 1, 0)) for tile in tiles])
        blurred = verdict(reference, measure_tiles(soft))
        assert blurred.verdict == "outside"
        assert ((blurred.tile_flags & np.uint16(TileFlag.BLURRED)) != 0).mean() > 0.9
