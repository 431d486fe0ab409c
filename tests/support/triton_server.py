"""A real tritonserver, where nvidia-pytriton is installed in an environment of its own (`make build/triton`).

STAMP_TEST_TRITON names another environment.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY_S = 120.0


def environment() -> Path:
    """The environment's site-packages; the test is skipped where there is none."""
    folder = Path(os.environ.get("STAMP_TEST_TRITON", ROOT / "build" / "triton"))
    found = sorted(folder.glob("lib/python3*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    if not found:
        pytest.skip("no tritonserver: nvidia-pytriton is not in build/triton (make build/triton/.tried installs it)")
    packages = found[0].parents[3]
    if not (packages / "onnxruntime").is_dir():
        pytest.skip("the environment of tritonserver has no onnxruntime (make build/triton/.tried installs it)")
    return packages


def free_ports(count: int) -> list[int]:
    """Ports of this host that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@contextmanager
def tritonserver(repository: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Serve a repository; gives the HTTP and the gRPC port once the server says that it is ready."""
    packages = environment()
    backends = folder / "backends"
    shutil.copytree(packages / "pytriton" / "tritonserver" / "backends" / "python", backends / "python")
    version = packages.parent.name.removeprefix("python")
    stub = packages / "pytriton" / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    shutil.copytree(Path(__file__).parent / "triton_backend", backends / "onnxruntime")
    http, grpc = free_ports(2)
    command = [
        packages / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={repository}", f"--backend-directory={backends}", "--allow-metrics=false",
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
    ]  # fmt: skip
    settings = {
        **os.environ,
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PATH": f"{packages.parents[2] / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=settings, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(server, http, folder / "log")
        yield http, grpc
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"tritonserver is not ready: {log.read_text(errors='replace')[-2000:]}")
