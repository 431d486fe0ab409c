"""Spoil the Slidedat.ini and Index.dat of small MIRAX slides at random and read them: a SlideError or an answer.

    python csrc/fuzz/fuzz_mirax.py --seconds 120 --found FOLDER [--seed N]

What makes the reader fail in any other way is kept in FOLDER, both files in one; the exit status is then 1.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fuzz_tiff
from support.mrxs_factory import Scan, write_mrxs
from support.slide_factory import texture

from stamp_deploy.slide.mirax import read_mirax

BETWEEN = b"\n\0--\0\n"
NUMBERS = (b"0", b"1", b"3", b"-5", b"7", b"32", b"65", b"1000", b"99999", b"2147483647", b"1e9", b"nan", b"", b"x")


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few numbers in the place of others in the text, or changes of the index."""
    text, index = data.split(BETWEEN)
    if choose.random() < 0.6:
        lines = text.split(b"\n")
        for _ in range(choose.randint(1, 3)):
            at = choose.randrange(len(lines))
            lines[at] = lines[at].split(b"=")[0] + b"= " + choose.choice(NUMBERS)
        text = b"\n".join(lines)
    spoilt = bytearray(index)
    for _ in range(choose.randint(0, 3)):
        fuzz_tiff.change(spoilt, choose.randrange(37, max(38, len(spoilt) - 12)), choose)
    return text + BETWEEN + bytes(spoilt)


def read(path: Path) -> None:
    """Read the layout of the slide whose files lie in one at `path`.

    Raises
    ------
    SlideError
        It is refused.
    """
    text, index = path.read_bytes().split(BETWEEN)
    folder = path.with_suffix("")
    (folder / "Slidedat.ini").write_bytes(text)
    (folder / "Index.dat").write_bytes(index)
    layout = read_mirax(path)
    if layout is not None:
        layout.left_out(1000, 1000)
        assert set(layout.lacking) <= set(range(1, len(layout.there)))


def main() -> int:
    options = fuzz_tiff.options_of(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder, seeds = Path(name) / "spoilt", []
        for positions in ("none", "plain", "deflated"):
            path = write_mrxs(folder.with_suffix(".mrxs"), texture(130, 200), Scan(32, 2, 2, positions), levels=3)
            seeds.append((folder / "Slidedat.ini").read_bytes() + BETWEEN + (folder / "Index.dat").read_bytes())
            if positions != "deflated":
                for part in folder.iterdir():
                    part.unlink()
                folder.rmdir()
        return fuzz_tiff.attempt(options, "mirax", seeds, spoil, path, read)


if __name__ == "__main__":
    sys.exit(main())
