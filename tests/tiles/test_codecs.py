"""Storage tiles in other codings than JPEG: OpenSlide's or tifffile's pixels, each storage tile decoded once."""

from __future__ import annotations

import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.codec_factory import SUBSAMPLED, SUBSAMPLED_SIDE, encode_tile, write_codec_slide
from support.dicom_factory import How, Picture, write_level
from support.slide_factory import damage, texture, tiles_of
from tiles.test_tiles import area_average, difference, read_all

from stamp_deploy.codecs import Coding, Decoder, StreamError, StreamKind
from stamp_deploy.codecs.decode import decode
from stamp_deploy.codecs.decoder import read_stream
from stamp_deploy.codecs.jpeg2000 import read_codestream
from stamp_deploy.errors import ReadError
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.dicom import JPEG_2000
from stamp_deploy.slide.dicom.part import HTJ2K
from stamp_deploy.tiles import TileStatus

HEIGHT, WIDTH, SIDE = 300, 410, 64
OPENSLIDE_READS = ("j2k-ycbcr", "j2k-rgb", "deflate", "lzw")
OPENSLIDE_DOES_NOT = ("j2k", "htj2k", "jxl", "webp", "zstd")


def write(folder: Path, coding: str, **options: object) -> Path:
    name = "a.svs" if coding in ("j2k-ycbcr", "j2k-rgb") else "a.tif"
    return write_codec_slide(folder / name, texture(HEIGHT, WIDTH), coding, side=SIDE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("coding", OPENSLIDE_READS)
@pytest.mark.parametrize("differences", [True, False])
def test_native_pixels_are_openslides(tmp_path: Path, coding: str, differences: bool) -> None:
    path = write(tmp_path, coding, differences=differences)
    ours, status, _ = read_all(path, "codec-tiff", tile_px=44, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=44, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= (1 if coding == "j2k-ycbcr" else 0)  # OpenSlide rounds in another place
    with open_slide(path) as slide:
        assert slide.route.name == "codec-tiff"


@pytest.mark.parametrize("coding", OPENSLIDE_DOES_NOT)
def test_what_openslide_does_not_read_has_the_codecs_pixels(tmp_path: Path, coding: str) -> None:
    path = write(tmp_path, coding)
    with open_slide(path) as slide:
        assert slide.route.name == "codec-tiff"
        assert slide.mpp_xy == (0.5, 0.5)
        region = slide.read_region(0, 30, 20, 100, 90)
    with tifffile.TiffFile(path) as tiff:
        page, data = tiff.pages[0], path.read_bytes()
        streams = [data[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    decode = {"j2k": imagecodecs.jpeg2k_decode, "htj2k": imagecodecs.htj2k_decode, "jxl": imagecodecs.jpegxl_decode}
    parts = tiles_of(texture(HEIGHT, WIDTH), SIDE)
    if coding == "webp":
        decoded = [imagecodecs.webp_decode(stream) for stream in streams]
    else:
        decoded = [decode[coding](stream) for stream in streams] if coding in decode else parts
    across = -(-WIDTH // SIDE)
    rows = [np.concatenate(decoded[at : at + across], axis=1) for at in range(0, len(decoded), across)]
    want = np.concatenate(rows)[:HEIGHT, :WIDTH]
    assert difference(region, want[20:110, 30:130]).max() <= (1 if coding == "htj2k" else 0)
    ours, status, tiles = read_all(path, "codec-tiff", tile_px=50, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    for pixels, (x, y) in zip(ours, tiles.coords, strict=True):
        part = want[y : y + 50, x : x + 50]
        assert difference(pixels[: part.shape[0], : part.shape[1]], part).max() <= (1 if coding == "htj2k" else 0)


@pytest.mark.parametrize("target_mpp", [1.0, 2.0, 4.0, 0.6173, 1.27])
@pytest.mark.parametrize("coding", ["j2k-ycbcr", "j2k-rgb", "htj2k", "lzw"])
def test_any_ratio_agrees_with_area_averages(tmp_path: Path, coding: str, target_mpp: float) -> None:
    path = write(tmp_path, coding)
    ours, status, tiles = read_all(path, "codec-tiff", tile_px=24, target_mpp=target_mpp)
    with open_slide(path) as slide:
        full = slide.read_region(0, 0, 0, WIDTH, HEIGHT).astype(np.float64)
    assert (status == TileStatus.OK).all()
    span = tiles.grid.span_x
    reduced = coding != "lzw" and target_mpp >= 1
    for i in np.flatnonzero((tiles.coords + span <= (WIDTH, HEIGHT)).all(1))[::3]:
        x, y = tiles.coords[i]
        want = area_average(full[y : y + int(span) + 2, x : x + int(span) + 2], 0, 0, span, 24)
        error = np.abs(ours[i] - want)
        # a wavelet is another low-pass filter than the average; the texture is rough
        assert error.mean() <= (6 if reduced else 0.3), (i, error.mean())
        assert reduced or coding == "j2k-ycbcr" or error.max() <= 0.7


def test_each_storage_tile_is_decoded_once(tmp_path: Path) -> None:
    from stamp_deploy.grid import make_grid, select_tiles
    from stamp_deploy.tiles import open_tiles

    path = write(tmp_path, "j2k-rgb")
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=1.0, tile_px=20), None, 0.0)
        with open_tiles(slide, tiles, batch=4, threads=3) as source:
            for _ in source:
                pass
            assert source.plan.dct_scale == 2
            assert source.times.storage_tiles == 5 * 7
            assert source.times.bytes_read > 0


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_pixels(tmp_path: Path, threads: int) -> None:
    path = write(tmp_path, "j2k-rgb")
    one, _, _ = read_all(path, "codec-tiff", tile_px=44, target_mpp=1.0, threads=1, batch=3)
    several, _, _ = read_all(path, "codec-tiff", tile_px=44, target_mpp=1.0, threads=threads, batch=1000)
    np.testing.assert_array_equal(one, several)


def test_a_stream_of_few_resolutions_is_averaged_for_the_rest(tmp_path: Path) -> None:
    part = texture(SIDE, SIDE)
    stream = encode_tile(part, "j2k-rgb", resolutions=1)
    assert read_codestream(stream).levels == 0
    decoder = Decoder()
    full = decoder.decode(stream, StreamKind(Coding.JPEG_2000, SIDE, SIDE)).astype(float)
    reduced = decoder.decode(stream, StreamKind(Coding.JPEG_2000, SIDE, SIDE, scale=4))
    decoder.close()
    want = full.reshape(SIDE // 4, 4, SIDE // 4, 4, 3).mean((1, 3))
    assert np.abs(reduced - want).max() <= 0.51


def test_aperios_subsampled_colour_is_openslides(tmp_path: Path) -> None:
    """What Aperio scanners write (33003); at half scale nothing of it is thrown away."""
    rgb = np.zeros((2 * SUBSAMPLED_SIDE, 3 * SUBSAMPLED_SIDE, 3), np.uint8)
    path = write_codec_slide(tmp_path / "a.svs", rgb, "j2k-ycbcr", side=SUBSAMPLED_SIDE, streams=[SUBSAMPLED] * 6)
    ours, status, _ = read_all(path, "codec-tiff", tile_px=64, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=64, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1
    assert ours[0, 32, 60, 0] > ours[0, 32, 4, 0] + 100, "red grows to the right"
    half, _, _ = read_all(path, "codec-tiff", tile_px=32, target_mpp=1.0)
    averaged, _, _ = read_all(path, "openslide", tile_px=32, target_mpp=1.0)
    assert difference(half, averaged).max() <= 2


@pytest.mark.parametrize("how", ["truncated", "beyond", "missing"])
@pytest.mark.parametrize("coding", ["j2k-rgb", "j2k", "jxl", "webp", "deflate", "lzw", "zstd"])
def test_damage_stays_where_it_is(tmp_path: Path, coding: str, how: str) -> None:
    if coding == "j2k-rgb" and how == "beyond":
        pytest.skip("OpenSlide reads every stream of the coarsest level of an Aperio slide when it opens it")
    path = write(tmp_path, coding)
    want, _, _ = read_all(path, "codec-tiff", tile_px=SIDE, target_mpp=0.5)
    damage(path, 8, how)
    ours, status, tiles = read_all(path, "codec-tiff", tile_px=SIDE, target_mpp=0.5)
    hit = (tiles.coords == (SIDE, SIDE)).all(1)
    np.testing.assert_array_equal(ours[~hit], want[~hit])
    assert (status[~hit] == TileStatus.OK).all()
    aperio = path.suffix == ".svs"
    expected = TileStatus.CORRUPT if how != "missing" else TileStatus.MISSING if aperio else TileStatus.OK
    assert status[hit] == expected
    if how == "missing" and not aperio:
        assert (ours[hit] == 255).all()


def test_another_size_or_garbage_is_damage(tmp_path: Path) -> None:
    parts = tiles_of(texture(HEIGHT, WIDTH), SIDE)
    streams = [encode_tile(part, "j2k-rgb") for part in parts]
    streams[3] = encode_tile(parts[3][:32, :32], "j2k-rgb")
    streams[4] = b"no stream at all"
    streams[5] = encode_tile(parts[5], "webp")
    streams[8] = bytes(imagecodecs.jpeg2k_encode(parts[8][..., 0], codecformat="j2k"))
    streams[7] = bytes(imagecodecs.jpeg2k_encode(parts[7].astype(np.uint16) * 16, codecformat="j2k", bitspersample=12))
    path = write(tmp_path, "j2k-rgb", streams=streams)
    _, status, tiles = read_all(path, "codec-tiff", tile_px=SIDE, target_mpp=1.0 / 2)
    order = (tiles.coords[:, 1] // SIDE) * 7 + tiles.coords[:, 0] // SIDE
    assert sorted(order[status == TileStatus.CORRUPT].tolist()) == [3, 4, 5, 7, 8]


def test_the_first_unreadable_storage_tile_is_named(tmp_path: Path) -> None:
    from stamp_deploy.grid import make_grid, select_tiles
    from stamp_deploy.tiles import open_tiles

    path = write(tmp_path, "j2k-rgb")
    damage(path, 9, "truncated")
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=SIDE), None, 0.0)
        with open_tiles(slide, tiles, batch=4) as source:
            for _ in source:
                pass
            assert source.failure is not None
            assert "storage tile (2, 1) of level 0: its JPEG 2000 stream ends early" in source.failure.cause


DICOM = {
    "j2k lossless": ("j2k-rgb", "YBR_RCT", JPEG_2000[0]),
    "j2k": ("j2k-rgb", "YBR_ICT", JPEG_2000[1]),
    "j2k ycbcr": ("j2k-ycbcr", "YBR_FULL", JPEG_2000[1]),
    "htj2k": ("htj2k", "RGB", HTJ2K[0]),
}


@pytest.mark.parametrize("kind", DICOM)
@pytest.mark.parametrize("how", [How(), How(table="none", fragments=3), How(table="extended", sparse=True)])
def test_dicom_has_the_tiles_of_the_same_streams_in_a_tiff(tmp_path: Path, kind: str, how: How) -> None:
    coding, photometric, syntax = DICOM[kind]
    tiff = write(tmp_path, coding)
    streams = [encode_tile(part, coding) for part in tiles_of(texture(HEIGHT, WIDTH), SIDE)]
    given = How(**{**how.__dict__, "photometric": photometric, "syntax": syntax})
    path = write_level(tmp_path / "a.dcm", Picture(WIDTH, HEIGHT, SIDE, streams), given)[0]
    for factor in (1.0, 2.0):
        want, _, _ = read_all(tiff, "codec-tiff", tile_px=44, target_mpp=0.5 * factor)
        ours, status, _ = read_all(path, "codec-dicom", tile_px=44, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)
    with open_slide(path) as slide:
        assert slide.route.name == "codec-dicom"


@pytest.mark.parametrize("kind", ["j2k", "j2k lossless"])
def test_dicom_jpeg_2000_is_openslides(tmp_path: Path, kind: str) -> None:
    coding, photometric, syntax = DICOM[kind]
    streams = [encode_tile(part, coding) for part in tiles_of(texture(HEIGHT, WIDTH), SIDE)]
    how = How(photometric=photometric, syntax=syntax)
    path = write_level(tmp_path / "a.dcm", Picture(WIDTH, HEIGHT, SIDE, streams), how)[0]
    ours, _, _ = read_all(path, "codec-dicom", tile_px=44, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=44, target_mpp=0.5)
    assert difference(ours, theirs).max() == 0


def test_a_read_that_goes_on_failing_stops_the_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "j2k-rgb")
    monkeypatch.setattr("stamp_deploy.tiles.jpeg_reader.WAITS_S", (0.01, 0.01))

    def fails(fd: int, size: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("stamp_deploy.codecs.decoder.os.pread", fails)
    with pytest.raises(ReadError, match="input/output error, 3 times"):
        read_all(path, "codec-tiff", tile_px=SIDE, target_mpp=1.0)


def test_a_decoder_that_was_killed_is_started_again() -> None:
    stream, kind = encode_tile(texture(SIDE, SIDE), "j2k-rgb"), StreamKind(Coding.JPEG_2000, SIDE, SIDE)
    decoder = Decoder()
    want = decoder.decode(stream, kind)
    first = decoder._child.process
    assert first is not None
    first.kill()
    first.wait()
    np.testing.assert_array_equal(decoder.decode(stream, kind), want)
    second = decoder._child.process
    decoder.close()
    assert second is not None
    assert second.poll() is not None


def test_a_decoder_that_hangs_is_ended_when_the_work_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder()
    monkeypatch.setattr(decoder._child, "_command", ["sleep", "600"])
    begun = time.monotonic()
    with pytest.raises(StreamError, match="took too long"):
        decoder.decode(b"stream", StreamKind(Coding.WEBP, 8, 8), stopped=lambda: time.monotonic() > begun + 0.2)
    assert decoder._child.process is None


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_header_that_is_cut_off_is_refused(cut: int) -> None:
    stream = encode_tile(texture(SIDE, SIDE), "j2k-rgb")
    with pytest.raises(ValueError, match="JPEG 2000"):
        read_codestream(stream[:cut])


def spoilt(stream: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    data: NDArray[np.uint8] = np.frombuffer(stream, np.uint8).copy()
    where = rng.integers(0, 130, 3)
    data[where] = rng.integers(0, 256, 3)
    return data.tobytes()


def test_spoilt_headers_are_refused_or_decoded() -> None:
    stream = encode_tile(texture(SIDE, SIDE), "j2k-rgb")
    decoder = Decoder()
    for seed in range(60):
        try:
            pixels = decoder.decode(spoilt(stream, seed), StreamKind(Coding.JPEG_2000, SIDE, SIDE, scale=2))
        except StreamError:
            continue
        assert pixels.shape == (SIDE // 2, SIDE // 2, 3)
    decoder.close()


def test_items_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for run, why in (
        (b"\xfe\xff\x00\xe0\xff\xff\xff\x7fabc", "damaged"),
        (b"nonsense", "damaged"),
        (b"\xfe\xff\x00\xe0\x02\x00", "damaged"),
    ):
        path.write_bytes(run)
        with path.open("rb") as handle, pytest.raises(StreamError, match=why):
            read_stream(handle.fileno(), 0, len(run), in_items=True)
    with path.open("rb") as handle, pytest.raises(StreamError, match="beyond the end"):
        read_stream(handle.fileno(), 4, 100, in_items=False)


def test_without_the_codec_library_the_reason_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "lzw")
    monkeypatch.setattr("stamp_deploy.codecs.coding.find_spec", lambda name: None)
    with open_slide(path) as slide:
        assert slide.route.name == "openslide"
        assert "pip install 'stamp-deploy[codecs]'" in slide.route.reason


@pytest.mark.parametrize(("scale", "bound"), [(2, 2.6), (4, 1.9), (8, 3.4)])
def test_reduced_scales_of_a_real_slide_are_near_its_averages(data_dir: Path, scale: int, bound: float) -> None:
    """Aperio's own streams: as near as another resampling filter. Without moving the samples it is 7, 10 and 13."""
    path = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    with tifffile.TiffFile(path) as tiff:
        page, data = tiff.pages[0], path.read_bytes()
        streams = [data[page.dataoffsets[n] :][: page.databytecounts[n]] for n in range(60, 180, 20)]
    for stream in streams:
        full = decode(stream, StreamKind(Coding.JPEG_2000, 256, 256)).astype(float)
        reduced = decode(stream, StreamKind(Coding.JPEG_2000, 256, 256, scale=scale))
        side = 256 // scale
        error = reduced - full.reshape(side, scale, side, scale, 3).mean((1, 3))
        assert np.abs(error).mean() < bound
        assert abs(error.mean()) < 0.3
