"""The GPU benchmark runs dry on the CPU: the same code with a small model, so that no GPU's time is lost to a slip."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from support.timm_or_skip import timm_or_skip

timm_or_skip()

from onnx import TensorProto, helper, numpy_helper

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("engine_gpu")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def dry(bench, tmp_path_factory):
    """One dry run of everything."""
    folder = tmp_path_factory.mktemp("dry")
    plan = bench.Plan(("tiny",), ("onnxruntime", "torch eager"), (2, 4), "cpu", 0.05)
    return bench.gpu_section(folder, plan)


def test_every_row_is_measured(dry):
    rows = dry["models"]["tiny"]["rows"]
    names = ("onnxruntime fp32", "torch eager half")
    assert list(rows) == [f"{name}, batch {batch}" for name in names for batch in (2, 4)]
    for name, row in rows.items():
        assert row["tiles_per_second"] > 0 and row["share_of_peak"] > 0, name
        assert row["cosine_min"] > 0.99, name
    assert rows["onnxruntime fp32, batch 2"]["parity"] == "pass"
    assert "dry run" in dry["device"] and dry["sustained_peak_tflops"] > 0 and "whole_slide" not in dry


def test_the_report_shows_them(bench, dry):
    text = bench.report({"machine": {}, **dry})
    assert "| torch eager half, batch 4 |" in text and "dry run" in text


def test_what_the_time_does_not_allow_is_named(bench, tmp_path):
    plan = bench.Plan(("tiny",), ("onnxruntime",), (2,), "cpu", 0.05, until=time.perf_counter())
    found = bench.gpu_section(tmp_path, plan)
    assert found["models"]["tiny"] == {"not_run": "the time was used up"}
    assert "the time was used up" in bench.report(found)


@pytest.fixture
def clock(bench, monkeypatch):
    """perf_counter of the benchmark's modules: a second goes by at each look, so that no machine is too slow."""
    ticks = itertools.count()
    stand_in = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    for name in ("engine_gpu", "torch_contenders"):
        monkeypatch.setattr(sys.modules[name], "time", stand_in)
    return stand_in.perf_counter


class Counting:
    """An engine that counts the batches it is given."""

    def __init__(self):
        self.batches = 0

    def stream(self, batches):
        for batch in batches:
            self.batches += 1
            yield batch


@pytest.mark.parametrize(("seconds", "allowed", "cut"), [(30.0, 10.0, True), (10.0, 100.0, False)])
def test_a_row_ends_with_its_batch_when_the_time_is_used_up(bench, clock, seconds, allowed, cut):
    engine, tiles = Counting(), np.zeros((2, 4, 4, 3), np.uint8)
    measured = bench.stream_speed(engine, tiles, 2, seconds, clock() + allowed)
    assert measured.cut is cut
    assert measured.seconds < (allowed if cut else seconds) + 3  # the batch under way, and two looks at the clock
    facts = bench.speed_facts(measured, bench.Plan(seconds=seconds))
    assert facts.get("cut") == (f"after {measured.seconds:.1f} of {seconds:g} s" if cut else None)
    before = engine.batches
    late = bench.stream_speed(engine, tiles, 2, seconds, clock() - 1)
    assert late.cut and engine.batches == before + 2  # one to warm up, one measured
    assert late.tiles_per_second == 2 / late.seconds


@pytest.mark.parametrize(("seconds", "allowed", "cut"), [(30.0, 10.0, True), (10.0, 100.0, False)])
def test_torch_is_cut_as_the_engines_are(bench, clock, seconds, allowed, cut):
    calls = []

    def run(tiles):
        calls.append(len(tiles))
        return (tiles.float(),)

    contender = bench.TorchContender(run, np.zeros((2, 4, 4, 3), np.uint8), "cpu")
    measured = contender.speed(seconds, clock() + allowed)
    assert measured.cut is cut and measured.seconds < (allowed if cut else seconds) + 3
    before = len(calls)
    late = contender.speed(seconds, clock() - 1)
    assert late.cut and len(calls) == before + 1


def test_a_dry_run_that_is_cut_says_so_in_its_rows(bench, tmp_path, monkeypatch):
    plan = bench.Plan(("tiny",), ("onnxruntime", "torch eager"), (2,), "cpu", 0.05)
    real = {name: getattr(owner, name) for owner, name in ((bench, "stream_speed"), (bench.TorchContender, "speed"))}
    monkeypatch.setattr(bench, "stream_speed", lambda *given: real["stream_speed"](*given[:-1], time.perf_counter()))
    monkeypatch.setattr(
        bench.TorchContender, "speed", lambda self, seconds, until: real["speed"](self, seconds, time.perf_counter())
    )
    found = bench.gpu_section(tmp_path, plan)
    rows = found["models"]["tiny"]["rows"]
    assert all(row["tiles_per_second"] > 0 and row["cut"].endswith("of 0.05 s") for row in rows.values()) and rows
    assert bench.report(found).count(" (cut after ") == len(rows)


def test_an_engine_that_took_the_rest_to_open_is_not_measured(bench, tmp_path, monkeypatch):
    plan = bench.Plan(("tiny",), ("onnxruntime",), (2,), "cpu", 0.05)
    real = bench.open_engine

    def slow(*given, **named):
        plan.until = time.perf_counter()
        return real(*given, **named)

    monkeypatch.setattr(bench, "open_engine", slow)
    monkeypatch.setattr(bench, "check_engine", lambda *given: pytest.fail("it was measured"))
    found = bench.gpu_section(tmp_path, plan)["models"]["tiny"]["rows"]
    assert found == {"onnxruntime fp32, batch 2": {"not_run": "the time was used up when it was ready to be measured"}}


def test_without_a_gpu_it_says_so(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "visible_gpus", lambda: ())
    found = bench.gpu_section(tmp_path, bench.Plan())
    assert found["run"] is False and "no GPU" in bench.report(found)


def test_an_engine_that_cannot_be_opened_is_a_row(bench, tmp_path):
    plan = bench.Plan(("tiny",), ("tensorrt",), (2,), "cpu", 0.05)
    (row,) = bench.gpu_section(tmp_path, plan)["models"]["tiny"]["rows"].values()
    assert "tensorrt" in row["not_run"]


def test_the_command_takes_its_choice(bench, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        bench, "gpu_section", lambda folder, plan, slide: asked.append(plan) or {"run": False, "why": "x"}
    )
    options = ["--model", "ViT-L/16", "--engine", "tensorrt", "--batch", "64", "--minutes", "2"]
    monkeypatch.setattr(sys, "argv", ["engine_gpu.py", *options, "--json", str(tmp_path / "out.json")])
    bench.main()
    (plan,) = asked
    assert (plan.models, plan.engines, plan.batches) == (["ViT-L/16"], ["tensorrt"], [64])
    assert plan.device == "cuda" and 60 < plan.until - time.perf_counter() <= 120
    assert json.loads((tmp_path / "out.json").read_text())["run"] is False
    assert "Not run: x." in capsys.readouterr().out


def test_dead_rows_are_no_work(bench, tmp_path):
    """Operations are counted in the graph: a product of one row of five costs a fifth."""
    make = helper.make_node
    nodes = [
        make("Cast", ["tiles"], ["x"], to=TensorProto.FLOAT),
        make("Slice", ["x", "start", "end", "axis"], ["row"]),
        make("MatMul", ["row", "w"], ["y"]),
    ]
    weights = {"w": np.ones((6, 7), np.float32), "start": [0], "end": [1], "axis": [1]}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 7])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    assert bench.flops_of_graph(tmp_path / "g.onnx") == 2 * 6 * 7


def test_flops_of_a_transformer(bench, tmp_path):
    """As torch counts them, where every row is read: this model averages over its tokens."""
    models = importlib.import_module("engine_models")
    model, pfm = models.random_model("demo-vit")
    encoder = models.Encoder(model, pfm.mean, pfm.std)
    counted = models.flops_per_tile(encoder, pfm.tile_px)
    importlib.import_module("stamp_deploy.export.graph.to_onnx").write_encoder(
        encoder, tmp_path / "e.onnx", pfm.tile_px
    )
    assert bench.flops_of_graph(tmp_path / "e.onnx") == pytest.approx(counted, rel=0.01)
