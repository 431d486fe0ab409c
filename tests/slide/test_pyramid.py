"""Levels show the slide: what has another shape or shows another picture is no level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.slide_factory import damage, texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import open_slide

RGB = texture(1024, 1536)


def pyramid(path: Path, *levels: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for i, level in enumerate((RGB, *levels)):
            writer.write(
                np.ascontiguousarray(level),
                photometric="rgb",
                tile=(128, 128),
                compression="zlib",
                subfiletype=1 if i else 0,
                resolution=(20_000, 20_000),
                resolutionunit=3,
                metadata=None,
            )
    return path


def test_true_levels_are_kept(tmp_path: Path) -> None:
    with open_slide(pyramid(tmp_path / "slide.tif", RGB[::2, ::2], RGB[::4, ::4], RGB[::16, ::16])) as slide:
        assert [level.width for level in slide.levels] == [1536, 768, 384, 96]
        assert slide.notes == ()


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (RGB[::2, ::3], "another shape"),
        (texture(512, 768, seed=9), "another picture"),
        (255 - RGB[::2, ::2], "another picture"),
    ],
)
def test_a_thumbnail_among_the_levels_is_left_out_and_told(tmp_path: Path, odd: np.ndarray, why: str) -> None:
    path = pyramid(tmp_path / "slide.tif", odd, RGB[::4, ::4])
    with open_slide(path) as slide:
        assert [(level.index, level.width) for level in slide.levels] == [(0, 1536), (1, 384)]
        assert len(slide.notes) == 1
        assert why in slide.notes[0]
        shown = slide.read_region(1, 0, 0, 384, 256)
        np.testing.assert_array_equal(shown, RGB[::4, ::4])
        assert np.abs(slide.thumbnail(384).astype(int) - RGB[::4, ::4]).mean() < 1


@pytest.mark.parametrize("size", [(2, 400), (600, 2), (2, 3), (1, 1)])
def test_levels_of_a_few_pixels_are_compared_or_left_out(tmp_path: Path, size: tuple[int, int]) -> None:
    level = np.asarray(Image.fromarray(RGB).resize(size[::-1]))
    with open_slide(pyramid(tmp_path / "slide.tif", RGB[::2, ::2], level)) as slide:
        assert [level.width for level in slide.levels][:2] == [1536, 768]


def test_damage_and_real_slides_lose_no_level(data_dir: Path, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", texture(1280, 1280), levels=(4,))
    damage(path, 12, "garbage")
    with open_slide(path) as slide:
        assert len(slide.levels) == 2
    for name, count in (("tcga-cr-7395-01a-01-ts1.svs", 2), ("osp_boxes.tiff", 4), ("panimg_valid_tiff.tif", 2)):
        with open_slide(data_dir / "slides" / name, mpp=0.5) as slide:
            assert (len(slide.levels), slide.notes) == (count, ())


def test_a_mrxs_without_its_data_is_a_preview(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "slide.jpg")
    path = (tmp_path / "slide.jpg").rename(tmp_path / "slide.mrxs")
    with pytest.raises(SlideError, match="preview of a MIRAX slide"):
        open_slide(path, mpp=0.25)


@pytest.mark.parametrize("beside", [True, False])
def test_a_vsi_is_a_preview(tmp_path: Path, beside: bool) -> None:
    path = pyramid(tmp_path / ("slide.tif" if beside else "slide.vsi"))
    if beside:
        data = tmp_path / "_slide_" / "stack1"
        data.mkdir(parents=True)
        (data / "frame_t.ets").write_bytes(b"SIS\0")
    with pytest.raises(SlideError, match="preview"):
        open_slide(path, mpp=0.5)
