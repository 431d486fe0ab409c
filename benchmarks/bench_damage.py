"""What of a damaged JPEG stream the tiler notices: JPEG has no checksum, so some damage decodes without complaint.

    python benchmarks/bench_damage.py [--positions 200]

One storage tile of a small slide is damaged at random positions. Each trial is caught (a tile is marked unreadable, or
the slide refused), harmless (the same pixels), slight or visible (other pixels, marked as good; visible: a mean
difference of more than 2 of 255). Writes benchmarks/results/damage.md.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from faults.kinds.tiff import Tiff
from faults.pixels import Tiles, read_tiles
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import StampError

RESULTS = Path(__file__).resolve().parent / "results"
SIDE = 256
VISIBLE = 2.0
OUTCOMES = ("caught", "harmless", "slight", "visible")
Stream = bytearray


def flip(stream: Stream, choose: random.Random) -> None:
    """One bit."""
    stream[choose.randrange(len(stream))] ^= 1 << choose.randrange(8)


def cut(stream: Stream, choose: random.Random) -> None:
    """The end lost."""
    del stream[choose.randrange(2, len(stream) - 2) :]


def lose(size: int) -> Callable[[Stream, random.Random], None]:
    """A sector of `size` bytes that reads as zeros."""

    def damage(stream: Stream, choose: random.Random) -> None:
        at = choose.randrange(0, len(stream), 512)
        stream[at : at + size] = bytes(len(stream[at : at + size]))

    return damage


DAMAGES = {
    "one bit flipped": flip,
    "cut short": cut,
    "512 bytes of zeros": lose(512),
    "4,096 bytes of zeros": lose(4096),
}


def outcome(slide: Path, want: Tiles) -> str:
    """What became of a damaged slide."""
    try:
        _, got = read_tiles(slide)
    except StampError:
        return "caught"
    if got.keys() != want.keys():
        return "caught"
    apart = max(float(np.abs(got[corner].astype(int) - want[corner]).mean()) for corner in want)
    return "harmless" if apart == 0 else "visible" if apart > VISIBLE else "slight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=200)
    options = parser.parse_args()
    lines = [
        "# What of a damaged JPEG stream is noticed",
        "",
        f"One storage tile of {SIDE} px, quality 90, {options.positions} positions each; benchmarks/bench_damage.py.",
        f"Visible: a mean difference of more than {VISIBLE:g} of 255 in a tile. Per cent of the trials.",
        "",
        "| coding | damage | " + " | ".join(OUTCOMES) + " |",
        "|---" * (len(OUTCOMES) + 2) + "|",
    ]
    choose = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        for coding in ("420", "422", "rgb"):
            sound = write_slide(Path(folder, f"{coding}.svs"), texture(SIDE, SIDE), tile=SIDE, coding=coding)
            _, want = read_tiles(sound)
            tiff = Tiff(sound.read_bytes())
            (form, (place, *_)), (length_form, (length_place, *_)) = (
                tiff.array(entry) for tag in (324, 325) if (entry := tiff.find(tag)) is not None
            )
            start, length = tiff.get(form, place), tiff.get(length_form, length_place)
            for name, damage in DAMAGES.items():
                counts: Counter[str] = Counter()
                for number in range(options.positions):
                    stream = bytearray(tiff.data[start : start + length])
                    damage(stream, choose)
                    spoilt = Tiff(bytes(tiff.data))
                    spoilt.data[start : start + len(stream)] = stream
                    spoilt.put(length_form, length_place, len(stream))
                    slide = Path(folder, f"{number}-{name[:3]}.svs")
                    slide.write_bytes(spoilt.data)
                    counts[outcome(slide, want)] += 1
                    slide.unlink()
                cells = (f"{100 * counts[kind] / options.positions:.1f}" for kind in OUTCOMES)
                lines.append(f"| {coding} | {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "damage.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
