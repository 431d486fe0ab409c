"""The table "What a bundle runs on" in docs/engine.md says what the engines here really do with each kind of bundle."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from test_export import TinyModel, document, module, tiles, written_once  # noqa: F401

from stamp_deploy.engine import open_engine
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.errors import EngineError, StampError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engine.md"
ROW = re.compile(r"^\| `(fp32|fp16|bf16|int8 dynamic|int8 static|int8 smooth)` \|(.*)\|$", re.M)
COLUMNS = ("onnxruntime", "openvino", "tensorrt-rtx")


def stated() -> dict[tuple[str, str], str]:
    """(kind of bundle, engine) -> "runs", "builds" or "refused", as the page has it."""
    section = PAGE.read_text(encoding="utf-8").split("## What a bundle runs on", 1)[1].split("\n## ", 1)[0]
    rows = {kind: [cell.strip().split(" ")[0] for cell in cells.split("|")] for kind, cells in ROW.findall(section)}
    return {(kind, engine): cells[i] for kind, cells in rows.items() for i, engine in enumerate(COLUMNS)}


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16", "int8 dynamic", "int8 static", "int8 smooth"])
def test_the_table_is_true(kind, tmp_path, tiles, written_once, monkeypatch):  # noqa: F811
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
    precision, _, way = kind.partition(" ")
    if way == "smooth":
        pytest.importorskip("nncf")
    if way:  # the model is too small for int8 to pass with outliers; here it only has to load
        quantise = module("quantise")
        monkeypatch.setattr(quantise, "WAYS", tuple(one for one in quantise.WAYS if one.name == way))
        monkeypatch.setattr(quantise, "_write_outlier_twin", lambda encoder, target: None)
    exporter, model = module("export"), TinyModel().eval()
    source = exporter.Source(model, model, document())
    bundle = exporter.export_model(source, tmp_path / "bundle", tiles=tiles, precision=precision)
    found = {}
    for name in ("onnxruntime", *(["openvino"] if find_spec("openvino") else [])):
        try:
            engine = open_engine(bundle, name, batch=4)
        except EngineError:
            found[name] = "refused"
            continue
        assert np.isfinite(engine.run(tiles[:4]).pathways).all()
        found[name] = "runs"
        engine.close()
    if find_spec("tensorrt_rtx_bindings"):
        try:
            plans.get_plan(bundle, "tensorrt-rtx", None, batch=4, precision=precision)
            found["tensorrt-rtx"] = "builds"
        except StampError:
            found["tensorrt-rtx"] = "refused"
    table = stated()
    assert found == {engine: table[kind, engine] for engine in found}
