"""One training step as a module: tiles in, named losses out. What accelerate wraps for several GPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .losses import AuxiliaryHeads, anchor_loss, contrastive_loss, correlation_loss, regression_loss
from .model import StampModel, is_peft

TERMS = ("regression", "correlation", "contrastive", "anchor", "genes", "batch")


class Alignment(nn.Module):
    """The model with its losses.

    Parameters
    ----------
    model : StampModel
    config : TrainConfig
    genes, sections : int
        Sizes of the optional heads: genes to reconstruct, samples to be told apart.
    """

    def __init__(self, model: StampModel, config: TrainConfig, *, genes: int = 0, sections: int = 0) -> None:
        super().__init__()
        self.model, self.config = model, config
        one = config.field_steps == "one"
        width = model.dim // model.fields_count if one else model.dim
        outputs = model.pathway.out_features
        self.field_heads = nn.ModuleList(nn.Linear(width, outputs) for _ in range(model.fields_count if one else 0))
        self._kept = model.parts() if config.cache_views else None
        self.extra = AuxiliaryHeads(width, genes if config.w_genes > 0 else 0, sections if config.w_batch > 0 else 0)

    def forward(
        self,
        tiles: Tensor,
        target: Tensor,
        mask: Tensor,
        slide: Tensor,
        genes: Tensor,
        frozen: Tensor | None = None,
        field: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted total, and each term before its weight; shapes as in `data.Batch`.

        ``cosine`` among the terms is the mean cosine of adapted and frozen embedding, where both are known.
        """
        config = self.config
        which = None if field is None else int(field)
        embedding, frozen = self._embed(tiles, frozen, which)
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
            terms["anchor"] = anchor_loss(embedding, frozen.float())
        if config.w_genes > 0:
            terms["genes"] = self.extra.gene_loss(embedding, genes)
        if config.w_batch > 0:
            terms["batch"] = self.extra.batch_loss(embedding, slide)
        total = embedding.sum() * 0.0
        for name, value in terms.items():
            total = total + getattr(config, f"w_{name}") * value
        return total, {name: value.detach() for name, value in terms.items()}

    def _embed(self, tiles: Tensor, frozen: Tensor | None, field: int | None) -> tuple[Tensor, Tensor | None]:
        """Embeddings with and without adapting, `micro_batch` tiles at a time; of one field where it is named."""
        size = self.config.micro_batch or len(tiles)
        if self._kept is not None:
            return torch.cat([self.model.pooled(self._kept.rest(part)) for part in tiles.split(size)]), frozen
        anchored = self.config.w_anchor > 0 and is_peft(self.model.backbone)
        adapted, reference = [], []
        for part in tiles.split(size):
            adapted.append(self._embedding(part, field))
            if anchored:
                with torch.no_grad(), self.model.without_adapter():
                    reference.append(self._embedding(part, field))
        return torch.cat(adapted), torch.cat(reference) if anchored else None

    def _embedding(self, tiles: Tensor, field: int | None) -> Tensor:
        return self.model.embedding(tiles) if field is None else self.model.embedding_of(tiles, field)


def learning_parameters(step: Alignment) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that learn: of the backbone, and of the heads."""
    backbone = [p for p in step.model.backbone.parameters() if p.requires_grad]
    own = {id(p) for p in step.model.backbone.parameters()}
    heads = [p for p in step.parameters() if p.requires_grad and id(p) not in own]
    return backbone, heads
