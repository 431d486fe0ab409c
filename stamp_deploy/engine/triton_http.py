"""A Triton Inference Server over HTTP: the KServe v2 protocol with its binary tensors.

The only module of the run time that opens a connection, and only for ``--engine triton``. Standard library alone: no
proxy of the environment is used, no redirect is followed, and nothing but tiles is sent.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError

CONNECT_S = 10.0
"""Seconds until a server that does not take the connection is given up."""
ANSWER_S = 300.0
"""Seconds until an answer is given up: a batch may wait behind those of other clients."""
MAX_HEADER_BYTES = 1 << 20
"""The longest JSON that is read from a server."""
_LENGTH = "Inference-Header-Content-Length"
_DTYPES: Mapping[str, Any] = {"FP32": np.float32}
_OPTION = "check --url, and that the server runs and may be reached from here"


class TritonServer:
    """One server. May be used from several threads; each has a connection of its own, kept open.

    Parameters
    ----------
    url : str
        ``http://HOST:PORT`` or ``https://HOST:PORT``, with a path where a proxy wants one. Certificates are checked
        against the system's authorities, or those of the file in SSL_CERT_FILE.

    Raises
    ------
    EngineError
        The address is none of these.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise EngineError("--url is no address", remedy="give http://HOST:8000 or https://HOST") from error
        if parts.username or parts.password or parts.query or parts.fragment:
            raise EngineError(
                "--url holds a user, a password or a query, which would stand in logs and results",
                remedy="give the address alone, as http://HOST:8000",
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineError(
                "--url must begin with http:// or https:// and name a host",
                remedy="give the server's HTTP address, as http://HOST:8000 (8001 is its gRPC port)",
            )
        self.encrypted = parts.scheme == "https"
        self._host, self._port = parts.hostname, port or (443 if self.encrypted else 8000)
        self._prefix = parts.path.rstrip("/")
        self.address = f"{parts.scheme}://{_bracketed(self._host)}:{self._port}{self._prefix}"
        self._own = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path below /v2; an empty one where the server answers without a body.

        Raises
        ------
        EngineError
            The server cannot be reached, refuses, or answers something else.
        """
        _, body = self._request("GET", path, (), {}, MAX_HEADER_BYTES)
        return _json_object(body, self.address) if body.strip() else {}

    def infer(
        self, model: str, version: str, tiles: NDArray[np.uint8], widths: Mapping[str, int]
    ) -> dict[str, NDArray[np.float32]]:
        """Score uint8 [N, T, T, 3]: for each output of `widths` what the server gives, float32 [N, width].

        Raises
        ------
        EngineError
            The server cannot be reached, refuses, or answers for another model or with other kinds of tensors.
        """
        header = json.dumps(
            {
                "inputs": [
                    {
                        "name": "tiles",
                        "shape": list(tiles.shape),
                        "datatype": "UINT8",
                        "parameters": {"binary_data_size": tiles.nbytes},
                    }
                ],
                "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in widths],
            }
        ).encode()
        sent = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(header) + tiles.nbytes),
            _LENGTH: str(len(header)),
        }
        limit = MAX_HEADER_BYTES + 4 * len(tiles) * sum(widths.values())
        path = f"{model_path(model, version)}/infer"
        length, body = self._request("POST", path, (header, np.ascontiguousarray(tiles).data.cast("B")), sent, limit)
        answer = _json_object(body[:length], self.address)
        if (answer.get("model_name"), answer.get("model_version")) != (model, version):
            raise EngineError(
                f"{self.address} answers for another model than {model} {version}", remedy="check the server's proxy"
            )
        return _tensors(answer, body[length:], widths, self.address)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _request(
        self, method: str, path: str, body: Iterable[Any], headers: Mapping[str, str], limit: int
    ) -> tuple[int, bytes]:
        """Where the JSON of the answer ends, and the whole answer.

        A kept connection that the server has closed meanwhile is opened anew: asking twice does no harm.
        """
        while True:
            connection = self._connection()
            kept = connection.sock is not None
            try:
                if not kept:
                    connection.connect()
                    connection.sock.settimeout(ANSWER_S)
                connection.request(method, f"{self._prefix}/v2{path}", body=tuple(body) or None, headers=dict(headers))
                response = connection.getresponse()
                data = response.read(limit + 1)
                whole = response.isclosed()
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                if kept and isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                    continue
                raise self._failure(error) from error
            if not whole or len(data) > limit:
                connection.close()
                raise EngineError(f"{self.address} answers with more than was asked for", remedy=_OPTION)
            if response.status != 200:
                raise self._refusal(response.status, data)
            stated = response.getheader(_LENGTH, "")
            return (int(stated) if stated.isdecimal() else len(data)), data

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's connection."""
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            if self.encrypted:
                context = ssl.create_default_context()
                found = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_S, context=context)
            else:
                found = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
            self._own.connection = found
            with self._lock:
                self._open.append(found)
        return found

    def _failure(self, error: Exception) -> EngineError:
        """What a connection that failed means for the user."""
        remedy = _OPTION
        if isinstance(error, ssl.SSLCertVerificationError):
            cause = f"the certificate of {self.address} is not trusted: {error.verify_message}"
            remedy = "name the file of your authority in SSL_CERT_FILE"
        elif isinstance(error, ssl.SSLError):
            cause, remedy = f"{self.address} does not speak TLS as asked", "check --url: http:// or https://"
        elif isinstance(error, TimeoutError):
            cause = f"{self.address} gives no answer in time"
        elif isinstance(error, OSError):
            cause = f"{self.address} cannot be reached: {error.strerror or type(error).__name__}"
        else:
            cause, remedy = f"{self.address} does not speak HTTP", "give the server's HTTP port (8001 is for gRPC)"
        return EngineError(cause, remedy=remedy)

    def _refusal(self, status: int, data: bytes) -> EngineError:
        """What another status than 200 means for the user."""
        try:
            said = str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError):
            said = ""
        cause = f"{self.address} refuses with status {status}" + (f": {said[:300]}" if said else "")
        return EngineError(cause, remedy="see the server's log, and whether it holds this bundle's models")


def model_path(model: str, version: str = "") -> str:
    """The path of a model below /v2."""
    return f"/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _json_object(data: bytes, address: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EngineError(f"{address} does not answer as a Triton server does", remedy=_OPTION)
    return value


def _tensors(
    answer: Mapping[str, Any], data: bytes, widths: Mapping[str, int], address: str
) -> dict[str, NDArray[np.float32]]:
    """The binary tensors of an answer, in the order in which the JSON lists them."""
    found, start = {}, 0
    try:
        for tensor in answer["outputs"]:
            size = int(tensor["parameters"]["binary_data_size"])
            part = data[start : start + size]
            start += size
            values = np.frombuffer(part, _DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
            found[str(tensor["name"])] = values.copy()
        if start != len(data) or set(found) != set(widths):
            raise ValueError("other tensors")
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"{address} answers with other tensors than it was asked for", remedy="write the repository again"
        ) from error
    return found
