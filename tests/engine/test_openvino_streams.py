"""OpenVINO in several streams: the same numbers in the same order, and the number of streams that is fastest here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import open_engine
from stamp_deploy.engine import openvino_streams as streams
from stamp_deploy.engine.openvino_streams import choose_count, fastest_count, remembered_count, stream_counts
from stamp_deploy.engine.verdict import _key
from stamp_deploy.errors import EngineError

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("streams") / "bundle", golden_tiles=10))


def engine_of(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, count: int, batch: int = 32) -> Any:
    """The engine in so many streams, whatever would be fastest."""
    monkeypatch.setattr(
        "stamp_deploy.engine.openvino.fastest_count", lambda runs, tiles: max(k for k in runs if k <= count)
    )
    return open_engine(bundle, "openvino", batch=batch, threads=count)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("tiles", [1, 7, 8, 9, 16, 17, 31, 32])
def test_parts_of_a_batch_come_back_in_the_order_of_its_tiles(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, count: int, tiles: int
) -> None:
    side = bundle.tile_px
    batch = np.random.default_rng(1).integers(0, 256, (tiles, side, side, 3), np.uint8)
    one = engine_of(bundle, monkeypatch, 1)
    many = engine_of(bundle, monkeypatch, count)
    assert (one.info.details["streams"], many.info.details["streams"]) == ("1", str(count))
    wanted, found = one.run(batch), many.run(batch)
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-5)
    np.testing.assert_allclose(found.pathways, wanted.pathways, atol=1e-5)
    assert found.embedding.dtype == np.float32 and len(np.unique(wanted.embedding, axis=0)) == tiles
    again = many.run(batch[::-1])  # rows that are not contiguous, in the requests' own memory a second time
    np.testing.assert_allclose(again.pathways[::-1], wanted.pathways, atol=1e-5)
    np.testing.assert_array_equal(found.pathways, many.run(batch).pathways)


def test_a_part_that_fails_is_told_after_the_others_have_ended(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(bundle, monkeypatch, 3)
    requests, ended = engine._streams._requests, list[int]()

    class Request:
        def __init__(self, number: int) -> None:
            self.number = number

        def start_async(self, inputs: object, share_inputs: bool) -> None:
            if self.number == 0:
                raise RuntimeError("no memory\nfor the first")

        def wait(self) -> None:
            ended.append(self.number)
            if self.number == 1:
                raise RuntimeError("the second")

    engine._streams._requests = [Request(number) for number in range(3)]
    tiles = np.zeros((24, bundle.tile_px, bundle.tile_px, 3), np.uint8)
    with pytest.raises(EngineError, match="for the first"):
        engine.run(tiles)
    assert ended == [0, 1, 2]
    engine._streams._requests = requests
    assert len(engine.run(tiles).pathways) == 24


@pytest.mark.parametrize(
    ("batch", "threads", "counts"),
    [(16, 1, (1,)), (15, 8, (1,)), (16, 2, (1, 2)), (16, 64, (1, 2)), (64, 2, (1, 2)), (64, 64, (1, 8)), (1, 4, (1,))],
)
def test_every_stream_has_a_thread_and_eight_tiles(batch: int, threads: int, counts: tuple[int, ...]) -> None:
    assert stream_counts(batch, threads) == counts


def test_one_stream_stays_unless_more_are_clearly_faster() -> None:
    assert choose_count({1: 1.0, 2: 0.98}) == 1
    assert choose_count({1: 1.0, 2: 0.96}) == 2
    assert choose_count({1: 0.5, 2: 1.0}) == 1


def test_runs_are_timed_in_turn_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], list[int]()

    tiles = np.zeros((32, 1), np.uint8)

    def run(count: int, given: Any) -> None:
        assert len(given) == (8 * count if len(order) < 2 else 32)
        order.append(count)
        clock[0] += {1: 1.0, 4: 100.0 if len(order) <= 2 else 0.5}[count]

    monkeypatch.setattr(streams.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(streams, "SECONDS", 100.0)
    assert fastest_count({1: partial(run, 1), 4: partial(run, 4)}, tiles) == 4
    assert order == [1, 4] * 4
    order.clear()
    monkeypatch.setattr(streams, "SECONDS", 2.0)
    clock[0] = 0.0
    fastest_count({1: partial(run, 1), 4: partial(run, 4)}, tiles)
    assert order == [1, 4] * 3  # two rounds of 1.5 s are past 2 s


def test_the_count_is_measured_once_for_all_that_could_change_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()

    def measure() -> int:
        asked.append(1)
        return 2

    def count(of: Bundle = bundle, precision: str = "fp32", batch: int = 16, threads: int = 2) -> int:
        return remembered_count(of, precision, batch, threads, (1, 2), measure)

    assert [count(), count()] == [2, 2] and len(asked) == 1
    for change in (
        {"of": replace(bundle, sha256="0" * 64)}, {"of": replace(bundle, encoder_file="twin.onnx")},
        {"precision": "bf16"}, {"batch": 32}, {"threads": 4},
    ):  # fmt: skip
        asked.clear()
        assert count(**change) == 2 and len(asked) == 1  # type: ignore[arg-type]
    monkeypatch.setattr(streams, "usable_cores", lambda: 99)
    asked.clear()
    assert count() == 2 and len(asked) == 1
    monkeypatch.setattr(streams, "machine_facts", lambda: {"processor": "another"})
    asked.clear()
    assert count() == 2 and len(asked) == 1
    monkeypatch.setenv("STAMP_CACHE_DIR", "/dev/null/none")
    asked.clear()
    assert [count(), count()] == [2, 2] and len(asked) == 2
    assert remembered_count(bundle, "fp32", 4, 1, (1,), measure) == 1 and len(asked) == 2


def test_a_damaged_entry_is_measured_again(bundle: Bundle, tmp_path: Path) -> None:
    remembered_count(bundle, "fp32", 16, 2, (1, 2), lambda: 2)
    (entry,) = (tmp_path / "cache" / "streams").iterdir()
    for text in ('{"streams": 7}', '{"streams": "2"}', "{", "[]"):
        entry.write_text(text)
        assert remembered_count(bundle, "fp32", 16, 2, (1, 2), lambda: 1) == 1


def test_parity_is_asked_for_each_number_of_streams(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {_key(bundle, engine_of(bundle, monkeypatch, count, batch=32)) for count in (1, 2, 4)}
    assert len(keys) == 3


class Core:
    """Of OpenVINO: which networks were compiled with what, and how large the parts were."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.parts: list[int] = []

    def compile_model(self, network: object, device: str, settings: dict[str, Any]) -> Any:
        self.given.append({"device": device, **settings})
        core = self

        class Request:
            def start_async(self, inputs: dict[str, Any], share_inputs: bool) -> None:
                core.parts.append(len(inputs["tiles"]))

            def wait(self) -> None: ...

        return type("Compiled", (), {"create_infer_request": lambda self: Request()})()


@pytest.mark.parametrize(("count", "hint"), [(1, "LATENCY"), (2, "THROUGHPUT"), (5, "THROUGHPUT")])
def test_one_stream_is_compiled_for_one_batch_and_several_for_many(count: int, hint: str) -> None:
    core = Core()
    made = streams.Streams(core, None, {"INFERENCE_NUM_THREADS": 7}, count)
    wanted = {"device": "CPU", "INFERENCE_NUM_THREADS": 7, "PERFORMANCE_HINT": hint, "NUM_STREAMS": count}
    assert core.given == [wanted] and made.count == count


@pytest.mark.parametrize(
    ("tiles", "parts"), [(1, [1]), (8, [8]), (9, [5, 4]), (16, [8, 8]), (17, [6, 6, 5]), (64, [16] * 4)]
)
def test_no_part_is_smaller_than_it_must_be(tiles: int, parts: list[int]) -> None:
    core = Core()
    streams.Streams(core, None, {}, 4).run(np.zeros((tiles, 2, 2, 3), np.uint8), ())
    assert core.parts == parts


def test_one_slow_round_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], list[int]()

    def run(count: int, given: Any) -> None:
        calls.append(count)
        slow = count == 4 and calls.count(4) == 3  # the second that is timed
        clock[0] += {1: 1.0, 4: 50.0 if slow else 0.5}[count]

    monkeypatch.setattr(streams.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(streams, "SECONDS", 1000.0)
    assert fastest_count({1: partial(run, 1), 4: partial(run, 4)}, np.zeros((32, 1), np.uint8)) == 4


def test_streams_are_timed_over_a_full_batch(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def fastest(runs: dict[int, Any], tiles: Any) -> int:
        seen.append((tuple(runs), tiles.shape, tiles.dtype, len(np.unique(tiles)) > 200))
        return 1

    monkeypatch.setattr("stamp_deploy.engine.openvino.fastest_count", fastest)
    open_engine(bundle, "openvino", batch=24, threads=3)
    assert seen == [((1, 3), (24, bundle.tile_px, bundle.tile_px, 3), np.uint8, True)]
