"""Opening slides: routes, thumbnails, odd names, and what of a file never leaves it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import SlideError, UsageError
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import open_slide


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "small.svs", texture(600, 900), levels=(4,))


@pytest.mark.parametrize(
    ("name", "mpp", "route", "reason"),
    [
        ("slides/CMU-1-Small-Region.svs", None, "jpeg-tiff", "compiled tiler"),
        ("slides/tcga-cr-7395-01a-01-ts1.svs", 0.25, "codec-tiff", "JPEG 2000"),
        ("slides/kidney-48-5.tif", 0.5, "pyvips", "generic"),
        ("slides/osp_boxes.tiff", 0.5, "codec-tiff", "deflate"),
        ("dicom/highdicom_sm_image.dcm", None, "openslide", "dicom"),
    ],
)
def test_the_route_of_real_files_and_why(data_dir: Path, name: str, mpp: float | None, route: str, reason: str) -> None:
    with open_slide(data_dir / name, mpp=mpp) as slide:
        assert slide.route.name == route
        assert reason in slide.route.reason


def test_a_route_can_be_forced_where_it_fits(small: Path, data_dir: Path) -> None:
    with open_slide(small, route="openslide") as slide:
        assert slide.route.name == "openslide"
    with pytest.raises(UsageError, match="JPEG 2000"):
        open_slide(data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs", mpp=0.25, route="jpeg-tiff")
    with pytest.raises(UsageError, match="unknown"):
        open_slide(small, route="magic")


def test_thumbnails_show_the_whole_slide(small: Path) -> None:
    with open_slide(small) as slide:
        large, derived = slide.thumbnail(300), slide.thumbnail(100)
    with open_slide(small) as slide:
        assert slide.thumbnail(10_000).shape == (600, 900, 3)
    assert large.shape == (200, 300, 3)
    assert derived.shape == (67, 100, 3)
    truth = np.asarray(Image.fromarray(texture(600, 900)).resize((100, 67), Image.Resampling.BOX))
    assert np.abs(derived.astype(int) - truth).mean() < 3
    assert np.abs(large[::10].astype(int).mean() - truth.mean()) < 3


def test_a_thumbnail_read_in_strips_is_the_one_read_at_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(small) as slide:
        whole = slide.thumbnail(150)
        read = slide.read_region
        heights = []

        def counting(level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
            heights.append(h)
            return read(level, x, y, w, h)

        monkeypatch.setattr(slide, "read_region", counting)
        monkeypatch.setattr("stamp_deploy.slide.slide.STRIP_BYTES", 225 * 3 * 40)
        again = slide._read_thumbnail(150)
    assert len(heights) > 3
    assert np.array_equal(whole, again)


@pytest.mark.parametrize("name", ["säge 😀.svs", "a b'c\"d.svs", "-mpp.svs", "x" * 200 + ".svs"])
def test_odd_file_names(small: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copy(small, path)
    with open_slide(path) as slide:
        assert slide.route.name == "jpeg-tiff"
        assert slide.read_region(0, 0, 0, 8, 8).shape == (8, 8, 3)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    for path, cause in (
        (tmp_path / "none.svs", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty.svs", "is empty"),
        (tmp_path / ("x" * 300 + ".svs"), "cannot be read"),
    ):
        with pytest.raises(SlideError, match=cause) as caught:
            open_slide(path)
        assert str(tmp_path) not in str(caught.value).replace(path.name, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "locked.svs"
    shutil.copy(small, path)
    path.chmod(0)
    with pytest.raises(SlideError, match="Permission denied"):
        open_slide(path)


def test_label_and_macro_images_are_never_opened(
    cmu_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMU-1-Small-Region holds a label and a macro image; a whole run must not touch them."""
    import openslide

    assert {"label", "macro"} <= set(openslide.OpenSlide(cmu_slide).associated_images)

    def refuse(*_: object) -> None:
        raise AssertionError("an associated image was opened")

    for owner, name in (
        (openslide.AbstractSlide, "associated_images"),
        (openslide.OpenSlide, "associated_images"),
        (openslide.AbstractSlide, "set_cache"),
    ):
        if name in vars(owner) and name != "set_cache":
            monkeypatch.setattr(owner, name, property(refuse))
    monkeypatch.setattr(openslide.lowlevel, "read_associated_image", refuse)
    monkeypatch.setattr(openslide.lowlevel, "get_associated_image_dimensions", refuse)
    with pytest.raises(AssertionError):
        openslide.OpenSlide(cmu_slide).associated_images  # noqa: B018 - the trap works
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=224))
    infer_slide(cmu_slide, bundle, tmp_path / "out", InferOptions(writers=("json", "heatmaps")))
    assert (tmp_path / "out" / "DONE").is_file()


def test_vendor_text_that_can_name_a_patient_stays_in_the_file(tmp_path: Path) -> None:
    """Aperio's ImageDescription is free text: nothing of it but a short list of numbers comes out."""
    secret = "Doe^Jane"
    path = write_slide(tmp_path / "slide.svs", texture(512, 512), mpp=0.5, more=f"|Patient = {secret}|User = {secret}")
    assert secret.encode() in path.read_bytes()
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=64))
    result = infer_slide(path, bundle, tmp_path / "out", InferOptions(all_tiles=True))
    assert secret not in json.dumps(result.to_json_dict())
    for file in (tmp_path / "out").rglob("*"):
        assert file.is_dir() or secret.encode() not in file.read_bytes()
    assert set(result.slide.properties) >= {"aperio.MPP", "openslide.vendor"}


def test_dicom_patient_data_stays_in_the_file(data_dir: Path) -> None:
    with open_slide(data_dir / "dicom" / "highdicom_sm_image.dcm") as slide:
        others = {key for key in slide.properties if not key.startswith("openslide.")}
        assert others == {"icc.profile-sha256", "icc.conversion"}
        assert "Test^Patient" not in str(slide.properties)
