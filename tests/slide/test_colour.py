"""What is no brightfield picture in 8-bit RGB is refused with the reason; alpha is laid on white."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

from stamp_deploy.batch.workers.steps import InferSteps
from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import BundleError, SlideError
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import Slide, open_slide
from stamp_deploy.slide.colour import check_brightfield

RGB = texture(512, 512)
SIZES = {"resolution": (20_000, 20_000), "resolutionunit": 3}
OME = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}


def write(path: Path, pixels: NDArray[np.generic], photometric: str = "rgb", tile: bool = True, **more: object) -> Path:
    options = {"metadata": None, **SIZES, **more}
    tifffile.imwrite(path, pixels, photometric=photometric, tile=(128, 128) if tile else None, **options)
    return path


@pytest.mark.parametrize("tile", [True, False])
@pytest.mark.parametrize(
    ("pixels", "photometric", "more", "what"),
    [
        (RGB[..., 0], "minisblack", {}, "grey picture"),
        (RGB[..., 0], "miniswhite", {}, "grey picture"),
        (RGB.astype(np.uint16) * 16, "rgb", {}, "bits a colour"),
        (RGB.astype(np.float32) / 255, "rgb", {}, "floating-point"),
        (np.moveaxis(RGB, 2, 0).copy(), "minisblack", {"ome": True, "metadata": OME, "resolution": None}, "3 grey"),
        (RGB[..., 0], "palette", {"colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85}, "palette"),
        (np.dstack([RGB, RGB[..., 0]]), "separated", {}, "CMYK"),
        (np.dstack([RGB, RGB]), "rgb", {"extrasamples": [0, 0, 0]}, "channels, not red"),
    ],
)
def test_what_is_no_rgb_is_refused(
    tmp_path: Path, pixels: NDArray[np.generic], photometric: str, more: dict[str, object], what: str, tile: bool
) -> None:
    path = write(tmp_path / "slide.tif", pixels, photometric, tile, **more)
    with pytest.raises(SlideError, match=what) as caught:
        open_slide(path, mpp=0.5)
    assert "8-bit RGB" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "what"), [("L.png", "grey"), ("L.jpg", "grey"), ("P.png", "palette"), ("CMYK.jpg", "CMYK")]
)
def test_plain_images_that_are_no_rgb_are_refused(tmp_path: Path, name: str, what: str) -> None:
    Image.fromarray(RGB).convert(name.split(".")[0]).save(tmp_path / name)
    with pytest.raises(SlideError, match=what):
        open_slide(tmp_path / name, mpp=0.5)


def test_three_planes_of_one_page_are_read_as_colour(tmp_path: Path) -> None:
    for tile in (True, False):
        path = write(tmp_path / f"{tile}.tif", np.moveaxis(RGB, 2, 0).copy(), tile=tile, planarconfig="separate")
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 512, 512), RGB)


@pytest.mark.parametrize("tile", [True, False])
def test_alpha_is_laid_on_white(tmp_path: Path, tile: bool) -> None:
    """Transparent black is what writers fill with, not tissue."""
    pixels = np.dstack([RGB, np.full((512, 512), 255, np.uint8)])
    pixels[:200] = 0
    path = write(tmp_path / "slide.tif", pixels, tile=tile, extrasamples=["unassalpha"])
    with open_slide(path) as slide:
        shown = slide.read_region(0, 0, 0, 512, 512)
    assert (shown[:200] == 255).all()
    np.testing.assert_array_equal(shown[200:], RGB[200:])


def test_a_bundle_that_was_trained_on_grey_reads_grey(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", RGB[..., 0], "minisblack")
    with open_slide(path, accept=("grey",)) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 512, 512), np.repeat(RGB[..., :1], 3, axis=2))
    with pytest.raises(SlideError, match="grey"):
        open_slide(path, accept=("fluorescence",))


def test_infer_asks_the_bundle_what_it_was_trained_on(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", RGB[..., 0], "minisblack")
    folder = make_bundle(tmp_path / "bundle")
    options = InferOptions(writers=("json",), all_tiles=True)
    with pytest.raises(SlideError, match="grey picture"):
        infer_slide(path, load_bundle(folder), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    record = json.loads((folder / "bundle.json").read_text())
    record["pfm"]["trained_on"] = ["grey"]
    (folder / "bundle.json").write_text(json.dumps(record))
    assert infer_slide(path, load_bundle(folder), tmp_path / "out", options).tiles.ok == 64
    assert InferSteps().probe(path, 0.5)["width"] == 512  # planning a batch leaves it to the bundle, too
    record["pfm"]["trained_on"] = "grey"
    (folder / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(BundleError, match="trained_on"):
        load_bundle(folder)


def test_a_real_fluorescence_slide(data_dir: Path) -> None:
    path = data_dir / "formats" / "test3-DAPI-2-387.ndpi"
    with open_slide(path) as slide, pytest.raises(SlideError, match="fluorescence"):
        slide.thumbnail(500)
    with open_slide(path, accept=("fluorescence",)) as slide:
        assert slide.thumbnail(500).shape == (500, 408, 3)


def test_fluorescence_is_told_from_brightfield_with_black_borders(tmp_path: Path) -> None:
    cells = np.zeros((400, 400, 3), np.uint8)
    for channel in range(3):
        cells[20 + 90 * channel : 100 + 90 * channel, 50:350, channel] = 230
    with pytest.raises(SlideError, match="fluorescence"):
        check_brightfield(cells, tmp_path / "slide.ndpi", ())
    bordered = np.zeros((400, 400, 3), np.uint8)
    bordered[100:200, 100:200] = (230, 180, 210)
    check_brightfield(bordered, tmp_path / "slide.svs", ())
    check_brightfield(np.full((100, 100, 3), (120, 60, 140), np.uint8), tmp_path / "slide.svs", ())


def test_a_scanner_that_says_fluorescence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.slide.backends.openslide import OpenSlideBackend

    path = write_slide(tmp_path / "slide.svs", RGB)
    opened = OpenSlideBackend.__init__

    def with_light(self: OpenSlideBackend, path: Path) -> None:
        opened(self, path)
        self.properties["leica.illumination-source"] = "fluorescence"

    monkeypatch.setattr(OpenSlideBackend, "__init__", with_light)
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(path)
    assert isinstance(open_slide(path, accept=("fluorescence",)), Slide)
