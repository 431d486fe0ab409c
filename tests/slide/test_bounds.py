"""Slides whose level 0 is the whole glass: what was scanned is recorded, and GeoJSON counts as QuPath shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.format_factory import pages_of, write_scn
from support.slide_factory import texture, write_slide

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.properties import scanned_bounds

X, Y, SIDE = 1024, 512, 512


def scn(path: Path) -> Path:
    """A Leica SCN of one scanned area at (X, Y) of a glass of 4096 x 3072 px, 0.5 um/px, that OpenSlide reads."""
    area = write_slide(path.with_suffix(".svs"), texture(SIDE, SIDE), tile=128, coding="rgb", levels=(4,))
    return write_scn(path, [(X, Y, pages_of(area))], size=(4096, 3072))


def test_geojson_counts_from_what_qupath_shows_and_nothing_else_does(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=64, mpp=1.0))
    path = scn(tmp_path / "slide.scn")
    with open_slide(path) as slide:
        assert slide.bounds == (X, Y, SIDE, SIDE)
    result = infer_slide(path, bundle, tmp_path / "out", InferOptions(writers=("json", "geojson")))
    assert result.slide.bounds == (X, Y, SIDE, SIDE)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["slide"]["bounds"] == [X, Y, SIDE, SIDE]
    assert (result.coords >= (X, Y)).all()
    features = json.loads((tmp_path / "out" / "tiles.geojson").read_text())["features"]
    corners = np.array([feature["geometry"]["coordinates"][0][0] for feature in features])
    np.testing.assert_array_equal(corners, result.coords - (X, Y))
    assert corners.min() >= 0
    assert corners.max() < SIDE


def test_a_slide_without_bounds_keeps_its_coordinates(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=64, mpp=1.0))
    path = write_slide(tmp_path / "slide.svs", texture(512, 512))
    result = infer_slide(path, bundle, tmp_path / "out", InferOptions(writers=("json", "geojson"), all_tiles=True))
    assert result.slide.bounds == ()
    features = json.loads((tmp_path / "out" / "tiles.geojson").read_text())["features"]
    corners = [feature["geometry"]["coordinates"][0][0] for feature in features]
    np.testing.assert_array_equal(corners, result.coords)


@pytest.mark.parametrize(
    "broken", [{"openslide.bounds-x": ""}, {"openslide.bounds-width": "Doe"}, {"openslide.bounds-y": None}]
)
def test_bounds_that_qupath_would_not_use(broken: dict[str, str | None]) -> None:
    whole = {f"openslide.bounds-{name}": "10" for name in ("x", "y", "width", "height")}
    assert scanned_bounds(whole) == (10, 10, 10, 10)
    assert scanned_bounds({key: value for key, value in {**whole, **broken}.items() if value is not None}) is None
