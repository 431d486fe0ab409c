"""Hostile TIFF structures: entries of directories changed, chains bent, bytes spoilt."""

from __future__ import annotations

import importlib.util
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..attempt import Attempt
from ..pixels import routes_agree
from ..world import MPP, PLANTED, World, infer, new_slide

SHARE = 0.3
NASTY = (0, 1, 2, 3, 7, 8, 15, 16, 17, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TAGS = (
    256,
    257,
    258,
    259,
    262,
    266,
    270,
    273,
    274,
    277,
    278,
    279,
    282,
    284,
    317,
    322,
    323,
    324,
    325,
    330,
    338,
    347,
    530,
)
DESCRIPTIONS = (
    b"Aperio Image Library v12\n640x512|MPP = 0_5|AppMag = 20",
    b"Aperio Image Library v12\n640x512|MPP = 0,5|AppMag = 20",
    b"Aperio Image Library v12\n640x512|MPP = nan|AppMag = inf",
    b"Aperio Image Library v12\n640x512|MPP = -0.5",
    b"Aperio Image Library v12\n640x512|MPP = " + b"9" * 400,
    b"Aperio Image Library v12\n640x512|MPP = 0.5|AppMag = " + PLANTED.encode(),
    b"Aperio Image Library v12\n640x512|M\xfcller " + PLANTED.encode() + b" = 1|\xff\xfe = 2|MPP = 0.5",
    b"Aperio " + b"|=" * 50_000,
    b"<?xml version='1.0'?><OME><Image Name='" + PLANTED.encode() + b"'>",
    b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b '" + PLANTED.encode() + b"'>]><OME>&b;</OME>",
    b'{"shape": [1, 2], "name": "' + PLANTED.encode() + b'"',
    b"ImageJ=1.1\nimages=999999999\n" + PLANTED.encode(),
    b"\x00" * 40 + PLANTED.encode(),
    b"",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry of a directory: where it stands, and what it says."""

    directory: int
    at: int
    tag: int
    type: int
    count: int
    value: int


class Tiff:
    """The bytes of a small-endian TIFF, with its directories."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.big = data[2] == 43
        self.head, self.size = ("<Q", 20) if self.big else ("<H", 12)
        self.word = "<Q" if self.big else "<I"
        self.entries: list[Entry] = []
        self.links = [8 if self.big else 4]
        """Where the offset of each directory stands."""
        while offset := self.get(self.word, self.links[-1]):
            count = self.get(self.head, offset)
            first = offset + struct.calcsize(self.head)
            for at in range(first, first + count * self.size, self.size):
                tag, kind = struct.unpack_from("<HH", self.data, at)
                width = struct.calcsize(self.word)
                self.entries.append(
                    Entry(
                        len(self.links) - 1,
                        at,
                        tag,
                        kind,
                        self.get(self.word, at + 4),
                        self.get(self.word, at + 4 + width),
                    )
                )
            self.links.append(first + count * self.size)

    def get(self, form: str, at: int) -> int:
        return int(struct.unpack_from(form, self.data, at)[0])

    def put(self, form: str, at: int, value: int) -> None:
        struct.pack_into(form, self.data, at, value & ((1 << 8 * struct.calcsize(form)) - 1))

    def put_count(self, entry: Entry, count: int) -> None:
        self.put(self.word, entry.at + 4, count)

    def put_value(self, entry: Entry, value: int) -> None:
        self.put(self.word, entry.at + 4 + struct.calcsize(self.word), value)

    def find(self, tag: int, directory: int = 0) -> Entry | None:
        return next((e for e in self.entries if e.tag == tag and e.directory == directory), None)

    def array(self, entry: Entry) -> tuple[str, list[int]]:
        """(form, places) of the values of an entry that points at an array of numbers."""
        form = {3: "<H", 4: "<I", 13: "<I", 16: "<Q"}.get(entry.type, "<I")
        width = struct.calcsize(form)
        inline = width * entry.count <= struct.calcsize(self.word)
        start = entry.at + 4 + struct.calcsize(self.word) if inline else entry.value
        return form, [start + i * width for i in range(entry.count)]

    def append(self, data: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 8)
        self.data += data
        return len(self.data) - len(data)


Damage = Callable[[Tiff, random.Random], None]


def _a_value(tiff: Tiff, choose: random.Random) -> None:
    for _ in range(choose.choice((1, 1, 1, 2))):
        tiff.put_value(choose.choice(tiff.entries), choose.choice((*NASTY, len(tiff.data), len(tiff.data) - 4)))


def _sizes(tiff: Tiff, choose: random.Random) -> None:
    entry = choose.choice([e for e in tiff.entries if e.tag in (256, 257, 322, 323)])
    tiff.put_value(entry, choose.choice((*NASTY, 16, 48, 75, 112, 129, 240, 65_500, entry.value * 2, entry.value - 1)))


def _kind_of_picture(tiff: Tiff, choose: random.Random) -> None:
    entry = choose.choice([e for e in tiff.entries if e.tag in (258, 259, 262, 277, 284, 530, 339)])
    tiff.put_value(
        entry, choose.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 0x20001, 33003, 33005, 34712, 50000, 32773))
    )


def _a_count(tiff: Tiff, choose: random.Random) -> None:
    entry = choose.choice(tiff.entries)
    tiff.put_count(entry, choose.choice((*NASTY, entry.count + 1, max(0, entry.count - 1), entry.count * 1000)))


def _a_type(tiff: Tiff, choose: random.Random) -> None:
    tiff.put("<H", choose.choice(tiff.entries).at + 2, choose.choice((*range(19), 129, 0xFFFF)))


def _a_tag(tiff: Tiff, choose: random.Random) -> None:
    tiff.put("<H", choose.choice(tiff.entries).at, choose.choice((*TAGS, 65000, 0)))


def _the_chain(tiff: Tiff, choose: random.Random) -> None:
    starts = [tiff.get(tiff.word, link) for link in tiff.links[:-1]]
    to = choose.choice((*starts, 0, 1, 8, len(tiff.data) - 1, len(tiff.data) + 999, 0xFFFFFFFF))
    tiff.put(tiff.word, choose.choice(tiff.links), to)


def _many_directories(tiff: Tiff, choose: random.Random) -> None:
    """A long chain of copies of the last directory."""
    start = tiff.get(tiff.word, tiff.links[-2])
    body = bytes(tiff.data[start : tiff.links[-1]])
    link = tiff.links[-1]
    for _ in range(choose.choice((3, 300, 3000))):
        at = tiff.append(body + bytes(struct.calcsize(tiff.word)))
        tiff.put(tiff.word, link, at)
        link = at + len(body)


def _places_of_tiles(tiff: Tiff, choose: random.Random) -> None:
    tag = choose.choice((324, 325))
    entry = choose.choice([e for e in tiff.entries if e.tag == tag])
    form, places = tiff.array(entry)
    for at in choose.sample(places, min(len(places), choose.choice((1, 1, 2, 9)))):
        old = tiff.get(form, at)
        new = choose.choice(
            (0, 1, 4, old + 1, max(0, old - 1), len(tiff.data), len(tiff.data) - 10, 0x7FFFFFFF, 0xFFFFFFFF)
        )
        if choose.random() < 0.2:
            new = tiff.get(form, choose.choice(places))
        tiff.put(form, at, new)


def _description(tiff: Tiff, choose: random.Random) -> None:
    text = choose.choice(DESCRIPTIONS)
    entry = tiff.find(270, choose.randrange(len(tiff.links) - 1))
    if entry is not None:
        tiff.put_count(entry, len(text))
        tiff.put_value(entry, tiff.append(text) if len(text) > 8 else 0)


def _tables(tiff: Tiff, choose: random.Random) -> None:
    """JPEGTables where there were none, or other ones: over an entry that nobody needs."""
    entry = tiff.find(347) or tiff.find(305) or tiff.find(254)
    if entry is None:
        return
    tables = choose.choice(
        (b"", b"\xff\xd8\xff\xd9", b"\xff\xd8" + bytes(70), bytes(range(256)) * 4, b"\xff\xd8\xff\xdb\x00\x43")
    )
    tiff.put("<H", entry.at, 347)
    tiff.put("<H", entry.at + 2, 7)
    tiff.put_count(entry, len(tables))
    tiff.put_value(entry, tiff.append(tables + bytes(8)))


def _two_pages_of_a_size(tiff: Tiff, choose: random.Random) -> None:
    """A second full page whose tiles are the first one's in another order."""
    start, end = tiff.get(tiff.word, 8 if tiff.big else 4), tiff.links[1]
    at = tiff.append(bytes(tiff.data[start:end]) + bytes(tiff.data[end : end + struct.calcsize(tiff.word)]))
    offsets = tiff.find(324)
    assert offsets is not None
    form, places = tiff.array(offsets)
    values = [tiff.get(form, place) for place in places]
    other = tiff.append(b"".join(struct.pack(form, value) for value in reversed(values)))
    tiff.put(tiff.word, at + offsets.at - start + 4 + struct.calcsize(tiff.word), other)
    first = choose.random() < 0.5
    if first:
        tiff.put(tiff.word, at + end - start, start)
        tiff.put(tiff.word, 8 if tiff.big else 4, at)
    else:
        tiff.put(tiff.word, end, at)


def _cut(tiff: Tiff, choose: random.Random) -> None:
    del tiff.data[choose.randrange(len(tiff.data)) :]


def _zeros(tiff: Tiff, choose: random.Random) -> None:
    """A lost sector or more."""
    at, length = choose.randrange(len(tiff.data)), choose.choice((512, 4096, 65536))
    tiff.data[at : at + length] = bytes(len(tiff.data[at : at + length]))


def _fuzz(tiff: Tiff, choose: random.Random) -> None:
    tiff.data = bytearray(_fuzzer()(bytes(tiff.data), choose))


def _fuzzer() -> Callable[[bytes, random.Random], bytes]:
    """`spoil` of csrc/fuzz/fuzz_tiff.py."""
    path = Path(__file__).resolve().parents[3] / "csrc" / "fuzz" / "fuzz_tiff.py"
    spec = importlib.util.spec_from_file_location("fuzz_tiff", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    spoil: Callable[[bytes, random.Random], bytes] = module.spoil
    return spoil


DAMAGES: dict[str, Damage] = {
    "a value": _a_value,
    "a size": _sizes,
    "compression, colour, depth": _kind_of_picture,
    "a count": _a_count,
    "a type": _a_type,
    "a tag": _a_tag,
    "the chain of directories": _the_chain,
    "many directories": _many_directories,
    "places of storage tiles": _places_of_tiles,
    "the description": _description,
    "JPEG tables": _tables,
    "two pages of a size": _two_pages_of_a_size,
    "cut short": _cut,
    "lost sectors": _zeros,
    "bytes": _fuzz,
}


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    what = choose.choice(list(DAMAGES))
    tiff = Tiff(world.slides[choose.choice(list(world.slides))])
    DAMAGES[what](tiff, choose)
    name = choose.choice(("slide.svs", "slide.svs", "slide.tif"))
    slide = new_slide(folder, name, bytes(tiff.data))
    out = folder / "out"
    verb = choose.choice(("infer", "infer", "infer", "inspect"))
    scale = ("--mpp", str(MPP)) if choose.random() < 0.8 else ()
    if verb == "inspect":
        return Attempt(what, ("inspect", str(slide), *scale), name, codes=frozenset({0, 4}))
    return Attempt(what, infer(slide, world.bundle, out, *scale), name, out, right=lambda: routes_agree(slide))
