"""Hostile bundles: the attacks of tests/bundle/attacks, values of bundle.json, spoilt files under fitting hashes."""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

from ..attempt import Attempt
from ..world import World, infer, new_slide

sys.path.append(str(Path(__file__).resolve().parents[2] / "bundle" / "attacks"))

from hostile import ATTACKS, reseal  # type: ignore[import-not-found]  # found by the line above

SHARE = 0.15
NOT_JUDGED = ("trust/distance", "trust/percentile")
"""NaN there for tiles outside the sample that was judged."""
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.0, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), "", " ", "0", "nan", "../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[31mred", "\n"),
    *("a" * 100_000, "\U0001f600" * 200, [], [[]], {}, [None], {"": ""}, [0] * 100_000),
)


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, item in inner for place in _places(item, (*way, key)))]


def _a_value(folder: Path, choose: random.Random) -> None:
    document = json.loads((folder / "bundle.json").read_text())
    for _ in range(choose.choice((1, 1, 1, 3))):
        *way, last = choose.choice([place for place in _places(document) if place and place[0] != "files"])
        place = document
        for key in way:
            place = place[key]
        if choose.random() < 0.15:
            del place[last]
        else:
            place[last] = copy.deepcopy(choose.choice(VALUES))  # a list that is written into stays out of the next one
    # 10**400 is more than json reads back by default limits of int: that is the point
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")


def _a_file(folder: Path, choose: random.Random) -> None:
    """Bytes of a file changed, cut or put in, with hashes that fit."""
    path = choose.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "bundle.json"))
    data = bytearray(path.read_bytes())
    for _ in range(choose.choice((1, 3, 30))):
        at = choose.randrange(len(data) + 1)
        kind = choose.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = choose.randrange(256)
        elif kind == 1:
            data[at:at] = choose.randbytes(choose.choice((1, 8, 300)))
        elif kind == 2:
            del data[at : at + choose.choice((1, 8, 300))]
        else:
            data[at : at + 8] = choose.choice((b"\xff" * 8, bytes(8), b"\x80" * 8))
    path.write_bytes(data)
    reseal(folder)


def _manifest_bytes(folder: Path, choose: random.Random) -> None:
    path = folder / "bundle.json"
    data = bytearray(path.read_bytes())
    for _ in range(choose.choice((1, 2, 9))):
        data[choose.randrange(len(data))] = choose.choice((*b'{}[]",:\\0-e', 0, 0xFF, choose.randrange(256)))
    path.write_bytes(data)


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    slide = new_slide(folder, "slide.svs", world.slides["420"])
    bundle = world.bundle_copy(slide.parent)
    what = choose.choice(
        ("an attack", "a value of bundle.json", "a value of bundle.json", "bytes of a file", "bytes of bundle.json")
    )
    if what == "an attack":
        ATTACKS[choose.choice(list(ATTACKS))][0](bundle)
    elif what == "a value of bundle.json":
        _a_value(bundle, choose)
    elif what == "bytes of a file":
        _a_file(bundle, choose)
    else:
        _manifest_bytes(bundle, choose)
    codes = frozenset({0, 2, 4, 5})
    if choose.random() < 0.3:
        # without bundle.json the folder is no bundle: a usage error
        codes = frozenset({0, 5} if (bundle / "bundle.json").exists() else {2})
        return Attempt(what, ("verify", str(bundle)), codes=codes)
    out = folder / "out"
    return Attempt(what, infer(slide, bundle, out), out=out, codes=codes, right=lambda: _finite(out))


def _finite(out: Path) -> str:
    import h5py
    import numpy as np

    with h5py.File(out / "tiles.h5") as file:
        found: list[str] = []

        def look(name: str, item: Any) -> None:
            if name in NOT_JUDGED or not isinstance(item, h5py.Dataset):
                return
            if item.dtype.kind == "f" and not np.isfinite(item[()]).all():
                found.append(name)

        file.visititems(look)
    return f"values that are not finite in {', '.join(found)}" if found else ""
