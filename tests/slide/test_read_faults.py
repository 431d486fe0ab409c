"""A network, disk or memory that fails is no damage: tried again, then the slide stops with that cause."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.slide_factory import texture

from stamp_deploy.errors import ReadError, SlideError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import Slide, open_slide, read_faults
from stamp_deploy.tiles import TileStatus, open_tiles

MESSAGES = {
    "TIFFReadTile: Input/output error": "input/output error",
    "Couldn't open slide.tif: Stale file handle": "stale file handle",
    "vips2tiff: Cannot allocate memory": "out of memory",
    "read: Connection timed out": "timed out",
    "Couldn't open slide.tif: No such file or directory": "no such file",
}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_faults, "WAITS_S", (0.0, 0.0, 0.0))


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    """A TIFF of deflated tiles: the region route."""
    path = tmp_path / "slide.tif"
    more = {"resolution": (20000, 20000), "resolutionunit": 3}
    tifffile.imwrite(path, texture(512, 512), photometric="rgb", tile=(128, 128), compression="deflate", **more)
    return path


def failing(slide: Slide, fails: Callable[[int], Exception | None]) -> list[int]:
    """Have the slide's backend fail: `fails` takes the number of the read, from 0, and gives its error."""
    backend, reads = slide._backend, [0]
    work = backend.read

    def read(*where: int) -> NDArray[np.uint8]:
        number, reads[0] = reads[0], reads[0] + 1
        error = fails(number)
        if error is not None:
            raise error
        return work(*where)

    backend.read = read  # type: ignore[method-assign]
    return reads


def statuses(slide: Slide) -> list[int]:
    """What becomes of the slide's 16 tiles."""
    tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=128), None, 0.0)
    with open_tiles(slide, tiles, batch=16, threads=1) as source:
        return [int(value) for batch in source for value in batch.status]


def test_a_fault_that_passes_costs_nothing(slide_file: Path) -> None:
    for message in ("Input/output error", "Cannot read tile"):  # a reader may hide the cause
        with open_slide(slide_file, route="openslide") as slide:
            assert slide.route.name == "openslide"
            failing(slide, lambda n, text=message: SlideError(text) if n % 5 == 0 else None)
            assert set(statuses(slide)) == {TileStatus.OK}


@pytest.mark.parametrize(("message", "cause"), MESSAGES.items())
def test_a_fault_that_stays_stops_the_slide(slide_file: Path, message: str, cause: str) -> None:
    """One region of 16: as damage it would be 6 %, and a budget could let it pass."""
    with open_slide(slide_file, route="openslide") as slide:
        reads = failing(slide, lambda n: SlideError(message) if n >= 5 else None)
        with pytest.raises(ReadError, match=f"{cause}, 4 times") as stopped:
            statuses(slide)
        assert reads[0] == 5 + 4
    assert ("memory" in stopped.value.remedy) == ("memory" in cause)
    assert "slide.tif" in str(stopped.value)
    assert stopped.value.exit_code == 4


def test_no_memory_is_no_damage(slide_file: Path) -> None:
    with open_slide(slide_file, route="openslide") as slide:
        failing(slide, lambda n: MemoryError() if n >= 5 else None)
        with pytest.raises(ReadError, match="out of memory"):
            statuses(slide)


def test_the_thumbnail_has_no_holes_of_faults(slide_file: Path) -> None:
    with open_slide(slide_file, route="openslide") as slide:
        failing(slide, lambda n: SlideError("Stale file handle"))
        with pytest.raises(ReadError, match="stale file handle"):
            slide.thumbnail(512)


def test_damage_is_damage(slide_file: Path) -> None:
    with open_slide(slide_file, route="openslide") as slide:
        reads = failing(slide, lambda n: SlideError("Corrupt JPEG data") if n in (5, 6) else None)
        found = statuses(slide)
        assert (found.count(TileStatus.CORRUPT), found.count(TileStatus.OK)) == (1, 15)
        assert reads[0] == 17


def test_the_system_is_asked(slide_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libtiff says "cannot read" of a truncated file and of a lost server: the file itself tells them apart."""
    with open_slide(slide_file, route="openslide") as slide:

        def lost(*_: object) -> bytes:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        monkeypatch.setattr(read_faults.os, "pread", lost)
        failing(slide, lambda n: SlideError("Cannot read tile"))
        with pytest.raises(ReadError, match="stale file handle"):
            statuses(slide)


@pytest.mark.parametrize(("size", "asked"), [(0, [0, 0, 0]), (1, [0, 0, 0]), (5, [0, 2, 4]), (6, [0, 3, 5])])
def test_the_system_is_asked_for_the_first_the_middle_and_the_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, asked: list[int]
) -> None:
    parts, places = [tmp_path / "a", tmp_path / "b"], []
    for part in parts:
        part.write_bytes(bytes(size))
    monkeypatch.setattr(read_faults.os, "pread", lambda handle, count, offset: places.append((count, offset)))
    assert read_faults.fault_of(SlideError("Cannot read tile"), parts) is None
    assert places == [(1, offset) for offset in asked] * 2
    parts[1].unlink()
    assert read_faults.fault_of(SlideError("Cannot read tile"), parts) == "no such file or directory"


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int failing(void) { return access(getenv("FAULT"), F_OK) == 0; }
size_t fread(void *to, size_t size, size_t count, FILE *file) {
    static size_t (*work)(void *, size_t, size_t, FILE *);
    if (!work) work = dlsym(RTLD_NEXT, "fread");
    if (failing()) { errno = EIO; return 0; }
    return work(to, size, count, file);
}
ssize_t pread(int from, void *to, size_t count, off_t at) {
    static ssize_t (*work)(int, void *, size_t, off_t);
    if (!work) work = dlsym(RTLD_NEXT, "pread");
    if (failing()) { errno = EIO; return -1; }
    return work(from, to, count, at);
}
ssize_t pread64(int from, void *to, size_t count, off_t at) { return pread(from, to, count, at); }
"""
READ = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
from stamp_deploy.slide import open_slide, read_faults
from stamp_deploy.errors import ReadError, SlideError
read_faults.WAITS_S = (0.0, 0.0)
with open_slide(sys.argv[1]) as slide:
    Path(sys.argv[2]).touch()
    slide._backend.forget()
    try:
        slide.read_region(0, 256, 256, 128, 128)
    except (ReadError, SlideError) as error:
        print(type(error).__name__, error)
"""


def test_a_disk_that_fails_beneath_openslide(slide_file: Path, tmp_path: Path) -> None:
    """A real EIO, put between OpenSlide and the system's library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the faulty disk cannot be built")
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(slide_file), str(tmp_path / "fault"), ":".join(sys.path)],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(shim), "FAULT": str(tmp_path / "fault")},
        check=True,
    )
    assert done.stdout.startswith("ReadError slide.tif: cannot be read: input/output error, 3 times"), done
