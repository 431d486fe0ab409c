"""The bench measures every stage, and its advice follows from what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_factory import make_bundle
from click.testing import CliRunner

from stamp_deploy.bench import Rate, _limiting, _recommend
from stamp_deploy.bench_verbs import bench


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


def test_bench_of_a_real_slide(tmp_path: Path, cmu_slide: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    arguments = [str(cmu_slide), "--bundle", str(bundle), "--seconds", "2", "--compare", "openslide"]
    ran = CliRunner().invoke(bench, [*arguments, "--json"], catch_exceptions=False)
    report = json.loads(ran.output)
    assert report["tiles"] > 100
    assert report["tiling"][0]["setting"] == 1
    assert all(rate["tiles_per_s"] > 0 for rate in report["tiling"] + report["engine_rates"])
    assert report["flow_tiles_per_s"] > 0 and report["flow_seconds"]["write"] > 0
    assert report["limiting"] in ("read", "decode", "resample", "engine", "write")
    assert report["compare"]["openslide + PIL tiles/s"] > 0
    text = CliRunner().invoke(bench, [*arguments, "--max-tiles", "64"], catch_exceptions=False).output
    assert "limited by" in text and "recommended: --threads" in text
