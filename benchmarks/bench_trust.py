"""Trust: does it tell slides like the training slides from others, and what does it cost.

    python benchmarks/bench_trust.py DATA             DATA holds st/her2st, slides/ and formats/ (see below)
    python benchmarks/bench_trust.py DATA --quick     fewer tiles and rounds; nothing is kept

Power: sections C2 to C4 of her2st (Andersson et al. 2021; one patient) are the reference. C5 is of the same patient, B4
of another; a second reference is of both patients. Tiles are cut at every third spot. Every change is simulated on
these tiles, except for the real slides of other scanners and stains. A detection is a tile whose distance is above the
95th percentile of the clean tiles of its own section (for real slides, of the last section), so that 5 % of those are
false alarms; what the shipped rules do stands beside it. False alarms of these rules are the rows of clean tiles.

Cost: one slide is scored with a bundle that has a reference and with the same bundle without, in turns; once with ONNX
Runtime on the CPU and an encoder that does next to nothing, so that any real one makes the share smaller; once with a
stand-in that takes 3,000 tiles/s. What measuring took is also read from the result's own timing, because on a shared
machine the difference of two runs is mostly noise.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from result_files import keep
from trust_changes import CHANGES, Tiles
from trust_table import STAND_IN_TILES_PER_S, to_text

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.bundle.reference import TrustReference
from stamp_deploy.config import InferOptions
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.interface import EngineInfo, EngineOutput
from stamp_deploy.export.trust_reference import ReferenceTiles, fit_reference
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.infer import infer_slide
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.colour import KINDS
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tissue import TissueRule, find_tissue
from stamp_deploy.trust import TileFlag
from stamp_deploy.trust.distance import tile_distances
from stamp_deploy.trust.judge import judge
from stamp_deploy.trust.sample import chosen
from stamp_deploy.trust.statistics import measure_tiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

NATIVE_MPP = 0.68
"""her2st states no resolution; spots lie 200 um and about 293 px apart."""
VIEWS = {"0.68 um/px, 224 px": (0.68, 224), "2 um/px, 112 px": (2.0, 112)}
TRAIN, TESTS = ("C2", "C3", "C4"), ("C5", "B4")
FALSE_ALARMS = 0.05


# Power


@lru_cache(maxsize=1)
def scan(path: Path) -> Tiles:
    """A scanned section, RGB; 92 million pixels."""
    Image.MAX_IMAGE_PIXELS = None
    return np.asarray(Image.open(path).convert("RGB"))


def cut(data: Path, section: str, mpp: float, side: int, zoom: float = 1.0) -> Tiles:
    """Tiles [N, side, side, 3] at the section's spots; with `zoom` 2 objects are twice as large as they should be."""
    folder = data / "st" / "her2st"
    picture = scan(folder / f"{section}_HE.jpg")
    with (folder / f"{section}_selection.tsv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["selected"] == "1"]
    native = round(side * mpp / NATIVE_MPP / zoom)
    found = []
    for row in rows:
        x, y = (round(float(row[f"pixel_{axis}"]) - native / 2) for axis in "xy")
        if x < 0 or y < 0 or x + native > picture.shape[1] or y + native > picture.shape[0]:
            continue
        part = Image.fromarray(picture[y : y + native, x : x + native])
        how = Image.Resampling.BOX if native > side else Image.Resampling.BICUBIC
        found.append(np.asarray(part if native == side else part.resize((side, side), how)))
    return np.stack(found)


ZOOMS = {"objects x 2 (wrong mpp)": 2.0, "objects x 0.5 (wrong mpp)": 0.5}
SLIDES = {
    "another scanner (CMU-1)": ("slides/CMU-1-Small-Region.svs", None),
    "another scanner (TCGA, mpp taken as 0.5)": ("slides/tcga-cr-7395-01a-01-ts1.svs", 0.5),
    "fluorescence (DAPI)": ("formats/test3-DAPI-2-387.ndpi", None),
}


def rate(reference: TrustReference, measures: NDArray[np.float64], own: float) -> dict[str, Any]:
    """What the rules say of tiles; `own` is the distance that 5 % of the section's clean tiles exceed."""
    distances = tile_distances(reference, measures)
    trust = judge(
        reference, len(measures), np.arange(len(measures)), measures, np.zeros((len(measures), 1), np.float32)
    )
    flags = {flag.label: float(((trust.tile_flags & np.uint16(flag)) != 0).mean()) for flag in TileFlag}
    return {
        "tiles": len(measures),
        "detected_at_5_percent": round(float((distances > own).mean()), 4),
        "over_95th_of_left_out": round(float((distances > reference.distances[95]).mean()), 4),
        "left_out": round(float(trust.left_out.mean()), 4),
        "any_flag": round(float((trust.tile_flags != 0).mean()), 4),
        "flags": {name: round(share, 4) for name, share in flags.items() if share},
        "ratio": None if trust.distance is None else round(trust.distance, 3),
        "verdict": trust.verdict,
    }


def measured_slide(path: Path, mpp: float | None, target_mpp: float, side: int) -> NDArray[np.float64]:
    """Measures of a real slide's tiles, chosen as in a run, through the project's own tiler."""
    with open_slide(path, mpp=mpp, accept=KINDS) as slide:
        grid = make_grid(slide, target_mpp=target_mpp, tile_px=side)
        tiles = select_tiles(grid, find_tissue(slide, TissueRule()), TissueRule().min_fraction)
        wanted = chosen(tiles.tissue_fraction)
        with open_tiles(slide, tiles, batch=32) as source:
            parts = [measure_tiles(b.pixels[wanted[b.index] & (b.status == TileStatus.OK)]) for b in source]
    return np.concatenate(parts)


def power(data: Path, quick: bool) -> dict[str, Any]:
    """Both views, both references, every change."""
    found: dict[str, Any] = {}
    for view, (mpp, side) in list(VIEWS.items())[: 1 if quick else None]:
        step = 8 if quick else 3
        clean: dict[str, Tiles] = {}
        zoomed: dict[str, dict[str, Tiles]] = {}
        for name in (*TRAIN, *TESTS):
            clean[name] = cut(data, name, mpp, side)[::step]
            if name in TESTS:
                zoomed[name] = {kind: cut(data, name, mpp, side, zoom)[::step] for kind, zoom in ZOOMS.items()}
        of_one = fit_reference(ReferenceTiles(tuple(clean[name] for name in TRAIN), "section"), mpp)
        both = (np.concatenate([clean[name] for name in TRAIN]), clean["B4"])
        of_two = fit_reference(ReferenceTiles(both, "patient"), mpp)
        measures: dict[str, dict[str, NDArray[np.float64]]] = {}
        for test in TESTS:
            changed = {"clean": clean[test], **{name: change(clean[test]) for name, change in CHANGES.items()}}
            changed |= zoomed[test]
            measures[test] = {name: measure_tiles(tiles) for name, tiles in changed.items()}
        slides: dict[str, Any] = {}
        for name, (file, stated) in SLIDES.items():
            try:
                slides[name] = measured_slide(data / file, stated, mpp, side)
            except Exception as error:  # a slide that cannot be read here is said, not left out silently
                slides[name] = f"{type(error).__name__}: {error}"
        part: dict[str, Any] = {}
        for label, reference, tests in (("one patient", of_one, TESTS), ("two patients", of_two, ("C5",))):
            rows: dict[str, Any] = {}
            for test in tests:
                own = float(np.quantile(tile_distances(reference, measures[test]["clean"]), 1 - FALSE_ALARMS))
                rows[test] = {name: rate(reference, values, own) for name, values in measures[test].items()}
            others = {
                name: {"unread": values} if isinstance(values, str) else rate(reference, values, own)
                for name, values in slides.items()
            }
            part[label] = {
                "groups": reference.groups,
                "tiles": reference.tiles,
                "largest_median_left_out": round(reference.median, 4),
                "95th_percentile_left_out": round(float(reference.distances[95]), 4),
                "sections": rows,
                "slides": others,
            }
        found[view] = part
    return found


# Cost


class StandIn:
    """An engine that takes 3,000 tiles/s and computes nothing."""

    def __init__(self, bundle: Bundle, batch: int) -> None:
        self.info = EngineInfo("stand-in", "1", "none", "fp32", "asked for")
        self.max_batch = batch
        self._widths = bundle.widths

    def run(self, tiles: Tiles) -> EngineOutput:
        return next(iter(self.stream([tiles])))

    def stream(self, batches: Iterable[Tiles]) -> Iterator[EngineOutput]:
        """The device is busy for its time after each batch was handed over, as a GPU is, while the host goes on."""
        free_at = time.perf_counter()
        for tiles in batches:
            free_at = max(free_at, time.perf_counter()) + len(tiles) / STAND_IN_TILES_PER_S
            time.sleep(max(0.0, free_at - time.perf_counter() - len(tiles) / STAND_IN_TILES_PER_S))
            zeros = [np.zeros((len(tiles), width), np.float32) for width in self._widths.values()]
            yield EngineOutput(*zeros)
        time.sleep(max(0.0, free_at - time.perf_counter()))

    def close(self) -> None:
        pass


def big_slide(path: Path, data: Path, side: int) -> Path:
    """A 20x slide of `side` px whose storage tiles repeat those of a her2st section: quick to write, real to decode."""
    source = np.asarray(Image.open(data / "st" / "her2st" / "C2_HE.jpg").convert("RGB"))[2000:6096, 2000:6096]
    streams = []
    for y in range(0, len(source), 256):
        for x in range(0, len(source), 256):
            stream = io.BytesIO()
            Image.fromarray(source[y : y + 256, x : x + 256]).save(stream, "JPEG", quality=80, subsampling=2)
            streams.append(stream.getvalue())
    count = (side // 256) ** 2
    tifffile.imwrite(
        path,
        (streams[place % len(streams)] for place in range(count)),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(256, 256),
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
        description=f"Aperio Image Library v12.0.0\n{side}x{side}|AppMag = 20|MPP = 0.5",
        metadata=None,
    )
    return path


def cost(data: Path, quick: bool) -> dict[str, Any]:
    """Seconds with and without a reference, in turns, and the share of the run that measuring took."""
    from support.bundle_factory import make_bundle

    found: dict[str, Any] = {}
    known = fit_reference(
        ReferenceTiles((cut(data, "C2", NATIVE_MPP, 224), cut(data, "C3", NATIVE_MPP, 224)), "section"), 0.5
    )
    with tempfile.TemporaryDirectory(prefix="bench-trust-") as scratch:
        with_reference = load_bundle(make_bundle(Path(scratch, "with"), tile_px=224, trust=known.to_json()))
        without = load_bundle(make_bundle(Path(scratch, "without"), tile_px=224))
        sides = {"stand-in": 4096 if quick else 16_384, "onnxruntime": 2048}
        for name, side in sides.items():
            slide = big_slide(Path(scratch, f"{name}.svs"), data, side)
            options = InferOptions(
                engine="onnxruntime", all_tiles=True, writers=("json", "hdf5", "report"), overwrite=True
            )
            engine: Any = (
                StandIn(with_reference, options.batch)
                if name == "stand-in"
                else load_engine(with_reference, "onnxruntime", batch=options.batch)
            )
            seconds: dict[str, list[float]] = {"with": [], "without": []}
            shares, result = [], None
            for _ in range(1 if quick else 4):
                for way, loaded in (("with", with_reference), ("without", without)):
                    clock = time.perf_counter()
                    result = infer_slide(slide, loaded, Path(scratch, "out"), options, engine=engine)
                    seconds[way].append(time.perf_counter() - clock)
                    if way == "with":
                        shares.append(result.timing["trust"] / seconds[way][-1])
            assert result is not None
            medians = {way: statistics.median(values) for way, values in seconds.items()}
            found[name] = {
                "tiles": len(result.coords),
                "tile_px": with_reference.tile_px,
                "seconds_with": round(medians["with"], 3),
                "seconds_without": round(medians["without"], 3),
                "spread_with": [round(min(seconds["with"]), 3), round(max(seconds["with"]), 3)],
                "spread_without": [round(min(seconds["without"]), 3), round(max(seconds["without"]), 3)],
                "difference": round(medians["with"] / medians["without"] - 1, 4),
                "measuring_share": round(statistics.median(shares), 4),
                "measuring_share_most": round(max(shares), 4),
            }
    found["microseconds_per_tile"] = round(1e6 * _seconds_per_tile(with_reference.tile_px), 1)
    return found


def _seconds_per_tile(side: int) -> float:
    """Processor seconds for one tile, the least of some rounds."""
    tiles = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)
    rounds = []
    for _ in range(15):
        clock = time.process_time()
        measure_tiles(tiles)
        rounds.append((time.process_time() - clock) / len(tiles))
    return min(rounds)


# Results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Folder with st/her2st, slides/ and formats/.")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    record: dict[str, Any] = {"power": power(given.data, given.quick), "cost": cost(given.data, given.quick)}
    text = to_text(record, "\n\n".join((__doc__ or "").split("\n\n")[2:4]).strip())
    print(text)
    if not given.quick:
        keep("trust", record, text)


if __name__ == "__main__":
    main()
