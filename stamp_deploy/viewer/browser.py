"""Opening the viewer's address in a browser without telling it to others on this machine.

Command lines can be read by every user of a machine, so the browser is given a file that only its owner can read, and
which leads on to the address.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from html import escape
from pathlib import Path

_LEADS_ON = (
    '<!DOCTYPE html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
    '<meta http-equiv="refresh" content="0; url={url}"><title>stamp-deploy</title>'
    '<p><a href="{url}">Open the viewer</a></p>\n'
)


@contextlib.contextmanager
def opened_page(url: str, *, ask: bool) -> Iterator[None]:
    """Open an address in the user's browser while the block runs; nothing where `ask` is false."""
    if not ask:
        yield
        return
    handle, name = tempfile.mkstemp(prefix="stamp-deploy-view-", suffix=".html")  # mode 600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_LEADS_ON.format(url=escape(url)))
        threading.Thread(target=webbrowser.open, args=(Path(name).as_uri(),), daemon=True).start()
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
