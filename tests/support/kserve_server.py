"""A small server of the KServe v2 protocol over a bundle, with faults that can be switched on.

It speaks what `engine/triton_http.py` asks for, so that the client is tested where no tritonserver can be installed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

LENGTH = "Inference-Header-Content-Length"


class Model:
    """What the server holds, and how it misbehaves."""

    def __init__(self, repository: Path, name: str) -> None:
        config = (repository / name / "config.pbtxt").read_text()
        self.name, self.version, self.sha256 = name, "1", config.split("stamp_bundle_sha256")[1].split('"')[2]
        self.max_batch = int(config.split("max_batch_size: ")[1].split()[0])
        file = repository / name / "1" / "encoder.onnx"
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.fault = ""
        self.sizes: list[int] = []
        """Tiles of each request."""
        self.paths: list[str] = []

    def config(self) -> dict[str, Any]:
        """As Triton gives it, in short."""
        parameters = {"stamp_bundle_sha256": {"string_value": self.sha256}}
        return {
            "name": self.name,
            "backend": "onnxruntime",
            "max_batch_size": self.max_batch,
            "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
            "parameters": {} if self.fault == "not ours" else parameters,
        }

    def infer(self, body: bytes, length: int) -> tuple[int, bytes]:
        """The length of the answer's JSON, and the answer."""
        asked = json.loads(body[:length])
        (tensor,) = asked["inputs"]
        tiles = np.frombuffer(body[length:], np.uint8).reshape(tensor["shape"])
        self.sizes.append(len(tiles))
        names = [output["name"] for output in asked["outputs"]]
        found = self.session.run(names, {tensor["name"]: tiles})
        if self.fault == "wrong":
            found = [-values for values in found]
        if self.fault == "one row short":
            found = [values[:-1] for values in found]
        outputs = [
            {
                "name": name,
                "datatype": "FP32",
                "shape": list(values.shape),
                "parameters": {"binary_data_size": values.nbytes},
            }
            for name, values in zip(names, found, strict=True)
        ]
        version = "2" if self.fault == "another version" else self.version
        head = json.dumps({"model_name": self.name, "model_version": version, "outputs": outputs}).encode()
        data = head + b"".join(values.tobytes() for values in found)
        return len(head), data[:-3] if self.fault == "cut" else data


@contextmanager
def serve(model: Model) -> Iterator[str]:
    """The address of a server over one model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            model.paths.append(self.path)
            base = f"/v2/models/{model.name}"
            answers: dict[str, Any] = {
                "/v2": {"name": "small", "version": "2.51.0"},
                "/v2/health/ready": None,
                base: {"name": model.name, "versions": [model.version]},
                f"{base}/versions/{model.version}/ready": None,
                f"{base}/versions/{model.version}/config": model.config(),
            }
            if model.fault == "not ready" and self.path.endswith("ready"):
                self.answer(400, b"")
            elif self.path not in answers:
                self.answer(404, json.dumps({"error": f"Request for unknown model: {self.path[:50]}"}).encode())
            else:
                value = answers[self.path]
                self.answer(200, b"" if value is None else json.dumps(value).encode())
            if model.fault == "closes":
                self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if model.fault == "fails":
                self.answer(500, json.dumps({"error": "onnx runtime error 6: no memory"}).encode())
                return
            if model.fault == "redirects":
                self.send_response(302)
                self.send_header("Location", "http://192.0.2.1/")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            length, data = model.infer(body, int(self.headers[LENGTH]))
            self.answer(200, data, {LENGTH: str(length)})
            if model.fault == "closes":
                self.close_connection = True

        def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
