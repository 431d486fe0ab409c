"""TensorRT's lanes over a CUDA runtime made of numpy: faults, short memory, plans that do not load, several GPUs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.fake_cuda import FakeRuntime, fake_tensorrt

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine import auto, cuda, load_engine, machine, open_engine, verdict
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.engine.auto import Trial
from stamp_deploy.engine.cache import cache_dir
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.golden import check_engine, load_golden
from stamp_deploy.engine.tensorrt import TensorRTEngine
from stamp_deploy.errors import BundleError, EngineError, ParityError

BATCH = 5
TILE_BYTES = 64 * 64 * 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("lanes") / "bundle", golden_tiles=12))


@pytest.fixture(autouse=True)
def trt(tmp_path, monkeypatch):
    """The fake module in the place of TensorRT, and a cache of its own."""
    module = fake_tensorrt()
    monkeypatch.setattr(module, "wrong_streams", set())
    monkeypatch.setattr(module, "gives_nothing", [])
    monkeypatch.setattr(module, "kernels", [])
    monkeypatch.setattr(module, "capturable", None)
    monkeypatch.setattr(plans, "load_module", lambda flavour: module)
    monkeypatch.setattr("stamp_deploy.engine.tensorrt.load_module", lambda flavour: module)
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
    return module


def lanes(bundle, runtime=None, batch=BATCH, device=0):
    return TensorRTEngine(
        bundle, "tensorrt", batch=batch, precision="fp32", device=device, cuda=Cuda(device, runtime or FakeRuntime())
    )


class TestEveryLaneAndRow:
    @pytest.mark.parametrize("number", [1, 2])
    def test_a_lane_that_is_wrong_fails_parity(self, bundle, trt, monkeypatch, number):
        engine = lanes(bundle)
        assert check_engine(bundle, engine)
        monkeypatch.setattr(trt, "wrong_streams", {number})
        assert not check_engine(bundle, engine)
        engine.close()

    def test_a_row_that_is_wrong_on_one_lane_fails_parity(self, bundle, trt, monkeypatch):
        engine = lanes(bundle, batch=40)  # more than the golden tiles
        assert check_engine(bundle, engine)
        monkeypatch.setattr(trt, "wrong_streams", {2})
        monkeypatch.setattr(trt, "wrong_rows", slice(39, 40))
        assert not check_engine(bundle, engine)
        engine.close()


class TestFaults:
    def test_the_first_error_is_told_and_closing_is_quiet(self, bundle):
        runtime = FakeRuntime()
        engine = lanes(bundle, runtime)
        tiles = load_golden(bundle)[0]
        stream = engine.stream([tiles[:5]] * 4)
        next(stream)
        runtime.broken = True
        with pytest.raises(EngineError, match="cudaErrorIllegalAddress"):
            list(stream)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(tiles[:1])

    def test_everything_is_given_back_although_one_thing_fails(self, bundle, monkeypatch):
        runtime = FakeRuntime()
        engine = lanes(bundle, runtime)
        refused = []
        real = runtime.cudaFree

        def free_once(address):
            if not refused:
                refused.append(address)
                return fake_code("cudaErrorIllegalAddress"), None
            return real(address)

        monkeypatch.setattr(runtime, "cudaFree", free_once)
        engine.close()
        assert runtime.leaks() == "1 device"

    def test_auto_goes_on_with_onnx_runtime(self, bundle, monkeypatch):
        runtime = FakeRuntime()
        real = open_engine

        def opened(bundle, name, **kw):
            if name != "tensorrt":
                return real(bundle, name, **kw)
            engine = lanes(bundle, runtime, batch=kw["batch"])
            runtime.broken = True
            return engine

        monkeypatch.setattr(auto, "candidates", lambda: ("onnxruntime", "tensorrt"))
        monkeypatch.setattr(auto, "open_engine", opened)
        engine = load_engine(bundle, batch=BATCH)
        assert engine.info.name == "onnxruntime" and "cudaErrorIllegalAddress" in engine.info.why
        engine.close()

    def test_lane_0_is_freed_when_lane_1_fails(self, bundle):
        runtime = FakeRuntime()
        runtime.streams_left = 1
        with pytest.raises(EngineError, match="cudaStreamCreateWithFlags"):
            lanes(bundle, runtime)
        assert runtime.leaks() == ""

    def test_a_plan_of_another_shape_is_refused(self, bundle, monkeypatch):
        from support.fake_cuda import Context

        real = Context.get_tensor_shape
        monkeypatch.setattr(
            Context, "get_tensor_shape", lambda self, n: (10, 16) if n == "embedding" else real(self, n)
        )
        runtime = FakeRuntime()
        with pytest.raises(BundleError, match=r"embedding the shape \(10, 16\)"):
            lanes(bundle, runtime)
        assert runtime.leaks() == ""


def fake_code(name):
    from support.fake_cuda import Code

    return Code[name]


class TestPlansThatDoNotLoad:
    def accepted(self, bundle):
        engine = lanes(bundle)
        assert verdict.accept(bundle, engine)
        engine.close()
        return engine.plan

    @pytest.mark.parametrize("words", ["[defaultAllocator.cpp] CUDA out of memory", "OutOfMemory: requested 4 GB"])
    def test_short_memory_halves_and_keeps_the_plan(self, bundle, trt, words):
        plan = self.accepted(bundle)
        trt.gives_nothing.append(words)
        engine = lanes(bundle)
        assert engine.info.details["batch"] == "halved from 5 to 3: out of memory"
        assert not engine.accepted and (plan.folder / plans.PLAN_FILE).is_file()
        engine.close()
        again = lanes(bundle)
        assert again.piece == 5 and again.accepted
        again.close()

    def test_a_plan_of_another_version_is_built_again(self, bundle, trt):
        self.accepted(bundle)
        builds = len(trt.builds)
        trt.gives_nothing.append("Serialization: version tag does not match. Current Version: 240, Serialized: 239")
        engine = lanes(bundle)
        assert len(trt.builds) == builds + 1 and not engine.accepted
        engine.close()

    @pytest.mark.parametrize("words", ["", "Cuda Runtime (an illegal memory access was encountered)"])
    def test_an_unknown_reason_is_told_and_the_plan_kept(self, bundle, trt, words):
        plan = self.accepted(bundle)
        trt.gives_nothing.append(words)
        with pytest.raises(EngineError, match=words[:20].replace("(", r"\(") or "gives no reason"):
            lanes(bundle)
        again = lanes(bundle)
        assert again.accepted and again.plan.folder == plan.folder
        again.close()

    def test_the_bytes_of_a_plan_are_dropped(self, bundle):
        engine = lanes(bundle)
        assert engine.plan.data == b"" and (engine.plan.folder / plans.PLAN_FILE).stat().st_size > 1000
        engine.close()


class TestAPlanBuiltAgain:
    """The choice of `auto` is remembered, plans/ was deleted, and the library builds something wrong now."""

    def test_it_is_not_served(self, bundle, trt, monkeypatch):
        monkeypatch.setattr(auto, "candidates", lambda: ("onnxruntime", "tensorrt"))
        monkeypatch.setattr(auto, "_speed", lambda b, engine, v: 100.0 if engine.info.name == "tensorrt" else 1.0)
        real = open_engine
        monkeypatch.setattr(
            auto,
            "open_engine",
            lambda b, name, **kw: lanes(b, batch=kw["batch"]) if name == "tensorrt" else real(b, name, **kw),
        )
        first = load_engine(bundle, batch=BATCH)
        assert first.info.name == "tensorrt"
        first.close()
        for folder in (cache_dir() / "plans").iterdir():
            plans.shutil.rmtree(folder)
        monkeypatch.setattr(trt, "error", 0.5)
        changed = plans.build_plan

        def other_bytes(*args, **kwargs):  # another plan than the one that was accepted
            data = changed(*args, **kwargs)
            return data + b"\x1a\x00"  # an empty field of ModelProto: the same network

        monkeypatch.setattr(plans, "build_plan", other_bytes)
        second = load_engine(bundle, batch=BATCH)
        assert second.info.name == "onnxruntime" and "fails parity" in second.info.why
        second.close()

    @pytest.mark.parametrize("good", [True, False])
    def test_halving_while_scoring_is_checked(self, bundle, trt, monkeypatch, good):
        runtime = FakeRuntime()
        engine = lanes(bundle, runtime)
        assert verdict.accept(bundle, engine)
        runtime.free_bytes = 0
        tiles = load_golden(bundle)[0]
        real = runtime.cudaGraphLaunch
        calls = []

        def launch(graph, stream):
            calls.append(1)
            return (fake_code("cudaErrorMemoryAllocation"),) if len(calls) == 1 else real(graph, stream)

        monkeypatch.setattr(runtime, "cudaGraphLaunch", launch)
        monkeypatch.setattr(trt, "error", 0.0 if good else 0.5)
        if good:
            found = list(engine.stream([tiles[:5], tiles[5:10]]))
            expected = load_golden(bundle)[1].pathways[:10]
            np.testing.assert_allclose(np.concatenate([o.pathways for o in found]), expected, atol=1e-4)
            assert engine.piece == 3 and engine.accepted
            engine.close()
        else:
            with pytest.raises(ParityError, match="compiled again"):
                list(engine.stream([tiles[:5], tiles[5:10]]))
        assert runtime.leaks() == ""


class TestRtx:
    """TensorRT-RTX: its GPUs, its kernels compiled at once and kept, its word on whether work can be recorded."""

    @pytest.fixture(autouse=True)
    def rtx(self, trt, monkeypatch):
        monkeypatch.setattr(trt, "__name__", "tensorrt_rtx")

    def opened(self, bundle, runtime):
        return TensorRTEngine(bundle, "tensorrt-rtx", batch=BATCH, precision="fp32", cuda=Cuda(0, runtime))

    def test_hopper_is_refused_before_anything_is_built(self, bundle, trt):
        builds = len(trt.builds)
        with pytest.raises(EngineError, match=r"no kernels for compute capability 9\.0 \(Numpy\)") as caught:
            self.opened(bundle, FakeRuntime(major=9))
        assert len(trt.builds) == builds and "onnxruntime-cuda" in caught.value.remedy

    def test_a_later_version_is_tried(self, bundle, trt, monkeypatch):
        monkeypatch.setattr(trt, "__version__", "1.8.0.1")
        self.opened(bundle, FakeRuntime(major=9)).close()

    def test_kernels_are_compiled_once(self, bundle, trt):
        first = self.opened(bundle, FakeRuntime(major=12))
        assert check_engine(bundle, first) and trt.kernels == ["compiled"]
        assert all(
            lane.context.config.dynamic_shapes_kernel_specialization_strategy == "eager" for lane in first._lanes
        )
        first.close()
        self.opened(bundle, FakeRuntime(major=12)).close()
        assert trt.kernels == ["compiled"]

    def test_kernels_that_were_changed_are_not_loaded(self, bundle, trt):
        self.opened(bundle, FakeRuntime(major=12)).close()
        (path,) = (cache_dir() / "plans").glob("*/kernels.bin")
        path.write_bytes(path.read_bytes() + b"!")
        self.opened(bundle, FakeRuntime(major=12)).close()
        assert trt.kernels == ["compiled", "compiled"]

    @pytest.mark.parametrize("can", [True, False])
    def test_its_word_on_recording_is_taken(self, bundle, trt, can):
        trt.capturable = can
        engine = self.opened(bundle, FakeRuntime(major=12))
        assert engine.info.details["cuda_graphs"] == ("yes" if can else "no") and check_engine(bundle, engine)
        engine.close()

    def test_plans_allocate_nothing_while_running(self, bundle, trt):
        self.opened(bundle, FakeRuntime(major=12)).close()
        assert trt.flags[-1:] == ["user allocation"]


def test_a_graph_that_fails_on_the_first_run_is_done_without(bundle, monkeypatch):
    """ONNX Runtime records its CUDA graph in the first run, not when the session is made."""
    from stamp_deploy.engine.onnxruntime_cuda import OnnxRuntimeCudaEngine

    class Bound(OnnxRuntimeCudaEngine):
        name, provider, memory = "bound-cpu", "CPUExecutionProvider", "cpu"
        refuses = True

        def _allocate(self):
            if not hasattr(self, "seen"):
                self._graphs, self.seen = True, []
            super()._allocate()

        def _submit(self, piece):
            self.seen.append(self._graphs)
            if self._graphs and self.refuses:
                raise EngineError("ONNX Runtime fails: the graph cannot be recorded")
            return super()._submit(piece)

    engine = Bound(bundle, batch=BATCH, precision="fp32")
    assert engine.seen == [True] and engine.info.details["cuda_graphs"].startswith("no: ONNX Runtime fails")
    assert check_engine(bundle, engine)
    engine.close()
    monkeypatch.setattr(Bound, "refuses", False)
    engine = Bound(bundle, batch=BATCH, precision="fp32")
    assert engine.seen == [True]
    engine.close()


class TestKeys:
    def folder(self, bundle):
        gpu = Cuda(0, FakeRuntime()).gpu()
        return plans.plan_folder(bundle, "tensorrt", "1", gpu, BATCH, "fp16")

    @pytest.mark.parametrize(
        ("where", "name", "value"),
        [
            (plans, "package_versions", lambda: {"onnx": "9"}),
            (plans, "package_versions", lambda: {"cuda-bindings": "9"}),
            (plans, "library_versions", lambda: {"libcudnn.so.9": 91000}),
            (machine, "driver_build", lambda: "NVRM version: 590.1"),
            (plans, "WORKSPACE_BYTES", 1 << 30),
            (plans, "BUILDER_VERSION", 99),
        ],
        ids=["onnx", "cuda-bindings", "cuDNN", "driver build", "workspace", "builder"],
    )
    def test_a_plan_does_not_outlive_a_change(self, bundle, monkeypatch, where, name, value):
        before = self.folder(bundle)
        assert before == self.folder(bundle)
        monkeypatch.setattr(where, name, value)
        assert self.folder(bundle) != before

    def test_the_packages_that_compute_are_known(self):
        known = machine.package_versions()
        assert {"onnx", "numpy", "stamp-deploy"} <= known.keys() and "pytest" not in known

    def test_the_driver_build_is_its_own_words(self, tmp_path):
        path = tmp_path / "version"
        path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\nGCC version: 12\n")
        assert machine.driver_build(path) == "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06"
        assert machine.driver_build(tmp_path / "none") == ""


class TestSeveralGpus:
    def test_looking_makes_no_context(self, monkeypatch):
        runtime = FakeRuntime(devices=3)
        monkeypatch.setattr(cuda, "_runtime", lambda: runtime)
        assert [gpu.index for gpu in cuda.visible_gpus()] == [0, 1, 2]
        assert runtime.made_current == []

    def test_everything_lies_on_the_engines_own_device(self, bundle):
        runtime = FakeRuntime(devices=2)
        engine = lanes(bundle, runtime, device=1)
        want = engine.run(load_golden(bundle)[0][:3]).pathways
        results = []

        def elsewhere():  # a thread whose current device is 0
            runtime.thread.device = 0
            results.append(engine.run(load_golden(bundle)[0][:3]).pathways)
            runtime.thread.device = 0
            engine.close()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        np.testing.assert_array_equal(results[0], want)
        assert set(runtime.lies_on) == {1} and runtime.leaks() == ""

    @pytest.mark.parametrize(
        "call", [lambda c: c.allocate(8), lambda c: c.pinned((2,), np.float32), lambda c: c.stream()]
    )
    def test_each_call_makes_its_device_current(self, call):
        runtime = FakeRuntime(devices=2)
        call(Cuda(1, runtime))
        assert runtime.lies_on == [1]


def test_a_trial_that_did_not_run_is_no_failed_parity(bundle, monkeypatch):
    """Errors are told apart by what happened, not by words in a message."""
    refused = Trial("onnxruntime", "fp32", 0.0, "cannot be loaded (parity of the moon)", loaded=False)
    monkeypatch.setattr(auto, "candidates", lambda: ("onnxruntime",))
    monkeypatch.setattr(auto, "_try", lambda *args: refused)
    with pytest.raises(EngineError, match="no engine can be used"):
        load_engine(bundle, batch=BATCH)
