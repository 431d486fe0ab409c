"""HTTP towards one archive: time-outs, retries, and errors that name the host and the cause, never what was asked for.

Queries hold names of cases and answers hold patients: neither is logged or quoted. Redirects are followed only within
the archive's own origin, since a password would travel with them.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from .. import __version__
from ..errors import ArchiveError, ArchiveUnreachable
from ..system.waiting import wait_for
from .retry import Retry
from .server import Server

DICOM_JSON = "application/dicom+json"
MAX_JSON_BYTES = 256 << 20
MAX_REDIRECTS = 3
TEMPORARY = frozenset({408, 425, 429, 502, 503, 504})
"""Answers after which the same request may succeed."""
_TELL = "ask its administrator"
Query = Mapping[str, str | tuple[str, ...]]
"""Names and values; one of several values is repeated: not every archive takes a list with commas."""
Body = bytes | Iterator[bytes] | None


class NotThere(ArchiveError):
    """The archive has nothing at an address (HTTP 404)."""


class Client:
    """Requests to one archive.

    Parameters
    ----------
    server : Server
    retry : Retry
        For requests that change nothing.

    Raises
    ------
    UsageError
        Certificates or keys cannot be used.
    """

    def __init__(self, server: Server, retry: Retry | None = None) -> None:
        self.server = server
        self._stopped = threading.Event()
        self.retry = retry or Retry(sleep=partial(wait_for, self._stopped))
        headers = {"User-Agent": f"stamp-deploy/{__version__}"}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        self._http = httpx.Client(
            auth=(server.user, server.password) if server.user else None,
            headers=headers,
            verify=server.tls(),
            trust_env=False,  # neither proxies nor certificates of the environment
            follow_redirects=False,
            timeout=httpx.Timeout(server.read_s, connect=server.connect_s),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stop(self) -> None:
        """End what is under way soon, with an `ArchiveUnreachable`; from any thread."""
        self._stopped.set()

    def check_stop(self) -> None:
        """Raise where `stop` was called.

        Raises
        ------
        ArchiveUnreachable
        """
        if self._stopped.is_set():
            raise ArchiveUnreachable("stopped", remedy="run the same command again: it goes on from here")

    def once(self) -> Client:
        """This client without retries, for work that is tried again as a whole; it shares the connections."""
        other = copy(self)
        other.retry = Retry(attempts=1)
        return other

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_json(self, what: str, path: str, query: Query | None = None, *, root: str = "") -> Any:
        """The JSON of an answer; None where it is empty (204, or no content). Tried again as `retry` says.

        Parameters
        ----------
        what : str
            What is asked for, in words for messages: "the search for series".
        path : str
            Below the root of the services.
        query : Query
        root : str
            Another root at the same server.

        Raises
        ------
        ArchiveError
        """

        def ask() -> Any:
            with self.open("GET", what, path, query=query, headers={"Accept": DICOM_JSON}, root=root) as answer:
                return read_json(answer, what)

        return self.retry.call(ask)

    @contextmanager
    def open(
        self,
        method: str,
        what: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: Body = None,
        accept: frozenset[int] = frozenset(),
        root: str = "",
    ) -> Iterator[httpx.Response]:
        """An answer whose body is not read yet; one attempt.

        Parameters
        ----------
        accept : frozenset of int
            Status codes that are no error beside those of success.

        Raises
        ------
        ArchiveUnreachable
            It cannot be reached, falls silent, ends the connection, or says that it is busy.
        ArchiveError
            It refuses, or its certificate is not trusted.
        """
        self.check_stop()
        url = f"{(root or self.server.url).rstrip('/')}/{path.lstrip('/')}"
        with self._words(what):
            for _ in range(MAX_REDIRECTS + 1):
                with self._http.stream(method, url, params=query, headers=headers, content=content) as answer:
                    if not answer.is_redirect:
                        if not (answer.is_success or answer.status_code in accept):
                            raise self._refused(what, answer)
                        yield answer
                        return
                    if method != "GET":
                        break
                    url, query = self._same_origin(what, url, answer), None
        raise ArchiveError(
            f"{self.server.host} redirects {what}", remedy="give the address that it redirects to, if it is the archive"
        )

    def _same_origin(self, what: str, url: str, answer: httpx.Response) -> str:
        target = urljoin(url, str(answer.headers.get("Location", "")))
        old, new = urlsplit(url), urlsplit(target)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise ArchiveError(
                f"{self.server.host} redirects {what} to another host, and passwords would go with it",
                remedy="give the address of the archive itself",
            )
        return target

    @contextmanager
    def _words(self, what: str) -> Iterator[None]:
        """Errors of the library in words, without what they quote."""
        host = self.server.host
        try:
            yield
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            limit_s = self.server.connect_s if connecting else self.server.read_s
            raise ArchiveUnreachable(
                f"{host} {'took no connection' if connecting else f'fell silent during {what}'} for {limit_s:g} s",
                remedy="check that it runs and is reachable from here; then run the same command again",
            ) from error
        except httpx.TransportError as error:
            if (refusal := _of_tls(error)) is not None:
                raise ArchiveError(f"no safe connection to {host}: {refusal[0]}", remedy=refusal[1]) from error
            if isinstance(error, httpx.ConnectError):
                raise ArchiveUnreachable(
                    f"{host} cannot be reached", remedy="check the address, the network and that the archive runs"
                ) from error
            raise ArchiveUnreachable(
                f"{host} ended the connection during {what}", remedy="run the same command again: it goes on from here"
            ) from error
        except (httpx.InvalidURL, httpx.DecodingError) as error:
            raise ArchiveError(f"{host} answers {what} in a form that cannot be read", remedy=_TELL) from error

    def _refused(self, what: str, answer: httpx.Response) -> ArchiveError:
        status, host = answer.status_code, self.server.host
        if status in (401, 403):
            if not self.server.token and not self.server.user:
                return ArchiveError(
                    f"{host} asks for an account or a token for {what} (HTTP {status})",
                    remedy="give --user and --password-file, or --token-file",
                )
            whom = "the token" if self.server.token else f"user {self.server.user}"
            return ArchiveError(
                f"{host} does not let {whom} in for {what} (HTTP {status})",
                remedy="check --user and --password-file, or the token, and the rights of that account",
            )
        if status in TEMPORARY:
            return ArchiveUnreachable(
                f"{host} cannot do {what} now (HTTP {status})",
                remedy="run the same command again later",
                retry_after_s=_seconds(answer.headers.get("Retry-After", "")),
            )
        remedy = "check that the address is the root of its DICOMweb services" if status in (404, 405) else _TELL
        kind = NotThere if status == 404 else ArchiveError
        return kind(f"{host} refuses {what} (HTTP {status})", remedy=remedy)


def read_body(answer: httpx.Response, what: str, most: int = MAX_JSON_BYTES) -> bytes:
    """The whole body of an answer.

    Raises
    ------
    ArchiveError
        It is longer than `most` bytes.
    """
    parts, size = [], 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > most:
            raise ArchiveError(f"the archive's answer to {what} is longer than {most >> 20} MiB", remedy=_TELL)
        parts.append(part)
    return b"".join(parts)


def read_json(answer: httpx.Response, what: str) -> Any:
    """The JSON of an answer; None where it is empty.

    Raises
    ------
    ArchiveError
        It is not JSON.
    """
    body = read_body(answer, what)
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"the archive's answer to {what} is not JSON", remedy=_TELL) from error


def _of_tls(error: BaseException | None) -> tuple[str, str] | None:
    """(cause, remedy) where TLS is behind an error; None where it is not."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = "give the certificate of the hospital's authority as --ca, and the host name that it certifies"
            return f"its certificate is not trusted ({error.verify_message})", remedy
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            name = (error.reason or "TLS").replace("_", " ").lower()
            return f"TLS fails ({name})", "check that its port speaks TLS, and whether it asks for --client-cert"
        error = error.__cause__ or error.__context__
    return None


def _seconds(text: str) -> float:
    """Retry-After in seconds; a date is not read: 0."""
    return float(text) if text.strip().isdigit() else 0.0
