"""A result whose DONE file is no longer one is refused in a line, by `verify` and by a batch that would count it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stamp_deploy.atomic import is_whole, staged_directory, why_not_whole
from stamp_deploy.checks.verify import verify_result
from stamp_deploy.errors import DataError

GARBAGE = {
    "bytes that are no text": b"\xff\xfe",
    "JSON": b"{}",
    "a line cut in its hash": b"0" * 40,
    "a hash without a file": b"0" * 64 + b"\n",
    "upper case": b"A" * 64 + b"  a.txt\n",
}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    with staged_directory(tmp_path / "result", hashes=True) as folder:
        (folder / "a.txt").write_text("a")
    return tmp_path / "result"


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_spoilt_marker(result: Path, kind: str) -> None:
    assert is_whole(result)
    (result / "DONE").write_bytes(GARBAGE[kind])
    assert why_not_whole(result) == "its DONE file has been changed"
    with pytest.raises(DataError, match=r"holds no hashes|has been changed"):
        verify_result(result)


def test_a_folder_without_hashes_is_whole_by_its_marker_alone(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "cohort") as folder:
        (folder / "a.txt").write_text("a")
    assert is_whole(tmp_path / "cohort")
