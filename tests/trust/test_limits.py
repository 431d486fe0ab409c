"""Each limit of trust at its edge, on measures that are set by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.bundle.reference import EmbeddingReference, TrustReference
from stamp_deploy.spread import spread
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.trust.distance import mahalanobis
from stamp_deploy.trust.flags import is_glass, limits, tile_flags
from stamp_deploy.trust.judge import _differences, _verdict, judge
from stamp_deploy.trust.sample import ENOUGH_TILES, SAMPLE_TILES, TileSample, chosen
from stamp_deploy.trust.statistics import MEASURES, STATISTICS, measure_tiles

AT = {name: place for place, name in enumerate(MEASURES)}
USUAL = {"brightness": 0.6, "black": 0.0, "ink": 0.0, "coloured": 0.6, "hue of H&E": 0.9}
"""Measures of a clean tile; all others are 0."""
LOW = {"brightness": 0.3, "ink": 0.0, "black": 0.0, "coloured": 0.3, "hue of H&E": 0.5}
HIGH = {"brightness": 0.9, "ink": 0.02, "black": 0.014, "coloured": 1.0, "hue of H&E": 1.0}


def row(**changes: float) -> NDArray[np.float64]:
    given = {**USUAL, **changes}
    return np.array([given.get(name, 0.0) for name in MEASURES])


def reference(left_out_by: str = "patient", **limits_of: tuple[float, float]) -> TrustReference:
    """Distances are those from the clean tile; their percentiles are 0, 0.1 ... 10, their median is 2."""
    low, high = ({**given, **{n: pair[i] for n, pair in limits_of.items()}} for i, given in enumerate((LOW, HIGH)))
    return TrustReference(
        mpp=0.5, tile_px=64, left_out_by=left_out_by, groups=4, tiles=100, centre=row()[: len(STATISTICS)],
        spread=np.ones(len(STATISTICS)), whiten=np.eye(len(STATISTICS)), distances=np.linspace(0, 10, 101), median=2.0,
        low=np.array([low.get(n, -1.0) for n in MEASURES]), high=np.array([high.get(n, 1.0) for n in MEASURES]),
    )  # fmt: skip


NOTHING = TileFlag(0)
EDGES: list[tuple[str, float, TileFlag, dict[str, Any]]] = [
    ("sharpness for its contrast", -1.0, NOTHING, {}),
    ("sharpness for its contrast", -1.001, TileFlag.BLURRED, {}),
    ("sharpness for its contrast", 9.0, NOTHING, {}),
    ("sharpness", -9.0, NOTHING, {}),
    ("ink", 0.15, NOTHING, {}),
    ("ink", 0.151, TileFlag.INK, {}),
    ("ink", 0.2, NOTHING, {"ink": (0.0, 0.3)}),
    ("ink", 0.31, TileFlag.INK, {"ink": (0.0, 0.3)}),
    ("brightness", 0.3, NOTHING, {}),
    ("brightness", 0.299, TileFlag.DARK_OR_FOLD, {}),
    ("brightness", 0.95, NOTHING, {}),
    ("black", 0.1, NOTHING, {}),
    ("black", 0.101, TileFlag.DARK_OR_FOLD, {}),
    ("black", 0.15, NOTHING, {"black": (0.0, 0.2)}),
    ("black", 0.21, TileFlag.DARK_OR_FOLD, {"black": (0.0, 0.2)}),
    ("haematoxylin mean", 1.0, NOTHING, {}),
    ("haematoxylin mean", 1.001, TileFlag.OVER_STAINED, {}),
    ("haematoxylin mean", -1.5, NOTHING, {}),
    ("eosin mean", 1.0, NOTHING, {}),
    ("eosin mean", 1.001, TileFlag.OVER_STAINED, {}),
    ("eosin mean", -1.5, NOTHING, {}),
    ("eosin mean", 1.5, NOTHING, {"eosin mean": (-1.0, 2.0)}),
    ("haematoxylin mean", 1.5, NOTHING, {"haematoxylin mean": (-1.0, 2.0)}),
    ("coloured", 0.05, NOTHING, {}),
    ("coloured", 0.049, TileFlag.NOT_HE, {}),
    ("coloured", 0.03, NOTHING, {"coloured": (0.02, 1.0)}),
    ("coloured", 0.019, TileFlag.NOT_HE, {"coloured": (0.02, 1.0)}),
    ("hue of H&E", 0.15, NOTHING, {}),
    ("hue of H&E", 0.149, TileFlag.NOT_HE, {}),
    ("hue of H&E", 0.12, NOTHING, {"hue of H&E": (0.1, 1.0)}),
    ("hue of H&E", 0.099, TileFlag.NOT_HE, {"hue of H&E": (0.1, 1.0)}),
    ("residual mean", 2.0, NOTHING, {}),
    ("residual mean", 2.001, TileFlag.NOT_HE, {}),
    ("residual mean", -2.001, TileFlag.NOT_HE, {}),
    ("residual mean", 4.0, NOTHING, {"residual mean": (1.0, 3.0)}),
    ("residual mean", -0.001, TileFlag.NOT_HE, {"residual mean": (1.0, 3.0)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "flag", "wider"), EDGES)
def test_each_flag_begins_behind_its_limit(name: str, value: float, flag: TileFlag, wider: dict[str, Any]) -> None:
    clean = {key: sum(pair) / 2 for key, pair in wider.items() if key == "residual mean"}
    measures = np.stack([row(**clean), row(**{name: value})])
    found = tile_flags(reference(**wider), measures, np.zeros(2))
    assert found.tolist() == [0, int(flag)] and found.dtype == np.uint16


def test_a_tile_can_have_several_flags_and_distance_is_one_of_them() -> None:
    measures = np.stack([row(), row(), row(ink=0.5, brightness=0.1), row()])
    found = tile_flags(reference(), measures, np.array([3.0, 3.001, 9.0, 0.0]))
    assert found.tolist() == [0, TileFlag.FOREIGN, TileFlag.FOREIGN | TileFlag.INK | TileFlag.DARK_OR_FOLD, 0]


@pytest.mark.parametrize(("by", "half"), [("patient", 1.0), ("section", 1.5), ("part", 1.5)])
def test_limits_of_one_patient_are_half_as_wide_again(by: str, half: float) -> None:
    low, high = limits(reference(by, sharpness=(2.0, 4.0)))
    assert (low[AT["eosin mean"]], high[AT["eosin mean"]]) == (-half, half)
    assert (low[AT["sharpness"]], high[AT["sharpness"]]) == (3 - half, 3 + half)


def test_glass_is_bright_and_without_colour() -> None:
    pairs = [(0.049, 0.801, True), (0.05, 0.9, False), (0.0, 0.8, False), (0.0, 0.2, False)]
    measures = np.stack([row(coloured=coloured, brightness=bright) for coloured, bright, _ in pairs])
    assert is_glass(measures).tolist() == [glass for _, _, glass in pairs]


@pytest.mark.parametrize(
    ("slide", "beside", "share", "verdict"),
    [
        (1.5, None, 0.25, "inside"), (1.5, 1.5, 0.0, "inside"), (1.501, None, 0.0, "doubtful"),
        (0.0, None, 0.251, "doubtful"),
        (0.0, 1.501, 0.0, "doubtful"), (0.0, 99.0, 0.0, "doubtful"), (3.0, None, 0.5, "doubtful"),
        (3.001, None, 0.0, "outside"),
        (0.0, None, 0.501, "outside"),
    ],
)  # fmt: skip
def test_the_verdict_at_its_edges(slide: float, beside: float | None, share: float, verdict: str) -> None:
    assert _verdict(slide, beside, share) == verdict


def test_distances_and_percentiles_stand_at_the_tiles_that_were_measured() -> None:
    """In any order, glass among them; a distance of 2 is a ratio of 1 and the 20th percentile."""
    far = np.array([0.0, 2.0, 4.0, 0.0, 9.9, 30.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    measures = np.stack([row(sharpness=value) for value in far])
    measures[3] = row(coloured=0.0, brightness=0.95)
    rows = np.array([19, 3, 7, 5, 0, 11, 1, 2, 4, 6, 8, 9])
    found = judge(reference(), 20, rows, measures, np.zeros((20, 6), np.float32))
    known = {19: 0.0, 3: 1.0, 7: 2.0, 0: 4.95, 11: 15.0, **dict.fromkeys((1, 2, 4, 6, 8, 9), 1.0)}
    assert np.flatnonzero(np.isfinite(found.tile_distance)).tolist() == sorted(known)
    assert {place: found.tile_distance[place] for place in known} == pytest.approx(known)
    percentiles = {19: 0.0, 3: 20.0, 7: 40.0, 0: 99.0, 11: 100.0}
    assert {place: found.tile_percentile[place] for place in percentiles} == pytest.approx(percentiles, abs=1e-4)
    assert np.isnan(found.tile_percentile[5]) and found.tile_flags[5] == 0
    assert np.flatnonzero(found.left_out).tolist() == [0, 11] and found.judged_tiles == 11
    assert found.distance == pytest.approx(1.0) and found.verdict == "inside"


@pytest.mark.parametrize(("count", "judged"), [(9, False), (10, True)])
def test_ten_tiles_of_tissue_are_needed(count: int, judged: bool) -> None:
    measures = np.stack([row()] * count + [row(coloured=0.0, brightness=0.95)] * 5)
    found = judge(reference(), 40, np.arange(count + 5), measures, np.zeros((40, 6), np.float32))
    assert (found.verdict == "inside") == judged and len(found.tile_distance) == 40
    if not judged:
        assert found.reasons == ("9 tiles of tissue were measured, and 10 are needed",) and found.distance is None


@pytest.mark.parametrize(("count", "used"), [(49, False), (50, True)])
def test_embeddings_count_from_fifty_tiles_on_and_are_those_of_the_measured_tiles(count: int, used: bool) -> None:
    embedding = np.full((200, 2), 1e3, np.float32)
    rows = np.arange(0, 2 * count, 2)
    embedding[rows] = (4.0, 0.0)
    known = EmbeddingReference(np.array([1.0, 0.0]), np.array([[0.0, 2.0], [5.0, 0.0]]), 3.0, 10)  # distance 6, ratio 2
    found = judge(replace(reference(), embedding=known), 200, rows, np.stack([row()] * count), embedding)
    assert found.verdict == ("doubtful" if used else "inside")
    assert any(reason == "its embeddings lie 2.0 times as far" for reason in found.reasons) == used
    assert any("only 49 tiles were measured" in reason for reason in found.reasons) == (not used)


@pytest.mark.parametrize(
    ("odd", "told", "verdict"),
    [(4, False, "inside"), (5, True, "inside"), (25, True, "inside"), (26, True, "doubtful"), (51, True, "outside")],
)
def test_flags_are_told_from_a_twentieth_on_and_decide_from_a_quarter_on(odd: int, told: bool, verdict: str) -> None:
    measures = np.stack([row(ink=0.5)] * odd + [row()] * (100 - odd))
    found = judge(reference(), 100, np.arange(100), measures, np.zeros((100, 6), np.float32))
    assert (f"{odd}% of the measured tiles are ink" in found.reasons) == told and found.verdict == verdict
    over = np.stack([row(**{"eosin mean": 1.2})] * odd + [row()] * (100 - odd))
    kept = judge(reference(), 100, np.arange(100), over, np.zeros((100, 6), np.float32))
    assert kept.verdict == "inside" and not kept.left_out.any()
    assert (f"{odd}% of the measured tiles are over-stained" in kept.reasons) == told


def test_the_three_statistics_that_are_farthest_off_are_named_farthest_first() -> None:
    off = {"eosin mean": 5.0, "sharpness": -9.0, "saturation": 3.0, "residual mean": 2.5, "eosin deviation": 1.9}
    measures = np.stack([row(**off)] * 3)
    assert _differences(reference(), measures) == [
        "less fine detail (sharpness -9.00, training -1.00 to 1.00)",
        "more eosin (eosin mean 5.00, training -1.00 to 1.00)",
        "stronger colours (saturation 3.00, training -1.00 to 1.00)",
    ]
    scaled = replace(reference(), spread=np.array([1.0] * 2 + [100.0] + [1.0] * 7))
    assert [line.split(" (")[0] for line in _differences(scaled, measures)] == [
        "less fine detail", "stronger colours", "a brown or other third colour",
    ]  # fmt: skip
    assert _differences(reference(), np.stack([row(sharpness=2.0)])) == []


def test_a_reference_of_one_patient_is_said_to_be_one() -> None:
    for by, said in (("patient", False), ("section", True), ("part", True)):
        found = judge(reference(by), 60, np.arange(60), np.stack([row()] * 60), np.zeros((60, 6), np.float32))
        assert any("of one patient" in reason for reason in found.reasons) == said
        assert f"a left-out {by} does" in found.reasons[0]


def test_the_distance_is_from_the_centre_along_the_whitened_axes() -> None:
    whiten = np.array([[2.0, 0.0], [1.0, 3.0]])
    found = mahalanobis(np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 3.0]]), np.array([1.0, 1.0]), whiten)
    assert found == pytest.approx([0.0, 2.0, np.hypot(2.0, 6.0)])


def test_counts_of_a_verdict_and_its_way_through_json() -> None:
    flags = np.array([0, TileFlag.INK, TileFlag.INK | TileFlag.FOREIGN, TileFlag.OVER_STAINED, 0], np.uint16)
    distance, percentile = np.arange(5, dtype=np.float32), np.arange(5, dtype=np.float32) * 10
    trust = SlideTrust("doubtful", ("a", "b"), 1.7, distance, flags, 5, "rule", percentile)
    value = trust.to_dict()
    assert (value["left_out_tiles"], value["distance"], value["judged_tiles"]) == (2, 1.7, 5)
    assert {k: v for k, v in value["flags"].items() if v} == {
        "ink": 2, "unlike the training tiles": 1, "over-stained": 1,
    }  # fmt: skip
    again = SlideTrust.from_dict(value, distance, flags, percentile)
    assert again.to_dict() == value and again.left_out.tolist() == [False, True, True, False, False]
    assert again.reasons == ("a", "b") and again.rule == "rule"
    columns = again.columns()
    assert list(columns) == ["trust_distance", "trust_percentile", "trust_flags", "left_out"]
    assert [columns[name].tolist() for name in columns] == [
        distance.tolist(), percentile.tolist(), flags.tolist(), trust.left_out.tolist(),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="unknown"):
        SlideTrust.from_dict({**value, "verdict": "fine"}, distance, flags, percentile)
    assert replace(trust, verdict="not judged").columns() == {}


@pytest.mark.parametrize(
    ("full", "rest", "wanted"),
    [
        (ENOUGH_TILES, 100, ENOUGH_TILES),  # enough tiles of tissue: they alone
        (ENOUGH_TILES - 1, 100, 163),  # too few: all
        (10, 0, 10),
        (10, 5, 15),
        (3 * SAMPLE_TILES, 7, SAMPLE_TILES),
        (0, 0, 0),
    ],
)
def test_which_tiles_are_measured(full: int, rest: int, wanted: int) -> None:
    fraction = np.array([0.5] * full + [0.49] * rest, np.float32)
    found = chosen(fraction)
    assert found.sum() == wanted and len(found) == full + rest
    if full >= ENOUGH_TILES:
        places = np.flatnonzero(found)
        assert places[0] == 0 and places[-1] == full - 1 and np.diff(places).max() <= full / wanted + 1


def test_a_sample_holds_the_measures_of_the_tiles_it_names() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3), np.uint8)
    fraction = np.array([0.9, 0.1] * 45, np.float32)
    fraction[:40] = 0.9
    sample = TileSample(fraction)
    order = np.random.default_rng(1).permutation(90)
    for part in np.array_split(order, 7):
        sample.take(part, tiles[part])
    assert sorted(sample.index) == np.flatnonzero(fraction > 0.5).tolist()
    np.testing.assert_array_equal(sample.measures, measure_tiles(tiles[sample.index]))
    assert TileSample(fraction).measures.shape == (0, len(MEASURES))


@pytest.mark.parametrize(("total", "count"), [(1, 5), (5, 5), (5, 9), (9, 5), (1000, 64), (65, 64), (0, 3)])
def test_some_of_many_hold_the_first_and_the_last(total: int, count: int) -> None:
    found = spread(total, count)
    assert len(found) == min(total, count) and len(set(found.tolist())) == len(found)
    if total:
        assert found[0] == 0 and (count == 1 or total == 1 or found[-1] == total - 1)
        steps = np.diff(found)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
