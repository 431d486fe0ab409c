"""One object into an archive (STOW-RS): streamed, and the answer read for what became of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from ..errors import ArchiveError, ArchiveUnreachable
from .client import DICOM_JSON, Client, read_json
from .parts import DICOM
from .query import first
from .results import ResultObject

PIECE = 1 << 18
"""Bytes of a file that are in memory at once."""
_FAILED, _STORED, _OTHERS = "00081198", "00081199", "0008119A"
_UID, _REASON = "00081155", "00081197"
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_REASONS = {
    0x0110: "it failed while processing it",
    0x0111: "it holds another object under this UID",
    0x0122: "it takes no objects of this kind (SOP class)",
    0x0124: "this account may not store",
    0xC122: "it takes no objects of this transfer syntax",
}


def store(client: Client, result: ResultObject) -> None:
    """Send an object; one attempt. That the archive accepts it does not mean that it keeps it: look afterwards.

    Raises
    ------
    ArchiveUnreachable
        It cannot be reached, or has no room for now; the object may be there or not.
    ArchiveError
        It refuses the object.
    """
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
        "Content-Length": str(len(head) + result.path.stat().st_size + len(tail)),
        "Accept": DICOM_JSON,
    }

    def body() -> Iterator[bytes]:
        yield head
        with result.path.open("rb") as handle:
            while piece := handle.read(PIECE):
                yield piece
        yield tail

    what = "storing a result"
    # 409: nothing of what was sent is kept, and the body says why
    with client.open("POST", what, "studies", headers=headers, content=body(), accept=frozenset({409})) as answer:
        said = read_json(answer, what)
        if isinstance(said, list):  # some archives wrap the data set
            said = said[0] if said else None
        refused = _refused(said if isinstance(said, dict) else {}, result.uid)
        if refused is not None:
            raise refused
        if answer.status_code == 409:
            raise ArchiveError(f"{client.server.host} refuses a result (HTTP 409)", remedy="ask its administrator")


def _refused(said: dict[str, Any], uid: str) -> ArchiveError | None:
    """Why the archive did not take the object; None where it says that it did, or nothing of it."""
    if any(first(item, _UID) == uid for item in _items(said, _STORED)):
        return None
    for item in (*_items(said, _FAILED), *_items(said, _OTHERS)):
        reason = first(item, _REASON)
        number = reason if isinstance(reason, int) else 0
        if number in _OUT_OF_RESOURCES:
            return ArchiveUnreachable(
                f"the archive has no room for a result (reason {number:#06x})", remedy="ask its administrator for space"
            )
        words = _REASONS.get(number, "it cannot use it")
        return ArchiveError(
            f"the archive refuses a result: {words} (reason {number:#06x})", remedy="ask its administrator"
        )
    return None


def _items(said: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = said.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []
