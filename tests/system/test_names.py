"""Any bytes can name a file; what is shown and stored is plain text."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from stamp_deploy import atomic
from stamp_deploy.errors import DiskError, SlideError
from stamp_deploy.system.log import slide_token
from stamp_deploy.system.names import NAME_MAX_BYTES, cut_name, printable, shown_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain-A1.svs", "plain-A1.svs"),
        ("Müller 漢字 .svs".encode(), "Müller 漢字 .svs"),
        (b"M\xfcller.svs", r"M\xfcller.svs"),
        (b"a\nb\tc\rd.svs", r"a\nb\tc\rd.svs"),
        (b"\x1b[31mred.svs", r"\x1b[31mred.svs"),
        ("x\u009b31m.svs".encode(), r"x\x9b31m.svs"),
        ("gpj\u202esvs.svs".encode(), r"gpj\u202esvs.svs"),
        ("one\u2028two.svs".encode(), r"one\u2028two.svs"),
    ],
)
def test_a_name_is_shown_as_one_line_of_plain_text(name: bytes, shown: str) -> None:
    path = Path("/folder") / os.fsdecode(name)
    assert shown_name(path) == shown
    assert shown_name(path).encode().decode() == shown  # no lone surrogate is left
    error = SlideError(f"cannot open {os.fsdecode(name)}", remedy="copy it again", path=path)
    assert str(error).startswith(f"{shown}: cannot open ") and len(str(error).splitlines()) == 1
    str(error).encode()


def test_every_control_character_is_escaped() -> None:
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), *range(0x202A, 0x202F)):
        assert printable(f"a{chr(code)}b").isprintable(), hex(code)


def test_tokens_are_made_of_the_bytes_on_the_disk() -> None:
    assert slide_token(Path(os.fsdecode(b"M\xfcller.svs"))) != slide_token(Path(os.fsdecode(b"M\xfdller.svs")))
    assert slide_token(Path("a.svs")) == hashlib.sha256(b"a.svs").hexdigest()[:12]


def test_names_are_cut_between_characters() -> None:
    assert cut_name("漢漢漢", 8) == "漢漢"
    assert cut_name("\U0001f52c" * 3, 11) == "\U0001f52c" * 2
    assert cut_name(os.fsdecode(b"a\xfcb"), 2) == os.fsdecode(b"a\xfc")
    assert cut_name("abc", 3) == "abc"


@pytest.mark.parametrize("name", ["o" * NAME_MAX_BYTES, "漢" * 85, os.fsdecode(b"\xfc\n" * 100)])
def test_an_output_of_the_longest_name_is_written(tmp_path: Path, name: str) -> None:
    for text in ("old", "new"):
        with atomic.staged_directory(tmp_path / name, overwrite=text == "new", hashes=True) as staging:
            (staging / "a.txt").write_text(text)
    atomic.write_text_atomic(tmp_path / name / name, "record")
    assert (tmp_path / name / "a.txt").read_text() == "new" and (tmp_path / name / name).read_text() == "record"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_no_disk_takes_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="File name too long"):
        atomic.check_output(tmp_path / ("o" * 256), overwrite=False)
    with pytest.raises(DiskError, match="Is a directory"):
        atomic.write_text_atomic(tmp_path, "x")


def test_leftovers_are_found_by_their_cut_name(tmp_path: Path) -> None:
    final = tmp_path / ("[漢]" * 51)
    with pytest.raises(KeyboardInterrupt), atomic.staged_directory(final) as staging:
        assert atomic.leftovers(final) == [staging]
        raise KeyboardInterrupt
    assert atomic.leftovers(final) == []
