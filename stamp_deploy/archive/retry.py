"""Try again what failed for a while: exponential back-off with full jitter, so that clients do not return at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import ArchiveUnreachable

Answer = TypeVar("Answer")
LONGEST_ASKED_S = 300.0
"""An archive that asks to wait longer is given up: the command ends with "try again"."""


@dataclass(frozen=True)
class Retry:
    """How often, and after how long.

    Attributes
    ----------
    attempts : int
        Tries in all.
    first_s, most_s : float
        The first pause is up to `first_s` seconds, each further one up to twice as long, none longer than `most_s`.
    sleep : callable
        Waits; raises, or returns at once, where the work is to end.
    chance : callable
        A number from 0 to 1.
    """

    attempts: int = 5
    first_s: float = 0.5
    most_s: float = 30.0
    sleep: Callable[[float], object] = time.sleep
    chance: Callable[[], float] = field(default=random.random)

    def pause_s(self, failures: int, asked_s: float = 0.0) -> float:
        """Seconds to wait after so many failures, at least as long as the archive asks for."""
        ceiling = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return max(asked_s, self.chance() * ceiling)

    def call(self, work: Callable[[], Answer]) -> Answer:
        """What `work` gives; it is called again after an `ArchiveUnreachable`.

        Raises
        ------
        ArchiveUnreachable
            That of the last try.
        """
        failures = 0
        while True:
            try:
                return work()
            except ArchiveUnreachable as error:
                failures += 1
                if failures >= self.attempts or error.retry_after_s > LONGEST_ASKED_S:
                    raise
                self.sleep(self.pause_s(failures, error.retry_after_s))
