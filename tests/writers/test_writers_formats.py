"""The formats written when asked for, read back with their users' tools."""

from __future__ import annotations

import dataclasses
import gzip
import json
import warnings
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from support.result_factory import make_head, make_result

from stamp_deploy.grid import Grid
from stamp_deploy.maps import score_map
from stamp_deploy.result import Result
from stamp_deploy.trust import SlideTrust
from stamp_deploy.writers import write_all
from stamp_deploy.writers.geojson import tile_id


def test_geojson_keeps_qupaths_rules(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely.geometry")
    names = ("HALLMARK_HYPOXIA", 'odd "100 %" \\ name', "TNFα")
    result = make_result(n_tiles=300, pathways=names, heads=1)
    (path,) = write_all(result, tmp_path, ["geojson"])
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["type"] == "FeatureCollection"
    assert len(value["features"]) == 300
    assert len({feature["id"] for feature in value["features"]}) == 300
    for i in (0, 150, 299):
        feature = value["features"][i]
        assert UUID(feature["id"]).version == 5
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        polygon = shapely.shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.bounds[:2] == tuple(result.coords[i])
        assert polygon.bounds[2] - polygon.bounds[0] == pytest.approx(result.grid.span_x, abs=1)
        assert feature["properties"]["objectType"] == "tile"
        measured = feature["properties"]["measurements"]
        assert [measured[name] for name in names] == pytest.approx(result.pathways[i].tolist(), rel=1e-4, abs=1e-6)
        assert set(measured) == {*names, "tissue fraction", "attention: head-1"}


def test_geojson_of_twenty_thousand_tiles_is_gzipped_and_repeatable(tmp_path: Path) -> None:
    result = make_result(n_tiles=20_000, pathways=50, thumbnail_px=200)
    (path,) = write_all(result, tmp_path, ["geojson"])
    assert path.name == "tiles.geojson.gz"
    first = path.read_bytes()
    assert len(json.loads(gzip.decompress(first))["features"]) == 20_000
    write_all(result, tmp_path, ["geojson"])
    assert path.read_bytes() == first


def test_geojson_tiles_are_clipped_to_the_slide(tmp_path: Path) -> None:
    result = make_result(n_tiles=20, pathways=1)
    width = int(result.coords[:, 0].max() + result.grid.span_x / 2)
    slide = type(result.slide)(**{**result.slide.__dict__, "width": width})
    clipped = make_result(n_tiles=20, pathways=1, slide=slide)
    (path,) = write_all(clipped, tmp_path, ["geojson"])
    xs = [p[0] for f in json.loads(path.read_text())["features"] for p in f["geometry"]["coordinates"][0]]
    assert max(xs) == width


def test_ome_tiff_is_a_pyramid_with_physical_sizes(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    result = make_result(n_tiles=30_000, pathways=2, thumbnail_px=200)
    (path,) = write_all(result, tmp_path, ["ome-tiff"])
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        series = file.series[0]
        assert series.axes == "CYX"
        assert [max(level.shape) for level in series.levels] == [306, 153, 77]
        full = series.asarray()
        assert full.shape == (2, result.grid.rows, result.grid.columns)
        assert np.array_equal(full[1], score_map(result, result.pathway_names[1]), equal_nan=True)
        half = series.levels[1].asarray()
        assert half.shape == (2, -(-result.grid.rows // 2), -(-result.grid.columns // 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert half[0, 20, 30] == pytest.approx(np.nanmean(full[0, 40:42, 60:62]), nan_ok=True)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels["PhysicalSizeX"] == pytest.approx(result.grid.step_x * result.slide.mpp_x)
        assert pixels["PhysicalSizeXUnit"] == "µm"
        assert [channel["Name"] for channel in pixels["Channel"]] == list(result.pathway_names)
    first = path.read_bytes()
    write_all(result, tmp_path, ["ome-tiff"])
    assert path.read_bytes() == first


def test_anndata_opens_in_scanpy(tmp_path: Path) -> None:
    scanpy, matplotlib = pytest.importorskip("scanpy"), pytest.importorskip("matplotlib")
    result = make_result(n_tiles=80, pathways=4, heads=1)
    (path,) = write_all(result, tmp_path, ["anndata"])
    data = scanpy.read_h5ad(path)
    assert data.shape == (80, 4)
    assert list(data.var_names) == list(result.pathway_names)
    assert np.array_equal(data.X, result.pathways)
    half = np.array([result.grid.span_x, result.grid.span_y]) / 2
    assert np.allclose(data.obsm["spatial"], result.coords + half)
    assert np.array_equal(data.obsm["X_embedding"], result.embedding)
    factor = data.uns["spatial"]["synthetic"]["scalefactors"]["tissue_hires_scalef"]
    assert factor == pytest.approx(result.thumbnail.shape[1] / result.slide.width)
    assert json.loads(data.uns["stamp_deploy"]["result_json"])["slide"]["sha256"] == result.slide.sha256
    scanpy.tl.pca(data, n_comps=2)
    assert data.obsm["X_pca"].shape == (80, 2)
    matplotlib.use("Agg")
    (axes,) = scanpy.pl.spatial(data, color=data.var_names[0], show=False)  # by the names that it looks for itself
    assert len(axes.images) == 1 and len(axes.collections[0].get_paths()) == 80


def test_spatialdata_reads_back_with_aligned_elements(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    result = make_result(n_tiles=60, pathways=3)
    (path,) = write_all(result, tmp_path, ["spatialdata"])
    data = spatialdata.read_zarr(path)
    assert set(data.images) == {"thumbnail"}
    table = data.tables["scores"]
    assert np.array_equal(np.asarray(table.X), result.pathways)
    bounds = data.shapes["tiles"].geometry.bounds.to_numpy()
    assert np.array_equal(bounds[:, :2], result.coords)
    extent = spatialdata.get_extent(data.images["thumbnail"], coordinate_system="global")
    assert extent["x"][1] == pytest.approx(result.slide.width, rel=1e-6)
    joined, matched = spatialdata.join_spatialelement_table(
        sdata=data, spatial_element_names=["tiles"], table_name="scores"
    )
    assert len(joined["tiles"]) == len(matched) == 60


def full_columns() -> Result:
    """Tiles with two heads' attention, a second read-out and a verdict, no two of which are alike."""
    n = 12
    base = make_result(n_tiles=n, pathways=("UP", "DOWN"), heads=0)
    heads = tuple(
        make_head(name, attention=np.linspace(low, low + 0.1, n, dtype=np.float32))
        for name, low in (("first", 0.1), ("second", 0.5))
    )
    trust = SlideTrust(
        "doubtful", ("x",), 1.5, np.linspace(1, 2, n, dtype=np.float32), np.arange(n, dtype=np.uint16) % 3, n, "rule",
        np.linspace(3, 90, n, dtype=np.float32),
    )  # fmt: skip
    return dataclasses.replace(
        base, heads=heads, trust=trust, pathways_global=base.pathways * 3 + 1, score_unit="z here"
    )


def test_a_second_read_out_each_heads_attention_and_the_verdict_have_columns(tmp_path: Path) -> None:
    from pyarrow import parquet

    result = full_columns()
    assert result.pathways_global is not None and result.trust is not None
    assert result.summary_unit != result.score_unit
    (path,) = write_all(result, tmp_path, ["parquet"])
    table = parquet.read_table(path)
    wanted = {
        "UP": result.pathways[:, 0], "DOWN": result.pathways[:, 1], "global.UP": result.pathways_global[:, 0],
        "global.DOWN": result.pathways_global[:, 1], "attention.first": result.heads[0].attention,
        "attention.second": result.heads[1].attention, "trust_distance": result.trust.tile_distance,
        "trust_percentile": result.trust.tile_percentile, "trust_flags": result.trust.tile_flags,
        "left_out": result.trust.left_out,
    }  # fmt: skip
    for name, values in wanted.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values, err_msg=name)
    assert set(table.column_names) - set(wanted) == {"x", "y", "column", "row", "tissue_fraction"}
    notes = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (notes["score_unit"], notes["target_mpp"]) == ("z here", repr(result.grid.target_mpp))
    shadowed = dataclasses.replace(result, pathway_names=("global.UP", "DOWN"))
    (path,) = write_all(shadowed, tmp_path, ["parquet"])
    table = parquet.read_table(path)
    np.testing.assert_array_equal(table["pathway.global.UP"].to_numpy(), result.pathways[:, 0])


def test_a_tile_of_geojson_is_known_by_its_corner_and_has_each_heads_attention(tmp_path: Path) -> None:
    result = full_columns()
    (path,) = write_all(result, tmp_path, ["geojson"])
    found = json.loads(path.read_text(encoding="utf-8"))["features"]
    for number, (feature, (x, y)) in enumerate(zip(found, result.coords.tolist(), strict=True)):
        assert feature["id"] == tile_id(result.slide.sha256, x, y)
        for head in result.heads:
            assert head.attention is not None
            told = feature["properties"]["measurements"][f"attention: {head.name}"]
            assert told == pytest.approx(head.attention[number], rel=1e-4)


def test_a_tile_ends_at_the_nearest_pixel(tmp_path: Path) -> None:
    """Of spans of 118.5 and 97 px: half a pixel, cut off at each tile, would leave seams in QuPath."""
    base = make_result(n_tiles=3, pathways=1, heads=0)
    grid = Grid(2000, 1500, 0.27, 0.33, 0.5, 64, 0)
    slide = dataclasses.replace(base.slide, width=2000, height=1500, mpp_x=0.27, mpp_y=0.33)
    columns = np.array([0, 1, 2])
    result = dataclasses.replace(base, grid=grid, slide=slide, coords=grid.coords(columns, columns))
    (path,) = write_all(result, tmp_path, ["geojson"])
    assert (grid.span_x, grid.span_y) == pytest.approx((118.52, 96.97), abs=0.01)
    for feature, (x, y) in zip(json.loads(path.read_text())["features"], result.coords.tolist(), strict=True):
        assert feature["geometry"]["coordinates"][0][2] == [x + 119, y + 97]


def test_maps_name_the_unit_of_their_own_scores_and_each_channel(tmp_path: Path) -> None:
    import tifffile

    result = full_columns()
    (path,) = write_all(result, tmp_path, ["ome-tiff"])
    with tifffile.TiffFile(path) as file:
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    assert image["Description"].startswith("Pathway scores (z here). ")
    assert [channel["Name"] for channel in image["Pixels"]["Channel"]] == ["UP", "DOWN"]
    assert {image["Pixels"][f"PhysicalSize{axis}Unit"] for axis in "XY"} == {"µm"}
