"""What may be a UID, and what may be matched as it stands: a wildcard would find other patients' slides."""

from __future__ import annotations

import pytest

from stamp_deploy.archive.uids import archive_uid, given_key, given_uid, is_uid
from stamp_deploy.errors import ArchiveError, UsageError

LONGEST = "1." + "2" * 62


@pytest.mark.parametrize("text", ["1.2", "1.2.840.113619.2.1", "0.1", LONGEST])
def test_digits_and_dots_of_64_characters_at_most_are_a_uid(text: str) -> None:
    assert is_uid(text) and given_uid(text, "study") == archive_uid(text, "study") == text


@pytest.mark.parametrize("text", ["", "1.2*", "1.2?", "1.2/..", "a.b", "1.2\n", " 1.2", LONGEST + "2", "1,2", None, 12])
def test_anything_else_is_none(text: object) -> None:
    assert not is_uid(text)
    with pytest.raises(ArchiveError, match="states no valid study"):
        archive_uid(text, "study")
    if isinstance(text, str):
        with pytest.raises(UsageError, match="the study is no UID"):
            given_uid(text, "study")


@pytest.mark.parametrize("text", ["", "  ", "*", "A*", "A?7", "A\\B", "?"])
def test_a_key_holds_no_wildcard_and_no_separator(text: str) -> None:
    with pytest.raises(UsageError, match="the accession number is empty, or holds"):
        given_key(text, "accession number")


def test_a_key_is_matched_without_the_blanks_around_it() -> None:
    assert given_key(" S26-7 A ", "container") == "S26-7 A"
