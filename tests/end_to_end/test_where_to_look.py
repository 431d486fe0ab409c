"""Which tiles are scored: the least share of tissue, annotations, masks; and what the record says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

import stamp_deploy as sd
from stamp_deploy.errors import SlideError, UsageError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slide.svs, 20 x 20 tiles of which a disc is tissue, and bundle/."""
    folder = tmp_path_factory.mktemp("where")
    picture = texture(1280, 1280)
    y, x = np.mgrid[:1280, :1280]
    picture[(x - 700) ** 2 + (y - 600) ** 2 > 400**2] = 244
    write_slide(folder / "slide.svs", picture)
    make_bundle(folder / "bundle", tile_px=64)
    return folder


def score(place: Path, out: Path | None = None, **options: object) -> sd.SlideResult:
    return sd.infer_slide(
        place / "slide.svs", place / "bundle", out, engine="onnxruntime", progress=False, formats=["json", "hdf5"],
        **options,
    )  # fmt: skip


def test_min_fraction_at_run_time_outranks_the_bundles(place: Path) -> None:
    usual, more = score(place), score(place, min_fraction=0.9)
    assert usual.tissue["min_fraction"] == 0.25
    assert more.tissue["min_fraction"] == 0.9
    assert usual.tissue_fraction.min() < 0.9 <= more.tissue_fraction.min()
    assert len(more.coords) == (usual.tissue_fraction >= 0.9).sum()
    assert more.config["min_fraction"] == 0.9
    assert more.config_sha256 != usual.config_sha256
    assert score(place, all_tiles=True).tissue["min_fraction"] is None
    with pytest.raises(UsageError, match="min-fraction"):
        score(place, min_fraction=1.5)


def test_the_command_line_and_a_batch_take_it(place: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    common = ("--bundle", place / "bundle", "--engine", "onnxruntime", "--write", "json", "--min-fraction", "0.8")
    assert runner("infer", place / "slide.svs", *common, "-o", tmp_path / "one").code == 0
    assert runner("batch", place / "slide.svs", *common, "-o", tmp_path / "many").code == 0
    (of_batch,) = (tmp_path / "many").glob("*/result.json")
    records = [json.loads(path.read_text()) for path in (tmp_path / "one" / "result.json", of_batch)]
    assert [record["tissue"]["min_fraction"] for record in records] == [0.8, 0.8]
    assert records[0]["tiles"] == records[1]["tiles"]
    assert records[0]["summaries"][0]["pathways"].keys() == set(records[0]["pathways"]["names"])
    other = runner("batch", place / "slide.svs", *common[:-1], "0.5", "-o", tmp_path / "many")
    assert other.code == 2 and "other options" in other.err


def box(left: int, top: int, right: int, bottom: int, name: str) -> dict[str, Any]:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"name": "DOE^JANE", "classification": {"name": name}},
    }


@pytest.fixture(scope="module")
def rois(place: Path) -> Path:
    """Tumor in the left half of the disc, an inner square of it as Core; elsewhere as Glass."""
    path = place / "slide.geojson"
    path.write_text(
        json.dumps([box(0, 0, 704, 1280, "Tumor"), box(512, 512, 640, 640, "Core"), box(0, 0, 64, 64, "Glass")])
    )
    return path


def test_annotations_restrict_what_is_scored(place: Path, rois: Path) -> None:
    usual, inside = score(place), score(place, roi=rois)
    assert inside.coords[:, 0].max() < 704
    by_place = {tuple(xy): row for xy, row in zip(usual.coords.tolist(), usual.pathways, strict=True)}
    for xy, row in zip(inside.coords.tolist(), inside.pathways, strict=True):
        assert np.allclose(by_place[tuple(xy)], row)  # the same tiles give the same scores
    assert {region.region: region.tiles for region in inside.summaries} == {
        "": len(inside.coords),
        "Core": 4,
        "Glass": 0,
        "Tumor": len(inside.coords),
    }
    core = next(region for region in inside.summaries if region.region == "Core")
    assert core.tissue_mm2 == pytest.approx(4 * (64 * 0.5e-3) ** 2, rel=0.02)
    assert inside.tissue["roi"]["use"] == "restrict"
    assert any("within annotations only" in warning for warning in inside.warnings)
    assert "DOE" not in json.dumps(inside.to_json_dict())
    assert "slide.geojson" not in json.dumps(inside.to_json_dict())


def test_or_split_the_summary_by_class(place: Path, rois: Path) -> None:
    usual, split = score(place), score(place, roi=rois, roi_use="split")
    assert np.array_equal(usual.coords, split.coords)
    whole, core, _, tumor = split.summaries
    assert whole == usual.summaries[0]
    inside = (split.coords >= 512).all(axis=1) & (split.coords < 640).all(axis=1)
    assert core.tiles == inside.sum() == 4
    assert core.pathways[0].mean == pytest.approx(split.pathways[inside, 0].mean(), rel=1e-3)
    assert 0.3 < tumor.tissue_mm2 / whole.tissue_mm2 < 0.7
    assert split.config_sha256 != score(place, roi=rois).config_sha256


def test_annotations_without_tissue_are_refused(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "glass.geojson"
    path.write_text(json.dumps([box(0, 0, 64, 64, "Glass")]))
    with pytest.raises(SlideError, match="in the annotations"):
        score(place, roi=path)
    assert len(score(place, roi=path, all_tiles=True).coords) == 1


@pytest.mark.parametrize("option", ["--roi", "--tissue-mask"])
def test_a_hostile_file_ends_the_command_with_code_2_and_nothing_written(
    place: Path,
    tmp_path: Path,
    runner: Runner,  # noqa: F811
    option: str,
) -> None:
    path = tmp_path / "hostile.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [')
    done = runner("infer", place / "slide.svs", "--bundle", place / "bundle", option, path, "-o", tmp_path / "out")
    assert done.code == 2
    assert done.err.startswith("stamp-deploy: hostile.geojson: it is no JSON in UTF-8 - export it again from QuPath")
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_mask_goes_out_is_edited_and_comes_back(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "first"
    first = sd.infer_slide(
        place / "slide.svs", place / "bundle", out, engine="onnxruntime", progress=False,
        formats=["json", "hdf5", "tissue-geojson"],
    )  # fmt: skip
    path = out / "tissue.geojson"
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    assert {item["properties"]["classification"]["name"] for item in document["features"]} == {"Tissue"}
    again = score(place, tissue_mask=path)
    assert np.array_equal(again.tissue_mask, first.tissue_mask)
    assert np.array_equal(again.coords, first.coords)
    assert np.array_equal(again.tissue_fraction, first.tissue_fraction)
    assert (again.tissue["source"], again.tissue["threshold"]) == ("given", None)
    assert (first.tissue["source"], len(again.tissue["file_sha256"])) == ("found", 64)
    document["features"].append(box(0, 0, 128, 128, "Tissue"))
    edited = tmp_path / "edited.geojson"
    edited.write_text(json.dumps(document))
    more = score(place, tissue_mask=edited)
    assert len(more.coords) == len(first.coords) + 4
    # Written later out of the stored result, it is the same file.
    sd.read_result(out).write(tmp_path / "later", ["tissue-geojson"])
    assert (tmp_path / "later" / "tissue.geojson").read_bytes() == path.read_bytes()


def test_a_picture_takes_the_place_of_the_mask(place: Path, tmp_path: Path) -> None:
    picture = np.zeros((40, 40), np.uint8)
    picture[20:24, 18:22] = 255  # 32 level-0 pixels each: 2 x 2 tiles
    Image.fromarray(picture).save(tmp_path / "mask.png")
    result = score(place, tissue_mask=str(tmp_path / "mask.png"))
    assert result.coords.tolist() == [[576, 640], [640, 640], [576, 704], [640, 704]]
    assert (result.tissue_fraction == 1).all()
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save(tmp_path / "coarse.png")
    with pytest.raises(UsageError, match="more than a tile"):
        score(place, tissue_mask=tmp_path / "coarse.png")


def test_a_batch_takes_folders_of_both(place: Path, rois: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(masks / "slide.png")
    common = ("--bundle", place / "bundle", "--engine", "onnxruntime", "--write", "json")
    done = runner("batch", place / "slide.svs", *common, "--roi", place, "--tissue-mask", masks, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "out").glob("*/result.json")
    record = json.loads(path.read_text())
    assert record["tissue"]["source"] == "given"
    assert [item["region"] for item in record["summaries"]] == ["", "Core", "Glass", "Tumor"]
    (masks / "slide.png").rename(masks / "other.png")
    other = runner("batch", place / "slide.svs", *common, "--tissue-mask", masks, "-o", tmp_path / "none")
    assert other.code == 4
    assert "no file for slide.svs" in (tmp_path / "none" / "batch.json").read_text()


def test_the_read_out_that_is_comparable_across_slides_is_summarised(place: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", tile_px=64, global_scores=True)
    result = sd.infer_slide(
        place / "slide.svs", tmp_path / "bundle", tmp_path / "out", engine="onnxruntime", progress=False,
        formats=["json", "hdf5"],
    )  # fmt: skip
    whole = result.summaries[0]
    assert whole.scores == "pathways_global"
    weights = result.tissue_fraction.astype(float)
    assert [item.mean for item in whole.pathways] == pytest.approx(weights @ result.pathways_global / weights.sum())
    assert [item.mean for item in whole.pathways] != pytest.approx(weights @ result.pathways / weights.sum())
    again = sd.read_result(tmp_path / "out")
    assert again.summaries == result.summaries
    assert np.array_equal(again.tissue_mask, result.tissue_mask)
