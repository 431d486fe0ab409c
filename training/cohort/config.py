"""The config of `cohort build`: what every sample is, in TOML. docs/cohort.md lists every key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.files import refuse_special
from stamp_deploy.units import MAX_MPP, MIN_MPP, believable_mpp

from .readers import Settings, reader
from .store import SampleFacts


@dataclass(frozen=True)
class CohortConfig:
    """Settings of the whole cohort: the keys before the first table. Paths are relative to the config's folder."""

    tile_px: int = 224  # side of a tile, as the foundation model wants it
    mpp: float = 0.5  # microns per pixel of the tiles
    allow_upsampling: bool = False  # images coarser than mpp are refused; true: enlarged by bicubic interpolation
    min_genes: int = 200  # spots with fewer genes are left out
    gmt: tuple[str, ...] = ()  # gene sets for the coverage report; a sample without any gene of them is refused
    gene_table: str = ""  # identifiers or aliases and their symbols, two columns
    keep_genes: str = "all"  # or "measured": only genes with a count in a kept spot of the sample

    def check(self, path: Path) -> None:
        """Refuse values out of range."""
        if not 8 <= self.tile_px <= 4096:
            raise UsageError(f"tile_px = {self.tile_px} is not possible", path=path, remedy="use 8 to 4096")
        if not believable_mpp(self.mpp):
            remedy = f"use {MIN_MPP:g} to {MAX_MPP:g} um per pixel"
            raise UsageError(f"mpp = {self.mpp:g} is not possible", path=path, remedy=remedy)
        if self.min_genes < 0:
            raise UsageError(f"min_genes = {self.min_genes} is not possible", path=path)
        if self.keep_genes not in ("all", "measured"):
            raise UsageError(f"keep_genes = {self.keep_genes!r} is unknown", path=path, remedy='"all" or "measured"')


COMMON_KEYS = (
    "id",
    "format",
    "patient_id",
    "organ",
    "platform",
    "mpp",
    "mpp_overrides",
    "allow_fractions",
    "outside",
    "genome",
)
"""Keys that every sample may have; the reader of its format adds its own."""


@dataclass(frozen=True)
class SampleConfig:
    """One table [[samples]]."""

    id: str
    format: str
    settings: Settings

    @property
    def patient_id(self) -> str:
        """As stated; empty where only the reader can tell."""
        return self.settings.text("patient_id").strip()


def load_config(path: Path) -> tuple[CohortConfig, tuple[SampleConfig, ...]]:
    """Read and check a config, before any data are touched.

    Raises
    ------
    UsageError
        Not TOML, an unknown key, a value of the wrong type or out of range.
    DataError
        No samples, an id twice, or a sample without an id that can name a folder.
    """
    refuse_special(path, UsageError)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot be read as TOML: {error}", path=path) from error
    tables, defaults = document.pop("samples", []), document.pop("defaults", {})
    config = _cohort({**document.pop("cohort", {}), **document}, path)
    if not isinstance(tables, list) or not tables or not isinstance(defaults, dict):
        raise DataError("names no samples", path=path, remedy="add a table [[samples]] for each sample")
    samples = [_sample({**defaults, **table}, path) for table in tables]
    names = [s.id for s in samples]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise DataError(f"the sample {twice} comes twice", path=path, remedy="give every sample its own id")
    return config, tuple(samples)


def _cohort(values: Mapping[str, Any], path: Path) -> CohortConfig:
    known = {f.name: f.default for f in fields(CohortConfig)}
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(
                f"has the unknown key {key}",
                path=path,
                remedy="keys: " + ", ".join(known) + "; tables: [defaults], [[samples]]",
            )
        default = known[key]
        if isinstance(default, tuple):
            value = tuple(str(v) for v in ([value] if isinstance(value, str) else value))
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif type(value) is not type(default):
            raise UsageError(f"{key} = {value!r} is of the wrong type", path=path, remedy=f"such as {default!r}")
        clean[key] = value
    config = CohortConfig(**clean)
    config.check(path)
    return config


def _sample(values: Mapping[str, Any], path: Path) -> SampleConfig:
    name = str(values.get("id", ""))
    if not name:
        raise DataError("a sample has no id", path=path, remedy='add id = "..."')
    kind = str(values.get("format", ""))
    if not kind:
        raise DataError(f"the sample {name} states no format", path=path, remedy='add format = "visium", for example')
    _, keys = reader(kind)
    known = (*COMMON_KEYS, *keys)
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UsageError(
            f"the sample {name} has the unknown key {unknown[0]}", path=path, remedy="keys: " + ", ".join(known)
        )
    # patient and resolution may come from the reader: only the name is checked here
    SampleFacts(name, "to be read", mpp=1.0).check(path)
    return SampleConfig(name, kind, Settings(values, path.parent, name))
