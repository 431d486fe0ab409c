"""What a bench measured, as JSON values and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rate:
    """A setting and what it reached: tiles per second, the median of repeats, and their spread (max - min)."""

    setting: int
    tiles_per_s: float
    spread: float


@dataclass(frozen=True)
class Stage:
    """One stage of the whole flow.

    ``seconds`` are the stage's own, in all of its threads; ``tiles_per_s`` is what it would reach alone with as
    many threads: tiles x threads / seconds.
    """

    name: str
    seconds: float
    threads: int
    tiles_per_s: float
    what: str


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes
    ----------
    tiling, engine_rates : tuple of Rate
        Tiling alone by threads; the engine alone by batch size.
    stages : tuple of Stage
        The whole flow's stages; reading and the engine overlap.
    flow_tiles_per_s, flow_s : float
        The whole flow, from opening the slide to the finished folder.
    limiting, limiting_why : str
        The stage that sets the pace, and the numbers that say so.
    compare : dict
        Tiles per second of the usual way on one thread, and this tiler's over it.
    """

    slide: str
    route: str
    plan: str
    engine: str
    cores: int
    tiles: int
    tiling: tuple[Rate, ...]
    engine_rates: tuple[Rate, ...]
    stages: tuple[Stage, ...]
    flow_tiles: int
    flow_s: float
    flow_tiles_per_s: float
    limiting: str
    limiting_why: str
    recommended_threads: int
    recommended_batch: int
    compare: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """The report as a table for people."""
        lines = [
            f"slide    {self.slide}: read by {self.route} ({self.plan}), {self.tiles} tiles measured",
            f"engine   {self.engine}; {self.cores} cores",
            "",
            *_rates("tiling alone", "threads", self.tiling, self.recommended_threads),
            *_rates("engine alone", "batch", self.engine_rates, self.recommended_batch),
            "",
            f"{'whole flow':<16}{'tiles/s':>10}{'seconds':>10}   ({self.flow_tiles} tiles)",
        ]
        for stage in self.stages:
            note = f"{stage.what}{' x ' + str(stage.threads) + ' threads' if stage.threads > 1 else ''}"
            lines.append(f"  {stage.name:<14}{stage.tiles_per_s:>10.1f}{stage.seconds:>10.3f}   {note}")
        lines += [
            f"  {'all of it':<14}{self.flow_tiles_per_s:>10.1f}{self.flow_s:>10.3f}   opening to finished folder",
            "",
            f"limited by {self.limiting}: {self.limiting_why}",
            f"recommended: --threads {self.recommended_threads} --batch {self.recommended_batch}",
        ]
        if self.compare:
            usual, times = self.compare["openslide_pil_tiles_per_s"], self.compare["times_openslide"]
            lines.append(f"compared: OpenSlide + PIL, one thread, {usual:.1f} tiles/s; this tiler {times:.1f} x that")
        return "\n".join(lines)


def _rates(title: str, unit: str, rates: Sequence[Rate], chosen: int) -> list[str]:
    lines = [f"{title:<16}{'tiles/s':>10}{'spread':>10}"]
    for rate in rates:
        mark = "   <- recommended" if rate.setting == chosen else ""
        lines.append(f"  {rate.setting:>3} {unit:<10}{rate.tiles_per_s:>10.1f}{rate.spread:>10.1f}{mark}")
    return lines
