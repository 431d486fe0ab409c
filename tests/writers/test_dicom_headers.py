"""Which headers make a DICOM result, and what of long or strange values stands in it: header by header, in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_factory import make_head, make_result
from writers.test_dicom_numbers import source
from writers.test_writers_dicom import dicom_result

from stamp_deploy.errors import UsageError
from stamp_deploy.result import Result
from stamp_deploy.writers import write_all

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from stamp_deploy.writers import dicom_source
from stamp_deploy.writers.dicom_sr import _algorithm, _head_group

SLIDE_CLASS, MAP_CLASS = UID(dicom_source.WHOLE_SLIDE_IMAGE), UID("1.2.840.10008.5.1.4.1.1.30")


def header(number: int, **more: Any) -> Dataset:
    """A volume instance of series 1.1, 70 x 50 px."""
    given: dict[str, Any] = {
        "SOPClassUID": SLIDE_CLASS, "SeriesInstanceUID": "1.1", "SOPInstanceUID": f"1.2.{number}",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "TotalPixelMatrixColumns": 70,
        "TotalPixelMatrixRows": 50, "FrameOfReferenceUID": "1.3", **more,
    }  # fmt: skip
    made = source(**{key: value for key, value in given.items() if value is not None})
    for key, value in given.items():
        if value is None and key in made:
            delattr(made, key)
    return made


def folder_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *headers: Dataset | Exception) -> Result:
    """A result of the first of some files, whose headers are given."""
    files = {}
    for number, one in enumerate(headers):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes(128) + b"DICM")
        files[path] = one

    def read(path: Path) -> Dataset:
        one = files[path]
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(dicom_source, "_header", read)
    base = make_result(n_tiles=2, pathways=1)
    return dataclasses.replace(
        base, source_path=tmp_path / "0.dcm", slide=dataclasses.replace(base.slide, width=70, height=50)
    )


def found(result: Result) -> list[str]:
    return [str(one.SOPInstanceUID) for one in dicom_source.find_sources(result)]


PART = {"ConcatenationUID": "1.9", "InConcatenationTotalNumber": 2}


def test_the_full_resolution_is_found_whichever_file_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = header(1, TotalPixelMatrixColumns=35, TotalPixelMatrixRows=25)
    turned = header(2, TotalPixelMatrixColumns=50, TotalPixelMatrixRows=70)
    flat, narrow = header(0, TotalPixelMatrixRows=25), header(0, TotalPixelMatrixColumns=35)
    for files in (
        (small, turned, header(3)), (flat, header(3)), (narrow, header(3)), (header(3), small),
        (header(3), header(4)), (header(4), header(3)),
    ):  # fmt: skip
        assert found(folder_of(tmp_path, monkeypatch, *files)) == ["1.2.3"]
    with pytest.raises(UsageError, match="no instance of the series is 70 x 50 px") as missing:
        found(folder_of(tmp_path, monkeypatch, small, turned))
    assert missing.value.path == tmp_path / "0.dcm" and missing.value.remedy


def test_other_series_labels_and_files_that_are_no_dicom_take_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = header(1, TotalPixelMatrixColumns=35)
    other = header(2, SeriesInstanceUID="1.7")
    label = header(3, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    untyped = header(4, ImageType=None)
    for files in ((other,), (label,), (untyped,), (ValueError("damaged"),), (other, label, untyped)):
        with pytest.raises(UsageError, match="no instance of the series"):
            found(folder_of(tmp_path, monkeypatch, small, *files))
    assert found(folder_of(tmp_path, monkeypatch, small, other, label, ValueError("x"), header(9))) == ["1.2.9"]


def test_parts_of_a_concatenation_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = header(8, InConcatenationNumber=1, **PART), header(7, InConcatenationNumber=2, **PART)
    foreign = header(5, InConcatenationNumber=3, ConcatenationUID="1.8")
    for files in ((first, second), (second, first), (second, foreign, first)):
        assert found(folder_of(tmp_path, monkeypatch, *files)) == ["1.2.8", "1.2.7"]
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="1 of the 2 parts of the full resolution are there") as missing:
        found(folder_of(tmp_path, monkeypatch, second))
    assert "whole series" in missing.value.remedy
    untold = header(6, InConcatenationNumber=1, ConcatenationUID="1.9")
    assert found(folder_of(tmp_path, monkeypatch, untold)) == ["1.2.6"]


@pytest.mark.parametrize(
    "error", [InvalidDicomError("x"), ValueError("x"), OSError("x"), EOFError("x"), AttributeError("x")], ids=repr
)
def test_whatever_reading_a_header_raises_the_slide_is_no_dicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    result = folder_of(tmp_path, monkeypatch, error)
    for read in (lambda: found(result), lambda: dicom_source.check(tmp_path / "0.dcm")):
        with pytest.raises(UsageError, match="the slide is not DICOM") as refused:
            read()
        assert "leave the dicom formats out" in refused.value.remedy


@pytest.mark.parametrize("lacks", ["ImageOrientationSlide", "TotalPixelMatrixOriginSequence", "FrameOfReferenceUID"])
def test_a_slide_that_does_not_say_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    result = folder_of(tmp_path, monkeypatch, header(1, **{lacks: None}))
    with pytest.raises(UsageError, match=f"the slide lacks {lacks}, so results cannot be placed"):
        found(result)
    with pytest.raises(UsageError, match="is no whole-slide image"):
        found(folder_of(tmp_path, monkeypatch, header(1, SOPClassUID=MAP_CLASS)))


def test_what_a_converter_left_out_is_carried_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = dicom_source.find_sources(folder_of(tmp_path, monkeypatch, header(1, PatientID="7", StudyDate="20200102")))
    assert (one.PatientID, one.StudyDate) == ("7", "20200102")
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyTime", "StudyID", "AccessionNumber",
                    "ReferringPhysicianName"):  # fmt: skip
        assert keyword in one and not one[keyword].value


def test_files_begin_as_dicom_files_do(tmp_path: Path) -> None:
    for name, data in {
        "a": bytes(128) + b"DICM", "b": bytes(127) + b"DICM", "c": bytes(129) + b"DICM", "d": b"DICM", "e": b"",
        "f": bytes(128) + b"DICMmore", "g": bytes(128) + b"DICN",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    (tmp_path / "h").mkdir()
    assert [path.name for path in dicom_source._dicom_files(tmp_path)] == ["a", "f"]


def test_long_names_are_cut_to_what_dicom_holds(data_dir: Path, tmp_path: Path) -> None:
    base = dicom_result(data_dir / "dicom" / "highdicom_sm_image.dcm")
    long = "HALLMARK_" + "AB_" * 40
    result = dataclasses.replace(base, pathway_names=(long, *base.pathway_names[1:]))
    (path, *_) = write_all(result, tmp_path, ["dicom-pmap"])
    image = pydicom.dcmread(path)
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.LUTExplanation == long[:64] and len(image.ContentDescription) == 64
    assert image.ContentLabel == "PATHWAY" and image.ContentQualification == "RESEARCH"
    assert image.RecognizableVisualFeatures == "NO"


@pytest.mark.parametrize(("kind", "listed"), [("multiclass", 3), ("binary", 0), ("survival", 0)])
def test_every_class_of_several_is_told(kind: str, listed: int) -> None:
    result = make_result(n_tiles=2, pathways=1)
    attention = np.full(2, 0.5, np.float32)
    head = dataclasses.replace(
        make_head("h", attention=attention), kind="".join(list(kind)), classes=("a", "b", "c"),
        probabilities=(0.2, 0.5, 0.3), interval=(0.1, 0.9),
    )  # fmt: skip
    group = _head_group(result, source(PatientID="a", StudyInstanceUID="1.2", SOPInstanceUID="1.3"), head)
    values = {one.name.meaning: one.value for one in group.get_measurements()}
    assert {name: value for name, value in values.items() if name.startswith("P(") and name != head.value_name} == dict(
        list({"P(a)": 0.2, "P(b)": 0.5, "P(c)": 0.3}.items())[:listed]
    )
    assert (values["Lower limit of 95 % interval"], values["Upper limit of 95 % interval"]) == (0.1, 0.9)


def test_an_algorithm_is_named_in_64_characters() -> None:
    base = make_result(n_tiles=2, pathways=1)
    for length, shown in ((10, "n" * 10 + ": msi"), (59, "n" * 59 + ": msi"), (60, "n" * 60 + ": ms")):
        result = dataclasses.replace(base, bundle=dataclasses.replace(base.bundle, name="n" * length))
        assert _algorithm(result, "msi")[0].value == shown
