"""A batch puts its results beside each other at its end, by the cases of its sheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

import stamp_deploy.cases
from stamp_deploy.errors import DiskError


def test_the_summary_stands_beside_the_results(
    tmp_path: Path,
    runner: Runner,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed, name in enumerate(("one.svs", "two.svs")):
        write_slide(tmp_path / name, texture(400, 400, seed))
    make_bundle(tmp_path / "bundle", tile_px=64)
    (tmp_path / "sheet.csv").write_text("slide,case_id\none.svs,A\ntwo.svs,A\n")
    out = tmp_path / "out"
    common = ("--bundle", tmp_path / "bundle", "--engine", "onnxruntime", "--all-tiles", "-o", out)
    assert runner("batch", tmp_path / "sheet.csv", *common, "--write", "json").code == 0
    rows = list(csv.DictReader((out / "summary" / "pathways.csv").open()))
    assert [(row["slide"], row["case_id"]) for row in rows] == [("one.svs", "A"), ("two.svs", "A")]
    assert (out / "summary" / "index.html").is_file()
    assert runner("audit", out, "--results").code == 0  # the summary is no result that the log does not know
    assert runner("batch", tmp_path / "sheet.csv", *common, "--write", "json").code == 0

    def full(*_: object, **__: object) -> None:
        raise DiskError("the disk is full")

    monkeypatch.setattr(stamp_deploy.cases, "write_summary", full)
    (out / "summary" / "index.html").unlink()
    done = runner("batch", tmp_path / "sheet.csv", *common, "--write", "json")
    assert done.code == 0  # the results are whole without it
    assert "could not be summarised" in done.out + done.err
    assert json.loads((out / "batch.json").read_text())["exit_code"] == 0
