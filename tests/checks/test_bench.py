"""The bench measures every stage, and its advice follows from what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bundle_factory import make_bundle

from stamp_deploy.checks.bench import _limiting, _recommend
from stamp_deploy.checks.bench_report import BenchReport, Rate, Stage
from stamp_deploy.verbs.bench import bench


def test_smallest_setting_near_the_best_is_recommended() -> None:
    rates = [Rate(1, 50, 1), Rate(8, 94, 1), Rate(16, 96, 1), Rate(32, 100, 1)]
    assert _recommend(rates) == 16


@pytest.mark.parametrize(
    ("tiling", "engine", "write", "expected"),
    [(100, 500, 0.1, "decode"), (500, 100, 0.1, "engine"), (500, 100, 9.0, "write")],
)
def test_limiting_stage(tiling: float, engine: float, write: float, expected: str) -> None:
    flow = {"tiler_read": 0.2, "tiler_decode": 3.0, "tiler_resample": 0.4, "stream": 4.0, "write": write}
    assert _limiting(tiling, engine, flow)[0] == expected


def test_bench_of_a_real_slide(tmp_path: Path, cmu_slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stamp_deploy.checks.bench.BATCHES", (1, 8))
    bundle = make_bundle(tmp_path / "bundle")
    options = ["--seconds", "1", "--engine", "onnxruntime", "--write", "json", "--compare", "openslide", "--json"]
    ran = CliRunner().invoke(bench, [str(cmu_slide), "--bundle", str(bundle), *options], catch_exceptions=False)
    report = json.loads(ran.output)
    assert report["tiles"] > 100
    assert report["tiling"][0]["setting"] == 1
    assert all(rate["tiles_per_s"] > 0 for rate in report["tiling"] + report["engine_rates"])
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["open, tissue", "read", "decode", "resample", "engine", "heads", "write"]
    for name in ("read", "decode", "engine", "write"):
        assert stages[name]["seconds"] > 0 and stages[name]["tiles_per_s"] > report["flow_tiles_per_s"], name
    assert report["limiting"] in ("open, tissue", "read", "decode", "resample", "engine", "write")
    assert report["compare"]["openslide_pil_tiles_per_s"] > 0
    assert report["recommended_batch"] in (1, 8)


def test_table_names_every_stage_and_the_advice() -> None:
    stages = (Stage("decode", 2.0, 2, 500.0, "JPEG to pixels"), Stage("engine", 5.0, 1, 100.0, "scores"))
    compare = {"openslide_pil_tiles_per_s": 100.0, "times_openslide": 4.5}
    rates = ((Rate(1, 450.0, 3.0), Rate(2, 880.0, 9.0)), (Rate(8, 90.0, 1.0), Rate(16, 100.0, 2.0)))
    report = BenchReport(
        "s.svs", "jpeg-tiff", "level 0", "onnxruntime", 2, 500, *rates, stages, 500, 5.2, 96.2,
        "engine", "the engine alone reaches 100 tiles/s, tiling alone 880", 1, 16, compare,
    )  # fmt: skip
    text = report.to_text()
    assert "JPEG to pixels x 2 threads" in text
    assert text.count("<- recommended") == 2
    assert "limited by engine: the engine alone reaches 100" in text
    assert "recommended: --threads 1 --batch 16" in text and "4.5 x that" in text
