"""`StampModel`: a backbone with LoRA, the pathway head and the heads that training needs beside it; and its run folder.

    tiles [N, 3, T, T] -> backbone (+ LoRA) -> embedding [N, D] -> pathway head -> pathways [N, P]

A run folder holds no pickle: settings in TOML and JSON, tensors in safetensors. `load_run` reads it, `merge_lora`
folds the adapter into plain timm weights, after which peft is no longer needed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file

from .fields import Fields
from .registry import LORA_TARGET, EmbedRule, build_backbone
from .st_token import token_width, tokens_with
from .stages import Parts, batch_norms, last_block

ADAPT_MODES = ("lora", "full", "last-block", "frozen")
FROZEN_FILE = "frozen.safetensors"
"""In the folder of a run whose backbone learned itself: what those weights were before."""


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


class StampModel(nn.Module):
    """A backbone and its heads.

    Attributes
    ----------
    backbone : nn.Module
        timm's module, or peft's wrapper of it.
    pathway : nn.Linear
        D -> P, within-slide standardised scores.
    pathway_global : nn.Linear
        D -> P, scores standardised over the training cohort: for slide-level use. Not part of `forward`.
    projection, target_projection : nn.Module or None
        D -> E and P -> E, for the contrastive loss.
    log_temperature : nn.Parameter
        Of the contrastive loss; starts at log 0.07.
    fields : Fields, optional
        Several fields of view, cut from one tile; the embedding joins theirs.
    st_token : nn.Parameter or None
        float [1, 1, W]: a learned token beside the class token, for what tissue says of its molecules (MINT). Its last
        state follows the model's own embedding.
    start : dict of Tensor
        Of a backbone whose own weights learn: what they were before, so that the frozen model is still there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        embed: EmbedRule,
        pathways: int,
        *,
        dim: int,
        projection_dim: int = 0,
        fields: Fields | None = None,
        st_width: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.embed: EmbedRule = embed
        self.dim = dim
        self.fields = fields
        self.pathway = nn.Linear(dim, pathways)
        self.pathway_global = nn.Linear(dim, pathways)
        self.projection: nn.Module | None = None
        self.target_projection: nn.Module | None = None
        if projection_dim:
            self.projection = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, projection_dim))
            self.target_projection = nn.Sequential(
                nn.Linear(pathways, projection_dim), nn.GELU(), nn.Linear(projection_dim, projection_dim)
            )
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.st_token = nn.Parameter(torch.randn(1, 1, st_width) * 0.02) if st_width else None
        self._bare = False  # without the ST token, as the model came
        self.start: dict[str, Tensor] = {}

    @property
    def _backbone(self) -> Any:
        """The backbone, for methods that timm and peft give it beside those of a module."""
        return self.backbone

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float tiles [N, 3, T, T] -> embedding [N, D], pathways [N, P]."""
        embedding = self.embedding(tiles)
        return embedding, self.pathway(embedding)

    def embedding(self, tiles: Tensor) -> Tensor:
        """Normalised float tiles [N, 3, T, T] -> [N, D]; of several fields, theirs side by side."""
        if self.fields is None:
            return self.pooled(self._features(tiles))
        views = torch.cat([self.fields(tiles, i) for i in range(self.fields_count)])  # [fields N, 3, V, V]
        each = self.pooled(self._features(views))
        width = self.dim // self.fields_count
        return each.reshape(self.fields_count, -1, width).transpose(0, 1).reshape(-1, self.dim)

    @property
    def fields_count(self) -> int:
        """How many fields of view make up the embedding."""
        return 1 if self.fields is None else len(self.fields.sides)

    def view(self, tiles: Tensor, field: int) -> Tensor:
        """What the backbone sees of normalised tiles in one field: [N, 3, V, V]."""
        return tiles if self.fields is None else torch.as_tensor(self.fields(tiles, field))

    def embedding_of(self, tiles: Tensor, field: int) -> Tensor:
        """The part of the embedding that one field gives: [N, D / fields]."""
        return self.pooled(self._features(self.view(tiles, field)))

    def parts(self) -> Parts:
        """The backbone before and from the first block that learns.

        Raises
        ------
        UsageError
            As `Parts`.
        """
        if self.st_token is not None:
            raise UsageError("an ST token learns before the first block, so that nothing can be kept of it",
                             remedy="set cache_views = 0")  # fmt: skip
        return Parts(timm_module(self.backbone), self.embed == "pool")

    def train(self, mode: bool = True) -> StampModel:
        """Training mode; batch norms keep the statistics that the backbone came with."""
        super().train(mode)
        for norm in batch_norms(self.backbone):
            norm.eval()
        return self

    @property
    def frozen_dim(self) -> int:
        """Length of the embedding of the model as it came; the first part of the embedding."""
        return self.dim - (self.st_token.shape[2] if self.st_token is not None else 0)

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the patches: class, registers, ST."""
        own = int(getattr(timm_module(self.backbone), "num_prefix_tokens", 1))
        return own + int(self._with_st)

    @property
    def _with_st(self) -> bool:
        return self.st_token is not None and not self._bare

    def _features(self, views: Tensor) -> Tensor:
        """What the backbone gives: [N, width], or tokens [N, prefix + patches, width]."""
        if self._with_st:
            assert self.st_token is not None
            return tokens_with(timm_module(self.backbone), self.st_token, views)
        return torch.as_tensor(self.backbone(views) if self.embed == "pool" else self._backbone.forward_features(views))

    def pooled(self, tokens: Tensor) -> Tensor:
        """Embedding from what the backbone gives, by the model's rule."""
        if self.embed == "pool":
            return tokens
        prefix, parts = self.prefix_tokens, []
        if self.embed != "mean":
            parts.append(tokens[:, 0])
        if self.embed != "cls":
            parts.append(tokens[:, prefix:].mean(1))
        if self._with_st:
            parts.append(tokens[:, prefix - 1])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def tokens(self, tiles: Tensor) -> Tensor:
        """What the backbone gives of normalised tiles, before pooling; of models with one field of view."""
        return self._features(tiles)

    def keep_start(self) -> None:
        """Remember the backbone's own weights that will learn; adapters need no such copy."""
        if not is_peft(self.backbone):
            learning = {k: p for k, p in self.backbone.named_parameters() if p.requires_grad}
            self.start = {k: p.detach().cpu().clone() for k, p in learning.items()}

    @property
    def has_frozen(self) -> bool:
        """Whether `without_adapter` gives the model before it was adapted."""
        learns = any(p.requires_grad for p in self.backbone.parameters())
        return is_peft(self.backbone) or bool(self.start) or not learns

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The backbone as it was before adapting, for the anchoring loss and baselines; without gradients."""
        own = {k: p for k, p in self.backbone.named_parameters() if k in self.start}
        kept = {k: p.data for k, p in own.items()}
        adapters = self._backbone.disable_adapter() if is_peft(self.backbone) else nullcontext()
        try:
            self._bare = True
            for k, p in own.items():
                p.data = self.start[k].to(p)
            with adapters:
                yield
        finally:
            self._bare = False
            for k, p in own.items():
                p.data = kept[k]

    def head_state(self) -> dict[str, Tensor]:
        """Every tensor outside the backbone."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}


def is_peft(module: nn.Module) -> bool:
    """Whether a backbone is wrapped by peft."""
    return hasattr(module, "disable_adapter")


def timm_module(backbone: nn.Module) -> nn.Module:
    """The timm module inside peft's wrapper, or the backbone itself."""
    wrapper: Any = backbone
    return wrapper.get_base_model() if is_peft(backbone) else backbone


def measured_dim(backbone: nn.Module, embed: EmbedRule) -> int:
    """Length of the embedding that a rule gives."""
    width = int(getattr(backbone, "num_features", 0) or backbone.embed_dim)  # type: ignore[arg-type]
    return 2 * width if embed == "cls+mean" else width


def add_lora(backbone: nn.Module, settings: LoraSettings) -> nn.Module:
    """Freeze a timm backbone and give its attention layers LoRA adapters.

    Raises
    ------
    UsageError
        The regex matches no layer.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.target,
        bias="none",
    )
    try:
        return get_peft_model(backbone, config)
    except ValueError as error:
        raise UsageError(
            f"LoRA cannot be added: {error}", remedy='set adapt = "full", or a target regex that names linear layers'
        ) from error


def build_model(info: RunInfo, *, weights: Path | None = None, sha256: str = "", device: str = "cpu") -> StampModel:
    """The model that a run.json describes, with fresh heads and adapters.

    The trainable parameters are those of `info.adapt`: ``lora`` the adapters, ``full`` all, ``last-block`` the last
    block or stage and what comes after it, without batch norms, ``frozen`` none; the heads always.
    """
    if info.adapt not in ADAPT_MODES:
        raise UsageError(f"adapt = {info.adapt} is unknown", remedy="use one of: " + ", ".join(ADAPT_MODES))
    backbone = build_backbone(info.timm_name, info.timm_kwargs, weights=weights, sha256=sha256, device=device)
    dim = measured_dim(backbone, info.embed)
    if info.adapt == "lora":
        backbone = add_lora(backbone, info.lora or LoraSettings())
    elif info.adapt != "full":
        backbone.requires_grad_(False)
        if info.adapt == "last-block":
            for parameter in last_block(backbone):
                parameter.requires_grad_(True)
    fields = Fields(info.fields_px, info.view_px) if info.fields_px else None
    dim *= len(info.fields_px) or 1
    st_width = token_width(timm_module(backbone), info.embed) if info.st_token else 0
    pathways, projection = len(info.pathway_names), info.projection_dim
    model = StampModel(
        backbone, info.embed, pathways, dim=dim + st_width, projection_dim=projection, fields=fields, st_width=st_width
    )
    return model if device == "meta" else model.to(device)


def merge_lora(model: StampModel) -> StampModel:
    """Fold the adapter into plain timm weights, in float32, and give a model without peft.

    The argument is left alone. The returned backbone's state_dict keys are timm's.
    """
    merged = copy.deepcopy(model).float().eval()
    if is_peft(merged.backbone):
        merged.backbone = merged.backbone.merge_and_unload()  # type: ignore[operator]
    return merged


def base_state(backbone: nn.Module) -> dict[str, Tensor]:
    """Weights of the backbone without its adapter, under timm's own keys."""
    state = timm_module(backbone).state_dict()
    return {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}


def save_run(
    path: Path, model: StampModel, info: RunInfo, *, weights: Path | None = None, copy_backbone: bool = True
) -> None:
    """Write run.json, the backbone, the adapter and the heads into an existing folder.

    With `copy_backbone` False and a `weights` file, backbone.json names that file and its SHA-256 instead of a copy
    (weights of billions of parameters, or licences that forbid copies). A fully tuned backbone is always written.
    """
    from safetensors.torch import save_file

    def save(tensors: dict[str, Tensor], name: str) -> None:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path / name)

    if weights is not None and not copy_backbone and info.adapt in ("lora", "frozen"):
        write_json_atomic(path / "backbone.json", {"file": str(weights.resolve()), "sha256": sha256_file(weights)})
    else:
        save(base_state(model.backbone), "backbone.safetensors")
    if is_peft(model.backbone):
        save(adapter_state(model), "adapter.safetensors")
    if model.start:
        save(model.start, FROZEN_FILE)
    save(model.head_state(), "heads.safetensors")
    write_json_atomic(path / "run.json", info.to_dict())


def adapter_state(model: StampModel) -> dict[str, Tensor]:
    """peft's own view of the adapter tensors."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model.backbone))


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


def load_run(path: Path | str) -> tuple[StampModel, RunInfo]:
    """Rebuild a run's model, in evaluation mode, on the CPU.

    Raises
    ------
    UsageError
        The folder is no finished run, or its backbone file is gone or altered.
    """
    from safetensors.torch import load_file

    path = Path(path)
    info = read_info(path)
    weights, sha256 = path / "backbone.safetensors", ""
    if not weights.is_file() and (path / "backbone.json").is_file():
        entry = json.loads((path / "backbone.json").read_text(encoding="utf-8"))
        weights, sha256 = Path(entry["file"]), entry["sha256"]
    model = build_model(info, weights=weights, sha256=sha256)
    if is_peft(model.backbone):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(model.backbone, load_file(path / "adapter.safetensors"))
        if found.unexpected_keys:
            raise UsageError(f"the adapter is of another model: {found.unexpected_keys[:3]}", path=path)
    heads = load_file(path / "heads.safetensors")
    expected = model.head_state()
    if set(heads) != set(expected) or any(heads[k].shape != expected[k].shape for k in heads):
        raise UsageError("heads.safetensors does not fit run.json", path=path, remedy="train the run again")
    model.load_state_dict(heads, strict=False)
    if (path / FROZEN_FILE).is_file():
        model.start = load_file(path / FROZEN_FILE)
    return model.eval(), info
