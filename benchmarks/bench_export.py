"""Time and memory of an export, by the size of the model.

    python benchmarks/bench_export.py                                  ViT-S, ViT-L, ViT-H and ViT-g
    python benchmarks/bench_export.py virchow --tiles 4 --limit-gb 16  one of them; it is stopped above the limit

Architectures of the registry with random weights, through the real export with parity on a few tiles, each in a process
of its own. Writes results/export.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_models import make_bundle, random_model, tissue_tiles
from numpy.typing import NDArray
from result_files import keep

from stamp_deploy.checks.acceptance import machine
from stamp_deploy.export.graph.to_onnx import Encoder
from stamp_deploy.training.model.stamp_model import StampModel

MODELS = ("lunit-vits16", "uni", "virchow", "h-optimus-0")
GIB = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="names of the registry")
    parser.add_argument("--tiles", type=int, default=4, help="tiles for parity; a ViT-g takes seconds for each")
    parser.add_argument("--limit-gb", type=float, default=16, help="stop a model that needs more")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        arguments.child.write_text(json.dumps(export(arguments.models[0], arguments.tiles)))
        return
    rows = [run(name, arguments.tiles, arguments.limit_gb) for name in arguments.models]
    record = {"machine": machine(), "tiles": arguments.tiles, "limit_gb": arguments.limit_gb, "models": rows}
    keep("export", record, report(record))
    print(report(record))


def run(name: str, tiles: int, limit_gb: float) -> dict[str, Any]:
    """One model in a process of its own, watched."""
    with tempfile.TemporaryDirectory(prefix="bench-export-") as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, __file__, name, "--tiles", str(tiles), "--child", str(answer)]
        child = subprocess.Popen(command, env={**os.environ, "TMPDIR": folder})
        stopped = False
        while child.poll() is None:
            if resident(child.pid) > limit_gb * GIB:
                stopped = True
                child.kill()
            time.sleep(0.1)
        if child.wait() == 0:
            found: dict[str, Any] = json.loads(answer.read_text())
            return found
        return {"model": name, "failed": f"needs more than {limit_gb:g} GiB" if stopped else "failed"}


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, by /proc; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def export(name: str, tiles: int) -> dict[str, Any]:
    """Export a random model and say what it took, in this process."""
    model, pfm = random_model(name)
    pixels, _ = tissue_tiles(tiles, pfm.tile_px, quick=True)
    spread_head(model, Encoder(model, pfm.mean, pfm.std).eval(), pixels)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(model, pfm, pixels, Path(folder, "bundle"))
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in bundle.path.glob("encoder.onnx*"))
    numbers = bundle.parity["stages"]["merged -> ONNX"]
    return {
        "model": name,
        "architecture": pfm.timm_name,
        "parameters_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "encoder_gb": round(size / 1e9, 2),
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        "cosine_min": numbers["cosine_min"],
        "max_abs": numbers["max_abs"],
    }


@torch.no_grad()
def spread_head(model: StampModel, encoder: torch.nn.Module, pixels: NDArray[np.uint8]) -> None:
    """Turn the pathway head towards what differs between these tiles.

    To a random backbone a few tiles look nearly alike, and the correlations of a random head would be of rounding.
    """
    embedding = torch.cat([encoder(torch.from_numpy(pixels[i : i + 1]))[0] for i in range(len(pixels))])
    differences = embedding - embedding.mean(0)  # [N, D]
    torch.manual_seed(1)
    directions = torch.randn(len(model.pathway.weight), len(pixels)) @ differences
    model.pathway.weight.copy_(directions / directions.norm(dim=1, keepdim=True))


def report(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    facts = record["machine"]
    lines = [
        "# Export by size of the model",
        "",
        f"{facts['processor']}, {facts['cores']} cores. Random weights, fp32, parity on {record['tiles']} tiles; "
        f"stopped above {record['limit_gb']:g} GiB. The time of more tiles comes on top.",
        "",
        "| model | architecture | parameters | encoder | export | peak memory | cosine, least | max abs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["models"]:
        if "failed" in row:
            lines.append(f"| {row['model']} | {row['failed']} | | | | | | |")
            continue
        numbers = f"{row['cosine_min']:.7f} | {row['max_abs']:.1e}"
        lines.append(
            f"| {row['model']} | {row['architecture']} | {row['parameters_m']} M | {row['encoder_gb']} GB | "
            f"{row['seconds']:.0f} s | {row['peak_memory_gib']:.1f} GiB | {numbers} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
