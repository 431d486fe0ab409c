"""The tiler side by side with other readers and with the decode ceiling, all in one run, interleaved.

    python benchmarks/bench_tiler.py [--json FILE] [--markdown FILE]      writes benchmarks/results/tiler.{json,md}
    python benchmarks/bench_tiler.py --quick --json FILE                  under 50 s, the 4:2:0 slide only

Slides come from make_wsi.py (found like the tests find their data: STAMP_TEST_DATA, or shared/data beside the
checkout): 48,000 x 38,400 px, half of it tissue, 0.25 um/px (40x) to be read at 0.5, and 0.5 um/px (20x) to be read as
it is.
Every round runs every reader once, one after the other, on one thread; a ratio is taken within a round. Numbers are
medians over the rounds; the spread is the largest less the smallest.

The decode ceiling is the same storage tiles, already in memory, decoded by libjpeg-turbo at the same scale into RGB in
one reused buffer (decode_ceiling.c), and nothing else. The tiler can pass it, because it takes the samples as they are
coded and converts colours while it assembles tiles.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_slides import make_slide
from result_files import keep
from rivals import DICOM_ALONE, Read, installed, versions
from tiler_cases import (
    CODINGS,
    TARGET,
    TILE,
    Case,
    case,
    describe_machine,
    middle,
    read_ours,
    read_rival,
)
from tiler_table import missed_bars, to_markdown

from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import open_tiles
from stamp_deploy.tiles.schedule import Serving, Storage
from stamp_deploy.tissue import TissueRule, find_tissue


class Ceiling:
    """The storage tiles that a case needs, in memory, and the C function that decodes them."""

    library: Any = None

    def __init__(self, one: Case) -> None:
        with open_slide(one.slide, mpp=one.mpp, route="jpeg-tiff") as slide:
            with open_tiles(slide, one.tiles.part(slice(1)), batch=1) as source:
                plan = source.plan
            assert slide.storage is not None
            grids = slide.storage.levels[plan.level]
            shrink = slide.levels[plan.level].downsample_x * plan.dct_scale
        assert not isinstance(grids, str)
        (level,) = grids
        scale = plan.dct_scale
        rows, columns = level.offsets.shape
        storage = Storage(rows, columns, level.tile_width // scale, level.tile_height // scale, 1 << 17)
        spans = plan.residual_x * TILE, plan.residual_y * TILE
        serving = Serving(one.tiles.coords / shrink, one.tiles.columns, one.tiles.rows, *spans, storage)
        cells = np.unique(np.concatenate([s.by_first_use for s in serving.strips(serving.order())]))
        file = np.memmap(one.slide, np.uint8, "r")
        self.sizes = np.ascontiguousarray(level.sizes.reshape(-1)[cells])
        streams = [
            file[o : o + n] for o, n in zip(level.offsets.reshape(-1)[cells].tolist(), self.sizes.tolist(), strict=True)
        ]
        self.data = np.concatenate(streams)
        self.offsets = np.ascontiguousarray(np.cumsum(self.sizes) - self.sizes)
        self.level, self.scale, self.tiles = level, scale, len(one.tiles)
        self.out = np.zeros(storage.tile_w * storage.tile_h * 3, np.uint8)

    @classmethod
    def build(cls, folder: Path) -> None:
        """Compile decode_ceiling.c with the C compiler that built the core."""
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("the decode ceiling needs a C compiler: apt-get install gcc libjpeg62-turbo-dev")
        source, made = Path(__file__).with_name("decode_ceiling.c"), folder / "decode_ceiling.so"
        subprocess.run([compiler, "-O3", "-shared", "-fPIC", str(source), "-o", str(made), "-ljpeg"], check=True)
        cls.library = ctypes.CDLL(str(made))
        cls.library.decode_ceiling.restype = ctypes.c_double

    def rate(self) -> float:
        """Model tiles/s that the decoding alone would allow."""
        seconds = self.library.decode_ceiling(
            _pointer(self.data), _pointer(self.offsets), _pointer(self.sizes), ctypes.c_int64(len(self.sizes)),
            self.level.tables, ctypes.c_size_t(len(self.level.tables)), int(self.level.photometric == 2),
            ctypes.c_uint(self.scale), _pointer(self.out), ctypes.c_size_t(self.out.size),
        )  # fmt: skip
        if seconds <= 0:
            raise RuntimeError("the decode ceiling could not decode a storage tile")
        return self.tiles / float(seconds)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def compare(cases: dict[str, Case], rivals: dict[str, Read], rounds: int, *, quick: bool) -> None:
    """Fill the cases' rates, readers interleaved within every round."""
    work: list[tuple[Case, str, Callable[[], float]]] = []
    for label, one in cases.items():
        work.append((one, "tiler", lambda one=one: read_ours(one)))  # type: ignore[misc]
        work.append((one, "ceiling", Ceiling(one).rate))
        if label.startswith("40x"):
            work.append((one, "tiler, 2 threads", lambda one=one: read_ours(one, threads=2)))  # type: ignore[misc]
            slower = case(one.slide, 0.2526, len(one.tiles), 8).tiles
            work.append(
                (one, "tiler, 0.2526", lambda one=one, t=slower: read_ours(one, mpp=0.2526, tiles=t))  # type: ignore[misc]
            )
        for name, read in rivals.items():
            if not quick or name == "OpenSlide":
                work.append((one, name, lambda one=one, read=read: read_rival(one, read)))  # type: ignore[misc]
    for one, _, run in work:
        if run.__name__ != "rate":
            read_ours(one, tiles=one.tiles.part(slice(64)))  # pages, imports
    for _ in range(rounds):
        for one, name, run in work:
            one.rates.setdefault(name, []).append(run())


def memory_child(path: str) -> None:
    """Read a whole slide on two threads; print the peak of resident memory, MB."""
    with open_slide(path) as slide:
        mask = find_tissue(slide, TissueRule())
        tiles = select_tiles(make_grid(slide, target_mpp=TARGET, tile_px=TILE), mask, 0.5)
        with open_tiles(slide, tiles, batch=64, threads=2) as source:
            for _ in source:
                pass
    # VmHWM starts again at exec; getrusage's peak would include the parent that was forked
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1000)


def peak_mb(path: Path, rounds: int) -> tuple[float, float]:
    """Median and spread of the peak memory of child processes."""
    peaks = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--memory-child", str(path)]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return middle(peaks)


def glass(folder: Path, tiles: str, rounds: int) -> dict[str, float]:
    """The tiler's time on an all-glass slide against the same slide all tissue, the masks being given."""
    seconds: dict[float, list[float]] = {0.0: [], 1.0: []}
    finding: list[float] = []
    slides = {t: make_slide(folder / f"tissue-{t:g}.svs", tiles, tissue=t, recode="420") for t in seconds}
    for _ in range(rounds):
        for share, path in slides.items():
            with open_slide(path) as slide:
                clock = time.perf_counter()
                mask = find_tissue(slide, TissueRule())
                found = time.perf_counter() - clock
                # tissue is where the slide was made of tissue: every tile of the one, none of the other
                grid = make_grid(slide, target_mpp=TARGET, tile_px=TILE)
                chosen = select_tiles(grid, mask if share == 0 else None, 0.5)
                clock = time.perf_counter()
                with open_tiles(slide, chosen, batch=64, threads=1) as source:
                    for _ in source:
                        pass
                seconds[share].append(time.perf_counter() - clock)
                if share == 0:
                    finding.append(found)
    fraction, spread = middle([a / b for a, b in zip(seconds[0.0], seconds[1.0], strict=True)])
    return {
        "glass_fraction": fraction, "glass_fraction_spread": spread,
        "glass_tissue_finding_s": middle(finding)[0], "all_tissue_s": middle(seconds[1.0])[0],
    }  # fmt: skip


def keys_of(cases: dict[str, Case]) -> dict[str, float]:
    """The figures of the issue for one slide."""
    forty, twenty = cases["40x"], cases["20x"]
    found = {
        "vs_openslide_40x": forty.ratio("tiler", "OpenSlide"),
        "vs_openslide_20x": twenty.ratio("tiler", "OpenSlide"),
        "of_decode_ceiling_40x": forty.ratio("tiler", "ceiling"),
        "of_decode_ceiling_20x": twenty.ratio("tiler", "ceiling"),
        "two_thread_speedup": forty.ratio("tiler, 2 threads", "tiler"),
        "resampled_fraction": forty.ratio("tiler, 0.2526", "tiler"),
        "tiles_per_s_40x": middle(forty.rates["tiler"]),
        "tiles_per_s_20x": middle(twenty.rates["tiler"]),
    }
    found["of_decode_ceiling"] = min(found["of_decode_ceiling_40x"], found["of_decode_ceiling_20x"])
    return {k: v for name, (value, spread) in found.items() for k, v in ((name, value), (f"{name}_spread", spread))}


def run(*, quick: bool) -> dict[str, Any]:
    found, absent = installed()
    rivals = {name: read for name, read in found.items() if name not in DICOM_ALONE}
    if "OpenSlide" not in rivals:
        raise SystemExit("openslide-python and openslide-bin are needed to compare with")
    rounds = 3 if quick else 7
    report: dict[str, Any] = {
        "machine": describe_machine(), "rounds": rounds, "not_installed": absent, "readers": versions(), "slides": {}
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Ceiling.build(folder)
        for coding, recode in CODINGS.items():
            if quick and recode != "420":
                continue
            slide = make_slide(folder / f"{recode or 'rgb'}.svs", "200x160", recode=recode)
            limit, sample = (1200, 48) if quick else (None, 128)
            cases = {
                "40x": case(slide, 0.25, limit, sample),
                "20x": case(slide, 0.5, 2000 if quick else 6000, 2 * sample),
            }
            compare(cases, rivals, rounds, quick=quick)
            report["slides"][coding] = {
                "keys": keys_of(cases), "tiles": {label: len(c.tiles) for label, c in cases.items()},
                "rates": {label: c.rates for label, c in cases.items()},
            }  # fmt: skip
            if recode == "420":
                small = make_slide(folder / "small.svs", "50x40", recode=recode)
                for key, path in (("peak_mb_large", slide), ("peak_mb_small", small)):
                    value, spread = peak_mb(path, 2 if quick else 3)
                    report.setdefault("keys", {}).update({key: value, f"{key}_spread": spread})
            slide.unlink()
        report["keys"].update(glass(folder, "100x80" if quick else "200x160", 2 if quick else 3))
    report["keys"] = {**report["slides"]["4:2:0"]["keys"], **report["keys"]}
    report["missed"] = missed_bars(report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the 4:2:0 slide only, fewer tiles")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_child:
        memory_child(options.memory_child)
        return
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    started = time.perf_counter()
    report = run(quick=options.quick)
    report["seconds"] = round(time.perf_counter() - started, 1)
    # the named figures lie at the top; everything else beside them
    flat = {**report.pop("keys"), **report}
    text = to_markdown({**report, "keys": flat})
    if options.json is not None:
        options.json.write_text(json.dumps(flat, indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(text)
    if not options.quick:
        keep("tiler", flat, text)
    print(text)


if __name__ == "__main__":
    main()
