"""Areas are saved whole, in QuPath's form, beside the results, and nobody's are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundle_factory import make_bundle
from support.viewer_client import Client, running, score

from stamp_deploy.annotations import file_for_slide, read_annotations
from stamp_deploy.atomic import why_not_whole
from stamp_deploy.errors import DiskError, UsageError
from stamp_deploy.result_files import read_result
from stamp_deploy.viewer import saved_annotations
from stamp_deploy.viewer.saved_annotations import Conflict, SavedAnnotations

SQUARE = [[[[100.0, 100.0], [900.0, 100.0], [900.0, 700.0], [100.0, 700.0], [100.0, 100.0]]]]
PATH = "api/slides/slide/annotations"


@pytest.fixture
def client(own_world: Path) -> Iterator[Client]:
    with running(own_world / "out", (own_world / "slides",)) as started:
        yield started


def area(polygons: Any = SQUARE, name: str = "Tumor", **more: Any) -> dict[str, Any]:
    return {"class": name, "polygons": polygons, **more}


def test_saved_areas_come_back(client: Client, own_world: Path) -> None:
    assert client.get(PATH).json == {"revision": "", "annotations": []}
    hole = [SQUARE[0][0], [[200, 200], [300, 200], [300, 300]]]
    sent = {
        "revision": "",
        "annotations": [area(colour=[1, 2, 3]), area([hole, [[[950, 950], [999, 950], [999, 999]]]], "Stroma")],
    }
    saved = client.send("PUT", PATH, sent)
    assert saved.status == 200, saved.body
    assert saved.json == client.get(PATH).json
    first, second = saved.json["annotations"]
    assert (first["class"], first["colour"], first["polygons"]) == ("Tumor", [1, 2, 3], SQUARE)
    assert len(second["polygons"]) == 2
    assert second["polygons"][0][1][0] == second["polygons"][0][1][-1], "rings are closed"
    again = client.send("PUT", PATH, saved.json)
    assert again.json["annotations"] == saved.json["annotations"]
    assert why_not_whole(own_world / "out" / "slide") == ""


def test_the_file_is_qupaths_and_can_be_given_to_roi(client: Client, own_world: Path) -> None:
    client.send("PUT", PATH, {"revision": "", "annotations": [area()]})
    folder = own_world / "out" / "annotations"
    path = folder / "slide.svs.geojson"
    document = json.loads(path.read_text())
    (feature,) = document["features"]
    assert document["type"] == "FeatureCollection"
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tumor"
    exported = client.get(f"{PATH}.geojson")
    assert exported.body == path.read_bytes()
    assert exported.headers["Content-Disposition"].startswith('attachment; filename="slide.svs.geojson"')
    slide = own_world / "slides" / "slide.svs"
    assert file_for_slide(folder, slide, (".geojson",), "--roi") == path
    assert read_annotations(path, 1500, 1100).areas["Tumor"].area == 800 * 600


def test_nothing_to_export_is_told(client: Client) -> None:
    assert client.get(f"{PATH}.geojson").status == 422


def test_two_who_save_do_not_overwrite_each_other(client: Client) -> None:
    first = client.send("PUT", PATH, {"revision": "", "annotations": [area()]}).json
    late = client.send("PUT", PATH, {"revision": "", "annotations": []})
    assert late.status == 409
    assert "somebody else" in late.json["error"]
    assert client.get(PATH).json == first


def test_what_the_viewer_does_not_understand_stays(own_world: Path) -> None:
    folder = own_world / "out" / "annotations"
    folder.mkdir()
    point = {"type": "Feature", "id": "p", "geometry": {"type": "Point", "coordinates": [1, 2]},
             "properties": {"objectType": "annotation"}}  # fmt: skip
    drawn = {"type": "Feature", "id": "11111111-1111-4111-8111-111111111111",
             "geometry": {"type": "Polygon", "coordinates": SQUARE[0]}, "plane": {"c": -1, "z": 2, "t": 0},
             "properties": {"objectType": "annotation", "isLocked": True, "measurements": {"a": 1},
                            "classification": {"name": "Old", "color": [9, 8, 7]}}}  # fmt: skip
    (folder / "slide.svs.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [point, drawn]}))
    with running(own_world / "out") as client:
        found = client.get(PATH).json
        assert [(item["class"], item["colour"]) for item in found["annotations"]] == [("Old", [9, 8, 7])]
        client.send("PUT", PATH, found)
        features = json.loads((folder / "slide.svs.geojson").read_text())["features"]
        assert point in features
        assert drawn in features


WRONG: list[Any] = [
    {}, [], None, {"revision": "", "annotations": 3}, {"revision": "", "annotations": [3]},
    {"revision": "", "annotations": [area([])]}, {"revision": "", "annotations": [area([[]])]},
    {"revision": "", "annotations": [area([[[[0, 0], [1, 1]]]])]},
    {"revision": "", "annotations": [area([[[["a", 0], [1, 1], [2, 2]]]])]},
    {"revision": "", "annotations": [area([[[[1e12, 0], [1, 1], [2, 2]]]])]},
    {"revision": "", "annotations": [area([[[[True, 0], [1, 1], [2, 2]]]])]},
    {"revision": "", "annotations": [area(name=f"c{i}") for i in range(65)]},
    {"revision": "", "annotations": [area()] * 5001},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_no_annotation_is_refused_and_nothing_is_written(client: Client, own_world: Path, number: int) -> None:
    answer = client.send("PUT", PATH, WRONG[number])
    assert answer.status == 422
    assert not (own_world / "out" / "annotations").exists()


def test_corners_are_counted_over_all_annotations(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five corners each: so many are taken, and one more is not."""
    asked = {"revision": "", "annotations": [area(), area(name="Stroma")]}
    monkeypatch.setattr(saved_annotations, "MAX_CORNERS", 9)
    assert client.send("PUT", PATH, asked).status == 422
    monkeypatch.setattr(saved_annotations, "MAX_CORNERS", 10)
    assert client.send("PUT", PATH, asked).status == 200


def test_names_of_classes_are_cleaned(client: Client) -> None:
    saved = client.send("PUT", PATH, {"revision": "", "annotations": [area(name="  a\u202eb\n" + "x" * 90)]}).json
    name = saved["annotations"][0]["class"]
    assert len(name) == 64
    assert name.isprintable()


def test_annotations_of_another_slide_are_refused(client: Client, own_world: Path) -> None:
    client.send("PUT", PATH, {"revision": "", "annotations": [area()]})
    path = own_world / "out" / "annotations" / "slide.svs.geojson"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "slide_sha256": "0" * 64}))
    assert client.get(PATH).status == 422
    before = path.read_bytes()
    assert client.send("PUT", PATH, {"revision": "", "annotations": []}).status == 422
    assert path.read_bytes() == before


def test_a_damaged_file_is_told_and_kept(client: Client, own_world: Path) -> None:
    folder = own_world / "out" / "annotations"
    folder.mkdir()
    (folder / "slide.svs.geojson").write_text('{"type": "FeatureColl')
    answer = client.get(PATH)
    assert answer.status == 422
    assert "slide.svs.geojson" not in answer.json["error"] or str(own_world) not in answer.json["error"]
    assert client.send("PUT", PATH, {"revision": "", "annotations": []}).status == 422
    assert (folder / "slide.svs.geojson").read_text() == '{"type": "FeatureColl'


def test_a_full_disk_is_told_and_the_old_file_stays(
    client: Client, own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = client.send("PUT", PATH, {"revision": "", "annotations": [area()]}).json

    def full(*_: object, **__: object) -> None:
        raise DiskError("the disk is full", path=own_world / "x", remedy="free some space")

    monkeypatch.setattr(saved_annotations, "write_bytes_atomic", full)
    answer = client.send("PUT", PATH, {"revision": first["revision"], "annotations": []})
    assert answer.status == 507
    assert "the disk is full" in answer.json["error"]
    assert client.get(PATH).json == first


def test_coordinates_count_from_what_qupath_shows(own_world: Path) -> None:
    """A slide that states its scanned box: QuPath's (0, 0) is the box's corner."""
    result = read_result(own_world / "out" / "slide")
    bounded = replace(result, slide=replace(result.slide, bounds=(40, 30, 1400, 1000)))
    saved = SavedAnnotations(own_world / "notes")
    sent = saved.write("slide", bounded, {"revision": "", "annotations": [area()]})
    assert sent["annotations"][0]["polygons"] == SQUARE
    document = json.loads((own_world / "notes" / "slide.svs.geojson").read_text())
    assert document["features"][0]["geometry"]["coordinates"][0][0] == [60, 70]
    with pytest.raises(Conflict):
        saved.write("slide", bounded, {"revision": "x", "annotations": []})


@pytest.mark.parametrize("name", ["../up.svs", "a/b.svs", ".hidden", "x" * 250])
def test_a_name_out_of_a_record_never_leads_out_of_the_folder(own_world: Path, name: str) -> None:
    result = read_result(own_world / "out" / "slide")
    strange = replace(result, slide=replace(result.slide, name=name))
    path = SavedAnnotations(own_world / "notes").path("key", strange)
    assert path == own_world / "notes" / "key.geojson"


def test_figures_are_those_of_roi_use_split(own_world: Path) -> None:
    """The drawn area's figures and those that a run with the saved file records, from the same pixels."""
    with running(own_world / "out", (own_world / "slides",)) as client:
        client.send("PUT", PATH, {"revision": "", "annotations": [area()]})
        figures = client.send("POST", "api/slides/slide/region", {"polygons": SQUARE}).json
    bundle = make_bundle(own_world / "bundle", tile_px=64)
    score(
        own_world / "slides" / "slide.svs", bundle, own_world / "again", all_tiles=True,
        roi=own_world / "out" / "annotations", roi_use="split",
    )  # fmt: skip
    whole, drawn = read_result(own_world / "again").summaries
    assert drawn.region == "Tumor"
    assert (figures["tiles"], figures["left_out"]) == (drawn.tiles, drawn.tiles_left_out)
    assert figures["tissue_mm2"] == pytest.approx(drawn.tissue_mm2)
    assert figures["area_mm2"] == pytest.approx(800 * 600 * 0.25 / 1e6)
    by_name = {row["name"]: row for row in figures["pathways"]}
    for item in drawn.pathways:
        row = by_name[item.name]
        assert (row["mean"], row["sd"]) == pytest.approx((item.mean, item.sd), rel=1e-4)
        assert row["slide_mean"] == pytest.approx({p.name: p.mean for p in whole.pathways}[item.name])


def test_an_area_beside_the_tissue_has_no_figures(client: Client) -> None:
    far = [[[[5000, 5000], [6000, 5000], [6000, 6000]]]]
    found = client.send("POST", "api/slides/slide/region", {"polygons": far}).json
    assert (found["tiles"], found["pathways"], found["area_mm2"]) == (0, [], 0)


def test_an_area_that_crosses_itself_is_repaired(client: Client) -> None:
    bow = [[[[100, 100], [900, 900], [900, 100], [100, 900]]]]
    found = client.send("POST", "api/slides/slide/region", {"polygons": bow}).json
    assert found["area_mm2"] == pytest.approx(2 * 800 * 400 / 2 * 0.25 / 1e6)


def test_no_annotations_error(own_world: Path) -> None:
    with pytest.raises(UsageError, match="no list of annotations"):
        SavedAnnotations(own_world).write("slide", read_result(own_world / "out" / "slide"), {"annotations": None})
