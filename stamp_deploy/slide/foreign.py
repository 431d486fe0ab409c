"""Formats that nothing here reads: each is refused with what it is, and what converts it. None is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import SlideError

HEAD_BYTES = 4096
BIO_FORMATS = (
    "convert it by bfconvert of Bio-Formats: bfconvert -tilex 512 -tiley 512 -compression JPEG FILE slide.ome.tiff"
)
"""It reads Zeiss and Olympus files, and writes a pyramid of JPEG tiles that is read fast here."""


@dataclass(frozen=True)
class Foreign:
    """A format: how its files are called, what they begin with or hold near the beginning, and what converts them."""

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    remedy: str


FOREIGN = (
    Foreign("a Zeiss CZI slide", (".czi",), b"ZISRAWFILE", f"{BIO_FORMATS}; or export it as OME-TIFF from ZEN"),
    Foreign(
        "a Philips iSyntax slide",
        (".isyntax", ".i2syntax"),
        b'ObjectType="DPUfsImport"',
        "convert it by isyntax-to-tiff of libisyntax, or export it as TIFF or DICOM from the Image Management System",
    ),
    Foreign("a KFBio slide", (".kfb", ".kfbf"), b"", "convert it to SVS or TIFF by KFBio's own converter"),
    Foreign("an SQRAY slide", (".sdpc",), b"", "export it as SVS or TIFF from the scanner's software"),
)


def check_foreign(path: Path, head: bytes) -> None:
    """Refuse a file of a format that is known and not read.

    Parameters
    ----------
    path : Path
    head : bytes
        Its first HEAD_BYTES.

    Raises
    ------
    SlideError
        It is one, by its first bytes; or, where the format has none that are known, by its name.
    """
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return  # a Philips TIFF holds the record by which iSyntax is told
    for foreign in FOREIGN:
        if path.suffix.lower() in foreign.suffixes or (foreign.magic and foreign.magic in head):
            raise SlideError(f"is {foreign.name}, which cannot be read here", path=path, remedy=foreign.remedy)
