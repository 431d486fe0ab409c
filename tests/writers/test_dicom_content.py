"""What DICOM objects say, item by item: who observed what, of what it was made, units, dates, references, UIDs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.result_factory import make_result
from writers.test_writers_dicom import FORMATS, NAMES, dicom_result, split, written_to

from stamp_deploy.errors import UsageError
from stamp_deploy.provenance import RESEARCH_USE
from stamp_deploy.writers import check_names, write_all

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from pydicom.dataset import Dataset

Item = tuple[str, Any]


@pytest.fixture
def slide(data_dir: Path) -> Path:
    return data_dir / "dicom" / "highdicom_sm_image.dcm"


def report_of(folder: Path, slide: Path) -> Dataset:
    (path,) = write_all(dicom_result(slide), folder, ["dicom-sr"])
    return pydicom.dcmread(path)


def items(parent: Dataset) -> Iterator[Item]:
    """(name, value) of every item of a report's tree, from the top down; codes as (value, scheme, meaning)."""
    for item in parent.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning
        if item.ValueType == "CODE":
            code = item.ConceptCodeSequence[0]
            yield name, (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning)
        elif item.ValueType == "NUM":
            (measured,) = item.MeasuredValueSequence
            (unit,) = measured.MeasurementUnitsCodeSequence
            yield name, (float(measured.NumericValue), unit.CodeValue, unit.CodingSchemeDesignator)
        elif item.ValueType in ("TEXT", "UIDREF"):
            yield name, item.get("TextValue") or item.get("UID")
        yield from items(item)


def groups(document: Dataset) -> dict[str, list[Item]]:
    """The items of each measurement group, by its tracking identifier."""
    (measurements,) = [
        item for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    ]  # fmt: skip
    found = [list(items(group)) for group in measurements.ContentSequence]
    return {dict(group)["Tracking Identifier"]: group for group in found}


def test_a_report_says_who_observed_which_specimen(slide: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(slide)
    first, second = (copy.deepcopy(header.SpecimenDescriptionSequence[0]) for _ in range(2))
    first.SpecimenUID, first.SpecimenIdentifier = "2.25.11", "block A, section 1"
    second.SpecimenUID, second.SpecimenIdentifier = "2.25.12", "block A, section 2"
    header.SpecimenDescriptionSequence, header.ContainerIdentifier = [first, second], "glass 7"
    header.save_as(tmp_path / "slide.dcm")
    document = report_of(tmp_path, tmp_path / "slide.dcm")
    told = dict(items(document))
    assert (told["Specimen UID"], told["Specimen Identifier"]) == ("2.25.11", "block A, section 1")
    assert told["Specimen Container Identifier"] == "glass 7"
    assert told["Subject Class"] == ("121027", "DCM", "Specimen")
    result = make_result()
    assert told["Device Observer Serial Number"] == result.bundle.sha256[:16] != result.slide.sha256[:16]
    assert told["Device Observer Model Name"] == result.bundle.name
    assert told["Device Observer UID"] not in (document.SeriesInstanceUID, document.SOPInstanceUID)
    assert told["Procedure reported"] == ("104157003", "SCT", "Light microscopy procedure")
    assert (document.CompletionFlag, document.SoftwareVersions) == ("COMPLETE", result.software["stamp-deploy"])


def test_every_group_names_all_that_it_was_made_with(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    found = groups(report_of(tmp_path, slide))
    assert len(found) == 4
    for group in found.values():
        assert [value for name, value in group if name == "Algorithm Parameters"] == [
            f"bundle.json SHA-256 {result.bundle.sha256}", f"slide SHA-256 {result.slide.sha256}",
            f"configuration SHA-256 {result.config_sha256}",
            f"engine {result.engine.name} {result.engine.version} {result.engine.precision}", RESEARCH_USE,
        ]  # fmt: skip
    assert len({result.bundle.sha256, result.slide.sha256, result.config_sha256}) == 3
    tracked = {dict(group)["Tracking Unique Identifier"] for group in found.values()}
    assert len(tracked) == 4, "each has a UID of its own"


def test_codes_units_and_how_a_number_was_derived(slide: Path, tmp_path: Path) -> None:
    result = dicom_result(slide)
    found = groups(report_of(tmp_path, slide))
    for group in found.values():
        numbers = [value for name, value in group if isinstance(value, tuple) and isinstance(value[0], float)]
        assert numbers and {value[1:] for value in numbers} == {("1", "UCUM")}
    means = dict(found["Pathway scores"])
    assert means["Derivation"] == ("373098007", "SCT", "Mean")
    assert means["Hypoxia"][0] == pytest.approx(result.summary()[NAMES[1]]["mean"], rel=1e-6)
    assert means["Finding"] == ("PATHWAYS", "99STAMP", "Pathway scores over the slide")
    for head in result.heads:
        group = dict(found[head.name])
        assert group["Finding"] == (head.name, "99STAMP", head.name) and "Derivation" not in group
        called = head.call or "No call (abstained)"
        value, scheme, meaning = group["Slide-level call"]
        assert (meaning, scheme) == (called, "99STAMP") and (value == called) == (len(called) <= 16)


def test_numbers_of_a_call_are_not_rounded(slide: Path, tmp_path: Path) -> None:
    base = dicom_result(slide)
    exact = dataclasses.replace(base.heads[0], probabilities=(0.18765, 0.81235), interval=(0.71234, 0.88765))
    (path,) = write_all(dataclasses.replace(base, heads=(exact,)), tmp_path, ["dicom-sr"])
    group = groups(pydicom.dcmread(path))[exact.name]
    numbers = [value[0] for _, value in group if isinstance(value, tuple) and isinstance(value[0], float)]
    assert numbers == pytest.approx([0.81235, 0.71234, 0.88765], rel=1e-6)


def test_a_report_without_scored_tiles_has_no_means(slide: Path, tmp_path: Path) -> None:
    base = dicom_result(slide, 1)
    empty = dataclasses.replace(
        base, coords=base.coords[:0], pathways=base.pathways[:0], embedding=base.embedding[:0],
        tissue_fraction=base.tissue_fraction[:0], heads=base.heads[1:2],
        tiles=dataclasses.replace(base.tiles, ok=0, corrupt=1),
    )  # fmt: skip
    (path,) = write_all(empty, tmp_path, ["dicom-sr"])
    assert list(groups(pydicom.dcmread(path))) == [base.heads[1].name]


def test_the_evidence_and_the_library_name_every_part_of_a_slide(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (first, *_) = split(slide, tmp_path / "parts", 3)
    document = report_of(tmp_path, first)
    wanted = ["2.25.999", "2.25.998", "2.25.997"]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert sorted(item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence) == sorted(wanted)
    (library,) = [
        item for item in document.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    ]
    images = library.ContentSequence[0].ContentSequence
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images] == wanted
    for name in ("dicom-pmap", "dicom-seg"):
        for path in write_all(dicom_result(first), tmp_path, [name]):
            named: list[str] = []

            def collect(_: object, element: Any, into: list[str] = named) -> None:
                if element.keyword == "ReferencedInstanceSequence":
                    into += [str(item.ReferencedSOPInstanceUID) for item in element.value]

            pydicom.dcmread(path).walk(collect)
            assert sorted(named) == sorted(wanted), "each part once"


def test_all_dates_of_an_object_are_the_slides(slide: Path, tmp_path: Path) -> None:
    """A result that is written tomorrow is the same object."""
    source = pydicom.dcmread(slide)
    date, time = source.AcquisitionDateTime[:8], source.AcquisitionDateTime[8:14]
    of_source = {"StudyDate", "StudyTime", "PatientBirthDate", "DateTime"}  # the patient's and the specimen's
    for path in written_to(tmp_path / "out", dicom_result(slide)):
        found: dict[str, set[str]] = {}

        def collect(_: object, element: Any, into: dict[str, set[str]] = found) -> None:
            if element.VR in ("DA", "TM", "DT") and element.keyword not in of_source:
                into.setdefault(element.keyword, set()).add(str(element.value))

        pydicom.dcmread(path).walk(collect)
        wanted = {"DA": date, "TM": time, "DT": date + time}
        for keyword, values in found.items():
            assert values == {wanted[pydicom.datadict.dictionary_VR(keyword)]}, (path.name, keyword)
        assert {"ContentDate", "ContentTime", "InstanceCreationDate", "ContributionDateTime"} <= set(found)


def test_dimensions_have_a_uid_of_the_object_itself(slide: Path, tmp_path: Path) -> None:
    seen = set()
    for path in write_all(dicom_result(slide), tmp_path, ["dicom-pmap", "dicom-seg"]):
        image = pydicom.dcmread(path)
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        (one,) = {str(item.DimensionOrganizationUID) for item in image.DimensionOrganizationSequence}
        assert {str(item.DimensionOrganizationUID) for item in image.DimensionIndexSequence} == {one}
        assert len(one) > 20
        seen.add(one)
    assert len(seen) == 3


def test_a_map_says_its_pathway_in_numbers_of_no_unit(slide: Path, tmp_path: Path) -> None:
    for number, path in enumerate(write_all(dicom_result(slide), tmp_path, ["dicom-pmap"]), 1):
        image = pydicom.dcmread(path)
        (mapping,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        (unit,) = mapping.MeasurementUnitsCodeSequence
        assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
        assert mapping.LUTLabel == str(number)
        (quantity,) = [
            item.ConceptCodeSequence[0] for item in mapping.QuantityDefinitionSequence
            if item.ConceptNameCodeSequence[0].CodeMeaning == "Quantity"
        ]  # fmt: skip
        shown = ("Epithelial mesenchymal transition", "Hypoxia")[number - 1]
        assert (quantity.CodeMeaning, image.ContentDescription) == (shown, shown)
        short = NAMES[number - 1] if len(NAMES[number - 1]) <= 16 else quantity.CodeValue
        assert quantity.CodeValue == short and len(quantity.CodeValue) == 16
        assert image.InstanceNumber == number


def test_a_segment_is_tissue_that_a_program_found(slide: Path, tmp_path: Path) -> None:
    (path,) = write_all(dicom_result(slide), tmp_path, ["dicom-seg"])
    image = pydicom.dcmread(path)
    (segment,) = image.SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "Scored tissue")
    for name in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
        assert (segment[name].value[0].CodeValue, segment[name].value[0].CodeMeaning) == ("85756007", "Tissue")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert "PatientOrientation" in image and not image.PatientOrientation


def test_a_deflated_file_is_not_inflated(slide: Path, tmp_path: Path) -> None:
    """It may take any amount of memory, and no slide is stored so."""
    header = pydicom.dcmread(slide)
    del header.PixelData
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    header.save_as(tmp_path / "slide.dcm")
    for name in FORMATS:
        with pytest.raises(UsageError, match="the slide is not DICOM"):
            check_names([name], tmp_path / "slide.dcm")
