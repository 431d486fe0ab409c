"""Which engine: the fastest that passes parity on this machine, and the reason in one sentence.

Every engine that can be loaded, in every precision that it offers, is held to the golden tiles: what fails is out, the
fastest of the rest stays. The choice is kept in the cache, keyed by everything that could change it, so that it is made
once per machine and later runs of a batch use the same engine.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError, EngineError, ParityError, StampError
from ..system import log
from ..system.processor import usable_cores
from .cache import cache_folder, key_of, read_entry, write_entry
from .cuda import visible_gpus
from .golden import time_engine
from .machine import machine_facts
from .registry import DEFAULT, open_engine, precisions_of
from .tensorrt_plan import MODULES
from .verdict import EXPIRES_S, Verdict, accept, accept_a_form

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .base import BatchedEngine

TRIAL_SECONDS = 2.0
"""A trial is repeated until it has taken this long, three times at most; the first pass is not timed then."""
MARGIN = 1.05
"""The first that passed stays unless another is this much faster: noise must not change the engine."""


@dataclass(frozen=True)
class Trial:
    """One engine on the golden tiles: tiles/s, or why it is out, and whether it ran at all."""

    name: str
    precision: str
    speed: float
    refused: str = ""
    loaded: bool = True

    def __str__(self) -> str:
        label = f"{self.name} {self.precision}".strip()
        return f"{label}: {self.refused}" if self.refused else f"{label} {self.speed:.3g} tiles/s"


def choose(
    bundle: Bundle,
    names: tuple[str, ...] = (),
    *,
    batch: int,
    threads: int = 0,
    precision: str | None = None,
    device: int = 0,
) -> BatchedEngine:
    """Load the fastest of some engines (by default all `candidates`), in the fastest precision, that passes parity.

    The first of them is the default and stays where no other is clearly faster.

    Raises
    ------
    ParityError
        Engines can be loaded, and none reproduces the golden outputs.
    BundleError
        The bundle itself is at fault, so that no other engine would help.
    EngineError
        No engine can be loaded.
    """
    names = names or candidates()
    pairs = [(name, wanted) for name in names for wanted in precisions_of(bundle, name, precision)]
    path = _cache_path(bundle, pairs, batch, threads, device)
    engine = _earlier(bundle, path, names, batch, threads, device)
    if engine is not None:
        return engine
    trials = [_try(bundle, name, batch, threads, wanted, device) for name, wanted in pairs]
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
        kept = {"name": best.name, "precision": best.precision, "why": why, "trials": list(map(str, trials))}
        lasting = all(trial.loaded or not trial.refused for trial in trials)
        write_entry(path, {**kept, "lasting": lasting, "chosen_unix": time.time()})
    log.event("engine chosen", engine=best.name, precision=best.precision, why=why)
    return engine


def open_accepted(
    bundle: Bundle,
    name: str,
    *,
    batch: int,
    threads: int = 0,
    precision: str | None = None,
    device: int = 0,
    url: str | None = None,
) -> BatchedEngine:
    """Load one engine and hold it to parity, or to what is remembered of it.

    Raises
    ------
    ParityError
        It does not reproduce the golden outputs; what was compiled for it has been deleted.
    EngineError
        It cannot be loaded, or fails.
    """
    again = partial(
        open_engine, bundle, name, batch=batch, threads=threads, precision=precision, device=device, url=url
    )
    engine, verdict = accept_a_form(bundle, again(), again)
    if not verdict:
        raise ParityError(
            f"{name} {engine.info.precision} fails parity ({'; '.join(verdict.failures)})",
            path=bundle.path,
            remedy="use another --engine or --precision; `stamp-deploy parity` shows all numbers",
        )
    return engine


def candidates() -> tuple[str, ...]:
    """Engines worth trying here: what is installed, and the GPU's where a GPU can be seen."""
    found = [DEFAULT]
    if find_spec("openvino") is not None:
        found.append("openvino")
    if visible_gpus():
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            found.append("onnxruntime-cuda")
        found += [name for name, modules in MODULES.items() if any(find_spec(m) is not None for m in modules)]
    return tuple(found)


def _open(bundle: Bundle, name: str, batch: int, threads: int, precision: str | None, device: int) -> BatchedEngine:
    return open_accepted(bundle, name, batch=batch, threads=threads, precision=precision, device=device)


def _earlier(
    bundle: Bundle, path: Path | None, names: tuple[str, ...], batch: int, threads: int, device: int
) -> BatchedEngine | None:
    """The engine that was chosen before, still accepted; None where it must be chosen again."""
    entry = read_entry(path) if path is not None else None
    if entry is None or entry.get("name") not in names:
        return None
    try:
        age = time.time() - float(entry["chosen_unix"])
        if not (entry["lasting"] is True or 0 <= age < EXPIRES_S):
            return None
        engine = _open(bundle, str(entry["name"]), batch, threads, str(entry["precision"]), device)
    except (KeyError, TypeError, ValueError):
        return None
    except StampError as error:
        log.event("the engine chosen earlier is not used", level=logging.WARNING, cause=error.cause)
        return None
    engine.explain(f"{entry['why']} (measured earlier)")
    return engine


def _try(bundle: Bundle, name: str, batch: int, threads: int, precision: str | None, device: int) -> Trial:
    try:
        engine = open_engine(bundle, name, batch=batch, threads=threads, precision=precision, device=device)
    except ParityError as error:  # a weight that the precision cannot hold
        return Trial(name, precision or "", 0.0, f"fails parity ({error.cause[:160]})")
    except BundleError:  # the bundle's own fault, whatever the engine
        raise
    except StampError as error:
        return Trial(name, precision or "", 0.0, f"cannot be loaded ({error.cause[:120]})", loaded=False)
    label = engine.info.precision
    try:
        verdict = accept(bundle, engine)
        if verdict.another_form:
            return _try(bundle, name, batch, threads, precision, device)
        if not verdict:
            return Trial(name, label, 0.0, f"fails parity ({'; '.join(verdict.failures)[:160]})")
        return Trial(name, label, _speed(bundle, engine, verdict))
    except BundleError:
        raise
    except StampError as error:  # the device's: may pass
        return Trial(name, label, 0.0, f"fails ({error.cause[:120]})", loaded=False)
    finally:
        engine.close()


def _speed(bundle: Bundle, engine: BatchedEngine, verdict: Verdict) -> float:
    """Tiles/s over full batches; the check itself is the measurement where it took long enough."""
    if verdict.seconds >= TRIAL_SECONDS:
        return verdict.tiles_per_second
    spent, speeds = 0.0, list[float]()
    while spent < TRIAL_SECONDS and len(speeds) < 3:
        speed, seconds = time_engine(bundle, engine)
        speeds.append(speed)
        spent += seconds
    return max(speeds)


def _best(passed: list[Trial]) -> Trial:
    fastest = max(passed, key=lambda trial: trial.speed)
    return passed[0] if fastest.speed < MARGIN * passed[0].speed else fastest


def _why(best: Trial, passed: list[Trial], refused: list[Trial]) -> str:
    ranked = ", ".join(str(trial) for trial in sorted(passed, key=lambda trial: -trial.speed))
    rank = f"fastest of {len(passed)} that passed parity here" if len(passed) > 1 else "the only one that passed parity"
    if len(passed) > 1 and best.speed < max(trial.speed for trial in passed):
        rank = f"as fast as the fastest of {len(passed)} that passed parity here, and the default"
    return f"{rank}: {ranked}" + (f"; not used: {'; '.join(map(str, refused))}" if refused else "")


def _cache_path(
    bundle: Bundle, pairs: list[tuple[str, str | None]], batch: int, threads: int, device: int
) -> Path | None:
    folder = cache_folder("choices", "the engine choice")
    if folder is None:
        return None
    cores = usable_cores()
    return folder / f"{key_of(bundle.sha256, pairs, batch, threads, device, cores, machine_facts())}.json"
