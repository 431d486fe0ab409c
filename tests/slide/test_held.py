"""A slide that changes while it is read is never scored as a mixture under one hash."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import open_tiles


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "a.svs", texture(512, 512), tile=128)


def other(path: Path) -> bytes:
    return write_slide(path.with_name("other.svs"), texture(512, 512, seed=4), tile=128).read_bytes()


def overwrite(path: Path) -> None:
    path.write_bytes(other(path))


def overwrite_in_secret(path: Path) -> None:
    """In place, with the time of the change set back."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    fresh = path.with_name("fresh.svs")
    shutil.copy2(path, fresh)
    os.replace(fresh, path)


def append(path: Path) -> None:
    with path.open("ab") as handle:
        handle.write(b"more")


CHANGES = (overwrite, overwrite_in_secret, replace, append, Path.unlink)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("hashed_before", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_a_change_is_found_when_the_hash_is_asked_for(
    slide_path: Path, change, hashed_before: bool, closed: bool
) -> None:  # type: ignore[no-untyped-def]
    with open_slide(slide_path) as slide:
        if hashed_before:
            slide.sha256()
        change(slide_path)
        if not closed:
            with pytest.raises(SlideError, match=r"while it was read|cannot be read"):
                slide.sha256()
    with pytest.raises(SlideError, match=r"while it was read|cannot be read"):
        slide.sha256()


def test_links_and_rights_are_no_change(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        before = slide.sha256()
        os.link(slide_path, slide_path.with_name("backup.svs"))
        slide_path.chmod(0o600)
        assert slide.sha256() == before
    assert slide.sha256() == before == hashlib.sha256(slide_path.read_bytes()).hexdigest()


def test_tiles_come_from_the_file_that_was_opened(slide_path: Path) -> None:
    """The tiler reads through a descriptor of it, whatever its name stands for by then."""
    content = slide_path.read_bytes()
    with open_slide(slide_path) as slide:
        fresh = slide_path.with_name("fresh.svs")
        fresh.write_bytes(other(slide_path))
        os.replace(fresh, slide_path)
        descriptor = slide.descriptor()
        assert os.pread(descriptor, len(content) + 1, 0) == content
        os.close(descriptor)


def test_no_descriptor_is_left_open(slide_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with open_slide(slide_path) as slide:
            slide.sha256()
            tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=128), None, 0.0)
            with open_tiles(slide, tiles, batch=4) as source:
                list(source)
        with pytest.raises(SlideError):
            open_slide(slide_path.with_name("none.svs"))
    assert len(os.listdir("/proc/self/fd")) == before
