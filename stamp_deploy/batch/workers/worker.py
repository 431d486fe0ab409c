"""The worker process: opens, decodes, scores and writes slides that it is told to.

It is a process of its own because a decoder can crash or hang, and nothing in the same process survives
that. Three threads form a pipeline: one prepares the next slide (its tiles are decoded in the background
from then on), the main thread runs the engine on this slide, one concludes and writes the last slide. The
first slide is prepared while the engine is loading. JSON lines go both ways through an inherited socket; when
the parent goes, so does the worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ...errors import ExitCode, StampError
from ...system.isolation import die_with_parent
from ...system.memory import release_memory
from ...system.offline import keep_home_clean
from ...system.quiet import guard_process, place, traceback_text
from .sign_of_life import BEAT_S
from .steps import InferSteps, Steps
from .tasks import Task

SWITCH_INTERVAL_S = 0.001
"""How long one thread's Python may keep the engine's thread from handing over the next batch."""


class Worker:
    """The pipeline around the steps."""

    def __init__(self, channel: socket.socket, steps: Steps) -> None:
        self._channel = channel
        self._steps = steps
        self._send_lock = threading.Lock()
        self._incoming: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(1)  # for one slide between opening and engine
        self._prepared: queue.SimpleQueue[tuple[Task, Any]] = queue.SimpleQueue()
        self._calm = threading.Event()
        self._scored: queue.Queue[tuple[Task, Any]] = queue.Queue(maxsize=1)

    def serve(self) -> None:
        """Work until the parent hangs up; never returns."""
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        prepare = threading.Thread(target=self._prepare_loop, name="prepare", daemon=True)
        try:
            config = self._incoming.get()
            eager = config.get("eager", True)
            self._steps.start(config)
            threading.Thread(target=self._write_loop, name="write", daemon=True).start()
            if eager:
                prepare.start()
            started = self._steps.load()
        except Exception as error:
            self._send("fatal", error=_describe(error))
            os._exit(2)
        self._send("ready", **started)
        if not eager:
            prepare.start()
        while True:
            self._score_next()

    def _beat(self) -> None:
        while True:
            self._send("beat")
            time.sleep(BEAT_S)

    def _score_next(self) -> None:
        task, prepared = self._prepared.get()
        self._send("stage", key=task.key, stage="scoring")
        last, calm = 0.0, False

        def relax() -> None:
            """Let the next slide be opened: it takes cores from the decoding of this one."""
            nonlocal calm
            if not calm:
                calm = True
                self._room.release()
                self._calm.set()

        def progress(done: int, total: int) -> None:
            nonlocal last
            if 2 * done >= total or self._steps.ahead(prepared):
                relax()
            if time.monotonic() - last > 0.2 or done == total:
                last = time.monotonic()
                self._send("progress", key=task.key, done=done, total=total)

        try:
            try:
                scored = self._steps.score(prepared, progress)
            finally:
                relax()
                with contextlib.suppress(StampError):
                    self._steps.discard(prepared)
        except Exception as error:
            self._fail(task, error)
            return
        # The writer may be busy with the last slide: waiting for it is no lack of progress.
        self._send("stage", key=task.key, stage="scored")
        self._scored.put((task, scored))

    def _prepare_loop(self) -> None:
        while True:
            command = self._incoming.get()
            if command["op"] == "probe":
                self._probe(command)
                continue
            task = Task(command["key"], Path(command["slide"]), Path(command["out"]), command["mpp"])
            self._room.acquire()
            self._send("stage", key=task.key, stage="preparing")
            try:
                prepared = self._steps.prepare(task)
            except Exception as error:
                self._room.release()
                self._fail(task, error)
                continue
            self._send("stage", key=task.key, stage="waiting")
            self._prepared.put((task, prepared))

    def _write_loop(self) -> None:
        self._calm.wait()  # until then the first slide needs the cores more
        with contextlib.suppress(Exception):  # whatever it is, the first write meets it again
            self._steps.warm_up()
        gc.collect()
        gc.freeze()  # modules and bundle live as long as the process: collections pass them over from here on
        while True:
            task, scored = self._scored.get()
            self._send("stage", key=task.key, stage="writing")
            summary = None
            try:
                summary = self._steps.write(task, scored)
            except Exception as error:
                self._fail(task, error)
            del scored
            _give_memory_back()
            if summary is not None:
                self._send("done", key=task.key, summary={**summary, **_memory()})

    def _probe(self, command: dict[str, Any]) -> None:
        try:
            slide = Path(command["slide"])
            if command["what"] == "series":
                facts = self._steps.series(slide)
            elif command["what"] == "levels":
                facts = self._steps.levels(slide)
            elif command["what"] == "identity":
                facts = self._steps.identity(slide)
            else:
                facts = self._steps.probe(slide, command["mpp"])
        except Exception as error:
            error_text = _describe(error, Path(command["slide"]))
            self._send("probe-failed", key=command["key"], error=error_text)
        else:
            self._send("probed", key=command["key"], facts=facts)

    def _fail(self, task: Task, error: Exception) -> None:
        self._send("failed", key=task.key, error=_describe(error, task.slide, task.out))

    def _send(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        try:
            with self._send_lock:
                self._channel.sendall(line)
        except OSError:
            os._exit(3)

    def _read_commands(self) -> None:
        # A parent that is killed with our events unread resets the channel instead of ending it.
        with contextlib.suppress(ConnectionError), self._channel.makefile("rb") as lines:
            for line in lines:
                self._incoming.put(json.loads(line))
        os._exit(3)


def _describe(error: Exception, *paths: Path) -> dict[str, Any]:
    """An error as JSON values; one that is not a StampError is a bug, and where it happened is logged.

    Folders can name patients and libraries put paths into their messages, so those of ``paths`` are taken out.
    """
    if isinstance(error, StampError):
        return {
            "type": type(error).__name__,
            "cause": _without_folders(error.cause, paths),
            "remedy": _without_folders(error.remedy, paths),
            "exit_code": int(error.exit_code),
        }
    print(traceback_text(error), file=sys.stderr, flush=True)
    return {
        "type": type(error).__name__,
        "cause": place(error),
        "remedy": "",
        "exit_code": int(ExitCode.BUG),
    }


def _without_folders(text: str, paths: tuple[Path, ...]) -> str:
    for path in paths:
        for folder in (path.parent, path.absolute().parent, path.resolve().parent):
            if folder != Path(".") and folder != Path(folder.root):
                text = text.replace(f"{folder}/", "").replace(str(folder), "...")
    return text


def _give_memory_back() -> None:
    """Free what cycles hold (h5py, pandas) and what the C library keeps: memory stays the same slide by slide."""
    gc.collect()
    release_memory()


def _memory() -> dict[str, int]:
    """Resident memory now and at its peak, in bytes."""
    import resource

    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"rss": resident, "rss_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main(steps: Steps | None = None) -> None:
    """Entry point: ``python -m stamp_deploy.batch.workers.worker FD PARENT``."""
    guard_process()
    keep_home_clean()  # Ray starts workers without our parent's environment
    faulthandler.enable(sys.stderr)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Schedulers send SIGTERM to every process of a step. The parent decides: it hangs up, or kills.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(int(sys.argv[2]))
    Worker(socket.socket(fileno=int(sys.argv[1])), steps or InferSteps()).serve()


if __name__ == "__main__":
    main()
