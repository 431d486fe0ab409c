"""The copy of an object that an archive keeps: is it ours?

Under one UID there may be one content only. Archives may correct whom an object belongs to; anything else that
differs is another object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArchiveError

if TYPE_CHECKING:
    from pydicom import Dataset

_CORRECTED = frozenset(
    (
        0x00080005, 0x00080050, 0x00080051, 0x00080090, 0x00081030, 0x00081060, 0x00080020, 0x00080030, 0x00080201,
        0x00200010, 0x00321032, 0x00321060, 0x00400275, 0x00400560, 0x04000561,
    )
)  # fmt: skip
"""Attributes of the case, and the list of what was corrected, beside all of the patient (group 0010)."""


@dataclass(frozen=True)
class Difference:
    """Names of attributes that differ, those that an archive may correct and all others; never their values."""

    corrected: tuple[str, ...]
    others: tuple[str, ...]


def difference(ours: Path, theirs: Path) -> Difference:
    """What differs between two files of one object, apart from how it is encoded.

    Raises
    ------
    ArchiveError
        `theirs` is no DICOM.
    """
    import pydicom

    mine = pydicom.dcmread(ours)
    try:
        other = pydicom.dcmread(theirs)
        found = _differing(mine, other)
    except Exception as error:  # pydicom raises nearly anything on damaged values
        raise ArchiveError(
            "the archive's copy of a result is damaged", remedy="tell its administrator; delete it there and push again"
        ) from error
    corrected = tuple(name for tag, name in found if tag >> 16 == 0x0010 or tag in _CORRECTED)
    return Difference(corrected, tuple(name for _, name in found if name not in corrected))


def _differing(mine: Dataset, other: Dataset) -> list[tuple[int, str]]:
    from pydicom.datadict import keyword_for_tag

    found = []
    for tag in sorted({*mine.keys(), *other.keys()}):
        if tag.element == 0 or tag.group == 2:  # lengths of groups, and the file's own header
            continue
        if not (tag in mine and tag in other and _equal(mine[tag].value, other[tag].value)):
            found.append((int(tag), keyword_for_tag(tag) or f"({tag.group:04x},{tag.element:04x})"))
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bytes) and isinstance(other, bytes):
        return one.rstrip(b"\0") == other.rstrip(b"\0")
    return bool(one == other) or (one in (None, "", []) and other in (None, "", []))
