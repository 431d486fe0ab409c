"""One Orthanc for the tests of a module, and a client for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.archive_slide import ScannedSlide, scan
from support.archived_result import Scored, score
from support.orthanc import PASSWORD, USER, Orthanc, running, why_not

pytest.importorskip("httpx")
pytest.importorskip("python_multipart")
from stamp_deploy.archive.client import Client
from stamp_deploy.archive.retry import Retry
from stamp_deploy.archive.server import Server

AT_ONCE = Retry(sleep=lambda seconds: None)


@pytest.fixture(scope="module")
def module_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if reason := why_not():
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(module_orthanc: Orthanc) -> Orthanc:
    """A running Orthanc that holds nothing."""
    module_orthanc.delete_all()
    return module_orthanc


@pytest.fixture
def client(orthanc: Orthanc) -> Iterator[Client]:
    with Client(Server(orthanc.url, user=USER, password=PASSWORD, read_s=20), AT_ONCE) as made:
        yield made


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file that holds the password."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> ScannedSlide:
    return scan(tmp_path_factory.mktemp("scanned"), 1)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    pytest.importorskip("highdicom")
    return score(tmp_path_factory.mktemp("scored"))
