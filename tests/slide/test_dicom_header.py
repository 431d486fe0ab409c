"""The walk over a DICOM header: what is stepped over, and the places of frames as pydicom reads them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.dicom_factory import How, Picture, write_level
from support.slide_factory import encode, texture

from stamp_deploy.slide.dicom.elements import PER_FRAME, PIXEL_DATA, HeaderError
from stamp_deploy.slide.dicom.header import read_header
from stamp_deploy.slide.dicom.positions import NOT_STATED, PerFrame, read_per_frame

SIDE = 16


def write(folder: Path, how: How, frames: int = 30) -> Path:
    stream = encode(texture(SIDE, SIDE), "420")
    return write_level(folder / "a.dcm", Picture(SIDE * 6, SIDE * frames // 6, SIDE, [stream] * frames), how)[0]


def positions_of(path: Path) -> PerFrame:
    data = path.read_bytes()
    header = read_header(io.BytesIO(data), len(data))
    assert header is not None
    element = header.elements[PER_FRAME]
    return read_per_frame(io.BytesIO(data), element.start, element.end, len(data))


@pytest.mark.parametrize("undefined", [False, True])
def test_places_are_pydicoms(tmp_path: Path, undefined: bool) -> None:
    path = write(tmp_path, How(sparse=True, undefined=undefined))
    found = positions_of(path)
    items = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    places = [item.PlanePositionSlideSequence[0] for item in items]
    assert found.columns.tolist() == [p.ColumnPositionInTotalImagePixelMatrix for p in places]
    assert found.rows.tolist() == [p.RowPositionInTotalImagePixelMatrix for p in places]
    assert len(set(zip(found.columns.tolist(), found.rows.tolist(), strict=True))) == 30


@pytest.mark.parametrize("undefined", [False, True])
def test_items_may_differ_in_what_they_hold(tmp_path: Path, undefined: bool) -> None:
    """Strings of any length, more elements, sequences of several items, a place that is not stated."""
    path = write(tmp_path, How(sparse=True, undefined=undefined))
    data = pydicom.dcmread(path)
    choose = random.Random(1)
    want = []
    for i, item in enumerate(data.PerFrameFunctionalGroupsSequence):
        place = item.PlanePositionSlideSequence[0]
        place.YOffsetInSlideCoordinateSystem = "1" * choose.randint(1, 12)
        more = pydicom.Dataset()
        more.FrameComments = "x" * choose.randint(0, 300)
        more.is_undefined_length_sequence_item = undefined
        item.RadiopharmaceuticalUsageSequence = [more] * choose.randint(0, 3)
        item["RadiopharmaceuticalUsageSequence"].is_undefined_length = undefined
        if i == 7:
            del place.ColumnPositionInTotalImagePixelMatrix
        want.append(place.get("ColumnPositionInTotalImagePixelMatrix", NOT_STATED))
    data.save_as(path)
    assert positions_of(path).columns.tolist() == want


@pytest.mark.parametrize("undefined", [False, True])
def test_two_places_for_one_frame_are_refused(tmp_path: Path, undefined: bool) -> None:
    path = write(tmp_path, How(sparse=True, undefined=undefined))
    data = pydicom.dcmread(path)
    item = data.PerFrameFunctionalGroupsSequence[3]
    item.PlanePositionSlideSequence = list(item.PlanePositionSlideSequence) * 2
    item["PlanePositionSlideSequence"].is_undefined_length = undefined
    data.save_as(path)
    with pytest.raises(HeaderError, match="two positions"):
        positions_of(path)


def test_items_for_each_frame_are_stepped_over(tmp_path: Path) -> None:
    """They are not parsed where nobody asks: of 30 or of 100,000 frames the header is the same."""
    parsed = []
    for how in (How(), How(per_frame=True), How(per_frame=True, undefined=True)):
        data = write(tmp_path, how).read_bytes()
        header = read_header(io.BytesIO(data), len(data))
        assert header is not None
        assert (PER_FRAME in header.elements) == how.per_frame
        assert "PerFrameFunctionalGroupsSequence" not in header.data
        assert "PatientName" not in header.data
        start = header.elements[PIXEL_DATA].start
        assert data[start - 12 : start - 6] == b"\xe0\x7f\x10\x00OB"
        parsed.append(len(header.data))
    assert len(set(parsed)) == 1


@pytest.mark.parametrize("undefined", [False, True])
def test_a_spoilt_sequence_is_refused_or_read(tmp_path: Path, undefined: bool) -> None:
    data = write(tmp_path, How(sparse=True, undefined=undefined)).read_bytes()
    header = read_header(io.BytesIO(data), len(data))
    assert header is not None
    start, end = header.elements[PER_FRAME].start, header.elements[PIXEL_DATA].start - 12
    choose, refused = random.Random(2), 0
    for _ in range(300):
        spoilt = bytearray(data)
        for _ in range(choose.randint(1, 3)):
            spoilt[choose.randrange(start, end)] = choose.randrange(256)
        try:
            found = read_per_frame(io.BytesIO(spoilt), start, 0 if undefined else end, len(spoilt))
            assert len(found.columns) == len(found.rows)
        except HeaderError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d[:400], "beyond the file"),
        (lambda d: d[:132], "ends early"),
        (lambda d: d.replace(b"\x28\x00\x10\x00US", b"\x08\x00\x10\x00US"), "not in order"),
        (lambda d: d.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"), "no transfer syntax"),
        (lambda d: d[: d.index(b"\xe0\x7f\x10\x00")], "ends early"),
    ],
)
def test_damaged_headers(tmp_path: Path, change, why: str) -> None:  # type: ignore[no-untyped-def]
    data = change(write(tmp_path, How()).read_bytes())
    with pytest.raises(HeaderError, match=why):
        read_header(io.BytesIO(data), len(data))


def test_many_frames_are_read_in_step(tmp_path: Path) -> None:
    data = write(tmp_path, How(sparse=True)).read_bytes()
    header = read_header(io.BytesIO(data), len(data))
    assert header is not None
    element = header.elements[PER_FRAME]
    many = data[element.start : element.end] * 2000
    found = read_per_frame(io.BytesIO(many), 0, len(many), len(many))
    assert len(found.columns) == 60_000
    np.testing.assert_array_equal(found.columns[:6], found.columns[-30:-24])
