"""What a folder holds: the slides in it and below, and what is left out of them and why."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...slide.dicom import is_dicom
from ...system.names import shown_name
from ..states import FindingKind
from .dicom_series import SeriesOf, one_per_series, read_series

EXTENSIONS = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".tf8", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"}
    | {".dcm", ".dicom", ".jp2", ".qptiff", ".afi"}
)
"""Files of a folder that are taken for slides; a file that is named itself is taken whatever its name."""
DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_UNREAD = frozenset(
    {".vsi", ".ets", ".isyntax", ".i2syntax", ".zvi", ".lif", ".oir", ".oib", ".mds", ".sdpc", ".kfb", ".tmap"}
    | {".nd2", ".lsm", ".zarr", ".dzi"}
)
_OTHERS = frozenset(
    {".txt", ".xml", ".csv", ".tsv", ".json", ".geojson", ".xlsx", ".pdf", ".md", ".ini", ".dat", ".log"}
)
_USUAL_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")


@dataclass
class Skipped:
    """What was left out of the folders that were named: how many files of which kind, and for which reason."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    folders: list[tuple[str, str]] = field(default_factory=list)

    def add(self, reason: str, suffix: str) -> None:
        """One more file. Only well-known endings are kept: others could be part of a person's name."""
        known = _PICTURES | _ARCHIVES | _UNREAD | _OTHERS | EXTENSIONS
        self.counts.setdefault(reason, Counter())[suffix if suffix in known else "others"] += 1

    @property
    def total(self) -> int:
        """Files and folders left out."""
        return sum(sum(kinds.values()) for kinds in self.counts.values()) + len(self.folders)

    def findings(self) -> Iterator[tuple[FindingKind, str, str]]:
        """(kind, name, detail) for the plan."""
        for reason, kinds in sorted(self.counts.items()):
            number = sum(kinds.values())
            listed = ", ".join(f"{suffix} {count}" for suffix, count in sorted(kinds.items()))
            yield FindingKind.SKIPPED, "", f"{number} left out, {reason} ({listed})"
        for name, detail in self.folders:
            yield FindingKind.SKIPPED, name, detail


def find_slides(
    folder: Path, *, skip: Path | None = None, series_of: SeriesOf = read_series, skipped: Skipped | None = None
) -> list[Path]:
    """Slides in a folder and below, sorted; of a DICOM series in one folder only its first file.

    Links to folders are followed, each folder is searched once. DICOM is known by its content where a file's name
    has no ending.
    """
    found: list[Path] = []
    skipped = skipped if skipped is not None else Skipped()
    for here, names in _folders(folder, skip, skipped):
        dicom = []
        indexes = tuple(Path(name).stem for name in names if Path(name).suffix.lower() in (".vms", ".vmu"))
        for name in sorted(names):
            path = here / name
            suffix = path.suffix.lower()
            if suffix in DICOM_EXTENSIONS or (_may_be_dicom(name) and is_dicom(path)):
                if name.upper() == "DICOMDIR":
                    skipped.add("listing a DICOM medium", "others")
                else:
                    dicom.append(path)
            elif suffix in EXTENSIONS:
                found.append(path)
            elif not name.startswith(indexes):  # else it is a part of that slide
                skipped.add(_why_skipped(suffix), suffix)
        found += one_per_series(dicom, series_of)
    return sorted(found)


def _folders(folder: Path, skip: Path | None, skipped: Skipped) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files), each folder once whatever the links say; those that are no links come first."""
    seen = {_identity(skip)} if skip is not None else set()
    waiting, linked = [folder], list[Path]()
    while waiting or linked:
        here = waiting.pop() if waiting else linked.pop(0)
        identity = _identity(here)
        if identity in seen and identity is not None:
            continue
        seen.add(identity)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            skipped.folders.append((shown_name(here), f"the folder cannot be read: {error.strerror}"))
            continue
        slides = {Path(entry.name).stem for entry in entries if entry.name.lower().endswith(".mrxs")}
        files = []
        for entry in entries:
            is_folder = _is_folder(entry)
            if entry.name.startswith("."):
                if not is_folder and Path(entry.name).suffix.lower() in EXTENSIONS:
                    skipped.add("hidden", Path(entry.name).suffix.lower())
            elif not is_folder:
                files.append(entry.name)
            elif entry.name not in slides:  # else it holds the pixels of an MRXS slide
                (linked if entry.is_symlink() else waiting).append(Path(entry.path))
        yield here, files


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_dicom(name: str) -> bool:
    """Whether a name says nothing about the format: none at all, or an archive's numbers (1.2.840.10008...)."""
    suffix = Path(name).suffix.lower()
    return not _USUAL_SUFFIX.fullmatch(suffix)


def _why_skipped(suffix: str) -> str:
    if suffix in _UNREAD:
        return "of a format that is not read"
    if suffix in _ARCHIVES:
        return "packed: unpack them"
    if suffix in _PICTURES:
        return "pictures: name one itself if it is a slide"
    return "without a slide's name"
