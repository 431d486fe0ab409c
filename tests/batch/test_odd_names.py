"""Slides whose names are no UTF-8, hold control characters, or are as long as a disk allows."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from test_batch import lines, make_slide, run

from stamp_deploy.atomic import is_done
from stamp_deploy.batch.planning.identity import slide_key

NAMES = {
    b"M\xfcller.tif": r"M\xfcller.tif",
    b"two\nlines.tif": r"two\nlines.tif",
    b"\x1b[31mred\x07.tif": r"\x1b[31mred\x07.tif",
    ("漢" * 80 + ".tif").encode(): "漢" * 80 + ".tif",
    ("\U0001f52c" * 62 + ".tif").encode(): "\U0001f52c" * 62 + ".tif",
}


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    whole = make_slide(tmp_path / "made.tif", 1).read_bytes()
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(whole + bytes([number]))
    (folder / os.fsdecode(b"torn\xff\n.tif")).write_bytes(whole[:5000])
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def test_batch_scores_and_names_them(tmp_path: Path, bundle: Path, slides: Path) -> None:
    out = tmp_path / "out"
    done = run(slides, "--bundle", bundle, "-o", out, "--names", writers="json,hdf5,parquet,geojson,heatmaps,report")
    assert done.returncode == 3, done.stdout + done.stderr
    told = {line["name"]: line["state"] for line in lines(done) if line["event"] == "slide"}
    assert told == dict.fromkeys(NAMES.values(), "done")
    assert [line["name"] for line in lines(done) if line["event"] == "finding"] == [r"torn\xff\n.tif"]
    rows = {row["name"]: row for row in json.loads((out / "batch.json").read_text(encoding="utf-8"))["slides"]}
    assert rows.keys() == {*NAMES.values(), r"torn\xff\n.tif"}
    for shown in NAMES.values():
        folder = out / rows[shown]["key"]
        assert is_done(folder)
        assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["slide"]["name"] == shown
    (ledger,) = (out / ".stamp").glob("ledger-*.sqlite")
    with closing(sqlite3.connect(ledger)) as db:
        names = {name for (name,) in db.execute("select name from attempt where state = 'done'")}
    assert names == set(NAMES.values())


def test_watch_scores_them(tmp_path: Path, bundle: Path, slides: Path) -> None:
    arguments = (slides, "--bundle", bundle, "-o", tmp_path / "out", "--settle", 0.2, "--poll", 0.1, "--once")
    done = run(*arguments, "--names", verb="watch", writers="json")
    assert done.returncode == 0, done.stderr
    states = {line["name"]: line["state"] for line in lines(done) if line["event"] == "slide"}
    assert states == {**dict.fromkeys(NAMES.values(), "done"), r"torn\xff\n.tif": "failed"}


def test_infer_takes_them(tmp_path: Path, bundle: Path, slides: Path) -> None:
    for number, name in enumerate((b"M\xfcller.tif", b"\x1b[31mred\x07.tif")):
        out = tmp_path / f"out{number}"
        done = run(slides / os.fsdecode(name), "--bundle", bundle, "-o", out, "--json", verb="infer", writers="hdf5")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["slide"]["name"] == NAMES[name]


def test_a_terminal_that_is_not_utf_8_shows_escapes(tmp_path: Path, bundle: Path, slides: Path) -> None:
    """The table of a terminal, in a locale without CJK letters."""
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    code = "from stamp_deploy.cli import main; main()"
    arguments = ["batch", str(slides), "--bundle", str(bundle), "-o", str(tmp_path / "out"), "--dry-run"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "COLUMNS": "300"}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=120) == 3, shown
    assert rb"torn\xff\n.tif" in shown and b"Traceback" not in shown


@pytest.mark.parametrize("stem", ["漢" * 80, "\U0001f52c" * 62, "é" * 120, "a" * 250])
def test_keys_leave_room_for_everything_that_is_made_of_them(stem: str) -> None:
    key = slide_key(Path(f"{stem}.tif"), "0" * 64, 0.2526)
    longest = f".partial-01234567-old-{key}-0123456789ab"
    assert len(os.fsencode(longest)) <= 255
    assert slide_key(Path(f"{'a' * 90}.tif"), "0" * 64) == f"{'a' * 80}-{'0' * 12}"
