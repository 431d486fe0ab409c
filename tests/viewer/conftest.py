"""A slide with a pyramid, scored: what most tests of the viewer look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide
from support.viewer_client import score


@pytest.fixture(scope="session")
def viewer_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slides/slide.svs (1500 x 1100 px, levels 1 and 4) and out/slide, its result."""
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "slides").mkdir()
    bundle = make_bundle(folder / "bundle", tile_px=64)
    slide = write_slide(folder / "slides" / "slide.svs", texture(1100, 1500), tile=256, levels=(4,), coding="420")
    score(slide, bundle, folder / "out" / "slide", all_tiles=True)
    return folder


@pytest.fixture
def own_world(viewer_world: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    for name in ("slides", "out"):
        shutil.copytree(viewer_world / name, tmp_path / name)
    return tmp_path
