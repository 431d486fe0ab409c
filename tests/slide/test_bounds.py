"""Slides whose level 0 is the whole glass: what was scanned is recorded, and GeoJSON counts as QuPath shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.properties import scanned_bounds

X, Y, SIDE, NM = 1024, 512, 512, 500


def write_scn(path: Path) -> Path:
    """A Leica SCN of one scanned area at (X, Y) of a glass of 4096 x 3072 px, 0.5 um/px, that OpenSlide reads."""

    def image(name: str, pages: list[tuple[int, int, int]], view: tuple[int, int, int, int], power: float) -> str:
        sizes = "".join(f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{i}"/>' for r, (i, w, h) in enumerate(pages))
        width, height, left, top = (value * NM for value in view)
        return (
            f'<image name="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="m" version="1"/>'
            f'<pixels sizeX="{pages[0][1]}" sizeY="{pages[0][2]}">{sizes}</pixels>'
            f'<view sizeX="{width}" sizeY="{height}" offsetX="{left}" offsetY="{top}"/>'
            "<scanSettings><objectiveSettings>"
            f"<objective>{power}</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4"
            "</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
            "</scanSettings></image>"
        )

    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c" '
        f'sizeX="{4096 * NM}" sizeY="{3072 * NM}"><barcode>x</barcode>'
        + image("macro", [(0, 256, 192)], (4096, 3072, 0, 0), 0.6)
        + image("a", [(1, SIDE, SIDE), (2, SIDE // 4, SIDE // 4)], (SIDE, SIDE, X, Y), 20)
        + "</collection></scn>"
    )
    rgb = texture(SIDE, SIDE)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "jpeg", "metadata": None}
        writer.write(np.full((192, 256, 3), 240, np.uint8), description=text, **options)
        for picture in (rgb, rgb[::4, ::4]):
            writer.write(np.ascontiguousarray(picture), resolution=(20_000, 20_000), resolutionunit=3, **options)
    return path


def test_geojson_counts_from_what_qupath_shows_and_nothing_else_does(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=64, mpp=1.0))
    path = write_scn(tmp_path / "slide.scn")
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
