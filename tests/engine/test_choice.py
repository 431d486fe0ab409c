"""What is remembered of engines is remembered for what it was measured on, and what was measured decides."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.fake_cuda import fake_tensorrt

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import auto, golden, load_engine, registry, tensorrt_plan, verdict
from stamp_deploy.engine.auto import Trial, _best, _cache_path, _speed, _why
from stamp_deploy.engine.base import BatchedEngine, OutOfMemory
from stamp_deploy.engine.cache import cache_dir, read_entry, staged_folder
from stamp_deploy.engine.cuda import Gpu
from stamp_deploy.engine.golden import load_golden, time_and_check, time_engine, write_golden
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.engine.onnxruntime import memory_errors
from stamp_deploy.engine.onnxruntime_cuda import OnnxRuntimeCudaEngine
from stamp_deploy.engine.parity import Outputs
from stamp_deploy.engine.tensorrt_plan import get_plan, plan_folder
from stamp_deploy.engine.verdict import Verdict, _key, accept
from stamp_deploy.errors import BundleError, EngineError, ParityError

pytestmark = pytest.mark.usefixtures("own_cache")

BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("choice") / "bundle", golden_tiles=10))


class Told(BatchedEngine):
    """Answers with the golden outputs; `room` tiles fit its memory, and each answer is written down."""

    def __init__(self, bundle: Bundle, batch: int = BATCH, *, depth: int = 1, **info: Any) -> None:
        facts = EngineInfo(**{"name": "told", "version": "1", "device": "none", "precision": "fp32", **info})
        super().__init__(facts, tile_px=64, embedding_dim=16, pathways=4, batch=batch)
        tiles, self.golden = load_golden(bundle)
        self.index = {tile.tobytes(): i for i, tile in enumerate(tiles)}
        self.depth, self.room, self.closed, self.waited = depth, 1000, 0, 0

    def _submit(self, piece: np.ndarray) -> EngineOutput:
        if len(piece) > self.room:
            raise OutOfMemory("no room")
        rows = [self.index[tile.tobytes()] for tile in piece]
        return EngineOutput(self.golden.embedding[rows], self.golden.pathways[rows])

    def _collect(self, ticket: EngineOutput) -> EngineOutput:
        self.waited += 1
        return ticket

    def _allocate(self) -> None:
        self.accepted = False

    def _release(self) -> None:
        self.closed += 1


class TestKeys:
    """Of a verdict: whatever could change what the engine answers."""

    def key(self, bundle: Bundle, **changes: Any) -> str:
        engine = Told(bundle, **{k: v for k, v in changes.items() if k in ("name", "version", "device", "precision")})
        engine.compiled = changes.get("compiled", "")
        engine._chunk = changes.get("piece", BATCH)
        return _key(bundle, engine)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"version": "2"},
            {"device": "cuda:1"},
            {"precision": "bf16"},
            {"compiled": "ab"},
            {"piece": 2},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_the_engine(self, bundle: Bundle, change: dict[str, Any]) -> None:
        assert self.key(bundle) == self.key(bundle) != self.key(bundle, **change)

    def test_the_bundle_and_the_check_itself(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.key(replace(bundle, sha256="0" * 64)) != self.key(bundle)
        before = self.key(bundle)
        monkeypatch.setattr(verdict, "VERSION", verdict.VERSION + 1)
        assert self.key(bundle) != before

    def test_of_a_choice(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fastest of some engines, in these batches, with these threads, on this machine."""
        given: dict[str, Any] = {"pairs": [("onnxruntime", None)], "batch": 4, "threads": 2, "device": 0}

        def path(of: Bundle = bundle, **change: Any) -> Path | None:
            return _cache_path(of, *{**given, **change}.values())

        changes: list[dict[str, Any]] = [
            {"pairs": [("openvino", None)]}, {"pairs": [("onnxruntime", "int8")]}, {"batch": 8},
            {"threads": 1}, {"device": 1},
        ]  # fmt: skip
        paths = [path(), *(path(**change) for change in changes), path(replace(bundle, sha256="0" * 64))]
        monkeypatch.setattr(auto, "machine_facts", lambda: {"processor": "another"})
        paths.append(path())
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(99)))
        paths.append(path())
        assert len(set(paths)) == len(paths) == 9


class TestSpeed:
    def timed(self, monkeypatch: pytest.MonkeyPatch, *clock: float) -> None:
        times = iter(clock)
        monkeypatch.setattr(golden.time, "perf_counter", lambda: next(times))

    def test_of_the_check_is_its_full_batches_by_the_second(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten golden tiles in batches of four on two lanes: two full batches per lane, 16 tiles, in half a second."""
        self.timed(monkeypatch, 10.0, 10.5)
        report, speed, seconds = time_and_check(bundle, Told(bundle, depth=2))
        assert report and (speed, seconds) == (32.0, 0.5)
        assert report.tiles == 10 and report.details["rows"] == "19"

    def test_of_a_trial_is_its_rows_by_the_second(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timed(monkeypatch, 1.0, 3.0)
        assert time_engine(bundle, Told(bundle, depth=2)) == (8.0, 2.0)

    @pytest.mark.parametrize(
        ("seconds", "trials", "found"),
        [
            (auto.TRIAL_SECONDS, [], 5.0),  # the check took long enough
            (auto.TRIAL_SECONDS + 0.5, [], 5.0),
            (0.1, [(7.0, 2.5)], 7.0),
            (0.1, [(7.0, 0.5), (9.0, 0.4), (8.0, 0.1)], 9.0),  # three at most, and the best of them
            (0.1, [(9.0, 1.0), (7.0, 1.0)], 9.0),
        ],
    )
    def test_the_best_of_as_many_trials_as_are_needed(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, seconds: float, trials: list[Any], found: float
    ) -> None:
        left = list(trials)
        monkeypatch.setattr(auto, "time_engine", lambda *given: left.pop(0))
        assert _speed(bundle, Told(bundle), Verdict((), 5.0, seconds)) == found
        assert left == []


class TestTheChoice:
    def test_the_first_stays_where_no_other_is_clearly_faster(self) -> None:
        first, same, faster = (Trial(name, "fp32", speed) for name, speed in (("a", 100.0), ("b", 104.9), ("c", 106.0)))
        assert _best([first, same]) is first and _best([first, same, faster]) is faster and _best([first]) is first
        assert _why(first, [first, same], []).startswith("as fast as the fastest of 2 that passed parity here, and the")
        assert _why(faster, [first, faster], []).startswith(
            "fastest of 2 that passed parity here: c fp32 106 tiles/s, a"
        )
        refused = Trial("d", "bf16", 0.0, "fails parity (x)")
        assert _why(first, [first], [refused]) == (
            "the only one that passed parity: a fp32 100 tiles/s; not used: d bf16: fails parity (x)"
        )

    @pytest.mark.parametrize("again", [False, True])
    def test_is_opened_in_the_precision_that_won(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, again: bool
    ) -> None:
        opened: list[tuple[str, str | None]] = []
        monkeypatch.setattr(auto, "candidates", lambda: ("a", "b"))
        monkeypatch.setattr(auto, "precisions_of", lambda bundle, name, wanted: ("fp32", "bf16"))
        speeds = {("a", "fp32"): 1.0, ("a", "bf16"): 2.0, ("b", "fp32"): 3.0, ("b", "bf16"): 9.0}
        monkeypatch.setattr(auto, "_try", lambda b, name, batch, threads, p, device: Trial(name, p, speeds[name, p]))

        def open_one(b: Bundle, name: str, batch: int, threads: int, p: str | None, device: int) -> Told:
            opened.append((name, p))
            return Told(b, batch, name=name, precision=p)

        monkeypatch.setattr(auto, "_open", open_one)
        for _ in range(1 + again):
            load_engine(bundle, batch=BATCH)
        assert opened == [("b", "bf16")] * (1 + again)

    def test_every_trial_closes_its_engine(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Told] = []

        def open_one(b: Bundle, name: str, **given: Any) -> Told:
            made.append(Told(b, given["batch"], name=name))
            return made[-1]

        monkeypatch.setattr(auto, "open_engine", open_one)
        monkeypatch.setattr(auto, "candidates", lambda: ("a", "b", "c"))
        monkeypatch.setattr(auto, "_speed", lambda b, engine, v: {"a": 1.0, "b": 5.0, "c": 2.0}[engine.info.name])
        engine = load_engine(bundle, batch=BATCH)
        assert engine.info.name == "b" and [(one.info.name, one.closed) for one in made] == [
            ("a", 1), ("b", 1), ("c", 1), ("b", 0),
        ]  # fmt: skip

    @pytest.mark.parametrize("change", [{"name": "gone"}, {"chosen_unix": None}, {"why": None}, {"lasting": "x"}])
    def test_a_remembered_one_that_cannot_be_used_is_made_again(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
    ) -> None:
        monkeypatch.setattr(auto, "candidates", lambda: ("told",))
        monkeypatch.setattr(auto, "_open", lambda b, name, batch, *rest: Told(b, batch, name=name))
        tried: list[str] = []
        monkeypatch.setattr(auto, "_try", lambda b, name, *rest: tried.append(name) or Trial(name, "fp32", 1.0))
        load_engine(bundle, batch=BATCH)
        (path,) = (cache_dir() / "choices").iterdir()
        entry = json.loads(path.read_text())
        if change == {"lasting": "x"}:
            change = {"lasting": "x", "chosen_unix": entry["chosen_unix"] + 9e9}  # of a clock that was wrong
        kept = {key: value for key, value in {**entry, **change}.items() if value is not None}
        path.write_text(json.dumps(kept))
        if "why" in kept:
            load_engine(bundle, batch=BATCH)
            assert tried == ["told"] * 2

    def test_where_nothing_could_be_loaded_the_machine_is_at_fault(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And not the bundle: another exit code, and another person to ask."""
        absent = Trial("openvino", "", 0.0, "cannot be loaded (x)", loaded=False)
        wrong = Trial("onnxruntime", "fp32", 0.0, "fails parity (y)")
        for trials, kind in (((absent,), EngineError), ((absent, wrong), ParityError)):
            monkeypatch.setattr(auto, "candidates", lambda trials=trials: tuple(one.name for one in trials))
            monkeypatch.setattr(auto, "_try", lambda b, name, *rest: {"openvino": absent, "onnxruntime": wrong}[name])
            with pytest.raises(EngineError if kind is EngineError else ParityError, match="no engine can be") as told:
                load_engine(bundle, batch=BATCH)
            assert type(told.value) is kind and all(str(trial) in told.value.cause for trial in trials)

    def test_a_trial_tells_what_may_pass_from_what_is_wrong(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(self: Told, piece: np.ndarray) -> EngineOutput:
            raise EngineError("the device is gone")

        monkeypatch.setattr(auto, "open_engine", lambda b, name, **given: Told(b, given["batch"]))
        assert auto._try(bundle, "told", BATCH, 1, None, 0).loaded
        monkeypatch.setattr(Told, "_submit", fails)
        monkeypatch.setattr(verdict, "_remembered", lambda *given: None)
        found = auto._try(bundle, "told", BATCH, 1, None, 0)
        assert (found.loaded, found.refused) == (False, "fails (the device is gone)")

        def opened(b: Bundle, name: str, **given: Any) -> Told:
            raise errors.pop()

        monkeypatch.setattr(auto, "open_engine", opened)
        errors: list[Exception] = [BundleError("its encoder is damaged"), ParityError("a weight"), EngineError("no x")]
        found = auto._try(bundle, "told", BATCH, 1, None, 0)
        assert (found.loaded, found.refused) == (False, "cannot be loaded (no x)")
        found = auto._try(bundle, "told", BATCH, 1, "fp16", 0)
        assert (found.loaded, found.refused, found.precision) == (True, "fails parity (a weight)", "fp16")
        with pytest.raises(BundleError, match="is damaged"):  # no other engine would help
            auto._try(bundle, "told", BATCH, 1, None, 0)

    def test_engines_that_are_worth_a_trial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """GPU engines where a GPU is, of the libraries that are there; TensorRT under either of its names."""
        import onnxruntime

        there: set[str] = set()
        providers = ["CPUExecutionProvider"]
        monkeypatch.setattr(auto, "find_spec", lambda name: object() if name in there else None)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(auto, "visible_gpus", tuple)
        assert auto.candidates() == ("onnxruntime",)
        there |= {"openvino", *(module for modules in tensorrt_plan.MODULES.values() for module in modules)}
        providers.append("CUDAExecutionProvider")
        assert auto.candidates() == ("onnxruntime", "openvino"), "without a GPU"
        monkeypatch.setattr(auto, "visible_gpus", lambda: (Gpu(0, "GPU", "9.0", 1 << 30, "13.0"),))
        assert auto.candidates() == ("onnxruntime", "openvino", "onnxruntime-cuda", *tensorrt_plan.MODULES)
        providers.pop()
        for name, modules in tensorrt_plan.MODULES.items():
            for module in modules:
                there.clear()
                there.add(module)
                assert auto.candidates() == ("onnxruntime", name)

    def test_each_precision_of_each_engine_is_tried_and_the_device_is_part_of_it(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[Any] = []

        def trial(b: Bundle, name: str, batch: int, threads: int, wanted: str, device: int) -> Trial:
            tried.append((name, wanted, batch, threads, device))
            return Trial(name, wanted, 1.0)

        monkeypatch.setattr(auto, "candidates", lambda: ("a", "b"))
        monkeypatch.setattr(auto, "precisions_of", lambda b, name, wanted: ("fp32", "bf16"))
        monkeypatch.setattr(auto, "_try", trial)
        monkeypatch.setattr(auto, "_open", lambda b, name, batch, *rest: Told(b, batch, name=name))
        for device in (1, 1, 0):
            load_engine(bundle, batch=BATCH, threads=3, device=device)
        pairs = [(name, wanted) for name in "ab" for wanted in ("fp32", "bf16")]
        assert tried == [(*pair, BATCH, 3, device) for device in (1, 0) for pair in pairs]


class TestVerdicts:
    def test_a_refusal_of_the_future_is_tried_again(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock that was wrong must not keep an engine out for years."""
        engine, checks = Told(bundle), []
        monkeypatch.setattr(verdict, "time_and_check", lambda *given: checks.append(1) or refused_report())
        assert not accept(bundle, engine)
        (path,) = (cache_dir() / "verdicts").iterdir()
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "checked_unix": entry["checked_unix"] + 10 * verdict.EXPIRES_S}))
        assert not accept(bundle, Told(bundle)) and len(checks) == 2

    def test_anew_checks_again_and_remembers_the_new_word(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checks: list[int] = []
        real = verdict.time_and_check
        monkeypatch.setattr(verdict, "time_and_check", lambda *given: checks.append(1) or real(*given))
        assert accept(bundle, Told(bundle)).report is not None
        assert accept(bundle, Told(bundle)).report is None and len(checks) == 1
        assert accept(bundle, Told(bundle), anew=True).report is not None and len(checks) == 2
        monkeypatch.setattr(verdict, "time_and_check", lambda *given: refused_report())
        assert not accept(bundle, Told(bundle), anew=True)
        assert not accept(bundle, Told(bundle))

    def test_an_engine_that_is_elsewhere_is_asked_each_time(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Told, "remembers", False)
        for _ in range(2):
            assert accept(bundle, Told(bundle)).report is not None
        assert not (cache_dir() / "verdicts").exists()

    def test_an_engine_that_fails_or_is_wrong_is_closed_before_it_is_rejected(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        monkeypatch.setattr(Told, "_release", lambda self: order.append("closed"))
        monkeypatch.setattr(Told, "reject", lambda self: order.append("rejected"))
        monkeypatch.setattr(verdict, "time_and_check", lambda *given: refused_report())
        assert not accept(bundle, Told(bundle))
        assert order == ["closed", "rejected"]

        def fails(*given: Any) -> Any:
            raise EngineError("the device is gone")

        monkeypatch.setattr(verdict, "time_and_check", fails)
        with pytest.raises(EngineError, match="is gone"):
            accept(bundle, Told(bundle), anew=True)
        assert order == ["closed", "rejected", "closed"]

    def test_a_gate_of_an_earlier_verdict_does_not_judge_the_check(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Told(bundle)
        assert accept(bundle, engine) and engine.gate is not None
        engine.room, calls = 2, []
        monkeypatch.setattr(engine, "gate", lambda engine: calls.append(1))
        assert accept(bundle, engine, anew=True)
        assert calls == [] and engine.piece == 2 and engine.gate is not None


class TestTheGate:
    @pytest.mark.parametrize(("accepted", "compiled", "asked"), [(True, "a", 0), (True, "b", 1), (False, "a", 1)])
    def test_is_asked_where_anything_is_new(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, accepted: bool, compiled: str, asked: int
    ) -> None:
        """Halved while it scores: another plan, or one that parity has not accepted."""
        calls: list[int] = []
        engine = Told(bundle)
        engine.compiled, engine.accepted, engine.room = "a", True, 2

        def allocate() -> None:
            engine.compiled, engine.accepted = compiled, accepted

        monkeypatch.setattr(engine, "_allocate", allocate)
        monkeypatch.setattr(engine, "gate", lambda engine: calls.append(1))
        engine.run(load_golden(bundle)[0][:BATCH])
        assert calls == [1] * asked and engine.piece == 2

    def test_a_halved_batch_waits_for_what_it_has_handed_over(self, bundle: Bundle) -> None:
        """Three pieces of a batch; the third finds no memory, and the first two are still on the device."""
        engine = Told(bundle, batch=6, depth=3)
        engine._chunk = 2
        seen: list[int] = []
        real = engine._submit

        def third_fails(piece: np.ndarray) -> EngineOutput:
            seen.append(len(piece))
            if len(seen) == 3:
                raise OutOfMemory("no room")
            return real(piece)

        engine._submit = third_fails  # type: ignore[method-assign]
        tiles, expected = load_golden(bundle)
        found = engine.run(tiles[:6])
        np.testing.assert_array_equal(found.pathways, expected.pathways[:6])
        assert seen == [2, 2, 2] + [1] * 6 and engine.waited == 2 + 6

    def test_what_is_said_of_an_engine_adds_up(self, bundle: Bundle) -> None:
        engine = Told(bundle)
        engine.explain("first", plan="p")
        engine.explain("second", graphs="yes")
        assert engine.info.why == "second"
        assert engine.info.details == {"batch": str(BATCH), "plan": "p", "graphs": "yes"}


def refused_report() -> Any:
    class Report:
        failures = ("cosine_min is 0",)

        def __bool__(self) -> bool:
            return False

    return Report(), 1.0, 1.0


class TestAskedFor:
    """An engine that was named: the precision that was asked for, and no second try of the default."""

    def test_the_only_precision_is_handed_on(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []

        def opened(b: Bundle, name: str, **more: Any) -> Told:
            given.append((name, more))
            return Told(b, more["batch"])

        monkeypatch.setattr("stamp_deploy.engine.load.open_accepted", opened)
        monkeypatch.setattr("stamp_deploy.engine.load.precisions_of", lambda b, name, wanted=None: ("bf16",))
        found = load_engine(bundle, "openvino", batch=BATCH, precision="auto", threads=3, device=1)
        assert found.info.why == "asked for"
        wanted = {"batch": BATCH, "threads": 3, "precision": "bf16", "device": 1, "url": None}
        assert given == [("openvino", wanted)]

    def test_the_precision_reaches_the_trials(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []

        def chosen(b: Bundle, names: tuple[str, ...] = (), **more: Any) -> Told:
            given.append((names, more["precision"], more["threads"], more["device"]))
            return Told(b, more["batch"])

        monkeypatch.setattr("stamp_deploy.engine.load.choose", chosen)
        monkeypatch.setattr("stamp_deploy.engine.load.precisions_of", lambda b, name, wanted=None: ("fp32", "bf16"))
        load_engine(bundle, "openvino", batch=BATCH, precision="auto", threads=3, device=1)
        load_engine(bundle, "auto", batch=BATCH, precision="auto", threads=3, device=1)
        assert given == [(("openvino",), "auto", 3, 1), ((), "auto", 3, 1)]

    def test_the_default_that_is_wrong_is_not_tried_a_second_time(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[str] = []

        def wrong(b: Bundle, name: str, **more: Any) -> Told:
            tried.append(name)
            raise ParityError(f"{name} fails")

        monkeypatch.setattr("stamp_deploy.engine.load.open_accepted", wrong)
        with pytest.raises(ParityError, match="onnxruntime fails"):
            load_engine(bundle, "onnxruntime", batch=BATCH)
        assert tried == ["onnxruntime"]

    @pytest.mark.parametrize(
        ("wanted", "found"), [(None, ("fp32", "bf16")), ("auto", ("fp32", "bf16", "int8")), ("int8", ("int8",))]
    )
    def test_precisions_that_are_tried(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, wanted: str | None, found: tuple[str, ...]
    ) -> None:
        """A twin of a precision that the engine has itself is not tried twice."""
        monkeypatch.setattr("stamp_deploy.engine.openvino.offered", lambda precision: ("fp32", "bf16"))
        monkeypatch.setattr(
            type(bundle),
            "twin_precisions",
            lambda self, name, by_default: ("bf16",) if by_default else ("bf16", "int8"),
        )
        assert registry.precisions_of(bundle, "openvino", wanted) == found
        assert registry.precisions_of(bundle, "tensorrt", None) == (None, "bf16")


class TestGoldenFiles:
    def test_tiles_and_outputs_that_are_kept_are_of_the_same_tiles(self, tmp_path: Path) -> None:
        count = 3 * golden.GOLDEN_TILES + 5
        number = np.arange(count)
        tiles = np.zeros((count, 4, 4, 3), np.uint8) + number.astype(np.uint8)[:, None, None, None]
        answers = Outputs(
            number[:, None].astype(np.float32).repeat(3, 1), -number[:, None].astype(np.float32),
            pathways_global=number[:, None].astype(np.float32) / 2,
        )  # fmt: skip
        write_golden(tmp_path / "golden", tiles, answers)
        found = {path.stem: np.load(path) for path in (tmp_path / "golden").iterdir()}
        kept = found["embedding"][:, 0]
        assert len(kept) == golden.GOLDEN_TILES and (np.diff(kept) > 0).all() and kept[0] < 3 and kept[-1] > count - 4
        np.testing.assert_array_equal(found["tiles"][:, 0, 0, 0], kept)
        np.testing.assert_array_equal(found["pathways"][:, 0], -kept)
        np.testing.assert_array_equal(found["pathways_global"][:, 0], kept / 2)

    def test_the_heads_of_the_engine_are_judged_and_not_those_of_torch(self, bundle: Bundle) -> None:
        seen: list[Any] = []

        class Kept(Told):
            def _collect(self, ticket: EngineOutput) -> EngineOutput:
                seen.append(len(ticket.embedding))
                return ticket

        report, _, _ = time_and_check(bundle, Kept(bundle))
        assert report.metrics["head_max_abs"] == pytest.approx(0, abs=1e-6)
        assert seen == [4, 4, 4, 3]


class TestCudaOptions:
    """What is asked of ONNX Runtime's CUDA provider, without one."""

    def options(self, device: int, graphs: bool, stream: int | None = None) -> dict[str, str]:
        engine = OnnxRuntimeCudaEngine.__new__(OnnxRuntimeCudaEngine)
        engine._device, engine._graphs, engine._stream = device, graphs, stream
        return engine._options()

    def test_fp32_is_not_cut_to_11_bits_and_the_device_is_the_one_asked_for(self) -> None:
        assert self.options(3, True)["use_tf32"] == "0" and self.options(3, True)["device_id"] == "3"
        assert [self.options(0, graphs)["enable_cuda_graph"] for graphs in (True, False)] == ["1", "0"]
        assert self.options(0, True, 77)["user_compute_stream"] == "77"
        assert "user_compute_stream" not in self.options(0, True)

    @pytest.mark.parametrize(("precision", "wanted"), [("fp32", "fp16"), ("bf16", "bf16"), ("fp16", "fp16")])
    def test_a_bundle_of_fp32_runs_in_fp16_unless_asked_otherwise(
        self, bundle: Bundle, precision: str, wanted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Bound(OnnxRuntimeCudaEngine):
            name, provider, memory = "bound-cpu", "CPUExecutionProvider", "cpu"

        monkeypatch.setattr(Bound, "_allocate", lambda self: None)
        assert Bound(replace(bundle, precision=precision), batch=2).info.precision == wanted
        assert Bound(replace(bundle, precision=precision), batch=2, precision="bf16").info.precision == "bf16"

    @pytest.mark.parametrize(
        "error",
        [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CUDA failure 2: out of memory"),
         RuntimeError("Failed to allocate memory for requested buffer"), RuntimeError("BFCArena::AllocateRawInternal")],
        ids=str,
    )  # fmt: skip
    def test_short_memory_is_told_from_other_failures(self, error: Exception) -> None:
        with pytest.raises(OutOfMemory), memory_errors():
            raise error
        with pytest.raises(EngineError, match="ONNX Runtime fails: x - check"), memory_errors():
            raise RuntimeError("x\nmore")
        with pytest.raises(KeyboardInterrupt), memory_errors():
            raise KeyboardInterrupt


class TestPlans:
    """TensorRT's plans: what they are made of is their name, and fp32 stays fp32."""

    def test_a_plan_is_of_a_bundle_an_engine_a_device_a_batch_and_a_precision(self, bundle: Bundle) -> None:
        gpu = Gpu(0, "GPU", "9.0", 1 << 30, "13.0")
        given = (bundle, "tensorrt", "10.1", gpu, 4, "fp16")
        others = [
            (replace(bundle, sha256="0" * 64), *given[1:]), (bundle, "tensorrt-rtx", *given[2:]),
            (*given[:2], "10.2", *given[3:]), (*given[:3], replace(gpu, name="other"), 4, "fp16"),
            (*given[:3], replace(gpu, capability="8.0"), 4, "fp16"), (*given[:3], None, 4, "fp16"),
            (*given[:4], 8, "fp16"), (*given[:5], "bf16"),
        ]  # fmt: skip
        folders = [plan_folder(*given), *(plan_folder(*other) for other in others)]
        assert plan_folder(*given) == folders[0] and len(set(folders)) == len(folders)

    @pytest.mark.parametrize(
        ("name", "version", "capability", "refused"),
        [
            ("tensorrt_rtx", "1.6.9", "9.0", True), ("tensorrt_rtx", "1.7.1", "9.0", True),
            ("tensorrt_rtx", "1.8.0", "9.0", False),
            ("tensorrt_rtx", "2.0", "9.0", False), ("tensorrt_rtx", "1.7.1", "8.9", False),
            ("tensorrt", "1.7.1", "9.0", False),
        ],
    )  # fmt: skip
    def test_rtx_up_to_1_7_has_no_kernels_for_hopper(
        self, name: str, version: str, capability: str, refused: bool
    ) -> None:
        library = SimpleNamespace(__name__=name, __version__=version)
        gpu = Gpu(0, "GPU", capability, 1 << 30, "13.0")
        if refused:
            with pytest.raises(EngineError, match=r"no kernels for compute capability 9\.0"):
                tensorrt_plan.check_capability(library, gpu)
        else:
            tensorrt_plan.check_capability(library, gpu)

    @pytest.mark.parametrize(("precision", "cleared"), [("fp32", ["tf32"]), ("fp16", [])])
    def test_only_fp32_forbids_tf32(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str, cleared: list[str]
    ) -> None:
        module = fake_tensorrt()
        flags: list[str] = []
        real = module.Builder.create_builder_config

        def recorded(self: Any) -> Any:
            config = real(self)
            config.clear_flag = flags.append
            return config

        monkeypatch.setattr(module.Builder, "create_builder_config", recorded)
        monkeypatch.setattr(module.BuilderFlag, "TF32", "tf32")
        monkeypatch.setattr(tensorrt_plan, "load_module", lambda flavour: module)
        get_plan(bundle, "tensorrt", None, batch=2, precision=precision)
        assert flags == cleared


class TestTheCache:
    @pytest.mark.parametrize("mode", [0o770, 0o702, 0o722])
    def test_a_folder_that_others_can_write_is_not_trusted(self, tmp_path: Path, mode: int) -> None:
        cache_dir().chmod(mode)
        with pytest.raises(EngineError, match="written by others"):
            cache_dir()

    def test_nor_is_one_of_another_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache_dir()
        monkeypatch.setattr(os, "getuid", lambda: 4242)
        with pytest.raises(EngineError, match="belongs to another user"):
            cache_dir()

    def test_an_entry_is_a_file_of_a_bounded_size(self, tmp_path: Path) -> None:
        entry = tmp_path / "entry.json"
        entry.write_text('{"a": 1}')
        assert read_entry(entry) == {"a": 1}
        (tmp_path / "link.json").symlink_to(entry)
        (tmp_path / "list.json").write_text("[]")
        (tmp_path / "large.json").write_text('{"a": 1}' + " " * (1 << 20))
        assert [read_entry(tmp_path / name) for name in ("link.json", "list.json", "large.json", "none")] == [None] * 4

    def test_a_staged_folder_appears_whole_or_not_at_all(self, tmp_path: Path) -> None:
        final = tmp_path / "plans" / "p"
        with pytest.raises(ValueError, match="x"), staged_folder(final) as staging:
            (staging / "a").write_text("a")
            raise ValueError("x")
        assert list((tmp_path / "plans").iterdir()) == []
        with staged_folder(final) as staging:
            (staging / "a").write_text("first")
            assert not final.exists()
        with staged_folder(final) as staging:  # somebody was faster
            (staging / "a").write_text("second")
        assert [p.name for p in (tmp_path / "plans").iterdir()] == ["p"] and (final / "a").read_text() == "first"

    def test_a_staged_folder_that_cannot_be_named_is_told(self, tmp_path: Path) -> None:
        from stamp_deploy.errors import DiskError

        (tmp_path / "p").write_text("a file in the way")
        with pytest.raises(DiskError), staged_folder(tmp_path / "p"):
            pass
        assert [p.name for p in tmp_path.iterdir()] == ["p"]
