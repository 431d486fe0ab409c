"""The processor of this machine: its name, its instruction sets, and how many of its cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Processor:
    """What /proc/cpuinfo says about the first core.

    Attributes
    ----------
    name : str
        The model's name, or the machine's architecture where the system names no model.
    flags : frozenset of str
        Instruction sets, as the kernel spells them: ``avx2``, ``avx512_bf16``, ``amx_tile``. Empty where unknown.
    """

    name: str
    flags: frozenset[str]


@cache
def this_processor() -> Processor:
    """The processor that this process runs on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text)


def parse_cpuinfo(text: str) -> Processor:
    """A `Processor` from the text of /proc/cpuinfo; Arm calls the flags ``Features``."""
    known: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        known.setdefault(key.strip(), value.strip())
    name = known.get("model name") or platform.processor() or platform.machine()
    return Processor(name, frozenset(known.get("flags", known.get("Features", "")).split()))


def usable_cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those that it is bound to, or its container's share of them where that is less.

    A container with a limit of CPU time (``docker run --cpus``, a Kubernetes limit) sees every core, and is stopped for
    the rest of each period once its threads together have used that time. More threads than the limit only wait.

    Parameters
    ----------
    groups : Path
        Where the control groups lie, as the container sees them (version 2, or 1).
    """
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        cores = math.ceil(min(cores, _cpu_time(groups)))
    return max(1, cores)


def _cpu_time(groups: Path) -> float:
    """Seconds of CPU time per second; infinite without a limit."""
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except FileNotFoundError:
        quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
