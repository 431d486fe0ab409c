"""The index of storage tiles: several files, several grids with an origin, framing, absent and missing."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.slide_factory import texture, write_slide
from tiles.test_tiles import difference

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import Slide, open_slide
from stamp_deploy.slide.storage import Framing, StorageGrid, StorageIndex
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tiles.areas_reader import AreasReader

STORAGE, WIDTH, HEIGHT = 64, 512, 448


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return open_slide(write_slide(tmp_path / "a.svs", texture(HEIGHT, WIDTH), tile=STORAGE, coding="422"))


def grid_of(slide: Slide) -> StorageGrid:
    assert slide.storage is not None
    (grid,) = slide.storage.levels[0]
    assert isinstance(grid, StorageGrid)
    return grid


def give(slide: Slide, *grids: StorageGrid, files: tuple[Path, ...] = ()) -> None:
    """Let the tiler read a slide by another index."""
    slide.storage = StorageIndex((slide.path, *files), (grids,))
    slide._held.add(files)


def read(slide: Slide, factor: float = 1.0, tile_px: int = 40, threads: int = 1) -> tuple[NDArray[np.uint8], ...]:
    tiles = select_tiles(make_grid(slide, target_mpp=0.5 * factor, tile_px=tile_px), None, 0.0)
    pixels = np.zeros((len(tiles), tile_px, tile_px, 3), np.uint8)
    status = np.full(len(tiles), 99, np.uint8)
    with open_tiles(slide, tiles, batch=7, threads=threads) as source:
        for batch in source:
            pixels[batch.index], status[batch.index] = batch.pixels, batch.status
    return pixels, status, tiles.coords


def part(grid: StorageGrid, rows: slice, columns: slice, **changes: int) -> StorageGrid:
    """Some storage tiles of a grid, as an area at the place where they lie."""
    offsets = grid.offsets[rows, columns]
    x, y = (columns.start or 0) * STORAGE, (rows.start or 0) * STORAGE
    return replace(
        grid, offsets=offsets, sizes=grid.sizes[rows, columns], files=grid.files[rows, columns],
        width=min(offsets.shape[1] * STORAGE, WIDTH - x), height=min(offsets.shape[0] * STORAGE, HEIGHT - y),
        **{"origin_x": x, "origin_y": y, **changes},
    )  # fmt: skip


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("threads", [1, 3])
def test_areas_together_show_what_one_grid_shows(slide: Slide, factor: float, threads: int) -> None:
    """Tiles inside an area come by the area's own reader; those across two as regions; all as from one grid."""
    with slide:
        want, _, coords = read(slide, factor)
        whole = grid_of(slide)
        give(slide, part(whole, slice(0, 7), slice(0, 3)), part(whole, slice(0, 7), slice(3, 8)))
        with open_tiles(
            slide, select_tiles(make_grid(slide, target_mpp=0.5, tile_px=40), None, 0.0), batch=4
        ) as source:
            assert isinstance(source.reader, AreasReader)
        ours, status, _ = read(slide, factor, threads=threads)
        assert (status == TileStatus.OK).all()
        across = (coords[:, 0] < 3 * STORAGE) & (coords[:, 0] + 40 * factor > 3 * STORAGE)
        assert across.any()
        inside = (coords[:, 0] + 40 * factor <= WIDTH) & (coords[:, 1] + 40 * factor <= HEIGHT)
        np.testing.assert_array_equal(ours[~across & inside], want[~across & inside])
        # beyond an area it is averaged in RGB; across two it is a region of OpenSlide
        assert difference(ours, want).mean() < (0.5 if factor == 1 else 6)


def test_an_area_lies_at_its_origin_and_the_rest_is_glass(slide: Slide) -> None:
    with slide:
        want, _, _ = read(slide, tile_px=32)
        whole = grid_of(slide)
        give(slide, part(whole, slice(0, 2), slice(0, 2)), part(whole, slice(2, 4), slice(2, 5), origin_x=224))
        ours, status, coords = read(slide, tile_px=32)
        assert (status == TileStatus.OK).all()
        at = {tuple(corner): i for i, corner in enumerate(coords.tolist())}
        for x, y, from_x, from_y in ((32, 64, 32, 64), (224, 128, 128, 128), (384, 224, 288, 224)):
            np.testing.assert_array_equal(ours[at[x, y]], want[at[from_x, from_y]])
        for corner in ((128, 0), (192, 128), (416, 128), (0, 256)):
            assert (ours[at[corner]] == 255).all()


def test_a_grid_may_begin_before_its_level(slide: Slide) -> None:
    """A negative origin: the first storage tiles lie half outside."""
    with slide:
        want, _, _ = read(slide, tile_px=32)
        give(slide, replace(grid_of(slide), origin_x=-32, origin_y=-64))
        ours, _, coords = read(slide, tile_px=32)
        at = {tuple(corner): i for i, corner in enumerate(coords.tolist())}
        np.testing.assert_array_equal(ours[at[0, 0]], want[at[32, 64]])
        np.testing.assert_array_equal(ours[at[224, 96]], want[at[256, 160]])


@pytest.mark.parametrize("fragments", [1, 3])
def test_storage_tiles_lie_in_several_files_and_in_fragments(slide: Slide, tmp_path: Path, fragments: int) -> None:
    with slide:
        want, _, _ = read(slide)
        whole, data = grid_of(slide), slide.path.read_bytes()
        files = [tmp_path / f"{i}.part" for i in range(2)]
        content = [bytearray(b"head"), bytearray()]
        offsets, sizes, numbers = (np.zeros_like(whole.sizes) for _ in range(3))
        for i, (offset, size) in enumerate(zip(whole.offsets.flat, whole.sizes.flat, strict=True)):
            run, step = b"", -(-int(size) // fragments)
            for start in range(int(offset), int(offset + size), step):
                piece = data[start : min(start + step, int(offset + size))]
                run += struct.pack("<HHL", 0xFFFE, 0xE000, len(piece)) + piece
            offsets.flat[i], sizes.flat[i], numbers.flat[i] = len(content[i % 2]), len(run), 1 + i % 2
            content[i % 2] += run
        for file, bytes_ in zip(files, content, strict=True):
            file.write_bytes(bytes_)
        index = replace(
            whole, offsets=offsets, sizes=sizes, files=numbers.astype(np.int32), framing=Framing.DICOM_ITEMS
        )  # fmt: skip
        give(slide, index, files=tuple(files))
        for threads in (1, 2):
            ours, status, _ = read(slide, threads=threads)
            assert (status == TileStatus.OK).all()
            np.testing.assert_array_equal(ours, want)
        damaged = sizes.copy()
        damaged[0, 0] -= 1
        give(slide, replace(index, sizes=damaged), files=tuple(files))
        _, status, coords = read(slide)
        touches = (coords < STORAGE).all(1)
        np.testing.assert_array_equal(status, np.where(touches, TileStatus.CORRUPT, TileStatus.OK))
        files[1].write_bytes(content[1] + b"more")
        with pytest.raises(SlideError, match="while it was read"):
            read(slide)


@pytest.mark.parametrize("is_glass", [True, False])
def test_absent_is_glass_or_missing(slide: Slide, is_glass: bool) -> None:
    with slide:
        whole = grid_of(slide)
        sizes = whole.sizes.copy()
        sizes[2, 2] = 0
        give(slide, replace(whole, sizes=sizes, absent_is_glass=is_glass))
        pixels, status, coords = read(slide, tile_px=32)
        lacks = ((coords >= 2 * STORAGE) & (coords < 3 * STORAGE)).all(1)
        np.testing.assert_array_equal(status == TileStatus.OK, ~lacks | is_glass)
        assert not is_glass or (pixels[lacks] == 255).all()


@pytest.mark.parametrize("end", [10**9, 2**62])
def test_an_offset_beyond_the_file_is_damage(slide: Slide, end: int) -> None:
    with slide:
        whole = grid_of(slide)
        offsets = whole.offsets.copy()
        offsets[1, 1] = end
        give(slide, replace(whole, offsets=offsets))
        _, status, coords = read(slide, tile_px=32)
        touches = ((coords >= STORAGE) & (coords < 2 * STORAGE)).all(1)
        np.testing.assert_array_equal(status == TileStatus.CORRUPT, touches)


def test_a_grid_has_the_storage_tiles_that_its_size_needs(slide: Slide) -> None:
    with slide, pytest.raises(ValueError, match="storage tiles"):
        replace(grid_of(slide), width=WIDTH + 1)
