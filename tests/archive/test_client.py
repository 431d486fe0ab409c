"""The client towards an archive: whom it trusts, what it tries again, what its errors say and keep to themselves."""

from __future__ import annotations

import json
import logging
import ssl
from pathlib import Path

import pytest
from support.archive_faults import Proxy, Reply, answering, certificates
from support.cli_runner import Runner, runner  # noqa: F401
from support.orthanc import PASSWORD, USER, Orthanc

from stamp_deploy.archive.client import Client
from stamp_deploy.archive.query import find_recent, find_series
from stamp_deploy.archive.retry import Retry
from stamp_deploy.archive.server import PASSWORD_VARIABLE, Server, read_secret
from stamp_deploy.errors import ArchiveError, ArchiveUnreachable, UsageError

from .conftest import AT_ONCE

SECRET = "S26-4711"


def ok(rows: object) -> Reply:
    return 200, {"Content-Type": "application/dicom+json"}, json.dumps(rows).encode()


def test_a_wrong_password_is_named_as_such(orthanc: Orthanc, runner: Runner, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "wrong").write_text("guess\n")
    words = ("--user", USER, "--password-file", tmp_path / "wrong", "--accession", SECRET, "-o", tmp_path / "out")
    done = runner("dicomweb", "pull", orthanc.url, *words)
    assert done.code == 8
    assert f"does not let user {USER} in" in done.err and "HTTP 401" in done.err and "--password" in done.err
    assert "guess" not in done.err and SECRET not in done.err


def test_an_archive_that_asks_for_an_account_is_told_so(
    orthanc: Orthanc,
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    done = runner("dicomweb", "pull", orthanc.url, "--accession", SECRET, "-o", tmp_path / "out")
    assert done.code == 8 and "asks for an account or a token" in done.err and "give --user" in done.err


def test_tls_by_an_own_authority(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, chain = certificates(tmp_path / "ours")
    other, _ = certificates(tmp_path / "theirs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with Proxy(orthanc.port, tls=context).running() as proxy:
        url = f"https://127.0.0.1:{proxy.port}/dicom-web"
        # the environment trusts and distrusts in vain
        monkeypatch.setenv("SSL_CERT_FILE", str(other))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        with Client(Server(url, user=USER, password=PASSWORD, ca=ca), AT_ONCE) as client:
            assert find_series(client) == []
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        with (
            Client(Server(url, user=USER, password=PASSWORD, ca=other), AT_ONCE) as client,
            pytest.raises(ArchiveError, match=r"certificate is not trusted \(.+\) - give .* --ca"),
        ):
            find_series(client)


def test_an_archive_may_ask_for_our_certificate(orthanc: Orthanc, tmp_path: Path) -> None:
    ca, chain = certificates(tmp_path / "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with Proxy(orthanc.port, tls=context).running() as proxy:
        url = f"https://127.0.0.1:{proxy.port}/dicom-web"
        with Client(Server(url, user=USER, password=PASSWORD, ca=ca, client_cert=chain), AT_ONCE) as client:
            assert find_series(client) == []
        with (
            Client(Server(url, user=USER, password=PASSWORD, ca=ca), AT_ONCE) as client,
            pytest.raises(ArchiveError, match=r"--client-cert|ended the connection"),
        ):
            find_series(client)


def test_a_busy_archive_is_asked_again_and_given_the_time_it_asks_for() -> None:
    answers = iter([(503, {"Retry-After": "7"}, b""), (502, {}, b""), ok([])])
    waited: list[float] = []
    with answering(lambda *_: next(answers)) as (url, asked):
        retry = Retry(sleep=waited.append, chance=lambda: 0.5, first_s=1.0)
        with Client(Server(url), retry) as client:
            assert client.get_json("the search", "series") == []
    assert len(asked) == 3 and waited == [7.0, 1.0]


def test_an_archive_that_stays_busy_is_left_for_later(runner: Runner, tmp_path: Path) -> None:  # noqa: F811
    with answering(lambda *_: (503, {"Retry-After": "3600"}, b"Mustermann")) as (url, asked):
        done = runner("dicomweb", "pull", url, "--accession", SECRET, "-o", tmp_path / "out")
    assert done.code == 75 and "HTTP 503" in done.err and len(asked) == 1
    assert SECRET not in done.err and "Mustermann" not in done.err


def test_a_server_that_is_not_there(runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    with answering(lambda *_: ok([])) as (url, _):
        pass
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with (
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(ArchiveUnreachable, match=r"127\.0\.0\.1:\d+ cannot be reached"),
    ):
        client.get_json("the search", "series")


def test_redirects_stay_at_home() -> None:
    """A password travels with a request: it never goes to another host."""
    with answering(lambda *_: ok([])) as (other, asked_other):

        def reply(method: str, path: str, body: bytes) -> Reply:
            if path.startswith("/old"):
                return 307, {"Location": path.replace("/old", "/new")}, b""
            return ok([1]) if path.startswith("/new") else (307, {"Location": f"{other}{path}"}, b"")

        with answering(reply) as (url, _), Client(Server(url, user="u", password="p"), AT_ONCE) as client:
            assert client.get_json("the search", "old/series", {"a": "b"}) == [1]
            with pytest.raises(ArchiveError, match="redirects the search to another host"):
                client.get_json("the search", "series")
    assert asked_other == []


def test_nothing_of_a_query_is_logged(orthanc: Orthanc, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    find_series(client, accession=SECRET)
    assert SECRET not in caplog.text and PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("url", "more", "match"),
    [
        ("ftp://pacs/dicom-web", {}, "none of HTTP"),
        ("https://pacs:port/", {}, "cannot be read"),
        ("https://user:secret@pacs/dicom-web", {}, "other users of this machine can see"),
        ("http://pacs/dicom-web", {}, "has no TLS"),
        ("https://pacs/dicom-web?key=1", {}, "has a query"),
        ("https://pacs/dicom-web", {"user": "u"}, "without a password"),
        ("https://pacs/dicom-web", {"user": "u", "password": "p", "token": "t"}, "give one of them"),
        ("https://pacs/dicom-web", {"user": "u\n", "password": "p"}, "cannot carry"),
        ("https://pacs/dicom-web", {"client_key": Path("k")}, "without a certificate"),
        ("https://pacs/dicom-web", {"read_s": 0}, "above 0"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_sent(
    url: str, more: dict[str, object], match: str
) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Server(url, **more)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Server("https://pacs", user="u", password="secret"))


def test_plain_http_is_for_this_machine_unless_it_is_asked_for() -> None:
    assert Server("http://localhost:8042").host == "localhost:8042"
    assert Server("http://[::1]:8042/dicom-web").host == "[::1]:8042"
    assert Server("http://pacs/dicom-web", plain_http=True).host == "pacs"


def test_secrets_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes("geheim ü\r\nsecond line".encode())
    assert read_secret(file, PASSWORD_VARIABLE, {PASSWORD_VARIABLE: "other"}) == "geheim ü"
    assert read_secret(None, PASSWORD_VARIABLE, {PASSWORD_VARIABLE: "other"}) == "other"
    assert read_secret(None, PASSWORD_VARIABLE, {}) == ""
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match="holds nothing"):
        read_secret(file, PASSWORD_VARIABLE)
    with pytest.raises(UsageError, match="No such file"):
        read_secret(tmp_path / "none", PASSWORD_VARIABLE)


@pytest.mark.parametrize(("words", "match"), [(("--ca", "x.pem"), "no such file"), (("--accession", "*"), "whole")])
def test_what_is_given_wrongly_is_said(words: tuple[str, ...], match: str, runner: Runner, tmp_path: Path) -> None:  # noqa: F811
    done = runner("dicomweb", "pull", "https://127.0.0.1:9", "--series", "1.2", "-o", tmp_path / "out", *words)
    assert done.code == 2 and match in done.err


def series_row(number: int, modality: str = "SM", **more: str) -> dict[str, object]:
    values = {"0020000D": f"1.2.{number}", "0020000E": f"1.3.{number}", "00080060": modality, **more}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}


def test_answers_are_held_against_what_was_asked() -> None:
    """A server that ignores filters gives the slides of other patients."""

    def reply(method: str, path: str, body: bytes) -> Reply:
        if path.startswith("/studies?"):
            return ok([series_row(1, **{"00080050": "S26-4711"}), series_row(2, **{"00080050": "S26-4712"})])
        return ok([series_row(1), series_row(2), series_row(1, "SR")])

    with answering(reply) as (url, _), Client(Server(url), AT_ONCE) as client:
        assert {row.study for row in find_series(client, accession=SECRET)} == {"1.2.1"}
        assert [row.series for row in find_series(client, series="1.3.2")] == ["1.3.2"]


def test_all_pages_are_read_once() -> None:
    """Whether a server gives fewer rows than asked for, or does not page at all."""
    rows = [series_row(number) for number in range(7)]

    def paged(method: str, path: str, body: bytes) -> Reply:
        offset = int(path.split("offset=")[1].split("&")[0])
        return ok(rows[offset : offset + 3])

    for reply in (paged, lambda *_: ok(rows)):
        with answering(reply) as (url, _), Client(Server(url), AT_ONCE) as client:
            assert len(find_recent(client, "20260101", "20260102")) == 7


@pytest.mark.parametrize("value", ["../../etc", "", "1.2/3", "1." * 40 + "1", 5])
def test_what_is_no_uid_never_becomes_a_file_name(value: object) -> None:
    row = {**series_row(1), "0020000E": {"vr": "UI", "Value": [value]}}
    with (
        answering(lambda *_: ok([row])) as (url, _),
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(ArchiveError, match="no valid Series Instance UID"),
    ):
        find_recent(client, "20260101", "20260102")


@pytest.mark.parametrize("body", [b"<html>", b"{", b'{"a": 1}', b"[1]", b"\xff"])
def test_answers_that_are_no_search_results(body: bytes) -> None:
    with (
        answering(lambda *_: (200, {}, body)) as (url, _),
        Client(Server(url), AT_ONCE) as client,
        pytest.raises(ArchiveError, match=r"not JSON|cannot be read"),
    ):
        find_recent(client, "20260101", "20260102")
