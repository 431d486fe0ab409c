"""`Position`: where a training run stands, kept in its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run stands; all of it is in the checkpoint's header."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_r: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(self.__dict__)

    def note(self) -> str:
        """Mean loss of the epoch so far, and the best validation r, for the progress line."""
        best = "" if self.best_r is None else f"  validation r {self.best_r:.3f}"
        return f"loss {self.sums['loss'] / self.sums['batches']:.3f}{best}"
