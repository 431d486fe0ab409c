"""The processor of this machine: its name and its instruction sets."""

from __future__ import annotations

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
