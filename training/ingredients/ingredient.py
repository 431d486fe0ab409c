"""What a recipe adds to a training step: a module with weights and loss terms of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from ..model import StampModel


@dataclass(eq=False)
class Seen:
    """What an ingredient sees of a step.

    Attributes
    ----------
    model : StampModel
    tiles : float [N, 3, T, T]
        Normalised; or kept views.
    embedding : float32 [N, D]
    frozen : float32 [N, D'], or None
        Embeddings of the model before adapting, where the run computes them.
    tokens : float [N, prefix + patches, W], or None
        What the backbone gave, where an ingredient asks for it.
    target : float32 [N, P]
        Scores as the heads learn them, 0 outside `mask`.
    mask : bool [N, P]
    slide : int64 [N]
        The section's place in the list.
    genes : float32 [N, G]
    tables : dict of Tensor
        Further values of each spot, by name.
    """

    model: StampModel
    tiles: Tensor
    embedding: Tensor
    frozen: Tensor | None
    tokens: Tensor | None
    target: Tensor
    mask: Tensor
    slide: Tensor
    genes: Tensor
    tables: dict[str, Tensor] = field(default_factory=dict)


class Ingredient(nn.Module):
    """Base of the ingredients. Its terms bear the names of their weights in the config: ``NAME`` is weighed by
    ``w_NAME``."""

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """Loss terms before their weights."""
        raise NotImplementedError

    def after_update(self) -> None:
        """Told after every step of the optimiser."""

    def kept(self) -> dict[str, Tensor]:
        """Tensors that the finished run keeps; none where the ingredient serves training only."""
        return {}


class Matching(Ingredient):
    """An ingredient that brings pictures and molecules into one space, so that one can be looked up by the other."""

    def picture_side(self, embedding: Tensor) -> Tensor:
        """Embeddings [N, D] of tiles -> [N, E]."""
        raise NotImplementedError

    def molecular_side(self, genes: Tensor, niche: Tensor, near: Tensor) -> Tensor:
        """All spots of a section -> [N, E].

        Parameters
        ----------
        genes, niche : float32 [N, G]
            Of the spots, and the mean of their neighbours'.
        near : int64 [N, K]
            Rows of each spot's neighbours, -1 where it has fewer.
        """
        raise NotImplementedError

    def kept(self) -> dict[str, Tensor]:
        """All of it: the evaluation looks spots up."""
        return dict(self.state_dict())


def two_layers(inputs: int, outputs: int, hidden: int = 0) -> nn.Sequential:
    """Linear, GELU, linear."""
    hidden = hidden or outputs
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
