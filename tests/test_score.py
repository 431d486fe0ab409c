"""From tiles to a record: what `score`, `conclude` and `assemble` hand on, each field against what was put in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy import infer, score
from stamp_deploy.absence import Absence
from stamp_deploy.assemble import assemble
from stamp_deploy.config import InferOptions
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.errors import SlideError
from stamp_deploy.gallery import MAX_PATHWAYS
from stamp_deploy.grid import Grid, TileSet
from stamp_deploy.heads import OUTSIDE_NO_CALL
from stamp_deploy.result import UNSTATED_UNIT
from stamp_deploy.tiles.reader import StageTimes, TileBatch, TileStatus
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.validation import Validation

OK, MISSING, CORRUPT, LATE = (TileStatus[name] for name in ("OK", "MISSING", "CORRUPT", "TIMEOUT"))
TILE, COUNT = 16, 12
BATCHES = ([7, 3, 9], [0, 11, 1, 5], [2, 8], [4], [10, 6])
"""Tiles in the order in which they come back."""
UNREADABLE = {9: MISSING, 1: CORRUPT, 5: CORRUPT, 4: LATE}
GRID = Grid(4 * 40, 3 * 20, 0.2, 0.4, 0.5, TILE)
assert MAX_PATHWAYS > 2


def options(**change: Any) -> InferOptions:
    return InferOptions(**{"max_unreadable": 0.5, **change})


class Source:
    """Hands the tiles over; every pixel of a tile is its number."""

    failure: SlideError | None = None
    times = StageTimes(read_s=1.0, decode_s=2.0, resample_s=3.0)
    plan = SimpleNamespace(to_dict=lambda: {"level": 1})

    def __init__(self, batches: Any = BATCHES, unreadable: dict[int, TileStatus] = UNREADABLE) -> None:
        self.batches, self.unreadable = batches, unreadable
        self.ok = self.missing = self.corrupt = 0

    def __iter__(self) -> Iterator[TileBatch]:
        for numbers in self.batches:
            index = np.array(numbers, np.int64)
            status = np.array([self.unreadable.get(number, OK) for number in numbers], np.uint8)
            self.ok += int((status == OK).sum())
            self.missing += int((status == MISSING).sum())
            self.corrupt += int((status == CORRUPT).sum())
            pixels = np.broadcast_to(index.astype(np.uint8)[:, None, None, None], (len(index), TILE, TILE, 3))
            yield TileBatch(pixels, np.zeros((len(index), 2), np.int64), index, status)


class Engine:
    """Answers with the tiles' numbers; its word on the batch changes on the way."""

    info = EngineInfo("e", "1", "cpu", "fp32")

    def __init__(self, spoil: str = "", shared: bool = True) -> None:
        self.spoil, self.shared = spoil, shared

    def stream(self, batches: Any) -> Iterator[EngineOutput]:
        for pixels in batches:
            number = pixels[:, 0, 0, :1].astype(np.float32)
            answer = {
                "embedding": number * [1, 2, 3],
                "pathways": number * [10, -10],
                "pathways_global": number * [5, 6],
            }
            values = {name: found.astype(np.float32) for name, found in answer.items()}
            if self.spoil and (number == 8).any():
                values[self.spoil][-1, -1] = np.nan
            yield EngineOutput(
                values["embedding"], values["pathways"], values["pathways_global"] if self.shared else None
            )
        self.info = EngineInfo("e", "1", "cpu", "fp32", details={"batch": "halved"})


def prepared(source: Source | None = None, **change: Any) -> Any:
    row, column = np.divmod(np.arange(COUNT), 4)
    coords = np.stack([column * 40, row * 20], axis=1).astype(np.int64)
    fraction = (np.arange(COUNT) / COUNT).astype(np.float32)
    tiles = TileSet(
        GRID, column.astype(np.int32), row.astype(np.int32), coords, fraction, total=20, skipped_background=8
    )
    bundle = SimpleNamespace(
        trust_file=None, tile_px=TILE, reference=None, tissue={"min_fraction": 0.25}, validation=Validation("unit"),
        pathways=("B", "A"), name="b", sha256="beef", pfm_id="pfm", pfm_licence="l", mpp=0.5, embedding_dim=3,
        gene_set_sha256="g", files={"f": {"sha256": "ff", "size": 1}}, parity={"passed": True},
    )  # fmt: skip
    levels = (
        SimpleNamespace(width=160, height=60, downsample_x=1.0, downsample_y=1.0),
        SimpleNamespace(width=40, height=20, downsample_x=4.0, downsample_y=3.0),
    )
    slide = SimpleNamespace(
        path=Path("/somewhere/slide.svs"), sha256=lambda: "51", size_bytes=123, vendor="aperio", width=160, height=60,
        mpp=SimpleNamespace(mpp_x=0.2, mpp_y=0.4, source="vendor", evidence=("e",), conflict="they differ"),
        levels=levels, route=SimpleNamespace(name="r", reason="why"), properties={"k": "v"}, bounds=(1, 2, 3, 4),
        notes=("a note of the slide",),
    )  # fmt: skip
    where = SimpleNamespace(
        tissue=None,
        tiles=tiles,
        absence=Absence(3, 12, 0.3, 0.0),
        classes={},
        facts={"from": "there"},
        notes=("where",),
    )
    given = dict(
        slide=slide, bundle=bundle, options=options(), where=where, tiles=tiles, source=source or Source(),
        thumbnail=np.zeros((6, 16, 3), np.uint8), started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), seconds={},
        gallery=None,
    )  # fmt: skip
    return SimpleNamespace(**{**given, **change})


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the gallery is asked for."""
    asked: list[Any] = []
    monkeypatch.setattr(score, "take_gallery", lambda p, index, kept, pathways: asked.append((index, kept, pathways)))
    return asked


SCORED = [n for n in range(COUNT) if n not in UNREADABLE]


def test_scores_stand_in_the_order_of_the_tiles_whatever_the_order_they_came_in(no_pictures: list[Any]) -> None:
    found = score.score(prepared(), Engine())  # type: ignore[arg-type]
    number = np.array(SCORED, np.float32)[:, None]
    assert found.index.tolist() == SCORED and found.index.dtype == np.int64
    np.testing.assert_array_equal(found.embedding, number * [1, 2, 3])
    np.testing.assert_array_equal(found.pathways, number * [10, -10])
    np.testing.assert_array_equal(found.pathways_global, number * [5, 6])
    assert found.engine.details == {"batch": "halved"}
    ((index, kept, pathways),) = no_pictures
    assert index is found.index and pathways is found.pathways and kept.all()
    assert score.score(prepared(), Engine(shared=False)).pathways_global is None  # type: ignore[arg-type]


def test_tiles_that_trust_leaves_out_are_no_pictures(monkeypatch: pytest.MonkeyPatch, no_pictures: list[Any]) -> None:
    flags = np.zeros(len(SCORED), np.uint16)
    flags[2] = TileFlag.INK
    trust = SlideTrust("inside", tile_distance=np.zeros(len(SCORED), np.float32), tile_flags=flags)
    asked: list[Any] = []
    monkeypatch.setattr(
        score, "judge_slide", lambda p, index, sample, embedding: asked.append((index, embedding)) or trust
    )
    found = score.score(prepared(), Engine())  # type: ignore[arg-type]
    assert found.trust is trust and no_pictures[0][1].tolist() == [i != 2 for i in range(len(SCORED))]
    assert asked[0][0] is found.index and asked[0][1] is found.embedding


@pytest.mark.parametrize(("px", "file", "measured"), [(16, "t", True), (15, "t", False), (16, None, False)])
def test_tiles_are_measured_with_their_own_pixels(
    monkeypatch: pytest.MonkeyPatch, px: int, file: str | None, measured: bool
) -> None:
    took: list[tuple[int, int]] = []

    class Sample:
        seconds = 0.0

        def __init__(self, fraction: NDArray[np.float32]) -> None:
            assert len(fraction) == COUNT

        def take(self, index: NDArray[np.int64], tiles: NDArray[np.uint8]) -> None:
            took.extend(zip(index.tolist(), tiles[:, 0, 0, 0].tolist(), strict=True))

    given: list[Any] = []
    monkeypatch.setattr(score, "TileSample", Sample)
    trust = SlideTrust("inside", tile_distance=np.zeros(8, np.float32), tile_flags=np.zeros(8, np.uint16))
    monkeypatch.setattr(score, "judge_slide", lambda p, index, sample, embedding: given.append(sample) or trust)
    ready = prepared()
    ready.bundle.tile_px, ready.bundle.trust_file = px, file
    score.score(ready, Engine())  # type: ignore[arg-type]
    assert sorted(took) == ([(n, n) for n in SCORED] if measured else [])
    assert (given[0] is not None) == measured


def test_progress_counts_what_has_been_seen_of_all() -> None:
    told: list[tuple[int, int]] = []
    score.score(prepared(), Engine(), progress=lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told == [(3, 12), (7, 12), (9, 12), (10, 12), (12, 12)]


def test_times_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by one second at each look: five batches and their end are waited for, a second each."""
    ticks = iter(range(1000))
    monkeypatch.setattr(score.time, "perf_counter", lambda: float(next(ticks)))
    ready = prepared()
    score.score(ready, Engine())  # type: ignore[arg-type]
    seconds = ready.seconds
    assert seconds["wait_for_tiles"] == 6.0
    assert seconds["stream"] == 13.0 and seconds["engine"] == 7.0


@pytest.mark.parametrize("what", ["embedding", "pathways", "pathways_global"])
def test_one_value_that_is_not_finite_stops_the_slide(what: str) -> None:
    with pytest.raises(SlideError, match="not finite"):
        score.score(prepared(), Engine(spoil=what))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batches", "unreadable", "budget", "cause"),
    [
        (BATCHES, UNREADABLE, 4 / 12, None),
        (BATCHES, UNREADABLE, 4 / 12 - 1e-9, "4 of 12 tissue tiles are unreadable, more than the budget of 33.33%"),
        (BATCHES, dict.fromkeys(range(COUNT), CORRUPT), 1.0, "12 of 12 tissue tiles are unreadable"),
        (BATCHES[:-1], {}, 1.0, "only 10 of 12 tiles came back from the reader"),
        ((*BATCHES, [0]), {}, 1.0, "only 13 of 12"),
    ],
    ids=["at the edge", "behind it", "none", "too few", "too many"],
)
def test_the_budget(batches: Any, unreadable: Any, budget: float, cause: str | None) -> None:
    ready = prepared(Source(batches, unreadable), options=options(max_unreadable=budget))
    if cause is None:
        score.score(ready, Engine())  # type: ignore[arg-type]
    else:
        with pytest.raises(SlideError, match=cause):
            score.score(ready, Engine())  # type: ignore[arg-type]


def test_the_first_failure_is_told_with_the_budget() -> None:
    source = Source()
    source.failure = SlideError("cannot be decoded at (1, 2)", remedy="scan it again")
    with pytest.raises(SlideError, match=r"the first cannot be decoded at \(1, 2\)") as told:
        score.score(prepared(source, options=options(max_unreadable=0.1)), Engine())  # type: ignore[arg-type]
    assert told.value.remedy == "scan it again; --max-unreadable raises the budget"


def finished() -> Any:
    ready = prepared()
    for _ in ready.source:
        pass
    return ready


def test_each_field_of_the_record() -> None:
    ready = finished()
    index = np.array(SCORED)
    answers = {name: np.arange(8 * w, dtype=np.float32).reshape(8, w) for name, w in (("e", 3), ("p", 2), ("g", 2))}
    trust = SlideTrust("inside", tile_distance=np.zeros(8, np.float32), tile_flags=np.zeros(8, np.uint16))
    engine = EngineInfo("e", "1", "cpu", "fp32")
    found = assemble(
        ready, engine, index, answers["e"], answers["p"], (), ["beware"], pathways_global=answers["g"], trust=trust
    )
    assert found.coords.tolist() == [[n % 4 * 40, n // 4 * 20] for n in SCORED]
    assert found.tissue_fraction == pytest.approx(index / COUNT)
    assert found.embedding is answers["e"] and found.pathways is answers["p"] and found.pathways_global is answers["g"]
    assert found.pathway_names == ("B", "A") and found.score_unit == "unit" and found.trust is trust
    counts = found.tiles
    assert (counts.grid, counts.background, counts.seen, counts.absent) == (20, 8, 12, 3)
    assert (counts.ok, counts.missing, counts.corrupt, counts.timeout, counts.unreadable) == (8, 1, 2, 1, 4)
    assert found.warnings == ("beware", "4 of 12 tissue tiles could not be read and have no score")
    slide = found.slide
    assert (slide.name, slide.sha256, slide.size_bytes, slide.vendor) == ("slide.svs", "51", 123, "aperio")
    assert (slide.width, slide.height, slide.mpp_x, slide.mpp_y) == (160, 60, 0.2, 0.4)
    assert (slide.mpp_source, slide.mpp_evidence, slide.bounds) == ("vendor", ("e",), (1, 2, 3, 4))
    assert slide.levels[1] == {"width": 40, "height": 20, "downsample_x": 4.0, "downsample_y": 3.0}
    assert (slide.route, slide.route_reason, slide.properties) == ("r", "why", {"k": "v"})
    bundle = found.bundle
    assert (bundle.name, bundle.sha256, bundle.pfm_id, bundle.pfm_licence) == ("b", "beef", "pfm", "l")
    assert (bundle.tile_px, bundle.mpp, bundle.embedding_dim, bundle.gene_set_sha256) == (16, 0.5, 3, "g")
    assert (bundle.files, bundle.parity) == ({"f": "ff"}, {"passed": True})
    assert found.config == ready.options.to_dict() and found.config_sha256 == ready.options.sha256()
    assert found.started_utc == "2026-01-02T03:04:05+00:00" and found.source_path == ready.slide.path
    assert found.read_plan == {"level": 1} and found.grid is GRID and found.thumbnail is ready.thumbnail
    assert found.tissue == {"rule": {"min_fraction": 0.25}, "from": "there"} and found.tissue_mask is None
    assert {k: found.timing[k] for k in ("tiler_read", "tiler_decode", "tiler_resample")} == {
        "tiler_read": 1.0, "tiler_decode": 2.0, "tiler_resample": 3.0,
    }  # fmt: skip


def test_tissue_that_was_found_is_part_of_the_record() -> None:
    ready = finished()
    mask = np.eye(3, 5, dtype=bool)
    ready.where.tissue = SimpleNamespace(
        mask=mask, threshold=0.25, fraction=0.125, faint_sections=2, left_fraction=0.0625, notes=("faint",)
    )
    ready.bundle.validation = Validation("")
    ready.slide.bounds = None
    index = np.array(SCORED)
    values = np.zeros((8, 2), np.float32)
    found = assemble(ready, EngineInfo("e", "1", "cpu", "fp32"), index, values, values)
    assert found.tissue_mask is mask and found.score_unit == UNSTATED_UNIT and found.slide.bounds == ()
    said = {name: found.tissue[name] for name in ("threshold", "fraction", "faint_sections", "left_fraction")}
    assert said == {"threshold": 0.25, "fraction": 0.125, "faint_sections": 2, "left_fraction": 0.0625}


@pytest.mark.parametrize("verdict", ["inside", "doubtful", "outside", "not judged"])
def test_what_is_concluded(monkeypatch: pytest.MonkeyPatch, verdict: Any) -> None:
    """Heads see all embeddings, and make no call on a slide that is outside; classes are those of the scored tiles."""
    ready = finished()
    ready.where.classes = {"Tumor": np.arange(COUNT, dtype=np.float32)}
    ready.where.tissue = SimpleNamespace(
        mask=np.ones((3, 5), bool), threshold=0.1, fraction=1.0, faint_sections=0, left_fraction=0.0, notes=("faint",)
    )
    called: list[Any] = []
    monkeypatch.setattr(
        infer, "call_heads", lambda b, e, *, threads, refusal: called.append((e, threads, refusal)) or ()
    )
    summed: list[Any] = []
    monkeypatch.setattr(infer, "add_summaries", lambda result, classes: summed.append(classes) or result)
    trust = SlideTrust(verdict, ("because",), tile_distance=np.zeros(8, np.float32), tile_flags=np.zeros(8, np.uint16))
    values = np.zeros((8, 2), np.float32)
    scores = score.Scores(EngineInfo("e", "1", "cpu", "fp32"), np.array(SCORED), values, values, None, trust)
    found = infer.conclude(ready, scores)
    ((embedding, threads, refusal),) = called
    assert embedding is values and threads == ready.options.threads
    assert refusal == (OUTSIDE_NO_CALL if verdict == "outside" else "")
    assert summed[0]["Tumor"].tolist() == SCORED
    told = found.warnings
    assert told[:2] == ("they differ", "a note of the slide") and "faint" in told and "where" in told
    assert any("the file holds nothing in 30.0%" in one for one in told)
    assert any(one.endswith(": because") for one in told) == (verdict != "inside")
    assert {"heads", "summaries"} <= found.timing.keys()
