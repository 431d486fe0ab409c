"""A worker whose slides are text files that say what is to happen: run as a program by test_batch_worker.py.

A file's lines are ``at STAGE ACTION``, where STAGE is prepare, score or write and ACTION is crash, hang, error, disk,
sleep SECONDS, or name FILE (write the process's number there); ``once`` in front makes it happen on the first attempt
only.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stamp_deploy.atomic import staged_directory
from stamp_deploy.batch.workers.tasks import Task
from stamp_deploy.batch.workers.worker import main
from stamp_deploy.errors import DiskError, SlideError


class ScriptedSteps:
    """Steps that follow the script in the slide file."""

    def start(self, config: dict[str, Any]) -> None:
        self._config = config

    def load(self) -> dict[str, Any]:
        for _ in range(1500 if "load_after" in self._config else 0):  # until a slide has been prepared
            if Path(self._config["load_after"]).exists():
                break
            time.sleep(0.01)
        else:
            if "load_after" in self._config:
                raise SlideError("no slide was prepared while the engine was loading", remedy="none")
        if "load_once" in self._config and not Path(self._config["load_once"]).exists():
            Path(self._config["load_once"]).write_text(str(os.getpid()))
            time.sleep(1000)  # until it is stopped and replaced
        if self._config.get("fatal"):
            raise SlideError("no engine", remedy="none")
        return {"engine": "fake"}

    def warm_up(self) -> None:
        pass

    def probe(self, slide: Path, mpp: float | None) -> dict[str, Any]:
        self._follow(slide, "probe")
        return {"width": 10, "height": 10, "mpp_x": 0.5, "mpp_y": 0.5, "vendor": "fake", "route": "openslide"}

    def series(self, path: Path) -> dict[str, Any]:
        self._follow(path, "series")
        return {"series": path.stem.partition("-")[0]}

    def levels(self, path: Path) -> dict[str, Any]:
        self._follow(path, "levels")
        return {"levels": []}

    def identity(self, path: Path) -> dict[str, Any]:
        self._follow(path, "identity")
        return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def prepare(self, task: Task) -> Any:
        task.slide.with_suffix(".begun").touch()
        self._follow(task.slide, "prepare")
        return task

    def ahead(self, prepared: Any) -> bool:
        return True

    def score(self, prepared: Any, progress: Callable[[int, int], None]) -> Any:
        progress(1, 2)
        self._follow(prepared.slide, "score")
        progress(2, 2)
        return prepared

    def write(self, task: Task, result: Any) -> dict[str, Any]:
        self._follow(task.slide, "write")
        with staged_directory(task.out) as folder:
            (folder / "result.txt").write_text(task.slide.read_text())
        return {"tiles": {"ok": 2}, "timing": {"engine": 0.1}, "slide_sha256": "s", "result_sha256": "r"}

    def discard(self, prepared: Any) -> None:
        pass

    def _follow(self, slide: Path, stage: str) -> None:
        for line in slide.read_text().splitlines():
            words = line.split()
            if words[:1] == ["once"]:
                mark = slide.with_suffix(f".{stage}.once")
                if mark.exists():
                    continue
                words = words[1:]
                if words[1] == stage:
                    mark.touch()
            if words[:2] != ["at", stage]:
                continue
            if words[2] == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
                time.sleep(10)  # the signal may be another thread's to handle
            elif words[2] in ("hang", "sleep"):
                time.sleep(1000 if words[2] == "hang" else float(words[3]))
            elif words[2] == "name":
                Path(words[3]).write_text(str(os.getpid()))
                time.sleep(2)  # for whoever waits for the name
            elif words[2] == "disk":
                raise DiskError("no space left on device", path=slide)
            elif words[2] == "bug":
                raise ZeroDivisionError("a bug")
            else:
                raise SlideError("12 of 20 tissue tiles are unreadable", remedy="scan it again", path=slide)


if __name__ == "__main__":
    main(ScriptedSteps())
