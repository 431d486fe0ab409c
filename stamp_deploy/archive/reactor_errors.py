"""What ends the thread in which pynetdicom reads: it expects no errors there, and a disk may be full.

The thread would die with a traceback, and whoever waits for the message would wait for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom.dul import DULServiceProvider


@contextmanager
def reactor_errors(is_ours: Callable[[Any], bool], hear: Callable[[BaseException], object]) -> Iterator[None]:
    """Hear of errors that end such threads meanwhile; their connections are closed, and nobody waits for them.

    Parameters
    ----------
    is_ours : callable
        Whether an association is meant.
    hear : callable
        Given the error, in the thread that it ends: an OSError where what arrives cannot be written.
    """
    before = threading.excepthook

    def hook(ended: Any) -> None:
        reactor, error = ended.thread, ended.exc_value
        if error is None or not (isinstance(reactor, DULServiceProvider) and is_ours(reactor.assoc)):
            before(ended)
            return
        hear(error)
        release(reactor.assoc)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def release(link: Any) -> None:
    """Close the connection of an association, and let go who waits for a message."""
    if (connection := link.dul.socket) is not None:
        connection.close()
    link.dimse.msg_queue.put((None, None))
