"""The verb ``view``: results in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, option
from .options import PATH

SHOWN, SERVED = "What is shown", "How it is served"
MIN_TOKEN_CHARS = 20


@click.command(
    cls=Command,
    examples=(
        "view result --slides /data/slides",
        "view results --slides /data/slides --port 8700 --no-browser",
    ),
)
@click.argument("result", metavar="RESULT|OUT", type=PATH)
@option(
    "--slides", type=PATH, multiple=True, group=SHOWN, metavar="FOLDER|FILE",
    help="Where the scored slides lie, with all folders below; may be given again. By default the folder of the "
    "results and the one above.",
)  # fmt: skip
@option(
    "--annotations", type=PATH, group=SHOWN, show_default="annotations, beside the results",
    help="Folder in which annotations are saved.",
)  # fmt: skip
@option("--port", type=click.IntRange(0, 65535), default=0, group=SERVED, show_default="a free one", help="Port.")
@option("--no-browser", is_flag=True, group=SERVED, help="Print the address and open no browser.")
@option(
    "--host", default="127.0.0.1", show_default=True, group=SERVED,
    help="Address to listen at. Any other than this machine's own loopback lets everybody on the network who has the "
    "printed address see results and slides, unencrypted.",
)  # fmt: skip
@option(
    "--public-name", "names", multiple=True, group=SERVED,
    help="Name, with the port where it is not the usual one, under which browsers reach it, such as a proxy's; may be "
    "given again.",
)  # fmt: skip
@option(
    "--token-file", type=PATH, group=SERVED, show_default="a new token each time",
    help="File that holds the token of the address, so that links stay valid.",
)  # fmt: skip
def view(
    result: Path,
    slides: tuple[Path, ...],
    annotations: Path | None,
    port: int,
    no_browser: bool,
    host: str,
    names: tuple[str, ...],
    token_file: Path | None,
) -> None:
    """Show a RESULT, or all of OUT, the folder of a batch, in a browser, until Ctrl-C.

    The slide in deep zoom, maps of pathways and attention over it, two side by side, the highest and lowest tiles,
    figures of drawn areas, annotations for QuPath. Nothing is fetched from anywhere, and only this machine is served.
    """
    from ..viewer.app import ViewerApp
    from ..viewer.browser import opened_page
    from ..viewer.server import LOOPBACK, ViewerServer

    token = "" if token_file is None else _token(token_file)
    app = ViewerApp(result, _existing(slides), annotations)
    server = ViewerServer(app, host, port, names, token)
    try:  # a signal may come as soon as the address is out
        click.echo(f"view    {server.url}")
        if host not in (LOOPBACK, "localhost", "::1"):
            click.echo(
                f"warning --host {host}: everybody on the network who has this address can see the results and slides, "
                "and can save annotations; the connection is not encrypted. Put a proxy with TLS and a login in front.",
                err=True,
            )
        click.echo("stop    Ctrl-C")
        with opened_page(server.url, ask=not no_browser):
            server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        server.server_close()
        app.close()


def _existing(slides: tuple[Path, ...]) -> tuple[Path, ...]:
    from ..errors import UsageError

    for path in slides:
        if not path.exists():
            raise UsageError("no such file or folder", path=path, remedy="name the folder of the slides: --slides")
    return slides


def _token(path: Path) -> str:
    """The token that a file holds.

    Raises
    ------
    UsageError
        It cannot be read, others may read it, or it is no token.
    """
    import re

    from ..errors import UsageError

    try:
        text, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UsageError("the token cannot be read", path=path, remedy="name a readable text file") from error
    if mode & 0o077:
        raise UsageError("others than its owner may read the token", path=path, remedy="chmod 600 the file")
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{MIN_TOKEN_CHARS},200}}", text):
        raise UsageError(
            f"this is no token: letters, digits, - and _, {MIN_TOKEN_CHARS} at least",
            path=path,
            remedy="make one: openssl rand -hex 24",
        )
    return text
