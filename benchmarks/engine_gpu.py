"""Engines on a GPU against torch, one model or several, within a time that is stated.

    python benchmarks/engine_gpu.py --model ViT-L/16 --engine onnxruntime-cuda --minutes 8
    python benchmarks/engine_gpu.py --device cpu --model tiny --seconds 0.2      a dry run, without a GPU

Fair means: torch in `.half()` with scaled_dot_product_attention and CUDA graphs, eager and compiled; the same tiles go
in from page-locked memory and the same outputs come back for everybody, two batches under way; operations are those
of the exported graph, so that rows which nobody reads are no work; the peak is what the card sustains over seconds of
products. When the time is used up the row that is being measured ends with its batch and says so; what the time does
not allow is named, not left out. `bench_engine.py` runs the same on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from engine_models import make_bundle, random_model, scratch, tissue_tiles
from numpy.typing import NDArray
from real_slides import DATA, SMALL_REGION
from result_files import keep
from torch_contenders import HalfEncoder, Measured, TorchContender, cosine_min, sustained_peak

from stamp_deploy.bundle import Bundle
from stamp_deploy.checks.acceptance import machine
from stamp_deploy.config import InferOptions
from stamp_deploy.engine import Engine, load_engine, open_engine
from stamp_deploy.engine.cuda import visible_gpus
from stamp_deploy.engine.golden import check_engine, load_golden
from stamp_deploy.engine.graph_rewriting import fix_batch
from stamp_deploy.errors import StampError
from stamp_deploy.infer import conclude
from stamp_deploy.prepare import prepare
from stamp_deploy.score import score

MODELS = {"ViT-S/16": "lunit-vits16", "ViT-L/16": "uni", "ViT-H/14": "virchow", "tiny": "demo-vit"}
GPU_MODELS = ("ViT-S/16", "ViT-L/16", "ViT-H/14")
BATCHES = (16, 64, 256)
ENGINES = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
RIVALS = ("torch eager", "torch.compile")
MINUTES = 8.0
SECONDS = 3.0
PARITY_TILES = 32
PEAK_SIDE = {"cuda": 8192, "cpu": 256}
PEAK_SECONDS = 6.0


@dataclass
class Plan:
    """What is to be measured, and until when.

    Attributes
    ----------
    device : str
        "cuda", or "cpu" for a dry run: torch on the CPU, and ONNX Runtime there in the place of the GPU's engines.
    seconds : float
        Of measuring, for each row.
    until : float
        time.perf_counter() after which no batch is begun, but for the first of a row whose engine is ready.
    """

    models: Sequence[str] = GPU_MODELS
    engines: Sequence[str] = (*ENGINES, *RIVALS)
    batches: Sequence[int] = BATCHES
    device: str = "cuda"
    seconds: float = SECONDS
    until: float = field(default_factory=lambda: time.perf_counter() + 60 * MINUTES)

    def left(self) -> float:
        """Seconds that are left; 0 where the time is used up."""
        return max(0.0, self.until - time.perf_counter())

    def late(self) -> bool:
        """Whether the time is used up."""
        return self.left() == 0.0


LATE = {"not_run": "the time was used up"}
LATE_ALREADY = {"not_run": "the time was used up when it was ready to be measured"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="repeatable; all but tiny by default")
    parser.add_argument("--engine", action="append", choices=(*ENGINES, *RIVALS, "onnxruntime"), help="repeatable")
    parser.add_argument("--batch", action="append", type=int, help="repeatable; 16, 64 and 256 by default")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop measuring after so long")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of measuring, for each row")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is a dry run")
    parser.add_argument("--slide", type=Path, help="a slide for the whole-slide part")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    dry = given.device == "cpu"
    plan = Plan(
        given.model or (("tiny",) if dry else GPU_MODELS),
        given.engine or (("onnxruntime",) if dry else ENGINES) + RIVALS,
        given.batch or ((4,) if dry else BATCHES),
        given.device,
        given.seconds,
        time.perf_counter() + 60 * given.minutes,
    )
    with scratch() as folder:
        record = {"machine": machine(), **gpu_section(Path(folder), plan, given.slide)}
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")
    if record["run"] and not dry:
        keep("engine_gpu", record, report(record))
    print(report(record))


def gpu_section(folder: Path, plan: Plan, slide: Path | None = None) -> dict[str, Any]:
    """Everything below, or the reason why not."""
    gpus = visible_gpus()
    if plan.device == "cuda" and not gpus:
        return {"run": False, "why": "no GPU can be seen on this machine"}
    names = [f"{gpu.name}, compute {gpu.capability}, driver CUDA {gpu.driver}" for gpu in gpus[:1]]
    side, seconds = PEAK_SIDE[plan.device], min(PEAK_SECONDS, 2 * plan.seconds, plan.left() / 4)
    peak = sustained_peak(plan.device, torch.float16 if plan.device == "cuda" else torch.float32, side, seconds)
    found: dict[str, Any] = {
        "run": True,
        "device": names[0] if plan.device == "cuda" else "the CPU: a dry run, no figure of a GPU",
        "sustained_peak_tflops": round(peak / 1e12, 4),
        "models": {},
    }
    bundle: Bundle | None = None
    for label in plan.models:
        if plan.late():
            found["models"][label] = dict(LATE)
            continue
        bundle, found["models"][label] = model_rows(folder, plan, label, peak)
    if plan.device == "cuda":  # with the last model that was measured
        found["whole_slide"] = dict(LATE) if bundle is None or plan.late() else whole_slide(bundle, slide, plan)
    return found


def model_rows(folder: Path, plan: Plan, label: str, peak: float) -> tuple[Bundle, dict[str, Any]]:
    """Every engine and rival with one model, and its bundle."""
    model, pfm = random_model(MODELS[label])
    tiles, _ = tissue_tiles(PARITY_TILES, pfm.tile_px, quick=True)
    bundle = make_bundle(model, pfm, tiles, folder / f"gpu-{MODELS[label]}")
    flops = flops_of_graph(bundle.encoder)
    rows: dict[str, Any] = {}
    for name in plan.engines:
        if name not in RIVALS:
            rows |= engine_rows(bundle, plan, name, tiles)
    encoder = HalfEncoder(model, pfm.mean, pfm.std).eval().to(plan.device)
    for name in plan.engines:
        if name in RIVALS:
            rows |= rival_rows(encoder, bundle, plan, name, tiles)
    for row in rows.values():
        if "tiles_per_second" in row:
            row["share_of_peak"] = round(row["tiles_per_second"] * flops / peak, 3)
    del model, encoder
    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    return bundle, {"gflop_per_tile": round(flops / 1e9, 3), "rows": rows}


def flops_of_graph(path: Path) -> float:
    """Floating-point operations of one tile in an exported graph's products (a multiply-add is two)."""
    model = onnx.load(path)
    fix_batch(model, 1)
    known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*known.value_info, *known.output, *known.input)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in known.initializer}
    total = 0
    for node in known.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        out, weight = shapes[node.output[0]], shapes[node.input[1]]
        summed = int(np.prod(weight[1:])) if node.op_type == "Conv" else shapes[node.input[0]][-1]
        total += 2 * int(np.prod(out)) * summed
    return float(total)


def engine_rows(bundle: Bundle, plan: Plan, name: str, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """tiles/s of an engine at each batch, copies included, with its parity; or what the engine says."""
    rows: dict[str, Any] = {}
    precision = "fp16" if name in ENGINES else "fp32"
    for batch in plan.batches:
        key = f"{name} {precision}, batch {batch}"
        if plan.late():
            rows[key] = dict(LATE)
            continue
        try:
            engine = open_engine(bundle, name, batch=batch, precision=precision)
        except StampError as error:
            rows[key] = {"not_run": error.cause}
            break
        try:
            if plan.late():  # to build or to load it took the rest
                rows[key] = dict(LATE_ALREADY)
                continue
            report = check_engine(bundle, engine)
            rows[key] = {
                **speed_facts(stream_speed(engine, tiles, batch, plan.seconds, plan.until), plan),
                "parity": "pass" if report else "; ".join(report.failures),
                "cosine_min": report.metrics["cosine_min"],
                "spearman_min": report.metrics["spearman_min"],
                "details": engine.info.details,
            }
        except StampError as error:
            rows[key] = {"not_run": error.cause}
        finally:
            engine.close()
    return rows


def stream_speed(
    engine: Engine,
    tiles: NDArray[np.uint8],
    batch: int,
    seconds: float = SECONDS,
    until: float = float("inf"),
) -> Measured:
    """Tiles/s of a stream of full batches of host memory, after a warm-up; after `until` no batch but the first."""
    full = np.ascontiguousarray(np.resize(tiles, (batch, *tiles.shape[1:])))
    list(engine.stream(full for step in range(3) if step == 0 or time.perf_counter() < until))
    count, start = 0, time.perf_counter()
    stop = min(start + seconds, until)

    def batches() -> Iterator[NDArray[np.uint8]]:
        nonlocal count
        while count == 0 or time.perf_counter() < stop:
            count += batch
            yield full

    for _ in engine.stream(batches()):
        pass
    taken = time.perf_counter() - start
    return Measured(count / taken, taken, until < start + seconds)


def speed_facts(measured: Measured, plan: Plan) -> dict[str, Any]:
    """A row's speed, and that the time cut its measurement short where it did."""
    facts: dict[str, Any] = {"tiles_per_second": round(measured.tiles_per_second, 1)}
    if measured.cut:
        facts["cut"] = f"after {measured.seconds:.1f} of {plan.seconds:g} s"
    return facts


def rival_rows(encoder: HalfEncoder, bundle: Bundle, plan: Plan, name: str, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """The same for torch; compiled once per batch, as a user who wants speed would."""
    rows: dict[str, Any] = {}
    golden, expected = load_golden(bundle)
    for batch in plan.batches:
        key = f"{name} half, batch {batch}"
        if plan.late():
            rows[key] = dict(LATE)
            continue
        run: Any = encoder
        if name == "torch.compile":
            torch.compiler.reset()
            mode = "max-autotune-no-cudagraphs" if plan.device == "cuda" else "default"  # recorded below, as eager is
            run = torch.compile(encoder, mode=mode, dynamic=False)
        full = np.ascontiguousarray(np.resize(tiles, (batch, *tiles.shape[1:])))
        try:
            contender = TorchContender(run, full, plan.device)
            if plan.late():  # to compile it took the rest
                rows[key] = dict(LATE_ALREADY)
                continue
            speed = contender.speed(plan.seconds, plan.until)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            rows[key] = {"not_run": str(error).splitlines()[0][:200]}
            continue
        least = cosine_min(encoder, golden[:PARITY_TILES], expected.embedding[:PARITY_TILES], plan.device)
        rows[key] = {**speed_facts(speed, plan), "cosine_min": round(least, 6)}
    return rows


def report(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    lines = ["# Engines on a GPU", ""]
    if not record["run"]:
        return "\n".join([*lines, f"Not run: {record['why']}.", ""])
    lines += [f"{record['device']}; {record['sustained_peak_tflops']} TFLOP/s sustained in large products.", ""]
    for label, found in record["models"].items():
        if "rows" not in found:
            lines += [f"{label}: {found['not_run']}.", ""]
            continue
        lines += [
            f"{label}, {found['gflop_per_tile']} GFLOP per tile",
            "",
            "| contender | tiles/s | share of the sustained peak | least cosine | parity |",
            "|---|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            if "not_run" in row:
                lines.append(f"| {name} | not run: {row['not_run']} | | | |")
            else:
                cut = f" (cut {row['cut']})" if "cut" in row else ""
                lines.append(
                    f"| {name} | {row['tiles_per_second']}{cut} | {row['share_of_peak']} | {row['cosine_min']} | "
                    f"{row.get('parity', 'not judged')} |"
                )
        lines.append("")
    if "whole_slide" in record:
        lines.append(f"Whole slide: {json.dumps(record['whole_slide'])}")
    return "\n".join(lines) + "\n"


def whole_slide(bundle: Bundle, slide: Path | None, plan: Plan) -> dict[str, Any]:
    """A slide end to end against the engine alone, with the fastest engine here; the bar is 95 %.

    It is scored twice, since the first time also warms the engine and the file cache; once where the time is used up.
    """
    path = slide or DATA / SMALL_REGION
    if not path.is_file():
        return {"not_run": "no slide was given and none was found"}
    batch = 64
    engine = load_engine(bundle, batch=batch)
    options = InferOptions(batch=batch)
    try:
        for attempt in range(2):
            if attempt == 1 and plan.late():
                break
            warm = attempt == 1
            prepared = prepare(path, bundle, options)
            try:
                result = conclude(prepared, score(prepared, engine))
            finally:
                prepared.close()
        pixels = np.zeros((batch, bundle.tile_px, bundle.tile_px, 3), np.uint8)
        alone = stream_speed(engine, pixels, batch, plan.seconds, plan.until).tiles_per_second
        speed = result.tiles.ok / prepared.seconds["stream"]
        return {
            "engine": f"{engine.info.name} {engine.info.precision}",
            "why": engine.info.why,
            "tiles": result.tiles.ok,
            "tiles_per_second": round(speed, 1),
            "engine_alone": round(alone, 1),
            "share": round(speed / alone, 3),
            "limited_by": result.limiting,
            **({} if warm else {"cut": "scored once, cold: the time was used up"}),
        }
    finally:
        engine.close()


if __name__ == "__main__":
    main()
