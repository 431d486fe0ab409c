"""A slide of several files has one hash, whichever file is named, and of all that is scored."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

from stamp_deploy.bundle import load_bundle
from stamp_deploy.checks.inspect import describe
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import SlideError
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import open_slide, slide_file
from stamp_deploy.slide.backends.isolated import holds_jpeg_2000
from stamp_deploy.slide.dicom import JPEG_2000
from stamp_deploy.slide.identity import slide_files, slide_sha256


@pytest.fixture
def series(data_dir: Path, tmp_path: Path) -> Path:
    """A folder of one DICOM slide: a level and a thumbnail of it."""
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("osp_boxes_0.dcm", "osp_boxes_1.dcm"):
        shutil.copy(data_dir / "dicom" / name, folder)
    return folder


def test_a_slide_of_one_file_is_its_bytes(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", texture(256, 256))
    with open_slide(path) as slide:
        assert slide.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert slide.size_bytes == path.stat().st_size


def test_dicom_is_the_same_by_any_of_its_files_and_by_its_folder(series: Path) -> None:
    found = set()
    for path in (series, *sorted(series.iterdir())):
        with open_slide(path) as slide:
            found.add((slide.sha256(), slide.size_bytes))
            assert (slide.width, slide.height) == (16, 16)
    assert len(found) == 1


def test_dicom_fetched_again_is_the_same_slide(series: Path, tmp_path: Path) -> None:
    """An archive writes other headers and offset tables; other pixels are another slide."""
    first = slide_sha256(series / "osp_boxes_0.dcm", "dicom")
    again = tmp_path / "again"
    again.mkdir()
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.InstitutionName = "Another archive"
        data.file_meta.ImplementationVersionName = "OTHER"
        data.save_as(again / f"renamed-{path.name}")
    assert (again / "renamed-osp_boxes_0.dcm").read_bytes() != (series / "osp_boxes_0.dcm").read_bytes()
    assert slide_sha256(again / "renamed-osp_boxes_0.dcm", "dicom") == first
    level = series / "osp_boxes_0.dcm"
    data = bytearray(level.read_bytes())
    data[-40] ^= 1
    level.write_bytes(data)
    assert slide_sha256(level, "dicom") != first


def test_dicom_levels_that_are_added_or_lost_make_another_slide(data_dir: Path, tmp_path: Path) -> None:
    level = tmp_path / "level.dcm"
    shutil.copy(data_dir / "dicom" / "highdicom_sm_image.dcm", level)
    alone = slide_sha256(level, "dicom")
    data = pydicom.dcmread(level)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID[:-1]
    data.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    data.save_as(tmp_path / "coarse.dcm")
    both = slide_sha256(level, "dicom")
    assert both != alone
    assert slide_sha256(tmp_path / "coarse.dcm", "dicom") == both
    shutil.copy(level, tmp_path / "copy.dcm")
    assert slide_sha256(level, "dicom") == both
    # an archive gives files other names: what came first by name comes last
    (tmp_path / "renamed").mkdir()
    for old, new in (("coarse", "z"), ("level", "a")):
        shutil.copy(tmp_path / f"{old}.dcm", tmp_path / "renamed" / f"{new}.dcm")
    assert slide_sha256(tmp_path / "renamed" / "z.dcm", "dicom") == both


def test_dicom_pixels_that_end_early_have_no_hash(data_dir: Path, tmp_path: Path) -> None:
    for name in ("highdicom_sm_image.dcm", "osp_boxes_0.dcm"):
        data = (data_dir / "dicom" / name).read_bytes()
        path = tmp_path / name
        path.write_bytes(data[:-100])
        with pytest.raises(SlideError, match="end early"):
            slide_sha256(path, "dicom")


@pytest.mark.parametrize("padding", [0, 6000])
def test_jpeg_2000_is_told_by_the_header_wherever_it_stands(data_dir: Path, tmp_path: Path, padding: int) -> None:
    """It is decoded in a child: by its transfer syntax, of any level of the series, or where the header is damaged."""
    data = pydicom.dcmread(data_dir / "dicom" / "highdicom_sm_image.dcm")
    main = tmp_path / "level.dcm"
    data.save_as(main)
    assert not holds_jpeg_2000(main, "dicom")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID[:-1]
    data.file_meta.TransferSyntaxUID = JPEG_2000[0]
    data.PixelData = encapsulate([data.PixelData])
    data["PixelData"].is_undefined_length = True
    data.file_meta.FileMetaInformationVersion = bytes(padding or 2)
    data.save_as(tmp_path / "coarse.dcm", enforce_file_format=False)
    assert ((tmp_path / "coarse.dcm").read_bytes().find(JPEG_2000[0].encode()) > 4096) == bool(padding)
    assert holds_jpeg_2000(tmp_path / "coarse.dcm", "dicom")
    assert holds_jpeg_2000(main, "dicom")
    main.write_bytes(main.read_bytes()[:140] + bytes(100))
    assert holds_jpeg_2000(main, "dicom")


def test_infer_and_inspect_take_the_folder_of_a_dicom_slide(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    shutil.copy(data_dir / "dicom" / "highdicom_sm_image.dcm", folder / "level.dcm")
    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=16))
    options = InferOptions(writers=("json",), all_tiles=True)
    by_folder = infer_slide(folder, bundle, tmp_path / "a", options)
    by_file = infer_slide(folder / "level.dcm", bundle, tmp_path / "b", options)
    assert by_folder.slide == by_file.slide
    assert by_folder.slide.name == "level.dcm"
    np.testing.assert_array_equal(by_folder.pathways, by_file.pathways)
    assert describe(folder, mpp=None, target_mpp=0.5, tile_px=16).facts["slide"] == "level.dcm"


def test_a_folder_of_several_slides_is_for_batch(series: Path, data_dir: Path) -> None:
    assert slide_file(series).name == "osp_boxes_0.dcm"
    shutil.copy(data_dir / "dicom" / "highdicom_sm_image.dcm", series)
    with pytest.raises(SlideError, match="2 DICOM slides") as caught:
        slide_file(series)
    assert "batch" in caught.value.remedy


def test_mirax_is_its_data_files(tmp_path: Path) -> None:
    main, data = tmp_path / "slide.mrxs", tmp_path / "slide"
    data.mkdir()
    main.write_bytes(b"a small picture")
    for name in ("Slidedat.ini", "Index.dat", "Data0000.dat", "Data0001.dat"):
        (data / name).write_bytes(name.encode())
    first = slide_sha256(main, "mirax")
    assert [part.name for part in slide_files(main, "mirax")] == [
        "Data0000.dat",
        "Data0001.dat",
        "Index.dat",
        "Slidedat.ini",
    ]
    (data / "Thumbs.db").write_bytes(b"what a file manager leaves")
    main.write_bytes(b"the preview is not scored")
    assert slide_sha256(main, "mirax") == first
    (data / "Data0001.dat").write_bytes(b"other pixels")
    assert slide_sha256(main, "mirax") != first
    with pytest.raises(SlideError, match="MIRAX"):
        slide_file(data)


def test_hamamatsu_vms_is_the_files_that_its_index_names(tmp_path: Path) -> None:
    main = tmp_path / "slide.vms"
    main.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=a.jpg\nMapFile=map.jpg\nMacroImage=../../etc/passwd\n"
    )
    for name in ("a.jpg", "map.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    assert [part.name for part in slide_files(main, "hamamatsu")] == ["a.jpg", "map.jpg", "slide.vms"]
