"""The slides that a head learns from, in memory: embeddings, labels, patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stamp_deploy.errors import DataError

from .bags import LabelledSlide, LabelTable
from .config import HeadConfig

FULL_PRECISION_BYTES = 4 << 30
"""Up to here embeddings are kept as float32; beyond as float16, which is what encoders give."""
HALF_LIMIT = 6e4
"""Larger values do not fit float16."""
GPU_SHARE = 0.5
"""Of a GPU's free memory, for embeddings that stay there."""


@dataclass(eq=False)
class Slides:
    """Everything about the slides, in memory: embeddings [N, D] each, float32, or float16 where they are many."""

    bags: list[Tensor]
    label: NDArray[np.int64]
    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    patients: list[str]
    bin_index: NDArray[np.int64]
    edges: NDArray[np.float64]


def load_slides(table: LabelTable, config: HeadConfig) -> Slides:
    """Read the embeddings; on a GPU they stay, as far as they fit.

    Raises
    ------
    DataError
        Embeddings of several lengths or encoders, or too few events for the time bins.
    """
    encoders = table.encoders()
    if len(encoders) > 1:
        raise DataError(f"the features are of several encoders: {', '.join(encoders)}", remedy="extract them with one")
    bags = read_bags(table.slides)
    time, event = np.array([s.time for s in table.slides]), np.array([s.event for s in table.slides])
    edges, bin_index = np.zeros(0), np.zeros(len(bags), np.int64)
    if table.task == "survival":
        if event.sum() < config.bins:
            raise DataError(f"{int(event.sum())} events are too few for {config.bins} time bins", remedy="--bins 2")
        edges = np.unique(np.quantile(time[event], np.linspace(0, 1, config.bins + 1)[1:-1]))
        bin_index = np.searchsorted(edges, time, side="right").astype(np.int64)
    label = np.array([s.label for s in table.slides], np.int64)
    patients = [s.patient for s in table.slides]
    return Slides(_placed(bags, torch.device(device_of(config))), label, time, event, patients, bin_index, edges)


def read_bags(slides: tuple[LabelledSlide, ...]) -> list[Tensor]:
    """The embeddings of slides, all of one length.

    Raises
    ------
    DataError
        They are of several lengths.
    """
    bags: list[Tensor] = []
    total = 0
    for slide in slides:
        values = torch.from_numpy(slide.bag.embeddings())
        total += 4 * values.numel()
        if total > FULL_PRECISION_BYTES and float(values.abs().max()) < HALF_LIMIT:
            values = values.half()
        bags.append(values)
    sizes = {b.shape[1] for b in bags}
    if len(sizes) > 1:
        raise DataError(f"embeddings of several lengths: {sorted(sizes)}", remedy="extract all slides with one model")
    return bags


def device_of(config: HeadConfig) -> str:
    """The device that a config asks for."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _placed(bags: list[Tensor], device: torch.device) -> list[Tensor]:
    if device.type != "cuda":
        return bags
    free, _ = torch.cuda.mem_get_info(device)
    fits = sum(b.numel() * b.element_size() for b in bags) < GPU_SHARE * free
    return [b.to(device) for b in bags] if fits else bags
