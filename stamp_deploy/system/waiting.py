"""Waits that a signal ends, whichever thread the kernel gives it to.

Python acts on signals in the main thread alone. One that another thread takes does not interrupt the wait of the main
thread, so that a wait without an end would never hear of it.
"""

from __future__ import annotations

import math
import threading
import time

PIECE_S = 0.5


def wait_for(event: threading.Event, seconds: float = math.inf) -> bool:
    """As `threading.Event.wait`, in pieces between which signals are acted on.

    Parameters
    ----------
    event : threading.Event
    seconds : float
        The longest wait.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if event.wait(min(PIECE_S, left)):
            return True
    return event.is_set()
