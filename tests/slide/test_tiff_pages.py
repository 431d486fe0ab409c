"""A chain of TIFF directories that bites its tail, or is endless in all but name, is refused at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import tifffile
from faults.kinds.tiff import Tiff
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import texture, write_slide

from stamp_deploy.slide import tiff_pages as module
from stamp_deploy.slide.tiff_pages import tiff_pages

SLIDE_PACKAGE = Path(module.__file__).parent


def chain(path: Path, last_to: int, *, bigtiff: bool = False) -> Path:
    """A slide of three directories whose last one points at directory `last_to`."""
    write_slide(path, texture(256, 256), tile=64, levels=(2, 4), bigtiff=bigtiff)
    tiff = Tiff(path.read_bytes())
    tiff.put(tiff.word, tiff.links[-1], tiff.get(tiff.word, tiff.links[last_to]))
    path.write_bytes(tiff.data)
    return path


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("last_to", [0, 1, 2])
def test_a_circle_is_refused_and_not_walked_for_ever(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    last_to: int,
    bigtiff: bool,
) -> None:
    slide = chain(tmp_path / "circle.svs", last_to, bigtiff=bigtiff)
    with tifffile.TiffFile(slide) as tiff, pytest.raises(ValueError, match="circle"):
        list(tiff_pages(tiff))
    done = runner("inspect", slide)
    assert done.code in (0, 4), done.err
    assert done.code == 0 or len(done.err.splitlines()) == 1


def test_a_sound_chain_is_walked_whole(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "sound.svs", texture(256, 256), tile=64, levels=(2, 4))
    with tifffile.TiffFile(slide) as tiff:
        assert [page.imagewidth for page in tiff_pages(tiff)] == [256, 128, 64]


def test_more_directories_than_any_slide_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 2)
    slide = write_slide(tmp_path / "many.svs", texture(256, 256), tile=64, levels=(2, 4))
    with tifffile.TiffFile(slide) as tiff, pytest.raises(ValueError, match="more than 2"):
        list(tiff_pages(tiff))


def test_nobody_walks_pages_in_another_way() -> None:
    walkers = set()
    for path in SLIDE_PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "pages":
                walkers.add(path.name)
    # the sub-pages of one page, which its tag lists, and what SCN and BIF records say of pages: no pages of tifffile
    assert walkers == {"tiff_pages.py", "tiff.py", "jpeg_scn.py", "bif_layout.py", "jpeg_bif.py"}
