"""How fast a slide goes through each stage on this machine, which stage limits, and what to set.

Tiling is measured alone (tiles are decoded and dropped), the engine alone (tiles of the slide, kept in
memory), and then the whole flow. Overlapped, the flow should take as long as the slower of the two.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, load_bundle
from ..config import InferOptions
from ..errors import SlideError
from ..grid import TileSet, make_grid
from ..slide import Slide, open_slide
from ..system.processor import usable_cores
from ..tiles import TileStatus, open_tiles
from ..tissue import TissueRule
from ..where import find_where
from .bench_report import BenchReport, Rate, Stage

BATCHES = (1, 4, 8, 16, 32, 64, 128)
NEAR_BEST = 0.95
"""The smallest setting that reaches this share of the best rate is recommended."""


def run_bench(
    slide_path: Path,
    bundle_path: Path,
    options: InferOptions,
    *,
    seconds: float = 30.0,
    max_tiles: int = 4096,
    repeats: int = 3,
    compare: str | None = None,
    require_signature: Path | None = None,
) -> BenchReport:
    """Measure one slide.

    Parameters
    ----------
    slide_path, bundle_path : Path
        What to measure with.
    options : InferOptions
        Engine, precision, exact; its batch and threads are swept.
    seconds : float
        About how long to measure in all.
    max_tiles : int
        Tiles of the slide used; a contiguous run from the middle.
    repeats : int
        Repeats of each measurement, interleaved.
    compare : str, optional
        "openslide": also the usual way (read_region at the best level, resize with PIL) on the same tiles.
    require_signature : Path, optional
        Public key that must have signed the bundle.

    Raises
    ------
    SlideError
        The slide shows no tissue, or cannot be read.
    """
    bundle = load_bundle(bundle_path, require_signature=require_signature, adapter=options.adapter)
    cores = usable_cores()
    with open_slide(slide_path, mpp=options.mpp, accept=bundle.trained_on, icc=options.icc or bundle.icc) as slide:
        tiles = _tiles_of(slide, bundle, options, max_tiles)
        budget = seconds / 4
        sample, plan = _sample(slide, tiles, options)
        threads = sorted({1, 2, cores // 2, cores} - {0})
        tiling = _sweep(
            [t for t in threads if t <= cores],
            lambda t: _tile_rate(slide, tiles, replace(options, threads=t)),
            budget,
            repeats,
        )
        engine_rates, engine_name = _engine_rates(bundle, options, sample, budget, repeats)
        best_tiling = max(rate.tiles_per_s for rate in tiling)
        batch = _recommend(engine_rates)
        best_engine = next(rate.tiles_per_s for rate in engine_rates if rate.setting == batch)
        # Enough threads to stay ahead of the engine by a quarter; the cores left over are the engine's.
        enough = [r.setting for r in tiling if r.tiles_per_s >= 1.25 * best_engine]
        chosen = min(enough) if enough else _recommend(tiling)
        compared = _compare_openslide(slide, tiles, budget) if compare == "openslide" else {}
        if compared:
            one = next(rate.tiles_per_s for rate in tiling if rate.setting == 1)
            compared["times_openslide"] = one / compared["openslide_pil_tiles_per_s"]
        route, name = slide.route.name, slide_path.name
    flow = _flow(slide_path, bundle, replace(options, batch=batch, threads=chosen))
    limiting, why = _limiting(best_tiling, best_engine, flow)
    return BenchReport(
        slide=name,
        route=route,
        plan=plan,
        engine=engine_name,
        cores=cores,
        tiles=len(tiles),
        tiling=tuple(tiling),
        engine_rates=tuple(engine_rates),
        stages=_stages(flow, chosen),
        flow_tiles=int(flow["tiles"]),
        flow_s=round(flow["whole"], 3),
        flow_tiles_per_s=round(flow["tiles"] / flow["whole"], 2),
        limiting=limiting,
        limiting_why=why,
        recommended_threads=chosen,
        recommended_batch=batch,
        compare={key: round(value, 2) for key, value in compared.items()},
    )


def _tiles_of(slide: Slide, bundle: Bundle, options: InferOptions, most: int) -> TileSet:
    grid = make_grid(slide, target_mpp=bundle.mpp, tile_px=bundle.tile_px)
    rule = TissueRule.from_dict(bundle.tissue)
    whole = find_where(slide, grid, rule, options).tiles
    first = max(0, (len(whole) - most) // 2)
    return whole.part(slice(first, first + most))


def _sample(slide: Slide, tiles: TileSet, options: InferOptions) -> tuple[NDArray[np.uint8], str]:
    """Up to 128 readable tiles of the slide, uint8 [N, T, T, 3], and how they were read."""
    with open_tiles(slide, tiles, batch=32, threads=options.threads, exact=options.exact) as source:
        kept: list[NDArray[np.uint8]] = []
        for batch in source:
            kept.append(batch.pixels[batch.status == TileStatus.OK].copy())
            if sum(map(len, kept)) >= max(BATCHES):
                break
        plan = f"level {source.plan.level}, JPEG scale 1/{source.plan.dct_scale}"
    pixels = np.concatenate(kept)[: max(BATCHES)]
    if len(pixels) == 0:
        raise SlideError("no tile of the slide can be read", path=slide.path)
    return pixels, plan


def _tile_rate(slide: Slide, tiles: TileSet, options: InferOptions) -> float:
    clock = time.perf_counter()
    with open_tiles(slide, tiles, batch=32, threads=options.threads, exact=options.exact) as source:
        seen = sum(len(batch.index) for batch in source)
    return seen / (time.perf_counter() - clock)


def _sweep(settings: Sequence[int], measure: Any, budget_s: float, repeats: int) -> list[Rate]:
    """Measure each setting ``repeats`` times, interleaved, for about ``budget_s`` in all (once at least)."""
    rates: dict[int, list[float]] = {setting: [] for setting in settings}
    started = time.perf_counter()
    for _ in range(repeats):
        for setting in settings:
            if not rates[setting] or time.perf_counter() - started < budget_s:
                rates[setting].append(float(measure(setting)))
    return [Rate(s, round(float(np.median(r)), 2), round(max(r) - min(r), 2)) for s, r in rates.items()]


def _engine_rates(
    bundle: Bundle, options: InferOptions, sample: NDArray[np.uint8], budget_s: float, repeats: int
) -> tuple[list[Rate], str]:
    from ..infer import engine_for

    engine = engine_for(bundle, replace(options, batch=max(BATCHES)))
    try:
        slot = budget_s / (len(BATCHES) * repeats)

        def measure(batch: int) -> float:
            pixels = np.ascontiguousarray(np.resize(sample, (batch, *sample.shape[1:])))
            seen, clock = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - clock) < slot or not seen:
                engine.run(pixels)
                seen += batch
            return seen / max(elapsed, time.perf_counter() - clock)

        engine.run(np.ascontiguousarray(sample[:1]))  # the first run allocates
        info = engine.info
        return _sweep(BATCHES, measure, 2 * budget_s, repeats), (
            f"{info.name} {info.version} {info.precision} on {info.device}"
        )
    finally:
        engine.close()


def _recommend(rates: Sequence[Rate]) -> int:
    """The smallest setting within 5 % of the best."""
    best = max(rate.tiles_per_s for rate in rates)
    return min(rate.setting for rate in rates if rate.tiles_per_s >= NEAR_BEST * best)


def _flow(path: Path, bundle: Bundle, options: InferOptions) -> dict[str, float]:
    """Seconds by stage of the whole flow, written to a temporary folder; "tiles" and "whole" beside them."""
    from ..infer import conclude, engine_for, write
    from ..prepare import prepare
    from ..score import score

    engine = engine_for(bundle, options)
    try:
        with tempfile.TemporaryDirectory(prefix="stamp-bench-") as folder:
            clock = time.perf_counter()
            prepared = prepare(path, bundle, options)
            try:
                result = conclude(prepared, score(prepared, engine))
            finally:
                prepared.close()
            scored = time.perf_counter()
            write(result, Path(folder) / "result", options)
            done = time.perf_counter()
    finally:
        engine.close()
    return {**result.timing, "write": done - scored, "tiles": result.tiles.seen, "whole": done - clock}


STAGES = (
    ("open, tissue", "open_and_tissue", "opening, finding tissue, thumbnail"),
    ("read", "tiler_read", "bytes from the disk"),
    ("decode", "tiler_decode", "JPEG and the like to pixels"),
    ("resample", "tiler_resample", "to the model's resolution"),
    ("engine", "engine", "embeddings and scores"),
    ("heads", "heads", "slide-level calls and their intervals"),
    ("write", "write", "the output formats"),
)
"""Stages of the flow: name, key in ``Result.timing``, and what it is in words."""


def _stages(flow: dict[str, float], threads: int) -> tuple[Stage, ...]:
    found = []
    for name, key, what in STAGES:
        seconds, used = flow.get(key, 0.0), threads if key.startswith("tiler_") else 1
        rate = flow["tiles"] * used / seconds if seconds > 0 else 0.0
        found.append(Stage(name, round(seconds, 4), used, round(rate, 1), what))
    return tuple(found)


def _limiting(tiling: float, engine: float, flow: dict[str, float]) -> tuple[str, str]:
    reader = {name: flow.get(f"tiler_{name}", 0.0) for name in ("read", "decode", "resample")}
    busiest = max(reader, key=lambda name: reader[name])
    busy = flow.get("stream", 0.0)
    if flow["write"] > max(busy, flow.get("open_and_tissue", 0.0)):
        return "write", (
            f"writing takes {flow['write']:.2f} s, tiles and engine together {busy:.2f} s; --write names fewer formats"
        )
    if flow.get("open_and_tissue", 0.0) > busy:
        return "open, tissue", (
            f"opening the slide and finding tissue takes {flow['open_and_tissue']:.2f} s, "
            f"tiles and engine {busy:.2f} s: the slide is small"
        )
    if tiling < engine:
        return busiest, f"tiling alone reaches {tiling:.0f} tiles/s, the engine alone {engine:.0f}"
    return "engine", f"the engine alone reaches {engine:.0f} tiles/s, tiling alone {tiling:.0f}"


def _compare_openslide(slide: Slide, tiles: TileSet, budget_s: float) -> dict[str, float]:
    """The usual way on the same tiles: read_region at the best level not coarser, resize with PIL."""
    import openslide
    from PIL import Image

    tile_px, span = tiles.grid.tile_px, (tiles.grid.span_x, tiles.grid.span_y)
    with openslide.OpenSlide(str(slide.path)) as opened:
        level = opened.get_best_level_for_downsample(max(span) / tile_px * 1.001)
        down = opened.level_downsamples[level]
        size = (max(1, round(span[0] / down)), max(1, round(span[1] / down)))
        seen, clock = 0, time.perf_counter()
        for x, y in tiles.coords.tolist():
            region = opened.read_region((x, y), level, size).convert("RGB")
            if size != (tile_px, tile_px):
                region = region.resize((tile_px, tile_px), Image.Resampling.BILINEAR)
            np.asarray(region)
            seen += 1
            if time.perf_counter() - clock > budget_s:
                break
    return {"openslide_pil_tiles_per_s": seen / (time.perf_counter() - clock)}
