"""The numbers of bench_engine.py for people, in Markdown."""

from __future__ import annotations

import json
import platform
from typing import Any

from stamp_deploy.engine.tolerances import TOLERANCES


def report(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    facts = record["machine"]
    lines = [
        "# Engines",
        "",
        f"{facts['processor']}, {facts['cores']} cores, torch {record['torch']}, onnxruntime {facts['onnxruntime']}, "
        f"openvino {facts.get('openvino', 'not installed')}; Python {platform.python_version()}. {record['model']}.",
        "",
        "| contender | tiles/s (median) | range | against torch fp32 | share of the peak |",
        "|---|---|---|---|---|",
    ]
    base = record["speed"]["torch_fp32"]["tiles_per_second"]
    for name, found in sorted(record["speed"].items(), key=lambda item: -item[1]["tiles_per_second"]):
        low, high = found["range"]
        lines.append(
            f"| {name} | {found['tiles_per_second']} | {low} to {high} | {found['tiles_per_second'] / base:.2f} | "
            f"{found.get('share_of_sgemm', '')} |"
        )
    if "sgemm_gflops" in record:
        lines += [
            "",
            f"The peak is what one large fp32 product reaches on these cores, {record['sgemm_gflops']} GFLOP/s: the "
            f"faster of torch and ONNX Runtime, here {record['sgemm_by']}, timed in the same rounds. A tile is counted "
            f"as {record['gflop_per_tile']} GFLOP, those of the whole model; the exported graph leaves out what the "
            "class token does not need in the last block, so that its share can be above 1.",
        ]
    lines += [
        "",
        f"`auto` chose {record['auto_engine']}: {record['auto_why']}.",
        "" if record["bfloat16_in_hardware"] else "This processor has no bf16 in hardware.",
        "",
        "## Parity with random weights",
        "",
        f"Tiles: {record['tiles']}. Head: {record['head']}.",
        "",
        *_parity_table(record["parity"]),
        "",
        "## Parity with trained weights",
        "",
    ]
    if "trained_run" in record:
        run = record["trained_run"]
        lines += [
            f"{run['pfm']}, {run['adapt']}, {run['epochs']} epochs on real sections {', '.join(run['trained_on'])}, "
            f"{run['pathways']} pathways; tiles of its whole cohort, through `export`. "
            f"`python benchmarks/bench_training.py --work DIR` makes such a run in DIR/{run['run']}; "
            f"`python benchmarks/bench_engine.py --run DIR/{run['run']}` makes this table.",
            "",
            *_parity_table(run["precisions"]),
        ]
    else:
        lines += ["Not run: no trained run was named with `--run`."]
    gpu = record["gpu"]
    lines += ["", "## GPU", ""]
    lines += [f"Not run: {gpu['why']}."] if not gpu["run"] else ["```json", json.dumps(gpu, indent=2), "```"]
    return "\n".join(lines) + "\n"


def _parity_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    head = "| precision | tiles | cosine, least | max abs | Spearman, least pathway | must be | |"
    return [head, "|---|---|---|---|---|---|---|", *(_row(precision, found) for precision, found in rows.items())]


def _row(precision: str, found: dict[str, Any]) -> str:
    bound = f"{TOLERANCES[precision].spearman_min:g}"
    if "refused" in found:
        return f"| {precision} | | | | refused | {bound} | {found['refused'][:160]} |"
    numbers = f"{found['cosine_min']:.6f} | {found['max_abs']:.2g} | {found['spearman_min']:.5f}"
    return f"| {precision} | {found.get('tiles', '')} | {numbers} | {bound} | {found.get('quantisation', '')} |"
