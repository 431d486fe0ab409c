"""Work shared by the processes of a training: sections are dealt out, and what each makes of its own goes to all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from .dealing import deal_out

if TYPE_CHECKING:
    from accelerate import Accelerator

Floats = NDArray[np.float32]


class Ranks:
    """The processes of a training, or the one that there is.

    Parameters
    ----------
    accelerator : Accelerator

    Attributes
    ----------
    rank, world : int
        Which process this is, of how many.
    main : bool
        Whether it is the first, which writes and decides.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.world = int(accelerator.process_index), int(accelerator.num_processes)
        self.main = self.rank == 0
        self.device: torch.device = accelerator.device
        self._wait = accelerator.wait_for_everyone

    def wait(self) -> None:
        """Until every process is here."""
        self._wait()

    def owners(self, sizes: Sequence[int]) -> list[int]:
        """The process of each piece of work."""
        return deal_out(sizes, self.world)

    def share(self, sizes: Sequence[int], width: int, make: Callable[[int], Floats]) -> list[Floats]:
        """Tables float32 [sizes[i], width], each made by one process and given to all.

        Parameters
        ----------
        make : callable
            Number of a table -> the table.
        """
        if self.world == 1:
            return [make(i) for i in range(len(sizes))]
        owner = self.owners(sizes)
        own = {i: make(i) for i in range(len(sizes)) if owner[i] == self.rank}
        return [self._from(own.get(i), (size, width), owner[i]) for i, size in enumerate(sizes)]

    def _from(self, table: Floats | None, shape: tuple[int, int], source: int) -> Floats:
        values = torch.empty(shape, device=self.device) if table is None else torch.from_numpy(table).to(self.device)
        torch.distributed.broadcast(values, source)
        return values.cpu().numpy() if table is None else table

    def decide(self, value: float) -> float:
        """The first process's value, for all: a decision is taken once."""
        if self.world == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(told, 0)
        return float(told)
