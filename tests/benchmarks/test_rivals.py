"""The other readers of the benchmarks read the synthetic DICOM slide, tiles that reach beyond it included."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.format_factory import pages_of, write_dicom
from support.slide_factory import texture, write_slide

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "rivals.py"


@pytest.fixture(scope="module")
def rivals() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rivals", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rivals"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["OpenSlide", "wsidicom", "fastslide", "hs2p"])
def test_a_reader_reads_the_synthetic_dicom(rivals: ModuleType, tmp_path: Path, name: str) -> None:
    readers, absent = rivals.installed()
    if name in absent:
        pytest.skip(f"{name} is not installed")
    svs = write_slide(tmp_path / "a.svs", texture(600, 500), tile=240)
    path = write_dicom(tmp_path / "dicom", pages_of(svs))
    corners = np.array([[0, 0], [448, 448]])
    assert readers[name](path, corners, 448, 224) == 2
