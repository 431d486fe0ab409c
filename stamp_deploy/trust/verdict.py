"""`SlideTrust`: whether a slide looks like what the model was trained on, tile by tile and as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["inside", "doubtful", "outside", "not judged"]
VERDICTS: tuple[Verdict, ...] = ("inside", "doubtful", "outside", "not judged")


class TileFlag(IntFlag):
    """What was seen on a tile; `NOT_MEASURED` where nothing was, on a slide that is outside."""

    BLURRED = 1
    INK = 2
    DARK_OR_FOLD = 4
    OVER_STAINED = 8
    NOT_HE = 16
    FOREIGN = 32
    NOT_MEASURED = 64

    @property
    def label(self) -> str:
        """The flag in words; several are joined by commas."""
        return ", ".join(_LABELS[flag] for flag in TileFlag if flag in self)


_LABELS = {
    TileFlag.BLURRED: "blurred",
    TileFlag.INK: "ink",
    TileFlag.DARK_OR_FOLD: "dark or folded",
    TileFlag.OVER_STAINED: "over-stained",
    TileFlag.NOT_HE: "not H&E",
    TileFlag.FOREIGN: "unlike the training tiles",
    TileFlag.NOT_MEASURED: "not measured",
}
LEFT_OUT_FLAGS = ~TileFlag.OVER_STAINED
"""Tiles with one of these are left out of summaries. Over-staining alone shifts scores and keeps their order."""
IN_WORDS: dict[Verdict, str] = {
    "doubtful": "the slide is only partly like what the model knows",
    "outside": "the slide is outside what the model knows",
    "not judged": "whether the slide is like what the model knows was not judged",
}
"""How a warning about a verdict begins; there is none about "inside"."""


@dataclass(frozen=True, eq=False)
class SlideTrust:
    """How far a slide is from the tiles that the bundle's reference was fitted on.

    Attributes
    ----------
    verdict : str
        "inside", "doubtful", "outside" or "not judged".
    reasons : tuple of str
        What was seen, in words, and no more; for "not judged" why.
    distance : float or None
        The slide's median distance over the largest median of a reference section that was left out.
    tile_distance : float32 [N]
        The same per tile; NaN where the tile was not in the sample.
    tile_flags : uint16 [N]
        Bit mask of `TileFlag`.
    judged_tiles : int
        How many tiles were in the sample.
    rule : str
        Which tiles are left out of summaries, in words.
    tile_percentile : float32 [N]
        Share of left-out training tiles that lie nearer, in percent; NaN where the tile was not in the sample.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    tile_distance: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    tile_flags: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16), repr=False)
    judged_tiles: int = 0
    rule: str = ""
    tile_percentile: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), repr=False)

    def __post_init__(self) -> None:
        if not len(self.tile_percentile):
            object.__setattr__(self, "tile_percentile", np.full(len(self.tile_distance), np.nan, np.float32))

    def columns(self) -> dict[str, NDArray[Any]]:
        """What a table of tiles says: distance, percentile, flags, left_out; nothing where nothing was judged."""
        if self.verdict == "not judged":
            return {}
        return {
            "trust_distance": self.tile_distance,
            "trust_percentile": self.tile_percentile,
            "trust_flags": self.tile_flags,
            "left_out": self.left_out,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is per tile stays in tiles.h5 and tiles.parquet."""
        flags = self.tile_flags
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "distance": self.distance,
            "judged_tiles": self.judged_tiles,
            "left_out_tiles": int(self.left_out.sum()),
            "flags": {flag.label: int((flags & np.uint16(flag) != 0).sum()) for flag in TileFlag},
            "rule": self.rule,
        }

    @classmethod
    def from_dict(
        cls,
        value: dict[str, Any],
        tile_distance: NDArray[np.float32],
        tile_flags: NDArray[np.uint16],
        tile_percentile: NDArray[np.float32],
    ) -> SlideTrust:
        """The inverse of `to_dict`, with the arrays.

        Raises
        ------
        ValueError
            The verdict is unknown.
        """
        if value["verdict"] not in VERDICTS:
            raise ValueError(f"the verdict {value['verdict']!r} is unknown")
        return cls(
            value["verdict"],
            tuple(value["reasons"]),
            value["distance"],
            tile_distance,
            tile_flags,
            value["judged_tiles"],
            value["rule"],
            tile_percentile,
        )

    @property
    def warnings(self) -> list[str]:
        """The verdict and its reasons in one line where it is not "inside"."""
        said = IN_WORDS.get(self.verdict)
        return [] if said is None else [f"{said}: {'; '.join(self.reasons)}"]

    @property
    def left_out(self) -> NDArray[np.bool_]:
        """Which tiles summaries leave out: bool [N]."""
        return np.asarray((self.tile_flags & np.uint16(LEFT_OUT_FLAGS)) != 0)


def besides_verdict(warnings: Iterable[str]) -> list[str]:
    """The warnings of a result that say more than its verdict, for a page that shows the verdict with its reasons."""
    starts = tuple(f"{said}: " for said in IN_WORDS.values())
    return [str(warning) for warning in warnings if not str(warning).startswith(starts)]
