"""Parts of a Result: what the slide is, which model scored it, how many tiles there were."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SlideFacts:
    """What the slide is.

    `name` is the file name without its folder; `levels` are {width, height, downsample_x, downsample_y}; mpp
    is microns per level-0 pixel; `bounds` is the box (x, y, width, height) that holds everything scanned, level-0
    pixels, and empty where the file states none; `properties` hold allow-listed vendor fields only.
    """

    name: str
    sha256: str
    size_bytes: int
    vendor: str
    width: int
    height: int
    mpp_x: float
    mpp_y: float
    mpp_source: str
    mpp_evidence: tuple[str, ...] = ()
    levels: tuple[dict[str, float], ...] = ()
    route: str = ""
    route_reason: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    bounds: tuple[int, ...] = ()

    @property
    def corner(self) -> tuple[int, int]:
        """What QuPath counts from, level-0 pixels: the corner of `bounds` (see writers/geojson.py)."""
        left, top = (self.bounds or (0, 0))[:2]
        return int(left), int(top)


@dataclass(frozen=True)
class BundleFacts:
    """Which model scored it. `sha256` is the hash of bundle.json, which holds the hash of every other file;
    `files` repeats them; `parity` is the bundle's parity record."""

    name: str
    sha256: str
    pfm_id: str
    pfm_licence: str
    tile_px: int
    mpp: float
    embedding_dim: int
    gene_set_sha256: str
    files: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TileCounts:
    """grid = background + seen; seen = ok + missing + corrupt + timeout. Only ok tiles are scored.

    `absent` are the tiles of the grid, scored or not, that lie in part or whole where the file holds nothing, because
    its format leaves out glass: white background.
    """

    grid: int
    background: int
    seen: int
    ok: int
    missing: int = 0
    corrupt: int = 0
    timeout: int = 0
    absent: int = 0

    @property
    def unreadable(self) -> int:
        """Tiles on tissue that could not be read, and so have no score."""
        return self.missing + self.corrupt + self.timeout

    def to_dict(self) -> dict[str, int]:
        return {**asdict(self), "unreadable": self.unreadable}
