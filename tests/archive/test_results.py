"""What a push sends: a result's own objects, and never a slide that somebody put beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

pydicom = pytest.importorskip("pydicom")

from support.result_factory import make_result, stored

from stamp_deploy.archive import results
from stamp_deploy.archive.results import ResultObject, find_results, result_objects
from stamp_deploy.archive.uids import WHOLE_SLIDE
from stamp_deploy.errors import DataError

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def result(folder: Path, sop_class: str, uid: str = "1.2.9", study: str = "1.2.3") -> Path:
    """A folder with one object; whether it is as it was written is not looked at here."""
    (folder / "dicom").mkdir(parents=True)
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID = (
        sop_class,
        uid,
        study,
        "1.2.4",
    )
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    data.file_meta = meta
    data.save_as(folder / "dicom" / "x.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "verify_result", lambda path: [])


def test_an_object_is_named_as_its_header_names_it(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", SEGMENTATION)
    assert result_objects(folder) == [ResultObject(folder / "dicom" / "x.dcm", SEGMENTATION, "1.2.9", "1.2.3", "1.2.4")]


def test_a_slide_is_no_result(tmp_path: Path) -> None:
    """It is known by its class; sent, it would stand in the archive beside the one it was made from."""
    with pytest.raises(DataError, match="is no result") as caught:
        result_objects(result(tmp_path / "out", WHOLE_SLIDE))
    assert caught.value.path == tmp_path / "out" / "dicom" / "x.dcm"


def test_results_of_a_folder_are_those_that_are_whole_and_shown(tmp_path: Path) -> None:
    """What a run is about to rename, or has set aside, begins with a dot."""
    for name in ("b", "a", ".a.partial"):
        stored(make_result(4), tmp_path / name)
    (tmp_path / "c").mkdir()
    assert find_results(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_results(tmp_path / "b") == [tmp_path / "b"]
