"""tissue.geojson: valid GeoJSON as QuPath counts it, back to the same mask, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import shapely
from scipy import ndimage
from support.result_factory import make_result

from stamp_deploy.annotations import read_mask
from stamp_deploy.errors import UsageError
from stamp_deploy.writers import load_writer


@pytest.mark.parametrize("bounds", [(), (1200, 800, 5000, 4000)])
def test_the_file_is_what_qupath_reads_and_gives_the_mask_back(tmp_path: Path, bounds: tuple[int, ...]) -> None:
    plain = make_result(100, 1)
    mask = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(70, 110)), 2.5) > 0.05
    result = replace(plain, tissue_mask=mask, slide=replace(plain.slide, bounds=bounds))
    (path,) = load_writer("tissue-geojson").write(result, tmp_path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    ids = set()
    for feature in document["features"]:
        assert feature["type"] == "Feature" and feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == "Tissue"
        assert len(feature["properties"]["classification"]["color"]) == 3
        ids.add(UUID(feature["id"]).version and feature["id"])
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1] and len(ring) >= 4
        assert shapely.geometry.shape(feature["geometry"]).is_valid
    assert len(ids) == len(document["features"]) == ndimage.label(mask)[1]
    slide, corner = result.slide, bounds[:2] or (0, 0)
    again, _ = read_mask(path, slide.width, slide.height, mask.shape, corner)
    assert np.array_equal(again, mask)
    left = min(x for feature in document["features"] for x, _ in feature["geometry"]["coordinates"][0])
    want = np.flatnonzero(mask.any(axis=0))[0] * slide.width / mask.shape[1] - corner[0]
    assert left == pytest.approx(want, abs=0.01)
    corners = np.concatenate([ring for feature in document["features"] for ring in feature["geometry"]["coordinates"]])
    halves = 2 * (corners + corner) * (mask.shape[1] / slide.width, mask.shape[0] / slide.height)
    assert np.abs(halves - halves.round()).max() < 0.0005, "half-way between the mask's pixels, to a part of a pixel"
    assert load_writer("tissue-geojson").write(result, tmp_path)[0].read_text() == path.read_text()


def test_a_result_without_a_mask_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tissue mask"):
        load_writer("tissue-geojson").write(make_result(10, 1), tmp_path)
    assert list(tmp_path.iterdir()) == []
