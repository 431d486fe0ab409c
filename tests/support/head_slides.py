"""Slides of a head's training, in memory: labels and patients alone matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.slides import Slides


def slides_of(label: np.ndarray, patients: list[str] | None = None) -> Slides:
    n = len(label)
    bags = [torch.zeros(1, 2) for _ in range(n)]
    names = patients or [f"p{i}" for i in range(n)]
    return Slides(bags, label, np.zeros(n), np.zeros(n, bool), names, np.zeros(n, np.int64), np.zeros(0))


def table_of(slides: Slides, task: str, classes: Sequence[str]) -> LabelTable:
    """The table of labels that such slides came from."""
    bag = Bag("x", Path("x"))
    rows = (LabelledSlide(bag, p, int(y)) for p, y in zip(slides.patients, slides.label, strict=True))
    return LabelTable(tuple(rows), task, tuple(classes), 0, 0)
