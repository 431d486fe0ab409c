"""Each storage tile is read for itself: its size, its tables, its page; no other stream shows in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.slide_factory import encode, replace_tiles, split_tables, texture, write_slide
from tiles.test_tiles import NATIVE_BOUND, difference, read_all

from stamp_deploy import _tiler
from stamp_deploy._tiler import Decoded, Job, Reads, Stop, Tiles, Worker
from stamp_deploy.errors import ReadError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus, open_tiles

SHARED = b"\x01" * 64
DQT_OF_ONES = b"\xff\xdb\x00\x43\x00" + SHARED + b"\xff\xdb\x00\x43\x01" + SHARED


def test_storage_tiles_of_odd_size(data_dir: Path) -> None:
    """The case that ended in a read before the pool."""
    path = data_dir / "cases" / "22-odd-storage-tile" / "oddfull.svs"
    with open_slide(path) as slide:
        mpp = slide.mpp.mpp_x
    for factor in (1, 1.27, 2):
        ours, status, _ = read_all(path, "jpeg-tiff", tile_px=96, target_mpp=factor * mpp, exact=True)
        theirs, _, _ = read_all(path, "openslide", tile_px=96, target_mpp=factor * mpp)
        assert (status == TileStatus.OK).all()
        assert difference(ours, theirs).max() <= NATIVE_BOUND
        quick, status, _ = read_all(path, "jpeg-tiff", tile_px=96, target_mpp=factor * mpp)
        assert (status == TileStatus.OK).all()
        assert difference(quick, theirs).mean() <= 2


@pytest.mark.parametrize("coding", ["420", "422"])
@pytest.mark.parametrize("tile", [(61, 64), (64, 45), (75, 33)])
def test_odd_sides_of_storage_tiles_do_not_split_chroma_samples(coding: str, tile: tuple[int, int]) -> None:
    """Every model tile that starts beside a border, averaged by the core as by the plain conversion to RGB."""
    width, height = tile
    picture = texture(2 * height, 2 * width)
    streams = [
        encode(picture[y : y + height, x : x + width], coding) for y in (0, height) for x in (0, width)
    ]  # four storage tiles, and slots for three: the first is left out
    data = b"".join(streams)
    offsets = np.cumsum([0, *(len(s) for s in streams[:-1])]).astype(np.int64)
    sizes = np.array([len(s) for s in streams], np.int64)
    sizes[0] = 0
    corners = np.array([(x, y) for x in (width - 1, width, width + 0.5) for y in (height - 1, height)], np.float64)
    results = []
    for exact in (False, True):
        worker = Worker(b"", 6, width, height, 1, 9, 1.4, 1.4, exact)
        decoded = Decoded(
            np.zeros((4, worker.slot_bytes), np.uint8), np.full((2, 2), -1, np.int32),
            np.full((2, 2), _tiler.UNREAD, np.uint8), np.zeros((2, 2), np.uint8), 2 * width, 2 * height,
        )  # fmt: skip
        out, status = np.zeros((len(corners), 9, 9, 3), np.uint8), np.zeros(len(corners), np.uint8)
        cells = np.arange(4, dtype=np.int32)
        with memory_file(data) as fd:
            reads = Reads(np.full(4, fd, np.int32), offsets, sizes, cells, cells)
            worker.run(Job(decoded, reads, Tiles(corners[:0], out[:0], status[:0]), Stop()))
        none = Reads(cells[:0], offsets[:0], sizes[:0], cells[:0], cells[:0])
        worker.run(Job(decoded, none, Tiles(corners, out, status), Stop()))
        # what touches the first storage tile is missing, and nothing else
        touches = (corners < (width, height)).all(1)
        np.testing.assert_array_equal(status, np.where(touches, TileStatus.MISSING, TileStatus.OK))
        results.append(out[~touches])
    assert difference(*results).max() <= 12  # the order of averaging and colour conversion


@contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """A file in memory that holds some bytes, as a descriptor."""
    descriptor = os.memfd_create("streams")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


def after_scan(stream: bytes) -> bytes:
    """Tables between the scan and the end of the image."""
    return stream[:-2] + DQT_OF_ONES + stream[-2:]


MUTATIONS = {
    "tables after the scan": after_scan,
    "RST0 before the tables": lambda s: s[:2] + b"\xff\xd0" + s[2:],
    "TEM before the tables": lambda s: s[:2] + b"\xff\x01" + s[2:],
    "restart interval": lambda s: s[:2] + b"\xff\xdd\x00\x04\x00\x03" + s[2:],
    "cut": lambda s: s[: len(s) // 2],
    "tables alone": lambda s: s[:2] + DQT_OF_ONES + b"\xff\xd9",
    "other tables": lambda s: s[:2] + DQT_OF_ONES + s[2:],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("bare", [False, True], ids=["own tables", "shared tables"])
def test_a_stream_never_changes_another(mutation: str, bare: bool) -> None:
    """A neighbour of every kind, decoded before by the same worker, changes neither status nor pixels."""
    whole = encode(texture(64, 64), "420")
    tables, stream = split_tables(whole) if bare else (b"", whole)
    fresh_status, fresh = Worker(tables, 6, 64, 64, 1).decode(stream)
    assert fresh_status == _tiler.OK
    worker = Worker(tables, 6, 64, 64, 1)
    worker.decode(MUTATIONS[mutation](encode(texture(64, 64, seed=5), "420")))
    status, pixels = worker.decode(stream)
    assert status == _tiler.OK
    np.testing.assert_array_equal(pixels, fresh)


def test_a_stream_without_tables_takes_none_from_a_neighbour() -> None:
    whole = encode(texture(64, 64), "420")
    worker = Worker(b"", 6, 64, 64, 1)
    for mutate in MUTATIONS.values():
        worker.decode(mutate(whole))
        assert worker.decode(split_tables(whole)[1])[0] == _tiler.CORRUPT


def test_scores_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """Every fourth storage tile leaves other tables behind; the pixels are the same with one thread and with five."""
    clean = write_slide(tmp_path / "clean.svs", texture(512, 640), tile=64)
    want, _, _ = read_all(clean, "jpeg-tiff", tile_px=48, target_mpp=0.5)
    kinds = list(MUTATIONS.values())[:4]
    spoilt = replace_tiles(
        clean, tmp_path / "spoilt.svs", lambda number, stream: stream if number % 4 else kinds[number // 4 % 2](stream)
    )
    results = [read_all(spoilt, "jpeg-tiff", tile_px=48, target_mpp=0.5, threads=n) for n in (1, 2, 5)]
    for pixels, status, _ in results:
        np.testing.assert_array_equal(status, results[0][1])
        ok = status == TileStatus.OK
        assert ok.any()
        np.testing.assert_array_equal(pixels[ok], want[ok])


@pytest.mark.parametrize("aperio", [False, True])
def test_the_page_is_the_one_that_openslide_takes(tmp_path: Path, aperio: bool) -> None:
    """Two tiled pages of one size: the one that is no level of a generic TIFF comes first, and is another picture."""
    picture, other = texture(1024, 1024), texture(256, 256, seed=9)
    path = tmp_path / "two.tif"
    note = "Aperio Image Library v12.0.0\n1024x1024|AppMag = 40|MPP = 0.25" if aperio else ""
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg", "metadata": None}
        per_cm = {"resolution": (40000, 40000), "resolutionunit": 3}
        writer.write(picture, description=note or None, **options, **per_cm)
        writer.write(other, subfiletype=0, description=note or None, **options)
        writer.write(picture[::4, ::4], subfiletype=1, description=note or None, **options)
    pixels = {route: read_all(path, route, tile_px=64, target_mpp=1.0)[0] for route in ("jpeg-tiff", "openslide")}
    assert difference(pixels["jpeg-tiff"], pixels["openslide"]).max() <= NATIVE_BOUND


def test_a_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that fail are tried again, and then stop the slide with the system's own words."""
    from stamp_deploy.tiles import jpeg_reader

    monkeypatch.setattr(jpeg_reader, "WAITS_S", (0.0, 0.01))
    path = write_slide(tmp_path / "a.svs", texture(300, 300), tile=64)
    broken = os.open(tmp_path, os.O_RDONLY)  # a folder cannot be read: EISDIR
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=50), None, 0.0)
        monkeypatch.setattr(slide, "descriptor", lambda *_: os.dup(broken))
        for threads in (1, 3):
            with open_tiles(slide, tiles, batch=8, threads=threads) as source, pytest.raises(ReadError) as caught:
                list(source)
            assert "is a directory, 3 times" in str(caught.value)
    os.close(broken)


def test_a_disk_that_answers_again_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.tiles import jpeg_reader

    monkeypatch.setattr(jpeg_reader, "WAITS_S", (0.0, 0.01, 0.01))
    path = write_slide(tmp_path / "a.svs", texture(300, 300), tile=64)
    want, _, _ = read_all(path, "jpeg-tiff", tile_px=50, target_mpp=0.5)
    broken = os.open(tmp_path, os.O_RDONLY)
    good = os.open(path, os.O_RDONLY)
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=50), None, 0.0)
        monkeypatch.setattr(slide, "descriptor", lambda *_: os.dup(broken))
        pause = jpeg_reader.JpegReader._pause

        def mend(reader: jpeg_reader.JpegReader, seconds: float) -> bool:
            os.dup2(good, reader._fds[0])
            return pause(reader, seconds)

        monkeypatch.setattr(jpeg_reader.JpegReader, "_pause", mend)
        with open_tiles(slide, tiles, batch=8, threads=2) as source:
            for batch in source:
                assert (batch.status == TileStatus.OK).all()
                np.testing.assert_array_equal(batch.pixels, want[batch.index])
    os.close(broken)
    os.close(good)


@pytest.mark.parametrize("coding", ["420", "422", "444"])  # as RGB, libjpeg itself takes none of them
def test_a_lost_sector_is_damage(tmp_path: Path, coding: str) -> None:
    """512 bytes of zeros in the coded picture decode without complaint in many streams: they are found all the same.

    Storage tile k of one row loses its sector k + 2; the last storage tile is whole.
    """
    count = 24
    whole = write_slide(tmp_path / "whole.svs", np.tile(texture(256, 256), (1, count, 1)), coding=coding)

    def lose(number: int, stream: bytes) -> bytes:
        at = 512 * (number + 2)
        assert at + 1024 < len(stream)
        return stream if number == count - 1 else stream[:at] + bytes(512) + stream[at + 512 :]

    found = statuses(replace_tiles(whole, tmp_path / "lost.svs", lose)).reshape(4, 4 * count)
    assert (found[:, :-4] == TileStatus.CORRUPT).all()
    assert (found[:, -4:] == TileStatus.OK).all()


def test_zeros_after_the_end_of_the_image_are_padding(tmp_path: Path) -> None:
    whole = write_slide(tmp_path / "whole.svs", texture(256, 256))
    padded = replace_tiles(whole, tmp_path / "padded.svs", lambda number, stream: stream + bytes(600))
    assert (statuses(padded) == TileStatus.OK).all()


def test_an_empty_picture_of_optimised_tables_may_be_zeros(tmp_path: Path) -> None:
    """Glass, with tables that code an empty block in zeros: a long run of them is the picture itself."""
    import imagecodecs

    glass = np.full((256, 256, 3), 240, np.uint8)
    stream = bytes(imagecodecs.jpeg_encode(glass, level=90, optimize=True))
    assert bytes(64) in stream, "the encoder no longer makes such a stream"
    whole = write_slide(tmp_path / "whole.svs", glass, coding="420")
    empty = replace_tiles(whole, tmp_path / "empty.svs", lambda number, old: stream)
    assert (statuses(empty) == TileStatus.OK).all()


def statuses(path: Path) -> NDArray[np.uint8]:
    """Status of every tile of 64 px of a slide of one strip, in the order of its rows."""
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=64), None, 0)
        with open_tiles(slide, tiles, batch=8, threads=1) as source:
            return np.concatenate([batch.status.copy() for batch in source])
