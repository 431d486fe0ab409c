"""Tissue masks that a person drew: pictures and outlines, and which file belongs to which slide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stamp_deploy.annotations import file_for_slide, read_mask
from stamp_deploy.errors import UsageError

MASK = np.zeros((30, 40), np.uint8)
MASK[5:20, 10:30] = 255


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", ["grey", "one bit", "colour", "indices"])
def test_pictures_of_a_mask_are_read(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"mask.{suffix}"
    picture = {
        "grey": Image.fromarray(MASK),
        "one bit": Image.fromarray(MASK > 0),
        "colour": Image.fromarray(np.dstack([MASK] * 3)),
        "indices": Image.fromarray((MASK > 0).astype(np.uint8)),
    }[kind]
    picture.save(path)
    mask, digest = read_mask(path, 4000, 3000, (1, 1))
    assert np.array_equal(mask, MASK > 0)
    assert len(digest) == 64


def test_outlines_of_class_tissue_come_before_all_others(tmp_path: Path) -> None:
    def square(x: int, name: str) -> dict[str, object]:
        ring = [[x, 0], [x + 100, 0], [x + 100, 300], [x, 300], [x, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}

    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps([square(0, "Tissue"), square(200, "Tumor")]))
    assert read_mask(path, 400, 300, (30, 40))[0].sum() == 300
    path.write_text(json.dumps([square(0, "Stroma"), square(200, "Tumor")]))
    assert read_mask(path, 400, 300, (30, 40))[0].sum() == 600


def bad(folder: Path, case: str) -> Path:
    path = folder / "mask.png"
    if case == "grey levels":
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40).astype(np.uint8)).save(path)
    elif case == "see-through":
        Image.fromarray(np.dstack([MASK] * 4)).save(path)
    elif case == "coloured":
        Image.fromarray(np.dstack([MASK, MASK, MASK * 0])).save(path)
    elif case == "empty":
        Image.fromarray(MASK * 0).save(path)
    elif case == "another shape":
        Image.fromarray(MASK[:, :32]).save(path)
    elif case == "no picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    elif case == "another kind":
        path = folder / "mask.jpg"
        Image.fromarray(MASK).save(path)
    return path


CASES = {
    "grey levels": "more than two values",
    "see-through": "see-through",
    "coloured": "coloured",
    "empty": "no tissue",
    "another shape": "not the shape of the slide",
    "no picture": "cannot be read",
    "another kind": "PNG, a TIFF or a GeoJSON",
    "missing": "cannot be read",
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_mask_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(UsageError, match=CASES[case]) as refused:
        read_mask(bad(tmp_path, case), 4000, 3000, (30, 40))
    assert refused.value.remedy


def test_a_folder_has_one_file_per_slide(tmp_path: Path) -> None:
    slide = Path("elsewhere/a.svs")
    with pytest.raises(UsageError, match=r"no file for a\.svs"):
        file_for_slide(tmp_path, slide, (".geojson", ".png"), "--roi")
    first = tmp_path / "a.svs.geojson"
    first.write_text("")
    assert file_for_slide(tmp_path, slide, (".geojson", ".png"), "--roi") == first
    (tmp_path / "a.png").write_text("")
    with pytest.raises(UsageError, match=r"2 files for a\.svs"):
        file_for_slide(tmp_path, slide, (".geojson", ".png"), "--roi")
    assert file_for_slide(first, slide, (), "--roi") == first
