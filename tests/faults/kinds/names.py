"""Hostile file names: bytes that are no text, control characters, what looks like an option, lengths at the limit."""

from __future__ import annotations

import os
import random
from pathlib import Path

from ..attempt import Attempt
from ..world import WARD, World, infer

SHARE = 0.1
NAMES: dict[str, tuple[bytes, ...]] = {
    "not UTF-8": (b"M\xfcller.svs", b"\xff\xfe.svs", b"a\xc3.svs", b"\xed\xa0\x80.svs", b"caf\xe9 \xb5m.svs"),
    "control characters": (
        *(b"a\nb.svs", b"a\rb.svs", b"a\tb.svs", b"\x1b[31mred\x1b[0m.svs", b"\x07.svs", b"a\x7fb.svs"),
        *(b"\x1b]0;title\x07.svs", "a\u2028b.svs".encode(), "a\u202egnp.svs".encode(), "\x9b31m.svs".encode()),
    ),
    "long": (
        *(b"x" * 251 + b".svs", b"x" * 200 + b".svs"),
        *("\u75c5".encode() * 80 + b".svs", "\U0001f52c".encode() * 62 + b".svs"),
    ),
    "like an option": (
        *(
            b"-o.svs",
            b"--mpp.svs",
            b"slide[level=3].svs",
            b"slide[fail=true].svs",
            b"%s%n.svs",
            b"{0}.svs",
            b"$HOME.svs",
        ),
        *(b"a:b.svs", b"slide.svs[0]", b"*.svs", b"?.svs", b"@file.svs", b"file:a.svs"),
    ),
    "spaces and dots": (
        *(b" .svs", b"a .svs", b".hidden.svs", b"..svs", b"a..svs", b"CON.svs", b"a'b\".svs", b"a;b&c|d.svs"),
        *(b"a\\b.svs", b"<b>.svs", b"&amp;.svs", "e\u0301.svs".encode(), "\ufeffa.svs".encode()),
    ),
    "no ending": (b"slide", b"slide.", b"slide.SVS", b"slide.svs.svs", b"slide.txt", b"slide.dcm", b"slide.png"),
}


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    what = choose.choice(list(NAMES))
    name = os.fsdecode(choose.choice(NAMES[what]))
    ward = folder / WARD
    ward.mkdir()
    slide = ward / name
    sound = choose.random() < 0.6
    data = world.slides[choose.choice(list(world.slides))]
    slide.write_bytes(data if sound else data[: choose.randrange(len(data))])
    out = folder / "out"
    verb = choose.choice(("infer", "infer", "inspect", "batch"))
    shown = name if name.isprintable() and name.isascii() and what != "long" else ""
    if verb == "inspect":
        return Attempt(what, ("inspect", str(slide)), shown)
    if verb == "infer":
        return Attempt(what, infer(slide, world.bundle, out, "--write", "json,hdf5,geojson,report"), shown, out)
    options = ("--bundle", str(world.bundle), "-o", str(out), "--engine", "onnxruntime", "--write", "json,hdf5,parquet")
    source = str(ward) if choose.random() < 0.5 else str(slide)
    # what lies in a folder and does not look like a slide is passed over: then there is nothing to do
    return Attempt(what, ("batch", source, *options), codes=frozenset({0, 2, 4}), one_line=False)
