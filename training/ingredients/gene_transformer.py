"""AIDO.Tissue's ingredient, made small: a transformer over a spot's genes and its neighbours.

After AIDO.Tissue (GenBio AI): genes of the spot are hidden and predicted from those that are left and from the
neighbours. Here it is pretrained on the run's own cohort, frozen, and its embedding of a spot is what the picture's
has to tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .ingredient import Matching, Seen

NEIGHBOURS = 6
WIDTH, LAYERS, HEADS = 64, 2, 4
HIDDEN_SHARE = 0.3
LEARNING_RATE, BATCH = 1e-3, 64
CHUNK = 256


class GeneTransformer(nn.Module):
    """Genes of spots and of their neighbours -> a state for each gene.

    Each gene is a token, of which gene it is and its value; each neighbour is one, of its whole profile.

    Parameters
    ----------
    genes : int
        G.
    """

    def __init__(self, genes: int) -> None:
        super().__init__()
        self.which = nn.Parameter(torch.randn(genes, WIDTH) * 0.1)
        self.value = nn.Sequential(nn.Linear(1, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.hidden = nn.Parameter(torch.zeros(WIDTH))
        self.neighbour = nn.Linear(genes, WIDTH)
        self.place = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.predict = nn.Linear(WIDTH, 1)

    def forward(self, genes: Tensor, near: Tensor, known: Tensor, hidden: Tensor | None = None) -> Tensor:
        """States [n, G, W].

        Parameters
        ----------
        genes : float32 [n, G]
        near : float32 [n, K, G]
            Genes of the neighbours.
        known : bool [n, K]
            Which of them there are.
        hidden : bool [n, G], optional
            Genes whose value is not shown.
        """
        values = self.value(genes[..., None])
        if hidden is not None:
            values = torch.where(hidden[..., None], self.hidden, values)
        around = self.neighbour(near) + self.place
        tokens = torch.cat([values + self.which, around], dim=1)
        unseen = torch.cat([torch.zeros_like(genes, dtype=torch.bool), ~known], dim=1)
        states = self.encoder(tokens, src_key_padding_mask=unseen)
        return torch.as_tensor(states[:, : genes.shape[1]])

    def hidden_loss(self, genes: Tensor, near: Tensor, known: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of the hidden genes."""
        made = self.predict(self(genes, near, known, hidden))[..., 0]
        return functional.mse_loss(made[hidden], genes[hidden])

    @torch.no_grad()
    def embed(self, genes: Tensor, near: Tensor) -> Tensor:
        """All spots of a section: genes [N, G] and rows of neighbours [N, K] -> mean states [N, W]."""
        parts = []
        for rows in torch.arange(len(genes), device=genes.device).split(CHUNK):
            parts.append(self(genes[rows], *neighbours_of(genes, near[rows])).mean(1))
        return torch.cat(parts)


def neighbours_of(genes: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Genes [n, K, G] of the neighbours in rows `near` [n, K], and which there are (not -1)."""
    known = near >= 0
    return genes[near.clamp_min(0)] * known[..., None], known


def pretrain(
    genes: Sequence[NDArray[np.float32]],
    near: Sequence[NDArray[np.int64]],
    steps: int,
    seed: int,
    device: torch.device,
    measured: Sequence[NDArray[np.bool_] | None] = (),
) -> GeneTransformer:
    """A transformer that has learned to predict hidden genes of some sections.

    Parameters
    ----------
    genes : sequence of float32 [N, G]
    near : sequence of int64 [N, K]
        Rows of neighbours, -1 for none.
    measured : sequence of bool [G] or None, optional
        Which genes each section measures: only these are predicted.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    model = GeneTransformer(genes[0].shape[1]).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    tables = [
        (torch.from_numpy(g).to(device), torch.from_numpy(n).to(device)) for g, n in zip(genes, near, strict=True)
    ]
    known = [torch.from_numpy(m).to(device) if m is not None else None for m in measured] or [None] * len(tables)
    some = [i for i, m in enumerate(known) if m is None or bool(m.any())]
    for step in range(steps):
        which = some[int(rng.integers(len(some)))]
        values, rows = tables[which]
        chosen = torch.from_numpy(rng.choice(len(values), min(BATCH, len(values)), replace=False)).to(device)
        hidden = torch.from_numpy(rng.random((len(chosen), values.shape[1])) < HIDDEN_SHARE).to(device)
        if known[which] is not None:
            hidden &= known[which]
        loss = model.hidden_loss(values[chosen], *neighbours_of(values, rows[chosen]), hidden)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / max(1, steps // 10))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


class TeacherGuidance(Matching):
    """Term ``teacher``: a linear read-out of the picture's embedding is to give the frozen teacher's of the spot.

    Parameters
    ----------
    dim, genes : int
        D and G.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, genes: int) -> None:
        super().__init__()
        self.readout = nn.Linear(dim, WIDTH)
        self.teacher = GeneTransformer(genes).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH))

    def take(self, teacher: GeneTransformer, embeddings: Sequence[Tensor]) -> None:
        """Keep a pretrained teacher, and how its embeddings [N, W] of the training sections are spread."""
        self.teacher.load_state_dict(teacher.state_dict())
        together = torch.cat(list(embeddings))
        self.mean.copy_(together.mean(0))
        self.scale.copy_(together.std(0).clamp_min(1e-4))

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The term, on embeddings that were computed once."""
        wanted = (seen.tables["teacher"] - self.mean) / self.scale
        return {"teacher": functional.mse_loss(self.readout(seen.embedding), wanted)}

    def picture_side(self, embedding: Tensor) -> Tensor:
        """What the picture says the teacher would."""
        return torch.as_tensor(self.readout(embedding))

    def molecular_side(self, genes: Tensor, niche: Tensor, near: Tensor) -> Tensor:
        """What the teacher says, standardised."""
        return (self.teacher.embed(genes, near) - self.mean) / self.scale
