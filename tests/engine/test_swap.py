"""Another adapter's weights in a loaded engine: opened anew, or refitted into TensorRT's plan (over a numpy device)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="adapters are exported with torch")
from support.adapter_factory import NAMES, make_adapters
from support.bound_on_cpu import BoundOnCpu
from support.fake_cuda import FakeRuntime, fake_tensorrt

from stamp_deploy.engine import load_engine, swap_adapter
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.golden import load_golden
from stamp_deploy.engine.graph_rewriting import rewrite
from stamp_deploy.engine.registry import open_engine
from stamp_deploy.engine.tensorrt import TensorRTEngine
from stamp_deploy.engine.verdict import accept
from stamp_deploy.errors import EngineError, ParityError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    return make_adapters(tmp_path_factory.mktemp("swap") / "bundle")


@pytest.fixture
def trt(monkeypatch):
    module = fake_tensorrt()
    monkeypatch.setattr(plans, "load_module", lambda flavour: module)
    monkeypatch.setattr("stamp_deploy.engine.tensorrt.load_module", lambda flavour: module)
    monkeypatch.setattr(module, "flags", [])
    monkeypatch.setattr(module, "refits", [])
    monkeypatch.setattr(module, "refuses_refit", False)
    return module


def lanes(bundle, runtime=None):
    cuda = Cuda(0, runtime or FakeRuntime())
    engine = TensorRTEngine(bundle, "tensorrt", batch=5, precision="fp32", cuda=cuda)
    engine.reopen = lambda other: TensorRTEngine(other, "tensorrt", batch=5, precision="fp32", cuda=cuda)
    assert accept(bundle, engine)
    return engine


def says(engine, bundle) -> bool:
    tiles, golden = load_golden(bundle)
    return bool(np.abs(engine.run(tiles[:5]).embedding - golden.embedding[:5]).max() < 1e-4)


def test_onnx_runtime_is_opened_anew(adapters):
    engine = load_engine(adapters["lung"], "onnxruntime", batch=5)
    swapped = swap_adapter(engine, adapters["breast"])
    assert says(swapped, adapters["breast"]) and not says(swapped, adapters["lung"])
    assert swapped.info.why == "asked for, with another adapter's weights"
    with pytest.raises(EngineError, match="closed"):
        engine.run(load_golden(adapters["lung"])[0][:1])
    swapped.close()


def test_an_adapter_that_fails_in_one_form_of_the_graph_takes_the_next(adapters, monkeypatch):
    from onnx import numpy_helper

    def opened(bundle):
        engine = BoundOnCpu(bundle, batch=5, precision="fp16")
        engine.reopen = opened
        return engine

    def wrong(model, form):
        result = rewrite(model, form)
        for tensor in result.graph.initializer:
            if form.low and tensor.name == "project":
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        return result

    monkeypatch.setattr("stamp_deploy.engine.graph_forms.FUSING_ONNXRUNTIME", (1, 0))
    engine = opened(adapters["lung"])
    assert accept(adapters["lung"], engine)
    monkeypatch.setattr("stamp_deploy.engine.mixed_precision.rewrite", wrong)
    engine = swap_adapter(engine, adapters["breast"])
    assert engine.accepted and engine.info.details["graph"] == "plain"
    engine.close()


def test_a_plan_is_refitted_and_not_built_again(adapters, trt):
    runtime = FakeRuntime()
    engine = lanes(adapters["lung"], runtime)
    builds, streams = len(trt.builds), sorted(runtime.streams)
    compiled = {engine.compiled}
    for name in ("breast", "lung", "breast"):
        engine = swap_adapter(engine, adapters[name])
        assert says(engine, adapters[name]) and engine.accepted
        compiled.add(engine.compiled)
    assert len(trt.builds) == builds and len(trt.refits) == 3 and sorted(runtime.streams) == streams
    assert "refit" in trt.flags and len(compiled) == 3, "each adapter has a verdict of its own"
    engine.close()
    assert runtime.leaks() == ""


def test_a_plan_that_takes_no_weights_is_built_for_them(adapters, trt):
    engine = lanes(adapters["lung"])
    trt.refuses_refit = True
    builds = len(trt.builds)
    engine = swap_adapter(engine, adapters["breast"])
    assert says(engine, adapters["breast"]) and len(trt.builds) == builds + 1
    engine.close()


def test_a_refit_that_comes_out_wrong_is_not_used_and_the_plan_stays(adapters, trt, monkeypatch):
    engine = lanes(adapters["lung"])
    folder = engine.plan.folder
    monkeypatch.setattr(trt, "wrong_streams", {1, 2})
    with pytest.raises(ParityError, match="with this adapter"):
        swap_adapter(engine, adapters["breast"])
    assert folder.is_dir(), "it was built for other weights, with which it passed"
    monkeypatch.setattr(trt, "wrong_streams", set())
    again = lanes(adapters["lung"])
    assert again.accepted
    again.close()


def test_plans_of_bundles_with_one_model_cannot_be_refitted(trt, tmp_path):
    """A plan that can be refitted may be slower."""
    from support.bundle_factory import make_bundle

    from stamp_deploy.bundle import load_bundle

    engine = lanes(load_bundle(make_bundle(tmp_path / "one")))
    assert "refit" not in trt.flags
    engine.close()


def test_the_real_library_has_what_refitting_calls():
    for flavour in plans.MODULES:
        try:
            real = plans.load_module(flavour)
        except EngineError:
            continue
        assert hasattr(real.BuilderFlag, "REFIT") and hasattr(real.OnnxParserRefitter, "refit_from_file")
        assert hasattr(real.Refitter, "refit_cuda_engine") and hasattr(real.Refitter, "get_missing_weights")
        return
    pytest.skip("no TensorRT is installed")


def test_tensorrt_rtx_builds_an_adapter_without_a_gpu(adapters):
    try:
        plans.load_module("tensorrt-rtx")
    except EngineError as error:
        pytest.skip(str(error))
    assert plans.get_plan(adapters["lung"], "tensorrt-rtx", None, batch=4, precision="fp16").data


def test_names(adapters):
    assert tuple(adapters) == NAMES
    engine = open_engine(adapters["lung"], "onnxruntime", batch=2)
    assert engine.info.precision == "fp32"
    engine.close()
