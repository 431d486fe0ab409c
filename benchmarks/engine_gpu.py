"""The GPU part of bench_engine.py: tiles/s of every engine that runs there, and how far that is from the card's peak.

Against torch eager and torch.compile in bf16 with scaled_dot_product_attention, for ViT-S/16, ViT-L/16 and ViT-H/14.
Where there is no GPU, `gpu_section` says so and nothing is claimed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_models import data_folder, make_bundle, random_model
from numpy.typing import NDArray

from stamp_deploy.bundle import Bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.engine import Engine, open_engine
from stamp_deploy.engine.cuda import visible_gpus
from stamp_deploy.engine.golden import check_engine
from stamp_deploy.errors import StampError
from stamp_deploy.export.graph.attention import plain_attention
from stamp_deploy.export.graph.to_onnx import Encoder
from stamp_deploy.infer import conclude
from stamp_deploy.prepare import prepare
from stamp_deploy.score import score

MODELS = {"ViT-S/16": "lunit-vits16", "ViT-L/16": "uni", "ViT-H/14": "virchow"}
BATCHES = (16, 64, 256)
ENGINES = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
SECONDS = 3.0
PARITY_TILES = 32
PEAK_SIZE = 8192


def gpu_section(folder: Path, tiles: NDArray[np.uint8], slide: Path | None) -> dict[str, Any]:
    """Everything below, or the reason why not."""
    gpus = visible_gpus()
    if not gpus:
        return {"run": False, "why": "no GPU can be seen on this machine"}
    peak = matrix_peak()
    found: dict[str, Any] = {
        "run": True,
        "gpu": f"{gpus[0].name}, compute {gpus[0].capability}, driver CUDA {gpus[0].driver}",
        "matrix_peak_tflops": {name: round(value / 1e12, 1) for name, value in peak.items()},
        "models": {},
    }
    for label, pfm_id in MODELS.items():
        model, pfm = random_model(pfm_id)
        bundle = make_bundle(model, pfm, tiles[:PARITY_TILES], folder / f"gpu-{pfm_id}")
        flops = flops_a_tile(Encoder(model, pfm.mean, pfm.std), pfm.tile_px)
        rows = {**engine_rows(bundle, tiles), **torch_rows(model, pfm, tiles)}
        for row in rows.values():
            if "tiles_per_second" in row:
                row["share_of_peak"] = round(row["tiles_per_second"] * flops / peak[row["peak"]], 3)
        found["models"][label] = {"gflop_a_tile": round(flops / 1e9, 2), "rows": rows}
        if label == "ViT-L/16":
            found["whole_slide"] = whole_slide(bundle, slide)
        del model
        gc.collect()
        torch.cuda.empty_cache()
    return found


def matrix_peak() -> dict[str, float]:
    """FLOP/s of one large matrix product, the best of many, in fp16 and bf16: what the card really gives."""
    best = {}
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        a = torch.randn(PEAK_SIZE, PEAK_SIZE, device="cuda", dtype=dtype)
        b = torch.randn_like(a)
        times = []
        for _ in range(30):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            torch.matmul(a, b)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        best[name] = 2 * PEAK_SIZE**3 / min(times[5:])
    return best


def flops_a_tile(encoder: torch.nn.Module, tile_px: int) -> float:
    """Floating-point operations of one tile, counted by torch (a multiply-add is two).

    Attention is counted in its plain form: the counter does not know the fused one of every device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with plain_attention(encoder), FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.zeros(1, tile_px, tile_px, 3, dtype=torch.uint8))
    return float(counter.get_total_flops())


def engine_rows(bundle: Bundle, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """tiles/s of each engine and batch, transfers included, with its parity; or what the engine says."""
    rows: dict[str, Any] = {}
    for name in ENGINES:
        for batch in BATCHES:
            key = f"{name} fp16, batch {batch}"
            try:
                engine = open_engine(bundle, name, batch=batch, precision="fp16")
            except StampError as error:
                rows[key] = {"not_run": error.cause}
                break
            try:
                report = check_engine(bundle, engine)
                rows[key] = {
                    "tiles_per_second": round(stream_speed(engine, tiles, batch), 1),
                    "peak": "fp16",
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


def stream_speed(engine: Engine, tiles: NDArray[np.uint8], batch: int) -> float:
    """Tiles/s of a stream of full batches of host memory, after a warm-up."""
    full = np.ascontiguousarray(np.resize(tiles, (batch, *tiles.shape[1:])))
    list(engine.stream([full] * 3))
    count, start = 0, time.perf_counter()

    def batches() -> Any:
        nonlocal count
        while time.perf_counter() - start < SECONDS:
            count += batch
            yield full

    for _ in engine.stream(batches()):
        pass
    return count / (time.perf_counter() - start)


def torch_rows(model: torch.nn.Module, pfm: Any, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """torch eager and torch.compile in bf16, tiles copied from page-locked memory as the engines do."""
    encoder = Encoder(model, pfm.mean, pfm.std).eval().cuda()
    rows: dict[str, Any] = {}
    compiled: Callable[..., Any] = torch.compile(encoder, mode="max-autotune-no-cudagraphs")
    for label, run in (("torch eager", encoder), ("torch.compile", compiled)):
        for batch in BATCHES:
            full = torch.from_numpy(np.resize(tiles, (batch, *tiles.shape[1:]))).pin_memory()
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                for _ in range(3):
                    run(full.cuda(non_blocking=True))
                torch.cuda.synchronize()
                count, start = 0, time.perf_counter()
                while time.perf_counter() - start < SECONDS:
                    embedding, pathways = run(full.cuda(non_blocking=True))
                    embedding.cpu(), pathways.cpu()
                    count += batch
                torch.cuda.synchronize()
                speed = count / (time.perf_counter() - start)
            rows[f"{label} bf16, batch {batch}"] = {"tiles_per_second": round(speed, 1), "peak": "bf16"}
    return rows


def whole_slide(bundle: Bundle, slide: Path | None) -> dict[str, Any]:
    """A slide end to end against the engine alone, with the fastest engine here; the bar is 95 %."""
    path = slide or data_folder() / "slides" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        return {"not_run": "no slide was given and none was found"}
    from stamp_deploy.engine import load_engine

    batch = 64
    engine = load_engine(bundle, batch=batch)
    options = InferOptions(batch=batch)
    try:
        for _ in range(2):  # the first time also warms the engine and the file cache
            prepared = prepare(path, bundle, options)
            try:
                result = conclude(prepared, score(prepared, engine))
            finally:
                prepared.close()
        pixels = np.zeros((batch, bundle.tile_px, bundle.tile_px, 3), np.uint8)
        alone = stream_speed(engine, pixels, batch)
        speed = result.tiles.ok / prepared.seconds["stream"]
        return {
            "engine": f"{engine.info.name} {engine.info.precision}",
            "why": engine.info.why,
            "tiles": result.tiles.ok,
            "tiles_per_second": round(speed, 1),
            "engine_alone": round(alone, 1),
            "share": round(speed / alone, 3),
            "limited_by": result.limiting,
        }
    finally:
        engine.close()
