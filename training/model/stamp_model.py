"""`StampModel`: a backbone with LoRA, the pathway head and the heads that training needs beside it.

    tiles [N, 3, T, T] -> backbone (+ LoRA) -> embedding [N, D] -> pathway head -> pathways [N, P]

run_info.py describes a model, build.py makes it, run_folder.py writes it and reads it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stamp_deploy.errors import UsageError

from .fields import Fields
from .registry import EmbedRule
from .st_token import tokens_with
from .stages import Parts, batch_norms


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
