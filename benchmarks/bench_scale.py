"""A simulated atlas: what 1.8 million pairs cost, measured where a small machine can and extrapolated where it cannot.

    python benchmarks/bench_scale.py --work DIR [--sections 1000] [--trained 6 to 998] [--parts atlas,shards] [--quick]

1,000 sections of 1,800 spots, 4 platforms, 10 organs, as metadata and files; their pixels and counts are a few
template sections, linked. Measured: reading the cohort, planning an epoch, scoring, one epoch of a tiny model on a part
of the sections, and an evaluation on held-out ones: time, memory, bytes. The tiny model is there to move the data:
what a ViT-L costs on eight GPUs is arithmetic, shown with every factor. Beside it, real tiles as arrays and as shards.
Parts that are not asked for keep the figures that stand in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from real_slides import DATA
from result_files import RESULTS, keep
from shard_speed import measured, shard_lines

from stamp_deploy.training.cohort import SampleFacts, load_cohort
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.cohort.write import write_cohort_json, write_sample
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.epoch_plan import Rows, plan_epoch

SPOTS, TILE, PATIENTS = 1800, 32, 400
HELD_OUT = 2
"""Sections that the evaluation is judged on; the others can be trained on."""
PLATFORMS = ("visium", "visium-hd", "xenium", "legacy-st")
ORGANS = ("breast", "lung", "colon", "prostate", "kidney", "liver", "brain", "skin", "ovary", "pancreas")
SHARES = (0.6, 0.1, 0.2, 0.1)
"""Of the platforms: an atlas is no balanced design."""
TINY: dict[str, Any] = {
    "pfm": "demo-vit", "timm_kwargs": json.dumps({"img_size": TILE, "patch_size": 16, "embed_dim": 24, "depth": 1,
    "num_heads": 2}), "tile_px": TILE, "mpp": 1.0, "adapt": "lora", "lora_r": 2, "epochs": 1, "val_fraction": 0.0,
    "w_contrastive": 0.0, "precision": "fp32", "threads": 1, "progress": False, "controls": False,
    "checkpoint_minutes": 60.0,
}  # fmt: skip
VIT_L_GMAC = 61.6
"""ViT-L/16 at 224 px, a forward pass (timm's table of models)."""
PASSES = 3
"""Adapted forward, backward through frozen weights (about one forward), frozen reference of the anchor."""
GPU_TFLOPS, UTILISATION, GPUS = 989.0, 0.4, 8
"""H100 SXM, dense bf16, as NVIDIA states it; the share that training of ViTs commonly reaches: an assumption here."""
TILE_BYTES = 224 * 224 * 3


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--sections", type=int, default=1000)
    parser.add_argument("--trained", type=int, default=6, help="sections of the epoch that is run")
    parser.add_argument("--parts", default="atlas,shards", help="what to measure: atlas, shards")
    parser.add_argument("--data", type=Path, default=DATA, help="real sections, for the shards")
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is written")
    args = parser.parse_args()
    if args.quick:
        args.sections, args.trained = 40, 4
    import torch

    torch.set_num_threads(1)
    args.work = args.work.resolve()
    before = args.results / "scale.json"
    found: dict[str, Any] = json.loads(before.read_text(encoding="utf-8")) if before.exists() else {}
    parts = args.parts.split(",")
    if "atlas" in parts:
        found = {k: v for k, v in found.items() if k == "shards"} | atlas(args)
    if "shards" in parts:
        found["shards"] = measured(args.work, args.data, 1 if args.quick else 5)
    text = markdown(found)
    print(text)
    if not args.quick:
        keep("scale", found, text, args.results)


def atlas(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of the simulated atlas."""
    found: dict[str, Any] = {"sections": args.sections, "spots": SPOTS, "pairs": args.sections * SPOTS}
    found["build"] = build_rate(args)
    found["atlas"] = timed(lambda: make_atlas(args))
    found["load"] = timed(lambda: load_cohort(args.work / "atlas"))
    found["plan"] = planned(args)
    found |= train_part(args)
    found["vit_l"] = vit_l(found, args)
    return found | {"machine": f"{machine.machine()}, {os.cpu_count()} cores"}


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of a step, and the peak memory of the process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def build_rate(args: argparse.Namespace) -> dict[str, float]:
    """`cohort build` of synthetic slides, two at a time: spots per second."""
    from stamp_deploy.export.demo import synthetic

    folder = args.work / "build"
    count, side = (2, 1440)
    if not (folder / "cohort.toml").exists():
        synthetic.write_cohort(folder, tuple(range(41, 41 + count)), width=side, height=side)
    wall = time.perf_counter()
    made = build_cohort(
        folder / "cohort.toml", folder / "out", overwrite=True, pictures=False, jobs=2, log=lambda _: None
    )
    wall = time.perf_counter() - wall
    spots = sum(s.n_spots for s in made)
    return {"sections": len(made.samples), "spots": spots, "wall_s": round(wall, 2), "spots_s": round(spots / wall, 1)}


def make_atlas(args: argparse.Namespace) -> None:
    """The cohort folder: four template sections, linked into as many samples as there are to be."""
    out = args.work / "atlas"
    if (out / "cohort.json").exists() and len(load_cohort(out).samples) == args.sections:
        return
    templates = []
    for i in range(4):
        data, tiles = template(i)
        templates.append(write_sample(args.work / "templates", data, tiles, SampleFacts(f"t{i}", "none", mpp=1.0)))
    rng = np.random.default_rng(0)
    rows = []
    for i in range(args.sections):
        kind = templates[i % 4]
        name = f"s{i:04d}"
        place = out / "samples" / name
        place.mkdir(parents=True, exist_ok=True)
        for file in ("expression.h5ad", "tiles.npy"):
            if not (place / file).exists():
                os.link(args.work / "templates" / "samples" / kind.id / file, place / file)
        rows.append(SampleFacts(
            name, f"p{int(rng.integers(PATIENTS))}", str(rng.choice(PLATFORMS, p=SHARES)), str(rng.choice(ORGANS)),
            1.0, "stated", kind.spots, kind.genes,
        ))  # fmt: skip
    write_cohort_json(out, rows, tile_px=TILE, mpp=1.0)
    (args.work / "programs.gmt").write_text(
        "".join(f"P{k}\t-\t" + "\t".join(f"P{k}G{j}" for j in range(20)) + "\n" for k in range(50)), encoding="utf-8"
    )


def template(seed: int) -> tuple[Any, np.ndarray]:
    """A section of 50 programs, three of which are the colours of its tiles."""
    import anndata
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 1, (SPOTS, 50))
    rate = np.concatenate([np.repeat(level * 4, 20, axis=1), np.full((SPOTS, 1000), 1.0)], axis=1)
    names = [f"P{k}G{j}" for k in range(50) for j in range(20)] + [f"O{i}" for i in range(1000)]
    data = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(rate).astype(np.float32)),
        obs=pd.DataFrame(index=[f"b{i}" for i in range(SPOTS)]),
        var=pd.DataFrame(index=names),
        obsm={"spatial": np.stack([np.arange(SPOTS) % 43, np.arange(SPOTS) // 43], 1) * 100.0},
    )
    tiles = 60 + 150 * level[:, None, None, :3] + rng.normal(0, 12, (SPOTS, TILE, TILE, 3))
    return data, np.clip(tiles, 0, 255).astype(np.uint8)


def planned(args: argparse.Namespace) -> dict[str, Any]:
    """An epoch of the whole atlas: how long its plan takes, when the last section comes up, what platforms get."""
    cohort = load_cohort(args.work / "atlas")
    sizes = [s.n_spots for s in cohort]
    platforms = [s.platform for s in cohort]
    plan: list[Rows] = []
    took = timed(lambda: plan.extend(plan_epoch(sizes, 8, 48, np.random.default_rng(0))))
    first: dict[int, int] = {}
    for number, batch in enumerate(plan):
        for i, _ in batch:
            first.setdefault(i, number)
    balanced = plan_epoch(sizes, 8, 48, np.random.default_rng(0), platforms)
    share = {p: 0 for p in PLATFORMS}
    for batch in balanced:
        for i, _ in batch:
            share[platforms[i]] += 1
    total = sum(share.values())
    return {
        "batches": len(plan),
        **took,
        "all_sections_after": round((max(first.values()) + 1) / len(plan), 4),
        "seen_in_first_tenth": sum(1 for v in first.values() if v < len(plan) / 10),
        "share_of_platforms": {p: round(platforms.count(p) / len(platforms), 3) for p in PLATFORMS},
        "share_when_balanced": {p: round(n / total, 3) for p, n in share.items()},
    }


def train_part(args: argparse.Namespace) -> dict[str, Any]:
    """Scoring, one epoch and an evaluation on a part of the sections."""
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
    from stamp_deploy.training.loop import fit
    from stamp_deploy.training.run_setup import prepare

    names = [s.id for s in load_cohort(args.work / "atlas")]
    held = names[-HELD_OUT:]
    config = TrainConfig.from_dict({
        **TINY, "cohort": str(args.work / "atlas"), "gmt": str(args.work / "programs.gmt"),
        "samples": names[: args.trained], "held_out": held,
    })  # fmt: skip
    score = timed(lambda: prepare(config))
    run = args.work / "run"
    epoch = timed(lambda: fit(config, run, overwrite=True))
    seconds = float(json.loads((run / "run.json").read_text(encoding="utf-8"))["metrics"]["seconds"])
    pairs = args.trained * SPOTS
    judged = timed(lambda: evaluate(EvaluateOptions(run, tier1=False)))
    return {
        "trained_sections": args.trained,
        "score": {**score, "cpu_s_per_section": round(score["cpu_s"] / args.trained, 4)},
        "epoch": {
            **epoch, "loop_s": round(seconds, 1), "tiles_s": round(pairs / seconds, 1),
            "bytes_read": pairs * TILE * TILE * 3,
        },
        "evaluate": judged,
    }  # fmt: skip


def vit_l(found: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What a ViT-L with LoRA costs on eight GPUs, from stated factors."""
    kept = args.results / "training.json"
    loader = json.loads(kept.read_text(encoding="utf-8")).get("loader_tiles_s_core") if kept.exists() else None
    gflop = VIT_L_GMAC * 2 * PASSES
    a_gpu = GPU_TFLOPS * 1e3 * UTILISATION / gflop
    rate = a_gpu * GPUS
    pairs = found["pairs"]
    lora = 24 * 8 * ((1024 + 3072) + (1024 + 1024))
    return {
        "gflop_per_tile": round(gflop, 1),
        "tiles_s_per_gpu": round(a_gpu),
        "tiles_s": round(rate),
        "epoch_s": round(pairs / rate),
        "epochs_20_h": round(20 * pairs / rate / 3600, 2),
        "raw_gb": round(pairs * TILE_BYTES / 1e9, 1),
        "read_gb_s": round(rate * TILE_BYTES / 1e9, 2),
        "loader_tiles_s_core": loader,
        "loader_cores": round(rate / loader, 1) if loader else None,
        "score_cpu_min": round(found["score"]["cpu_s"] / args.trained * found["sections"] / 60, 1),
        "targets_gb_per_process": round(pairs * 50 * 4 * 3 / 1e9, 2),
        "lora_parameters": lora,
        "all_reduce_mb_per_step": round(lora * 4 / 1e6, 1),
        "steps_s": round(rate / (384 * GPUS), 2),
    }


def markdown(d: dict[str, Any]) -> str:
    """benchmarks/results/scale.md."""
    plan, v, epoch, score, made = d["plan"], d["vit_l"], d["epoch"], d["score"], d["build"]
    balanced = plan["share_when_balanced"]
    shares = ", ".join(f"{k} {a:.0%} to {balanced[k]:.0%}" for k, a in plan["share_of_platforms"].items())
    trained, sections, pairs = d["trained_sections"], d["sections"], d["pairs"]
    steps = [
        ("`cohort build --jobs 2`", f"{made['sections']} synthetic slides, {made['spots']:,} spots: "
         f"{made['spots_s']:,.0f} spots/s", made),
        ("write the atlas", f"{sections:,} folders of links, cohort.json", d["atlas"]),
        ("`load_cohort`", f"{sections:,} sections", d["load"]),
        ("plan an epoch", f"{plan['batches']:,} batches of 8 x 48", plan),
        ("score", f"{trained} sections, 50 UCell scores", score),
        ("train one epoch", f"tiny model, {trained * d['spots']:,} pairs: {epoch['tiles_s']:,.0f} tiles/s in the "
         f"loop, {epoch['bytes_read'] / 1e9:.2f} GB read", epoch),
        ("`evaluate`", f"{HELD_OUT} held-out sections, ridge on {trained}", d["evaluate"]),
    ]  # fmt: skip
    gflop = f"{v['gflop_per_tile']:.0f} GFLOP"
    lines = [
        f"# An atlas of {pairs / 1e6:.1f} million pairs",
        "",
        f"Written by benchmarks/bench_scale.py on {d['machine']}, one thread, much other work beside it:",
        f"wall times are upper bounds. {sections:,} sections of {d['spots']:,} spots, 4 platforms, 10 organs,",
        f"real files and metadata, whose pixels ({TILE} px) and counts are four template sections, linked. So the",
        "page cache holds them: disk speed is not measured here.",
        "",
        "## Measured",
        "",
        "| step | what | wall s | CPU s | peak GB |",
        "|---|---|---|---|---|",
    ]
    for name, what, row in steps:
        cpu = f"{row['cpu_s']:.2f}" if "cpu_s" in row else ""
        peak = f"{row['peak_gb']:.2f}" if "peak_gb" in row else ""
        lines.append(f"| {name} | {what} | {row['wall_s']:.2f} | {cpu} | {peak} |")
    lines += [
        "",
        *_whole_or_part(d),
        "Peak memory counts the pages of mapped tiles, which the system takes back when it needs them.",
        "",
        f"**Sampler.** Every section has come up after {plan['all_sections_after']:.1%} of the batches,",
        f"{plan['seen_in_first_tenth']:,} of {sections:,} in the first tenth. Share of each platform, by itself and",
        f'with `balance = "platform"`: {shares}.',
        "",
        "## ViT-L on 8 GPUs: arithmetic, not measured",
        "",
        f"- Work: ViT-L/16 at 224 px takes {VIT_L_GMAC} GMAC a forward pass. x 2 FLOP x {PASSES} passes (adapted",
        "  forward, backward through frozen weights, the anchor's frozen forward)",
        f"  = {gflop} a tile. `w_anchor = 0` saves a third.",
        f"- Rate: {GPU_TFLOPS:.0f} TFLOPS (H100, dense bf16) x {UTILISATION} assumed utilisation",
        f"  / {gflop} = {v['tiles_s_per_gpu']:,} tiles/s per GPU, x {GPUS} = {v['tiles_s']:,}.",
        f"- Epoch: {pairs:,} / {v['tiles_s']:,} = {v['epoch_s']} s; 20 epochs {v['epochs_20_h']} h. Embedding all",
        "  tiles for ridge, at the start and at the end, costs about a third of an epoch each.",
        f"- Loader: {_loader(v)}.",
        f"- Bytes: {pairs:,} x {TILE_BYTES:,} B = {v['raw_gb']} GB stored, {v['read_gb_s']} GB/s read: from memory or",
        "  NVMe. A network share of 10 Gbit/s gives at most 1.25 GB/s: copy the cohort to the node first.",
        f"- Scores: {score['cpu_s'] / trained:.3f} CPU s per section x {sections:,} = {v['score_cpu_min']} minutes",
        "  of a core, in each process, before the first step.",
        f"- Memory: scores, targets and levels are {pairs:,} x 50 x 4 B x 3 =",
        f"  {v['targets_gb_per_process']} GB per process; tiles are mapped, not loaded.",
        f"- Network: LoRA r8 on `qkv` and `proj` has {v['lora_parameters']:,} weights,",
        f"  {v['all_reduce_mb_per_step']} MB of gradients per step; {v['steps_s']} steps/s of {GPUS} x 384 tiles.",
        "",
    ]
    if "shards" in d:
        lines += shard_lines(d["shards"], pairs)
    return "\n".join(lines)


def _whole_or_part(d: dict[str, Any]) -> list[str]:
    """Whether scoring and the epoch ran over the atlas, or what they would take in proportion."""
    sections, trained = d["sections"], d["trained_sections"]
    if trained + HELD_OUT == sections:
        return [f"Scoring, epoch and evaluation ran over all {sections:,} sections, {HELD_OUT} of them held out."]
    scoring, epoch = d["vit_l"]["score_cpu_min"], d["pairs"] / d["epoch"]["tiles_s"] / 60
    return [
        f"All {sections:,} sections, in proportion: {scoring} minutes of scoring, and an epoch of the tiny model of",
        f"{epoch:.0f} minutes. Neither was run whole.",
    ]


def _loader(v: dict[str, Any]) -> str:
    if v["loader_cores"] is None:
        return "not measured"
    rate = f"{v['loader_tiles_s_core']:,.0f} tiles/s each (benchmarks/results/training.md)"
    return f"{v['loader_cores']:.1f} cores at {rate} feed that"


if __name__ == "__main__":
    main()
