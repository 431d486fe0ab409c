"""A whole run in a process in which every socket fails to open or connect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

SCRIPT = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"a socket was opened: {args} {kwargs}")

class Refusing(socket.socket):
    def __init__(self, *args, **kwargs):
        refuse(*args, **kwargs)

def audit(event, args):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")) and event != "socket.gethostname":
        refuse(event, args)

socket.socket = Refusing
socket.create_connection = socket.getaddrinfo = refuse
sys.addaudithook(audit)
if sys.argv[1] == "trap":
    import _socket
    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
sys.argv[0] = "stamp-deploy"
from stamp_deploy.cli import main
main()
"""


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_inference_opens_no_socket(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.svs", texture(600, 600))
    bundle = make_bundle(tmp_path / "bundle", tile_px=64)
    quick = ("--engine", "onnxruntime", "--write", "json,hdf5,parquet,heatmaps,report")
    done = run("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", *quick)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "DONE").is_file()
    for verb in (("inspect", slide), ("verify", bundle), ("doctor",)):
        done = run(*verb)
        assert done.returncode == 0, done.stderr


def test_the_trap_works() -> None:
    done = run("trap")
    assert done.returncode != 0
    assert "a socket was opened" in done.stderr
