"""The records of trust: flags in words, and which tiles are left out."""

from __future__ import annotations

import numpy as np
import pytest
from support.result_factory import make_result

from stamp_deploy.trust import SlideTrust, TileFlag, besides_verdict
from stamp_deploy.validation import MIN_VALIDATED_R, PathwayValidation


def test_flags_have_words_and_over_staining_alone_leaves_nothing_out() -> None:
    assert (TileFlag.INK | TileFlag.BLURRED).label == "blurred, ink"
    assert TileFlag(0).label == ""
    flags = np.array([0, *TileFlag, TileFlag.INK | TileFlag.OVER_STAINED], np.uint16)
    trust = SlideTrust("doubtful", tile_flags=flags)
    assert trust.left_out.tolist() == [False, True, True, True, False, True, True, True, True]


def test_warnings_of_a_verdict_are_told_apart_from_others() -> None:
    for verdict in ("doubtful", "outside", "not judged"):
        (said,) = SlideTrust(verdict, ("brown", "blurred")).warnings
        assert said.endswith(": brown; blurred")
        assert besides_verdict([said, "another"]) == ["another"]
    assert SlideTrust("inside", ("near",)).warnings == []


def test_trust_must_fit_the_tiles() -> None:
    with pytest.raises(ValueError, match="tile_flags"):
        make_result(n_tiles=4, trust=SlideTrust("not judged", tile_distance=np.full(4, np.nan, np.float32)))
    with pytest.raises(ValueError, match="pathways_global"):
        make_result(n_tiles=4, pathways=2, pathways_global=np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="finite"):
        make_result(n_tiles=4, pathways=2, pathways_global=np.full((4, 2), np.nan, np.float32))


@pytest.mark.parametrize(
    ("r", "low", "validated"),
    [(None, None, False), (MIN_VALIDATED_R, 0.01, True), (0.19, 0.1, False), (0.5, 0.0, False), (0.5, None, False)],
)
def test_a_pathway_is_validated_by_r_and_by_its_interval(r: float | None, low: float | None, validated: bool) -> None:
    assert PathwayValidation("A", r=r, r_low=low).validated is validated


def test_a_distance_that_is_told_alone_has_no_percentile() -> None:
    trust = SlideTrust("inside", tile_distance=np.ones(3, np.float32))
    assert np.isnan(trust.tile_percentile).all() and trust.tile_percentile.shape == (3,)
    assert trust.tile_percentile.dtype == np.float32
