"""Where a DICOMweb archive is, who asks, and whom to trust: checked before anything is sent."""

from __future__ import annotations

import ipaddress
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ..errors import UsageError
from ..system.files import refuse_special

PASSWORD_VARIABLE, TOKEN_VARIABLE = "STAMP_ARCHIVE_PASSWORD", "STAMP_ARCHIVE_TOKEN"
MAX_SECRET_BYTES = 16 << 10
CONNECT_S, READ_S = 10.0, 60.0


@dataclass(frozen=True)
class Server:
    """A DICOMweb archive.

    Attributes
    ----------
    url : str
        The root of its DICOMweb services, as https://pacs.example.org/dicom-web.
    user, password, token : str
        Of Basic authentication, or a bearer token; empty where none is needed. Never shown.
    ca : Path, optional
        Certificates (PEM) of the authorities to trust, in place of the system's.
    client_cert, client_key : Path, optional
        Our own certificate and its key (PEM).
    connect_s, read_s : float
        Seconds until a connection must stand, and the longest silence while something is sent or received.
    plain_http : bool
        Whether an address without TLS that is not this machine's is allowed.

    Raises
    ------
    UsageError
        The address cannot be used, or would send what is secret unprotected.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    connect_s: float = CONNECT_S
    read_s: float = READ_S
    plain_http: bool = False

    def __post_init__(self) -> None:
        address = _split(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(
                "the archive's address is none of HTTP", remedy="give the DICOMweb root, as https://HOST/dicom-web"
            )
        if address.username or address.password:
            raise UsageError(
                "the archive's address holds a user name or a password, which other users of this machine can see",
                remedy=f"give --user, and --password-file or {PASSWORD_VARIABLE} in the environment",
            )
        if address.query or address.fragment:
            raise UsageError("the archive's address has a query", remedy="give the root of its DICOMweb services only")
        if address.scheme == "http" and not (self.plain_http or _is_this_machine(address.hostname)):
            raise UsageError(
                "the archive's address has no TLS: images, names and passwords could be read on the way",
                remedy="use https://, or --plain-http where the network itself is protected",
            )
        if ":" in self.user or not (self.user + self.password + self.token).isprintable():
            raise UsageError("the user name, password or token holds a character that HTTP cannot carry")
        if self.token and self.user:
            raise UsageError("a user name and a token are given", remedy="give one of them")
        if self.user and not self.password:
            raise UsageError(
                "a user name is given without a password", remedy=f"give --password-file, or set {PASSWORD_VARIABLE}"
            )
        if self.client_key is not None and self.client_cert is None:
            raise UsageError("a client key is given without a certificate", remedy="add --client-cert")
        check_timeouts(self.connect_s, self.read_s)

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return _split(self.url).netloc

    def tls(self) -> ssl.SSLContext:
        """What decides whether the archive's certificate is trusted.

        Raises
        ------
        UsageError
            A file of certificates or keys cannot be used.
        """
        return calling_tls(self.ca, self.client_cert, self.client_key)


def check_timeouts(*seconds: float) -> None:
    """Refuse time limits that let nothing through.

    Raises
    ------
    UsageError
    """
    if not all(0 < limit < math.inf for limit in seconds):
        raise UsageError("a time-out must be above 0 seconds, and have an end")


def calling_tls(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS towards a server: whom to trust (the system's authorities where none are given), and who we are.

    Raises
    ------
    UsageError
        A file of certificates or keys cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(_why(error), path=ca, remedy="give a file of certificates (PEM) as --ca") from error
    if cert is not None:
        _load_own(context, cert, key)
    return context


def listening_tls(cert: Path, ca: Path | None) -> ssl.SSLContext:
    """TLS of a server: who we are, and, with `ca`, whose certificates callers must have.

    Raises
    ------
    UsageError
        A file of certificates or keys cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_own(context, cert, None)
    if ca is not None:
        try:
            context.load_verify_locations(str(ca))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(_why(error), path=ca, remedy="give a file of certificates (PEM) as --ca") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        # the empty password: OpenSSL would ask the terminal
        context.load_cert_chain(str(cert), None if key is None else str(key), password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(
            _why(error), path=cert, remedy="give a certificate and its key (PEM), the key not encrypted"
        ) from error


def read_secret(path: Path | None, variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """A password or token: the first line of a file, else a variable of the environment; "" where neither is there.

    Raises
    ------
    UsageError
        The file cannot be read, or holds nothing.
    """
    if path is None:
        return environment.get(variable, "")
    refuse_special(path, UsageError)
    try:
        with path.open("rb") as handle:
            secret = handle.read(MAX_SECRET_BYTES).split(b"\n")[0].rstrip(b"\r").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise UsageError(f"cannot be read: {cause}", path=path, remedy="check the file and its rights") from error
    if not secret:
        raise UsageError("holds nothing in its first line", path=path, remedy="put the secret there, alone")
    return secret


def _split(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise UsageError("the archive's address cannot be read", remedy="as https://HOST:PORT/dicom-web") from error
    return address


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "may not be read"
    return "holds no usable certificate or key"
