"""DICOM results: conformant, on the slide's frame of reference, read back with highdicom."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.result_factory import make_head, make_result

from stamp_deploy.errors import UsageError
from stamp_deploy.grid import Grid
from stamp_deploy.maps import score_map
from stamp_deploy.result import Result, TileCounts
from stamp_deploy.writers import check_names, write_all

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
FORMATS = ("dicom-pmap", "dicom-seg", "dicom-sr")
NAMES = ("HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION", "HALLMARK_HYPOXIA")


def dicom_result(slide: Path, n_tiles: int = 20) -> Result:
    """A result of tiles of 8 px over highdicom's test slide: 50 x 50 px, 0.499 um/px."""
    heads = [
        make_head("MSI status", n_tiles),
        make_head("BRAF V600E", call=None, abstained=True, interval=None),
        make_head(
            "CMS",
            kind="multiclass",
            classes=("CMS1", "CMS2", "CMS3"),
            probabilities=(0.1, 0.7, 0.2),
            call="CMS2",
        ),
    ]
    grid = Grid(50, 50, 0.499, 0.499, 0.499, 8, 0)
    rows, columns = np.divmod(np.arange(2, 2 + n_tiles), grid.columns)
    base = make_result(n_tiles=n_tiles)
    facts = dataclasses.replace(base.slide, name=slide.name, width=50, height=50, mpp_x=0.499, mpp_y=0.499)
    cells = grid.columns * grid.rows
    return make_result(
        n_tiles=n_tiles,
        pathways=NAMES,
        heads=heads,
        grid=grid,
        coords=grid.coords(columns, rows),
        slide=facts,
        tiles=TileCounts(cells, cells - n_tiles, n_tiles, n_tiles),
        source_path=slide,
    )


@pytest.fixture
def slide(data_dir: Path) -> Path:
    return data_dir / "dicom" / "highdicom_sm_image.dcm"


def test_all_objects_conform(slide: Path, tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy found: apt-get install dicom3tools")
    for path in write_all(dicom_result(slide), tmp_path, FORMATS):
        said = subprocess.run([validator, path], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == [], path.name


def test_parametric_maps_hold_the_scores_in_place(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    source = pydicom.dcmread(slide)
    paths = write_all(result, tmp_path, ["dicom-pmap"])
    assert [path.name for path in paths] == ["map-001.dcm", "map-002.dcm"]
    series = set()
    for path, name in zip(paths, NAMES, strict=True):
        image = hd.imread(path)
        series.add(image.SeriesInstanceUID)
        assert image.ContentQualification == "RESEARCH"
        assert image.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert (image.PatientID, image.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
        pixels = np.frombuffer(image.FloatPixelData, "<f4").reshape(result.grid.rows, result.grid.columns)
        expected = score_map(result, name)
        known = np.isfinite(expected)
        assert np.array_equal(pixels[known], expected[known])
        assert (pixels[~known] == np.float32(image.FloatPixelPaddingValue)).all()
        mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.LUTExplanation == name
        quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        assert "transition" in quantity.CodeMeaning or "Hypoxia" in quantity.CodeMeaning
    assert len(series) == 1


def test_a_tile_lies_at_the_same_millimetres_in_map_and_slide(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    write_all(result, tmp_path, ["dicom-pmap", "dicom-seg"])
    source = pydicom.dcmread(slide)
    for name in ("map-001.dcm", "tiles-seg.dcm"):
        image = pydicom.dcmread(tmp_path / "dicom" / name)
        to_glass = hd.spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
        to_slide = hd.spatial.ReferenceToImageTransformer.for_image(source, for_total_pixel_matrix=True)
        cells = result.tile_cells.astype(float)
        found = to_slide(to_glass(cells))[:, :2]
        # In the image frame (0, 0) is the first pixel's outer corner: a cell's corner is its tile's corner.
        assert np.allclose(found, result.coords, atol=0.01), name


def test_segmentation_marks_the_scored_tiles(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    (path,) = write_all(result, tmp_path, ["dicom-seg"])
    seg = hd.seg.segread(path)
    assert seg.number_of_segments == 1
    assert seg.get_segment_description(1).segment_label == "Scored tissue"
    mask = seg.get_total_pixel_matrix(combine_segments=True)
    assert np.array_equal(mask > 0, np.isfinite(score_map(result, NAMES[0])))


def test_report_says_the_calls_and_stays_preliminary(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    (path,) = write_all(result, tmp_path, ["dicom-sr"])
    report = hd.sr.srread(path)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    groups = {str(group.tracking_identifier): group for group in report.content.get_image_measurement_groups()}
    assert set(groups) == {"MSI status", "BRAF V600E", "CMS", "Pathway scores"}
    values = {m.name.meaning: m.value for m in groups["MSI status"].get_measurements()}
    assert values == {
        "P(MSI-H)": pytest.approx(0.81),
        "Lower limit of 95 % interval": pytest.approx(0.74),
        "Upper limit of 95 % interval": pytest.approx(0.87),
    }
    calls = {
        name: [evaluation.value.meaning for evaluation in group.get_qualitative_evaluations()]
        for name, group in groups.items()
    }
    assert calls["MSI status"] == ["MSI-H"]
    assert calls["BRAF V600E"] == ["No call (abstained)"]
    means = {m.name.meaning: m.value for m in groups["Pathway scores"].get_measurements()}
    assert means["Hypoxia"] == pytest.approx(result.summary()["HALLMARK_HYPOXIA"]["mean"])
    content = path.read_bytes()
    assert f"bundle.json SHA-256 {result.bundle.sha256}".encode() in content
    assert result.research_use.encode() in content


def test_a_rerun_gives_the_same_bytes(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    first = [path.read_bytes() for path in write_all(result, tmp_path, FORMATS)]
    assert [path.read_bytes() for path in write_all(result, tmp_path, FORMATS)] == first


@pytest.mark.parametrize("name", FORMATS)
def test_other_slides_are_refused_before_and_after(name: str, data_dir: Path, tmp_path: Path) -> None:
    svs = data_dir / "slides" / "CMU-1-Small-Region.svs"
    with pytest.raises(UsageError, match="not DICOM"):
        check_names([name], svs)
    with pytest.raises(UsageError, match="lacks TotalPixelMatrixOriginSequence"):
        check_names([name], data_dir / "dicom" / "camelyon_multiframe_jpeg.dcm")
    with pytest.raises(UsageError, match="no longer knows"):
        write_all(make_result(), tmp_path, [name])
    check_names([name], data_dir / "dicom" / "highdicom_sm_image.dcm")
