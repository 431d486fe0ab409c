"""Every field of every file where nothing is square: other microns in x than in y, overlapping tiles, a scanned box."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_factory import make_head, make_result

from stamp_deploy.grid import Grid
from stamp_deploy.result import Result, TileCounts
from stamp_deploy.writers import geojson, write_all
from stamp_deploy.writers.hdf5 import nominal_magnification
from stamp_deploy.writers.hdf5_file import _Disk
from stamp_deploy.writers.names import display_name, find_name, safe_file_names
from stamp_deploy.writers.ome_tiff import halve, pyramid

GRID = Grid(4000, 3000, 0.26, 0.25, 0.5, 64, 16)
SPAN, STEP = (64 * 0.5 / 0.26, 128.0), (48 * 0.5 / 0.26, 96.0)
COLUMNS, ROWS = np.array([0, 3, 41, 2, 7]), np.array([0, 0, 1, 2, 30])
CORNERS = [[0, 0], [277, 0], [3785, 96], [185, 192], [646, 2880]]
PATHWAYS = np.array([[0.5, -1.25], [1.5, 2], [2.5, 3], [3.5, 4], [4.5, 5.0625]], np.float32)
FRACTION = np.array([0.25, 0.375, 0.5, 0.625, 1], np.float32)
ATTENTION = np.array([0.0625, 0.125, 0.1875, 0.25, 0.375], np.float32)
BOUNDS = (100, 60, 3500, 2800)


def crooked(**changes: Any) -> Result:
    """Five tiles; the second head has no attention."""
    base = make_result(n_tiles=5, pathways=("UP", "DOWN"), embedding_dim=4)
    given: dict[str, Any] = {
        "grid": GRID,
        "slide": dataclasses.replace(
            base.slide, name="crooked.v2.svs", width=4000, height=3000, mpp_x=0.26, mpp_y=0.25, bounds=BOUNDS
        ),
        "coords": GRID.coords(COLUMNS, ROWS),
        "pathways": PATHWAYS,
        "tissue_fraction": FRACTION,
        "tiles": TileCounts(GRID.columns * GRID.rows, GRID.columns * GRID.rows - 7, 7, 5, missing=1, timeout=1),
        "thumbnail": np.random.default_rng(2).integers(0, 255, (60, 100, 3), np.uint8),
        "heads": (make_head("msi/h", attention=ATTENTION), make_head("plain")),
        "score_unit": "z",
    }
    return dataclasses.replace(base, **{**given, **changes})


def test_the_grid_is_what_the_figures_above_say() -> None:
    assert (GRID.span_x, GRID.span_y) == pytest.approx(SPAN)
    assert (GRID.step_x, GRID.step_y) == pytest.approx(STEP)
    assert crooked().coords.tolist() == CORNERS
    assert crooked().tile_cells.tolist() == np.stack([COLUMNS, ROWS], 1).tolist()


# GeoJSON


def features(result: Result, folder: Path) -> list[dict[str, Any]]:
    (path,) = write_all(result, folder, ["geojson"])
    return list(json.loads(path.read_text(encoding="utf-8"))["features"])


@pytest.mark.parametrize("bounds", [(), BOUNDS])
def test_polygons_run_round_each_tile_from_the_corner_of_what_qupath_shows(
    tmp_path: Path, bounds: tuple[int, ...]
) -> None:
    result = crooked(slide=dataclasses.replace(crooked().slide, bounds=bounds))
    left, top = bounds[:2] if bounds else (0, 0)
    for (x, y), feature in zip(CORNERS, features(result, tmp_path), strict=True):
        right, bottom = min(round(x + SPAN[0]), 4000), min(y + 128, 3000)
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        assert feature["geometry"] == {
            "type": "Polygon",
            "coordinates": [[[a - left, b - top] for a, b in ring]],
        }
        assert feature["type"] == "Feature"


def test_measurements_by_name_and_identity_by_place_and_slide(tmp_path: Path) -> None:
    found = features(crooked(), tmp_path)
    for i, feature in enumerate(found):
        assert feature["properties"]["measurements"] == {
            "UP": PATHWAYS[i, 0], "DOWN": PATHWAYS[i, 1], "tissue fraction": FRACTION[i],
            "attention: msi/h": ATTENTION[i],
        }  # fmt: skip
    other = dataclasses.replace(crooked().slide, sha256="77" * 32)
    again = features(crooked(slide=other), tmp_path)
    assert not {f["id"] for f in found} & {f["id"] for f in again}
    assert geojson.tile_id("a", 1, 2) != geojson.tile_id("a", 2, 1)
    assert geojson.tile_id("a", 1, 2) == geojson.tile_id("a", 1, 2)


def test_scores_have_five_digits_and_names_any_character(tmp_path: Path) -> None:
    result = crooked(
        pathway_names=("50 %d\n", "ä"),
        pathways=np.tile(np.float32([[1.2345678, -123456.7]]), (5, 1)),
        heads=(),
    )
    measured = features(result, tmp_path)[0]["properties"]["measurements"]
    assert measured == {"50 %d\n": 1.2346, "ä": -123460, "tissue fraction": 0.25}


@pytest.mark.parametrize(("tiles", "zipped"), [(5000, False), (5001, True)])
def test_files_above_five_thousand_tiles_are_gzipped(tmp_path: Path, tiles: int, zipped: bool) -> None:
    (path,) = write_all(make_result(n_tiles=tiles, pathways=1, heads=0, thumbnail_px=64), tmp_path, ["geojson"])
    assert path.name == ("tiles.geojson.gz" if zipped else "tiles.geojson")
    data = path.read_bytes()
    assert len(json.loads(gzip.decompress(data) if zipped else data)["features"]) == tiles
    if zipped:
        assert data[4:8] == bytes(4)  # no time of writing


# HDF5


def test_every_field_of_tiles_h5(tmp_path: Path) -> None:
    import h5py

    result = crooked()
    write_all(result, tmp_path, ["hdf5"])
    with h5py.File(tmp_path / "tiles.h5") as file:
        expected = {"features", "coords", "pathways", "pathway_names", "tissue_fraction", "thumbnail", "attention"}
        assert expected | {"thumbnail_small"} <= set(file)
        assert file["coords"][:].tolist() == CORNERS
        np.testing.assert_array_equal(file["features"][:], result.embedding)
        np.testing.assert_array_equal(file["pathways"][:], PATHWAYS)
        np.testing.assert_array_equal(file["tissue_fraction"][:], FRACTION)
        np.testing.assert_array_equal(file["thumbnail"][:], result.thumbnail)
        assert list(file["attention"]) == ["msi_h"]
        np.testing.assert_array_equal(file["attention/msi_h"][:], ATTENTION)
        assert {file[name].dtype.name for name in ("features", "pathways", "tissue_fraction")} == {"float32"}
        assert dict(file["coords"].attrs) == {
            "name": "crooked.v2", "patch_size": 64, "patch_size_level0": 123, "level0_magnification": 40,
            "target_magnification": 20, "overlap": 16, "level0_width": 4000, "level0_height": 3000, "mpp": 0.5,
            "level0_mpp_x": 0.26, "level0_mpp_y": 0.25, "span_x_level0": pytest.approx(SPAN[0]), "span_y_level0": 128,
        }  # fmt: skip
        assert file["features"].attrs["encoder"] == "vit-small-synthetic"
        assert file["pathways"].attrs["unit"] == "z"
        assert file.attrs["slide_sha256"] == "5a" * 32
        assert file.attrs["bundle_sha256"] == "b0" * 32
        assert file.attrs["config_sha256"] == "c0" * 32
        assert file.attrs["schema"] == "stamp-deploy/tiles"
        assert file.attrs["software"] == f"stamp-deploy {result.software['stamp-deploy']}"
        assert file.attrs["research_use"] == result.research_use


def test_the_file_beneath_hdf5_is_read_to_its_end(tmp_path: Path) -> None:
    with _Disk(tmp_path / "f") as disk:
        assert disk.write(b"0123456789") == 10 and disk.tell() == 10
        disk.seek(2)
        assert (disk.read(3), disk.read(), disk.read(), disk.seek(0, 2)) == (b"234", b"56789", b"", 10)
        room = bytearray(12)
        disk.seek(4)
        assert disk.readinto(room) == 6 and room == b"456789" + bytes(6)
        disk.seek(7)
        assert disk.truncate() == 7 and disk.truncate(5) == 5 and disk.seek(0, 2) == 5


@pytest.mark.parametrize(
    ("mpp", "expected"),
    [
        (0.12, 80), (0.125, 80), (0.17, 80), (0.18, 40), (0.25, 40), (0.35, 40), (0.36, 20), (0.5, 20), (0.7, 20),
        (0.71, 10), (1, 10), (2, 5), (4, 2.5), (8, 1.25), (20, 1.25), (0.05, 80),
    ],
)  # fmt: skip
def test_magnification_classes_meet_at_their_geometric_mean(mpp: float, expected: float) -> None:
    found = nominal_magnification(mpp)
    assert found == expected
    assert isinstance(found, int) == (expected == int(expected))


# Parquet


def test_every_column_and_note_of_tiles_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet

    write_all(crooked(), tmp_path, ["parquet"])
    table = parquet.read_table(tmp_path / "tiles.parquet")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, expected in {
        "x": [x for x, _ in CORNERS], "y": [y for _, y in CORNERS], "column": COLUMNS.tolist(), "row": ROWS.tolist(),
        "tissue_fraction": FRACTION.tolist(), "UP": PATHWAYS[:, 0].tolist(), "DOWN": PATHWAYS[:, 1].tolist(),
        "attention.msi/h": ATTENTION.tolist(),
    }.items():  # fmt: skip
        assert columns.pop(name) == expected, name
    assert not any(name.startswith("attention") for name in columns)
    types = {name: str(table.schema.field(name).type) for name in ("x", "y", "column", "row", "UP", "tissue_fraction")}
    assert types == {
        "x": "int64", "y": "int64", "column": "int32", "row": "int32", "UP": "float", "tissue_fraction": "float",
    }  # fmt: skip
    notes = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert notes["slide_sha256"] == "5a" * 32
    assert notes["bundle_sha256"] == "b0" * 32
    assert (notes["score_unit"], notes["tile_px"], notes["target_mpp"]) == ("z", "64", "0.5")
    assert (notes["level0_mpp_x"], notes["level0_mpp_y"]) == ("0.26", "0.25")
    assert (float(notes["span_x_level0"]), float(notes["span_y_level0"])) == pytest.approx(SPAN)
    assert "esearch use" in notes["research_use"]


def test_a_pathway_cannot_hide_another_column(tmp_path: Path) -> None:
    from pyarrow import parquet

    for name in ("x", "y", "column", "row", "tissue_fraction", "attention.msi/h"):
        write_all(crooked(pathway_names=(name, "DOWN")), tmp_path, ["parquet"])
        table = parquet.read_table(tmp_path / "tiles.parquet")
        assert table[f"pathway.{name}"].to_pylist() == PATHWAYS[:, 0].tolist()
        assert table["x"].to_pylist() == [x for x, _ in CORNERS]
        assert table["attention.msi/h"].to_pylist() == ATTENTION.tolist()


# OME-TIFF


def test_maps_have_the_step_of_the_grid_as_pixels(tmp_path: Path) -> None:
    """Tiles overlap by a quarter: cells are 24 um apart, although a tile shows 32 um."""
    import tifffile

    write_all(crooked(), tmp_path, ["ome-tiff"])
    with tifffile.TiffFile(tmp_path / "maps.ome.tiff") as file:
        stack = file.series[0].asarray()
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        tags = [file.pages[0].tags[name].value for name in ("XResolution", "YResolution", "ResolutionUnit")]
        software = file.pages[0].tags["Software"].value
    expected = np.full((2, GRID.rows, GRID.columns), np.nan, np.float32)
    expected[:, ROWS, COLUMNS] = PATHWAYS.T
    np.testing.assert_array_equal(stack, expected)
    assert (image["Pixels"]["PhysicalSizeX"], image["Pixels"]["PhysicalSizeY"]) == pytest.approx((24, 24))
    assert image["Name"] == "crooked.v2.svs"
    assert "(z)" in image["Description"]
    assert [tags[0][0] / tags[0][1], tags[1][0] / tags[1][1]] == pytest.approx([1e4 / 24, 1e4 / 24], rel=1e-4)
    assert int(tags[2]) == 3
    assert software == "stamp-deploy"
    assert (tmp_path / "maps.ome.tiff").read_bytes()[:4] in (b"II*\0", b"MM\0*")  # a classic TIFF: it is small


def test_levels_of_the_pyramid_state_their_own_resolution(tmp_path: Path) -> None:
    import tifffile

    result = make_result(n_tiles=30_000, pathways=1, thumbnail_px=64, mpp=0.25, tile_px=200)
    (path,) = write_all(result, tmp_path, ["ome-tiff"])
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        assert len(levels) == 3
        for number, level in enumerate(levels):
            for tag in ("XResolution", "YResolution"):
                numerator, denominator = level.pages[0].tags[tag].value
                assert numerator / denominator == pytest.approx(1e4 / (100 * 2**number), rel=1e-4)
            assert int(level.pages[0].tags["NewSubfileType"].value) == int(number > 0)


def test_halving_takes_the_mean_of_what_is_known() -> None:
    nan = np.nan
    stack = np.array(
        [[[1, 3, nan, nan, 5], [5, 7, nan, nan, nan], [2, nan, nan, 4, nan]], [[0, 0, 1, 1, 2]] * 3], np.float32
    )
    np.testing.assert_array_equal(halve(stack), np.float32([[[4, nan, 5], [2, 4, nan]], [[0, 1, 2], [0, 1, 2]]]))


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((128, 128), [128]), ((129, 10), [129, 65]), ((10, 257), [257, 129, 65]), ((1, 1), [1])],
)
def test_levels_go_down_to_128_pixels(shape: tuple[int, int], sides: list[int]) -> None:
    levels = pyramid(np.zeros((1, *shape), np.float32))
    assert [max(level.shape[1:]) for level in levels] == sides


# AnnData and SpatialData


def test_every_field_of_tiles_h5ad(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    result = crooked()
    write_all(result, tmp_path, ["anndata"])
    data = anndata.read_h5ad(tmp_path / "tiles.h5ad")
    np.testing.assert_array_equal(data.X, PATHWAYS)
    assert list(data.var_names) == ["UP", "DOWN"]
    assert list(data.obs_names) == [f"{x}_{y}" for x, y in CORNERS]
    assert data.obs[["x", "y"]].to_numpy().tolist() == CORNERS
    assert data.obs["array_col"].tolist() == COLUMNS.tolist()
    assert data.obs["array_row"].tolist() == ROWS.tolist()
    assert data.obs["tissue_fraction"].tolist() == FRACTION.tolist()
    assert data.obs["attention_msi_h"].tolist() == ATTENTION.tolist()
    assert "attention_plain" not in data.obs
    np.testing.assert_allclose(data.obsm["spatial"], np.array(CORNERS) + np.array(SPAN) / 2)
    np.testing.assert_array_equal(data.obsm["X_embedding"], result.embedding)
    (name,) = data.uns["spatial"]
    assert name == "crooked.v2"
    place = data.uns["spatial"][name]
    np.testing.assert_array_equal(place["images"]["hires"], result.thumbnail)
    assert place["scalefactors"]["tissue_hires_scalef"] == 100 / 4000
    assert place["scalefactors"]["spot_diameter_fullres"] == pytest.approx(SPAN[0])
    assert data.uns["stamp_deploy"]["score_unit"] == "z"
    assert json.loads(data.uns["stamp_deploy"]["result_json"]) == result.to_json_dict()


def test_every_field_of_slide_zarr(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.transformations import get_transformation

    result = crooked()
    write_all(result, tmp_path, ["spatialdata"])
    data = spatialdata.read_zarr(tmp_path / "slide.zarr")
    image = data.images["thumbnail"]
    np.testing.assert_array_equal(image.transpose("y", "x", "c").to_numpy(), result.thumbnail)
    scale = get_transformation(image, "global").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(scale, [[40, 0, 0], [0, 50, 0], [0, 0, 1]])
    boxes = data.shapes["tiles"].geometry.bounds.to_numpy()
    np.testing.assert_allclose(boxes[:, :2], CORNERS)
    np.testing.assert_allclose(boxes[:, 2:], np.array(CORNERS) + SPAN)
    plain = get_transformation(data.shapes["tiles"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_array_equal(plain, np.eye(3))
    table = data.tables["scores"]
    np.testing.assert_array_equal(np.asarray(table.X), PATHWAYS)
    assert set(table.obs["region"]) == {"tiles"}
    assert table.obs["instance"].tolist() == list(data.shapes["tiles"].index)


# Names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("HALLMARK_E2F_TARGETS", "E2F targets"),
        ("HALLMARK_G2M_CHECKPOINT", "G2M checkpoint"),
        ("REACTOME_DNA_REPAIR", "DNA repair"),
        ("HALLMARK_", "Hallmark"),
        ("HALLMARK_NOTCH_SIGNALING", "Notch signaling"),
        ("KEGG_HALLMARK_UV_RESPONSE_UP", "Hallmark UV response up"),  # one prefix alone
        ("IL2_STAT5_SIGNALING", "IL2 STAT5 signaling"),
        ("A__B", "A b"),
        ("HYPOXIA", "HYPOXIA"),
        ("mixed_Case", "mixed_Case"),
    ],
)
def test_names_for_people(name: str, shown: str) -> None:
    assert display_name(name) == shown


def test_a_name_is_found_as_people_write_it() -> None:
    names = ["HALLMARK_HYPOXIA", "HALLMARK_MYC_TARGETS_V1", "REACTOME_MYC_TARGETS_V1", "Hypoxia score"]
    assert find_name(names, "HALLMARK_HYPOXIA") == 0
    assert find_name(names, "hypoxia") == 0
    assert find_name(names, " Hypoxia_Score ") == 3
    assert find_name(names, "REACTOME_MYC_TARGETS_V1") == 2
    assert find_name(["HALLMARK_HYPOXIA", "HYPOXIA"], "HYPOXIA") == 1, "one that is meant to the letter"
    assert find_name(["HYPOXIA", "HALLMARK_HYPOXIA"], "HALLMARK_HYPOXIA") == 1
    with pytest.raises(Exception, match="fits 2 names") as several:
        find_name(names, "MYC targets V1")
    assert "HALLMARK_MYC_TARGETS_V1, REACTOME_MYC_TARGETS_V1" in str(several.value)
    with pytest.raises(Exception, match="there is no 'hypoxja'") as near:
        find_name(names, "hypoxja")
    assert "HALLMARK_HYPOXIA" in str(near.value)
    assert "MYC" not in str(near.value)
    with pytest.raises(Exception, match="one of: HALLMARK_HYPOXIA, HALLMARK_MYC_TARGETS_V1"):
        find_name(names, "0000")


@pytest.mark.parametrize("name", ["A.b_c-1", "x" * 80, "con2", "lpt", "comx"])
def test_plain_names_stay_file_names(name: str) -> None:
    assert safe_file_names([name]) == [name]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a b", "a_b-"), ("x" * 81, "x" * 80 + "-"), ("con", "con-"), ("COM1", "COM1-"), ("nul.txt", "nul.txt-"),
        ("LPT9", "LPT9-"), ("_a", "a-"), ("a.", "a-"), ("", "pathway-"), ("ä", "pathway-"),
    ],
)  # fmt: skip
def test_any_other_name_gets_eight_digits_of_its_hash(name: str, start: str) -> None:
    from hashlib import sha256

    assert safe_file_names([name]) == [start + sha256(name.encode()).hexdigest()[:8]]


def test_names_that_differ_in_case_alone_are_kept_apart() -> None:
    stems = safe_file_names(["Hypoxia", "HYPOXIA", "other"])
    assert stems[2] == "other"
    assert stems[0].startswith("Hypoxia-")
    assert stems[1].startswith("HYPOXIA-")
    assert stems[0].casefold() != stems[1].casefold()
