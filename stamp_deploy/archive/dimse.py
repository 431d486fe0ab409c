"""An archive by DIMSE: C-FIND, C-GET and C-STORE, each in an association of its own, for archives without DICOMweb."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    StudyRootQueryRetrieveInformationModelFind as FIND,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as GET,
)

from ..atomic import disk_errors
from ..errors import ArchiveError, ArchiveUnreachable, UsageError
from .reactor_errors import reactor_errors
from .server import CONNECT_S, READ_S, check_timeouts
from .silence import Silence
from .transfer_folder import transfer_folder
from .uids import WHOLE_SLIDE

_config.STORE_SEND_CHUNKED_DATASET = True  # whole slides do not fit into memory
_config.STORE_RECV_CHUNKED_DATASET = True
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
SYNTAXES = (
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2",
)  # fmt: skip
"""Transfer syntaxes of slides, offered each alone, so that the archive sends what it stores."""
SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)


@dataclass(frozen=True)
class Peer:
    """Who is called, and as whom.

    Attributes
    ----------
    called, calling : str
        AE titles of the archive and of this program.
    tls : ssl.SSLContext, optional
    connect_s, read_s : float
        Seconds until an association must stand, and the longest silence.
    """

    host: str
    port: int
    called: str
    calling: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    connect_s: float = CONNECT_S
    read_s: float = READ_S

    def __post_init__(self) -> None:
        check_title(self.called)
        check_title(self.calling)
        check_timeouts(self.connect_s, self.read_s)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.called}@{self.host}:{self.port}"


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT.

    Raises
    ------
    UsageError
        It is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError("the archive's address is not understood", remedy="give HOST:PORT, as pacs.example.org:11112")
    return host.strip("[]"), int(port)


def check_title(title: str) -> None:
    """Refuse what is no AE title.

    Raises
    ------
    UsageError
    """
    if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
        raise UsageError("an AE title is 1 to 16 plain characters", remedy="ask the archive's administrator for it")


def find(peer: Peer, level: str, keys: Mapping[str, str]) -> list[Dataset]:
    """C-FIND: the data sets that match at a level (STUDY, SERIES, IMAGE); one attempt.

    Raises
    ------
    ArchiveUnreachable, ArchiveError
    """
    with _association(peer, [build_context(FIND)]) as link:
        found = []
        for status, row in link.send_c_find(_query(level, keys), FIND):
            code = _code(peer, "a search", status)
            if code in PENDING and row is not None:
                found.append(row)
            elif code not in (SUCCESS, *PENDING):
                raise _refused(peer, "a search", code)
        return found


def get(peer: Peer, sop_class: str, keys: Mapping[str, str], path: Path) -> None:
    """C-GET of one instance into a new file; one attempt.

    Raises
    ------
    ArchiveUnreachable, ArchiveError
    DiskError
        It cannot be written.
    """
    trouble: list[OSError] = []

    def keep(event: evt.Event) -> int:
        try:
            take_received(event, path)
        except OSError as error:
            trouble.append(error)
            return 0xA700
        return SUCCESS

    kind = sop_class or WHOLE_SLIDE
    contexts = [build_context(GET), *(build_context(kind, syntax) for syntax in SYNTAXES)]
    roles = [build_role(kind, scp_role=True)]
    with transfer_folder(path), _association(peer, contexts, roles, [(evt.EVT_C_STORE, keep)], trouble) as link:
        for status, _ in link.send_c_get(_query("IMAGE", keys), GET):
            code = _code(peer, "the transfer of an instance", status)
            if code not in (SUCCESS, *PENDING) and not trouble:
                raise _refused(peer, "the transfer of an instance", code)
    if trouble:
        with disk_errors(path):
            raise trouble[0]
    if not path.exists():
        raise ArchiveError(f"{peer.name} sends nothing for an instance that it lists", remedy="ask its administrator")


def store(peer: Peer, sop_class: str, syntax: str, path: Path) -> None:
    """C-STORE of one file; one attempt.

    Raises
    ------
    ArchiveUnreachable, ArchiveError
    """
    with _association(peer, [build_context(sop_class, syntax)]) as link:
        code = _code(peer, "storing a result", link.send_c_store(path))
    if code in _OUT_OF_RESOURCES:
        raise ArchiveUnreachable(f"{peer.name} has no room for a result ({code:#06x})", remedy="ask its administrator")
    if code != SUCCESS and code not in _WARNINGS:
        raise _refused(peer, "a result", code)


def take_received(event: evt.Event, path: Path) -> None:
    """Put what a C-STORE brought into a new file, by a link where it lies on the same disk.

    Raises
    ------
    OSError
        It cannot be written.
    """
    arrived = event.dataset_path
    try:
        os.link(arrived, path)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(arrived, path)
    finally:
        arrived.unlink(missing_ok=True)


@contextmanager
def _association(
    peer: Peer,
    contexts: Sequence[Any],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
    trouble: list[OSError] | None = None,
) -> Iterator[Any]:
    """An association; errors of our own disk are put into `trouble` and not raised."""
    entity = AE(ae_title=peer.calling)
    entity.connection_timeout = entity.acse_timeout = peer.connect_s
    entity.network_timeout = peer.read_s
    entity.dimse_timeout = None  # a message may take as long as it needs: silence is what has a limit
    silence = Silence(peer.read_s)
    link = entity.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.called,
        ext_neg=list(roles),
        evt_handlers=[*silence.handlers, *handlers],
        tls_args=None if peer.tls is None else (peer.tls, peer.host),
    )
    ended: list[BaseException] = []
    try:
        if not link.is_established:
            if link.is_rejected:
                raise ArchiveError(
                    f"{peer.name} rejects {peer.calling}",
                    remedy="have this AE title, host and port entered there, and check the archive's own AE title",
                )
            raise ArchiveUnreachable(
                f"{peer.name} cannot be reached, or speaks no DICOM there",
                remedy="check host, port and TLS, and that it runs",
            )
        if not [one for one in link.accepted_contexts if one.abstract_syntax not in (FIND, GET)] and len(contexts) > 1:
            raise ArchiveError(f"{peer.name} sends no whole-slide images by C-GET", remedy="use DICOMweb, or C-STORE")
        with reactor_errors(lambda one: one is link, ended.append):
            yield link
    except ValueError as error:  # no context was accepted
        raise ArchiveError(f"{peer.name} does not offer this service", remedy="ask its administrator") from error
    except ArchiveUnreachable:
        if not ended:
            raise
        if trouble is None or not isinstance(ended[0], OSError):
            raise ArchiveError(f"{peer.name} sends what is no DICOM", remedy="ask its administrator") from ended[0]
        trouble.append(ended[0])
    finally:
        if link.is_established:
            link.release()
        silence.end()


def _query(level: str, keys: Mapping[str, str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _code(peer: Peer, what: str, status: Dataset) -> int:
    """The status of an answer.

    Raises
    ------
    ArchiveUnreachable
        There is none: the association ended, or the archive fell silent.
    """
    if "Status" not in status:
        raise ArchiveUnreachable(
            f"{peer.name} fell silent, or ended the association, during {what}", remedy="run the same command again"
        )
    return int(status.Status)


def _refused(peer: Peer, what: str, code: int) -> ArchiveError:
    return ArchiveError(f"{peer.name} refuses {what} (status {code:#06x})", remedy="ask its administrator")
