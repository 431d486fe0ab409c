"""One instance out of an archive, as it is stored, streamed into a file (WADO-RS)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..atomic import disk_errors
from .client import Client
from .parts import DICOM, dicom_pieces

STORED = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
"""As stored: without the last part archives decompress, and send twice the bytes or more."""
PIECE = 1 << 20


def retrieve(client: Client, study: str, series: str, uid: str, path: Path) -> None:
    """Bring an instance into the new file `path`; one attempt. The caller removes a broken file.

    Raises
    ------
    ArchiveError
        The archive fails, or sends something else.
    DiskError
        The file cannot be written.
    """
    address = f"studies/{study}/series/{series}/instances/{uid}"
    headers = {"Accept": STORED, "Accept-Encoding": "identity"}
    with client.open("GET", "the transfer of an instance", address, headers=headers) as answer:
        pieces = dicom_pieces(answer.headers.get("Content-Type", ""), answer.iter_bytes(PIECE))
        with disk_errors(path), path.open("xb") as handle:
            _write(handle.fileno(), client, pieces)


def _write(descriptor: int, client: Client, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        client.check_stop()
        left = memoryview(piece)
        while left:
            left = left[os.write(descriptor, left) :]
