"""One head fitted to some slides, stopped on others; and what it predicts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .abmil import GatedABMIL, MeanPool
from .bag_model import BagModel, Readout, hazard_loss
from .bags import Task
from .config import HeadConfig
from .set_transformer import SetTransformer
from .slides import Slides, device_of


@dataclass(frozen=True)
class Problem:
    """What every head of a training is to do: the task, D, the outputs, and the pathway read-out where one is used."""

    task: Task
    dim: int
    outputs: int
    readout: Readout | None = None

    def model(self, config: HeadConfig) -> BagModel:
        """A head with random weights."""
        facts = model_facts(self, config)
        head = build_model(facts, dropout=config.dropout)
        if self.readout is not None:
            head.set_readout(self.readout)
        return head


def model_facts(problem: Problem, config: HeadConfig) -> dict[str, object]:
    """What `build_model` needs, as JSON values."""
    facts: dict[str, object] = {
        "kind": config.model, "dim": problem.dim, "outputs": problem.outputs, "hidden": config.hidden,
        "survival": problem.task == "survival", "inputs": config.inputs,
        "scores": 0 if problem.readout is None else len(problem.readout.bias),
    }  # fmt: skip
    return facts | ({"attention": config.attention} if config.model == "abmil" else {})


KINDS: dict[str, Callable[..., BagModel]] = {"abmil": GatedABMIL, "mean": MeanPool, "transformer": SetTransformer}


def build_model(facts: dict[str, object], *, dropout: float = 0.0) -> BagModel:
    """A head as `model_facts` describes it, of gated attention where no kind is named.

    Raises
    ------
    KeyError, TypeError
        The facts do not describe one.
    """
    shape = {k: v for k, v in facts.items() if k not in ("kind", "dim", "outputs")}
    return KINDS[str(facts.get("kind", "abmil"))](facts["dim"], facts["outputs"], dropout=dropout, **shape)


def fit_head(
    slides: Slides,
    learn: NDArray[np.intp],
    stop: NDArray[np.intp],
    problem: Problem,
    config: HeadConfig,
    number: int,
) -> tuple[BagModel, int]:
    """A trained head in evaluation mode and its best epoch (the last where nothing stops).

    Parameters
    ----------
    learn, stop : int [n], [m]
        Rows of `slides`.
    number : int
        Of this fit among those of a training: its chance follows from it and the seed.
    """
    torch.manual_seed(config.seed * 1000 + number)
    rng = np.random.default_rng([config.seed, number])
    device = torch.device(device_of(config))
    head = problem.model(config).to(device)
    head.standardise([slides.bags[i].to(device) for i in learn])
    if problem.task == "survival":
        _start_from_marginal_hazards(head, slides, learn)
    optimiser = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=config.weight_decay)
    weights = class_weights(slides.label[learn], problem.outputs) if problem.task != "survival" else None
    best, best_state, best_epoch = float("inf"), OrderedDict(head.state_dict()), config.epochs
    for epoch in range(1, config.epochs + 1):
        head.train()
        for part in np.array_split(rng.permutation(learn), max(1, len(learn) // config.bags_a_step)):
            raw = head.bags(*_padded([_draw(slides.bags[i], config.max_tiles, rng) for i in part], device))[0]
            optimiser.zero_grad()
            loss(raw, slides, part, problem.task, weights).backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
        if not len(stop):
            continue
        value = float(loss(torch.from_numpy(predict(head, slides, stop)), slides, stop, problem.task, None))
        if value < best:
            best, best_epoch = value, epoch
            best_state = OrderedDict((k, v.clone()) for k, v in head.state_dict().items())
        elif epoch - best_epoch >= config.patience:
            break
    if len(stop):
        head.load_state_dict(best_state)
    if problem.task == "survival":
        _centre_risk(head, slides, learn)
    return head.eval(), best_epoch


@torch.inference_mode()
def predict(head: BagModel, slides: Slides, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Raw outputs [M, C] of whole slides."""
    head.eval()
    device = head.mean.device
    return np.stack([head.bag(slides.bags[i].to(device).float())[0].double().cpu().numpy() for i in rows])


def loss(raw: Tensor, slides: Slides, rows: NDArray[np.intp], task: str, weights: Tensor | None) -> Tensor:
    """What is minimised: cross-entropy, weighted where there are weights, or the likelihood of the hazards."""
    if task == "survival":
        bins, event = torch.from_numpy(slides.bin_index[rows]), torch.from_numpy(slides.event[rows])
        return hazard_loss(raw, bins.to(raw.device), event.to(raw.device))
    weights = weights.to(raw) if weights is not None else None
    return nn.functional.cross_entropy(raw, torch.from_numpy(slides.label[rows]).to(raw.device), weights)


def class_weights(label: NDArray[np.int64], classes: int) -> Tensor:
    """1 / frequency, mean 1 over the slides; the temperature and threshold come from plain held-out predictions."""
    count = np.bincount(label, minlength=classes).astype(float)
    weight = np.where(count > 0, len(label) / (np.count_nonzero(count) * np.maximum(count, 1)), 0.0)
    return torch.from_numpy(weight.astype(np.float32))


@torch.no_grad()
def _start_from_marginal_hazards(head: BagModel, slides: Slides, learn: NDArray[np.intp]) -> None:
    """The baseline of each bin is its hazard among all slides, so that no step is spent on learning it."""
    bins, event = slides.bin_index[learn], slides.event[learn]
    for b in range(len(head.baseline)):
        died, at_risk = np.sum(event & (bins == b)), np.sum(bins > b) + np.sum(event & (bins == b))
        hazard = (died + 0.5) / (at_risk + 1.0)
        head.baseline[b] = float(np.log(hazard / (1 - hazard)))
    head.classify.bias.zero_()


@torch.no_grad()
def _centre_risk(head: BagModel, slides: Slides, learn: NDArray[np.intp]) -> None:
    """Move the mean risk of the learned slides into the baseline: risk 0 is their average slide in every fold."""
    mean = float((predict(head, slides, learn) - head.baseline.double().cpu().numpy()).mean())
    head.baseline.add_(mean)
    head.classify.bias.sub_(mean)


def _padded(bags: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Bags [N_i, D] as one batch float32 [B, N, D] and its mask bool [B, N]; None where all are as long."""
    longest = max(len(b) for b in bags)
    if all(len(b) == longest for b in bags):
        return torch.stack([b.to(device, non_blocking=True) for b in bags]).float(), None
    out = torch.zeros(len(bags), longest, bags[0].shape[1], device=device)
    mask = torch.zeros(len(bags), longest, dtype=torch.bool, device=device)
    for i, bag in enumerate(bags):
        out[i, : len(bag)] = bag.to(device, non_blocking=True)
        mask[i, : len(bag)] = True
    return out, mask


def _draw(bag: Tensor, limit: int, rng: np.random.Generator) -> Tensor:
    if len(bag) <= limit:
        return bag
    return bag[torch.from_numpy(rng.choice(len(bag), limit, replace=False)).to(bag.device)]
