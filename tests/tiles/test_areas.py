"""Which reader a tile belongs to, how streams are read and decoded, and how tiles are handed over: by hand."""

from __future__ import annotations

import io
import math
import os
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy.codecs import Coding, StreamKind
from stamp_deploy.codecs import decoder as decoder_module
from stamp_deploy.codecs.colour import ycbcr_to_rgb
from stamp_deploy.codecs.decode import decode
from stamp_deploy.codecs.decoder import StreamError, read_stream
from stamp_deploy.grid import Grid
from stamp_deploy.slide.left_out import LeftOut, _union
from stamp_deploy.slide.storage.index import Framing, StorageGrid, StorageIndex
from stamp_deploy.tiles import areas_reader, source
from stamp_deploy.tiles.areas_reader import GLASS, SEVERAL, AreasReader, owners
from stamp_deploy.tiles.reader import StageTimes, Stop, TileStatus
from stamp_deploy.tiles.source import TileSource

AREA = SimpleNamespace(origin_x=100, origin_y=40, width=60, height=20)
OTHER = SimpleNamespace(origin_x=160, origin_y=10, width=30, height=300)


def owner_of(x: int, y: int, span: tuple[float, float] = (40.0, 20.0)) -> int:
    """Of one tile over a level with downsamples of 4 in x and 2 in y: 10 x 10 px of the level."""
    slide = SimpleNamespace(levels=[None, SimpleNamespace(downsample_x=4.0, downsample_y=2.0)])
    grid = SimpleNamespace(span_x=span[0], span_y=span[1])
    tiles = type("Tiles", (), {"grid": grid, "coords": np.array([[x, y]]), "__len__": lambda self: 1})()
    return int(owners(slide, tiles, (AREA, OTHER), SimpleNamespace(level=1))[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "y", "owner"),
    [
        (400, 80, 0),  # its first corner
        (360, 80, GLASS), (364, 80, 0),  # ends where it begins, and a pixel of the level later
        (400, 60, GLASS), (400, 62, 0),
        (400, 120, GLASS), (400, 118, 0),
        (640, 20, 1), (640, 0, GLASS), (600, 80, 0), (604, 80, SEVERAL), (604, 124, 1), (636, 200, 1),
        (600, 200, GLASS),
        (760, 80, GLASS), (756, 80, 1), (0, 0, GLASS),
    ],
)  # fmt: skip
def test_a_tile_belongs_to_the_area_that_it_shares_a_pixel_with(x: int, y: int, owner: int) -> None:
    assert owner_of(x, y) == owner


class Part:
    """Stands in for the reader of one area: writes its number and the tile's place in it."""

    made: list[Part]

    def __init__(self, slide: Any, tileset: Any, grid: Any, plan: Any, **more: Any) -> None:
        if grid.number == 7:
            raise ValueError("this area cannot be read")
        self.number, self.tiles, self.closed = grid.number, tileset, 0
        self.order = np.arange(len(tileset))[::-1]
        self.times = StageTimes(read_s=1.0, decode_s=2.0, resample_s=3.0, storage_tiles=4, bytes_read=5)
        self.made.append(self)

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out[:] = (10 * self.number + index)[:, None, None, None]
        return np.full(len(index), TileStatus.OK, np.uint8)

    def close(self) -> None:
        self.closed += 1


class Regions:
    times = StageTimes(read_s=0.5, decode_s=0.25, resample_s=0.125)

    def __init__(self, slide: Any, tileset: Any, stop: Any) -> None:
        self.failure: str | None = None

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out[:] = (200 + index)[:, None, None, None]
        self.failure = "a region"
        return np.full(len(index), TileStatus.CORRUPT, np.uint8)


@pytest.fixture
def areas(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tiles 0 to 7 belong to areas 1, 0, glass, 1, several, 0, 1, glass."""
    owner = np.array([1, 0, GLASS, 1, SEVERAL, 0, 1, GLASS])
    Part.made = []
    monkeypatch.setattr(areas_reader, "owners", lambda *given: owner)
    monkeypatch.setattr(areas_reader, "RegionReader", Regions)
    monkeypatch.setattr(areas_reader, "_reader_of", lambda grid: Part)

    def make(*numbers: int, stop: Stop | None = None) -> AreasReader:
        grids = tuple(SimpleNamespace(number=number) for number in numbers)
        tiles = SimpleNamespace(part=lambda own: own)
        return AreasReader(None, tiles, grids, None, threads=1, exact=False, stop=stop or Stop())  # type: ignore[arg-type]

    return make


def test_areas_are_served_one_after_the_other_each_in_its_own_order(areas: Any) -> None:
    reader = areas(0, 1)
    assert [part.tiles.tolist() for part in Part.made] == [[1, 5], [0, 3, 6]]
    assert reader.order.tolist() == [5, 1, 6, 3, 0, 2, 4, 7]
    out = np.zeros((8, 1, 1, 3), np.uint8)
    status = reader.fill(reader.order, out)
    assert out[:, 0, 0, 0].tolist() == [1, 0, 12, 11, 10, 255, 204, 255]
    wanted = [TileStatus.OK] * 6 + [TileStatus.CORRUPT, TileStatus.OK]
    assert status.tolist() == wanted and reader.failure == "a region"
    assert reader.times == StageTimes(read_s=2.5, decode_s=4.25, resample_s=6.125, storage_tiles=8, bytes_read=10)
    reader.close()
    assert [part.closed for part in Part.made] == [1, 1]


def test_batches_may_cut_an_area_anywhere(areas: Any) -> None:
    reader = areas(0, 1)
    for cut in range(1, 8):
        out = np.zeros((8, 1, 1, 3), np.uint8)
        parts = [reader.fill(reader.order[part], out[part]) for part in (slice(0, cut), slice(cut, 8))]
        assert out[:, 0, 0, 0].tolist() == [1, 0, 12, 11, 10, 255, 204, 255] and len(np.concatenate(parts)) == 8


def test_after_a_stop_nothing_more_is_filled(areas: Any) -> None:
    stop = Stop()
    reader = areas(0, 1, stop=stop)
    stop.set()
    out = np.zeros((8, 1, 1, 3), np.uint8)
    assert (reader.fill(reader.order, out) == TileStatus.TIMEOUT).all() and not out.any()


def test_an_area_that_cannot_be_opened_closes_the_others(areas: Any) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        areas(0, 7)
    assert [part.closed for part in Part.made] == [1]


# What a file leaves out


def test_what_any_level_leaves_out_counts_on_the_first_levels_cells() -> None:
    fine = LeftOut(np.array([[True, False, False, False], [False] * 4]), 10.0, 20.0)
    coarse = LeftOut(np.array([[False, True]]), 20.0, 40.0)
    union = _union([fine, coarse])
    assert union is not None and (union.cell_w, union.cell_h) == (10.0, 20.0)
    assert union.cells.tolist() == [[True, False, True, True], [False, False, True, True]]
    assert _union([LeftOut(np.zeros((2, 2), bool), 1, 1)] * 2) is None


# Storage tiles


def storage(**change: Any) -> StorageGrid:
    offsets = np.arange(12, dtype=np.int64).reshape(3, 4)
    given = {"offsets": offsets, "sizes": offsets + 1, "files": (offsets % 2).astype(np.int32), **change}
    return StorageGrid(60, 40, 16, 16, 2, b"", absent_is_glass=True, **given)


def test_a_grid_is_cropped_to_the_top_left() -> None:
    small = storage().cropped(33, 16)
    assert (small.width, small.height) == (33, 16)
    assert (small.offsets.tolist(), small.sizes.tolist()) == ([[0, 1, 2]], [[1, 2, 3]])
    assert small.files.tolist() == [[0, 1, 0]]
    assert storage().cropped(999, 999).offsets.shape == (3, 4)


def test_scales_are_those_that_all_grids_of_a_level_have() -> None:
    plain = storage(coding=Coding.DEFLATE)
    odd = StorageGrid(60, 40, 20, 20, 2, b"", np.zeros((2, 3), np.int64), np.ones((2, 3), np.int64), True)
    assert (storage().scales, odd.scales, plain.scales) == ((1, 2, 4, 8), (1, 2, 4), (1,))
    index = StorageIndex((Path("x"),), ((storage(),), (storage(), odd), (odd, plain), "no"))
    assert [index.scales(level) for level in range(4)] == [(1, 2, 4, 8), (1, 2, 4), (1,), ()]
    assert index.part([3, 1]).levels == ("no", index.levels[1]) and index.coding is Coding.JPEG


def test_what_its_streams_are() -> None:
    grid = storage(coding=Coding.JPEG_2000, has_differences=True, framing=Framing.DICOM_ITEMS)
    kind = StorageGrid(60, 30, 32, 16, 6, b"", *[np.ones((2, 2), np.int64)] * 2, True, coding=Coding.JPEG_2000).stream(
        4
    )
    assert (kind.width, kind.height, kind.is_ycbcr, kind.scale, kind.shape) == (32, 16, True, 4, (4, 8, 3))
    assert grid.in_items and grid.stream().has_differences and not grid.stream().is_ycbcr
    assert StreamKind(**kind.to_json()) == kind


class TestStreams:
    """Read from a file, and decoded."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Any:
        (tmp_path / "f").write_bytes(bytes(range(200)))
        handle = os.open(tmp_path / "f", os.O_RDONLY)
        yield handle
        os.close(handle)

    def test_a_stream_is_read_from_its_place_however_short_the_reads(
        self, file: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.pread
        monkeypatch.setattr(decoder_module.os, "pread", lambda fd, size, at: real(fd, min(size, 7), at))
        assert read_stream(file, 50, 40, in_items=False) == bytes(range(50, 90))
        with pytest.raises(StreamError, match="beyond the end"):
            read_stream(file, 190, 11, in_items=False)
        monkeypatch.setattr(decoder_module, "MAX_STREAM_BYTES", 40)
        assert len(read_stream(file, 0, 40, in_items=False)) == 40
        with pytest.raises(StreamError, match="41 bytes"):
            read_stream(file, 0, 41, in_items=False)

    def test_fragments_are_joined_up_to_the_delimiter(self, tmp_path: Path) -> None:
        def item(data: bytes, tag: bytes = b"\xfe\xff\x00\xe0") -> bytes:
            return tag + len(data).to_bytes(4, "little") + data

        end = item(b"", b"\xfe\xff\xdd\xe0")
        for run, found in (
            (item(b"abc") + item(b"") + item(b"de"), b"abcde"),
            (item(b"abc") + end + item(b"de"), b"abc"),
            (item(b"abc") + item(b"d" * 300), b"abc" + b"d" * 300),
            (item(b"abc")[:-1], None),
            (item(b"abc") + b"\xfe\xff\x00", None),
            (item(b"abc", b"\xfe\xff\x01\xe0"), None),
        ):
            (tmp_path / "f").write_bytes(b"xx" + run)
            handle = os.open(tmp_path / "f", os.O_RDONLY)
            try:
                if found is None:
                    with pytest.raises(StreamError, match="fragments are damaged"):
                        read_stream(handle, 2, len(run), in_items=True)
                else:
                    assert read_stream(handle, 2, len(run), in_items=True) == found
            finally:
                os.close(handle)

    PIXELS = np.random.default_rng(3).integers(0, 256, (8, 12, 3), np.uint8)

    def test_a_plain_stream_is_rows_of_pixels(self) -> None:
        kind = StreamKind(Coding.DEFLATE, 12, 8)
        found = decode(zlib.compress(self.PIXELS.tobytes()), kind)
        np.testing.assert_array_equal(found, self.PIXELS)
        for wrong in (self.PIXELS[:7], self.PIXELS[:, :11]):
            with pytest.raises(ValueError, match="ends early"):
                decode(zlib.compress(np.ascontiguousarray(wrong).tobytes()), kind)
        more = decode(zlib.compress(self.PIXELS.tobytes() + bytes(500)), kind)
        np.testing.assert_array_equal(more, self.PIXELS)  # what libtiff does: padding is not looked at

    def test_differences_run_along_a_row_in_each_colour_and_wrap(self) -> None:
        kept = np.diff(self.PIXELS, axis=1, prepend=np.zeros((8, 1, 3), np.uint8))
        found = decode(zlib.compress(kept.tobytes()), StreamKind(Coding.DEFLATE, 12, 8, has_differences=True))
        np.testing.assert_array_equal(found, self.PIXELS)

    def test_webp_of_another_size_or_kind_is_refused(self) -> None:
        def webp(pixels: NDArray[np.uint8]) -> bytes:
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "WEBP", lossless=True)
            return out.getvalue()

        np.testing.assert_array_equal(decode(webp(self.PIXELS), StreamKind(Coding.WEBP, 12, 8)), self.PIXELS)
        for kind in (StreamKind(Coding.WEBP, 8, 12), StreamKind(Coding.WEBP, 12, 9)):
            with pytest.raises(ValueError, match="something else"):
                decode(webp(self.PIXELS), kind)
        with pytest.raises(ValueError, match="something else"):
            decode(webp(np.dstack([self.PIXELS, self.PIXELS[..., :1] // 2])), StreamKind(Coding.WEBP, 12, 8))

    def test_colours_are_libjpegs(self) -> None:
        every = np.random.default_rng(5).integers(0, 256, (200, 200, 3), np.uint8)
        ours, theirs = ycbcr_to_rgb(every), np.asarray(Image.fromarray(every, "YCbCr").convert("RGB"))
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert ycbcr_to_rgb(np.array([[76, 85, 255]], np.uint8)).tolist() == [[254, 0, 0]]
        assert ycbcr_to_rgb(np.array([[29, 255, 107]], np.uint8)).tolist() == [[0, 0, 254]]

    def test_which_codings_are_reduced_and_plain(self) -> None:
        assert {c for c in Coding if c.is_reducible} == {Coding.JPEG, Coding.JPEG_2000}
        assert {c for c in Coding if c.is_plain} == {Coding.DEFLATE, Coding.LZW, Coding.ZSTD}


# The source of batches


class Counted:
    """A reader of 10 tiles, served backwards, whose status is the tile's number modulo 4."""

    plan, failure, times = None, None, StageTimes(read_s=1.0)
    order = np.arange(10)[::-1].copy()
    closed = 0

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out[:] = index[:, None, None, None]
        return (index % 4).astype(np.uint8)

    def close(self) -> None:
        self.closed += 1


def test_every_tile_comes_once_with_its_place_and_is_counted_by_its_status() -> None:
    grid = Grid(40, 20, 0.5, 0.5, 0.5, 2)
    tiles = type("Tiles", (), {"grid": grid, "coords": np.arange(20).reshape(10, 2), "__len__": lambda self: 10})()
    shapes: list[tuple[int, ...]] = []

    def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        shapes.append(shape)
        return np.zeros(shape, np.uint8)

    reader = Counted()
    with TileSource(reader, tiles, 4, 3, Stop(), allocate) as found:  # type: ignore[arg-type]
        seen = []
        for batch in found:
            assert (batch.pixels[:, 0, 0, 0] == batch.index).all()
            assert (batch.coords == np.stack([2 * batch.index, 2 * batch.index + 1], axis=1)).all()
            assert (batch.status == batch.index % 4).all()
            seen.append(batch.index.tolist())
        assert seen == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]] and shapes == [(4, 2, 2, 3)] * 3
        by_status = dict(zip((0, 1, 2, 3), (3, 3, 2, 2), strict=True))
        names = {status.value: status.name.lower() for status in TileStatus}
        assert {names[s]: getattr(found, names[s]) for s in by_status} == {names[s]: n for s, n in by_status.items()}
        with pytest.raises(RuntimeError, match="iterated once"):
            next(iter(found))
    assert reader.closed == 1


def test_patience_ends_a_little_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source.time, "monotonic", lambda: 100.0)
    grace = source.LIMIT_GRACE_S
    assert source._patience_s(math.inf) is None
    assert [source._patience_s(limit) for limit in (130.0, 100.0, 10.0)] == [30.0 + grace, grace, grace]


@pytest.mark.parametrize(("batch", "slots"), [(0, 3), (4, 1), (-1, 2)])
def test_a_ring_has_two_slots_of_a_tile_at_least(batch: int, slots: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        source.open_tiles(None, None, batch=batch, slots=slots)  # type: ignore[arg-type]
