"""A reference fitted on four made-up patients: who is inside, what each flag sees, what is left out, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from support.stained_tiles import stained_tiles

pytest.importorskip("sklearn")
pytest.importorskip("torch")

from stamp_deploy.bundle.reference import TrustReference, read_reference
from stamp_deploy.errors import BundleError
from stamp_deploy.export.trust_reference import ReferenceTiles, fit, fit_reference, left_out
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.trust.distance import mahalanobis, tile_distances
from stamp_deploy.trust.flags import DOUBTFUL, ONE_PATIENT, OUTSIDE, limits
from stamp_deploy.trust.judge import MIN_TILES, judge
from stamp_deploy.trust.statistics import STATISTICS, measure_tiles

MPP, SIDE, DIM = 0.5, 64, 6
Tiles = NDArray[np.uint8]


def embed(tiles: Tiles) -> NDArray[np.float32]:
    """Mean colours and their spread: a stand-in for a model."""
    flat = tiles.reshape(len(tiles), -1, 3).astype(np.float32) / 255
    return np.concatenate([flat.mean(1), flat.std(1)], axis=1)


@pytest.fixture(scope="module")
def reference() -> TrustReference:
    groups = tuple(stained_tiles(seed) for seed in range(4))
    return fit_reference(ReferenceTiles(groups, "patient"), MPP, embed)


def verdict(reference: TrustReference, tiles: Tiles, embedding: NDArray[np.float32] | None = None) -> SlideTrust:
    found = embed(tiles) if embedding is None else embedding
    return judge(reference, len(tiles), np.arange(len(tiles)), measure_tiles(tiles), found)


def has(trust: SlideTrust, flag: TileFlag) -> float:
    return float(((trust.tile_flags & np.uint16(flag)) != 0).mean())


def test_a_new_patient_of_the_same_kind_is_inside(reference: TrustReference) -> None:
    trust = verdict(reference, stained_tiles(9, 80))
    assert trust.verdict == "inside" and trust.distance is not None and trust.distance < DOUBTFUL
    assert trust.left_out.mean() <= 0.05 and trust.judged_tiles == 80
    assert np.isfinite(trust.tile_percentile).all() and 10 < np.median(trust.tile_percentile) < 99
    assert "left-out patient" in trust.reasons[0] and not any("one patient" in reason for reason in trust.reasons)


def blurred(tiles: Tiles) -> Tiles:
    return np.stack([ndimage.gaussian_filter(tile, (2, 2, 0)) for tile in tiles])


def inked(tiles: Tiles) -> Tiles:
    out = tiles.copy()
    out[:, :, : SIDE // 2] = (30, 140, 70)
    return out


def folded(tiles: Tiles) -> Tiles:
    return (tiles.astype(np.float64) ** 3 / 255**2).astype(np.uint8)


def grey(tiles: Tiles) -> Tiles:
    return np.repeat(tiles.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)


KINDS: dict[str, tuple[Callable[[Tiles], Tiles], TileFlag, str]] = {
    "blur": (blurred, TileFlag.BLURRED, "less sharp edges"),
    "ink": (inked, TileFlag.INK, "ink"),
    "fold": (folded, TileFlag.DARK_OR_FOLD, "dark or folded"),
    "grey": (grey, TileFlag.NOT_HE, "paler colours"),
    "inverted": (lambda t: 255 - t, TileFlag.NOT_HE, "not H&E"),
    "brown": (lambda t: stained_tiles(9, 80, haematoxylin=0.3, eosin=0, third=1.5), TileFlag.NOT_HE, "third colour"),
    "stain": (lambda t: stained_tiles(9, 80, haematoxylin=2.5, eosin=1.6), TileFlag.OVER_STAINED, "more eosin"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_flag_sees_its_kind_and_the_slide_is_outside_with_words(reference: TrustReference, kind: str) -> None:
    change, flag, words = KINDS[kind]
    trust = verdict(reference, change(stained_tiles(9, 80)))
    assert trust.verdict == "outside"
    assert has(trust, flag) > 0.9
    assert any(words in reason for reason in trust.reasons), trust.reasons
    assert trust.left_out.mean() > 0.9 or flag == TileFlag.OVER_STAINED


def test_a_few_odd_tiles_are_left_out_and_the_slide_stays_inside(reference: TrustReference) -> None:
    tiles = stained_tiles(9, 80)
    tiles[:6] = inked(tiles[:6])
    trust = verdict(reference, tiles)
    assert trust.verdict == "inside" and trust.left_out[:6].all() and trust.left_out[6:].mean() < 0.05
    assert (trust.tile_distance[:6] > OUTSIDE).all()


@pytest.mark.parametrize(("odd", "expected"), [(15, "inside"), (30, "doubtful"), (50, "outside")])
def test_many_odd_tiles_make_a_slide_doubtful_and_most_make_it_outside(
    reference: TrustReference, odd: int, expected: str
) -> None:
    tiles = stained_tiles(9, 80)
    tiles[:odd] = inked(tiles[:odd])
    assert verdict(reference, tiles).verdict == expected


def test_embeddings_alone_make_a_slide_doubtful_at_most(reference: TrustReference) -> None:
    tiles = stained_tiles(9, 80)
    far = embed(tiles) + 5
    trust = verdict(reference, tiles, far)
    assert trust.verdict == "doubtful" and any("embeddings lie" in reason for reason in trust.reasons)
    assert verdict(reference, tiles[:40], far[:40]).verdict == "inside", "too few tiles for embeddings"


def test_only_measured_tiles_are_judged_and_glass_is_none(reference: TrustReference) -> None:
    tiles = stained_tiles(9, 30)
    tiles[20:] = 245
    trust = judge(reference, 100, np.arange(10, 40), measure_tiles(tiles), np.zeros((100, DIM), np.float32))
    assert trust.judged_tiles == 20 and np.flatnonzero(np.isfinite(trust.tile_distance)).tolist() == list(range(10, 30))
    assert not trust.left_out[:10].any() and not trust.left_out[30:].any() and len(trust.tile_flags) == 100
    assert "only 20 tiles were measured" in trust.reasons


@pytest.mark.parametrize(("odd", "expected"), [(10, "doubtful"), (20, "outside")])
def test_on_a_slide_that_is_outside_no_tile_counts_that_nobody_measured(
    reference: TrustReference, odd: int, expected: str
) -> None:
    """Edges, which hold too little tissue to be measured, would be all that is left of it."""
    tiles = stained_tiles(9, 30)
    tiles[:odd] = inked(tiles[:odd])
    trust = judge(reference, 100, np.arange(10, 40), measure_tiles(tiles), np.zeros((100, DIM), np.float32))
    unseen = np.r_[0:10, 40:100]
    assert trust.verdict == expected
    assert (trust.tile_flags[unseen] == (TileFlag.NOT_MEASURED if expected == "outside" else 0)).all()
    assert trust.left_out[unseen].all() == (expected == "outside")
    assert not (trust.tile_flags[10:40] & TileFlag.NOT_MEASURED).any()
    assert trust.to_dict()["flags"]["not measured"] == (70 if expected == "outside" else 0)


def test_too_few_tiles_are_not_judged(reference: TrustReference) -> None:
    trust = verdict(reference, stained_tiles(9, MIN_TILES - 1))
    assert trust.verdict == "not judged" and trust.distance is None and not trust.left_out.any()
    assert f"{MIN_TILES - 1} tiles of tissue were measured" in trust.reasons[0]
    assert trust.columns() == {}


def test_a_reference_of_one_patient_says_so_and_has_wider_limits() -> None:
    groups = tuple(stained_tiles(seed) for seed in range(3))
    of_one = fit_reference(ReferenceTiles(groups, "section"), MPP)
    of_many = fit_reference(ReferenceTiles(groups, "patient"), MPP)
    width = [high - low for low, high in map(limits, (of_one, of_many))]
    np.testing.assert_allclose(width[0], ONE_PATIENT * width[1])
    trust = verdict(of_one, stained_tiles(9, 60))
    assert "the reference is of one patient: how much patients differ is not known" in trust.reasons
    assert of_one.embedding is None


def test_distances_are_of_groups_that_their_fit_has_not_seen() -> None:
    """One patient far off the others: its own distances are counted, not those within a fit that has seen it."""
    rng = np.random.default_rng(0)
    near = [rng.normal(size=(60, 3)) for _ in range(3)]
    groups = [*near, rng.normal(size=(60, 3)) + 8]
    own, rest = left_out(groups)[3]
    centre, _, whiten = fit(rest)
    assert np.median(mahalanobis(own, centre, whiten)) > 8
    assert np.array_equal(own, groups[3]) and len(rest) == 180
    tiles = (*(stained_tiles(seed) for seed in range(3)), stained_tiles(3, haematoxylin=2.0))
    honest = fit_reference(ReferenceTiles(tiles, "patient"), MPP)
    seen = np.median(tile_distances(honest, measure_tiles(tiles[3])))
    assert honest.median > seen, "the odd patient is nearer to a fit that has seen it"


def test_a_channel_that_hardly_varies_makes_nothing_foreign() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=(80, 9)), np.full((80, 1), 0.5)], axis=1)
    centre, spread, whiten = fit(values)
    moved = np.append(values[:, :9].mean(axis=0), 0.505)[None]
    assert spread[9] == pytest.approx(0.02) and mahalanobis(moved, centre, whiten)[0] < 2


def test_the_file_comes_back_as_it_was(reference: TrustReference) -> None:
    again = read_reference(reference.to_json(), mpp=MPP, tile_px=SIDE, embedding_dim=DIM)
    for name in ("centre", "spread", "whiten", "distances", "low", "high"):
        np.testing.assert_allclose(getattr(again, name), getattr(reference, name), rtol=1e-6)
    assert again.embedding is not None and reference.embedding is not None
    np.testing.assert_allclose(again.embedding.whiten, reference.embedding.whiten, rtol=1e-6)
    np.testing.assert_allclose(again.embedding.centre, reference.embedding.centre, rtol=1e-6)
    assert again.embedding.median == reference.embedding.median and again.embedding.tiles == reference.embedding.tiles
    assert (again.mpp, again.tile_px, again.median) == (MPP, SIDE, reference.median)
    assert (again.left_out_by, again.groups, again.tiles) == ("patient", 4, 160)
    assert again.distances[0] >= 0 and (np.diff(again.distances) >= 0).all()


def put(value: Any, *place: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    return change


BROKEN: tuple[tuple[Callable[[dict[str, Any]], None], str], ...] = (
    (put("other", "schema"), "of the schema"),
    (put(1, "surprise"), "unknown key"),
    (put(0.25, "mpp"), "another size or resolution"),
    (put(65, "tile_px"), "another size or resolution"),
    (put("slide", "left_out_by"), "none of patient"),
    (put(0, "groups"), "groups"),
    (put(True, "tiles"), "tiles"),
    (put([1.0], "statistics", "spread"), "should be"),
    (put(0.0, "statistics", "spread", 3), "a spread of 0"),
    (put(None, "statistics", "centre", 0), "other than numbers"),
    (put(1e9, "statistics", "centre", 0), "other than numbers"),
    (put([], "statistics", "centre"), "other than numbers"),
    (put([[1.0], [1.0, 2.0]], "statistics", "whiten"), "other than numbers"),
    (put(-1.0, "statistics", "distances", 0), "do not ascend"),
    (put(1e5, "statistics", "distances", 50), "do not ascend"),
    (put(0, "statistics", "median"), "median"),
    (put(99.0, "limits", "low", 0), "upside down"),
    (put(-2e6, "limits", "low", 0), "other than numbers"),
    (put(True, "limits", "low", 0), "other than numbers"),
    (put([1.0] * 99, "limits", "high"), "should be"),
    (put([0.5] * 100, "statistics", "distances"), "should be"),
    (put([[1.0]], "statistics", "whiten"), "should be"),
    (put([0.0], "limits", "high"), "should be"),
    (put(1.0, "embedding", "extra"), "unknown key"),
    (put([0.0], "embedding", "centre"), "should be"),
    (put([[1.0]], "embedding", "whiten"), "must be 6 by"),
    (lambda document: document.pop("limits"), "lacks 'limits'"),
)


@pytest.mark.parametrize(("damage", "words"), BROKEN)
def test_every_rule_of_the_file_is_checked(
    reference: TrustReference, damage: Callable[[dict[str, Any]], None], words: str
) -> None:
    document = json.loads(reference.to_json())
    damage(document)
    with pytest.raises(BundleError) as caught:
        read_reference(json.dumps(document).encode(), mpp=MPP, tile_px=SIDE, embedding_dim=DIM)
    assert words in caught.value.cause


def test_there_are_words_for_every_statistic() -> None:
    from stamp_deploy.trust.judge import _WORDS

    assert set(_WORDS) == set(STATISTICS)
