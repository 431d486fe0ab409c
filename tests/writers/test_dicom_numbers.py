"""DICOM objects in numbers: spacing and place of cells that are no squares, dates, codes, and what names an object."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_factory import make_result
from writers.test_writers_dicom import NAMES, dicom_result

from stamp_deploy import __version__
from stamp_deploy.grid import Grid
from stamp_deploy.result import Result, TileCounts
from stamp_deploy.writers import write_all

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset

from stamp_deploy.writers import dicom_object
from stamp_deploy.writers.dicom_object import _moment, _refer_to_parts, code, equipment, uid
from stamp_deploy.writers.dicom_source import geometry

ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)


def source(thickness: float | None = 0.003, z: float | None = 0.5, **more: Any) -> Dataset:
    """The header of a slide as far as results depend on it."""
    header = Dataset()
    header.ImageOrientationSlide = list(ORIENTATION)
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 12.5, 31.25
    if z is not None:
        origin.ZOffsetInSlideCoordinateSystem = z
    header.TotalPixelMatrixOriginSequence = [origin]
    measures, groups = Dataset(), Dataset()
    if thickness is not None:
        measures.SliceThickness = thickness
    groups.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [groups]
    for name, value in more.items():
        setattr(header, name, value)
    return header


def crooked() -> Result:
    """Tiles of 64 px at 0.5 um/px that overlap by 16: cells 24 um apart; pixels of 0.26 by 0.2 um."""
    base = make_result(n_tiles=2, pathways=2)
    grid = Grid(4000, 3000, 0.26, 0.2, 0.5, 64, 16)
    return dataclasses.replace(
        base,
        grid=grid,
        coords=grid.coords(np.array([1, 2]), np.array([0, 3])),
        slide=dataclasses.replace(base.slide, width=4000, height=3000, mpp_x=0.26, mpp_y=0.2),
        tiles=TileCounts(grid.columns * grid.rows, grid.columns * grid.rows - 2, 2, 2),
    )


def test_a_cell_is_as_large_as_the_step_and_lies_half_a_step_in() -> None:
    """Rows of the picture run along -y of the glass, columns along -x: PS3.3 C.8.12.4."""
    place = geometry(crooked(), source())
    measures = place.pixel_measures[0]
    assert [float(v) for v in measures.PixelSpacing] == pytest.approx([0.024, 0.024])
    assert float(measures.SliceThickness) == 0.003
    position = place.position[0]
    along_row_mm, along_column_mm = (0.024 - 0.00026) / 2, (0.024 - 0.0002) / 2
    found = [float(position[f"{axis}OffsetInSlideCoordinateSystem"].value) for axis in "XYZ"]
    assert found == pytest.approx([12.5 - along_column_mm, 31.25 - along_row_mm, 0.5])
    assert [float(v) for v in place.orientation[0].ImageOrientationSlide] == list(ORIENTATION)
    assert (position.ColumnPositionInTotalImagePixelMatrix, position.RowPositionInTotalImagePixelMatrix) == (1, 1)


def test_spacing_is_rows_first() -> None:
    """A grid of its own resolution in x: the distance of rows comes first in DICOM."""
    result = crooked()
    slide = dataclasses.replace(result.slide, mpp_x=0.52)
    measures = geometry(dataclasses.replace(result, slide=slide), source()).pixel_measures[0]
    assert [float(v) for v in measures.PixelSpacing] == pytest.approx([0.024, 0.048])


@pytest.mark.parametrize(("stated", "expected"), [(0.003, 0.003), (None, 0.004), (0, 0.004)])
def test_a_section_without_a_thickness_has_four_microns(stated: float | None, expected: float) -> None:
    measures = geometry(crooked(), source(stated)).pixel_measures[0]
    assert float(measures.SliceThickness) == expected


def test_a_header_without_groups_or_depth_is_placed_at_zero() -> None:
    header = source(z=None)
    del header.SharedFunctionalGroupsSequence
    place = geometry(crooked(), header)
    assert float(place.position[0].ZOffsetInSlideCoordinateSystem) == 0
    assert float(place.pixel_measures[0].SliceThickness) == 0.004


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"AcquisitionDateTime": "20200102030405.123456", "ContentDate": "20210101"}, ("20200102", "030405", "")),
        ({"AcquisitionDateTime": "20200102", "ContentDate": "20210101"}, ("20210101", "000000", "")),
        (
            {"AcquisitionDate": "20200304", "AcquisitionTime": "111213.5", "ContentDate": "20210101"},
            ("20200304", "111213", ""),
        ),
        (
            {"ContentDate": "20210101", "ContentTime": "0102", "SeriesDate": "20220202", "SeriesTime": "040506"},
            ("20210101", "000000", ""),
        ),
        ({"SeriesDate": "20220202", "SeriesTime": "040506", "StudyDate": "20230303"}, ("20220202", "040506", "")),
        ({"StudyDate": "20230303", "StudyTime": "070809"}, ("20230303", "070809", "")),
        ({"StudyTime": "070809"}, ("19700101", "000000", "")),
        (
            {"AcquisitionDateTime": "20200102030405", "TimezoneOffsetFromUTC": "-0430"},
            ("20200102", "030405", "-0430"),
        ),
        ({"ContentDate": "20210101", "TimezoneOffsetFromUTC": "+0100"}, ("20210101", "000000", "+0100")),
        ({"ContentDate": "20210101", "TimezoneOffsetFromUTC": "0100"}, ("20210101", "000000", "")),
        ({"TimezoneOffsetFromUTC": "+0100"}, ("19700101", "000000", "")),
    ],
)
def test_what_a_slide_states_of_its_time_in_order_of_rank(
    header: dict[str, str], expected: tuple[str, str, str]
) -> None:
    class Header(dict[str, str]):
        """Of `get` alone: pydicom would refuse some of these values."""

    assert _moment(Header(header)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "kept"),
    [("x" * 16, True), ("x" * 17, False), ("ä", False), ("", False), ("HYPOXIA", True)],
)
def test_code_values_hold_sixteen_characters(value: str, kept: bool) -> None:
    found = code(value, "meaning" * 20)
    assert (found.value == value) == kept
    assert len(found.value) <= 16
    assert found.value.isascii()
    assert found.scheme_designator == "99STAMP"
    assert found.meaning == ("meaning" * 20)[:64]
    assert code("x", "").meaning == "unnamed"
    assert code("x" * 17, "m").value != code("x" * 18, "m").value


def test_equipment_names_the_bundle_in_64_characters() -> None:
    base = make_result()
    result = dataclasses.replace(base, bundle=dataclasses.replace(base.bundle, name="n" * 100))
    found = equipment(result)
    assert found["manufacturer"] == "stamp-deploy"
    assert found["manufacturer_model_name"] == ("stamp-deploy " + "n" * 100)[:64]
    assert found["device_serial_number"] == result.bundle.sha256[:16]
    assert found["software_versions"] == __version__ != result.bundle.name


def changed(result: Result, **changes: Any) -> Result:
    """With fields of its parts replaced: "engine.version" becomes engine__version."""
    for name, value in changes.items():
        part, _, rest = name.partition("__")
        value = dataclasses.replace(getattr(result, part), **{rest: value}) if rest else value
        result = dataclasses.replace(result, **{part: value})
    return result


def test_a_uid_depends_on_all_that_makes_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    result, header = (
        make_result(n_tiles=3, pathways=2),
        source(PatientID="a", StudyInstanceUID="1.2", SOPInstanceUID="1.3"),
    )
    first = uid(result, header, "pmap", "one")
    assert uid(result, header, "pmap", "one") == first
    others = [
        uid(result, header, "pmap", "two"),
        uid(result, header, "seg", "one"),
        uid(result, source(PatientID="b", StudyInstanceUID="1.2", SOPInstanceUID="1.3"), "pmap", "one"),
        uid(result, source(PatientID="a", StudyInstanceUID="1.9", SOPInstanceUID="1.3"), "pmap", "one"),
        uid(result, source(PatientID="a", StudyInstanceUID="1.2", SOPInstanceUID="1.9"), "pmap", "one"),
        *(
            uid(changed(result, **change), header, "pmap", "one")
            for change in (
                {"slide__sha256": "00" * 32},
                {"bundle__sha256": "00" * 32},
                {"config_sha256": "00" * 32},
                {"engine__name": "x"},
                {"engine__version": "x"},
                {"engine__precision": "x"},
                {"pathway_names": ("x", "y")},
                {"coords": result.coords + 1},
                {"pathways": result.pathways + 1},
                {"heads": ()},
            )
        ),
    ]
    monkeypatch.setattr(dicom_object, "__version__", "0.0.0")
    others.append(uid(result, header, "pmap", "one"))
    assert len({first, *others}) == len(others) + 1


def test_an_object_that_refers_to_something_else_keeps_its_references() -> None:
    """Only what names the first part of a concatenation must name the others, too."""
    parts = [source(SOPInstanceUID="1.1"), source(SOPInstanceUID="1.2")]
    holder = pydicom.dataset.Dataset()
    for named, expected in ((["1.1"], ["1.1", "1.2"]), (["1.9"], ["1.9"]), (["1.1", "1.2"], ["1.1", "1.2"])):
        items = [pydicom.dataset.Dataset() for _ in named]
        for item, uid_of_item in zip(items, named, strict=True):
            item.ReferencedSOPInstanceUID = uid_of_item
        holder.ReferencedInstanceSequence = items
        _refer_to_parts(holder["ReferencedInstanceSequence"], parts)
        assert [found.ReferencedSOPInstanceUID for found in holder.ReferencedInstanceSequence] == expected


@pytest.fixture
def slide(data_dir: Path) -> Path:
    return data_dir / "dicom" / "highdicom_sm_image.dcm"


def test_what_a_map_and_a_segmentation_say_of_themselves(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    first, second, mask = map(pydicom.dcmread, write_all(result, tmp_path, ["dicom-pmap", "dicom-seg"]))
    assert (first.SeriesNumber, second.SeriesNumber, mask.SeriesNumber) == (900, 900, 901)
    assert (first.InstanceNumber, second.InstanceNumber, mask.InstanceNumber) == (1, 2, 1)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID != mask.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert (first.Rows, first.Columns) == (mask.Rows, mask.Columns) == (result.grid.rows, result.grid.columns)
    for image, name, scores in ((first, NAMES[0], result.pathways[:, 0]), (second, NAMES[1], result.pathways[:, 1])):
        mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        stated = mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped
        assert stated == pytest.approx((scores.min(), scores.max()))
        assert mapping.LUTExplanation == name
        assert float(image.FloatPixelPaddingValue) == float(np.finfo(np.float32).min)
        assert image.FloatPixelPaddingRangeLimit == image.FloatPixelPaddingValue
        assert image.SeriesDescription == "Pathway maps, research use only"
    assert mask.SeriesDescription == "Scored tissue, research use only"
    algorithm = mask.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "saturation-otsu"
    assert algorithm.AlgorithmVersion == result.software["stamp-deploy"]
    assert mask.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_what_a_report_says_of_each_head(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    (path,) = write_all(result, tmp_path, ["dicom-sr"])
    document = pydicom.dcmread(path)
    assert (document.SeriesNumber, document.InstanceNumber, document.CompletionFlag) == (902, 1, "COMPLETE")
    assert document.ManufacturerModelName == f"stamp-deploy {result.bundle.name}"
    groups = {
        str(group.tracking_identifier): group for group in hd.sr.srread(path).content.get_image_measurement_groups()
    }
    values = {name: {m.name.meaning: m.value for m in group.get_measurements()} for name, group in groups.items()}
    assert values["BRAF V600E"] == {"P(MSI-H)": pytest.approx(0.81)}
    assert {name: value for name, value in values["CMS"].items() if name.startswith("P(CMS")} == {
        "P(CMS1)": pytest.approx(0.1), "P(CMS2)": pytest.approx(0.7), "P(CMS3)": pytest.approx(0.2),
    }  # fmt: skip
    (call,) = groups["CMS"].get_qualitative_evaluations()
    assert call.value.meaning == "CMS2"
    assert set(values["Pathway scores"]) == {"Epithelial mesenchymal transition", "Hypoxia"}
