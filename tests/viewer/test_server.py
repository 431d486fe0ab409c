"""Who is answered: the token, the Host header, other sites, addresses that climb, bodies that are too large."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.viewer_client import Client, running

from stamp_deploy.errors import UsageError
from stamp_deploy.verbs.view import _token
from stamp_deploy.viewer.app import ViewerApp
from stamp_deploy.viewer.server import HEADERS, MAX_BODY_BYTES, ViewerServer


@pytest.fixture(scope="module")
def client(viewer_world: Path) -> Iterator[Client]:
    with running(viewer_world / "out", (viewer_world / "slides",)) as started:
        yield started


ADDRESSES = ("", "static/app.js", "api/slides", "api/slides/slide", "api/slides/slide/tiles/slide/0/0/0.jpg")


@pytest.mark.parametrize("path", ADDRESSES)
def test_every_address_needs_the_token(client: Client, path: str) -> None:
    assert client.get(path).status == 200
    wrong = "A" * len(client.token)
    for given in (f"/{path}", f"/{wrong}/{path}", f"/{client.token[:-1]}/{path}", f"/?token={client.token}"):
        refused = client.raw("GET", given)
        assert refused.status == 403, given
        assert b"slide.svs" not in refused.body
    assert len(client.token) >= 32
    assert re.fullmatch(r"[A-Za-z0-9_-]+", client.token)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "slide.local:{port}"]
)
def test_another_host_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: the browser comes to this address under a name of the attacker's."""
    assert client.get("api/slides", Host=host.format(port=client.server.server_port)).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
def test_names_of_this_machine_are_answered(client: Client, host: str) -> None:
    assert client.get("api/slides", Host=host.format(port=client.server.server_port)).status == 200


def test_a_proxys_name_is_answered_where_it_was_given(viewer_world: Path) -> None:
    app = ViewerApp(viewer_world / "out")
    server = ViewerServer(app, names=("viewer.hospital.example", "other.example:8443"), token="t" * 32)
    try:
        port = server.server_port
        wanted = {"viewer.hospital.example", f"viewer.hospital.example:{port}", "other.example:8443"}
        assert wanted <= server.hosts
        assert "hospital.example" not in server.hosts
        assert server.url == f"http://127.0.0.1:{port}/{'t' * 32}/"
    finally:
        server.server_close()


def test_the_page_may_do_nothing_but_ask_its_server(client: Client) -> None:
    for path in ("", "static/app.js", "api/slides/slide/tiles/slide/0/0/0.jpg", "nothing"):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    for never in ("unsafe-eval", "unsafe-inline", "http:", "https:", "blob:", "data:", "*"):
        assert never not in policy
    assert HEADERS["Cache-Control"] == "no-store"


def test_the_icon_needs_no_token_and_tells_nothing(client: Client) -> None:
    icon = client.raw("GET", "/favicon.ico")
    assert (icon.status, icon.headers["Content-Type"]) == (200, "image/svg+xml")


CLIMBING = (
    "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "static/../app.py", "static/..%2fapp.py", "static/%2e%2e%2fapp.py",
    "static//etc/passwd", "api/slides/../../etc", "api/slides/..", "api/slides/%2e%2e%2fout%2fslide",
    "api/slides/slide%00", "api/slides/slide/tiles/slide/0/0/..%2f0.jpg", "api/slides/slide/gallery/..",
    "api/slides//cells", "static/openseadragon/LICENSE.txt", "api/slides/slide/result.json", "api/slides/%ff",
    "api/slides/slide/values/-1", "api/slides/slide/values/99", "api/slides/slide/tiles/slide/-1/0/0.jpg",
    "api/slides/slide/tiles/slide/0/1/0.jpg", "api/slides/slide/tiles/slide/99/0/0.jpg",
)  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING)
def test_no_address_leads_out(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 404
    assert b"root:" not in answer.body


def test_changes_are_taken_from_the_page_alone(client: Client) -> None:
    """A form of another site cannot send JSON, and a browser states where a request comes from."""
    square = [[[[0, 0], [900, 0], [900, 900], [0, 900]]]]
    ask = {"polygons": square[0]}
    path, port = "api/slides/slide/region", client.server.server_port
    assert client.send("POST", path, {"polygons": square}).status == 200
    assert client.send("POST", path, {"polygons": square}, Origin=f"http://127.0.0.1:{port}").status == 200
    assert client.send("POST", path, ask, Origin="http://evil.example").status == 403
    assert client.send("POST", path, ask, Origin="null").status == 403
    assert client.send("POST", path, ask, Content_Type="text/plain").status == 415
    assert client.raw("POST", f"/{client.token}/{path}", b"{", Content_Type="application/json").status == 400
    assert client.send("POST", "api/slides", ask).status == 404
    assert client.send("PUT", path, ask).status == 404


NO_AREAS: tuple[object, ...] = (
    {}, [], None, 3, {"polygons": 1}, {"polygons": []}, {"polygons": [[]]}, {"polygons": [[[[0, 0], [1, 1]]]]},
    {"polygons": [[[["a", 0], [1, 1], [2, 2]]]]}, {"polygons": [[[[0, 0], [1, 1], [2, 2]]]]}, {"polygons": [3]},
)  # fmt: skip


@pytest.mark.parametrize("value", NO_AREAS)
def test_what_is_no_area_is_told(client: Client, value: object) -> None:
    answer = client.send("POST", "api/slides/slide/region", value)
    assert answer.status == 422
    assert answer.json["error"]


def test_bodies_are_bounded(client: Client, viewer_world: Path) -> None:
    with running(viewer_world / "out") as own:
        path = f"/{own.token}/api/slides/slide/region"
        answer = own.raw("POST", path, b"", Content_Length=str(MAX_BODY_BYTES + 1), Content_Type="application/json")
        assert answer.status == 413
    with running(viewer_world / "out") as own:
        assert own.raw("POST", f"/{own.token}/", b"", Content_Length="-3").status == 411
        assert own.get("api/slides").status == 200


def test_a_request_that_is_none_does_not_stop_the_server(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.server.server_port), 10) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        raw.recv(100)
    assert client.get("api/slides").status == 200


def test_head_sends_no_body(client: Client) -> None:
    answer = client.raw("HEAD", f"/{client.token}/")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 1000
    assert client.raw("DELETE", f"/{client.token}/").status == 501


def test_an_address_without_its_slash_leads_to_the_page(client: Client) -> None:
    answer = client.raw("GET", f"/{client.token}")
    assert (answer.status, answer.headers["Location"]) == (301, f"/{client.token}/")


def test_a_taken_port_is_told(client: Client, viewer_world: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot listen at port \d+ of 127\.0\.0\.1.*--port 0"):
        ViewerServer(ViewerApp(viewer_world / "out"), port=client.server.server_port)
    with pytest.raises(UsageError, match="cannot listen"):
        ViewerServer(ViewerApp(viewer_world / "out"), host="203.0.113.7")


def test_tokens_of_files(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 40 + "\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert _token(path) == "a" * 40
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others than its owner"):
        _token(path)
    path.chmod(0o600)
    for text in ("short", "with space" * 5, "ä" * 40, "../" * 20):
        path.write_text(text)
        with pytest.raises(UsageError):
            _token(path)
    with pytest.raises(UsageError, match="cannot be read"):
        _token(tmp_path / "none")
