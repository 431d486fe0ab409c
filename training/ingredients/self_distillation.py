"""MINT's first ingredient: DINO self-distillation, so that the model stays one of morphology while it learns genes.

After DINO (Caron et al. 2021): the student sees a part of the tile and has to say what a slow copy of itself says of
the whole, over prototypes whose use is centred.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model import StampModel
from .ingredient import Ingredient, Seen, two_layers

PROTOTYPES, BOTTLENECK, HIDDEN = 512, 64, 256
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
TEACHER_MOMENTUM, CENTRE_MOMENTUM = 0.99, 0.9
SMALLEST, LARGEST = 0.5, 0.9
"""Sides of the student's part, of the tile's."""


class PrototypeHead(nn.Module):
    """Embedding [N, D] -> cosine to each prototype [N, K]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = two_layers(dim, BOTTLENECK, HIDDEN)
        self.prototypes = nn.Linear(BOTTLENECK, PROTOTYPES, bias=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Cosines."""
        x = functional.normalize(self.layers(embedding), dim=1)
        return x @ functional.normalize(self.prototypes.weight, dim=1).T


class SelfDistillation(Ingredient):
    """Term ``distillation``, on the part of the embedding that the model had before the ST token.

    Parameters
    ----------
    model : StampModel
        Its learning weights have slow copies here.
    """

    centre: Tensor

    def __init__(self, model: StampModel) -> None:
        super().__init__()
        self.head = PrototypeHead(model.frozen_dim)
        self.slow_head = PrototypeHead(model.frozen_dim).requires_grad_(False)
        self.slow_head.load_state_dict(self.head.state_dict())
        for i, parameter in enumerate(_learning(model)):
            self.register_buffer(f"slow{i}", parameter.detach().clone())
        self.register_buffer("centre", torch.zeros(PROTOTYPES))
        self._fast: list[nn.Parameter] = []

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """Cross-entropy between the slow copy's view of the whole tile and the student's of a part."""
        model, dim = seen.model, seen.model.frozen_dim
        self._fast = _learning(model)
        with torch.no_grad(), self._slow():
            wanted = self.slow_head(model.embedding(seen.tiles).float()[:, :dim])
        part = random_parts(seen.tiles)
        logits = self.head(model.embedding(part).float()[:, :dim]) / STUDENT_TEMPERATURE
        sharp = ((wanted - self.centre) / TEACHER_TEMPERATURE).softmax(1)
        if self.training:
            self.centre.lerp_(wanted.mean(0), 1 - CENTRE_MOMENTUM)
        return {"distillation": -(sharp * logits.log_softmax(1)).sum(1).mean()}

    @torch.no_grad()
    def after_update(self) -> None:
        """The slow copies follow."""
        pairs = [(self.get_buffer(f"slow{i}"), p) for i, p in enumerate(self._fast)]
        pairs += list(zip(self.slow_head.parameters(), self.head.parameters(), strict=True))
        for slow, fast in pairs:
            slow.lerp_(fast.detach(), 1 - TEACHER_MOMENTUM)

    @contextmanager
    def _slow(self) -> Iterator[None]:
        """The model with the slow copies for its learning weights."""
        kept = [p.data for p in self._fast]
        try:
            for i, p in enumerate(self._fast):
                p.data = self.get_buffer(f"slow{i}")
            yield
        finally:
            for p, data in zip(self._fast, kept, strict=True):
                p.data = data


def _learning(model: StampModel) -> list[nn.Parameter]:
    """What decides the embedding and learns: of the backbone, and the ST token."""
    own = [p for n, p in model.named_parameters() if n.startswith("backbone.") or n == "st_token"]
    return [p for p in own if p.requires_grad]


def random_parts(tiles: Tensor) -> Tensor:
    """A square part of each tile, of its own place and side, flipped or turned, and enlarged to the tile's size."""
    n, device = len(tiles), tiles.device
    side = SMALLEST + (LARGEST - SMALLEST) * torch.rand(n, device=device)
    shift = (2 * torch.rand(n, 2, device=device) - 1) * (1 - side)[:, None]
    flips = torch.randint(0, 2, (n, 2), device=device).float() * 2 - 1
    turned = torch.randint(0, 2, (n,), device=device).bool()
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = side * flips[:, 0], side * flips[:, 1]
    theta[turned] = theta[turned].flip(1)
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, list(tiles.shape), align_corners=False)
    return functional.grid_sample(tiles, grid, padding_mode="reflection", align_corners=False)
