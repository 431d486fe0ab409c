"""summaries.csv and the same table in tiles.h5ad."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.result_factory import make_result, make_trust

from stamp_deploy.summarise import add_summaries
from stamp_deploy.writers import load_writer


def test_the_table_holds_every_figure(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    noise = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    plain = make_result(n_tiles=400, pathways=2, pathways_global=noise)
    classes = {"Tumor": plain.tissue_fraction, "None": np.zeros(400, np.float32)}
    result = add_summaries(plain, classes)
    table = pandas.read_csv(load_writer("summaries").write(result, tmp_path)[0], keep_default_na=False, na_values=[""])
    assert list(table.region.fillna("")) == ["", "", "Tumor", "Tumor"]
    assert list(table.pathway[:2]) == list(result.pathway_names)
    want = result.summaries[0].pathways[1]
    row = table.iloc[1]
    assert row["mean"] == pytest.approx(want.mean)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx(want.mean_interval)
    assert row["hot_spot_area_mm2"] == pytest.approx(want.hot_spot.area_mm2)
    assert np.isnan(row["share_above"])


def test_every_cell_is_the_figure_of_its_region_and_pathway(tmp_path: Path) -> None:
    """Of two regions that differ in all figures; what does not exist is an empty cell, and no 0."""
    plain = make_result(n_tiles=400, pathways=2, trust=make_trust(400, "inside", left_out=range(7)))
    half = np.where(np.arange(400) < 150, plain.tissue_fraction, 0).astype(np.float32)
    result = add_summaries(plain, {"Tumor": half})
    (path,) = load_writer("summaries").write(result, tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert names[:6] == ["region", "tiles", "tiles_left_out", "tissue_mm2", "scores", "pathway"]
    wanted = [(region, item) for region in result.summaries for item in region.pathways]
    assert len(rows) == len(wanted) == 4 and result.summaries[0].tiles != result.summaries[1].tiles
    assert result.summaries[0].tiles_left_out == 7
    for row, (region, item) in zip(rows, wanted, strict=True):
        expected = {name: getattr(region, name) for name in names[:5]} | {"pathway": item.name}
        for name, value in dataclasses.asdict(item).items():
            if name.endswith("_interval"):
                stem = name.removesuffix("_interval")
                expected |= dict(zip((f"{stem}_low", f"{stem}_high"), value or (None, None), strict=True))
            elif name == "hot_spot":
                keys = ("area_mm2", "tiles", "mean", "x_level0_px", "y_level0_px")
                expected |= {f"hot_spot_{key}": None if value is None else value[key] for key in keys}
            elif name != "name":
                expected[name] = value
        assert set(expected) == set(names)
        assert row == {name: "" if value is None else str(value) for name, value in expected.items()}
    assert any(row["hot_spot_tiles"] for row in rows)
    (tmp_path / "none").mkdir()
    whole = result.summaries[0]
    none = dataclasses.replace(whole, pathways=(dataclasses.replace(whole.pathways[0], hot_spot=None),))
    (path,) = load_writer("summaries").write(dataclasses.replace(result, summaries=(none,)), tmp_path / "none")
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert [row[f"hot_spot_{key}"] for key in ("area_mm2", "tiles", "mean")] == [""] * 3


def test_anndata_has_it_too(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    result = add_summaries(make_result(n_tiles=400, pathways=2))
    data = anndata.read_h5ad(load_writer("anndata").write(result, tmp_path)[0])
    table = data.uns["stamp_deploy"]["summaries"]
    assert list(table["morans_i"]) == pytest.approx([item.morans_i for item in result.summaries[0].pathways])
    bare = tmp_path / "bare"
    bare.mkdir()
    load_writer("anndata").write(make_result(n_tiles=30, pathways=1), bare)  # without summaries
