"""Work shared by the processes of a training: sections are dealt out, and what each makes of its own goes to all."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.errors import DataError

from .dealing import deal_out

if TYPE_CHECKING:
    from accelerate import Accelerator

Floats = NDArray[np.float32]
Made = TypeVar("Made")
BEAT_S = 5.0
"""How often processes that work tell those that are done, so that no collective call waits longer than this."""


def leave() -> None:
    """Take this process out of its groups before Python ends.

    torch's threads of a group may otherwise outlive what they use: a process that had done all of its work could end by
    an abort, and a launcher then calls the run failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
    beats : int
        How often the processes have told each other that they are at work.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.world = int(accelerator.process_index), int(accelerator.num_processes)
        self.main = self.rank == 0
        self.device: torch.device = accelerator.device
        self.beats = 0
        self._group: Any = None
        if self.world > 1:
            atexit.unregister(leave)
            atexit.register(leave)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over the processes where there are several."""
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True)

    def together(self, work: Callable[[], Made]) -> Made:
        """What `work` gives in this process, once it is done in all of them.

        The work runs in a thread. Meanwhile the processes meet every `BEAT_S` seconds, on the CPU, so that none of them
        waits longer than that, however long another one works: collective calls give up after some minutes.

        Raises
        ------
        DataError
            Another process failed; it says why. What fails in this one is raised as it is.
        """
        if self.world == 1:
            return work()
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        made: Future[Made] = Future()
        thread = threading.Thread(target=self._run, args=(work, made), name="rank-work", daemon=True)
        thread.start()
        while True:
            thread.join(BEAT_S)
            at_work = thread.is_alive()
            state = torch.tensor([at_work, not at_work and made.exception() is not None], dtype=torch.int64)
            torch.distributed.all_reduce(state, torch.distributed.ReduceOp.MAX, group=self._group)
            self.beats += 1
            if state[1] and (at_work or made.exception() is None):
                raise DataError("another process of the training failed", remedy="see its message")
            if state[1] or not state[0]:
                return made.result()

    def _run(self, work: Callable[[], Made], made: Future[Made]) -> None:
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # each thread starts with the first one
            made.set_result(work())
        except BaseException as error:
            made.set_exception(error)

    def main_first(self, work: Callable[[], Made]) -> Made:
        """What `work` gives, in the first process before the others: they find on the disk what it took long for."""
        first = self.together(lambda: work() if self.main else None)
        second = self.together(lambda: None if self.main else work())
        found = first if self.main else second
        assert found is not None
        return found

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
        own = self.together(lambda: {i: make(i) for i in range(len(sizes)) if owner[i] == self.rank})
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
