"""How one run is to be done: a frozen record that is hashed into every result."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from .errors import UsageError
from .hashing import folder_sha256, sha256_file
from .units import MAX_MPP, MIN_MPP, believable_mpp

DEFAULT_WRITERS = ("json", "hdf5", "parquet", "heatmaps", "report")
LATER = ("min_fraction", "roi", "tissue_mask", "icc", "adapter")
"""Options that can change a score and that the first versions did not have."""
FILES = ("roi", "tissue_mask")
"""Options that name files or folders."""
ROI_USES = ("restrict", "split")
ICC_USES = ("none", "srgb")


@dataclass(frozen=True)
class InferOptions:
    """Options of `stamp-deploy infer`.

    Raises
    ------
    UsageError
        A value lies outside its range.
    """

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # docs/schema is made by pydantic; this is not

    mpp: float | None = field(default=None, metadata={"ge": MIN_MPP, "le": MAX_MPP})
    """Microns per pixel of level 0, where the slide records none or a wrong one."""
    batch: int = field(default=32, metadata={"ge": 1, "le": 4096})
    """Tiles handed to the engine at once."""
    threads: int = field(default=0, metadata={"ge": 0, "le": 512})
    """Decoding threads, and threads of a CPU engine; 0 takes every core of the process."""
    engine: str = "auto"
    """The name of an engine, or "auto": the fastest that reproduces the bundle's golden outputs here."""
    precision: str | None = None
    """Precision of the engine; None leaves the choice to the engine."""
    url: str | None = None
    """Address of a Triton server, for the engine "triton": the only option that opens a connection."""
    adapter: str | None = None
    """Which adapter of a bundle that holds several."""
    exact: bool = False
    """Decode at full scale instead of the reduced JPEG scales."""
    icc: str | None = None
    """What the slide's ICC profile does: "none": colours stay as stored; "srgb": tiles are converted. None takes the
    bundle's."""
    all_tiles: bool = False
    """Score every tile of the grid, glass included."""
    min_fraction: float | None = field(default=None, metadata={"gt": 0, "le": 1})
    """Share of a tile that must be tissue for the tile to be scored, above 0 to 1; None takes the bundle's."""
    roi: Path | None = None
    """Annotations of QuPath (GeoJSON), or a folder of such files called like the slides."""
    roi_use: str = "restrict"
    """What annotations do: "restrict": only their tissue is scored; "split": the whole slide is. Both summarise by
    class."""
    tissue_mask: Path | None = None
    """A mask in place of the tissue that is found: PNG, TIFF or GeoJSON, or a folder of such files."""
    writers: tuple[str, ...] = DEFAULT_WRITERS
    """Output formats, by name."""
    max_unreadable: float = field(default=0.01, metadata={"ge": 0, "le": 1})
    """Largest fraction of tissue tiles that may be unreadable; above it there is no result."""
    time_limit_s: float | None = field(default=None, metadata={"gt": 0})
    """Seconds after which reading a slide is given up."""
    overwrite: bool = False
    """Replace a finished result."""
    strict: bool = False
    """Give no result for a slide that is outside what the model knows, or that cannot be judged."""

    def __post_init__(self) -> None:
        if self.mpp is not None:
            check_stated_mpp(self.mpp)
        if not 1 <= self.batch <= 4096:
            raise UsageError(f"--batch {self.batch} is not possible", remedy="use 1 to 4096")
        if not 0 <= self.threads <= 512:
            raise UsageError(f"--threads {self.threads} is not possible", remedy="use 1 to 512, or 0 for every core")
        if (self.engine == "triton") != (self.url is not None):
            raise UsageError(
                "--engine triton and --url go together: the one names the server of the other",
                remedy="use both, as --engine triton --url http://HOST:8000, or neither",
            )
        if self.icc is not None and self.icc not in ICC_USES:
            raise UsageError(f"--icc {self.icc!r} is not known", remedy=f"use {' or '.join(ICC_USES)}")
        if not 0 <= self.max_unreadable <= 1:
            raise UsageError(f"--max-unreadable {self.max_unreadable} is not a fraction", remedy="use 0 to 1")
        if self.min_fraction is not None:
            if not 0 < self.min_fraction <= 1:
                raise UsageError(
                    f"--min-fraction {self.min_fraction} is not possible", remedy="use above 0 to 1, as 0.5"
                )
            if self.all_tiles:
                raise UsageError("--all-tiles scores every tile, --min-fraction does not", remedy="use one of the two")
        if self.roi_use not in ROI_USES:
            raise UsageError(f"--roi-use {self.roi_use!r} is not known", remedy=f"use {' or '.join(ROI_USES)}")
        if self.roi_use != ROI_USES[0] and self.roi is None:
            raise UsageError(
                "--roi-use says what to do with annotations, and there are none", remedy="name them: --roi"
            )
        if self.tissue_mask is not None and self.all_tiles:
            raise UsageError("--all-tiles takes no mask, --tissue-mask is one", remedy="use one of the two")
        if self.all_tiles and "tissue-geojson" in self.writers:
            raise UsageError("--all-tiles finds no tissue that tissue-geojson could write", remedy="use one of the two")
        for name in FILES:
            file = None if getattr(self, name) is None else Path(getattr(self, name))
            object.__setattr__(self, name, file)  # a str, from Python or a worker's message, is a path, too
            if file is not None and not file.exists():
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} names a file that does not exist", path=file, remedy="name an existing one")
        if self.time_limit_s is not None and not (math.isfinite(self.time_limit_s) and self.time_limit_s > 0):
            raise UsageError(f"--time-limit {self.time_limit_s} is not possible", remedy="use seconds above 0")
        if not self.writers:
            raise UsageError("no output format was asked for", remedy=f"use --write {','.join(DEFAULT_WRITERS)}")

    def min_tissue(self, of_bundle: float) -> float:
        """Share of a tile that must be tissue: what was asked for, else what the bundle says."""
        return of_bundle if self.min_fraction is None else self.min_fraction

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values, files as the hashes of what is in them: a place can identify patients."""
        files = {name: _content_sha256(getattr(self, name)) for name in FILES}
        return {**asdict(self), "writers": list(self.writers), **files}

    def scoring_dict(self) -> dict[str, Any]:
        """The options that can change a score: those that the config hash covers.

        Those of `LATER` stand in it only where they are asked for: a folder that an earlier version began goes on.
        """
        kept = ("mpp", "engine", "precision", "exact", "all_tiles", "max_unreadable")
        values = self.to_dict()
        later = {name: values[name] for name in LATER if values[name] is not None}
        if self.roi is not None:
            later["roi_use"] = self.roi_use
        if self.strict:
            later["strict"] = True
        return {**{name: values[name] for name in kept}, **later}

    def sha256(self) -> str:
        """Hash of `scoring_dict`, in canonical JSON."""
        text = json.dumps(self.scoring_dict(), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()


def check_stated_mpp(mpp: float) -> None:
    """Refuse a --mpp that is no slide's resolution.

    Raises
    ------
    UsageError
        `mpp` is not a number from 0.05 to 20 microns per pixel.
    """
    if not believable_mpp(mpp):
        raise UsageError(
            f"--mpp {mpp:g} is not a believable resolution",
            remedy=f"give microns per pixel, {MIN_MPP:g} to {MAX_MPP:g}: about 0.25 for a 40x scan, 0.5 for 20x",
        )


def _content_sha256(path: Path | None) -> str | None:
    """Hash of a file, or of all files in a folder and their names."""
    if path is None:
        return None
    try:
        return folder_sha256(path) if path.is_dir() else sha256_file(path)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=path, remedy="name a readable file") from error
