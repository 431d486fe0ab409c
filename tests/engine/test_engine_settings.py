"""What engines are told when they are opened, and which faults of their runtimes become which errors."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.bound_on_cpu import BoundOnCpu
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import golden, mixed_precision, onnxruntime_cuda
from stamp_deploy.engine.auto import open_accepted
from stamp_deploy.engine.golden import load_golden, time_and_check, time_engine
from stamp_deploy.engine.graph_forms import PLAIN, Form
from stamp_deploy.engine.interface import Engine
from stamp_deploy.engine.mixed_precision import _as_it_is
from stamp_deploy.engine.onnxruntime import OnnxRuntimeEngine
from stamp_deploy.engine.onnxruntime_cuda import OnnxRuntimeCudaEngine
from stamp_deploy.engine.registry import open_engine
from stamp_deploy.errors import EngineError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("s") / "bundle", golden_tiles=10))


@pytest.mark.parametrize(("given", "used"), [({}, None), ({"threads": 0}, None), ({"threads": 1}, "1")])
def test_threads_are_all_cores_unless_a_number_is_given(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, given: dict[str, int], used: str | None
) -> None:
    monkeypatch.setattr("stamp_deploy.engine.onnxruntime.usable_cores", lambda: 3)
    engine = open_engine(bundle, "onnxruntime", batch=2, **given)  # type: ignore[arg-type]
    assert engine.info.details["threads"] == (used or "3")
    again = engine.reopen(bundle)  # type: ignore[misc]
    assert again.info.details["threads"] == engine.info.details["threads"] and again.max_batch == 2
    engine.close()
    again.close()


def test_an_engine_that_is_accepted_has_all_cores_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("stamp_deploy.engine.onnxruntime.usable_cores", lambda: 3)
    engine = open_accepted(bundle, "onnxruntime", batch=2)
    assert engine.info.details["threads"] == "3" and engine.accepted
    assert isinstance(engine, Engine) and not isinstance(bundle, Engine)
    engine.close()


def test_onnx_runtime_opened_by_its_class_has_all_cores(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stamp_deploy.engine.onnxruntime.usable_cores", lambda: 3)
    engine = OnnxRuntimeEngine(bundle, batch=2)
    assert engine.info.details["threads"] == "3"
    engine.close()


def test_a_converted_graph_that_is_too_large_for_one_message_has_its_weights_beside_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle.encoder)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert size > 0 and mixed_precision.INLINE_LIMIT_BYTES == 1_500_000_000
    for limit, name, files in ((size, "a.onnx", ["a.onnx"]), (size - 1, "b.onnx", ["b.onnx", "b.onnx.data"])):
        monkeypatch.setattr(mixed_precision, "INLINE_LIMIT_BYTES", limit)
        mixed_precision.save(onnx.load(bundle.encoder), tmp_path / name)
        assert sorted(path.name for path in tmp_path.glob(f"{name}*")) == files
    whole, parts = (onnx.load(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    for one, other in zip(whole.graph.initializer, parts.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))


class Counting:
    """An engine of the protocol alone, without lanes; says how many rows it was given."""

    def __init__(self, bundle: Bundle, batch: int, depth: int | None) -> None:
        self.engine = open_engine(bundle, "onnxruntime", batch=batch, threads=1)
        self.info, self.max_batch, self.rows = self.engine.info, batch, list[int]()
        if depth is not None:
            self.depth = depth

    def stream(self, batches: Any) -> Any:
        for tiles in batches:
            self.rows.append(len(tiles))
            yield self.engine.run(tiles)


@pytest.mark.parametrize(("depth", "full"), [(None, 2), (1, 2), (2, 4), (3, 6), (5, 10)])
def test_every_lane_has_two_full_batches(bundle: Bundle, depth: int | None, full: int) -> None:
    engine = Counting(bundle, 7, depth)
    time_engine(bundle, engine)  # type: ignore[arg-type]
    assert engine.rows == [7] * full and golden.BATCHES_PER_LANE == 2
    engine.rows.clear()
    report, _, _ = time_and_check(bundle, engine)  # type: ignore[arg-type]
    assert engine.rows == [7] * full + [3]  # ten golden tiles are in two batches of seven
    assert report and report.details["rows"] == str(7 * full + 3)
    engine.engine.close()


def test_golden_tiles_are_all_seen_where_batches_are_small(bundle: Bundle) -> None:
    for batch, rows in ((1, [1] * 10), (4, [4] * 3 + [3]), (9, [9, 9, 3]), (64, [64, 64, 3])):
        engine = Counting(bundle, batch, 1)
        time_and_check(bundle, engine)  # type: ignore[arg-type]
        assert engine.rows == rows
        engine.engine.close()


CHANGED = Form("fused", fused=True)


@pytest.mark.parametrize(
    ("of_bundle", "wanted", "form", "as_it_is"),
    [
        ("fp32", "fp32", PLAIN, True), ("fp32", "fp32", CHANGED, False), ("fp32", "fp16", PLAIN, False),
        ("fp16", "fp16", PLAIN, True), ("fp16", "fp16", CHANGED, True), ("bf16", "bf16", CHANGED, True),
        ("int8", "int8", CHANGED, True), ("fp8", "fp8", CHANGED, True), ("int8", "fp32", PLAIN, False),
    ],
)  # fmt: skip
def test_forms_are_of_fp32_bundles(bundle: Bundle, of_bundle: str, wanted: str, form: Form, as_it_is: bool) -> None:
    assert _as_it_is(replace(bundle, precision=of_bundle), wanted, form) == as_it_is


class OnDevice(BoundOnCpu):
    memory = "".join(["cu", "da"])


@pytest.mark.parametrize(("engine", "times"), [(BoundOnCpu, 0), (OnDevice, 1)])
def test_libraries_of_cuda_are_loaded_where_the_memory_is_a_gpu_s(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, engine: type[BoundOnCpu], times: int, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path))
    loaded: list[int] = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append(1), raising=False)
    try:
        engine(bundle, batch=2, precision="fp32").close()
    except Exception:
        assert engine is OnDevice  # there is no GPU here
    assert len(loaded) == times


def test_buffers_are_page_locked_where_the_memory_is_a_gpu_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: int) -> None:
        raise EngineError("there is no driver" + "." * 200)

    for kind, found, said in ((BoundOnCpu, absent, "the buffers are the host's"), (OnDevice, absent, "there is no dri"),
                              (OnDevice, lambda device: f"cuda {device}", "")):  # fmt: skip
        monkeypatch.setattr(onnxruntime_cuda, "Cuda", found)
        engine = object.__new__(kind)
        engine._device = 3
        cuda, why = engine._find_cuda()
        assert cuda == ("cuda 3" if not said else None) and why.startswith(said) and len(why) <= 120


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
def test_a_run_is_queued_where_there_is_a_stream_and_each_lane_has_a_graph(on_device: bool, graphs: bool) -> None:
    seen: list[Any] = []
    engine = object.__new__(OnnxRuntimeCudaEngine)
    engine._graphs, engine._cuda = graphs, object() if on_device else None  # type: ignore[assignment]
    engine._session = type("Session", (), {"run_with_iobinding": lambda self, *given: seen.append(given)})()
    engine._run("binding", 1)
    ((binding, options),) = seen
    assert binding == "binding"
    for key, value in (
        ("gpu_graph_id", "2" if graphs else None),
        ("disable_synchronize_execution_providers", "1" if on_device else None),
    ):
        if value is None:
            with pytest.raises(RuntimeError):
                options.get_run_config_entry(key)
        else:
            assert options.get_run_config_entry(key) == value


def test_openvino_s_faults_are_errors_of_the_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    engine = open_engine(bundle, "openvino", batch=2, threads=1, precision="fp32")
    assert version("openvino").startswith(engine.info.version) and engine.info.version.count(".") >= 2
    tiles, expected = load_golden(bundle)
    np.testing.assert_allclose(engine.run(tiles[:2]).pathways, expected.pathways[:2], atol=1e-4)

    def fails(*given: Any, **more: Any) -> None:
        raise RuntimeError("Exception from src/x.cpp:1:\nno room for it")

    monkeypatch.setattr("stamp_deploy.engine.openvino_streams.Streams.run", fails)
    with pytest.raises(EngineError, match="OpenVINO fails: no room for it") as stopped:
        engine.run(tiles[:2])
    assert stopped.value.remedy == "use --engine onnxruntime"
    engine.close()
    monkeypatch.setattr(openvino.Core, "compile_model", fails)
    with pytest.raises(EngineError, match="cannot load the encoder: no room for it"):
        open_engine(bundle, "openvino", batch=2, threads=1, precision="fp32")
