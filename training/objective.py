"""One training step as a module: tiles in, named losses out. What accelerate wraps for several GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .ingredients import Ingredient, Seen, make_ingredients
from .ingredients.patch_regression import TABLE as PATCHES
from .ingredients.patch_regression import turn_together
from .losses import AuxiliaryHeads, anchor_loss, contrastive_loss, correlation_loss, regression_loss
from .model import StampModel, is_peft

TERMS = (
    "regression", "correlation", "contrastive", "anchor", "genes", "batch", "gene_autoencoder", "gene_contrast",
    "gene_decoding", "image_decoding", "spot_contrast", "niche_contrast", "cross_contrast", "teacher", "distillation",
    "patches",
)  # fmt: skip


class Alignment(nn.Module):
    """The model with its losses.

    Parameters
    ----------
    model : StampModel
    config : TrainConfig
    genes : int
        Genes to reconstruct, of the optional head.
    batches : sequence of int
        What the adversarial head guesses of each section: its sample, platform or patient, counted from 0.
    """

    batch_of: Tensor

    def __init__(self, model: StampModel, config: TrainConfig, *, genes: int = 0, batches: Sequence[int] = ()) -> None:
        super().__init__()
        self.model, self.config = model, config
        one = config.field_steps == "one"
        width = model.dim // model.fields_count if one else model.dim
        outputs = model.pathway.out_features
        self.field_heads = nn.ModuleList(nn.Linear(width, outputs) for _ in range(model.fields_count if one else 0))
        self._kept = model.parts() if config.cache_views else None
        self.register_buffer("batch_of", torch.tensor(list(batches), dtype=torch.int64), persistent=False)
        self.ingredients = make_ingredients(config, model, genes)
        self.extra = AuxiliaryHeads(
            width, genes if config.w_genes > 0 else 0, len(set(batches)) if config.w_batch > 0 else 0
        )

    def forward(
        self,
        tiles: Tensor,
        target: Tensor,
        mask: Tensor,
        slide: Tensor,
        genes: Tensor,
        frozen: Tensor | None = None,
        field: Tensor | None = None,
        tables: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted total, and each term before its weight; shapes as in `data.Batch`.

        ``cosine`` among the terms is the mean cosine of adapted and frozen embedding, where both are known.
        """
        config = self.config
        which = None if field is None else int(field)
        tables = tables or {}
        if config.w_patches > 0 and config.flips and self.training:
            tiles, turned = turn_together(tiles, tables[PATCHES])
            tables = {**tables, PATCHES: turned}
        embedding, frozen, tokens = self._embed(tiles, frozen, which)
        embedding = embedding.float()
        head = self.model.pathway if which is None or not len(self.field_heads) else self.field_heads[which]
        predicted = head(embedding)
        target = target * mask
        terms: dict[str, Tensor] = {}
        if config.w_regression > 0:
            terms["regression"] = regression_loss(predicted, target, mask)
        if config.w_correlation > 0:
            terms["correlation"] = correlation_loss(predicted, target, mask, slide)
        if config.w_contrastive > 0:
            assert self.model.projection is not None and self.model.target_projection is not None
            terms["contrastive"] = contrastive_loss(
                self.model.projection(embedding), self.model.target_projection(target), target, slide,
                self.model.log_temperature,
            )  # fmt: skip
        if frozen is not None and config.w_anchor > 0:
            terms["anchor"] = anchor_loss(embedding[:, : frozen.shape[1]], frozen.float())
        if config.w_genes > 0:
            terms["genes"] = self.extra.gene_loss(embedding, genes, tables.get("measured"))
        if config.w_batch > 0:
            terms["batch"] = self.extra.batch_loss(embedding, self.batch_of[slide])
        seen = Seen(self.model, tiles, embedding, frozen, tokens, target, mask, slide, genes, tables)
        for part in self.ingredients.values():
            terms |= part(seen)
        total = embedding.sum() * 0.0
        for name, value in terms.items():
            total = total + getattr(config, f"w_{name}") * value
        return total, {name: value.detach() for name, value in terms.items()}

    def after_update(self) -> None:
        """To be called after every step of the optimiser."""
        for part in self.ingredients.values():
            if isinstance(part, Ingredient):
                part.after_update()

    def _embed(
        self, tiles: Tensor, frozen: Tensor | None, field: int | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Embeddings with and without adapting, `micro_batch` tiles at a time, of one field where it is named; and the
        tokens where an ingredient reads them."""
        size = self.config.micro_batch or len(tiles)
        if self._kept is not None:
            return torch.cat([self.model.pooled(self._kept.rest(part)) for part in tiles.split(size)]), frozen, None
        anchored = (self.config.w_anchor > 0 or self.config.w_image_decoding > 0) and is_peft(self.model.backbone)
        adapted, reference, tokens = [], [], []
        for part in tiles.split(size):
            if self.config.w_patches > 0:
                tokens.append(self.model.tokens(part))
                adapted.append(self.model.pooled(tokens[-1]))
            else:
                adapted.append(self._embedding(part, field))
            if anchored:
                with torch.no_grad(), self.model.without_adapter():
                    reference.append(self._embedding(part, field))
        return torch.cat(adapted), torch.cat(reference) if anchored else None, torch.cat(tokens) if tokens else None

    def _embedding(self, tiles: Tensor, field: int | None) -> Tensor:
        return self.model.embedding(tiles) if field is None else self.model.embedding_of(tiles, field)


def learning_parameters(step: Alignment) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that learn: of the backbone, and of the heads."""
    backbone = [p for p in step.model.backbone.parameters() if p.requires_grad]
    own = {id(p) for p in step.model.backbone.parameters()}
    heads = [p for p in step.parameters() if p.requires_grad and id(p) not in own]
    return backbone, heads
