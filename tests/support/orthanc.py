"""A real Orthanc with DICOMweb on loopback, for tests: started with a password, ended with the test session's process.

As a command it runs until Ctrl-C and says its address:  python tests/support/orthanc.py FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "stamp", "correct horse battery staple"
AE_TITLE, OUR_AE_TITLE = "ORTHANC", "STAMPTEST"
START_LIMIT_S = 60.0
_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)


def why_not() -> str:
    """Why Orthanc cannot be started here; "" where it can."""
    if _binary() is None:
        return "no Orthanc here (Debian: apt-get install orthanc orthanc-dicomweb)"
    return (
        "" if _plugin() is not None else "Orthanc is here without DICOMweb (Debian: apt-get install orthanc-dicomweb)"
    )


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Orthanc:
    """One server and its storage; `start` and `kill` it as often as needed.

    Parameters
    ----------
    folder : Path
        For its configuration, log and storage.
    settings : mapping
        Replace entries of its configuration.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port, self.dicom_port = free_port(), free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # a test may end it from the thread that sees it answer

    @property
    def root(self) -> str:
        """Of its own interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of DICOMweb."""
        return f"{self.root}/dicom-web"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        configuration = {
            "Name": "tests",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(_plugin())],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomAet": AE_TITLE,
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {
                "tests": {"AET": OUR_AE_TITLE, "Host": "127.0.0.1", "Port": free_port(), "AllowGet": True}
            },
            "StableAge": 1,
            "SynchronousCMove": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **self._settings,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        with self._lock, (self.folder / "orthanc.log").open("ab") as log:
            process = self._process = subprocess.Popen(
                [str(_binary()), str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=log,
                env={**os.environ, "LANG": "C", "LC_ALL": "C"},
            )
        until = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            try:
                self.rest("system")
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"Orthanc does not start: {(self.folder / 'orthanc.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.send_signal(number)
                process.wait(timeout=60)

    def rest(self, path: str, data: bytes | None = None, method: str | None = None) -> Any:
        """The JSON that its own interface answers.

        Raises
        ------
        OSError
            It does not answer, or refuses.
        """
        request = urllib.request.Request(f"{self.root}/{path}", data=data, method=method)
        request.add_header("Authorization", "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def add(self, *paths: Path) -> None:
        """Put files into it."""
        for path in paths:
            self.rest("instances", path.read_bytes())

    def arrivals(self) -> list[str]:
        """Instances in the order of their arrival. The list of changes also tells, later, that a series has settled."""
        changes = self.rest("changes?limit=100000")["Changes"]
        return [change["ID"] for change in changes if change["ChangeType"] == "NewInstance"]

    def delete_all(self) -> None:
        """Forget everything."""
        for study in self.rest("studies"):
            self.rest(f"studies/{study}", method="DELETE")


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """An Orthanc that is ended afterwards."""
    server = Orthanc(folder, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _binary() -> str | None:
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def _plugin() -> Path | None:
    return next((path for path in _PLUGINS if path.exists()), None)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with running(Path(sys.argv[1])) as shown:
        print(f"{shown.url} user {USER} password {PASSWORD}", flush=True)
        signal.pause()
