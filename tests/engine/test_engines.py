"""One suite for every engine: the protocol, the numbers, the edges, memory, and how `auto` chooses.

Engines that cannot run on this machine skip with the reason that they give themselves. Two of them are exercised
without their device: ONNX Runtime's bound engine on the CPU provider, and TensorRT's lanes over a CUDA runtime made
of numpy.
"""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
from support.bound_on_cpu import BoundOnCpu
from support.bundle_factory import make_bundle
from support.fake_cuda import FakeRuntime, fake_tensorrt

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine import ENGINES, Engine, load_engine, open_engine
from stamp_deploy.engine import auto as choosing
from stamp_deploy.engine import tensorrt_plan as plans
from stamp_deploy.engine.base import BatchedEngine, OutOfMemory
from stamp_deploy.engine.cache import cache_dir
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.golden import check_engine, load_golden
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.engine.tensorrt import TensorRTEngine
from stamp_deploy.errors import EngineError, ParityError

BATCH = 5
STAND_INS = ("bound on the CPU", "lanes over numpy")
GPU = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
PARAMS = [pytest.param(name, marks=pytest.mark.gpu if name in GPU else ()) for name in (*ENGINES, *STAND_INS)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("engines") / "bundle", golden_tiles=24))


@pytest.fixture(scope="module")
def golden(bundle):
    return load_golden(bundle)


def opened(bundle, name, batch=BATCH, **kwargs) -> BatchedEngine:
    if name == "bound on the CPU":
        return BoundOnCpu(bundle, batch=batch, precision="fp32", **kwargs)
    if name == "lanes over numpy":
        runtime = kwargs.pop("runtime", None) or FakeRuntime()
        return TensorRTEngine(bundle, "tensorrt", batch=batch, precision="fp32", cuda=Cuda(0, runtime), **kwargs)
    try:
        return open_engine(bundle, name, batch=batch, **kwargs)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def numpy_tensorrt(request, bundle, monkeypatch):
    """Where TensorRT's lanes are tested over numpy, its module is one that computes with ONNX Runtime."""
    if "lanes over numpy" in request.node.name or "fake_tensorrt" in request.node.name:
        module = fake_tensorrt()
        monkeypatch.setattr(plans, "load_module", lambda flavour: module)
        monkeypatch.setattr("stamp_deploy.engine.tensorrt.load_module", lambda flavour: module)
        monkeypatch.setenv("STAMP_CACHE_DIR", str(cache_dir() / "fake"))


@pytest.mark.parametrize("name", PARAMS)
class TestEveryEngine:
    def test_fits_the_protocol_and_says_what_it_is(self, bundle, name):
        engine = opened(bundle, name)
        assert isinstance(engine, Engine) and engine.max_batch == BATCH
        info = engine.info
        assert info.name and info.version and info.device and info.precision in ("fp32", "fp16", "bf16")
        json.dumps(info.details, allow_nan=False)
        assert all(isinstance(value, str) for value in info.details.values())
        engine.close()

    def test_passes_parity_on_the_golden_tiles(self, bundle, name):
        engine = opened(bundle, name)
        report = check_engine(bundle, engine)
        assert report, report.failures
        assert report.tiles == 24
        engine.close()

    def test_every_batch_size_gives_the_same_rows(self, bundle, golden, name):
        """Padding, pieces and buffers that hold older tiles must not show."""
        engine = opened(bundle, name)
        tiles = golden[0]
        whole = engine.run(tiles[:BATCH])
        assert whole.embedding.shape == (BATCH, bundle.embedding_dim) and whole.embedding.dtype == np.float32
        assert whole.pathways.shape == (BATCH, len(bundle.pathways)) and whole.pathways.dtype == np.float32
        for size in (1, 2, BATCH - 1):
            part = engine.run(tiles[:size])
            np.testing.assert_allclose(part.embedding, whole.embedding[:size], rtol=0, atol=2e-5)
            np.testing.assert_allclose(part.pathways, whole.pathways[:size], rtol=0, atol=2e-5)
        engine.close()

    def test_a_stream_keeps_order_and_may_reuse_its_array(self, bundle, golden, name):
        """The tiler overwrites a batch once the next one is asked for."""
        engine = opened(bundle, name)
        tiles = golden[0]
        sizes = [5, 1, 5, 3, 2, 5]
        parts = np.split(tiles[: sum(sizes)], np.cumsum(sizes)[:-1])
        alone = [engine.run(part) for part in parts]
        ring = np.empty_like(tiles[:BATCH])

        def reused():
            for part in parts:
                ring[...] = 0
                ring[: len(part)] = part
                yield ring[: len(part)]

        found = list(engine.stream(reused()))
        assert [len(output.embedding) for output in found] == sizes
        for output, want in zip(found, alone, strict=True):
            np.testing.assert_array_equal(output.embedding, want.embedding)
            np.testing.assert_array_equal(output.pathways, want.pathways)
        engine.close()

    def test_outputs_belong_to_the_caller(self, bundle, golden, name):
        engine = opened(bundle, name)
        first = engine.run(golden[0][:3])
        kept = first.embedding.copy()
        for _ in range(3):
            engine.run(golden[0][5:9])
        np.testing.assert_array_equal(first.embedding, kept)
        engine.close()

    def test_an_abandoned_stream_leaves_the_engine_usable(self, bundle, golden, name):
        engine = opened(bundle, name)
        want = engine.run(golden[0][:2]).embedding
        stream = engine.stream([golden[0][:5]] * 4)
        next(stream)
        stream.close()
        np.testing.assert_array_equal(engine.run(golden[0][:2]).embedding, want)
        engine.close()

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((0, 64, 64, 3), np.uint8),
            np.zeros((BATCH + 1, 64, 64, 3), np.uint8),
            np.zeros((1, 64, 64, 3), np.float32),
            np.zeros((1, 3, 64, 64), np.uint8),
            np.zeros((1, 32, 64, 3), np.uint8),
            np.zeros((64, 64, 3), np.uint8),
        ],
        ids=lambda array: f"{array.dtype}{array.shape}",
    )
    def test_refuses_other_arrays(self, bundle, name, bad):
        engine = opened(bundle, name)
        with pytest.raises(EngineError, match="was handed"):
            engine.run(bad)
        engine.close()

    def test_takes_strided_tiles(self, bundle, golden, name):
        engine = opened(bundle, name)
        tiles = golden[0][:4]
        np.testing.assert_array_equal(
            engine.run(tiles[::2]).embedding, engine.run(np.ascontiguousarray(tiles[::2])).embedding
        )
        engine.close()

    def test_closes_twice_and_then_refuses(self, bundle, golden, name):
        engine = opened(bundle, name)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(golden[0][:1])

    def test_opens_no_socket(self, bundle, golden, name, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("an engine tried to open a connection")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        engine = opened(bundle, name)
        engine.run(golden[0][:1])
        engine.close()


class Scarce(BatchedEngine):
    """A device that holds `room` tiles at once; every `_submit` beyond that fails."""

    def __init__(self, room: int, batch: int, depth: int = 1) -> None:
        super().__init__(EngineInfo("scarce", "1", "none", "fp32"), tile_px=2, embedding_dim=1, pathways=1, batch=batch)
        self.room, self.depth, self.sizes = room, depth, []

    def _submit(self, piece):
        if len(piece) > self.room:
            raise OutOfMemory("no room")
        self.sizes.append(len(piece))
        values = piece.reshape(len(piece), -1)[:, :1].astype(np.float32)
        return EngineOutput(values, values)

    def _collect(self, ticket):
        return ticket


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("room", [1, 3, 4, 9])
def test_out_of_memory_halves_the_batch_and_says_so(room, depth):
    engine = Scarce(room, batch=16, depth=depth)
    tiles = np.arange(40, dtype=np.uint8).repeat(12).reshape(40, 2, 2, 3)
    batches = [tiles[:16], tiles[16:17], tiles[17:33], tiles[33:]]
    found = list(engine.stream(batches))
    assert [len(o.embedding) for o in found] == [16, 1, 16, 7]
    np.testing.assert_array_equal(np.concatenate([o.embedding for o in found])[:, 0], np.arange(40))
    assert engine.max_batch == 16 and max(engine.sizes) <= room
    assert engine.info.details["batch"] == f"halved from 16 to {max(engine.sizes)}: out of memory"


class Filling(Scarce):
    """A device of 6 tiles of room, which those that are in flight take up until they are collected."""

    def __init__(self) -> None:
        super().__init__(room=6, batch=16, depth=3)

    def _submit(self, piece):
        ticket = super()._submit(piece)
        self.room -= len(piece)
        return ticket

    def _collect(self, ticket):
        self.room += len(ticket.embedding)
        return ticket


def test_memory_that_ends_while_batches_are_in_flight_changes_no_order():
    """The third batch finds no room beside the first two. Their answers come first: a later one would be theirs."""
    tiles = np.arange(10, dtype=np.uint8).repeat(12).reshape(10, 2, 2, 3)
    found = list(Filling().stream([tiles[:2], tiles[2:4], tiles[4:8], tiles[8:]]))
    assert [answer.embedding[:, 0].tolist() for answer in found] == [[0, 1], [2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_tile_that_does_not_fit_alone_is_an_error():
    with pytest.raises(EngineError, match="single tile"):
        Scarce(0, batch=8).run(np.zeros((8, 2, 2, 3), np.uint8))


class TestTheLanes:
    """What only the fake CUDA runtime can show; the fixture `numpy_tensorrt` looks for "fake_tensorrt" in the names."""

    def test_fake_tensorrt_replays_graphs_on_two_streams(self, bundle, golden):
        runtime = FakeRuntime()
        engine = opened(bundle, "lanes over numpy", runtime=runtime)
        list(engine.stream([golden[0][:5]] * 6))
        assert runtime.launches == [3, 3] and engine.info.details["cuda_graphs"] == "yes"
        engine.close()
        assert runtime.leaks() == ""

    def test_fake_tensorrt_works_where_it_cannot_be_recorded(self, bundle, golden):
        runtime = FakeRuntime(capturable=False)
        engine = opened(bundle, "lanes over numpy", runtime=runtime)
        assert check_engine(bundle, engine) and engine.info.details["cuda_graphs"] == "no"
        engine.close()
        assert runtime.leaks() == ""

    def test_fake_tensorrt_halves_the_batch_when_memory_is_short(self, bundle, golden):
        tile_bytes = 64 * 64 * 3
        runtime = FakeRuntime(device_bytes=int(2 * 3.5 * tile_bytes))
        engine = opened(bundle, "lanes over numpy", runtime=runtime)
        assert engine.info.details["batch"] == "halved from 5 to 3: out of memory"
        assert check_engine(bundle, engine)
        engine.close()
        assert runtime.leaks() == ""

    def test_fake_tensorrt_plans_are_kept_checked_and_accepted_once(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
        builds = fake_tensorrt().builds
        first = opened(bundle, "lanes over numpy")
        assert not first.accepted
        first.accept()
        count = len(builds)
        second = opened(bundle, "lanes over numpy")
        assert second.accepted and len(builds) == count
        plan = first.plan.folder / plans.PLAN_FILE
        plan.write_bytes(plan.read_bytes()[:-1])
        third = opened(bundle, "lanes over numpy")
        assert not third.accepted and len(builds) == count + 1
        third.reject()
        assert not third.plan.folder.exists()
        for engine in (first, second, third):
            engine.close()

    def test_fake_tensorrt_that_is_wrong_is_replaced_and_its_plan_deleted(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(fake_tensorrt(), "error", 0.2)
        wrong = []

        def lanes(bundle, name, **kwargs):
            if name == "onnxruntime":
                return real(bundle, name, **kwargs)
            wrong.append(opened(bundle, "lanes over numpy", batch=kwargs["batch"]))
            return wrong[-1]

        real = open_engine
        monkeypatch.setattr("stamp_deploy.engine.auto.open_engine", lanes)
        engine = load_engine(bundle, "tensorrt", batch=BATCH)
        assert engine.info.name == "onnxruntime"
        assert "failed parity" in engine.info.why and "plan was deleted" in engine.info.why
        assert not wrong[0].plan.folder.exists()
        engine.close()


class TestTheRealLibraries:
    """The stand-ins are ours: what is called must exist in the libraries themselves."""

    def test_cuda_bindings(self):
        runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
        fake = FakeRuntime()
        used = [name for name in dir(fake) if name.startswith("cuda")]
        assert len(used) > 15 and [name for name in used if not hasattr(runtime, name)] == []
        assert [n for n in vars(fake.cudaMemcpyKind) if not hasattr(runtime.cudaMemcpyKind, n)] == []
        assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
        assert runtime.cudaError_t.cudaErrorMemoryAllocation == 2

    @pytest.mark.parametrize("flavour", plans.MODULES)
    def test_tensorrt(self, flavour):
        try:
            trt = plans.load_module(flavour)
        except EngineError as error:
            pytest.skip(str(error))
        uses = {
            "IExecutionContext": ("execute_async_v3", "set_tensor_address", "set_input_shape", "nvtx_verbosity"),
            "ICudaEngine": ("create_execution_context",),
            "Runtime": ("deserialize_cuda_engine",),
            "Builder": ("create_network", "create_optimization_profile", "build_serialized_network"),
            "OnnxParser": ("parse_from_file", "num_errors", "get_error"),
            "IBuilderConfig": (
                "create_timing_cache", "set_timing_cache", "get_timing_cache", "clear_flag", "profiling_verbosity",
            ),
            "ProfilingVerbosity": ("DETAILED", "NONE"),
        }  # fmt: skip
        if plans.is_rtx(trt):
            uses |= {
                "IRuntimeConfig": (
                    "create_runtime_cache", "set_runtime_cache", "dynamic_shapes_kernel_specialization_strategy",
                ),
                "IRuntimeCache": ("serialize", "deserialize"),
                "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
                "BuilderFlag": ("REQUIRE_USER_ALLOCATION", "TF32"),
                "ICudaEngine": ("create_execution_context", "create_runtime_config"),
                "IExecutionContext": (*uses["IExecutionContext"], "get_tensor_shape", "is_stream_capturable"),
            }  # fmt: skip
        assert [(k, n) for k, names in uses.items() for n in names if not hasattr(getattr(trt, k), n)] == []


@pytest.mark.usefixtures("own_cache")
class TestAuto:
    def test_says_what_was_fastest_and_remembers(self, bundle, monkeypatch):
        first = load_engine(bundle, batch=8)
        assert "passed parity" in first.info.why and "tiles/s" in first.info.why
        first.close()
        monkeypatch.setattr(choosing, "_try", lambda *args: pytest.fail("the choice was not remembered"))
        second = load_engine(bundle, batch=8)
        assert second.info.name == first.info.name and second.info.why.endswith("(measured earlier)")
        second.close()

    def trials(self, monkeypatch, **found):
        monkeypatch.setattr(choosing, "candidates", lambda: tuple(found))
        monkeypatch.setattr(choosing, "_try", lambda bundle, name, *rest: found[name])
        monkeypatch.setattr(choosing, "_open", lambda bundle, name, batch, *rest: named(name, batch))

        def named(name, batch):
            engine = Scarce(99, batch)
            engine._info = EngineInfo(name, "1", "none", "fp32")
            return engine

    @pytest.mark.parametrize(("speed", "chosen"), [(30.0, "openvino"), (10.2, "onnxruntime"), (2.0, "onnxruntime")])
    def test_another_engine_must_be_clearly_faster(self, bundle, monkeypatch, speed, chosen):
        trial = choosing.Trial
        self.trials(
            monkeypatch, onnxruntime=trial("onnxruntime", "fp32", 10.0), openvino=trial("openvino", "fp32", speed)
        )
        engine = load_engine(bundle, batch=2)
        assert engine.info.name == chosen and "onnxruntime fp32 10 tiles/s" in engine.info.why

    def test_a_fast_engine_that_is_wrong_is_not_chosen(self, bundle, monkeypatch):
        trial = choosing.Trial
        bad = trial("openvino", "bf16", 0.0, "fails parity (cosine_min is 0.018)")
        self.trials(monkeypatch, onnxruntime=trial("onnxruntime", "fp32", 10.0), openvino=bad)
        engine = load_engine(bundle, batch=2)
        assert engine.info.name == "onnxruntime" and "cosine_min is 0.018" in engine.info.why

    def test_no_engine_that_is_right_stops_the_run(self, bundle, monkeypatch):
        self.trials(monkeypatch, onnxruntime=choosing.Trial("onnxruntime", "fp32", 0.0, "fails parity (x)"))
        with pytest.raises(ParityError, match="no engine can be used"):
            load_engine(bundle, batch=2)

    def test_a_real_wrong_model_is_caught(self, tmp_path):
        """Golden outputs of another encoder, hashes in order: only the comparison can notice."""
        from support.wrong_bundle import swap_golden

        bundle = swap_golden(make_bundle(tmp_path / "bundle"), make_bundle(tmp_path / "other", seed=1))
        with pytest.raises(ParityError, match="fails parity"):
            load_engine(bundle, batch=8)

    def test_a_cache_that_others_can_write_is_not_used(self, bundle, tmp_path, monkeypatch):
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o777)
        monkeypatch.setenv("STAMP_CACHE_DIR", str(folder))
        with pytest.raises(EngineError, match="written by others"):
            cache_dir()
        load_engine(bundle, batch=8).close()
        assert list(folder.iterdir()) == []

    def test_a_broken_entry_is_measured_again(self, bundle, tmp_path):
        load_engine(bundle, batch=8).close()
        (entry,) = (tmp_path / "cache" / "choices").glob("*.json")
        entry.write_text("{")
        engine = load_engine(bundle, batch=8)
        assert not engine.info.why.endswith("(measured earlier)")
        engine.close()


def test_unknown_engines_and_batches_are_refused(bundle):
    with pytest.raises(EngineError, match="no engine 'magic'"):
        load_engine(bundle, "magic", batch=1)
    with pytest.raises(EngineError, match="batch of 0"):
        load_engine(bundle, batch=0)
    with pytest.raises(EngineError, match="runs this bundle in fp32"):
        load_engine(bundle, "onnxruntime", batch=1, precision="int8")
