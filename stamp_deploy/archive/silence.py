"""How long an association may be silent, whatever the size of what it carries.

pynetdicom's own limits are of other things: a whole message must arrive within the DIMSE time-out, and the levels of a
slide are messages of gigabytes; and for the rest of a part of a message it waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

from .reactor_errors import release

Handler = tuple[Any, Callable[[evt.Event], None]]


def limit_reads(seconds: float) -> Handler:
    """An event handler that ends a connection whose peer falls silent within a part of a message."""

    def limit(event: evt.Event) -> None:
        connection = event.assoc.dul.socket
        if connection is not None and connection.socket is not None:
            connection.socket.settimeout(seconds)

    return evt.EVT_CONN_OPEN, limit


class Silence:
    """Cuts the connection of one association after some seconds in which nothing came and nothing went.

    Parameters
    ----------
    seconds : float
        The longest silence.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()
        self._over = threading.Event()

    @property
    def handlers(self) -> list[Handler]:
        """For the association, beside its own."""
        heard = [(event, self._note) for event in (evt.EVT_DATA_RECV, evt.EVT_DATA_SENT)]
        return [limit_reads(self._seconds), (evt.EVT_CONN_OPEN, self._watch), *heard]

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _note(self, event: evt.Event) -> None:
        self._last = time.monotonic()

    def _watch(self, event: evt.Event) -> None:
        self._note(event)
        threading.Thread(target=self._cut_when_silent, args=(event.assoc,), daemon=True).start()

    def _cut_when_silent(self, link: Any) -> None:
        while (left := self._last + self._seconds - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        release(link)
