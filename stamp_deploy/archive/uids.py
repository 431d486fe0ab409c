"""DICOM UIDs that come from an archive or from the command line: they become file names and parts of addresses."""

from __future__ import annotations

import re

from ..errors import ArchiveError, UsageError

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MOST = 64
_WILD = re.compile(r"[*?\\\x00-\x1f\x7f-\x9f]")


def is_uid(text: object) -> bool:
    """Whether a value is a UID: digits and dots, at most 64 of them."""
    return isinstance(text, str) and len(text) <= _MOST and _UID.fullmatch(text) is not None


def archive_uid(value: object, what: str) -> str:
    """A UID of an archive's answer.

    Raises
    ------
    ArchiveError
        It is none.
    """
    if isinstance(value, str) and is_uid(value):
        return value
    raise ArchiveError(f"the archive's answer states no valid {what}", remedy="tell the archive's administrator")


def given_uid(value: str, what: str) -> str:
    """A UID of the command line.

    Raises
    ------
    UsageError
        It is none.
    """
    if is_uid(value):
        return value
    raise UsageError(f"the {what} is no UID", remedy="give digits and dots, as 1.2.840.113619.2.1")


def given_key(value: str, what: str) -> str:
    """A value that is to be matched as it stands.

    Raises
    ------
    UsageError
        It is empty, or holds a character that DICOM takes for a wildcard or a separator.
    """
    if value.strip() and not _WILD.search(value):
        return value.strip()
    raise UsageError(f"the {what} is empty, or holds *, ? or \\", remedy="give it whole: it is matched as it stands")
