"""What a library says may be repeated without what it quotes."""

from __future__ import annotations

import pytest

from stamp_deploy.system.quiet import without_quotes


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot open 'Mustermann.svs' for reading", "cannot open ... for reading"),
        ("Can't write to '/scans/Mustermann/x': no space", "Can't write to ...: no space"),
        ("can't open 'O'Neill, Mustermann.svs' now", "can't open ... now"),
        ("the files' owner of 'Mustermann' isn't root", "the files' owner of ... isn't root"),
        ('bad value "Mustermann", expected "1"', "bad value ..., expected ..."),
        ("unknown tag \u201cMustermann\u201d and \u2018Mustermann\u2019s\u2019", "unknown tag ... and ..."),
        ("no such file `Mustermann.tif'", "no such file ..."),
        ("no such file `Mustermann.tif` here", "no such file ... here"),
        ("cut off: 'Mustermann, Erika, born", "cut off: ..."),
        ('cut off: "Mustermann', "cut off: ..."),
        ("\u00abMustermann\u00bb is bad", "... is bad"),
        ("two\nlines\x1b[31m", "two lines?[31m"),
        ("nothing is quoted", "nothing is quoted"),
    ],
)
def test_quotes_are_left_out(said: str, told: str) -> None:
    assert without_quotes(said) == told
    assert without_quotes(ValueError(said)) == told


def test_long_texts_are_cut() -> None:
    assert without_quotes("x" * 1000) == "x" * 300
