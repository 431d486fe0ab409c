"""The HTTP server of the viewer: who may ask, what the browser may do with the answer, and no word in the log.

An address must carry the token, and name this machine: a page of another site that makes the browser come here (DNS
rebinding, cross-site requests) knows neither. The answers forbid the page everything but itself (Content Security
Policy Level 3), and the browser to keep slides on its disk.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import UsageError
from ..system import log
from .answers import Answer, error_answer
from .app import ViewerApp

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
TOKEN_BYTES = 24
MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 64
IDLE_S = 60.0
NO_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""The hash of nothing: allows the page's one empty style element (see index.html)."""
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {NO_STYLE}; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
ICON = "/favicon.ico"


class ViewerServer(socketserver.ThreadingMixIn, HTTPServer):
    """Serves a `ViewerApp` until `shutdown`.

    Parameters
    ----------
    app : ViewerApp
    host : str
        Address to listen at; `LOOPBACK` is heard by this machine alone.
    port : int
        0 takes a free one.
    names : tuple of str
        Further names under which browsers reach it, such as a proxy's.
    token : str, optional
        What addresses must carry; by default a new random one.

    Raises
    ------
    UsageError
        The port is taken, or the address is not one of this machine.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, app: ViewerApp, host: str = LOOPBACK, port: int = 0, names: tuple[str, ...] = (), token: str = ""
    ) -> None:
        self.app = app
        self.token = token or secrets.token_urlsafe(TOKEN_BYTES)
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), ViewerHandler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen at port {port} of {host}: {getattr(error, 'strerror', None) or error}",
                remedy="name another one with --port; --port 0 takes a free one",
            ) from error
        self.hosts = self._host_headers(host, names)

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = str(self.server_address[0])
        if host in ("0.0.0.0", "::"):
            host = LOOPBACK if host == "0.0.0.0" else "::1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/{self.token}/"

    def _host_headers(self, host: str, names: tuple[str, ...]) -> frozenset[str]:
        """What a Host header may say: a name with the port, or without where it is a proxy's."""
        own = f"[{host}]" if ":" in host else host
        with_port = {f"{name}:{self.server_port}" for name in (*LOCAL_NAMES, own, *names)}
        bare = {*names, *((*LOCAL_NAMES, own) if self.server_port == 80 else ())}
        return frozenset(name.lower() for name in with_port | bare)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, and no more than `MAX_CONNECTIONS`."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error; what is one, is logged by its kind alone."""
        import sys

        log.event("viewer_request_failed", error=type(sys.exc_info()[1]).__name__)


class ViewerHandler(BaseHTTPRequestHandler):
    """One connection."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stamp-deploy", ""
    timeout = IDLE_S
    disable_nagle_algorithm = True
    wbufsize = 64 << 10  # head and body leave together

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token and names of slides."""

    def _serve(self) -> None:
        began = time.monotonic()
        try:
            answer = self._answer()
        except Exception as error:
            log.event("viewer_failed", error=type(error).__name__)
            self.close_connection = True
            answer = error_answer(500, f"this is a fault of the viewer: {type(error).__name__}", "please report it")
        self._send(answer)
        log.event("viewer_request", level=10, status=answer.status, seconds=round(time.monotonic() - began, 4))

    def _answer(self) -> Answer:
        body = self._body()
        if isinstance(body, Answer):
            return body
        host = self.headers.get("Host", "")
        if host.lower() not in self.server.hosts:
            return error_answer(
                403, "this address is not one of the viewer's", "open the address that `stamp-deploy view` printed"
            )
        path = urlsplit(self.path).path
        if path == ICON:
            return self.server.app.get(("static", "favicon.svg"))
        first, slash, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode(), self.server.token.encode()):
            return error_answer(403, "the token is missing", "open the address that `stamp-deploy view` printed")
        if not slash:
            return Answer(301, b"", "text/plain", {"Location": f"/{first}/"})
        try:
            parts = tuple(unquote(part, errors="strict") for part in rest.split("/"))
        except UnicodeDecodeError:
            return error_answer(404, "there is nothing at this address")
        if self.command in ("GET", "HEAD"):
            return self.server.app.get(parts)
        return self._change(parts, body)

    def _change(self, parts: tuple[str, ...], body: bytes) -> Answer:
        """A request that may change something: it must come from the page itself, and bring JSON."""
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() not in self.server.hosts:
            return error_answer(403, "another site asked for this", "use the viewer's own page")
        if self.headers.get_content_type() != "application/json":
            return error_answer(415, "the body is no JSON", "send application/json")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return error_answer(400, "the body is no JSON", "send JSON in UTF-8")
        return self.server.app.send(self.command, parts, value)

    def _body(self) -> bytes | Answer:
        """The request's body; read before anything is answered, so that the connection stays usable."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            self.close_connection = True
            return error_answer(411, "the length of the body is not stated", "send Content-Length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            return error_answer(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB", "send less at once")
        return self.rfile.read(int(length)) if int(length) else b""

    def _send(self, answer: Answer) -> None:
        headers = {**HEADERS, "Content-Type": answer.kind, "Content-Length": str(len(answer.body)), **answer.headers}
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
