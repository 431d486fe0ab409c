"""Worker processes on this machine: one per GPU, or one per group of CPU cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..options import STALL_S
from .process import WorkerConfig
from .supervisor import Supervisor
from .tasks import Listener, WorkSource


class LocalExecutor:
    """One supervised worker process for each setup.

    Parameters
    ----------
    setups : sequence of WorkerConfig
        How each worker is started.
    """

    def __init__(self, setups: Sequence[WorkerConfig]) -> None:
        self._supervisors = [Supervisor(setup) for setup in setups]
        self._error: BaseException | None = None

    def run(self, source: WorkSource, listener: Listener) -> None:
        """Work until the source is exhausted.

        Raises
        ------
        StampError
            When a worker cannot start; the others are stopped.
        """

        def supervise(supervisor: Supervisor) -> None:
            try:
                supervisor.run(source, listener)
            except BaseException as error:
                self._error = self._error or error
                self.stop()

        threads = [threading.Thread(target=supervise, args=(s,), name="supervisor") for s in self._supervisors]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # short waits, so that signals are handled meanwhile
                thread.join(timeout=0.2)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Abandon what is running."""
        for supervisor in self._supervisors:
            supervisor.stop()


def gpu_names() -> list[str]:
    """GPUs that CUDA would see: CUDA_VISIBLE_DEVICES where set, else the driver's list."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() and name.strip() != "-1"]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def worker_setups(
    config: dict[str, Any],
    log_folder: Path,
    *,
    devices: str = "auto",
    workers: int = 0,
    stall_s: float = STALL_S,
) -> list[WorkerConfig]:
    """Divide this machine among workers.

    Parameters
    ----------
    config : dict
        What each worker is told at its start (see ``steps.InferSteps.start``).
    log_folder : Path
        Where each worker's output goes.
    devices : str
        "auto" (every GPU, else the CPU), "cpu", or GPU numbers as "0,1".
    workers : int
        CPU groups; 0 is one. Ignored for GPUs, which get one worker each.
    stall_s : float
        Seconds without progress after which a slide counts as hung.

    Raises
    ------
    UsageError
        For more CPU groups than cores, or a GPU list that is not understood.
    """
    gpus = gpu_names() if devices == "auto" else [] if devices == "cpu" else devices.split(",")
    if any(not gpu.strip() for gpu in gpus):
        raise UsageError(f"--devices {devices} is not understood", remedy="use auto, cpu or GPU numbers as 0,1")
    cores = sorted(os.sched_getaffinity(0))
    count = len(gpus) or max(1, workers)
    if not gpus and count > len(cores):
        raise UsageError(f"{count} workers are more than the {len(cores)} cores", remedy="use fewer --workers")
    setups = []
    for i in range(count):
        share = cores[i * len(cores) // count : (i + 1) * len(cores) // count] or cores
        environment = (("CUDA_VISIBLE_DEVICES", gpus[i].strip()),) if gpus else ()
        if devices == "cpu":
            environment = (("CUDA_VISIBLE_DEVICES", "-1"),)
        setups.append(
            WorkerConfig(
                config=config,
                log=log_folder / f"worker-{os.getpid()}-{i}.log",
                cpus=tuple(share) if count > 1 else (),
                environment=environment,
                stall_s=stall_s,
            )
        )
    return setups
