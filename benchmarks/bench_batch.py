"""Batches measured: overlap across slides, memory over many slides, and writing GeoJSON.

    python benchmarks/bench_batch.py [--quick] [--only heat-maps] [--json FILE] [--markdown FILE]

1. Overlap: a batch of make_wsi slides against tiling alone and the engine alone, all in one run, interleaved.
   The engine is a stand-in for a device that takes its time without using the CPU (device_worker.py), at 0.5,
   1 and 2 times the tiling rate; with --cpu-bundle DIR also a real one. Start-up (imports, plan, loading the
   engine) is once a batch and is shown by itself.
2. Memory: resident memory of the worker after each of many small slides.
3. GeoJSON: a result of 20,000 tiles written.
4. Heat maps: 50 pathways and their overview sheets written, beside the same 50 maps drawn by matplotlib, interleaved.

A full run writes results/batch.json and results/batch.md where no other files are named; with --only one part is
measured and put into the results that are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from batch_table import markdown
from real_slides import make_slide
from result_files import RESULTS, keep, written_by
from support.bundle_factory import make_bundle
from support.result_factory import make_result
from support.slide_factory import texture, write_slide

from stamp_deploy.batch.options import BatchOptions
from stamp_deploy.batch.planning.plan import Finding, Plan
from stamp_deploy.batch.run import run_batch
from stamp_deploy.batch.states import PlanState
from stamp_deploy.batch.workers.local import LocalExecutor
from stamp_deploy.batch.workers.process import WorkerConfig
from stamp_deploy.batch.workers.tasks import Settled
from stamp_deploy.bundle import load_bundle
from stamp_deploy.checks.acceptance import machine
from stamp_deploy.config import InferOptions
from stamp_deploy.prepare import prepare

DEVICE = (sys.executable, str(Path(__file__).with_name("device_worker.py")))
WRITERS = ("json", "hdf5", "parquet")


class Watchful:
    """A view that notes when things happen, and the worker's memory after each slide."""

    def __init__(self) -> None:
        self.first_progress = 0.0
        self.last_settled = 0.0
        self.rss: list[int] = []
        self.states: list[str] = []
        self.reasons: list[str] = []

    def planning(self, done: int, total: int) -> None:
        pass

    def tell(self, finding: Finding) -> None:
        pass

    def planned(self, plan: Plan) -> None:
        assert not plan.of_state(PlanState.BAD), plan.findings

    def progress(self, key: str, done: int, total: int) -> None:
        pass

    def settled(self, settled: Settled, path: Path) -> None:
        self.last_settled = time.perf_counter()
        self.states.append(settled.state)
        self.reasons.append(settled.reason)
        self.rss.append(settled.summary.get("rss", 0))

    def finished(self, report: dict[str, Any]) -> None:
        self.report = report

    def close(self) -> None:
        pass


class ReadyExecutor(LocalExecutor):
    """Notes when the first worker has loaded its engine: the end of start-up."""

    ready_at = 0.0

    def run(self, source: Any, listener: Any) -> None:
        supervisor = self._supervisors[0]
        original: Any = supervisor._start

        def start(*arguments: Any) -> None:
            original(*arguments)
            self.ready_at = self.ready_at or time.perf_counter()

        supervisor._start = start  # type: ignore[assignment, method-assign]
        super().run(source, listener)


def large_slides(folder: Path, count: int, tiles: str) -> list[Path]:
    """Slides that differ in which of their storage tiles hold tissue."""
    return [make_slide(folder / f"slide{seed}.svs", tiles, recode="420", seed=seed) for seed in range(count)]


def copies(folder: Path, count: int, tiles: str) -> list[Path]:
    """One large slide and copies of it, told apart by bytes after its end."""
    (first,) = large_slides(folder, 1, tiles)
    paths = [first]
    for number in range(1, count):
        paths.append(folder / f"copy{number}.svs")
        shutil.copyfile(first, paths[-1])
        with paths[-1].open("ab") as file:
            file.write(b"copy %d" % number)
    return paths


def tiling_alone(slides: list[Path], bundle: Path, options: InferOptions) -> tuple[float, int]:
    """(seconds, tiles): every slide opened, its tissue found, its tiles read and dropped."""
    loaded, seen, clock = load_bundle(bundle), 0, time.perf_counter()
    for slide in slides:
        prepared = prepare(slide, loaded, options)
        seen += sum(len(batch.index) for batch in prepared.source)
        prepared.close()
    return time.perf_counter() - clock, seen


def batch_run(
    slides: list[Path], bundle: Path, out: Path, options: InferOptions, rate: float | None
) -> dict[str, float]:
    """Seconds of a whole batch, and without start-up."""
    view, clock = Watchful(), time.perf_counter()
    made: list[ReadyExecutor] = []

    def executor(chosen: BatchOptions) -> LocalExecutor:
        config = {**chosen.worker_config(), "device_tiles_per_s": rate}
        made.append(ReadyExecutor([WorkerConfig(config, chosen.state / "worker.log", command=DEVICE)]))
        return made[0]

    code = run_batch(slides, BatchOptions(bundle, out, options), view, executor=executor)
    end = time.perf_counter()
    assert code == 0 and view.states == ["done"] * len(slides), (code, view.states, view.reasons)
    shutil.rmtree(out)
    return {"whole": end - clock, "startup": made[0].ready_at - clock, "steady": end - made[0].ready_at}


def overlap(folder: Path, quick: bool, cpu_bundle: Path | None) -> dict[str, Any]:
    """Ratios of batch time to the slower of tiling and engine, interleaved repeats."""
    slides = copies(folder, 8, "200x160") if quick else large_slides(folder, 10, "200x160")
    bundle = make_bundle(folder / "bundle224", tile_px=224)
    options = InferOptions(batch=32, writers=WRITERS)
    repeats = 1 if quick else 3
    tiling_alone(slides[:1], bundle, options)  # warm: page cache, imports
    rows = []
    seconds, tiles = tiling_alone(slides, bundle, options)
    tiling_runs = [seconds]
    factors = (1.0,) if quick else (0.5, 1.0, 2.0)
    rates = {factor: factor * tiles / seconds for factor in factors}
    for _ in range(repeats):
        if not quick:
            tiling_runs.append(tiling_alone(slides, bundle, options)[0])
        for factor, rate in rates.items():
            rows.append((factor, batch_run(slides, bundle, folder / "out", options, rate)))
    alone = statistics.median(tiling_runs)
    table = []
    for factor, rate in rates.items():
        engine = tiles / rate
        slower = max(alone, engine)
        mine = [row for f, row in rows if f == factor]
        steady = [row["steady"] / slower for row in mine]
        table.append(
            {
                "device_over_tiling_rate": factor,
                "tiling_alone_s": round(alone, 3),
                "engine_alone_s": round(engine, 3),
                "batch_s": round(statistics.median(row["steady"] for row in mine), 3),
                "startup_s": round(statistics.median(row["startup"] for row in mine), 3),
                "ratio": round(statistics.median(steady), 4),
                "ratio_spread": round(max(steady) - min(steady), 4),
                "ratio_with_startup": round(statistics.median(row["whole"] for row in mine) / slower, 4),
            }
        )
    found: dict[str, Any] = {
        "slides": len(slides),
        "tiles": tiles,
        "tiling_spread_s": round(max(tiling_runs) - min(tiling_runs), 3),
    }
    found["table"] = table
    if cpu_bundle is not None:
        found["cpu"] = cpu_overlap(slides[:2], cpu_bundle, folder)
    return found


def cpu_overlap(slides: list[Path], bundle: Path, folder: Path) -> dict[str, float]:
    """The same with a real engine on the CPU, which tiling has to share with it."""
    from stamp_deploy.engine import load_engine

    options = InferOptions(batch=16, writers=WRITERS)
    tiling, tiles = tiling_alone(slides, bundle, options)
    loaded = load_bundle(bundle)
    engine = load_engine(loaded, batch=16)
    prepared = prepare(slides[0], loaded, options)
    pixels = next(iter(prepared.source)).pixels[:16].copy()
    prepared.close()
    engine.run(pixels)
    clock = time.perf_counter()
    for _ in range(0, tiles, 16):
        engine.run(pixels)
    alone = time.perf_counter() - clock
    engine.close()
    row = batch_run(slides, bundle, folder / "out-cpu", options, None)
    slower = max(tiling, alone)
    return {
        "tiles": tiles, "tiling_alone_s": round(tiling, 2), "engine_alone_s": round(alone, 2),
        "batch_s": round(row["steady"], 2), "ratio": round(row["steady"] / slower, 4),
        "ratio_with_startup": round(row["whole"] / slower, 4),
    }  # fmt: skip


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Growth of the worker's memory over many small slides: last tenth against first tenth."""
    slides = folder / "small"
    slides.mkdir()
    paths = [write_slide(slides / f"s{i:03}.tif", texture(768, 768, seed=i)) for i in range(count)]
    bundle = make_bundle(folder / "bundle64")
    view = Watchful()
    options = BatchOptions(bundle, folder / "out-small", InferOptions(writers=WRITERS), devices="cpu")
    clock = time.perf_counter()
    code = run_batch(paths, options, view)
    assert code == 0, code
    tenth = max(1, count // 10)
    first, last = statistics.mean(view.rss[:tenth]), statistics.mean(view.rss[-tenth:])
    return {
        "slides": count,
        "seconds": round(time.perf_counter() - clock, 1),
        "first_tenth_mb": round(first / 1e6, 1),
        "last_tenth_mb": round(last / 1e6, 1),
        "peak_mb": round(max(view.rss) / 1e6, 1),
        "growth": round(last / first - 1, 4),
    }


def geojson(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to write 20,000 tiles with six pathways as GeoJSON."""
    from stamp_deploy.writers import write_all

    result = make_result(20_000, pathways=6)
    times, size = [], 0
    for i in range(repeats):
        target = folder / f"geojson{i}"
        target.mkdir()
        clock = time.perf_counter()
        paths = write_all(result, target, ("geojson",))
        times.append(time.perf_counter() - clock)
        size = sum(path.stat().st_size for path in paths)
    return {
        "tiles": 20_000, "pathways": 6, "seconds": round(statistics.median(times), 3),
        "spread": round(max(times) - min(times), 3), "bytes": size,
    }  # fmt: skip


def heat_maps(folder: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds for the pictures of 50 pathways: as written, and each map as one matplotlib figure."""
    from stamp_deploy.writers import write_all

    result = make_result(5000, pathways=50, thumbnail_px=2048)
    ours, usual, size = [], [], 0
    for i in range(repeats + 1):  # the first round warms up: imports, fonts
        target = folder / f"maps{i}"
        target.mkdir()
        clock = time.process_time()
        paths = write_all(result, target, ("heatmaps",))
        ours.append(time.process_time() - clock)
        size = sum(path.stat().st_size for path in paths)
        clock = time.process_time()
        for index in range(len(result.pathway_names)):
            matplotlib_map(result, index, target / "map.png")
        usual.append(time.process_time() - clock)
    ratios = [b / a for a, b in zip(ours[1:], usual[1:], strict=True)]
    return {
        "pathways": 50, "tiles": 5000, "cpu_s": round(statistics.median(ours[1:]), 2),
        "spread": round(max(ours[1:]) - min(ours[1:]), 2), "matplotlib_cpu_s": round(statistics.median(usual[1:]), 2),
        "ratio": round(statistics.median(ratios), 1), "bytes": size,
    }  # fmt: skip


def matplotlib_map(result: Any, index: int, path: Path) -> None:
    """One map the usual way: a figure with title, picture, colour bar and footer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    from stamp_deploy.writers.picture import blend, make_view, result_styles

    view = make_view(result)
    style = result_styles(result)[index]
    low, high = style.low, style.high
    figure = Figure(figsize=(12, 10), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.03, 0.1, 0.8, 0.8))
    axes.imshow(blend(result, view, result.pathways[:, index], low, high))
    axes.set_axis_off()
    figure.text(0.03, 0.95, result.pathway_names[index], fontsize=19)
    figure.text(0.03, 0.03, result.slide.name, fontsize=10)
    bar = figure.add_axes((0.86, 0.5, 0.02, 0.4))
    figure.colorbar(ScalarMappable(Normalize(low, high), "viridis"), cax=bar, extend="both", label=result.score_unit)
    canvas.print_png(str(path), pil_kwargs={"compress_level": 3})  # type: ignore[no-untyped-call]


def only_heat_maps() -> None:
    """Measure the heat maps and put them into the results of an earlier run."""
    found = json.loads((RESULTS / "batch.json").read_text())
    with tempfile.TemporaryDirectory(prefix="stamp-bench-batch-") as name:
        found["parts"]["heat_maps"] = {**heat_maps(Path(name), 5), "written_by": written_by()}
    found["heat_maps_50_cpu_s"] = found["parts"]["heat_maps"]["cpu_s"]
    keep("batch", found, markdown(found))  # the other figures stay those of the run that wrote them
    print(json.dumps(found["parts"]["heat_maps"], indent=2))


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, under 50 s")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--cpu-bundle", type=Path, help="also overlap a real CPU engine of this bundle")
    parser.add_argument("--only", choices=["heat-maps"], help="measure this part and put it into the results")
    chosen = parser.parse_args()
    if chosen.only:
        only_heat_maps()
        return
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="stamp-bench-batch-") as name:
        folder = Path(name)
        parts["overlap"] = overlap(folder, chosen.quick, chosen.cpu_bundle)
        parts["memory"] = memory(folder, 50 if chosen.quick else 200)
        parts["geojson"] = geojson(folder, 1 if chosen.quick else 5)
        parts["heat_maps"] = heat_maps(folder, 1 if chosen.quick else 5)
    worst = max(parts["overlap"]["table"], key=lambda row: row["ratio"])
    found = {
        "e2e_over_slowest_stage": worst["ratio"],
        "e2e_over_slowest_stage_spread": worst["ratio_spread"],
        "rss_growth_fraction": parts["memory"]["growth"],
        "geojson_20k_s": parts["geojson"]["seconds"],
        "geojson_20k_s_spread": parts["geojson"]["spread"],
        "heat_maps_50_cpu_s": parts["heat_maps"]["cpu_s"],
        "quick": chosen.quick,
        "machine": "{processor}, {cores} cores".format_map(machine()),
        "parts": parts,
    }
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    if chosen.markdown is not None:
        chosen.markdown.write_text(markdown(found))
    if not chosen.quick:
        keep("batch", found, markdown(found))
    print(json.dumps({key: value for key, value in found.items() if key != "parts"}, indent=2))


if __name__ == "__main__":
    main()
