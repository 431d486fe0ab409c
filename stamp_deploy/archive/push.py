"""Results into an archive: each object once, and looked at afterwards.

An archive that answers success may have kept an older object under the same UID, or nothing. So each object is looked
up first, sent only where it is missing, and then fetched back and compared.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import ArchiveError, ArchiveUnreachable
from .client import Client
from .kept_copy import difference
from .query import find_object
from .results import ResultObject, result_objects
from .retrieve import retrieve
from .retry import Retry
from .stow import store

Place = tuple[str, str]
"""Study and series."""


@dataclass(frozen=True)
class Pushed:
    """What a push found and did, in objects.

    Attributes
    ----------
    sent, already : int
        Sent now; there before, the same.
    corrected : tuple of str
        Attributes of the patient or case that the archive keeps otherwise, by name.
    """

    sent: int
    already: int
    corrected: tuple[str, ...]

    @property
    def objects(self) -> int:
        """All of them: the archive keeps each, as far as it says."""
        return self.sent + self.already


class Keeper(Protocol):
    """An archive, as a push uses it; each call is one attempt."""

    @property
    def host(self) -> str:
        """Its name, for messages."""
        ...

    @property
    def retry(self) -> Retry:
        """How often something is tried."""
        ...

    def find(self, one: ResultObject) -> Place | None:
        """Where it keeps the object; None where it does not."""
        ...

    def fetch(self, one: ResultObject, place: Place, path: Path) -> None:
        """Bring its copy into a new file."""
        ...

    def send(self, one: ResultObject) -> None:
        """Store the object in it."""
        ...


class WebKeeper:
    """An archive by DICOMweb."""

    def __init__(self, client: Client) -> None:
        self._client = client.once()
        self.host, self.retry = client.server.host, client.retry

    def find(self, one: ResultObject) -> Place | None:
        return find_object(self._client, one.uid)

    def fetch(self, one: ResultObject, place: Place, path: Path) -> None:
        retrieve(self._client, *place, one.uid, path)

    def send(self, one: ResultObject) -> None:
        store(self._client, one)


def push_result(keeper: Keeper, result: Path) -> Pushed:
    """Bring the DICOM objects of a result into an archive that lacks them.

    Raises
    ------
    ArchiveUnreachable
        The archive cannot be reached, also after retries; what it took stays, and the next push goes on from there.
    ArchiveError
        It refuses an object, does not keep it, or keeps another one under its UID.
    DataError, UsageError
        The result was changed, or has no DICOM objects.
    """
    sent, already, corrected = 0, 0, dict[str, None]()
    for one in result_objects(result):
        was_there, names = push_object(keeper, one)
        sent, already = sent + (not was_there), already + was_there
        corrected.update(dict.fromkeys(names))
    return Pushed(sent, already, tuple(corrected))


def push_object(keeper: Keeper, one: ResultObject) -> tuple[bool, tuple[str, ...]]:
    """(whether the archive had it before, attributes that it keeps otherwise).

    Raises
    ------
    ArchiveError
        As `push_result`.
    """
    kept = keeper.retry.call(partial(_kept, keeper, one))
    if kept is not None:
        return True, kept
    keeper.retry.call(partial(_send, keeper, one))
    return False, keeper.retry.call(partial(_kept_now, keeper, one))


def _send(keeper: Keeper, one: ResultObject) -> None:
    """Send it, unless an attempt before, which seemed to fail, has brought it there."""
    if keeper.find(one) is None:
        keeper.send(one)


def _kept_now(keeper: Keeper, one: ResultObject) -> tuple[str, ...]:
    """As `_kept`, of an object that was just accepted; some archives list it a moment later."""
    kept = _kept(keeper, one)
    if kept is None:
        raise ArchiveUnreachable(
            f"{keeper.host} accepted a result but does not list it",
            remedy="push again later; if it stays so, the archive loses what it accepts",
            path=one.path,
        )
    return kept


def _kept(keeper: Keeper, one: ResultObject) -> tuple[str, ...] | None:
    """Attributes that the archive's copy has otherwise, by name; None where it has no copy.

    Raises
    ------
    ArchiveError
        Its copy is another object.
    """
    place = keeper.find(one)
    if place is None:
        return None
    with tempfile.TemporaryDirectory(prefix="stamp-archive-") as folder:
        copy = Path(folder) / "copy.dcm"
        keeper.fetch(one, place, copy)
        found = difference(one.path, copy)
    if found.others:
        names = ", ".join(found.others[:3]) + (f" and {len(found.others) - 3} more" if len(found.others) > 3 else "")
        raise ArchiveError(
            f"the archive keeps another object under this UID: {names} differ",
            path=one.path,
            remedy="find out who stored it; nothing was sent, and an archive never holds two contents under one UID",
        )
    return found.corrected
