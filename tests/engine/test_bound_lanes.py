"""onnxruntime-cuda over a CUDA runtime made of numpy: runs and copies happen when the stream is waited for."""

from __future__ import annotations

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.fake_cuda import Code, FakeRuntime

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine.cuda import Cuda
from stamp_deploy.engine.golden import check_engine, load_golden
from stamp_deploy.engine.onnxruntime_cuda import OnnxRuntimeCudaEngine
from stamp_deploy.errors import EngineError

BATCH = 5


class Lanes(OnnxRuntimeCudaEngine):
    """The engine's own code; a run is queued on the stream, as on a device, and done by the CPU provider."""

    name, provider, memory = "lanes", "CPUExecutionProvider", "cpu"
    recordable = True

    def __init__(self, bundle, runtime, **settings):
        self.runs: list[int] = []
        self.graph_runs: list[bool] = []
        super().__init__(bundle, batch=BATCH, precision="fp32", cuda=Cuda(0, runtime), **settings)

    def _run(self, binding, number):
        self.runs.append(number)
        self.graph_runs.append(self._graphs)
        if self._graphs and not self.recordable:
            raise EngineError("the graph cannot be recorded")
        run, later = super()._run, self._session  # the session of now
        self._stream.do(lambda: run(binding, number) if later is self._session else None)


class Recorded(Lanes):
    """As with CUDA graphs, which the CPU has none of."""

    def _allocate(self):
        if not self.runs:
            self._graphs = True
        super()._allocate()


class NotRecordable(Recorded):
    recordable = False


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("lanes") / "bundle", golden_tiles=24))


@pytest.fixture
def runtime():
    return FakeRuntime()


def test_two_pieces_are_under_way_before_the_first_is_waited_for(bundle, runtime):
    engine = Lanes(bundle, runtime)
    assert engine.depth == 2 and engine.info.details["page_locked"] == "yes"
    asked = []

    def batches():
        for number in range(4):
            asked.append(number)
            yield load_golden(bundle)[0][number : number + BATCH]

    stream = engine.stream(batches())
    next(stream)
    assert asked == [0, 1, 2] and engine.runs == [0, 1]
    assert len(list(stream)) == 3 and engine.runs == [0, 1, 0, 1]
    engine.close()
    assert runtime.leaks() == ""


def test_every_lane_and_row_is_right_and_arrays_may_be_used_again(bundle, runtime):
    engine = Lanes(bundle, runtime)
    assert check_engine(bundle, engine)
    tiles, golden = load_golden(bundle)
    ring = np.empty_like(tiles[:BATCH])

    def reused():
        for first in range(0, 20, BATCH):
            ring[...] = tiles[first : first + BATCH]
            yield ring
            ring[...] = 0

    found = np.concatenate([output.embedding for output in engine.stream(reused())])
    np.testing.assert_allclose(found, golden.embedding[:20], rtol=0, atol=2e-5)
    engine.close()


def test_buffers_are_page_locked_and_given_back(bundle, runtime):
    engine = Lanes(bundle, runtime)
    tile_bytes = BATCH * 64 * 64 * 3
    sizes = sorted(len(buffer) for buffer in runtime.pinned.values())
    assert sizes[-2:] == [tile_bytes, tile_bytes] and len(sizes) == 2 * 3
    assert len(runtime.streams) == 1
    engine.close()
    engine.close()
    assert runtime.leaks() == ""


def test_each_lane_has_a_graph_of_its_own(bundle, runtime):
    engine = Recorded(bundle, runtime)
    assert engine.runs == [0, 1] and engine.info.details["cuda_graphs"] != "no: "
    assert check_engine(bundle, engine)
    engine.close()


def test_a_graph_that_cannot_be_recorded_on_the_first_run_is_done_without(bundle, runtime):
    engine = NotRecordable(bundle, runtime)
    assert engine.graph_runs == [True] and "cannot be recorded" in engine.info.details["cuda_graphs"]
    assert check_engine(bundle, engine)
    assert set(engine.graph_runs[1:]) == {False}
    engine.close()
    assert runtime.leaks() == ""


def test_a_fault_of_the_device_is_told_and_closing_is_quiet(bundle, runtime):
    engine = Lanes(bundle, runtime)
    tiles = load_golden(bundle)[0]
    stream = engine.stream([tiles[:BATCH]] * 4)
    next(stream)
    runtime.broken = True
    with pytest.raises(EngineError, match="cudaErrorIllegalAddress"):
        list(stream)
    engine.close()


@pytest.mark.parametrize("allowed", range(6))
def test_what_was_taken_is_given_back_when_locking_fails(bundle, runtime, monkeypatch, allowed):
    real, taken = runtime.cudaMallocHost, []

    def scarce(size):
        taken.append(size)
        return (Code.cudaErrorIllegalAddress, None) if len(taken) > allowed else real(size)

    monkeypatch.setattr(runtime, "cudaMallocHost", scarce)
    with pytest.raises(EngineError, match="cudaMallocHost"):
        Lanes(bundle, runtime)
    assert runtime.leaks() == ""


def test_too_little_memory_to_lock_halves_the_batch(bundle, runtime, monkeypatch):
    real = runtime.cudaMallocHost
    most = 3 * 64 * 64 * 3

    def scarce(size):
        return (Code.cudaErrorMemoryAllocation, None) if size > most else real(size)

    monkeypatch.setattr(runtime, "cudaMallocHost", scarce)
    engine = Lanes(bundle, runtime)
    assert engine.info.details["batch"] == "halved from 5 to 3: out of memory"
    assert check_engine(bundle, engine)
    engine.close()
    assert runtime.leaks() == ""


def test_without_cuda_bindings_one_piece_at_a_time(bundle):
    class Plain(OnnxRuntimeCudaEngine):
        name, provider, memory = "plain", "CPUExecutionProvider", "cpu"

    engine = Plain(bundle, batch=BATCH, precision="fp32")
    assert engine.depth == 1 and engine.info.details["page_locked"].startswith("no: ")
    assert check_engine(bundle, engine)
    engine.close()


def test_what_the_session_is_told(bundle, runtime):
    engine = Lanes(bundle, runtime)
    engine.memory = "cuda"
    told = engine._options()
    assert told["user_compute_stream"] == "1" and told["use_tf32"] == "0" and told["enable_cuda_graph"] == "0"
    engine.memory = "cpu"
    engine.close()


@pytest.mark.gpu
def test_on_a_gpu(bundle):
    from stamp_deploy.engine import open_engine

    try:
        engine = open_engine(bundle, "onnxruntime-cuda", batch=BATCH)
    except EngineError as error:
        pytest.skip(str(error))
    assert check_engine(bundle, engine) and engine.depth == 2
    engine.close()
