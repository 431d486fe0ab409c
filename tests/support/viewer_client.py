"""A running viewer for tests, and a client that asks it as a browser would, or as one should not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.infer import infer_slide
from stamp_deploy.viewer.app import ViewerApp
from stamp_deploy.viewer.server import ViewerServer


class Asked:
    """An answer: status, headers, body."""

    def __init__(self, answer: HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, dict(answer.getheaders()), answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a viewer over one connection that is kept open."""

    def __init__(self, server: ViewerServer) -> None:
        self.server, self.token = server, server.token
        self._connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Asked:
        """Any request; underscores in names of headers stand for dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, given)
        return Asked(self._connection.getresponse())

    def get(self, path: str, **headers: str) -> Asked:
        return self.raw("GET", f"/{self.token}/{path}", **headers)

    def send(self, method: str, path: str, value: Any, **headers: str) -> Asked:
        given = {"Content_Type": "application/json", **headers}
        return self.raw(method, f"/{self.token}/{path}", json.dumps(value).encode(), **given)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def running(given: Path, slides: tuple[Path, ...] = (), **options: Any) -> Iterator[Client]:
    """A viewer on a free port of loopback while the block runs; `options` are those of `ViewerApp`."""
    app = ViewerApp(given, slides, **options)
    server = ViewerServer(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    client = Client(server)
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        app.close()


def score(slide: Path, bundle: Path, out: Path, **options: Any) -> Path:
    """Score a slide as `infer` does, with the formats that the viewer reads."""
    settings = InferOptions(engine="onnxruntime", writers=("json", "hdf5"), **options)
    infer_slide(slide, load_bundle(bundle), out, settings)
    return out
