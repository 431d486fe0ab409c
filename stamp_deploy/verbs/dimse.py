"""The verbs ``dimse pull``, ``dimse push`` and ``dimse receive``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command import Command, option, together
from ..errors import UsageError
from ..system.waiting import wait_for
from .archive_options import push_all, say_pulled
from .batch import call_on_signals
from .options import OUTPUT, PATH

if TYPE_CHECKING:
    from ..archive.dimse import Peer

WHICH, PARTIES, CONNECTION = "Which slides", "Who calls whom", "Connection"
PORT = 11112

_peer_options = together(
    option("--called", default="ANY-SCP", show_default=True, group=PARTIES, help="AE title of the archive."),
    option("--calling", default="STAMP", show_default=True, group=PARTIES,
           help="Our AE title, as it is entered in the archive."),
    option("--tls", is_flag=True, group=CONNECTION, help="Speak TLS; --ca and --client-cert do so, too."),
    option("--ca", type=PATH, group=CONNECTION,
           help="Certificates (PEM) of the authorities to trust, in place of the system's."),
    option("--client-cert", type=PATH, group=CONNECTION, help="Our certificate and its key (PEM)."),
    option("--connect-timeout", "connect_s", metavar="SECONDS", default=10.0, show_default=True, group=CONNECTION,
           help="Longest wait for an association."),
    option("--read-timeout", "read_s", metavar="SECONDS", default=60.0, show_default=True, group=CONNECTION,
           help="Longest wait for the next byte."),
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dimse() -> None:
    """Slides and results by DIMSE, for archives without DICOMweb; a receiver of slides."""


@dimse.command(
    cls=Command,
    short_help="Fetch slides by C-FIND and C-GET.",
    examples=("dimse pull pacs.example.org:11112 --called PACS --accession S26-1234 -o slides",),
)
@click.argument("archive", metavar="HOST:PORT")
@option("--accession", default="", group=WHICH, help="Accession number of the case.")
@option("--study", default="", group=WHICH, help="Study Instance UID.")
@option("--series", default="", group=WHICH, help="Series Instance UID, together with --accession or --study.")
@_peer_options
@option("-o", "--out", type=PATH, required=True, group=OUTPUT, help="Folder for the slides, each in OUT/SERIES/.")
def pull(out: Path, accession: str, study: str, series: str, **rest: Any) -> None:
    """Find slides by C-FIND and fetch them by C-GET from the archive at HOST:PORT.

    As `dicomweb pull`: the stored levels are fetched unchanged and checked; what is here already is not fetched again.
    """
    from ..archive.dimse_archive import find_series, pull_series
    from ..archive.retry import Retry
    from ..archive.uids import given_key, given_uid

    wanted = {
        "accession": accession and given_key(accession, "accession number"),
        "study": study and given_uid(study, "study"),
        "series": series and given_uid(series, "series"),
    }
    if not any(wanted.values()):
        raise UsageError("nothing says which slides are wanted", remedy="give --accession or --study")
    peer, retry = _take_peer(rest), Retry()
    rows = find_series(peer, retry, **wanted)
    if not rows:
        raise UsageError("the archive holds no slide that fits", remedy="check the numbers, letter by letter")
    for row in rows:
        say_pulled(pull_series(peer, retry, row, out))


@dimse.command(
    cls=Command,
    short_help="Store results by C-STORE.",
    examples=("dimse push results pacs.example.org:11112 --called PACS --calling STAMP",),
)
@click.argument("result", type=PATH)
@click.argument("archive", metavar="HOST:PORT")
@_peer_options
def push(result: Path, **rest: Any) -> None:
    """Store the DICOM objects of RESULT, or of every result in a batch's output, by C-STORE.

    As `dicomweb push`: each object is looked up first, sent only where it is missing, then fetched back by C-GET and
    compared.
    """
    from ..archive.dimse_archive import DimseKeeper
    from ..archive.retry import Retry

    push_all(DimseKeeper(_take_peer(rest), Retry()), result)


@dimse.command(
    cls=Command,
    short_help="Receive slides by C-STORE into a folder.",
    examples=("dimse receive incoming --title STAMP --allow SCANNER1@10.1.2.3 --host 10.1.2.4",),
)
@click.argument("folder", type=PATH)
@option("--title", default="STAMP", show_default=True, group=PARTIES, help="Our AE title, which callers must name.")
@option(
    "--allow",
    multiple=True,
    metavar="AETITLE[@ADDRESS]",
    group=PARTIES,
    help="Who may send: an AE title, safer with the address that it calls from. May be repeated.",
)
@option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    group=CONNECTION,
    help="Address to listen on; 0.0.0.0 is every network of this machine.",
)
@option("--port", default=PORT, show_default=True, group=CONNECTION, help="Port to listen on.")
@option("--tls-cert", type=PATH, group=CONNECTION, help="Speak TLS with this certificate and key (PEM).")
@option(
    "--ca", type=PATH, group=CONNECTION, help="With --tls-cert: ask callers for a certificate of these authorities."
)
def receive(
    folder: Path, title: str, allow: tuple[str, ...], host: str, port: int, tls_cert: Path | None, ca: Path | None
) -> None:
    """Take slides that are sent by C-STORE into FOLDER, for `stamp-deploy watch FOLDER`. Stop it with SIGTERM."""
    from ..archive.receiver import Receiver, Reception, parse_caller
    from ..archive.server import listening_tls

    if ca is not None and tls_cert is None:
        raise UsageError("--ca asks callers for certificates, and there is no TLS", remedy="add --tls-cert")
    tls = None if tls_cert is None else listening_tls(tls_cert, ca)
    how = Reception(folder, title, tuple(map(parse_caller, allow)), host, port, tls)
    stopped = threading.Event()
    call_on_signals(stopped.set)
    receiver = Receiver(how, lambda text: click.echo(f"warning {text}", err=True))
    try:
        click.echo(f"listening  {title} on {host}:{receiver.port}")
        wait_for(stopped)
    finally:
        receiver.close()
    click.echo(f"stopped    {receiver.received} instances received")


def _take_peer(given: dict[str, Any]) -> Peer:
    """The archive that the options describe.

    Raises
    ------
    UsageError
    """
    from ..archive.dimse import Peer, parse_address
    from ..archive.server import calling_tls

    host, port = parse_address(given.pop("archive"))
    ca, cert = given.pop("ca"), given.pop("client_cert")
    tls = calling_tls(ca, cert, None) if given.pop("tls") or ca is not None or cert is not None else None
    return Peer(host, port, tls=tls, **given)
