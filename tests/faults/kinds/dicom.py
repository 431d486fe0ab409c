"""Hostile DICOM: attributes changed, removed or nested, frames and their table spoilt, bytes at random."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from ..attempt import Attempt
from ..world import MPP, PLANTED, World, infer, new_slide

SHARE = 0.15
NUMBERS = (0, 1, 2, 3, -1, 127, 129, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 64,
    "\\",
    "a\\b\\c",
    "\x1b[31m",
    f"{PLANTED}\n",
    "1.2.840.10008.1.2.4.90",
)
SYNTAXES = (
    *(f"1.2.840.10008.1.2{rest}" for rest in ("", ".1", ".2", ".1.99", ".5")),
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 57, 70, 80, 90, 91, 201)),
    "9.9.9",
)
OF_THE_PICTURE = (
    "Rows", "Columns", "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "NumberOfFrames", "SamplesPerPixel",
    "BitsAllocated", "BitsStored", "PlanarConfiguration", "NumberOfOpticalPaths", "TotalPixelMatrixFocalPlanes",
)  # fmt: skip
Damage = Callable[[FileDataset, random.Random], None]


def _a_number(image: FileDataset, choose: random.Random) -> None:
    setattr(image, choose.choice(OF_THE_PICTURE), choose.choice(NUMBERS))


def _an_attribute(image: FileDataset, choose: random.Random) -> None:
    element = choose.choice([e for e in image if e.tag.group != 0x7FE0])
    value: object = choose.choice(TEXTS)
    if element.VR in ("US", "UL", "FL", "FD", "SS", "SL"):
        value = choose.choice(NUMBERS)
    elif element.VR == "SQ":
        value = choose.choice(([], [Dataset()], [Dataset()] * 300))
    image[element.tag] = DataElement(element.tag, element.VR, value, validation_mode=0)


def _removed(image: FileDataset, choose: random.Random) -> None:
    for _ in range(choose.choice((1, 1, 4))):
        del image[choose.choice([e.tag for e in image if e.tag.group != 0x7FE0])]


def _syntax(image: FileDataset, choose: random.Random) -> None:
    image.file_meta.TransferSyntaxUID = UID(choose.choice(SYNTAXES))


def _patient(image: FileDataset, choose: random.Random) -> None:
    """Dates, numbers and identifiers of the patient that are none: readers quote them in their errors."""
    for keyword in ("PatientBirthDate", "PatientAge", "PatientWeight", "StudyDate", "StudyTime", "SeriesInstanceUID"):
        if choose.random() < 0.5:
            tag = pydicom.datadict.tag_for_keyword(keyword)
            assert tag is not None
            kind = pydicom.datadict.dictionary_VR(keyword)
            image[tag] = DataElement(tag, kind, PLANTED, validation_mode=0)


def _spacing(image: FileDataset, choose: random.Random) -> None:
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    tag = measures["PixelSpacing"].tag
    value = choose.choice(
        (["0", "0"], ["0.0005"], ["nan", "nan"], ["-1", "1"], ["1e-300", "1e300"], [PLANTED, "1"], ["0.0005", "0.5"])
    )
    measures[tag] = DataElement(tag, "DS", value, validation_mode=0)


def _frames(image: FileDataset, choose: random.Random) -> None:
    data = bytearray(image.PixelData)
    kind = choose.randrange(4)
    at = choose.randrange(len(data))
    if kind == 0:
        data[8 + choose.randrange(80)] ^= 0xFF
    elif kind == 1:
        data[at : at + 4] = choose.choice((b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"))
    elif kind == 2:
        del data[at:]
    else:
        del data[at : at + choose.choice((1, 2, 500))]
    if len(data) % 2:
        data += b"\0"
    image.PixelData = bytes(data)


DAMAGES: dict[str, Damage] = {
    "a number": _a_number,
    "an attribute": _an_attribute,
    "attributes removed": _removed,
    "the transfer syntax": _syntax,
    "the patient's attributes": _patient,
    "the spacing": _spacing,
    "frames": _frames,
}


def _spoil(data: bytes, choose: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(choose.choice((1, 3, 20))):
        spoilt[choose.randrange(choose.choice((len(spoilt), 3000)))] = choose.randrange(256)
    return bytes(spoilt)


def _nested(data: bytes, choose: random.Random) -> bytes:
    """Sequences of undefined length in each other, in place of the functional groups; pydicom cannot write them."""
    tag = b"\x00\x52\x29\x92SQ\0\0"
    at = data.index(tag)
    after = at + 12 + int.from_bytes(data[at + 8 : at + 12], "little")
    opening = tag + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    depth = choose.choice((1, 60, 1000, 20_000))
    closed = closing * choose.choice((0, depth, depth // 2))
    return data[:at] + opening * depth + closed + data[after:]


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    what = choose.choice((*DAMAGES, "nested sequences", "bytes", "cut short"))
    data = world.dicom
    if what == "bytes":
        data = _spoil(data, choose)
    elif what == "nested sequences":
        data = _nested(data, choose)
    elif what == "cut short":
        data = data[: choose.randrange(len(data))]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = pydicom.dcmread(io.BytesIO(data))
            try:
                DAMAGES[what](image, choose)
                file = io.BytesIO()
                image.save_as(file, enforce_file_format=True)
                data = file.getvalue()
            except Exception:  # pydicom will not write it: spoil what it would have written
                what, data = "bytes", _spoil(data, choose)
    name = choose.choice(("image.dcm", "image.dcm", "image"))
    slide, out = new_slide(folder, name, data), folder / "out"
    scale = ("--mpp", str(MPP)) if choose.random() < 0.6 else ()
    if choose.random() < 0.25:
        return Attempt(what, ("inspect", str(slide), *scale), name)
    return Attempt(what, infer(slide, world.bundle, out, *scale), name, out)
