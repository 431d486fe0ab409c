"""The threads of the compiled tiler."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from .._tiler import Job, Worker


class Team:
    """Threads that run every job together with the caller, one for each worker but the first."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._first = workers[0]
        self._jobs: list[queue.SimpleQueue[Job | None]] = [queue.SimpleQueue() for _ in workers[1:]]
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(worker, jobs), name="tiler", daemon=True)
            for worker, jobs in zip(workers[1:], self._jobs, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, job: Job) -> None:
        """Run a job to its end; the first error of a thread is raised."""
        for jobs in self._jobs:
            jobs.put(job)
        errors: list[BaseException | None] = []
        try:
            self._first.run(job)
        finally:
            errors = [self._done.get() for _ in self._jobs]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads; safe to call twice."""
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, worker: Worker, jobs: queue.SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            try:
                worker.run(job)
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)
