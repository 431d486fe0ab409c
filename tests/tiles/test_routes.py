"""One suite for every route: the same tiles, whoever decodes them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bif_factory import write_bif
from support.codec_factory import encode_tile, write_codec_slide
from support.dicom_factory import How, Picture, write_level
from support.format_factory import pages_of, write_philips, write_scn
from support.mrxs_factory import Scan, write_mrxs
from support.ndpi_factory import write_ndpi
from support.slide_factory import texture, write_slide
from support.slide_factory import tiles_of as storage_tiles_of

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import TileSet, make_grid, select_tiles
from stamp_deploy.slide import Slide, open_slide
from stamp_deploy.slide.backends.isolated import ChildReader
from stamp_deploy.slide.dicom import JPEG_2000
from stamp_deploy.tiles import TileBatch, TileStatus, open_tiles


@dataclass(frozen=True)
class Given:
    """A slide, the route that must read it, and what a reader outside the project shows there."""

    path: Path
    route: str
    mpp: float
    tile_px: int
    bound: int


CASES = (
    "jpeg-tiff",
    "openslide",
    "pyvips",
    "dicom",
    "dicom-two-files",
    "dicom-raw",
    "philips",
    "scn",
    "bif",
    "bif-overlap",
    "ndpi",
    "mrxs",
    "mrxs-overlap",
    "jpeg-2000",
    "stripped",
    "raw",
    "deflate",
    "codec-j2k",
    "codec-j2k-dicom",
    "codec-lzw",
)


LEVEL_BOUNDS = {"a.ndpi": 8, "a.mrxs": 8, "osp_boxes.tiff": 0.6, "tcga-cr-7395-01a-01-ts1.svs": 11}
"""Mean difference between a file's own coarser level and an average of its finest: that file's making, not ours."""


@pytest.fixture(params=CASES)
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Given:
    kind = request.param
    if kind in ("jpeg-tiff", "openslide", "pyvips"):
        path = write_slide(tmp_path / "a.svs", texture(420, 530), tile=128, coding="422")
        return Given(path, kind, 0.5, 64, 1)
    if kind in ("bif", "bif-overlap"):
        pages = pages_of(write_slide(tmp_path / "a.svs", texture(420, 530), tile=128, coding="422"))
        overlap = (6, 4) if kind == "bif-overlap" else (0, 0)
        path = write_bif(tmp_path / "a.bif", pages, [(0, 0, 5, 4)], overlap=overlap, directions=("LEFT", "UP"))
        return Given(path, "bif" if any(overlap) else "jpeg-bif", 0.5, 64, 1)
    if kind == "ndpi":
        path = write_ndpi(tmp_path / "a.ndpi", texture(416, 512), interval=16, levels=(4,))
        return Given(path, "jpeg-ndpi", 0.5, 64, 1)
    if kind in ("mrxs", "mrxs-overlap"):
        scan = Scan(overlap=6, positions="deflated", jitter=2) if kind == "mrxs-overlap" else Scan()
        return Given(write_mrxs(tmp_path / "a.mrxs", texture(420, 530), scan, levels=3), "openslide", 0.5, 64, 0)
    if kind in ("philips", "scn"):
        pages = pages_of(write_slide(tmp_path / "a.svs", texture(420, 530), tile=128, coding="422"))
        if kind == "philips":
            return Given(write_philips(tmp_path / "a.tiff", pages), "jpeg-philips", 0.5, 64, 1)
        path = write_scn(tmp_path / "a.scn", [(32, 64, pages), (700, 32, pages)], size=(1300, 520))
        return Given(path, "jpeg-scn", 0.5, 64, 1)
    if kind == "codec-lzw":
        return Given(write_codec_slide(tmp_path / "a.tif", texture(420, 530), "lzw"), "codec-tiff", 0.5, 64, 0)
    if kind == "codec-j2k-dicom":
        return Given(write_j2k_dicom(tmp_path), "codec-dicom", 0.5, 64, 0)
    data: Path = request.getfixturevalue("data_dir")
    return {
        "dicom": Given(data / "dicom" / "camelyon_multiframe_jpeg.dcm", "jpeg-dicom", 0.25, 64, 1),
        "dicom-two-files": Given(data / "dicom" / "osp_boxes_0.dcm", "jpeg-dicom", 0.25, 32, 1),
        "dicom-raw": Given(data / "dicom" / "highdicom_sm_image.dcm", "openslide", 0.5, 16, 0),
        "jpeg-2000": Given(data / "slides" / "tcga-cr-7395-01a-01-ts1.svs", "openslide", 0.25, 224, 0),
        "stripped": Given(data / "slides" / "kidney-48-5.tif", "pyvips", 0.25, 128, 0),
        "raw": Given(data / "slides" / "panimg_valid_tiff.tif", "openslide", 0.25, 64, 0),
        "deflate": Given(data / "slides" / "osp_boxes.tiff", "codec-tiff", 0.25, 64, 0),
        "codec-j2k": Given(data / "slides" / "tcga-cr-7395-01a-01-ts1.svs", "codec-tiff", 0.25, 224, 0),
    }[kind]


def write_j2k_dicom(folder: Path) -> Path:
    streams = [encode_tile(part, "j2k-rgb") for part in storage_tiles_of(texture(420, 530), 128)]
    how = How(photometric="YBR_ICT", syntax=JPEG_2000[1])
    return write_level(folder / "a.dcm", Picture(530, 420, 128, streams), how)[0]


def open_given(given: Given) -> Slide:
    return open_slide(given.path, mpp=given.mpp, route=given.route if given.path.suffix == ".svs" else None)


def tiles_of(slide: Slide, given: Given, *, factor: float = 1, overlap_px: int = 0, most: int = 40) -> TileSet:
    grid = make_grid(slide, target_mpp=given.mpp * factor, tile_px=given.tile_px, overlap_px=overlap_px)
    tiles = select_tiles(grid, None, 0.0)
    keep = np.unique(np.linspace(0, len(tiles) - 1, min(most, len(tiles))).astype(int))
    return tiles.part(keep)


def collect(slide: Slide, tiles: TileSet, **options: object) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    side = tiles.grid.tile_px
    pixels, status = np.zeros((len(tiles), side, side, 3), np.uint8), np.full(len(tiles), 99, np.uint8)
    with open_tiles(slide, tiles, batch=5, **options) as source:  # type: ignore[arg-type]
        for batch in source:
            check_contract(batch, tiles)
            assert (status[batch.index] == 99).all(), "a tile came twice"
            pixels[batch.index], status[batch.index] = batch.pixels, batch.status
        assert source.ok + source.missing + source.corrupt + source.timeout == len(tiles)
    assert (status != 99).all(), "a tile never came"
    return pixels, status


def check_contract(batch: TileBatch, tiles: TileSet) -> None:
    n, side = len(batch.index), tiles.grid.tile_px
    assert 1 <= n <= 5
    assert batch.pixels.shape == (n, side, side, 3)
    assert batch.pixels.dtype == np.uint8
    assert batch.pixels.flags.c_contiguous
    assert batch.coords.shape == (n, 2)
    assert batch.coords.dtype == batch.index.dtype == np.int64
    assert batch.status.shape == (n,)
    assert batch.status.dtype == np.uint8
    np.testing.assert_array_equal(batch.coords, tiles.coords[batch.index])


def test_the_expected_route_reads_it(given: Given) -> None:
    with open_given(given) as slide:
        assert slide.route.name == given.route
        with open_tiles(slide, tiles_of(slide, given, most=1), batch=1) as source:
            assert source.plan.route == given.route
            assert source.plan.to_dict()["why"]


def test_native_pixels_are_those_of_the_slide(given: Given) -> None:
    with open_given(given) as slide:
        tiles = tiles_of(slide, given)
        pixels, status = collect(slide, tiles)
        assert (status == TileStatus.OK).all()
        for i, (x, y) in enumerate(tiles.coords):
            want = slide.read_region(0, int(x), int(y), given.tile_px, given.tile_px)
            error = np.abs(pixels[i].astype(int) - want)
            assert error.max() <= given.bound, (i, error.max())
        assert len(np.unique(pixels)) > 1


@pytest.mark.parametrize("factor", [2.0, 1.37])
def test_resampled_tiles_agree_with_area_averages(given: Given, factor: float) -> None:
    """Of level 0, in float: within rounding where level 0 is decoded at full scale.

    Another level or a reduced decoding scale is another low-pass filter: there the mean error alone is bounded.
    """
    with open_given(given) as slide:
        tiles = tiles_of(slide, given, factor=factor, most=6)
        with open_tiles(slide, tiles, batch=5) as source:
            plan = source.plan
        direct = plan.level == 0 and plan.dct_scale == 1
        pixels, status = collect(slide, tiles)
        assert (status == TileStatus.OK).all()
        span = tiles.grid.span_x
        for i, (x, y) in enumerate(tiles.coords):
            area = slide.read_region(0, int(x), int(y), int(np.ceil(span)), int(np.ceil(span))).astype(float)
            want = area_average(area, span, given.tile_px)
            error = np.abs(pixels[i] - want)
            if direct and not slide.route.compiled:
                assert error.max() <= 0.6
            elif direct:
                # chroma is averaged before it is converted: saturated colours differ in a few pixels
                assert error.mean() <= 0.5
                assert error.max() <= 20
            elif plan.level == 0:
                assert error.mean() <= 5  # of a texture that is rougher than tissue
            else:
                assert error.mean() <= LEVEL_BOUNDS[given.path.name]


def area_average(image: NDArray[np.float64], span: float, size: int) -> NDArray[np.float64]:
    edges = np.arange(size + 1) * span / size
    pixels = np.arange(len(image))
    cover = np.clip(np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None]), 0, None)
    cover /= cover.sum(1, keepdims=True)
    return np.einsum("ir,rcd,jc->ijd", cover, image, cover, optimize=True)


def test_overlap_repeats_pixels(given: Given) -> None:
    with open_given(given) as slide:
        overlap = given.tile_px // 4
        every = tiles_of(slide, given, overlap_px=overlap, most=10_000)
        if every.grid.columns < 2:
            pytest.skip("one tile wide")
        pixels, _ = collect(slide, every.part(slice(2)))
        np.testing.assert_array_equal(pixels[0][:, -overlap:], pixels[1][:, :overlap])


def test_a_time_limit_is_kept(given: Given) -> None:
    with open_given(given) as slide:
        tiles = tiles_of(slide, given)
        _, status = collect(slide, tiles, time_limit_s=1e-9)
        assert (status == TileStatus.TIMEOUT).all()


def test_no_tiles_are_no_batches(given: Given) -> None:
    with open_given(given) as slide:
        none = tiles_of(slide, given).part(slice(0))
        with open_tiles(slide, none, batch=5) as source:
            assert list(source) == []


def test_leaving_early_ends_the_threads(given: Given) -> None:
    before = threading.active_count()
    with open_given(given) as slide:
        source = open_tiles(slide, tiles_of(slide, given), batch=2, slots=2, threads=2)
        next(iter(source))
        source.close()
    assert threading.active_count() == before


def test_a_full_ring_holds_the_reader_back(given: Given) -> None:
    with open_given(given) as slide, open_tiles(slide, tiles_of(slide, given), batch=2, slots=2) as source:
        first = next(iter(source))
        kept = first.pixels.copy()
        threading.Event().wait(0.3)  # the reader has filled the other slot long since, and waits
        np.testing.assert_array_equal(first.pixels, kept)
        assert source._full.qsize() <= 1


def test_jpeg_2000_is_decoded_in_a_child_that_may_die(data_dir: Path) -> None:
    path = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    with open_slide(path, mpp=0.25) as slide:
        reader = slide._backend._child  # type: ignore[attr-defined]
        assert isinstance(reader, ChildReader)
        child = reader._child
        want = slide.read_region(0, 500, 500, 64, 64)
        assert child.process is not None
        child.process.kill()
        child.process.wait()
        np.testing.assert_array_equal(slide.read_region(0, 500, 500, 64, 64), want)  # a new child
        assert child.process is not None
        running = child.process
    assert running.poll() is not None, "the child outlived its slide"


def test_a_child_that_dies_at_work_is_an_unreadable_region(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"not a slide")
    child = ChildReader(path)
    with pytest.raises(SlideError, match="cannot be decoded"):
        child.read(0, 0, 0, 10, 10)
    child.close()
