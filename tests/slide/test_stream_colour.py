"""A colour tag that contradicts the JPEG streams: the streams count where they speak, and the result says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.slide_factory import encode, texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.jpeg_header import RGB, YCBCR, stated_colours
from stamp_deploy.tiles import TileStatus, open_tiles

PICTURE = texture(384, 512)
CLOSE = 6.0
"""Mean error of JPEG coding on this texture; wrong colours are 50 grey levels off."""


def set_tag(path: Path, tag: int) -> Path:
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags["PhotometricInterpretation"].overwrite(tag)
    return path


def silent(stream: bytes) -> bytes:
    """Without markers, and with components numbered 1, 2, 3."""
    stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
    changed = bytearray(stream)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for i in range(3):
        changed[frame + 10 + 3 * i] = changed[scan + 5 + 2 * i] = i + 1
    return bytes(changed)


JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE_RGB, ADOBE_YCC = (b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([t]) for t in (0, 1))


@pytest.mark.parametrize(
    ("coding", "change", "want"),
    [
        ("420", lambda s: s, {YCBCR}),
        ("rgb", lambda s: s, {RGB}),
        ("rgb", lambda s: s[:2] + s[18:], {RGB}),  # named R, G, B
        ("444", silent, set()),
        ("rgb", silent, set()),
        ("444", lambda s: s[:2] + ADOBE_YCC + silent(s)[2:], {YCBCR}),
        ("rgb", lambda s: s[:2] + ADOBE_RGB + silent(s)[2:], {RGB}),
        ("rgb", lambda s: s[:2] + JFIF + s[2:], {RGB, YCBCR}),
        ("rgb", lambda s: s[:2] + ADOBE_YCC + s[18:], {RGB, YCBCR}),
        ("420", lambda s: s[:2] + ADOBE_RGB + s[2:], {RGB, YCBCR}),
        ("420", lambda s: s[:2] + b"\xff\x01" + s[2:], {YCBCR}),
        ("420", lambda s: s[:30], {YCBCR}),
        ("420", lambda s: s[:2], set()),
    ],
)
def test_what_a_stream_states(coding: str, change, want: set[int]) -> None:  # type: ignore[no-untyped-def]
    assert stated_colours(change(encode(texture(64, 64), coding))) == want


def tiled(path: Path, coding: str, tag: int, change=lambda s: s) -> Path:  # type: ignore[no-untyped-def]
    from support.slide_factory import replace_tiles

    plain = write_slide(path.with_name("plain.svs"), PICTURE, tile=128, coding=coding)
    return set_tag(replace_tiles(plain, path, lambda n, stream: change(stream)), tag)


def seen(path: Path, route: str | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]:
    """Tiles as scored, put together; the slide's overview; its notes."""
    with open_slide(path, mpp=0.5, route=route) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=128), None, 0.0)
        out = np.zeros((384, 512, 3), np.uint8)
        with open_tiles(slide, tiles, batch=4) as source:
            for batch in source:
                assert (batch.status == TileStatus.OK).all()
                for (x, y), pixels in zip(batch.coords, batch.pixels, strict=True):
                    out[y : y + 128, x : x + 128] = pixels
        return out, slide.thumbnail(512), slide.notes


def error(picture: NDArray[np.uint8]) -> float:
    return float(np.abs(picture.astype(int) - PICTURE).mean())


@pytest.mark.parametrize("route", ["jpeg-tiff", "openslide"])
@pytest.mark.parametrize(("coding", "tag"), [("420", 2), ("444", 2), ("rgb", 6), ("422", 2)])
def test_the_stream_counts_against_the_tag(tmp_path: Path, route: str, coding: str, tag: int) -> None:
    tiles, overview, notes = seen(tiled(tmp_path / "wrong.svs", coding, tag), route)
    assert error(tiles) < CLOSE
    assert error(overview) < CLOSE
    assert any("read as the streams say" in note for note in notes)


@pytest.mark.parametrize("route", ["jpeg-tiff", "openslide"])
@pytest.mark.parametrize(("coding", "tag"), [("444", 6), ("rgb", 2)])
@pytest.mark.parametrize("change", [lambda s: s, silent], ids=["stated", "silent"])
def test_the_tag_counts_where_the_stream_is_silent(tmp_path: Path, route: str, coding: str, tag: int, change) -> None:  # type: ignore[no-untyped-def]
    tiles, overview, notes = seen(tiled(tmp_path / "right.svs", coding, tag, change), route)
    assert error(tiles) < CLOSE
    assert error(overview) < CLOSE
    assert notes == ()


def test_two_explicit_statements_that_disagree_are_refused(tmp_path: Path) -> None:
    path = tiled(tmp_path / "both.svs", "rgb", 2, lambda s: s[:2] + JFIF + s[2:])
    with pytest.raises(SlideError, match="two colour spaces"):
        open_slide(path)


def stripped(path: Path, coding: str, tag: int) -> Path:
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([encode(PICTURE, coding, 95)]), shape=PICTURE.shape, dtype=np.uint8, rowsperstrip=PICTURE.shape[0],
            compression="jpeg", photometric="ycbcr", subsampling=(1, 1), metadata=None,
        )  # fmt: skip
    return set_tag(path, tag)


@pytest.mark.parametrize(("coding", "tag", "told"), [("444", 6, 0), ("rgb", 2, 0), ("444", 2, 1)])
def test_plain_images_too(tmp_path: Path, coding: str, tag: int, told: int) -> None:
    tiles, overview, notes = seen(stripped(tmp_path / f"{coding}-{tag}.tif", coding, tag), None)
    assert error(tiles) < CLOSE
    assert error(overview) < CLOSE
    assert len(notes) == told


def test_what_the_reader_spoils_is_refused(tmp_path: Path) -> None:
    """RGB that libvips has converted as if it were YCbCr cannot be had back."""
    with pytest.raises(SlideError, match="would show wrong colours"):
        open_slide(stripped(tmp_path / "rgb-6.tif", "rgb", 6), mpp=0.5)


@pytest.mark.parametrize(
    ("coding", "tag", "outcome"),
    [
        ("420", "YBR_FULL_422", "right"),
        ("rgb", "RGB", "right"),
        ("420", "RGB", "told"),
        ("444", "RGB", "told"),
        ("rgb", "YBR_FULL_422", "told"),
    ],
)
def test_dicom(data_dir: Path, tmp_path: Path, coding: str, tag: str, outcome: str) -> None:
    import imagecodecs
    import pydicom
    from pydicom.encaps import encapsulate, generate_frames

    source = data_dir / "dicom" / "camelyon_multiframe_jpeg.dcm"
    dataset = pydicom.dcmread(source)
    frames = generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames)
    dataset.PixelData = encapsulate([encode(imagecodecs.jpeg8_decode(frame), coding, 95) for frame in frames])
    dataset.PhotometricInterpretation = tag
    path = tmp_path / "a.dcm"
    dataset.save_as(path)
    if (coding, tag) == ("rgb", "YBR_FULL_422"):  # OpenSlide would convert RGB as if it were YCbCr
        with pytest.raises(SlideError, match="would show wrong colours"):
            open_slide(path, mpp=0.25, route="openslide")
    with open_slide(source, mpp=0.25) as slide:
        want = slide.read_region(0, 0, 0, slide.width, slide.height).astype(int)
    with open_slide(path, mpp=0.25) as slide:
        pixels = slide.read_region(0, -8, -8, slide.width + 16, slide.height + 16)
        assert bool(slide.notes) == (outcome == "told")
    assert (pixels[:8] == 255).all()
    assert np.abs(pixels[8:-8, 8:-8] - want).mean() < 2


def test_real_slides_say_what_their_tags_say(data_dir: Path) -> None:
    names = ("slides/CMU-1-Small-Region.svs", "slides/osp_boxes.tiff", "slides/osp_small.svs", "slides/kidney-48-5.tif")
    for name in (*names, "slides/panimg_valid_tiff.tif", "dicom/camelyon_multiframe_jpeg.dcm", "dicom/osp_boxes_0.dcm"):
        with open_slide(data_dir / name, mpp=0.5) as slide:
            assert not any("colour tag" in note for note in slide.notes), name
