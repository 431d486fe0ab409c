"""Opening an engine: each setting reaches it, what stands in for it is told, and how its queue is filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.base import BatchedEngine, OutOfMemory
from stamp_deploy.engine.golden import load_golden
from stamp_deploy.engine.head_model import HeadModel
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.engine.load import swap_adapter
from stamp_deploy.engine.onnxruntime import OnnxRuntimeEngine, open_session
from stamp_deploy.engine.openvino import OpenVinoEngine, precisions
from stamp_deploy.engine.openvino import _read as read_network
from stamp_deploy.engine.registry import check_url, open_engine
from stamp_deploy.errors import BundleError, EngineError, ParityError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("opening") / "bundle", golden_tiles=10))


class Options:
    """What a session of ONNX Runtime was opened with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, provider: str = "CPUExecutionProvider") -> None:
        self.given: list[Any] = []

        def opened(graph: bytes, options: Any, providers: list[Any]) -> Any:
            self.given.append((options, providers))
            return type("Session", (), {"get_providers": lambda self: [provider]})()

        monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


def calls_of(setting: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a method of a session's options is called with from now on; no session is opened."""
    given: list[Any] = []
    Options(monkeypatch)
    recording = {setting: lambda self, *data: given.append(data)}
    monkeypatch.setattr(onnxruntime, "SessionOptions", type("Settings", (onnxruntime.SessionOptions,), recording))
    return given


def test_an_encoder_has_its_threads_in_one_pool(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Options(monkeypatch)
    OnnxRuntimeEngine(bundle, batch=2, threads=3)
    ((options, providers),) = seen.given
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert providers == ["CPUExecutionProvider"]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_head_has_its_threads_and_leaves_the_cores_while_it_waits(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    seen = Options(monkeypatch)
    HeadModel(bundle, bundle.heads[0], threads)
    ((options, providers),) = seen.given
    assert options.intra_op_num_threads == threads and providers == ["CPUExecutionProvider"]
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_provider_that_is_not_in_use_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back to the CPU by itself: a GPU engine that is none must not score."""
    model = bundle.read_encoder()
    for asked in (["CUDAExecutionProvider"], [("CUDAExecutionProvider", {"device_id": "0"})]):
        Options(monkeypatch, "CPUExecutionProvider")
        with pytest.raises(EngineError, match="ORT fell back to CPUExecutionProvider: CUDAExecutionProvider cannot"):
            open_session(model, 1, asked, "ORT")
        Options(monkeypatch, "CUDAExecutionProvider")
        assert open_session(model, 1, asked, "ORT")


@pytest.mark.parametrize(("batch", "fixed"), [(None, []), (3, [("batch", 3)])])
def test_a_fixed_batch_is_the_free_axis_of_the_tiles(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, batch: int | None, fixed: list[Any]
) -> None:
    given = calls_of("add_free_dimension_override_by_name", monkeypatch)
    model = bundle.read_encoder()
    assert model.facts.inputs["tiles"].shape == ("batch", 64, 64, 3)
    open_session(model, 1, ["CPUExecutionProvider"], "ORT", batch)
    assert given == fixed


@pytest.mark.parametrize("head", [False, True])
def test_tensors_outside_of_the_graph_are_handed_over_whole(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, head: bool
) -> None:
    given = calls_of("add_external_initializers_from_files_in_memory", monkeypatch)
    data = {"a.bin": b"abc", "b.bin": b"defgh"}
    spec = bundle.heads[0]
    model = replace(bundle.read_head(spec) if head else bundle.read_encoder(), data=data)
    if head:
        monkeypatch.setattr(Bundle, "read_head", lambda self, spec: model)
        HeadModel(bundle, spec)
    else:
        open_session(model, 1, ["CPUExecutionProvider"], "ORT")
    assert given == [(["a.bin", "b.bin"], [b"abc", b"defgh"], [3, 5])]


def test_openvino_reads_them_from_a_private_copy(bundle: Bundle) -> None:
    seen: list[Any] = []

    class Core:
        def read_model(self, model: Any) -> str:
            if isinstance(model, bytes):
                seen.append(model)
            else:
                seen.append({path.name: path.read_bytes() for path in Path(model).parent.iterdir()})
            return "network"

    model = bundle.read_encoder()
    assert read_network(Core(), model) == read_network(Core(), replace(model, data={"w.bin": b"abc"})) == "network"
    assert seen == [model.graph, {model.path.name: model.graph, "w.bin": b"abc"}]


@pytest.mark.parametrize(
    ("bf16", "wanted", "hint"),
    [(True, "fp32", "f32"), (True, "bf16", "bf16"), (True, None, "f32"), (False, "fp32", "f32")],
)
def test_openvino_computes_in_the_precision_and_the_threads_that_were_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, bf16: bool, wanted: str | None, hint: str
) -> None:
    """Of fp32 its own choice would be bf16 where the chip has it."""
    pytest.importorskip("openvino")
    seen: list[dict[str, Any]] = []

    def opened(core: Any, network: Any, settings: dict[str, Any], *rest: Any) -> Any:
        seen.append(settings)
        return type("Streams", (), {"count": 1})()

    monkeypatch.setattr("stamp_deploy.engine.openvino.has_bf16", lambda core: bf16)
    monkeypatch.setattr(OpenVinoEngine, "_open_streams", staticmethod(opened))
    engine = OpenVinoEngine(bundle, batch=2, threads=3, precision=wanted)
    assert seen == [{"INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": hint}]
    assert engine.info.details["threads"] == "3" and engine.info.precision == (wanted or "fp32")


def test_precisions_of_openvino() -> None:
    assert precisions("fp32", True) == ("fp32", "bf16") and precisions("fp32", False) == ("fp32",)
    assert [precisions(name, bf16) for name in ("int8", "bf16") for bf16 in (True, False)] == [
        ("int8",), ("int8",), ("bf16",), ("bf16",),
    ]  # fmt: skip


def output(start: int, rows: int, *, shared: bool = True) -> EngineOutput:
    number = np.arange(start, start + rows, dtype=np.float32)[:, None]
    return EngineOutput(number, -number, number / 2 if shared else None)


def test_answers_are_joined_in_their_order() -> None:
    for shared in (True, False):
        parts = [output(0, 3, shared=shared), output(3, 1, shared=shared), output(4, 2, shared=shared)]
        whole = EngineOutput.join(parts)
        for found, wanted in zip(vars(whole).values(), vars(output(0, 6, shared=shared)).values(), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert EngineOutput.join(parts[:1]) is parts[0]


class Queued(BatchedEngine):
    """Writes down what is asked for, handed over and waited for; depth is the number of pieces in flight."""

    def __init__(self, depth: int) -> None:
        super().__init__(EngineInfo("queued", "1", "none", "fp32"), tile_px=2, embedding_dim=1, pathways=1, batch=4)
        self.depth, self.flying, self.most = depth, 0, 0

    def _submit(self, piece: Any) -> EngineOutput:
        self.flying += 1
        self.most = max(self.most, self.flying)
        return output(int(piece[0, 0, 0, 0]), len(piece), shared=False)

    def _collect(self, ticket: EngineOutput) -> EngineOutput:
        self.flying -= 1
        return ticket


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_queue_is_filled_and_an_engine_without_one_answers_at_once(depth: int) -> None:
    """Batch after batch: with one piece in flight the answer comes before the next batch is asked for."""
    events: list[str] = []

    def batches() -> Any:
        for number in range(8):
            events.append(f"asked {number}")
            yield np.full((1, 2, 2, 3), number, np.uint8)

    engine = Queued(depth)
    for answer in engine.stream(batches()):
        events.append(f"got {int(answer.embedding[0, 0])}")
    assert engine.most == depth and engine.flying == 0
    assert [event for event in events if event.startswith("got")] == [f"got {number}" for number in range(8)]
    ahead = depth if depth > 1 else 0
    assert events.index("got 0") == 1 + ahead, "as many are asked for before the first answer"


def test_the_last_want_of_memory_is_told() -> None:
    class Full(Queued):
        def _submit(self, piece: Any) -> EngineOutput:
            raise OutOfMemory("no room for tiles")

        def _allocate(self) -> None:
            raise OutOfMemory(f"no room for buffers of {self._chunk}")

    with pytest.raises(EngineError, match="with a single tile: no room for buffers of 1"):
        Full(1).run(np.zeros((4, 2, 2, 3), np.uint8))


class TestOpened:
    """Each setting reaches the engine that was named, and the one that is opened again."""

    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        seen: list[Any] = []

        class Told(Queued):
            def __init__(self, bundle: Bundle, *name: str, **given: Any) -> None:
                super().__init__(1)
                seen.append((*name, given))

        for module, kind in (("tensorrt", "TensorRTEngine"), ("onnxruntime_cuda", "OnnxRuntimeCudaEngine"),
                             ("openvino", "OpenVinoEngine")):  # fmt: skip
            monkeypatch.setattr(f"stamp_deploy.engine.{module}.{kind}", Told)
        return seen

    @pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino"])
    def test_by_its_name(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        seen = self.opened(monkeypatch)
        engine = open_engine(bundle, name, batch=7, threads=3, precision="bf16", device=2)
        assert engine.reopen is not None
        engine.reopen(bundle)
        wanted: dict[str, Any] = {"batch": 7, "precision": "bf16"}
        wanted |= {"threads": 3} if not name.startswith("tensorrt") else {}
        wanted |= {"device": 2} if name != "openvino" else {}
        assert seen == [(*([name] if name.startswith("tensorrt") else []), wanted)] * 2

    def test_of_a_twin_whose_file_is_told(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened(monkeypatch)
        asked: list[Any] = []

        def twin(self: Bundle, name: str, precision: str | None) -> Bundle:
            asked.append((name, precision))
            return replace(self, encoder_file="int8.onnx") if precision == "int8" else self

        monkeypatch.setattr(Bundle, "for_engine", twin)
        found = open_engine(bundle, "openvino", batch=2, precision="int8").info.details
        assert found == {"batch": "4", "encoder": "int8.onnx"}
        assert "encoder" not in open_engine(bundle, "openvino", batch=2, precision="fp32").info.details
        assert asked == [("openvino", "int8"), ("openvino", "fp32")]

    def test_through_parity(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        def opened(b: Bundle, name: str, **given: Any) -> Queued:
            seen.append((name, given))
            return Queued(1)

        def accepted(b: Bundle, engine: Any, again: Any) -> Any:
            return again(), type("Verdict", (), {"failures": ()})()

        monkeypatch.setattr("stamp_deploy.engine.auto.open_engine", opened)
        monkeypatch.setattr("stamp_deploy.engine.auto.accept_a_form", accepted)
        given = {"batch": 4, "threads": 3, "precision": "fp16", "device": 2, "url": None}
        load_engine(bundle, "tensorrt", batch=4, threads=3, precision="fp16", device=2)
        assert seen == [("tensorrt", given)] * 2

    def test_a_server_is_named_for_one_engine(self, bundle: Bundle) -> None:
        for name, url in (("triton", None), ("triton", ""), ("onnxruntime", "http://h:1"), ("auto", "http://h:1")):
            with pytest.raises(EngineError, match=r"needs a server|asks no server"):
                check_url(name, url)
        check_url("triton", "http://h:1")
        for url in (None, ""):
            with pytest.raises(EngineError, match="needs a server"):
                check_url("".join(["tri", "ton"]), url)  # as it comes from a command line
        check_url("openvino", None)

    @pytest.mark.parametrize("batch", [0, -1])
    def test_a_batch_holds_a_tile(self, bundle: Bundle, batch: int) -> None:
        with pytest.raises(EngineError, match=f"a batch of {batch} tiles"):
            open_engine(bundle, "onnxruntime", batch=batch)


class TestInThePlace:
    """What takes the place of an engine that fails parity."""

    def load(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, instead: Any) -> tuple[Any, list[Any]]:
        seen: list[Any] = []

        def opened(b: Bundle, which: str, **given: Any) -> Any:
            seen.append((which, given["batch"], given["threads"]))
            if which == name:
                raise ParityError(f"{which} says other things")
            if isinstance(instead, Exception):
                raise instead
            return instead

        monkeypatch.setattr("stamp_deploy.engine.load.open_accepted", opened)
        monkeypatch.setattr("stamp_deploy.engine.load.precisions_of", lambda *given: ("fp32",))
        return load_engine(bundle, name, batch=4, threads=3), seen

    @pytest.mark.parametrize(("name", "deleted"), [("openvino", False), ("tensorrt", True)])
    def test_has_its_settings_and_says_why(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, deleted: bool
    ) -> None:
        engine, seen = self.load(bundle, monkeypatch, name, Queued(1))
        assert seen == [(name, 4, 3), ("onnxruntime", 4, 3)]
        assert f"{name} was asked for and failed parity ({name} says other things)" in engine.info.why
        assert ("its plan was deleted" in engine.info.why) == deleted

    def test_where_nothing_can_the_first_failure_is_told(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ParityError, match="openvino says other things"):
            self.load(bundle, monkeypatch, "openvino", EngineError("there is no ONNX Runtime"))

    def test_an_engine_that_nobody_can_open_again_takes_no_other_weights(self, bundle: Bundle) -> None:
        for engine in (Queued(1), object()):
            with pytest.raises(EngineError, match="takes no other weights"):
                swap_adapter(engine, bundle)  # type: ignore[arg-type]


@pytest.mark.parametrize(("missing", "found"), [(1, False), (2, True)])
def test_parity_needs_two_golden_tiles(tmp_path: Path, missing: int, found: bool) -> None:
    made = load_bundle(make_bundle(tmp_path / "bundle", golden_tiles=missing))
    if found:
        assert len(load_golden(made)[0]) == 2
    else:
        with pytest.raises(BundleError, match="the golden arrays do not fit"):
            load_golden(made)
