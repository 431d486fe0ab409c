"""Site acceptance: does this machine, with its engines and driver, say what the bundle's maker saw?

`check_site` runs the golden tiles through every engine asked for, slide-level heads included, and gives a record that
can be signed. docs/parity.md explains the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .. import provenance
from ..atomic import write_json_atomic, write_text_atomic
from ..bundle import Bundle
from ..bundle.signature import sign_file
from ..engine import open_engine
from ..engine.attention_layers import in_words
from ..engine.auto import candidates
from ..engine.base import BatchedEngine
from ..engine.cuda import visible_gpus
from ..engine.parity import StageReport, to_table
from ..engine.registry import REMOTE, precisions_of
from ..engine.tensorrt_plan import check_flavour, default_precision, get_plan
from ..engine.verdict import accept_a_form
from ..errors import EngineError, ParityError, StampError
from ..system.processor import this_processor, usable_cores

SCHEMA = "stamp-deploy/acceptance"


@dataclass(frozen=True)
class Site:
    """What was found on this machine.

    Attributes
    ----------
    reports : list of StageReport
        One an engine and precision, golden tiles against it.
    speed : dict of str to float
        Tiles/s of each over full batches of the golden tiles, first pass, transfers included.
    absent : dict of str to str
        Engines that cannot be loaded here, and why.
    """

    bundle: Bundle
    reports: list[StageReport]
    speed: dict[str, float]
    absent: dict[str, str]
    signed_off_by: str
    checked_utc: str

    @property
    def passed(self) -> bool:
        """Whether there was an engine, and every one reproduced the golden outputs in some precision."""
        return bool(self.reports) and not self._unusable()

    def _unusable(self) -> list[StageReport]:
        """First reports of the engines that failed in every precision; what fails in one only is never used in it."""
        usable = {report.details["engine"] for report in self.reports if report}
        first = {report.details["engine"]: report for report in reversed(self.reports)}
        return [report for name, report in first.items() if name not in usable]

    def raise_if_failed(self) -> None:
        """Stop with exit code 5 when the machine is not accepted.

        Raises
        ------
        ParityError
            Naming the first engine that failed in every precision tried.
        """
        for report in self._unusable():
            report.raise_if_failed()
        if not self.reports:
            raise ParityError("no engine can be loaded on this machine", remedy="see `stamp-deploy doctor`")

    def to_dict(self) -> dict[str, Any]:
        """The record, as JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": 1,
            "passed": self.passed,
            "checked_utc": self.checked_utc,
            "signed_off_by": self.signed_off_by,
            "bundle": {"name": self.bundle.name, "sha256": self.bundle.sha256, "precision": self.bundle.precision},
            "machine": machine(),
            "engines": [{**r.to_dict(), "tiles_per_second": self.speed[r.stage]} for r in self.reports],
            "engines_absent": self.absent,
            "research_use": provenance.RESEARCH_USE,
        }


def check_site(
    bundle: Bundle,
    engines: tuple[str, ...] = (),
    *,
    precision: str | None = None,
    batch: int = 16,
    device: int = 0,
    url: str | None = None,
    signed_off_by: str = "",
) -> Site:
    """Run the golden tiles through engines of this machine, in each precision that `infer` would choose from.

    Parameters
    ----------
    engines : tuple of str
        Names; by default, or for "auto", every engine that is installed. Those named must load; others may be absent.
    url : str, optional
        The address of a Triton server, where ``triton`` is the engine.

    Raises
    ------
    EngineError
        An engine that was named cannot be loaded.
    """
    reports: list[StageReport] = []
    speed: dict[str, float] = {}
    absent: dict[str, str] = {}
    engines = () if "auto" in engines else engines
    if url is not None and REMOTE not in engines:
        raise EngineError("--url names a server that no engine asks", remedy=f"add --engine {REMOTE}")
    for name in engines or candidates():
        for wanted in precisions_of(bundle, name, precision):
            again = partial(
                open_engine,
                bundle,
                name,
                batch=batch,
                precision=wanted,
                device=device,
                url=url if name == REMOTE else None,
            )
            try:
                engine = again()
            except StampError as error:
                if engines:
                    raise
                absent[name] = error.cause
                continue
            report, rate = _check(bundle, engine, again)
            reports.append(report)
            speed[report.stage] = rate
    return Site(bundle, reports, speed, absent, signed_off_by, datetime.now(UTC).isoformat(timespec="seconds"))


def _check(bundle: Bundle, engine: BatchedEngine, again: Callable[[], BatchedEngine]) -> tuple[StageReport, float]:
    """The numbers of an engine, checked again, and its tiles/s; the verdict is remembered for `infer` and `batch`.

    Where a form of the graph fails and another follows, `again` opens the engine with that one.
    """
    engine, verdict = accept_a_form(bundle, engine, again, anew=True)
    engine.close()
    assert verdict.report is not None
    return verdict.report, verdict.tiles_per_second


def machine() -> dict[str, Any]:
    """This machine, without its name or its users'."""
    return {
        **provenance.software(),
        "processor": this_processor().name,
        "cores": usable_cores(),
        "gpus": [f"{gpu.name}, compute {gpu.capability}, driver CUDA {gpu.driver}" for gpu in visible_gpus()],
    }


def table(site: Site) -> str:
    """The record for people."""
    facts = machine()
    lines = [
        f"bundle     {site.bundle.name} {site.bundle.precision}, {site.bundle.sha256}",
        f"machine    {facts['processor']}, {facts['cores']} cores; GPU: {', '.join(facts['gpus']) or 'none'}",
        f"checked    {site.checked_utc}" + (f", signed off by {site.signed_off_by}" if site.signed_off_by else ""),
        "",
        to_table(site.reports),
        "",
        *(f"{report.stage}: {site.speed[report.stage]:.3g} tiles/s" for report in site.reports),
        *(f"{name}: not available here ({why})" for name, why in site.absent.items()),
        "",
        f"verdict    {'ACCEPTED' if site.passed else 'NOT ACCEPTED'}",
    ]
    return "\n".join(lines)


def write_record(site: Site, path: Path, key: Path | None = None) -> None:
    """Write the record as JSON, the table beside it as .txt, and with a key the signature as FILE.sig.

    Raises
    ------
    DiskError
        The files cannot be written.
    UsageError
        The key is no Ed25519 private key.
    """
    write_json_atomic(path, json.loads(json.dumps(site.to_dict())))
    write_text_atomic(path.with_suffix(".txt"), table(site) + "\n")
    if key is not None:
        sign_file(path, key)


def build_engine(bundle: Bundle, flavour: str, *, precision: str | None, batch: int, device: int) -> str:
    """Build a TensorRT plan for this machine and accept it; says what happened.

    Raises
    ------
    EngineError
        The library is missing, refuses the encoder, or needs a GPU that is not there.
    ParityError
        The plan does not reproduce the golden outputs; it has been deleted.
    """
    check_flavour(flavour)
    wanted = precision or default_precision(bundle)
    if not visible_gpus():
        if flavour != "tensorrt-rtx":
            raise EngineError(
                "no GPU can be seen, and TensorRT builds for the GPU that it runs on",
                remedy="build on the machine that is to run it",
            )
        plan = get_plan(bundle.for_engine(flavour, wanted), flavour, None, batch=batch, precision=wanted)
        size, attention = len(plan.data) / 1e6, in_words(plan.facts["attention"])
        return (
            f"built   {flavour} {wanted}, batch {batch}, {size:.1f} MB, attention {attention}; not checked and not "
            "used: no GPU here"
        )
    again = partial(open_engine, bundle, flavour, batch=batch, precision=wanted, device=device)
    engine = again()
    report, speed = _check(bundle, engine, again)
    report.raise_if_failed()
    attention = engine.info.details["attention"]
    return (
        f"{to_table([report])}\nbuilt   {flavour} {wanted} on {engine.info.device}, attention {attention}, accepted; "
        f"{speed:.3g} tiles/s"
    )
