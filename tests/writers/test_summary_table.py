"""summaries.csv and the same table in tiles.h5ad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.result_factory import make_result

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


def test_anndata_has_it_too(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    result = add_summaries(make_result(n_tiles=400, pathways=2))
    data = anndata.read_h5ad(load_writer("anndata").write(result, tmp_path)[0])
    table = data.uns["stamp_deploy"]["summaries"]
    assert list(table["morans_i"]) == pytest.approx([item.morans_i for item in result.summaries[0].pathways])
    bare = tmp_path / "bare"
    bare.mkdir()
    load_writer("anndata").write(make_result(n_tiles=30, pathways=1), bare)  # without summaries
