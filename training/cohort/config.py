"""The config of `cohort build`: what every sample is, in TOML. docs/cohort.md lists every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stamp_deploy.errors import DataError
from stamp_deploy.units import MAX_MPP, MIN_MPP

from ..toml_settings import Texts, TomlSettings, read_toml, setting
from .readers import KEYS_OF_FORMAT, Settings, reader
from .shard_writer import Store
from .shards import TileFormat
from .store import SampleFacts


class CohortConfig(TomlSettings):
    """Settings of the whole cohort: the keys before the first table. Paths are relative to the config's folder."""

    noun: ClassVar[str] = "key"

    tile_px: int = setting(224, "side of a tile, as the foundation model wants it", ge=8, le=4096)
    mpp: float = setting(0.5, "microns per pixel of the tiles", ge=MIN_MPP, le=MAX_MPP)
    allow_upsampling: bool = setting(
        False, "images coarser than mpp are refused; true: enlarged by bicubic interpolation"
    )
    min_genes: int = setting(200, "spots with fewer genes are left out", ge=0)
    gmt: Texts = setting((), "gene sets for the coverage report; a sample without any gene of them is refused")
    gene_table: str = setting("", "identifiers or aliases and their symbols, two columns")
    keep_genes: Literal["all", "measured"] = setting(
        "all", 'or "measured": only genes with a count in a kept spot of the sample'
    )
    store: Store = setting(
        "auto", 'how tiles lie on the disk: "arrays", "shards" of compressed tiles, or "auto": shards beyond 50 GB'
    )
    tile_format: TileFormat = setting("webp", 'of shards: lossless, or "jpeg", about half as large; it loses')


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
        No such file, not TOML, an unknown key, a value of the wrong type or out of range.
    DataError
        No samples, an id twice, or a sample without an id that can name a folder.
    """
    document = read_toml(path, "name a config that lists the samples; docs/cohort.md says how")
    tables, defaults = document.pop("samples", []), document.pop("defaults", {})
    config = CohortConfig.checked({**document.pop("cohort", {}), **document}, path)
    if not isinstance(tables, list) or not tables or not isinstance(defaults, dict):
        raise DataError("names no samples", path=path, remedy="add a table [[samples]] for each sample")
    samples = [_sample({**defaults, **table}, path) for table in tables]
    names = [s.id for s in samples]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise DataError(f"the sample {twice} comes twice", path=path, remedy="give every sample its own id")
    return config, tuple(samples)


def _sample(values: Mapping[str, Any], path: Path) -> SampleConfig:
    name = str(values.get("id", ""))
    if not name:
        raise DataError("a sample has no id", path=path, remedy='add id = "..."')
    kind = str(values.get("format", ""))
    if not kind:
        raise DataError(f"the sample {name} states no format", path=path, remedy='add format = "visium", for example')
    reader(kind)  # raises where there is none
    KEYS_OF_FORMAT[kind].checked(values, path, owner=f"the sample {name}")
    # patient and resolution may come from the reader: only the name is checked here
    SampleFacts(name, "to be read", mpp=1.0).check(path)
    return SampleConfig(name, kind, Settings(values, path.parent, name))
