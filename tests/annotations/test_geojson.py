"""Annotations of QuPath: what is read, what is cut away, and what is refused with cause and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.annotations import read_annotations
from stamp_deploy.errors import UsageError


def ring(x: float, y: float, size: float) -> list[list[float]]:
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def feature(coordinates: Any, name: Any = "Tumor", kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    classification = {"classification": {"name": name, "color": [200, 0, 0]}} if name is not None else {}
    return {
        "type": "Feature",
        "id": "PATIENT-ID",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", "name": "DOE^JANE", **classification, **properties},
    }


def saved(folder: Path, document: Any) -> Path:
    path = folder / "rois.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_polygons_holes_and_multipolygons_by_class(tmp_path: Path) -> None:
    features = [
        feature([ring(0, 0, 100), ring(10, 10, 20)]),
        feature([[ring(50, 0, 100)], [ring(300, 300, 50)]], kind="MultiPolygon"),
        feature([ring(0, 200, 10)], "Stroma"),
        feature([ring(0, 300, 10)], None),
        feature([1, 2], "Tumor", kind="Point"),
        feature([ring(0, 0, 400)], "Tumor", objectType="tile"),
    ]
    found = read_annotations(saved(tmp_path, {"type": "FeatureCollection", "features": features}), 400, 400)
    assert {name: area.area for name, area in found.areas.items()} == {
        "Stroma": 100,
        "Tumor": 100 * 150 - 400 + 2500,
        "Unclassified": 100,
    }
    assert (found.polygons, found.skipped, found.repaired) == (5, 2, 0)
    text = json.dumps(found.facts())
    assert "DOE" not in text and "PATIENT" not in text and "rois" not in text


@pytest.mark.parametrize("form", ["list", "feature", "geometry", "bom"])
def test_every_form_that_qupath_writes_is_read(tmp_path: Path, form: str) -> None:
    one = feature([ring(10, 10, 10)])
    document: Any = {"list": [one], "feature": one, "geometry": one["geometry"]}.get(form)
    text = "\ufeff" + json.dumps([one]) if form == "bom" else document
    (area,) = read_annotations(saved(tmp_path, text), 100, 100).areas.values()
    assert area.area == 100


def test_what_lies_outside_is_cut_and_the_corner_is_added(tmp_path: Path) -> None:
    path = saved(tmp_path, [feature([ring(-50, 0, 100)])])
    assert read_annotations(path, 400, 400).areas["Tumor"].bounds == (0, 0, 50, 100)
    assert read_annotations(path, 400, 400, (200, 100)).areas["Tumor"].bounds == (150, 100, 250, 200)


def test_classes_to_be_ignored_are_cut_out(tmp_path: Path) -> None:
    path = saved(tmp_path, [feature([ring(0, 0, 100)]), feature([ring(0, 0, 50)], "Ignore*")])
    found = read_annotations(path, 400, 400)
    assert (list(found.areas), found.areas["Tumor"].area, found.ignored) == (["Tumor"], 7500, ("Ignore*",))


def test_class_names_are_cleaned_and_cut(tmp_path: Path) -> None:
    names = ["Tu\x1b[31mmor\n\u202e", ["A", "B"], "x" * 500]
    path = saved(tmp_path, [feature([ring(10 * i, 0, 5)], name) for i, name in enumerate(names)])
    found = list(read_annotations(path, 100, 100).areas)
    assert found == ["A: B", r"Tu\x1b[31mmor \u202e", "x" * 64]


def test_a_bow_tie_is_repaired_and_counted(tmp_path: Path) -> None:
    bow = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]
    found = read_annotations(saved(tmp_path, [feature([bow])]), 200, 200)
    assert (found.repaired, found.areas["Tumor"].area) == (1, 5000)


DEEP = "[" * 200_000 + "]" * 200_000
HOSTILE = {
    "no JSON": ("{", "no JSON"),
    "empty file": ("", "no JSON"),
    "binary": ("\x00\x01", "no JSON"),
    "a number": (3, "no list of features"),
    "another type": ({"type": "Topology"}, "no list of features"),
    "features no list": ({"type": "FeatureCollection", "features": 5}, "no list of features"),
    "strings": (["a"], "no list of features"),
    "empty": ({"type": "FeatureCollection", "features": []}, "no annotation"),
    "points alone": ([feature([1, 2], kind="Point")], "no annotation"),
    "NaN": (
        '[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[NaN,0],[1,0],[1,1],[0,0]]]}}]',
        "no JSON",
    ),
    "huge": ([feature([ring(1e300, 0, 5)])], "no pixels"),
    "text for numbers": ([feature([[["a", "b"]] * 4])], "no lists of numbers"),
    "booleans": ([feature([[[True, False]] * 4])], "no lists of numbers"),
    "one number": ([feature([[[1.0]] * 4])], "no pixels"),
    "two corners": ([feature([[[0, 0], [1, 1]]])], "no polygon"),
    "no ring": ([feature([])], "no polygon"),
    "a ring for a polygon": ([feature(ring(0, 0, 5))], "no polygon"),
    "geometry a list": ([{"type": "Feature", "geometry": [1]}], "no geometry"),
    "properties a list": ([{**feature([ring(0, 0, 5)]), "properties": [1]}], "no feature"),
    "no area": ([feature([[[0, 0], [5, 5], [9, 9], [0, 0]]])], "lies on the slide"),
    "elsewhere": ([feature([ring(5000, 5000, 50)])], "not microns"),
    "all ignored": ([feature([ring(0, 0, 50)], "Ignore*")], "lies on the slide"),
    "too many classes": ([feature([ring(i, 0, 1)], f"case {i}") for i in range(70)], "more than 64 classes"),
    "nested": (DEEP, "nested too deeply"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_use_is_refused_with_cause_and_remedy(tmp_path: Path, case: str) -> None:
    document, cause = HOSTILE[case]
    with pytest.raises(UsageError, match=cause) as refused:
        read_annotations(saved(tmp_path, document), 400, 400)
    assert refused.value.remedy
    assert refused.value.path is not None
    assert "DOE" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_annotations(tmp_path / "none.geojson", 4, 4)
