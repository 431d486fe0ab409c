"""Engines against torch, on this machine, in one interleaved run.

    python benchmarks/bench_engine.py                          the full run; writes results/engine.json and .md
    python benchmarks/bench_engine.py --run RUN                parity of a trained run (of bench_training.py), too
    python benchmarks/bench_engine.py --quick --json FILE      under a minute

ViT-S/16, 224 px, batch 16. Every contender scores the same tiles in turn, round after round, so that whatever else the
machine does hits all of them; medians and ranges are reported. Parity is judged on tiles that the pathway head was not
fitted on. Without a foundation model's weights at hand the backbone is random and the head is a ridge regression on
colour and texture of real tissue; `--run` adds a trained model's numbers. The GPU part runs where a GPU can be seen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cpu_peak import CpuPeak
from engine_gpu import Plan, gpu_section
from engine_models import (
    FEATURES,
    fit_head,
    flops_per_tile,
    lower_bundle,
    make_bundle,
    random_model,
    run_bundle,
    scratch,
    tissue_tiles,
)
from engine_table import report
from numpy.typing import NDArray
from result_files import keep

from stamp_deploy.bundle import Bundle
from stamp_deploy.checks.acceptance import machine
from stamp_deploy.engine import load_engine, open_engine
from stamp_deploy.engine.golden import GOLDEN_TILES, check_engine
from stamp_deploy.engine.parity import Outputs
from stamp_deploy.errors import ParityError, StampError
from stamp_deploy.export import quantise
from stamp_deploy.export.graph.to_onnx import Encoder
from stamp_deploy.export.parity_tiles import PARITY_TILES
from stamp_deploy.export.precision import CALIBRATION_TILES
from stamp_deploy.export.quantise import CPU_ENGINES
from stamp_deploy.export.quantise_ways import WAYS
from stamp_deploy.export.run_models import run_torch
from stamp_deploy.export.source import run_facts

MODEL = "lunit-vits16"
BATCH = 16
QUICK_SECONDS = 38.0
"""When a quick run stops starting new rounds of timing."""
FP16_TILES = 128
"""fp16 stays far inside its limits, and its emulation takes as long as bf16's."""
SLOW_ROUNDS = 3
"""Rounds of a contender that takes more than four times as long as the fastest."""
Contender = Callable[[NDArray[np.uint8]], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tiles and rounds, under a minute")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--run", type=Path, help="a trained run folder: its parity by precision is reported, too")
    parser.add_argument("--model", default=MODEL, help="another architecture of the registry")
    parser.add_argument("--rounds", type=int, help="rounds of the interleaved timing")
    parser.add_argument("--slide", type=Path, help="a slide for the whole-slide part on a GPU")
    parser.add_argument("--no-gpu", action="store_true", help="leave the GPU part out")
    arguments = parser.parse_args()
    with scratch() as folder:
        record = measure(Path(folder), arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if not arguments.quick:
        keep("engine", record, report(record))
    print(report(record))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    quick = arguments.quick
    fitted, judged = (16, 64) if quick else (256, PARITY_TILES + CALIBRATION_TILES)
    torch.set_num_threads(os.cpu_count() or 1)
    model, pfm = random_model(arguments.model)
    tiles, source = tissue_tiles(fitted + judged, pfm.tile_px, quick=quick)
    phase("tiles and model", start)
    fit_r = fit_head(model, pfm, tiles[:fitted])
    tiles = tiles[fitted:]
    phase("head fitted", start)
    if quick:
        bundle, parity, bundles = export_both(model, pfm, tiles, folder)
        phase("exported in fp32 and int8", start)
    else:
        bundle = make_bundle(model, pfm, tiles, folder / "fp32")
        phase("exported", start)
        parity, bundles = by_precision(model, pfm, tiles, bundle, folder)
        phase("lower precisions judged", start)
    record: dict[str, Any] = {
        "quick": quick,
        "machine": machine(),
        "torch": str(torch.__version__),
        "model": f"{arguments.model} ({pfm.timm_name}, random weights), {pfm.tile_px} px, batch {BATCH}",
        "head": f"ridge to {len(FEATURES)} colour and texture features, r {fit_r:.2f} on the tiles of its fit",
        "tiles": source,
    }
    auto = load_engine(bundle, batch=BATCH)
    phase("engine chosen", start)
    record["auto_engine"] = f"{auto.info.name} {auto.info.precision}"
    record["auto_why"] = auto.info.why
    contenders = {**torch_contenders(model, pfm, quick), **engine_contenders(bundle, bundles, quick)}
    contenders["auto"] = auto.run
    left = QUICK_SECONDS - (time.perf_counter() - start) if quick else float("inf")
    peak = None if quick else CpuPeak()
    rounds = arguments.rounds or (5 if quick else 11)
    record["speed"] = interleave(contenders, tiles[:BATCH], rounds, left, peak)
    if peak is not None:
        flops = flops_per_tile(Encoder(model, pfm.mean, pfm.std), pfm.tile_px)
        record["gflop_per_tile"] = round(flops / 1e9, 2)
        record["sgemm_by"], gflops = peak.fastest()
        record["sgemm_gflops"] = round(gflops, 1)
        for name, found in record["speed"].items():
            if name.endswith("_fp32") or (name == "auto" and auto.info.precision == "fp32"):
                share = found["tiles_per_second"] * record["gflop_per_tile"] / record["sgemm_gflops"]
                found["share_of_sgemm"] = round(share, 3)
    phase("timed", start)
    record["bfloat16_in_hardware"] = "bf16" in record["auto_why"] or "openvino_bf16" in record["speed"]
    base = record["speed"]["torch_fp32"]["tiles_per_second"]
    for name, key in (("auto", "auto_vs_torch_fp32"), ("onnxruntime_fp32", "ort_fp32_vs_torch_fp32")):
        record[key] = round(record["speed"][name]["tiles_per_second"] / base, 3)
    int8 = [found["tiles_per_second"] for name, found in record["speed"].items() if name.endswith("_int8")]
    record["best_int8_vs_torch_fp32"] = round(max(int8) / base, 3) if int8 else None
    for key, name in (("int8_spearman_min", "spearman_min"), ("int8_outlier_spearman_min", "outlier_spearman_min")):
        record[key] = parity["int8"].get(name)
    record["parity_max_abs"] = parity["fp32"]["max_abs"]
    record["parity_cosine_min"] = parity["fp32"]["cosine_min"]
    record["spearman_min"] = {precision: found["spearman_min"] for precision, found in parity.items()}
    record["parity"] = parity
    if arguments.run is not None:
        record["trained_run"] = trained(arguments.run, folder)
    record["gpu"] = {"run": False, "why": "left out"}
    if not (quick or arguments.no_gpu):
        record["gpu"] = gpu_section(folder, Plan(), arguments.slide)
    record["seconds"] = round(time.perf_counter() - start, 1)
    return record


def phase(what: str, start: float) -> None:
    """Say where the run is, on standard error."""
    print(
        f"{time.perf_counter() - start:6.1f} s, {time.process_time():6.1f} s of CPU  {what}",
        file=sys.stderr,
        flush=True,
    )


def export_both(
    model: Any, pfm: Any, tiles: NDArray[np.uint8], folder: Path
) -> tuple[Bundle, dict[str, Any], dict[str, Bundle]]:
    """One export that carries int8 beside fp32, its numbers by precision, and the bundles; for a quick run.

    Only SmoothQuant is tried: the other ways take longer than a quick run may, and only this one is for TensorRT, too.
    It is judged and timed in OpenVINO alone where that is installed, the faster of the two. A refusal is a result.
    """
    engines = ("openvino",) if find_spec("openvino") else ("onnxruntime",)
    smooth = next(way for way in WAYS if way.name == "smooth")
    quantise.WAYS = (replace(smooth, engines=engines),)  # type: ignore[attr-defined, assignment]
    try:
        bundle = make_bundle(model, pfm, tiles, folder / "both", also=("int8",))
    except ParityError as error:
        bundle = make_bundle(model, pfm, tiles, folder / "fp32")
        refused = {"refused": error.cause, "spearman_min": None}
        return bundle, {"fp32": numbers_of_fp32(bundle), "int8": refused}, {"fp32": bundle}
    stages = list(bundle.parity["stages"].values())
    int8 = {"tiles": bundle.parity["tiles"], **stages[-1], **numbers_of_twins(bundle)}
    return bundle, {"fp32": numbers_of_fp32(bundle), "int8": int8}, {"fp32": bundle, "int8": bundle}


def numbers_of_fp32(bundle: Bundle) -> dict[str, Any]:
    """What the export measured of the ONNX file against torch."""
    return {"tiles": bundle.parity["tiles"], **bundle.parity["stages"]["merged -> ONNX"]}


def numbers_of_twins(bundle: Bundle) -> dict[str, Any]:
    """What the export measured of the int8 files that it kept."""
    return {
        "ways": bundle.parity["twins"]["ways"],
        "quantisation": ", ".join(twin.way for twin in bundle.twins),
        "spearman_min": min(twin.parity["spearman_min"] for twin in bundle.twins),
        "outlier_spearman_min": min(twin.parity["outlier_spearman_min"] for twin in bundle.twins),
    }


def by_precision(
    model: Any, pfm: Any, tiles: NDArray[np.uint8], bundle: Bundle, folder: Path
) -> tuple[dict[str, Any], dict[str, Bundle]]:
    """Export in every precision; all numbers, and the bundles. A refusal is a result."""
    numbers = {"fp32": numbers_of_fp32(bundle)}
    bundles = {"fp32": bundle}
    if len(tiles) <= GOLDEN_TILES:  # export has kept what torch said of every tile
        expected = Outputs(*(np.load(bundle.golden / f"{name}.npy") for name in ("embedding", "pathways")))
    else:
        expected = run_torch(Encoder(model, pfm.mean, pfm.std), tiles)
    for precision in ("fp16", "bf16", "int8"):
        count = FP16_TILES if precision == "fp16" else len(tiles)
        wanted = Outputs(expected.embedding[:count], expected.pathways[:count])
        try:
            made, stages = lower_bundle(bundle, precision, tiles[:count], wanted, folder / precision)
        except ParityError as error:
            numbers[precision] = {"refused": error.cause, "spearman_min": None}
            continue
        bundles[precision] = made
        numbers[precision] = {"tiles": stages[-1].tiles, **stages[-1].metrics}
        if made.twins:
            numbers[precision] |= numbers_of_twins(made)
    return numbers, bundles


def torch_contenders(model: Any, pfm: Any, quick: bool) -> dict[str, Contender]:
    """torch eager in fp32, with its own scaled_dot_product_attention; bf16 and torch.compile in the full run."""
    encoder = Encoder(model, pfm.mean, pfm.std).eval()

    @torch.inference_mode()
    def fp32(tiles: NDArray[np.uint8]) -> Any:
        return encoder(torch.from_numpy(tiles))

    @torch.inference_mode()
    def bf16(tiles: NDArray[np.uint8]) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return encoder(torch.from_numpy(tiles))

    found: dict[str, Contender] = {"torch_fp32": fp32}
    if not quick:
        found["torch_bf16_autocast"] = bf16
        compiled = torch.compile(encoder)

        @torch.inference_mode()
        def compiled_fp32(tiles: NDArray[np.uint8]) -> Any:
            return compiled(torch.from_numpy(tiles))

        found["torch_compile_fp32"] = compiled_fp32
    return found


def engine_contenders(bundle: Bundle, bundles: dict[str, Bundle], quick: bool) -> dict[str, Contender]:
    """Every CPU engine and precision that passes parity here; those that do not are left out and named."""
    found: dict[str, Contender] = {}
    wanted = [("onnxruntime", bundle, None), ("openvino", bundle, "fp32"), ("openvino", bundle, "bf16")]
    if quick:  # what is not asked for by name is what `auto` has measured already
        wanted = wanted[:1]
    for twin in bundles["int8"].twins if "int8" in bundles else ():
        wanted += [(name, bundles["int8"], "int8") for name in CPU_ENGINES if name in twin.engines]
    for name, of, precision in wanted:
        try:
            engine = open_engine(of, name, batch=BATCH, precision=precision)
            if not quick:  # in a quick run export has just judged the same file
                check_engine(of, engine).raise_if_failed()
        except StampError as error:
            print(f"left out: {name} {precision or of.precision}: {error.cause}", file=sys.stderr)
            continue
        found[f"{name}_{engine.info.precision}"] = engine.run
    return found


def interleave(
    contenders: dict[str, Contender],
    tiles: NDArray[np.uint8],
    rounds: int,
    seconds: float,
    peak: CpuPeak | None = None,
) -> dict[str, Any]:
    """Median and range of tiles/s; every contender once per round, in an order that changes. Three rounds at least.

    The products of `peak` are timed once per round, too.
    """
    for run in contenders.values():  # short in a quick run, where the first round is part of the warm-up
        run(tiles if seconds == float("inf") else tiles[:2])
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    rng, start = np.random.default_rng(0), time.perf_counter()
    for number in range(rounds):
        if peak is not None:
            peak.time_once()
        fastest = min(float(np.median(values or [0.0])) for values in taken.values())
        for name in rng.permutation(list(contenders)):
            if number >= SLOW_ROUNDS and float(np.median(taken[name])) > 4 * fastest:
                continue  # what is that slow needs no more rounds to be known
            clock = time.perf_counter()
            contenders[name](tiles)
            taken[name].append(time.perf_counter() - clock)
        if number >= 2 and time.perf_counter() - start > seconds:
            break
    return {
        name: {
            "tiles_per_second": round(len(tiles) / float(np.median(values)), 2),
            "range": [round(len(tiles) / max(values), 2), round(len(tiles) / min(values), 2)],
            "rounds": len(values),
        }
        for name, values in taken.items()
    }


def trained(run: Path, folder: Path) -> dict[str, Any]:
    """Parity of a trained run by precision, on tiles of its cohort, and what was trained."""
    facts = run_facts(run)
    cohort, lora = facts.get("cohort") or {}, facts.get("lora") or {}
    record: dict[str, Any] = {
        "run": "/".join(run.resolve().parts[-2:]),
        "pfm": facts["pfm_id"],
        "adapt": f"{facts.get('adapt')} of rank {lora['r']}" if lora else facts.get("adapt"),
        "epochs": (facts.get("metrics") or {}).get("epochs"),
        "pathways": len(facts["pathway_names"]),
        "trained_on": [sample["id"] for sample in cohort.get("samples") or ()],
        "precisions": {},
    }
    for precision in ("fp32", "fp16", "bf16", "int8"):
        try:
            bundle = run_bundle(run, folder / f"run-{precision}", precision)
        except ParityError as error:
            record["precisions"][precision] = {"refused": error.cause, "spearman_min": None}
            continue
        extra = {key: bundle.parity[key] for key in ("tiles", "quantisation", "ways") if key in bundle.parity}
        record["precisions"][precision] = {**extra, **list(bundle.parity["stages"].values())[-1]}
    return record


if __name__ == "__main__":
    main()
