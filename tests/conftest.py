"""Where the tests find their real data, and the markers they use."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from support.chromium import browser  # noqa: F401 - a fixture

import stamp_deploy  # noqa: F401 - before any test imports onnxruntime: see stamp_deploy/system/offline.py

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A job in a shell's background, or under nohup, starts with these ignored; what the tests start inherits it."""
    if threading.current_thread() is threading.main_thread():
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how many kills the kill test makes")


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of engine choices and plans for this session alone, child processes included."""
    folder = tmp_path_factory.mktemp("engine-cache")
    os.environ["STAMP_CACHE_DIR"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real slides, DICOM, spatial transcriptomics and gene sets.

    Named by STAMP_TEST_DATA; by default the folder shared/data beside the checkout.
    """
    folder = Path(os.environ.get("STAMP_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set STAMP_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def cmu_slide(data_dir: Path) -> Path:
    """A real Aperio slide: one level, 240 px JPEG tiles coded as RGB, 0.499 um/px."""
    return data_dir / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="session")
def make_wsi(data_dir: Path) -> Path:
    """The script that builds large slides out of real JPEG tiles."""
    script = data_dir.parent / "tools" / "make_wsi.py"
    if not script.is_file():
        pytest.skip(f"make_wsi.py not found at {script}; it belongs beside the test data, under tools/")
    return script
