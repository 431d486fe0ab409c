"""`RunInfo`: what run.json says of a trained model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stamp_deploy.errors import UsageError

from .registry import LORA_TARGET, EmbedRule


@dataclass(frozen=True)
class LoraSettings:
    """LoRA (Hu et al. 2021) as peft does it: W + alpha / r * B A."""

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.1
    target: str = LORA_TARGET


@dataclass(frozen=True)
class RunInfo:
    """run.json: what is needed to rebuild the model and to say where it comes from.

    `tile_px` pixels at `mpp` microns per pixel are what the model expects; `mean` and `std` normalise RGB in [0, 1].
    With `fields_px`, squares of these sides from the tile's middle are each resized to `view_px` and embedded.
    `genes` are those that losses learned from beside the targets. With `st_token`, the embedding is the model's own
    followed by what a learned token (MINT) has become.
    """

    pfm_id: str
    timm_name: str
    timm_kwargs: dict[str, Any]
    embed: EmbedRule
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tile_px: int
    mpp: float
    pathway_names: tuple[str, ...]
    gene_set_sha256: str
    embedding_dim: int
    adapt: str = "lora"
    lora: LoraSettings | None = None
    projection_dim: int = 0
    licence: str = "not stated"
    share_merged: bool = False
    score_method: str = "ucell"
    score_range: tuple[float, float] = (-4.0, 4.0)
    seed: int = 0
    fields_px: tuple[int, ...] = ()
    view_px: int = 0
    genes: tuple[str, ...] = ()
    st_token: bool = False
    cohort: dict[str, Any] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> RunInfo:
        """The inverse of `to_dict`; unknown keys are ignored, so newer runs still load."""
        known = {k: v for k, v in document.items() if k in cls.__dataclass_fields__}
        for key in ("mean", "std", "pathway_names", "score_range", "fields_px", "genes"):
            if key in known:
                known[key] = tuple(known[key])
        if known.get("lora") is not None:
            known["lora"] = LoraSettings(**known["lora"])
        return cls(**known)


def read_info(path: Path) -> RunInfo:
    """run.json of a finished run.

    Raises
    ------
    UsageError
        The folder is no finished run.
    """
    if not (path / "run.json").is_file():
        raise UsageError("this is not a finished training run: it holds no run.json", path=path)
    return RunInfo.from_dict(json.loads((path / "run.json").read_text(encoding="utf-8")))
