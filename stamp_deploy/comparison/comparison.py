"""Two results of one slide: another bundle, engine, option; or a rescan, which nobody has registered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UsageError
from ..provenance import RESEARCH_USE
from ..result import Result
from ..validation import facts_of, usable
from .agreement import FEW_PAIRS, MIN_PAIRS, Agreement, agreement, limit_uncertainty_sd
from .matched_tiles import MatchedTiles, match_tiles

SCHEMA, SCHEMA_VERSION = "stamp-deploy/comparison", 1
ALL_PAIRS = (
    "summaries leave out most pairs, so all of them are compared: it shows whether the two results give the same "
    "numbers, on tiles that at least one of them calls unlike what its model knows"
)
NOT_REGISTERED = (
    "the results are of different slides and were not registered: tiles are matched by their distance from the upper "
    "left corner of each slide, which shows the same tissue only where both scans start and turn alike"
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two results have in common and where they part.

    Attributes
    ----------
    one, other : Result
    tiles : MatchedTiles
    agreements : tuple of Agreement
        Per pathway that both have.
    differences : float64 [M, P]
        Scores of `other` minus those of `one`, in the order of `agreements`.
    unit : str
        Of all of these.
    only_one, only_other : tuple of str
        Pathways that one result alone has.
    notes : tuple of str
        What a reader should know.
    """

    one: Result
    other: Result
    tiles: MatchedTiles
    agreements: tuple[Agreement, ...]
    differences: NDArray[np.float64]
    unit: str
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]
    notes: tuple[str, ...]

    def calls(self) -> list[dict[str, Any]]:
        """The calls of heads that both have, side by side."""
        others = {head.name: head for head in self.other.heads}
        return [
            {
                "head": head.name,
                "kind": head.kind,
                "first": head.call,
                "second": others[head.name].call,
                "first_value": head.value,
                "second_value": others[head.name].value,
                "value_name": head.value_name,
                "same_call": head.call == others[head.name].call,
            }
            for head in self.one.heads
            if head.name in others
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values (docs/cases.md)."""
        tiles = self.tiles
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "software": __version__,
            "research_use": RESEARCH_USE,
            "first": _facts(self.one),
            "second": _facts(self.other),
            "same_slide": self.one.slide.sha256 == self.other.slide.sha256,
            "unit": self.unit,
            "tiles": {
                "pairs": len(tiles),
                "only_first": tiles.only_first,
                "only_second": tiles.only_second,
                "pairs_left_out": tiles.left_out,
                "limit_um": tiles.limit_um,
                "largest_distance_um": float(tiles.distance_um.max()),
            },
            "pathways": {item.pop("name"): item for item in map(asdict, self.agreements)},
            "only_first": list(self.only_one),
            "only_second": list(self.only_other),
            "calls": self.calls(),
            "notes": list(self.notes),
        }


def compare_results(one: Result, other: Result, *, different_slides: bool = False) -> Comparison:
    """Compare two results tile by tile.

    Parameters
    ----------
    one, other : Result
    different_slides : bool
        Compare results of different slides, too. They are not registered.

    Raises
    ------
    UsageError
        They are of different slides, share no pathway, or too few of their tiles lie at one place.
    """
    same = one.slide.sha256 == other.slide.sha256
    if not same and not different_slides:
        raise UsageError(
            f"the results are of different slides: {one.slide.name} and {other.slide.name}",
            remedy="name two results of one slide; --different-slides compares by position, without registration",
        )
    shared = [name for name in one.pathway_names if name in other.pathway_names]
    if not shared:
        raise UsageError("the results have no pathway in common", remedy="name results of bundles that share pathways")
    tiles = match_tiles(one, other)
    unlike = len(tiles) < min(tiles.left_out, FEW_PAIRS)
    if unlike:
        tiles = match_tiles(one, other, all_tiles=True)
    if len(tiles) < MIN_PAIRS:
        raise UsageError(
            f"only {len(tiles)} tiles of the two results lie at one place",
            remedy="score the same area of the slide with tiles of about one size",
        )
    columns, unit = _columns(one, other, shared)
    first, second = (values[index] for values, index in zip(columns, (tiles.first, tiles.second), strict=True))
    return Comparison(
        one,
        other,
        tiles,
        tuple(agreement(name, first[:, i], second[:, i]) for i, name in enumerate(shared)),
        second - first,
        unit,
        tuple(name for name in one.pathway_names if name not in shared),
        tuple(name for name in other.pathway_names if name not in shared),
        tuple((*([ALL_PAIRS] if unlike else []), *_notes(one, other, tiles, same=same, unit=unit))),
    )


def _columns(
    one: Result, other: Result, shared: list[str]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], str]:
    """Scores of the shared pathways of both, float64 [N, P], and their unit.

    Of one bundle the scores themselves; of two bundles z on each one's own common scale, where both state it for all.
    """
    index = [[result.pathway_names.index(name) for name in shared] for result in (one, other)]
    scores = (one.pathways[:, index[0]].astype(np.float64), other.pathways[:, index[1]].astype(np.float64))
    if one.bundle.sha256 == other.bundle.sha256:
        return scores, one.score_unit
    scales = [_scales(result, shared) for result in (one, other)]
    if any(scale is None for scale in scales):
        return scores, one.score_unit if one.score_unit == other.score_unit else "each bundle's own unit"
    z = tuple((value - scale[0]) / scale[1] for value, scale in zip(scores, scales, strict=True) if scale is not None)
    return (z[0], z[1]), "z on each bundle's common scale"


def _scales(result: Result, names: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Centres and spreads, float64 [P] each; None where one pathway has none."""
    found = [usable(facts.scale) for facts in facts_of(result.validation, names)]
    known = [scale for scale in found if scale is not None]
    if len(known) < len(names):
        return None
    return np.array([scale.centre for scale in known]), np.array([scale.spread for scale in known])


def _notes(one: Result, other: Result, tiles: MatchedTiles, *, same: bool, unit: str) -> list[str]:
    notes = [] if same else [NOT_REGISTERED]
    if len(tiles) < FEW_PAIRS:
        notes.append(
            f"only {len(tiles)} pairs of tiles: each limit of agreement is uncertain by "
            f"{limit_uncertainty_sd(len(tiles)):.1f} standard deviations either way, and r and CCC rest on as "
            "few"
        )
    if one.bundle.sha256 != other.bundle.sha256:
        if one.bundle.gene_set_sha256 != other.bundle.gene_set_sha256:
            notes.append("the bundles were trained on different gene sets: pathways of one name need not mean the same")
        if not unit.startswith("z "):
            notes.append("a bundle states no common scale: bias and limits may only show that the units differ")
    if one.grid.tile_px * one.grid.target_mpp != other.grid.tile_px * other.grid.target_mpp:
        notes.append("tiles of the two results differ in size: they show different amounts of tissue")
    missing = max(
        tiles.only_first / max(len(one.coords), 1),
        tiles.only_second / max(len(other.coords), 1),
    )
    if missing > 0.05:
        notes.append(f"up to {missing:.0%} of a result's tiles have no partner: the comparison says nothing of them")
    for place, result in (("first", one), ("second", other)):
        if result.trust is not None and result.trust.verdict in ("outside", "doubtful"):
            notes.append(f"the {place} result is {result.trust.verdict}: {'; '.join(result.trust.reasons)}")
    return notes


def _facts(result: Result) -> dict[str, Any]:
    return {
        "slide": result.slide.name,
        "slide_sha256": result.slide.sha256,
        "bundle": result.bundle.name,
        "bundle_sha256": result.bundle.sha256,
        "engine": f"{result.engine.name} {result.engine.version} {result.engine.precision}",
        "config_sha256": result.config_sha256,
        "software": result.software.get("stamp-deploy", ""),
        "tiles": len(result.coords),
        "verdict": "not judged" if result.trust is None else result.trust.verdict,
        "started_utc": result.started_utc,
    }
