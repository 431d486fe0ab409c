"""ICC profiles: recorded for every format, applied to tiles where that is asked for."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image, ImageCms
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401
from support.dicom_factory import How, write_level
from support.format_factory import pages_of
from support.slide_factory import texture, write_slide
from tiles.test_tiles import difference

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import BundleError, SlideError, UsageError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import Slide, open_slide
from stamp_deploy.tiles import open_tiles


def swapping_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged: converted to sRGB the two channels change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def write_tiff(path: Path, profile: bytes | None) -> Path:
    more = {"resolution": (20000, 20000), "resolutionunit": 3, "iccprofile": profile}
    tifffile.imwrite(path, texture(256, 256), photometric="rgb", tile=(128, 128), compression="deflate", **more)
    return path


def first_tile(slide: Slide) -> np.ndarray:
    tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=128), None, 0.0)
    with open_tiles(slide, tiles.part(slice(1)), batch=1) as source:
        return next(iter(source)).pixels[0].copy()


def write_dicom(folder: Path, profile: bytes) -> Path:
    picture = pages_of(write_slide(folder / "a.svs", texture(256, 256), tile=128))[0].picture
    path = write_level(folder / "a.dcm", picture, How(table="basic"))[0]
    data = pydicom.dcmread(path)
    data.OpticalPathSequence[0].ICCProfile = profile
    data.save_as(path)
    return path


@pytest.mark.parametrize("route", [None, "openslide", "pyvips"])
def test_a_profile_is_recorded_and_changes_nothing(tmp_path: Path, route: str | None) -> None:
    profile = swapping_profile()
    path, plain = write_tiff(tmp_path / "a.tif", profile), write_tiff(tmp_path / "b.tif", None)
    with open_slide(path, route=route) as slide, open_slide(plain, route=route) as without:
        assert slide.properties["icc.profile-sha256"] == sha256(profile).hexdigest()
        assert slide.properties["icc.conversion"] == "none"
        assert not any(name.startswith("icc") for name in without.properties)
        np.testing.assert_array_equal(first_tile(slide), first_tile(without))


@pytest.mark.parametrize("route", [None, "openslide", "pyvips"])
def test_srgb_converts_tiles_and_leaves_regions(tmp_path: Path, route: str | None) -> None:
    path = write_tiff(tmp_path / "a.tif", swapping_profile())
    with open_slide(path, route=route, icc="srgb") as slide:
        assert slide.properties["icc.conversion"] == "srgb"
        stored = slide.read_region(0, 0, 0, 128, 128)
        assert difference(first_tile(slide), stored[..., [1, 0, 2]]).max() <= 3
        assert difference(first_tile(slide), stored).mean() > 10


def test_dicom_keeps_its_profile_in_the_optical_path(tmp_path: Path) -> None:
    profile = swapping_profile()
    path = write_dicom(tmp_path, profile + b"\0" * (len(profile) % 2))
    with open_slide(path, icc="srgb") as slide:
        assert slide.route.name == "jpeg-dicom"
        assert slide.properties["icc.conversion"] == "srgb"
        stored = slide.read_region(0, 0, 0, 128, 128)
        assert difference(first_tile(slide), stored[..., [1, 0, 2]]).max() <= 3


def test_pictures_have_profiles_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(texture(200, 200)).save(path, icc_profile=swapping_profile())
    with open_slide(path, mpp=0.5, icc="srgb") as slide:
        stored = slide.read_region(0, 0, 0, 128, 128)
        assert difference(first_tile(slide), stored[..., [1, 0, 2]]).max() <= 3


def test_without_a_profile_a_note_says_so(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", None)
    with open_slide(path, icc="srgb") as slide:
        assert "no ICC profile" in " ".join(slide.notes)
        np.testing.assert_array_equal(first_tile(slide), slide.read_region(0, 0, 0, 128, 128))


def test_a_damaged_profile_is_refused_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", b"no profile at all" * 20)
    with open_slide(path) as slide:
        first_tile(slide)
    with pytest.raises(SlideError, match="ICC profile is damaged") as refused:
        open_slide(path, icc="srgb")
    assert "--icc none" in refused.value.remedy


def test_the_user_outranks_the_bundle(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
) -> None:
    slide = write_tiff(tmp_path / "a.tif", swapping_profile())
    bundle = make_bundle(tmp_path / "bundle", tile_px=128)
    document = json.loads((bundle / "bundle.json").read_text())
    document["pfm"]["icc"] = "srgb"
    (bundle / "bundle.json").write_text(json.dumps(document))
    assert load_bundle(bundle).icc == "srgb"
    for flags, used in (((), "srgb"), (("--icc", "none"), "none"), (("--icc", "srgb"), "srgb")):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        done = runner("infer", slide, "--bundle", bundle, "-o", out, "--all-tiles", "--write", "json", *flags)
        assert done.code == 0, done.err
        record = json.loads(next(out.rglob("result.json")).read_text())
        assert record["slide"]["properties"]["icc.conversion"] == used
    document["pfm"]["icc"] = "adobe"
    (bundle / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="icc of 'pfm'"):
        load_bundle(bundle)


def test_only_a_conversion_that_was_asked_for_changes_the_hash_of_the_options() -> None:
    assert "icc" not in InferOptions().scoring_dict()
    assert InferOptions(icc="srgb").sha256() != InferOptions().sha256()
    with pytest.raises(UsageError, match="--icc"):
        InferOptions(icc="adobe")
