"""What goes wrong between us and an archive: connections that are cut or stall, TLS in between, and odd answers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIMIT_S = 60.0


class Proxy:
    """Passes connections on to a port of loopback.

    Parameters
    ----------
    port : int
        Of the server.
    tls : ssl.SSLContext, optional
        Speaks TLS towards the client.
    up_limit, down_limit : int, optional
        Bytes from and to the client after which all connections fall silent, or end.
    stall : bool
        Fall silent at the limit; otherwise end.
    on_limit : callable
        Called once at the limit.
    pause_s : float
        After each kB to the client.
    """

    def __init__(
        self,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        up_limit: int | None = None,
        down_limit: int | None = None,
        stall: bool = False,
        on_limit: Callable[[], object] = lambda: None,
        pause_s: float = 0.0,
    ) -> None:
        self._target, self._tls, self._stall, self._on_limit = port, tls, stall, on_limit
        self._pause_s = pause_s
        self._left = {"up": up_limit, "down": down_limit}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.requests = 0
        self.gave_up = False
        """Whether a silence lasted so long that the proxy ended it."""

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._over.set()
            for each in (self._listener, *self._sockets):
                with contextlib.suppress(OSError):
                    each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                server = socket.create_connection(("127.0.0.1", self._target))
            except ssl.SSLError:
                continue  # the client does not trust us
            except ConnectionError:
                client.close()
                continue
            except OSError:
                return
            self._sockets += [client, server]
            for way, source, target in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._pass, args=(way, source, target), daemon=True).start()

    def _pass(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(1 << 14):
                with self._lock:
                    self.requests += data.count(b" HTTP/1.1\r\n") if way == "up" else 0
                    left = self._left[way]
                    if left is not None:
                        data, self._left[way] = data[:left], max(0, left - len(data))
                    over = self._left[way] == 0
                for start in range(0, len(data), 1000):
                    target.sendall(data[start : start + 1000])
                    time.sleep(self._pause_s if way == "down" else 0)
                if over:
                    self._on_limit()
                    self._on_limit = lambda: None
                    if self._stall:
                        self.gave_up = not self._over.wait(LIMIT_S) or self.gave_up
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                each.close()


Reply = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(reply: Callable[[str, str, bytes], Reply]) -> Iterator[tuple[str, list[str]]]:
    """(address, requests so far) of a server that answers by a function of method, path with query, and body."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(f"{self.command} {self.path}")
            code, headers, content = reply(self.command, self.path, body)
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def certificates(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """(certificate of an own authority, certificate and key of a server that it signed), PEM files."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital Test Authority")])
    root = _certificate(root_name, root_name, root_key, root_key, x509.BasicConstraints(ca=True, path_length=0))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))])
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    own = _certificate(own_name, root_name, key, root_key, alternative)
    pem = serialization.Encoding.PEM
    form = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(own.public_bytes(pem) + key.private_bytes(*form))
    return folder / "ca.pem", folder / "server.pem"


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=False)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return builder.sign(signer, hashes.SHA256())


class FullDisk:
    """A temporary file on a disk that ends after the header."""

    def __init__(self, **options: Any) -> None:
        self._file = tempfile.NamedTemporaryFile(**options)  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)
