"""The command itself: what it prints, how it ends, what it logs, how the browser learns of the address."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

import pytest

from stamp_deploy.viewer.browser import opened_page

COMMAND = (sys.executable, "-m", "stamp_deploy.cli", "--log-level", "debug", "view")


class Running:
    """The command, running, with its address."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.port = urlsplit(url).port
        self.token = urlsplit(url).path.strip("/")

    def get(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"/{self.token}/{path}")
        status = connection.getresponse().status
        connection.close()
        return status

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def viewing(*words: object) -> Iterator[Running]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, words), "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.match(r"view\s+(\S+)", process.stdout.readline())
        assert found is not None
        yield Running(process, found[1])
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(viewer_world: Path, number: signal.Signals) -> None:
    with viewing(viewer_world / "out", "--slides", viewer_world / "slides") as viewer:
        assert viewer.url.startswith("http://127.0.0.1:")
        assert viewer.get("api/slides") == 200
        code, out, err = viewer.stop(number)
    assert code == 0
    assert out.splitlines()[-1] == "stopped"
    assert "Traceback" not in err


def test_the_log_names_no_slide_no_folder_and_no_token(viewer_world: Path) -> None:
    with viewing(viewer_world / "out", "--slides", viewer_world / "slides") as viewer:
        for path in ("", "api/slides", "api/slides/slide", "api/slides/slide/tiles/slide/3/0/0.jpg", "no/such"):
            viewer.get(path)
        _, _, err = viewer.stop()
    assert '"viewer_request"' in err, "the log is on"
    for never in (viewer.token, "slide.svs", str(viewer_world), "/api/"):
        assert never not in err


def test_a_host_that_others_reach_states_the_risk(viewer_world: Path) -> None:
    with viewing(viewer_world / "out", "--host", "0.0.0.0") as viewer:
        assert viewer.get("api/slides") == 200
        code, _, err = viewer.stop()
    assert code == 0
    assert "everybody on the network" in err
    assert "not encrypted" in err


def test_what_cannot_be_shown_ends_with_usage(tmp_path: Path) -> None:
    for words in (
        (tmp_path,),
        (tmp_path / "none",),
        (tmp_path, "--port", "70000"),
        (tmp_path, "--token-file", tmp_path),
    ):
        done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2, words
        assert str(tmp_path) not in done.stderr


def test_the_browser_is_given_a_file_that_only_its_owner_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines can be seen by others; the token must not stand in one."""
    seen: list[tuple[str, int, str]] = []
    done = Event()

    def open_page(url: str) -> bool:
        path = Path(unquote(urlsplit(url).path))
        seen.append((url, stat.S_IMODE(path.stat().st_mode), path.read_text()))
        done.set()
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    address = "http://127.0.0.1:8700/a-token/"
    with opened_page(address, ask=True):
        assert done.wait(60)
    ((url, mode, text),) = seen
    assert "a-token" not in url
    assert mode == 0o600
    assert f"0; url={address}" in text
    assert not Path(unquote(urlsplit(url).path)).exists()
    with opened_page(address, ask=False):
        pass
    assert len(seen) == 1
