"""Which tiles are scored: the least share of tissue, asked for at run time, and what the record says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

import stamp_deploy as sd
from stamp_deploy.errors import UsageError


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
