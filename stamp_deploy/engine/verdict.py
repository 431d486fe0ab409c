"""The verdict of parity on an engine: given once per machine, remembered, and the same for everyone who asks.

`auto`, an engine named by hand, `stamp-deploy parity` and a batch halved in the middle of a slide all ask `accept`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ParityError
from .cache import cache_folder, key_of, read_entry, write_entry
from .golden import time_and_check
from .machine import machine_facts
from .parity import StageReport
from .tolerances import TOLERANCES

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .base import BatchedEngine

VERSION = 1
"""Part of the key: raise it when the check changes in a way that the tolerances do not show."""
_uncached: dict[str, Verdict] = {}
"""Verdicts of this process, where there is no cache to keep them in."""
EXPIRES_S = 24 * 3600.0
"""A refusal is tried again after this long: what was in the way may have passed."""


@dataclass(frozen=True)
class Verdict:
    """What parity said of an engine.

    Attributes
    ----------
    failures : tuple of str
        What is out of tolerance; empty where the engine is accepted.
    tiles_per_second, seconds : float
        Over the full batches of the check, the first of the engine's life.
    report : StageReport, optional
        All numbers, where the check was made just now; None where it is remembered.
    another_form : bool
        Whether the engine, opened again, would run the encoder's graph in another form, which may pass.
    """

    failures: tuple[str, ...]
    tiles_per_second: float
    seconds: float
    report: StageReport | None = None
    another_form: bool = False

    def __bool__(self) -> bool:
        return not self.failures


def accept(bundle: Bundle, engine: BatchedEngine, *, anew: bool = False) -> Verdict:
    """Hold an engine to the golden tiles, unless this machine has done so before, and tell the engine.

    An engine that fails is closed, and what this machine compiled for it is deleted. One that passes is given its
    gate: what it has to compile again while it scores is held to the same tiles.

    Parameters
    ----------
    anew : bool
        Check even where a verdict is remembered.

    Raises
    ------
    StampError
        The engine fails to run, or the golden tiles cannot be read; the engine is closed.
    """
    engine.gate = None  # what is compiled again during the check is judged by the check itself
    verdict = _remembered(bundle, engine) if engine.remembers and not anew else None
    if verdict is None:
        verdict = _check(bundle, engine)
        if engine.remembers:
            _remember(bundle, engine, verdict)
    if verdict:
        engine.accept()
        engine.gate = partial(_gate, bundle)
    else:
        engine.close()
        verdict = replace(verdict, another_form=engine.reject())
    return verdict


def accept_a_form(
    bundle: Bundle, engine: BatchedEngine, again: Callable[[], BatchedEngine], *, anew: bool = False
) -> tuple[BatchedEngine, Verdict]:
    """`accept`; where a form of the graph fails and another follows, of the engine that `again` opens with that one."""
    while True:
        verdict = accept(bundle, engine, anew=anew)
        if not verdict.another_form:
            return engine, verdict
        engine = again()


def _check(bundle: Bundle, engine: BatchedEngine) -> Verdict:
    """The check itself, again where the batch was halved on the way: what was compiled last is what will score."""
    try:
        while True:
            piece = engine.piece
            report, speed, seconds = time_and_check(bundle, engine)
            if engine.piece == piece:
                return Verdict(report.failures, speed, seconds, report)
    except BaseException:
        engine.close()
        raise


def _gate(bundle: Bundle, engine: BatchedEngine) -> None:
    verdict = accept(bundle, engine)
    if not verdict:
        info = engine.info
        raise ParityError(
            f"{info.name} {info.precision} had to be compiled again for smaller batches ({info.details['batch']}), and "
            f"what came out does not reproduce the golden outputs: {'; '.join(verdict.failures)}",
            remedy="use a smaller --batch, or another --engine",
        )


def _key(bundle: Bundle, engine: BatchedEngine) -> str:
    """All that the engine is made of, here."""
    info = engine.info
    tolerance = asdict(TOLERANCES[info.precision])
    engine_facts = (info.name, info.version, info.device, info.precision, engine.compiled, engine.piece)
    return key_of(VERSION, bundle.sha256, tolerance, engine_facts, machine_facts())


def _folder() -> Path | None:
    """Where verdicts are kept; None where there is no cache that can be used."""
    return cache_folder("verdicts", "verdicts of parity")


def _remembered(bundle: Bundle, engine: BatchedEngine) -> Verdict | None:
    key, folder = _key(bundle, engine), _folder()
    if folder is None:
        return _uncached.get(key)
    entry = read_entry(folder / f"{key}.json")
    if entry is None:
        return None
    try:
        age = time.time() - float(entry["checked_unix"])
        verdict = Verdict(tuple(entry["failures"]), float(entry["tiles_per_second"]), float(entry["seconds"]))
    except (KeyError, TypeError, ValueError):
        return None
    return verdict if verdict or 0 <= age < EXPIRES_S else None


def _remember(bundle: Bundle, engine: BatchedEngine, verdict: Verdict) -> None:
    key, folder = _key(bundle, engine), _folder()
    if folder is None:
        _uncached[key] = replace(verdict, report=None)
        return
    info = engine.info
    kept = {
        "bundle": bundle.sha256,
        "engine": f"{info.name} {info.version} {info.precision} on {info.device}",
        "failures": list(verdict.failures),
        "tiles_per_second": verdict.tiles_per_second,
        "seconds": verdict.seconds,
        "checked_unix": time.time(),
    }
    write_entry(folder / f"{key}.json", kept)
