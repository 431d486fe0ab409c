"""Actors of a Ray cluster: one per GPU, or one per share of CPU cores.

The driver (this process) holds the claims, the ledger and the decisions; an actor only supervises one
worker process on its node, as the local executor does here. When a node is lost its slides go back to
the board and a new actor is asked for. All nodes must see the slides, the bundle and the output under the
same paths. Ray moves messages with pickle, so the cluster must be one that you trust; only JSON text is
handed to it from here.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..options import STALL_S, BatchOptions
from ..states import OutcomeState
from .process import WorkerConfig, rebuild_error
from .supervisor import LOOKAHEAD, Supervisor
from .tasks import Listener, Outcome, Task, WorkSource

POLL_S = 0.3
SILENCE_S = 60.0
"""An actor that does not answer for so long is taken for lost."""


@dataclass(frozen=True)
class RaySetup:
    """What actors are made of: worker settings as for the local executor, and resources per worker."""

    config: dict[str, Any]
    log_folder: str
    cpus: float = 1.0
    gpus: float = 0.0
    actors: int = 1
    stall_s: float = STALL_S
    command: tuple[str, ...] = ()


class SlideWorker:
    """Runs inside the actor: a supervisor fed by ``submit`` and read by ``poll``."""

    def __init__(self, setup_json: str) -> None:
        setup = json.loads(setup_json)
        log = Path(setup["log_folder"]) / f"worker-{socket.gethostname()}-{os.getpid()}.log"
        more = {"command": tuple(setup["command"])} if setup["command"] else {}
        config = WorkerConfig(setup["config"], log, stall_s=setup["stall_s"], **more)
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._supervisor = Supervisor(config)
        threading.Thread(target=self._run, name="supervisor", daemon=True).start()

    def submit(self, task_json: str) -> None:
        """Queue one task."""
        value = json.loads(task_json)
        self._tasks.put(Task(**{**value, "slide": Path(value["slide"]), "out": Path(value["out"])}))

    def poll(self) -> str:
        """Events since the last call, as a JSON list; waits a moment for the first."""
        events = []
        try:
            events.append(self._events.get(timeout=POLL_S))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return json.dumps(events)

    def finish(self) -> None:
        """Stop the worker process."""
        self._supervisor.stop()
        self._tasks.put(None)

    # The supervisor's source and listener.

    def take(self, *, wait: bool) -> Task | None:
        try:
            return self._tasks.get(block=wait)
        except queue.Empty:
            return None

    def finished(self) -> bool:
        return False

    def outcome(self, outcome: Outcome) -> None:
        self._events.put({"event": "outcome", **asdict(outcome)})

    def progress(self, key: str, done: int, total: int) -> None:
        self._events.put({"event": "progress", "key": key, "done": done, "total": total})

    def restarted(self, cause: str) -> None:
        self._events.put({"event": "restarted", "cause": cause})

    def _run(self) -> None:
        from ...errors import StampError

        try:
            self._supervisor.run(self, self)
        except StampError as error:
            described = {"type": type(error).__name__, "cause": error.cause, "remedy": error.remedy}
            self._events.put({"event": "fatal", "error": described})


class RayExecutor:
    """Feeds the actors of the connected cluster from the board.

    Parameters
    ----------
    setup : RaySetup
        What the actors are made of.
    """

    def __init__(self, setup: RaySetup) -> None:
        self._setup = setup
        self._stopped = False
        self._error: BaseException | None = None

    def run(self, source: WorkSource, listener: Listener) -> None:
        """Work until the source is exhausted.

        Raises
        ------
        StampError
            When a worker cannot start on a node.
        """

        def feed() -> None:
            try:
                while not self._stopped and not source.finished():
                    self._feed_one_actor(source, listener)
            except BaseException as error:
                self._error = self._error or error
                self._stopped = True

        threads = [threading.Thread(target=feed, name=f"ray-{i}") for i in range(self._setup.actors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.2)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Abandon what is running."""
        self._stopped = True

    def _feed_one_actor(self, source: WorkSource, listener: Listener) -> None:
        """Make an actor and keep it busy until there is no more work, or its node is lost."""
        ray = _ray()

        remote = ray.remote(SlideWorker)
        actor = remote.options(
            num_cpus=self._setup.cpus, num_gpus=self._setup.gpus, max_restarts=0, max_concurrency=4
        ).remote(json.dumps(asdict(self._setup)))
        running: dict[str, tuple[Task, float]] = {}
        try:
            # Wait for a place in the cluster before taking work that others could do meanwhile.
            ready = actor.poll.remote()
            while not ray.wait([ready], timeout=1.0)[0]:
                if self._stopped or source.finished():
                    return
            self._dispatch(json.loads(ray.get(ready)), running, listener)
            while not self._stopped:
                self._fill(actor, source, running)
                if not running:
                    return
                events = json.loads(ray.get(actor.poll.remote(), timeout=SILENCE_S))
                self._dispatch(events, running, listener)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            listener.restarted("node-lost")
        finally:
            for key, (_, started) in list(running.items()):
                seconds = round(time.monotonic() - started, 3)
                listener.outcome(
                    Outcome(key, OutcomeState.INTERRUPTED, "its node was lost or the batch stopped", seconds)
                )
            ray.kill(actor)

    def _fill(self, actor: Any, source: WorkSource, running: dict[str, tuple[Task, float]]) -> None:
        while len(running) < LOOKAHEAD and not any(task.solo for task, _ in running.values()):
            task = source.take(wait=not running)
            if task is None:
                return
            running[task.key] = (task, time.monotonic())
            actor.submit.remote(json.dumps({**task.to_dict(), "solo": task.solo}))

    def _dispatch(
        self, events: list[dict[str, Any]], running: dict[str, tuple[Task, float]], listener: Listener
    ) -> None:
        for event in events:
            kind = event.pop("event")
            if kind == "fatal":
                raise rebuild_error(event["error"])
            if kind == "restarted":
                listener.restarted(event["cause"])
            elif event["key"] in running and kind == "progress":
                listener.progress(**event)
            elif event["key"] in running:
                del running[event["key"]]
                listener.outcome(Outcome(**{**event, "state": OutcomeState(event["state"])}))


def _ray() -> Any:
    """The ray module, untyped: it is an optional package.

    Raises
    ------
    UsageError
        Naming the extra, where it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError("Ray is not installed", remedy="pip install 'stamp-deploy[ray]'") from error


def connect(address: str | None) -> None:
    """Connect to a cluster; without an address by Ray's own rules (RAY_ADDRESS, or one on this machine).

    Raises
    ------
    UsageError
        When there is none.
    """
    ray = _ray()

    if ray.is_initialized():
        return
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise UsageError(
            f"no Ray cluster can be reached: {error}", remedy="start one, and name it with --address"
        ) from error


def ray_executor(options: BatchOptions, *, address: str | None = None) -> RayExecutor:
    """One actor for each GPU of the cluster; without GPUs one for each node, with all its cores.

    ``--workers`` sets another number of actors on CPU clusters. Names the missing package where Ray is
    not installed.
    """
    ray = _ray()
    connect(address)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if options.devices != "cpu" else 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise UsageError("the Ray cluster has no node with a CPU", remedy="start a worker node")
    smallest = min(node["CPU"] for node in nodes)
    if gpus:
        per_node = max(1, int(max(node.get("GPU", 1) for node in nodes)))
        actors, cpus = gpus, max(1.0, smallest // per_node)
    else:
        actors = options.workers or len(nodes)
        cpus = min(smallest, max(1.0, resources["CPU"] // actors))
    return RayExecutor(
        RaySetup(
            options.worker_config(),
            str(options.state.absolute()),
            cpus=cpus,
            gpus=1.0 if gpus else 0.0,
            actors=actors,
            stall_s=options.stall_s,
        )
    )
