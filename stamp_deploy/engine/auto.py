"""`auto`: the fastest engine that passes parity on this machine, and the reason in one sentence.

Every engine that can be loaded runs the same golden tiles: what fails parity is out, the fastest of the rest stays.
The choice is kept in the cache, keyed by everything that could change it, so that it is made once a machine and later
runs of a batch use the same engine.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .. import log
from ..errors import EngineError, ParityError, StampError
from ..processor import this_processor
from .cache import cache_dir, key_of, read_entry, write_entry
from .cuda import visible_gpus
from .golden import judge, load_golden, run_tiles
from .registry import open_engine
from .tensorrt_plan import MODULES

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .base import BatchedEngine

TRIAL_TILES = 32
TRIAL_SECONDS = 2.0
"""A trial is repeated until it has taken this long, three times at most; the first pass is not timed then."""
MARGIN = 1.05
"""ONNX Runtime stays unless another engine is this much faster: noise must not change the engine."""
PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13",
    "tensorrt_cu13_bindings", "tensorrt_rtx", "tensorrt_rtx_cu13_bindings", "stamp-deploy",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One engine on the golden tiles: tiles/s, or why it is out, and whether it could be loaded at all."""

    name: str
    precision: str
    speed: float
    refused: str = ""
    loaded: bool = True

    def __str__(self) -> str:
        label = f"{self.name} {self.precision}".strip()
        return f"{label}: {self.refused}" if self.refused else f"{label} {self.speed:.3g} tiles/s"


def choose(
    bundle: Bundle, *, batch: int, threads: int = 0, precision: str | None = None, device: int = 0
) -> BatchedEngine:
    """Load the fastest engine that passes parity here; see `load_engine`.

    Raises
    ------
    ParityError
        Engines can be loaded, and none reproduces the golden outputs.
    EngineError
        No engine can be loaded.
    """
    path = _cache_path(bundle, batch, threads, precision, device)
    entry = read_entry(path) if path is not None else None
    if entry is not None and entry.get("name") in candidates():
        try:
            engine = _open(bundle, str(entry["name"]), batch, threads, str(entry["precision"]), device)
        except StampError:
            log.event("cached engine choice no longer loads", level=logging.WARNING)
        else:
            engine.explain(f"{entry['why']} (measured earlier)")
            return engine
    trials = [_try(bundle, name, batch, threads, precision, device) for name in candidates()]
    passed = [trial for trial in trials if not trial.refused]
    if not passed:
        reasons = "; ".join(map(str, trials))
        ran = any(trial.loaded for trial in trials)
        raise (ParityError if ran else EngineError)(
            f"no engine can be used on this machine: {reasons}", path=bundle.path, remedy="see `stamp-deploy doctor`"
        )
    best = _best(passed)
    why = _why(best, passed, [trial for trial in trials if trial.refused])
    engine = _open(bundle, best.name, batch, threads, best.precision, device)
    engine.explain(why)
    if path is not None:
        write_entry(
            path, {"name": best.name, "precision": best.precision, "why": why, "trials": list(map(str, trials))}
        )
    log.event("engine chosen", engine=best.name, precision=best.precision, why=why)
    return engine


def candidates() -> tuple[str, ...]:
    """Engines worth trying here: what is installed, and the GPU's where a GPU can be seen."""
    found = ["onnxruntime"]
    if find_spec("openvino") is not None:
        found.append("openvino")
    if visible_gpus():
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            found.append("onnxruntime-cuda")
        found += [name for name, modules in MODULES.items() if any(find_spec(m) is not None for m in modules)]
    return tuple(found)


def _open(bundle: Bundle, name: str, batch: int, threads: int, precision: str | None, device: int) -> BatchedEngine:
    return open_engine(bundle, name, batch=batch, threads=threads, precision=precision, device=device)


def _try(bundle: Bundle, name: str, batch: int, threads: int, precision: str | None, device: int) -> Trial:
    try:
        engine = _open(bundle, name, batch, threads, precision, device)
    except StampError as error:
        return Trial(name, precision or "", 0.0, f"cannot be loaded ({error.cause[:120]})", loaded=False)
    label = engine.info.precision
    try:
        tiles, reference = load_golden(bundle, TRIAL_TILES)
        found, seconds = run_tiles(engine, tiles)
        report = judge(bundle, engine, reference, found)
        if not report:
            engine.reject()
            return Trial(name, label, 0.0, f"fails parity ({'; '.join(report.failures)[:160]})")
        engine.accept()
        spent, times = seconds, [seconds]
        while spent < TRIAL_SECONDS and len(times) < 4:
            times.append(run_tiles(engine, tiles)[1])
            spent += times[-1]
        timed = times[1:] or times
        return Trial(name, label, len(tiles) / min(timed))
    except ParityError:
        raise
    except StampError as error:
        return Trial(name, label, 0.0, f"fails ({error.cause[:120]})")
    finally:
        engine.close()


def _best(passed: list[Trial]) -> Trial:
    fastest = max(passed, key=lambda trial: trial.speed)
    default = next((trial for trial in passed if trial.name == "onnxruntime"), None)
    return default if default is not None and fastest.speed < MARGIN * default.speed else fastest


def _why(best: Trial, passed: list[Trial], refused: list[Trial]) -> str:
    ranked = ", ".join(str(trial) for trial in sorted(passed, key=lambda trial: -trial.speed))
    rank = f"fastest of {len(passed)} that passed parity here" if len(passed) > 1 else "the only one that passed parity"
    if len(passed) > 1 and best.speed < max(trial.speed for trial in passed):
        rank = f"as fast as the fastest of {len(passed)} that passed parity here, and the default"
    return f"{rank}: {ranked}" + (f"; not used: {'; '.join(map(str, refused))}" if refused else "")


def _cache_path(bundle: Bundle, batch: int, threads: int, precision: str | None, device: int) -> Path | None:
    try:
        folder = cache_dir()
    except StampError as error:
        log.event("no cache for the engine choice", level=logging.WARNING, cause=error.cause)
        return None
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    processor = this_processor()
    machine = (
        processor.name,
        sorted(processor.flags),
        len(os.sched_getaffinity(0)),
        [(g.name, g.driver) for g in visible_gpus()],
    )
    key = key_of(bundle.sha256, versions, machine, batch, threads, precision, device)
    return folder / "choices" / f"{key}.json"
