"""Spoil small TIFF files at random and read their directories: a SlideError or an answer, soon and in bounded memory.

    python csrc/fuzz/fuzz_tiff.py --seconds 120 --found FOLDER [--seed N]

Files that make the reader fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.storage.index import StorageGrid
from stamp_deploy.slide.tiff import read_levels

TAGS = (256, 257, 258, 259, 262, 277, 322, 323, 324, 325, 347)
LEVELS = (Level(0, 300, 200, 1, 1), Level(1, 75, 50, 4, 4))
SLOW_S = 5.0
MEMORY = 4 << 30


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few changes, most of them where the directories lie."""
    spoilt = bytearray(data)
    for _ in range(choose.randint(1, 8)):
        if not spoilt:
            break
        # directories and their values lie at the ends of what tifffile writes
        at = choose.choice((choose.randrange(len(spoilt)), choose.randrange(min(700, len(spoilt)))))
        if not change(spoilt, at, choose):
            spoilt[at : at + 2] = choose.choice(TAGS).to_bytes(2, "little")
    return bytes(spoilt)


def change(spoilt: bytearray, at: int, choose: random.Random) -> bool:
    """A byte, a number, a run of bytes from elsewhere or a gap; one time in five none, and False."""
    kind = choose.randrange(5)
    if kind == 0:
        spoilt[at] = choose.randrange(256)
    elif kind == 1:
        spoilt[at : at + 4] = choose.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x10000, at)).to_bytes(4, "little")
    elif kind == 2:
        spoilt[at : at + 12] = spoilt[(b := choose.randrange(len(spoilt))) : b + 12]
    elif kind == 3:
        del spoilt[at : at + choose.randint(1, 40)]
    return kind < 4


def spoil_record(data: bytes, choose: random.Random, root: bytes, words: Sequence[bytes]) -> bytes:
    """A few changes of an XML record, which keep its length, or of the directories.

    `root` is the tag of the record; `words` are put anywhere in it.
    """
    if choose.random() < 0.3:
        return spoil(data, choose)
    spoilt = bytearray(data)
    start, end = data.index(b"<" + root), data.index(b"</" + root + b">")
    for _ in range(choose.randint(1, 6)):
        at = choose.randrange(start, end - 20)
        word = choose.choice((*words, bytes([choose.randrange(32, 127)])))
        if choose.random() < 0.5:  # a number in the place of a number
            at = data.find(b'="', at, end) + 2
            word = str(choose.choice((0, 1, -5, 3, 500, 10**9))).encode()
        spoilt[at : at + len(word)] = word
    return bytes(spoilt)


def options_of(text: str | None) -> argparse.Namespace:
    """The options of a fuzz target of files: seconds, found, seed."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args()


def check_places(grids: Iterable[StorageGrid]) -> None:
    """No storage tile of an index lies before the begin of its file, or has a negative size."""
    assert all((grid.offsets >= 0).all() and (grid.sizes >= 0).all() for grid in grids)


def attempt(
    options: argparse.Namespace,
    name: str,
    seeds: Sequence[bytes],
    spoil: Callable[[bytes, random.Random], bytes],
    target: Path,
    read: Callable[[Path], object],
) -> int:
    """Spoil seeds, write each to `target` and read it, for the time that is given; 1 where something was found."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    choose = random.Random(options.seed)
    found = tried = refused = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        data = spoil(choose.choice(seeds), choose)
        target.write_bytes(data)
        os.utime(target, ns=(tried, tried))  # what is cached of the file before is not taken for this one's
        started = time.monotonic()
        problem = ""
        try:
            read(target)
        except SlideError:
            refused += 1
        except BaseException:
            problem = traceback.format_exc()
        if time.monotonic() - started > SLOW_S:
            problem = f"took {time.monotonic() - started:.1f} s"
        tried += 1
        if problem:
            found += 1
            options.found.mkdir(parents=True, exist_ok=True)
            kept = options.found / f"{name}-{options.seed}-{tried}{target.suffix}"
            kept.write_bytes(data)
            print(f"{kept}:\n{problem}", flush=True)
    print(f"{name}, seed {options.seed}: {tried} files, {refused} refused, {found} problems")
    return 1 if found else 0


def main() -> int:
    options = options_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        for number, (coding, big) in enumerate((("420", False), ("rgb", True), ("422", False), ("444", True))):
            path = Path(folder) / f"{number}.svs"
            write_slide(path, texture(200, 300), tile=64, coding=coding, bigtiff=big, levels=(4,))
            seeds.append(path.read_bytes())
        target = Path(folder) / "spoilt.svs"
        return attempt(options, "tiff", seeds, spoil, target, lambda path: read_levels(path, LEVELS))


if __name__ == "__main__":
    sys.exit(main())
