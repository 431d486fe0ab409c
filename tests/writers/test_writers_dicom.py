"""DICOM results: conformant, on the slide's frame of reference, read back with highdicom."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.dicom_check import complaints
from support.result_factory import make_head, make_result

from stamp_deploy.errors import UsageError
from stamp_deploy.grid import Grid
from stamp_deploy.map_style import colour_range
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


RANGES = [
    (0, 1),
    (0.2, 0.2),
    (0, 0),
    (-3, 5),
    (1e-9, 2e-9),
    (-1 / 3, 1 / 3),
    (-1e5, 1e5),
    (1e8, 1e8 + 8),
    (-1e30, 1e38),
]


def written_to(folder: Path, result: Result) -> list[Path]:
    """Every DICOM object of a result, in a folder of its own."""
    folder.mkdir()
    return write_all(result, folder, FORMATS)


def scored(result: Result, low: float, high: float) -> Result:
    """A result with scores from `low` to `high`."""
    scores = np.linspace(low, high, result.pathways.size).reshape(result.pathways.shape).astype(np.float32)
    return dataclasses.replace(result, pathways=scores)


@pytest.mark.parametrize("span", RANGES, ids=str)
def test_all_objects_conform(slide: Path, tmp_path: Path, span: tuple[float, float]) -> None:
    for path in write_all(scored(dicom_result(slide), *span), tmp_path, FORMATS):
        assert complaints(path) == [], path.name


def test_the_window_spans_the_colours(slide: Path, tmp_path: Path) -> None:
    """LINEAR_EXACT shows white from centre + width / 2; LINEAR would shift a window below 1 out of sight."""
    result = scored(dicom_result(slide), 0.25, 0.75)
    (path, *_) = write_all(result, tmp_path, ["dicom-pmap"])
    window = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    bottom, top = colour_range(result.pathways[:, 0])
    assert window.VOILUTFunction == "LINEAR_EXACT"
    assert float(window.WindowWidth) == pytest.approx(top - bottom)
    assert float(window.WindowCenter) == pytest.approx((top + bottom) / 2)


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


@pytest.mark.parametrize(
    ("tissue", "kind", "name"),
    [
        ({"rule": {"method": "saturation-otsu"}, "source": "found"}, "AUTOMATIC", "saturation-otsu"),
        ({"source": "given"}, "SEMIAUTOMATIC", "tissue mask drawn by hand"),
        ({"source": "found", "roi": {"use": "restrict"}}, "SEMIAUTOMATIC", "annotations drawn by hand"),
        ({"rule": {"method": "m"}, "source": "found", "roi": {"use": "split"}}, "AUTOMATIC", "m"),
    ],
)
def test_a_segmentation_says_what_a_person_drew(
    slide: Path, tmp_path: Path, tissue: dict[str, object], kind: str, name: str
) -> None:
    result = dataclasses.replace(dicom_result(slide), tissue=tissue)
    segment = hd.seg.segread(write_all(result, tmp_path, ["dicom-seg"])[0]).get_segment_description(1)
    assert segment.algorithm_type.value == kind
    assert segment.algorithm_identification.name == name


def test_segmentation_marks_the_scored_tiles(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    (path,) = write_all(result, tmp_path, ["dicom-seg"])
    seg = hd.seg.segread(path)
    assert seg.number_of_segments == 1
    assert (seg.segmentation_type.value, seg.BitsAllocated, seg.NumberOfFrames) == ("BINARY", 1, 1)
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
    """Whenever and wherever it runs: nothing of the run's time goes into an object."""
    result = dicom_result(slide)
    first = {path.name: path.read_bytes() for path in written_to(tmp_path / "a", result)}
    later = dataclasses.replace(result, started_utc="2031-05-06T07:08:09+00:00", timing={"engine": 9.0})
    again = {path.name: path.read_bytes() for path in written_to(tmp_path / "b", later)}
    assert again == first


def uids(result: Result, folder: Path) -> set[str]:
    return {str(pydicom.dcmread(path).SOPInstanceUID) for path in written_to(folder, result)}


def test_other_bytes_never_share_a_uid(slide: Path, tmp_path: Path) -> None:
    """Of two contents under one UID an archive keeps either: another score, engine or patient makes other objects."""
    result = dicom_result(slide)
    first = uids(result, tmp_path / "a")
    assert len(first) == 4
    one_score = result.pathways.copy()
    one_score[3, :] = np.nextafter(one_score[3, :], 2)
    assert not uids(dataclasses.replace(result, pathways=one_score), tmp_path / "b") & first
    engine = dataclasses.replace(result.engine, precision="bf16")
    assert not uids(dataclasses.replace(result, engine=engine), tmp_path / "c") & first
    header = pydicom.dcmread(slide)
    header.PatientID = "corrected"
    header.save_as(tmp_path / "corrected.dcm")
    assert not uids(dataclasses.replace(result, source_path=tmp_path / "corrected.dcm"), tmp_path / "d") & first


def test_objects_are_dated_by_the_slide(slide: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(slide)
    del header.AcquisitionDateTime
    header.ContentDate, header.ContentTime = "20190203", "040506.7"
    header.save_as(tmp_path / "slide.dcm")
    for path in written_to(tmp_path / "out", dicom_result(tmp_path / "slide.dcm")):
        written = pydicom.dcmread(path)
        assert (written.ContentDate, written.ContentTime) == ("20190203", "040506")
        assert (written.InstanceCreationDate, "TimezoneOffsetFromUTC" in written) == ("20190203", False)
    header.TimezoneOffsetFromUTC = "+0530"
    header.save_as(tmp_path / "slide.dcm")
    for path in written_to(tmp_path / "zone", dicom_result(tmp_path / "slide.dcm")):
        written = pydicom.dcmread(path)
        assert (written.ContentDate, written.ContentTime) == ("20190203", "040506")
        assert written.TimezoneOffsetFromUTC == "+0530", "the time is the scanner's own"


def split(slide: Path, folder: Path, parts: int = 2) -> list[Path]:
    """The frames of a slide in several instances: a concatenation."""
    whole = pydicom.dcmread(slide)
    frames = int(whole.NumberOfFrames)
    size = len(whole.PixelData) // frames
    edges = np.linspace(0, frames, parts + 1).astype(int)
    paths = []
    for number, (start, stop) in enumerate(itertools.pairwise(edges), start=1):
        part = copy.deepcopy(whole)
        part.PixelData = whole.PixelData[start * size : stop * size]
        part.NumberOfFrames = int(stop - start)
        if "PerFrameFunctionalGroupsSequence" in whole:
            part.PerFrameFunctionalGroupsSequence = whole.PerFrameFunctionalGroupsSequence[int(start) : int(stop)]
        part.ConcatenationUID = "2.25.77"
        part.SOPInstanceUIDOfConcatenationSource = whole.SOPInstanceUID
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, parts
        part.ConcatenationFrameOffsetNumber = int(start)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = f"2.25.{1000 - number}"
        paths.append(folder / f"part-{number}.dcm")
        part.save_as(paths[-1])
    return paths


def test_a_full_resolution_in_several_files_is_referred_to_whole(slide: Path, tmp_path: Path) -> None:
    """And the objects are the same whichever file was named."""
    source = tmp_path / "slide"
    source.mkdir()
    paths = split(slide, source, 3)
    expected = {"2.25.999", "2.25.998", "2.25.997"}
    written = [written_to(tmp_path / path.stem, dicom_result(path)) for path in paths]
    for path in written[0]:
        found: set[str] = set()

        def collect(_: object, element: object, into: set[str] = found) -> None:
            if getattr(element, "keyword", "") == "ReferencedSOPInstanceUID":
                into.add(str(getattr(element, "value", "")))

        pydicom.dcmread(path).walk(collect)
        assert found >= expected, path.name
        assert complaints(path) == []
    for others in written[1:]:
        assert [path.read_bytes() for path in others] == [path.read_bytes() for path in written[0]]
    paths[1].unlink()
    with pytest.raises(UsageError, match="2 of the 3 parts"):
        written_to(tmp_path / "cut", dicom_result(paths[0]))


@pytest.mark.parametrize("vr", ["LO", ""])
@pytest.mark.parametrize("keyword", ["PatientBirthDate", "StudyDate", "StudyTime"])
def test_a_malformed_header_is_refused_without_its_text(slide: Path, tmp_path: Path, keyword: str, vr: str) -> None:
    """Before any tile is scored, with the attribute's name and no character of its value."""
    header = pydicom.dcmread(slide)
    with warnings.catch_warnings(action="ignore"):
        tag = header.data_element(keyword).tag
        header[tag] = pydicom.DataElement(tag, "LO", "Mustermann 1970")
        header[tag].VR = vr or pydicom.datadict.dictionary_VR(tag)
        header.save_as(tmp_path / "slide.dcm")
    data = (tmp_path / "slide.dcm").read_bytes()
    assert b"Mustermann" in data
    for name in FORMATS:
        with pytest.raises(UsageError, match=f"{keyword} is not in the form") as refused:
            check_names([name], tmp_path / "slide.dcm")
        assert "Muster" not in str(refused.value)


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
