"""Slides that a scanner or an archive sends by C-STORE: into a folder that `stamp-deploy watch` looks at.

Only callers that are named may send, and only whole-slide images. A file appears under its name once it is whole, in
FOLDER/SERIES/UID.dcm; the watch takes the slide when its series has settled.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from ..atomic import disk_errors, fsync_path, staging_name, sweep
from ..errors import ArchiveError, UsageError
from .dimse import SUCCESS, SYNTAXES, check_title, take_received
from .reactor_errors import reactor_errors, release
from .received import check_received
from .server import READ_S
from .silence import limit_reads
from .transfer_folder import temporary_files_in
from .uids import WHOLE_SLIDE, is_uid

STAGING = ".receiving"
"""Folder, which a watch passes over, for what is still arriving."""
WAIT_S = 10.0
"""How long a receiver that is stopped waits for what is being sent."""
_OUT_OF_RESOURCES, _NOT_UNDERSTOOD = 0xA700, 0xC000
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Caller:
    """Who may send: an AE title, and the address that it calls from ("" for any)."""

    title: str
    host: str = ""


@dataclass(frozen=True)
class Reception:
    """How slides are received.

    Attributes
    ----------
    folder : Path
        For the slides.
    title : str
        Our AE title; callers must name it.
    callers : tuple of Caller
        Who may send.
    host, port
        Where we listen.
    tls : ssl.SSLContext, optional
    read_s : float
        The longest silence of a caller, in seconds.
    """

    folder: Path
    title: str
    callers: tuple[Caller, ...]
    host: str = "127.0.0.1"
    port: int = 11112
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    read_s: float = READ_S

    def __post_init__(self) -> None:
        check_title(self.title)
        if not self.callers:
            raise UsageError("nobody is allowed to send", remedy="name the scanner or archive with --allow")


class _LateHandshake:
    """TLS whose handshake comes with a connection's first read, in its own thread and within its time limit.

    pynetdicom's would come while the connection is accepted: one caller that says nothing would keep out all others.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, connection: Any, server_side: bool) -> ssl.SSLSocket:
        return self._context.wrap_socket(connection, server_side=server_side, do_handshake_on_connect=False)


def parse_caller(text: str) -> Caller:
    """AETITLE or AETITLE@HOST.

    Raises
    ------
    UsageError
    """
    title, _, host = text.partition("@")
    check_title(title)
    return Caller(title, host)


class Receiver:
    """A running C-STORE service.

    Parameters
    ----------
    how : Reception
    tell : callable
        Told in words what was refused; never by whom or for which patient.

    Raises
    ------
    UsageError
        The port cannot be had.
    DiskError
        The folder cannot be made.
    """

    def __init__(self, how: Reception, tell: Tell = lambda text: None) -> None:
        self._how, self._tell = how, tell
        self.received = 0
        staging = how.folder / STAGING
        with disk_errors(how.folder):
            staging.mkdir(parents=True, exist_ok=True)
        sweep(staging, "*", older_than_s=0)
        entity = AE(ae_title=how.title)
        entity.require_called_aet = True
        entity.require_calling_aet = sorted({caller.title for caller in how.callers})
        entity.supported_contexts = [build_context(Verification), build_context(WHOLE_SLIDE, list(SYNTAXES))]
        entity.network_timeout = how.read_s
        handlers: list[Any] = [
            limit_reads(how.read_s),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REQUESTED, self._requested),
        ]
        self._at_end = ExitStack()
        self._at_end.enter_context(temporary_files_in(staging))
        self._at_end.enter_context(reactor_errors(lambda link: bool(link.is_acceptor), self._not_written))
        tls: Any = None if how.tls is None else _LateHandshake(how.tls)
        try:
            self._server = entity.start_server(
                (how.host, how.port), block=False, ssl_context=tls, evt_handlers=handlers
            )
        except OSError as error:
            self._at_end.close()
            raise UsageError(
                f"port {how.port} cannot be listened on: {os.strerror(error.errno or 0)}",
                remedy="give another --port, or end what listens there",
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def close(self, wait_s: float = WAIT_S) -> None:
        """Take no more callers; those that are at it have some seconds to end, then all connections are cut."""
        if self._server is not None:
            self._server.shutdown()
            until = time.monotonic() + wait_s
            while any(link.is_established for link in self._server.active_associations) and time.monotonic() < until:
                time.sleep(0.05)
            for link in self._server.active_associations:
                release(link)
        self._at_end.close()

    def _requested(self, event: Any) -> None:
        """Turn away a caller that comes from another address than it should."""
        requestor = event.assoc.requestor
        title, host = str(requestor.primitive.calling_ae_title).strip(), str(requestor.address)
        if not any(one.title == title and one.host in ("", host) for one in self._how.callers):
            self._tell("a caller that is not allowed was turned away")
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # permanent, by the service user: calling title unknown
            event.assoc.kill()

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID or "")
        sweep(self._how.folder / STAGING, "*")
        arrived = self._how.folder / STAGING / staging_name("arrived.dcm")
        try:
            take_received(event, arrived)
            return self._keep(arrived, uid)
        except OSError as error:
            self._tell(f"a slide could not be kept: {os.strerror(error.errno or 0)}")
            return _OUT_OF_RESOURCES
        except ArchiveError as error:
            self._tell(f"an instance was refused: {error.cause}")
            return _NOT_UNDERSTOOD
        finally:
            arrived.unlink(missing_ok=True)

    def _not_written(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            self._tell(f"a slide could not be kept: {os.strerror(error.errno or 0)}")
        else:
            self._tell("a caller sent what is no DICOM")

    def _keep(self, arrived: Path, uid: str) -> int:
        """Give a whole level its name; a label or an overview is taken and not kept, since it can show names."""
        found = check_received(arrived, None)
        if found.uid != uid or not is_uid(found.uid) or not is_uid(found.series):
            raise ArchiveError("its UIDs are not those that were announced")
        if not found.is_level:
            return SUCCESS
        final = self._how.folder / found.series / f"{uid}.dcm"
        final.parent.mkdir(exist_ok=True)
        fsync_path(arrived)
        os.replace(arrived, final)
        fsync_path(final.parent)
        self.received += 1
        return SUCCESS
