"""Files made to mislead a reader: names, text that is not UTF-8, pipes, pictures that unpack without end."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.format_factory import pages_of, write_philips
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import COPY_AGAIN, SlideError, StampError
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.backends import vips
from stamp_deploy.slide.backends.remedies import remedy_for
from stamp_deploy.slide.storage import StorageGrid
from stamp_deploy.slide.tiff import read_levels

RGB = texture(256, 384)


@pytest.mark.parametrize("name", ["real.png[fail=true]", "a[page=3].png", "[].png", "M\udcfcller.png"])
def test_no_part_of_a_name_is_an_option(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as handle:
        Image.fromarray(RGB).save(handle, format="png")
    with open_slide(tmp_path / name, mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 384, 256), RGB)


def test_description_keys_that_are_not_utf8(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", RGB, mpp=0.5, levels=(4,), more="|Benutzerx = Doe|Left = 1")
    path.write_bytes(path.read_bytes().replace(b"Benutzerx", b"Benutz\xfc\xff\x8d"))
    with open_slide(path) as slide:
        assert slide.mpp_xy == (0.5, 0.5)
        assert "Doe" not in str(slide.properties)
        assert [isinstance(level, StorageGrid) for level in read_levels(path, slide.levels, slide.level_numbers)] == [
            True,
            True,
        ]


@pytest.mark.parametrize("tile", [True, False])
def test_ome_xml_in_latin1_bytes(tmp_path: Path, tile: bool) -> None:
    pixels = '<Pixels PhysicalSizeX="0.25" PhysicalSizeXUnit="\xb5m"/>'
    note = f'<?xml version="1.0" encoding="ISO-8859-1"?><OME><Image>{pixels}</Image></OME>'
    path = tmp_path / "slide.tif"
    more = {"tile": (128, 128)} if tile else {}
    tifffile.imwrite(path, RGB, photometric="rgb", description=note.encode("latin-1"), metadata=None, **more)
    with open_slide(path) as slide:
        assert (slide.mpp_xy, slide.mpp.source) == ((0.25, 0.25), "ome-xml")


def test_free_text_in_number_fields_stays_in_the_file(tmp_path: Path) -> None:
    path = write_slide(
        tmp_path / "slide.svs", RGB, mpp=None, more="|AppMag = Doe Jane|MPP = Doe Jane|OriginalWidth = Doe"
    )
    with open_slide(path, mpp=0.5) as slide:
        assert "Doe" not in str(slide.properties) + str(slide.mpp)
    path = write_slide(tmp_path / "good.svs", RGB, mpp=0.5)
    with open_slide(path) as slide:
        assert slide.properties["aperio.AppMag"] == "20"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slide.svs")
    with pytest.raises(SlideError, match="named pipe"):
        open_slide(tmp_path / "slide.svs")


def test_an_error_of_the_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_slide(tmp_path / "slide.svs", RGB)

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("stamp_deploy.slide.opening.levels_of_the_slide", fails)
    with pytest.raises(SlideError, match="Input/output error"):
        open_slide(path)
    monkeypatch.undo()
    with open_slide(path) as slide:
        path.unlink()
        with pytest.raises(SlideError, match="removed while it was read"):
            slide.sha256()


def test_a_plain_image_that_vanishes_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "image.png")
    monkeypatch.setattr("stamp_deploy.slide.read_faults.WAITS_S", (0, 0))
    with open_slide(tmp_path / "image.png", mpp=0.5) as slide:
        slide.thumbnail(100)
        (tmp_path / "image.png").unlink()
        with pytest.raises(StampError, match="cannot be read"):
            slide.read_region(0, 0, 0, 8, 8)


def png(path: Path, width: int, height: int) -> Path:
    """A PNG of one colour, by its chunks: the picture itself would not fit into memory."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xf0" * (3 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_a_small_file_that_unpacks_to_a_huge_picture(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no scan is so empty"):
        open_slide(png(tmp_path / "bomb.png", 20_000, 10_500), mpp=0.5)


def test_storage_tiles_that_share_one_stream(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", texture(512, 512))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        first, size = tags["TileOffsets"].value[0], tags["TileByteCounts"].value[0]
        count = 64 * 64
        tags["ImageWidth"].overwrite(64 * 256)
        tags["ImageLength"].overwrite(64 * 256)
        tags["TileOffsets"].overwrite([first] * count)
        tags["TileByteCounts"].overwrite([size] * count)
    with pytest.raises(SlideError, match="no scan is so empty"):
        open_slide(path)


def test_an_image_that_memory_cannot_hold_says_so_and_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RGB).save(tmp_path / "image.png")
    monkeypatch.setattr(vips, "MAX_PIXELS", 1000)
    with pytest.raises(SlideError, match="too many to hold in memory") as caught:
        open_slide(tmp_path / "image.png", mpp=0.5)
    assert "pyramidal" in caught.value.remedy
    monkeypatch.setattr(vips, "MAX_PIXELS", 10**9)
    monkeypatch.setattr(vips, "free_bytes", lambda: 1000)
    with pytest.raises(SlideError, match="MB are needed"):
        open_slide(tmp_path / "image.png", mpp=0.5)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Attribute TotalPixelMatrixFocalPlanes value 3 != 1", "several focal planes"),
        ('Bad direction attribute "LEFT"', "direction"),
        ("Couldn't get image flavor", "ImageType"),
        ("No pyramid levels found", "VOLUME"),
        ("Unsupported TIFF compression: 34712", "convert it"),
        ("tiff2vips: Compression scheme 34712 tile decoding is not implemented", "convert it"),
        ("Missing SOP instance 2/3 in concatenation", "copy all of them"),
        ("Attribute SamplesPerPixel value 1 != 3", "grey"),
        ("Attribute BitsAllocated value 16 != 8", "8-bit RGB"),
        ("Cannot allocate 12 bytes", "free some memory"),
        ("Short read", COPY_AGAIN),
        ("Bogus marker length", COPY_AGAIN),
    ],
)
def test_another_copy_is_the_remedy_of_damage_alone(message: str, remedy: str) -> None:
    assert remedy in remedy_for(message)
    assert (remedy_for(message) == COPY_AGAIN) == (remedy == COPY_AGAIN)


@pytest.mark.parametrize("width", [640, 200])
@pytest.mark.parametrize("page", [0, 1])
def test_a_size_that_contradicts_the_number_of_storage_tiles(tmp_path: Path, width: int, page: int) -> None:
    """OpenSlide would show each storage tile in the place of another, and the slide would be scored."""
    path = write_slide(tmp_path / "a.svs", texture(256, 384), tile=64, levels=(2,))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[page].tags["ImageWidth"].overwrite(width)
    with pytest.raises(SlideError, match=r"lists \d+ storage tiles where its \d+ x \d+ px need \d+"):
        open_slide(path)


def test_a_level_without_pixels_is_refused(tmp_path: Path) -> None:
    """A Philips level that is infinitely reduced, by its own record."""
    pages = pages_of(write_slide(tmp_path / "a.svs", texture(256, 384), tile=64, levels=(2,)))
    path = write_philips(tmp_path / "a.tiff", pages)
    data = path.read_bytes()
    spoilt = data.replace(b'"0.0005" "0.0005"', b'"0.0000" "0.0000"')
    assert spoilt != data
    path.write_bytes(spoilt)
    with pytest.raises(SlideError, match="a level without pixels"):
        open_slide(path)
