"""The default formats, read back with the tools that users use."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.result_factory import make_result

from stamp_deploy.errors import UsageError
from stamp_deploy.map_style import colour_table
from stamp_deploy.pathway_names import display_name
from stamp_deploy.writers import load_writer, write_all
from stamp_deploy.writers.formats import FORMATS
from stamp_deploy.writers.hdf5 import nominal_magnification
from stamp_deploy.writers.names import safe_file_names
from stamp_deploy.writers.picture import (
    OPACITY,
    blend,
    length_label,
    make_view,
    result_styles,
    round_length_um,
)

ODD_NAMES = (
    "a/b",
    "../../etc/passwd",
    "CON",
    "Hypoxia",
    "HYPOXIA",
    "x" * 300,
    "TNFα signalling via NF-κB",
    "",
    "x",
    ".",
)


def test_every_writer_keeps_the_protocol() -> None:
    for name, known in FORMATS.items():
        extra = known.extra
        try:
            writer = load_writer(name)
        except UsageError as error:  # an optional package is not installed: then the message says which extra has it
            assert extra and f"stamp-deploy[{extra}]" in str(error)
            continue
        assert name == writer.NAME
        assert known.files
    with pytest.raises(UsageError, match="unknown output format"):
        load_writer("xlsx")


def test_json_is_the_record(tmp_path: Path) -> None:
    result = make_result()
    (path,) = write_all(result, tmp_path, ["json"])
    assert json.loads(path.read_text()) == result.to_json_dict()


def test_hdf5_reads_as_trident_features(tmp_path: Path) -> None:
    result = make_result(n_tiles=120, pathways=3, heads=2)
    (path,) = write_all(result, tmp_path, ["hdf5"])
    with h5py.File(path) as file:
        assert file["features"].dtype == np.float32
        assert file["coords"].dtype == np.int64
        assert np.array_equal(file["features"], result.embedding)
        assert np.array_equal(file["coords"], result.coords)
        assert np.array_equal(file["pathways"], result.pathways)
        assert [name.decode() for name in file["pathway_names"]] == list(result.pathway_names)
        attributes = dict(file["coords"].attrs)
        assert attributes["patch_size"] == 224
        assert attributes["patch_size_level0"] == round(224 * 0.5 / 0.2526)
        assert (attributes["level0_magnification"], attributes["target_magnification"]) == (40, 20)
        assert (attributes["level0_width"], attributes["level0_height"]) == (
            result.slide.width,
            result.slide.height,
        )
        assert attributes["name"] == "synthetic"
        assert attributes["overlap"] == 0
        assert attributes["mpp"] == 0.5
        assert set(file["attention"]) == {"head-1", "head-2"}


def test_the_slides_folder_is_written_nowhere(tmp_path: Path) -> None:
    result = make_result(n_tiles=30, pathways=1, thumbnail_px=200, source_path=Path("/ward-7/Jane-Doe/synthetic.svs"))
    for path in write_all(result, tmp_path, ["json", "hdf5", "parquet", "heatmaps"]):
        assert b"Jane-Doe" not in path.read_bytes(), path.name


@pytest.mark.parametrize(("mpp", "expected"), [(0.2526, 40), (0.499, 20), (0.5, 20), (1.0, 10), (0.23, 40), (8, 1.25)])
def test_nominal_magnification(mpp: float, expected: float) -> None:
    assert nominal_magnification(mpp) == expected


def test_parquet_reads_in_pandas(tmp_path: Path) -> None:
    result = make_result(n_tiles=50, pathways=("x", "HALLMARK_HYPOXIA"), heads=1)
    (path,) = write_all(result, tmp_path, ["parquet"])
    frame = pd.read_parquet(path)
    assert list(frame.columns) == [
        "x", "y", "column", "row", "tissue_fraction", "pathway.x", "HALLMARK_HYPOXIA", "attention.head-1",
    ]  # fmt: skip
    assert np.array_equal(frame[["x", "y"]], result.coords)
    assert np.array_equal(frame["HALLMARK_HYPOXIA"], result.pathways[:, 1])


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    result = make_result(n_tiles=60, pathways=2)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    names = ["json", "hdf5", "parquet", "heatmaps"]
    for first, second in zip(write_all(result, one, names), write_all(result, two, names), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_file_names_are_safe_and_different() -> None:
    stems = safe_file_names(ODD_NAMES)
    assert len({stem.casefold() for stem in stems}) == len(ODD_NAMES)
    for stem in stems:
        assert stem.isascii()
        assert "/" not in stem
        assert not stem.startswith(".")
        assert 1 <= len(stem) <= 90
    assert safe_file_names(["HALLMARK_E2F_TARGETS"]) == ["HALLMARK_E2F_TARGETS"]


def test_display_names() -> None:
    assert display_name("HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION") == "Epithelial mesenchymal transition"
    assert display_name("HALLMARK_TNFA_SIGNALING_VIA_NFKB") == "TNFA signaling via NFKB"
    assert display_name("HALLMARK_MYC_TARGETS_V1") == "MYC targets V1"
    assert display_name("Cell cycle") == "Cell cycle"


@pytest.mark.parametrize(
    ("width", "length"),
    [(8000, 2000), (7999, 1000), (1000, 200), (400, 100), (20_000, 5000), (90, 20), (3.9, 0.5)],
)
def test_scale_bar_is_round_and_at_most_a_quarter(width: float, length: float) -> None:
    assert round_length_um(width) == pytest.approx(length)


def test_length_labels() -> None:
    assert [length_label(v) for v in (50.0, 500.0, 1000.0, 2000.0)] == ["50 µm", "500 µm", "1 mm", "2 mm"]


def test_heat_map_colours_only_scored_tiles_in_the_colours_of_their_scores() -> None:
    result = make_result(n_tiles=150, pathways=1, thumbnail=np.full((600, 900, 3), 255, np.uint8))
    view = make_view(result, 900)
    (style,) = result_styles(result)
    low, high = style.low, style.high
    picture = blend(result, view, result.pathways[:, 0], low, high).astype(int)
    cells = result.tile_cells
    scored = np.zeros((result.grid.rows, result.grid.columns), bool)
    scored[cells[:, 1], cells[:, 0]] = True
    here = scored[view.rows[:, None], view.columns[None, :]] & (view.rows >= 0)[:, None] & (view.columns >= 0)[None]
    assert (picture[~here] == 255).all(), "glass must stay white"
    best = int(result.pathways[:, 0].argmax())
    y = np.flatnonzero(view.rows == cells[best, 1])
    x = np.flatnonzero(view.columns == cells[best, 0])
    centre = picture[y[len(y) // 2], x[len(x) // 2]]
    expected = OPACITY * colour_table()[255].astype(float) + (1 - OPACITY) * 255
    assert np.abs(centre - expected).max() <= 1


def test_heat_maps_and_sheets_of_many_oddly_named_pathways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stamp_deploy.writers.overview.MAPS_PER_PAGE", 6)
    names = ("HALLMARK_" + "VERY_" * 30 + "LONG", *ODD_NAMES)
    result = make_result(n_tiles=40, pathways=names, thumbnail_px=300)
    paths = write_all(result, tmp_path, ["heatmaps"])
    assert sum(path.parent.name == "maps" for path in paths) == len(names)
    assert [path.name for path in paths if path.parent == tmp_path] == ["overview.png", "overview-2.png"]
    for path in paths:
        assert path.resolve().is_relative_to(tmp_path)
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 200
