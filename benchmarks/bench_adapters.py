"""Several adapters on one foundation model: the size of one bundle against one each, and what a swap takes.

    python benchmarks/bench_adapters.py [--pfm lunit-vits16] [--adapters 3] [--rank 8] [--json FILE]

Random weights and LoRA of random values on every attention block: sizes and times do not depend on what they hold.
Writes results/adapters.json and .md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_models import FEATURES, scratch, tissue_tiles
from result_files import keep

from stamp_deploy.bundle import Bundle
from stamp_deploy.checks.acceptance import machine
from stamp_deploy.engine import load_engine, swap_adapter
from stamp_deploy.export.adapters import BASE_FILE, WEIGHTS_FILE, export_adapters
from stamp_deploy.export.export import export_run
from stamp_deploy.training.model import LoraSettings, RunInfo, build_model, measured_dim, save_run
from stamp_deploy.training.model.registry import build_backbone, get_pfm

BATCH = 16
TILES = 32
SWAPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pfm", default="lunit-vits16", help="architecture of the registry")
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    with scratch() as cache, tempfile.TemporaryDirectory(dir=cache) as folder:
        record = measure(Path(folder), arguments.pfm, arguments.adapters, arguments.rank)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    keep("adapters", record, report(record))
    print(report(record))


def measure(folder: Path, pfm: str, count: int, rank: int) -> dict[str, Any]:
    runs = make_runs(folder / "runs", pfm, count, rank)
    tiles, source = tissue_tiles(TILES, get_pfm(pfm).tile_px, quick=True)
    np.save(folder / "tiles.npy", tiles)
    start = time.perf_counter()
    made = export_adapters(runs, folder / "bundle", tiles=folder / "tiles.npy")
    export_s = time.perf_counter() - start
    alone = export_run(runs[0], folder / "alone", tiles=folder / "tiles.npy")
    first = next(iter(made.values()))
    own = [first.path / name / WEIGHTS_FILE for name in made]
    record: dict[str, Any] = {
        "machine": machine(),
        "model": f"{pfm}, random weights, LoRA of rank {rank}",
        "adapters": count,
        "tiles": source,
        "alone_mb": _mb(alone.path),
        "bundle_mb": _mb(first.path),
        "base_mb": _mb(first.path / BASE_FILE),
        "adapter_mb": round(sum(map(_mb, own)) / count, 2),
        "export_s": round(export_s, 1),
        "engines": {name: swaps(made, name) for name in ("onnxruntime", "openvino") if find_spec(name)},
    }
    return record


def make_runs(folder: Path, pfm_id: str, count: int, rank: int) -> list[Path]:
    """Run folders that share a backbone of random weights."""
    pfm = get_pfm(pfm_id)
    dim = measured_dim(build_backbone(pfm.timm_name, pfm.kwargs), pfm.embed)
    info = RunInfo(
        pfm_id=pfm.id, timm_name=pfm.timm_name, timm_kwargs=pfm.kwargs, embed=pfm.embed, mean=pfm.mean, std=pfm.std,
        tile_px=pfm.tile_px, mpp=pfm.mpp, pathway_names=FEATURES, gene_set_sha256="0" * 64, embedding_dim=dim,
        adapt="lora", lora=LoraSettings(r=rank),
    )  # fmt: skip
    runs = []
    for seed in range(count):
        torch.manual_seed(0)
        model = build_model(info).eval()
        torch.manual_seed(seed + 1)
        for name, parameter in model.backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        runs.append(folder / f"organ{seed + 1}")
        runs[-1].mkdir(parents=True)
        save_run(runs[-1], model, info)
    return runs


def swaps(made: dict[str, Bundle], name: str) -> dict[str, float]:
    """Seconds of loading an engine the first time, of a swap, and of the parity check within each swap; medians."""
    names = list(made)
    start = time.perf_counter()
    engine = load_engine(made[names[0]], name, batch=BATCH, precision="fp32")
    first = time.perf_counter() - start
    checked, remembered = list[float](), list[float]()
    for turn in range(SWAPS * len(names)):
        start = time.perf_counter()
        engine = swap_adapter(engine, made[names[(turn + 1) % len(names)]])
        (checked if turn < len(names) - 1 else remembered).append(time.perf_counter() - start)
    engine.close()
    return {
        "load_s": round(first, 2),
        "swap_with_parity_s": round(float(np.median(checked)), 2),
        "swap_s": round(float(np.median(remembered)), 2),
    }


def _mb(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def report(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    count, facts = record["adapters"], record["machine"]
    lines = [
        "# Adapters",
        "",
        f"{record['model']}; {count} adapters; batch {BATCH}; {facts['processor']}, {facts['cores']} cores.",
        "",
        "| | MB |",
        "|---|---|",
        f"| one bundle with {count} adapters, golden tiles included | {record['bundle_mb']} |",
        f"| the same as {count} bundles | {round(count * record['alone_mb'], 2)} |",
        f"| of it the shared weights | {record['base_mb']} |",
        f"| of it what one adapter changes | {record['adapter_mb']} |",
        "",
        "| engine | loaded and checked the first time | swap, parity checked | swap, parity remembered |",
        "|---|---|---|---|",
        *(
            f"| {name} | {one['load_s']} s | {one['swap_with_parity_s']} s | {one['swap_s']} s |"
            for name, one in record["engines"].items()
        ),
        "",
        f"Export took {record['export_s']} s. TensorRT refits its plan in place; that has not been run on a GPU.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
