"""Pixels are right: the compiled route against OpenSlide and libvips, and faults where they belong.

Bound at native scale: both decode with libjpeg-turbo's accurate integer DCT and fancy upsampling, but
OpenSlide ships another release than the headers we build with, so a difference of 1 of 255 is allowed; on the
releases tried the pixels are identical.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.slide_factory import damage, texture, write_slide

from stamp_deploy import _tiler
from stamp_deploy.errors import SlideError
from stamp_deploy.grid import TileSet, make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.system.memory import fresh_pages
from stamp_deploy.tiles import StageTimes, TileSource, TileStatus, open_tiles
from stamp_deploy.tiles.read_plan import ReadPlan

NATIVE_BOUND = 1


def read_all(
    path: Path, route: str, *, tile_px: int, target_mpp: float, mpp: float | None = None, overlap_px: int = 0, **options
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], TileSet]:  # type: ignore[no-untyped-def]
    with open_slide(path, mpp=mpp, route=route) as slide:
        grid = make_grid(slide, target_mpp=target_mpp, tile_px=tile_px, overlap_px=overlap_px)
        tiles = select_tiles(grid, None, 0.0)
        pixels = np.zeros((len(tiles), tile_px, tile_px, 3), np.uint8)
        status = np.full(len(tiles), 99, np.uint8)
        with open_tiles(slide, tiles, **{"batch": 7, **options}) as source:
            for batch in source:
                assert (status[batch.index] == 99).all(), "a tile came twice"
                np.testing.assert_array_equal(batch.coords, tiles.coords[batch.index])
                pixels[batch.index], status[batch.index] = batch.pixels, batch.status
        assert (status != 99).all(), "a tile never came"
        return pixels, status, tiles


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.abs(a.astype(np.int64) - b.astype(np.int64))


def test_native_scale_is_openslides_on_a_real_slide(cmu_slide: Path) -> None:
    """Coded as RGB, with shared tables, and with edge tiles beyond the image."""
    ours, status, tiles = read_all(cmu_slide, "jpeg-tiff", tile_px=224, target_mpp=0.499)
    theirs, _, _ = read_all(cmu_slide, "openslide", tile_px=224, target_mpp=0.499)
    assert (status == TileStatus.OK).all()
    assert (tiles.coords[:, 0] + 224 > 2220).any(), "no tile reaches beyond the image"
    assert difference(ours, theirs).max() <= NATIVE_BOUND


@pytest.mark.parametrize("coding", ["rgb", "444", "422", "420"])
@pytest.mark.parametrize("tile", [240, 256])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_native_scale_is_openslides_for_every_coding(tmp_path: Path, coding: str, tile: int, bigtiff: bool) -> None:
    path = write_slide(tmp_path / "ü slide 🔬.svs", texture(700, 900), tile=tile, coding=coding, bigtiff=bigtiff)
    ours, status, _ = read_all(path, "jpeg-tiff", tile_px=160, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=160, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= NATIVE_BOUND


@pytest.mark.parametrize("target_mpp", [0.5, 1.0, 2.0, 4.0, 0.6173, 1.27])
@pytest.mark.parametrize("exact", [False, True])
def test_any_ratio_agrees_with_area_averaging(tmp_path: Path, target_mpp: float, exact: bool) -> None:
    """Reduced and full scale against exact area averaging of the decoded image, computed here in float."""
    path = write_slide(tmp_path / "a.svs", texture(1100, 1300, seed=3), coding="444", quality=95)
    ours, status, tiles = read_all(path, "jpeg-tiff", tile_px=64, target_mpp=target_mpp, exact=exact)
    with open_slide(path) as slide:
        full = slide.read_region(0, 0, 0, 1300, 1100).astype(np.float64)
    assert (status == TileStatus.OK).all()
    inside = np.flatnonzero((tiles.coords + tiles.grid.span_x <= (1300, 1100)).all(1))
    assert len(inside) > 2
    for i in inside[:: max(1, len(inside) // 9)]:
        x, y = tiles.coords[i]
        span = tiles.grid.span_x
        crop = full[y : y + int(span) + 2, x : x + int(span) + 2]
        want = area_average(crop, 0, 0, span, 64)
        error = np.abs(ours[i] - want)
        # fixed point costs half a grey level and a little; the reduced DCT is another low-pass filter
        assert error.max() <= (0.6 if exact else 24), (i, error.max())
        assert error.mean() <= (0.3 if exact else 1.5), (i, error.mean())


def area_average(image: NDArray[np.float64], x: int, y: int, span: float, size: int) -> NDArray[np.float64]:
    def weights(start: float, length: int) -> NDArray[np.float64]:
        matrix = np.zeros((size, length))
        for i in range(size):
            low, high = start + i * span / size, start + (i + 1) * span / size
            pixels = np.arange(length)
            matrix[i] = np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, None)
        return matrix / matrix.sum(1, keepdims=True)

    rows, columns = weights(y, image.shape[0]), weights(x, image.shape[1])
    return np.einsum("ir,rcd,jc->ijd", rows, image, columns, optimize=True)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 16, 1000])
def test_threads_and_batches_do_not_change_pixels(tmp_path: Path, threads: int, batch: int) -> None:
    path = write_slide(tmp_path / "a.svs", texture(900, 1300), tile=64)
    want, _, _ = read_all(path, "openslide", tile_px=100, target_mpp=0.5, overlap_px=30)
    ours, _, _ = read_all(path, "jpeg-tiff", tile_px=100, target_mpp=0.5, overlap_px=30, threads=threads, batch=batch)
    assert difference(ours, want).max() <= NATIVE_BOUND


def test_each_storage_tile_is_decoded_once_and_memory_is_given_back(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", texture(2000, 1100), tile=64)
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=100, overlap_px=20), None, 0.0)
        with open_tiles(slide, tiles, batch=8, threads=2) as source:
            for _ in source:
                pass
            assert source.times.storage_tiles == 32 * 18
            assert source.times.bytes_read > 0
            assert source.times.decode_s > 0
            pool = source.reader.pool_tiles  # type: ignore[attr-defined]
    assert pool < 32 * 18 / 3


@pytest.mark.parametrize("how", ["missing", "truncated", "garbage", "beyond"])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_spoilt_storage_tile_marks_exactly_the_tiles_it_touches(tmp_path: Path, how: str, scale: int) -> None:
    clean = write_slide(tmp_path / "clean.svs", texture(768, 1024), tile=128, levels=(4,))
    spoilt = tmp_path / "spoilt.svs"
    spoilt.write_bytes(clean.read_bytes())
    damage(spoilt, 3 * 8 + 4, how)  # row 3, column 4: pixels 512..640 x 384..512
    want, _, _ = read_all(clean, "jpeg-tiff", tile_px=100, target_mpp=0.5 * scale)
    ours, status, tiles = read_all(spoilt, "jpeg-tiff", tile_px=100, target_mpp=0.5 * scale)
    span = tiles.grid.span_x
    x, y = tiles.coords.T
    touched = (x < 640) & (x + span > 512) & (y < 512) & (y + span > 384)
    expected = TileStatus.MISSING if how == "missing" else TileStatus.CORRUPT
    np.testing.assert_array_equal(status, np.where(touched, expected, TileStatus.OK))
    np.testing.assert_array_equal(ours[~touched], want[~touched])


def test_the_coarser_level_is_read_where_it_is_fine_enough(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", texture(1024, 1024), mpp=0.25, levels=(4,))
    with open_slide(path) as slide:
        for target, level, scale in ((0.25, 0, 1), (0.5, 0, 2), (0.99, 0, 2), (1.0, 1, 1), (2.0, 1, 2)):
            tiles = select_tiles(make_grid(slide, target_mpp=target, tile_px=64), None, 0.0)
            with open_tiles(slide, tiles, batch=4) as source:
                assert (source.plan.level, source.plan.dct_scale) == (level, scale), source.plan
                assert source.plan.residual_x >= 1 - 1e-3


def test_a_consumer_that_leaves_stops_the_reader(cmu_slide: Path) -> None:
    before = threading.active_count()
    with open_slide(cmu_slide) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.499, tile_px=64), None, 0.0)
        source = open_tiles(slide, tiles, batch=4, threads=2)
        next(iter(source))
        source.close()
        source.close()
    assert threading.active_count() == before


def test_a_reader_that_fills_every_slot_is_ahead(cmu_slide: Path) -> None:
    with open_slide(cmu_slide) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.499, tile_px=64), None, 0.0)
        with open_tiles(slide, tiles, batch=len(tiles) // 8, slots=4) as source:
            while not source.ahead:  # nobody takes a batch, so it must come to this
                time.sleep(0.01)
            assert source.times.storage_tiles < slide.levels[0].width // 240 * (slide.levels[0].height // 240)
            assert sum(len(batch.index) for batch in source) == len(tiles)


def test_a_time_limit_hands_the_rest_over_as_timed_out(cmu_slide: Path) -> None:
    with open_slide(cmu_slide) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.499, tile_px=64), None, 0.0)
        with open_tiles(slide, tiles, batch=4, time_limit_s=1e-9) as source:
            for batch in source:
                assert (batch.status == TileStatus.TIMEOUT).all()
            assert source.timeout == len(tiles)


def test_slots_are_the_callers(cmu_slide: Path) -> None:
    made: list[NDArray[np.uint8]] = []

    def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        made.append(np.zeros(shape, np.uint8))
        return made[-1]

    with open_slide(cmu_slide) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.499, tile_px=64), None, 0.0)
        with open_tiles(slide, tiles, batch=4, slots=2, allocate=allocate) as source:
            for batch in source:
                assert any(np.shares_memory(batch.pixels, slot) for slot in made)
    assert len(made) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (b"", 1, 64, 64, 1),
        (b"", 6, 60, 64, 8),
        (b"", 6, 0, 64, 1),
        (b"", 6, 64, 64, 3),
        (b"", 6, 65536, 64, 1),
        (b"\xff\xd8not tables", 6, 64, 64, 1),
    ],
)
def test_the_core_refuses_bad_arguments(arguments: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError):
        _tiler.Worker(*arguments)


def job(**changes: object) -> _tiler.Job:
    one = np.ones(1, np.int64)
    given: dict[str, object] = {
        "pool": np.zeros((2, 1000), np.uint8), "slot": np.full((1, 1), -1, np.int32),
        "state": np.zeros((1, 1), np.uint8), "layout": np.zeros((1, 1), np.uint8), "image_w": 64, "image_h": 64,
        "fds": np.zeros(1, np.int32), "offsets": one, "sizes": one, "cells": np.zeros(1, np.int32),
        "slots": np.zeros(1, np.int32),
        "corners": np.zeros((1, 2)), "out": np.zeros((1, 8, 8, 3), np.uint8), "status": np.zeros(1, np.uint8),
    }  # fmt: skip
    values = list({**given, **changes}.values())
    decoded, reads, tiles = _tiler.Decoded(*values[:6]), _tiler.Reads(*values[6:11]), _tiler.Tiles(*values[11:])  # type: ignore[arg-type]
    return _tiler.Job(decoded, reads, tiles, _tiler.Stop())


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": np.array([2], np.int32)},
        {"slots": np.array([-1], np.int32)},
        {"slots": np.zeros(2, np.int32)},
        {"cells": np.array([1], np.int32)},
        {"fds": np.zeros(2, np.int32)},
        {"offsets": np.array([-1])},
        {"sizes": np.array([-1])},
        {"sizes": np.ones(2, np.int64)},
        {"pool": np.zeros((0, 1000), np.uint8)},
        {"state": np.zeros((2, 1), np.uint8)},
        {"layout": np.zeros((1, 2), np.uint8)},
        {"corners": np.zeros((1, 3))},
        {"corners": np.full((1, 2), np.nan)},
        {"corners": np.full((1, 2), 1e12)},
        {"out": np.zeros((2, 8, 8, 3), np.uint8)},
        {"status": np.zeros(2, np.uint8)},
        {"image_w": 0},
    ],
)
def test_the_core_checks_every_buffer(changes: dict[str, object]) -> None:
    job()
    with pytest.raises(ValueError):
        job(**changes)


def test_a_worker_refuses_a_job_of_another_size() -> None:
    worker = _tiler.Worker(b"", 6, 64, 64, 1, 8)
    with pytest.raises(ValueError, match="slots"):
        worker.run(job())
    with pytest.raises(ValueError, match="tile"):
        worker.run(job(pool=np.zeros((2, worker.slot_bytes), np.uint8), out=np.zeros((1, 9, 8, 3), np.uint8)))
    for size in (0.5, 600.0, np.nan):
        with pytest.raises(ValueError):
            _tiler.Worker(b"", 6, 64, 64, 1, 8, size, 1.0)
    with pytest.raises(ValueError):
        _tiler.Worker(b"", 6, 64, 64, 1, 0)


def test_times_start_at_nothing() -> None:
    assert StageTimes().storage_tiles == 0


def test_a_pool_that_grows_keeps_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.tiles import jpeg_reader, slot_pool

    path = write_slide(tmp_path / "a.svs", texture(700, 900), tile=64, coding="420")
    want, _, _ = read_all(path, "jpeg-tiff", tile_px=50, target_mpp=0.5 * 1.3, mpp=0.5)
    monkeypatch.setattr(slot_pool, "ROOM_BYTES", 1)
    monkeypatch.setattr(jpeg_reader, "LIVE_BYTES", 1)
    pixels, status, _ = read_all(path, "jpeg-tiff", tile_px=50, target_mpp=0.5 * 1.3, mpp=0.5, threads=2)
    assert (status == TileStatus.OK).all()
    np.testing.assert_array_equal(pixels, want)


@pytest.mark.parametrize("shape", [(3, 5, 7), (0, 4), (1,)])
def test_fresh_pages_are_zeros_to_write_to(shape: tuple[int, ...]) -> None:
    pages = fresh_pages(shape)
    assert pages.shape == shape
    assert pages.dtype == np.uint8
    assert pages.flags.c_contiguous
    assert not pages.any()
    pages[...] = 7
    assert (pages == 7).all()


def test_the_slot_that_was_freed_last_is_filled_next(cmu_slide: Path) -> None:
    """A consumer that keeps up sees three slots at most (its own, a filled one, one being filled)."""
    wanted = threading.Semaphore(0)
    with open_slide(cmu_slide, mpp=0.5) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=64), None, 0.0)

    class Waits:
        """A reader that fills a slot when it is told to."""

        plan, order, times = ReadPlan("jpeg-tiff", 0, 1, 1.0, 1.0, ""), np.arange(len(tiles)), StageTimes()

        def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
            while not wanted.acquire(timeout=0.01) and not stop.reached:
                pass
            return np.zeros(len(index), np.uint8)

        def close(self) -> None:
            pass

    seen, stop = [], _tiler.Stop()
    with TileSource(Waits(), tiles, 32, 6, stop, fresh_pages) as source:
        batches = iter(source)
        for _ in range(len(tiles) // 32):
            wanted.release()
            seen.append(next(batches).pixels.ctypes.data)
    assert len(seen) > 6
    assert len(set(seen)) <= 3


def test_a_reader_that_hangs_is_left_to_itself_after_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` comes back although the decoder does not, and the slide that it may use stays open."""
    monkeypatch.setattr("stamp_deploy.tiles.source.LIMIT_GRACE_S", 0.05)
    release = threading.Event()
    with open_slide(write_slide(tmp_path / "slide.svs", texture(256, 256))) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=64), None, 0.0)

    class Hangs:
        plan, order, times = ReadPlan("jpeg-tiff", 0, 1, 1.0, 1.0, ""), np.arange(len(tiles)), StageTimes()

        def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
            release.wait()
            return np.zeros(len(index), np.uint8)

        def close(self) -> None:
            raise AssertionError("the decoder is still at work")

    late = time.monotonic()
    source = TileSource(Hangs(), tiles, 4, 2, _tiler.Stop(late), fresh_pages, late, Path("slide.svs"))
    with pytest.raises(SlideError, match=r"slide\.svs: was given up: a decoder did not come back"):
        next(iter(source))
    source.close()
    assert source.hung
    release.set()
    source._thread.join()


def test_the_time_limit_covers_the_thumbnail(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "slide.svs", texture(600, 600))) as slide:
        slide.deadline = time.monotonic()
        with pytest.raises(SlideError, match="reading its thumbnail took longer than the time limit"):
            slide.thumbnail(256)
        slide.deadline = time.monotonic() + 600
        assert slide.thumbnail(256).shape == (256, 256, 3)
