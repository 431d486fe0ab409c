"""Options of the verbs that talk to a DICOMweb archive, and the server that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command import option, together
from .options import PATH

if TYPE_CHECKING:
    from ..archive.client import Client
    from ..archive.pull import Pulled
    from ..archive.push import Keeper

ARCHIVE, TRANSPORT = "Who asks", "Connection"

server_options = together(
    option("--user", default="", group=ARCHIVE,
           help="User name; the password comes from --password-file or $STAMP_ARCHIVE_PASSWORD."),
    option("--password-file", type=PATH, group=ARCHIVE, help="File whose first line is the password."),
    option("--token-file", type=PATH, group=ARCHIVE,
           help="File whose first line is a bearer token; or set $STAMP_ARCHIVE_TOKEN."),
    option("--client-cert", type=PATH, group=ARCHIVE, help="Our certificate (PEM), where the archive asks for one."),
    option("--client-key", type=PATH, group=ARCHIVE, help="Its key (PEM, not encrypted); or it is in --client-cert."),
    option("--ca", type=PATH, group=TRANSPORT,
           help="Certificates (PEM) of the authorities to trust, in place of the system's."),
    option("--connect-timeout", "connect_s", metavar="SECONDS", default=10.0, show_default=True, group=TRANSPORT,
           help="Longest wait for a connection."),
    option("--read-timeout", "read_s", metavar="SECONDS", default=60.0, show_default=True, group=TRANSPORT,
           help="Longest wait for the next byte."),
    option("--plain-http", is_flag=True, group=TRANSPORT,
           help="Allow http:// to other machines: passwords and images can then be read on the way."),
)  # fmt: skip


def take_client(given: dict[str, Any]) -> Client:
    """Take out of what click passed the values of `server_options` and the URL, and make the client of them.

    Raises
    ------
    UsageError
        A file cannot be read, or the address cannot be used.
    """
    from ..archive.client import Client
    from ..archive.server import PASSWORD_VARIABLE, TOKEN_VARIABLE, Server, read_secret

    password_file, token_file = given.pop("password_file"), given.pop("token_file")
    user = given.pop("user")
    fields = ("client_cert", "client_key", "ca", "connect_s", "read_s", "plain_http")
    return Client(
        Server(
            given.pop("archive"),
            user=user,
            password=read_secret(password_file, PASSWORD_VARIABLE) if user else "",
            token="" if user and token_file is None else read_secret(token_file, TOKEN_VARIABLE),
            **{name: given.pop(name) for name in fields},
        )
    )


def say_pulled(got: Pulled) -> None:
    """Print what a pull brought."""
    from ..batch.planning.plan import in_bytes

    levels = f"{len(got.instances)} levels" if len(got.instances) > 1 else "1 level"
    was = f"{got.fetched} fetched, {in_bytes(got.size_bytes)}" if got.fetched else "all here already"
    click.echo(f"slide  {got.folder}: {levels}, {was}")


def push_all(keeper: Keeper, target: Path) -> None:
    """Push a result, or every result of a batch's output, and print what was done.

    An archive that cannot be reached ends it; any other failure is told, and the next result is pushed.

    Raises
    ------
    SystemExit
        With the code of an archive that refuses, where a result failed.
    StampError
    """
    from ..archive.push import push_result
    from ..archive.results import find_results
    from ..errors import ArchiveUnreachable, ExitCode, StampError

    failed = False
    for folder in find_results(target):
        try:
            done = push_result(keeper, folder)
        except ArchiveUnreachable:
            raise
        except StampError as error:
            click.echo(f"stamp-deploy: {folder.name}: {error}", err=True)
            failed = True
            continue
        click.echo(f"result {folder.name}: {done.objects} objects, {done.sent} sent, {done.already} there already")
        if done.corrected:
            click.echo(f"warning {folder.name}: the archive corrected {', '.join(done.corrected)}", err=True)
    if failed:
        raise SystemExit(int(ExitCode.ARCHIVE))
