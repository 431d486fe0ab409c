"""What alignment teaches, measured on real sections: the ladder, its controls, and the loader.

    python benchmarks/bench_training.py --work DIR [--quick] [--jobs 2] [--data DIR] [--results DIR]

1. The ladder on her2st C2 to C5: each section held out in turn, trained on the other three, 50 Hallmark UCell
   scores, unsmoothed; Pearson r of each pathway within the section, the median over pathways, the mean over sections.
   A small transformer from random weights is warmed up on the pixels of the three training sections; each rung starts
   from that backbone.
2. The synthetic cohort, whose programs are known: held-out r, and r of a run on shuffled targets.
3. Tiles a second of the loader alone against the training step.

Runs lie in DIR/FOLD/RUNG and are kept: a second call trains only what is missing. Settings that the folds share stand
in LADDER below. What was left to choose (CANDIDATES) is chosen in each fold by an inner split: trained on two of its
three training sections, validated on the third. The held-out section takes no part in any choice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from result_files import keep

from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.model import load_run

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STAMP_TEST_DATA", ROOT.parent / "shared" / "data"))
SECTIONS = ("C2", "C3", "C4", "C5")
REFERENCE_FLOOR = 0.364
"""29 features + ridge, as measured independently before this project began."""
STORED_PX, MPP = 160, 2.0
"""Stored tiles are larger than the model's 112 px, so that crops can be moved."""

LADDER: dict[str, Any] = {
    "pfm": "stamp-vit-s",
    "val_fraction": 0.0,
    "shift_um": 48.0,
    "hed_jitter": 0.03,
    "precision": "fp32",
    "threads": 1,
    "checkpoint_minutes": 1.0,
    "progress": False,
}
WARM_UP: dict[str, Any] = {
    "adapt": "frozen", "epochs": 0, "warm_up": "vicreg", "warm_up_steps": 200, "warm_up_batch": 96,
}  # fmt: skip
ADAPT: dict[str, Any] = {
    "smooth_um": 220.0, "target_rank": 3, "batch_spots": 64, "w_contrastive": 0.0, "w_anchor": 0.1,
    "warmup_fraction": 0.15, "lr_heads": 5e-4,
}  # fmt: skip
"""Training targets are denoised: half a mean over neighbours, then three components."""
CANDIDATES: dict[str, dict[str, Any]] = {"gentle": {"epochs": 12, "lr": 2e-3}, "bold": {"epochs": 16, "lr": 5e-3}}
RUNGS: dict[str, dict[str, Any]] = {
    "lora_r8": {"adapt": "lora", "lora_r": 8, "lora_alpha": 16.0},
    "lora_r32": {"adapt": "lora", "lora_r": 32, "lora_alpha": 64.0},
    "full_finetune": {"adapt": "full"},
    "random_sets": {"adapt": "lora", "lora_r": 8, "lora_alpha": 16.0, "control": "random-sets"},
    "shuffled": {"adapt": "lora", "lora_r": 8, "lora_alpha": 16.0, "control": "shuffled"},
}
LORA = ("lora_r8", "lora_r32")
ONLY_RIDGE = ("floor_29_features", "frozen_ridge", "random_sets")
FULL_LR_SHARE = 0.03
"""Full fine-tuning moves all weights, so it takes a thirtieth of LoRA's rate."""


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for cohorts and runs; kept between calls")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--jobs", type=int, default=2, help="folds trained at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one fold, a few steps, nothing written")
    parser.add_argument("--fold", help=argparse.SUPPRESS)  # a child process
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.fold:
        train_fold(args.fold, args)
        return
    folds = SECTIONS[:1] if args.quick else SECTIONS
    clock = time.perf_counter()
    her2st_cohort(args)
    run_children(folds, args)
    ladder = {fold: json.loads((args.work / fold / "evaluation.json").read_text(encoding="utf-8")) for fold in folds}
    document = {
        **summarise(ladder),
        **synthetic(args),
        **loader_speed(args),
        "folds": ladder,
        "quick": args.quick,
        "seconds_this_call": round(time.perf_counter() - clock),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    text = markdown(document)
    print(text)
    if not args.quick:
        keep("training", document, text, args.results)


def her2st_cohort(args: argparse.Namespace) -> Path:
    """The cohort of the four sections, by `cohort build`."""
    work: Path = args.work
    out, source = work / "cohort", args.data / "st" / "her2st"
    if not (out / "cohort.json").exists():
        lines = ["[cohort]", f"tile_px = {STORED_PX}", f"mpp = {MPP}", "", "[defaults]", 'format = "legacy-st"']
        lines += ['patient_id = "C"', 'organ = "breast"', "spot_pitch_um = 200.0", ""]
        for name in SECTIONS:
            files = {"counts": f"{name}.tsv.gz", "spots": f"{name}_selection.tsv", "image": f"{name}_HE.jpg"}
            lines += ["[[samples]]", f'id = "{name}"']
            lines += [f"{key} = {json.dumps(str((source / file).resolve()))}" for key, file in files.items()]
        config = args.work / "cohort.toml"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        build_cohort(config, out)
    return out


def run_children(folds: Sequence[str], args: argparse.Namespace) -> None:
    """One process per fold, `jobs` at a time."""
    command = [sys.executable, __file__, "--work", str(args.work), "--data", str(args.data)]
    command += ["--quick"] * args.quick
    waiting = list(folds)
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < args.jobs:
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
            running.append(subprocess.Popen([*command, "--fold", waiting.pop(0)], env=one_thread))
        finished = [p for p in running if p.poll() is not None]
        for process in finished:
            running.remove(process)
            if process.returncode:
                raise SystemExit(f"a fold failed with exit code {process.returncode}")
        time.sleep(0.5)


def settings(fold: str, args: argparse.Namespace, *changes: dict[str, Any]) -> TrainConfig:
    """The config of a run that holds `fold` out."""
    values: dict[str, Any] = {
        **LADDER,
        "cohort": str(args.work / "cohort"),
        "gmt": str(next((args.data / "gmt").glob("h.all.*.gmt"))),
        "samples": [s for s in SECTIONS if s != fold],
        "held_out": [fold],
    }
    for change in changes:
        values |= change
    if args.quick:
        values |= {"warm_up_steps": min(3, values.get("warm_up_steps", 0)), "epochs": min(1, values.get("epochs", 1))}
    return TrainConfig.from_dict(values)


def train(config: TrainConfig, out: Path) -> dict[str, Any]:
    """Train a run where it is not there yet; its metrics."""
    from stamp_deploy.training.loop import fit

    if not (out / "run.json").exists():
        clock = time.perf_counter()
        info = fit(config, out)
        print(f"{out.parent.name}/{out.name}: {time.perf_counter() - clock:.0f} s, {info.metrics}", flush=True)
    return dict(load_run(out)[1].metrics)


def train_fold(fold: str, args: argparse.Namespace) -> None:
    """Every run of a fold, the warm-up first; then its rows of the table."""
    import torch

    from stamp_deploy.system.memory import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    folder = args.work / fold
    train(settings(fold, args, WARM_UP), folder / "frozen")
    from_there = {"weights": str(folder / "frozen" / "backbone.safetensors")}
    chosen = choose(fold, args, from_there)
    for rung, change in RUNGS.items():
        candidate = dict(CANDIDATES[chosen])
        if change["adapt"] == "full":
            candidate["lr"] *= FULL_LR_SHARE
        train(settings(fold, args, ADAPT, candidate, change, from_there), folder / rung)
    file = folder / "evaluation.json"
    if not file.exists():
        file.write_text(json.dumps(evaluate_fold(fold, args), indent=2) + "\n", encoding="utf-8")


def choose(fold: str, args: argparse.Namespace, from_there: dict[str, Any]) -> str:
    """The candidate with the best r on inner validation sections: never the held-out one.

    Each candidate trains LoRA r8 on two of the three training sections; the last epoch's r on the third counts, not
    the best epoch's.
    """
    file = args.work / fold / "choice.json"
    if file.exists():
        return str(json.loads(file.read_text(encoding="utf-8"))["chosen"])
    inner = [s for s in SECTIONS if s != fold]
    scores: dict[str, dict[str, float]] = {}
    for name, candidate in CANDIDATES.items():
        scores[name] = {}
        for validation in inner[-1:]:
            change = {"samples": [s for s in inner if s != validation], "validation": [validation], "patience": 0}
            config = settings(fold, args, ADAPT, candidate, RUNGS["lora_r8"], from_there, change)
            out = args.work / fold / f"inner_{name}_{validation}"
            train(config, out)
            scores[name][validation] = last_validation_r(out)
    best = max(scores, key=lambda name: statistics.mean(scores[name].values()))
    file.write_text(json.dumps({"chosen": best, "inner_validation_r": scores}, indent=2), encoding="utf-8")
    return best


def last_validation_r(run: Path) -> float:
    """validation_r of the last epoch in metrics.csv."""
    import csv

    with (run / "metrics.csv").open(encoding="utf-8") as rows:
        return float(list(csv.DictReader(rows))[-1]["validation_r"])


def evaluate_fold(fold: str, args: argparse.Namespace) -> dict[str, Any]:
    """Every row of a fold, by the product's own evaluation: row -> {"head": r, "probe": r}."""
    folder = args.work / fold
    compare = tuple((rung, folder / rung) for rung in ("frozen", *RUNGS) if rung != "lora_r8")
    found = evaluate(EvaluateOptions(folder / "lora_r8", compare=compare, tier1=False))
    rows: dict[str, Any] = {}
    for row in found.document["rows"]:
        if row["result"] is not None:
            rows.setdefault(row["key"], {})[row["how"]] = row["result"]["mean_of_medians"]
    rows["refit"] = refit(fold, args)
    for rung in ("frozen", *RUNGS):
        rows.setdefault("runs", {})[rung] = load_run(folder / rung)[1].metrics
    choice = folder / "choice.json"
    rows["choice"] = json.loads(choice.read_text(encoding="utf-8")) if choice.exists() else None
    return rows


def refit(fold: str, args: argparse.Namespace) -> dict[str, float]:
    """One read-out for all: the product's ridge head, fitted on each run's embedding of the training sections with the
    same denoised Hallmark targets; r on the held-out section. What differs between rungs is the embedding alone."""
    from stamp_deploy.training.model.embed import embed_tiles
    from stamp_deploy.training.model.ridge_heads import set_ridge_heads
    from stamp_deploy.training.run_setup import prepare
    from stamp_deploy.training.validation import validation_r

    inner = {"samples": [s for s in SECTIONS if s != fold], "held_out": [], "validation": [fold]}
    start = prepare(settings(fold, args, ADAPT, inner))  # the held-out section is only scored, as validation would be
    out = {"floor_29_features": floor_denoised(start)}
    for rung in ("frozen", *RUNGS):
        model, info = load_run(args.work / fold / rung)
        if len(info.pathway_names) != len(start.info.pathway_names):
            raise SystemExit(f"{rung} has other outputs")
        set_ridge_heads(model, [embed_tiles(model, info, s.tiles) for s in start.train], start.train)
        out[rung] = round(validation_r(model, info, start.validation), 6)
    return out


def floor_denoised(start: Any) -> float:
    """29 features + ridge on the denoised targets."""
    from stamp_deploy.training.metrics import section_median_r, section_z
    from stamp_deploy.training.ridge import fit_ridge_cv
    from stamp_deploy.training.stain_features import features29

    x = [section_z(features29(s.tiles, start.info.mpp)) for s in start.train]
    groups = [s.sample.id for s in start.train for _ in s.target]
    model = fit_ridge_cv(np.concatenate(x), np.concatenate([s.target for s in start.train]), groups)
    (held,) = start.validation
    predicted = model.predict(section_z(features29(held.tiles, start.info.mpp)))
    return round(section_median_r(held.scores, predicted, held.mask), 6)


def row_of(rows: dict[str, Any], rung: str, how: str) -> float | None:
    """r of a rung in a fold, by the model's head or by a ridge probe."""
    if how == "refit":
        refit: float | None = rows["refit"].get({"frozen_ridge": "frozen"}.get(rung, rung))
        return refit
    place = {
        "floor_29_features": ("features_29", "baseline" if how == "probe" else ""),
        "frozen_ridge": ("frozen_ridge_cv", "baseline" if how == "probe" else ""),
        "lora_r8": ("lora", how),
        "lora_r32": ("lora:lora_r32", how),
        "full_finetune": ("full", how),
        "random_sets": ("random_sets", how),
        "shuffled": ("shuffled", how),
    }
    key, by = place[rung]
    value = rows.get(key, {}).get(by)
    return None if value is None else float(value)


def summarise(ladder: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the folds. The floor and every rung by one read-out, the floor's: ridge on features that are z-scored
    within section (`evaluate`'s probe); shuffled by its own predictions. *_head, *_probe and *_refit are all ways."""
    out: dict[str, Any] = {"floor_reference": REFERENCE_FLOOR}
    for rung in ("floor_29_features", "frozen_ridge", *RUNGS):
        ways = ("probe", "refit") if rung in ONLY_RIDGE else ("head", "probe", "refit")
        values = {how: mean_over(ladder, rung, how) for how in ways}
        out[rung] = values["head" if rung == "shuffled" else "probe"]
        out |= {f"{rung}_{how}": r for how, r in values.items()}
    return out


def mean_over(ladder: dict[str, dict[str, Any]], rung: str, how: str) -> float:
    """Mean over the folds, 4 digits."""
    values = [row_of(rows, rung, how) for rows in ladder.values()]
    return round(statistics.mean(v for v in values if v is not None), 4)


def synthetic(args: argparse.Namespace) -> dict[str, Any]:
    """r on a held-out synthetic section, over the programs that leave a trace in the picture, and shuffled."""
    from stamp_deploy.export.demo import synthetic as made

    folder = args.work / "synthetic"
    seeds = (21, 22) if args.quick else (21, 22, 23, 24, 25, 26)
    size = {"width": 1920, "height": 1920} if args.quick else {}
    if not (folder / "cohort" / "cohort.json").exists():
        config = made.write_cohort(folder / "raw", seeds, **size)
        config.write_text(config.read_text(encoding="utf-8").replace("tile_px = 64", "tile_px = 128"), encoding="utf-8")
        build_cohort(config, folder / "cohort")
    held = f"section-{seeds[-1]}"
    common = {
        **LADDER, "mpp": 1.0, "shift_um": 8.0, "cohort": str(folder / "cohort"), "samples": [],
        "gmt": str(folder / "raw" / "programs.gmt"), "held_out": [held], "w_contrastive": 0.0,
    }  # fmt: skip
    frozen = folder / "frozen"
    train(settings("", args, common, WARM_UP), frozen)
    fixed = {"lr_heads": 5e-4, "warmup_fraction": 0.15, "batch_spots": 24, "head_final": "ridge"}
    out: dict[str, Any] = {}
    for name, change in (("run", {}), ("shuffled", {"control": "shuffled"})):
        start = {"weights": str(frozen / "backbone.safetensors"), "adapt": "full", "epochs": 10, "lr": 1e-4}
        train(settings("", args, common, start, fixed, change), folder / name)
        options = EvaluateOptions(folder / name, tier1=False)
        rows = [row for row in evaluate(options).document["rows"] if row["how"] == "head" and row["result"]]
        programs = {k: v["mean_r"] for k, v in rows[0]["result"]["per_pathway"].items()}
        out[name] = programs
    visible = [p for p in out["run"] if p in made.VISIBLE]
    return {
        "synthetic_r": round(statistics.median(out["run"][p] for p in visible), 4),
        "synthetic_shuffled": round(statistics.median(out["shuffled"][p] or 0.0 for p in visible), 4),
        "synthetic_programs": out,
    }


def loader_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Tiles a second of the loader alone and of the training step, on the ladder's own data, interleaved."""
    import torch

    from stamp_deploy.system.memory import keep_memory
    from stamp_deploy.training.data import Loader
    from stamp_deploy.training.model import build_model
    from stamp_deploy.training.objective import Alignment
    from stamp_deploy.training.run_setup import prepare

    keep_memory()
    torch.set_num_threads(1)
    config = settings(SECTIONS[0], args, ADAPT, RUNGS["lora_r8"])
    start = prepare(config)
    info = start.info
    loader = Loader(start.train, config, info.tile_px, info.mean, info.std, info.mpp)
    step = Alignment(build_model(info), config).train()
    load, compute = [], []
    for epoch in range(1 if args.quick else 5):
        clock = time.perf_counter()
        batches = [loader.make(rows, epoch, i) for i, rows in enumerate(loader._plan(epoch))]
        load.append(sum(len(b.tiles) for b in batches) / (time.perf_counter() - clock))
        clock = time.perf_counter()
        for batch in batches[:1] if args.quick else batches:
            step(*batch.fields())[0].backward()
        count = len(batches[0].tiles) if args.quick else sum(len(b.tiles) for b in batches)
        compute.append(count / (time.perf_counter() - clock))
    return {
        "loader_tiles_per_s": round(statistics.median(load), 1),
        "loader_spread": [round(min(load), 1), round(max(load), 1)],
        "step_tiles_per_s": round(statistics.median(compute), 1),
        "step_spread": [round(min(compute), 1), round(max(compute), 1)],
        "loader_over_step": round(statistics.median(load) / statistics.median(compute), 2),
    }


def markdown(d: dict[str, Any]) -> str:
    """benchmarks/results/training.md."""
    folds = d["folds"]
    names = {
        "floor_29_features": "29 stain and texture features + ridge",
        "frozen_ridge": "frozen backbone + ridge",
        "lora_r8": "LoRA r8",
        "lora_r32": "LoRA r32",
        "full_finetune": "full fine-tuning",
        "random_sets": "control: LoRA r8 on random gene sets",
        "shuffled": "control: LoRA r8 on shuffled targets",
    }
    lines = [
        "# Training, measured",
        "",
        f"Written by benchmarks/bench_training.py on {d['machine']}; Pearson r within the held-out section, median",
        "over 50 Hallmark UCell scores, unsmoothed. Each section is held out in turn and trained on the other three.",
        "",
        "| rung | by | " + " | ".join(folds) + " | mean |",
        "|---|---|" + "---|" * (len(folds) + 1),
    ]
    for rung, label in names.items():
        for how in ("head", "probe", "refit"):
            values = [row_of(rows, rung, how) for rows in folds.values()]
            if any(v is None for v in values) or (how == "head" and rung in ONLY_RIDGE):
                continue
            shown = " | ".join(f"{v:.3f}" for v in values if v is not None)
            by = {"head": "own head", "probe": "ridge", "refit": "ridge, denoised"}[how]
            mean = statistics.mean(v for v in values if v is not None)
            lines.append(f"| {label} | {by} | {shown} | **{mean:.3f}** |")
    best = max((*LORA, "full_finetune"), key=lambda k: d[k])
    lines += [
        "",
        f"The floor that was measured before this project began, with other code, is {REFERENCE_FLOOR}.",
        "`ridge` is the ladder: the procedure by which the floor is defined, on each model's embedding instead of the",
        "29 features (ridge, penalty by cross-validation over the training sections, all z-scored within section; what",
        "`evaluate` calls the probe), so that rows differ by the embedding alone. Two more ways of reading show what",
        "hangs on the read-out: `own head` is the pathway head as gradient descent left it; `ridge, denoised` is",
        '`head_final = "ridge"`, with the denoised targets that the runs learn from.',
        "Random gene sets: size-matched; that run's own head predicts other scores and cannot be compared.",
        "Shuffled: the targets of each training section are permuted among its spots. Its embedding stays near the",
        "frozen one, so ridge with true targets on it is another frozen row; its own head is the control.",
        "",
        "## Bars",
        "",
        _bar("best rung over the reference floor", d[best], REFERENCE_FLOOR, names[best]),
        _bar("best rung over the floor as measured here", d[best], d["floor_29_features"], names[best]),
        *(_bar(f"{names[r]} over its own frozen backbone", d[r], d["frozen_ridge"]) for r in LORA),
        *(_bar(f"{names[r]} over random gene sets", d[r], d["random_sets"]) for r in LORA),
        *(_bar(f"{names[r]} over shuffled targets, their own predictions", d[r], d["shuffled"]) for r in LORA),
        *(_bar(f"{names[r]} over shuffled targets, the same read-out", d[r], d["shuffled_probe"]) for r in LORA),
        "",
        "By the other ways of reading:",
        "",
        *(
            _bar(f"{names[r]} over frozen, both by denoised ridge", d[f"{r}_refit"], d["frozen_ridge_refit"])
            for r in (*LORA, "full_finetune")
        ),
        *(
            _bar(f"{names[r]}, own head, over frozen + ridge", d[f"{r}_head"], d["frozen_ridge"])
            for r in (*LORA, "full_finetune")
        ),
        "",
        "The gain over the frozen backbone, section by section (`ridge`):",
        "",
        *(f"- {names[r]}: " + ", ".join(_gains(folds, r)) for r in (*LORA, "full_finetune", "random_sets", "shuffled")),
        "",
        "## What was chosen, and on what",
        "",
        "Each fold chose one of two candidates (rate and epochs) on one of its own training sections, trained on the",
        "two others; no fold's held-out section took part. The ranges that the candidates come from, and the",
        "denoising of targets, were explored before on another patient's section (B4) and on one inner split, C3 and",
        "C4 for training and C5 for validation. So the fold that holds C5 out is not wholly free of C5. That the",
        "column `ridge` is the ladder was settled when two folds had been read in all three ways; all three are shown",
        "with their bars. Without the C5 fold the means of `ridge` are:",
        ", ".join(f"{label} {_without(folds, rung, 'C5'):.3f}" for rung, label in names.items() if rung != "shuffled")
        + ".",
        "",
    ]
    for fold, rows in folds.items():
        choice = rows.get("choice")
        if choice:
            shown = "; ".join(
                f"{name} " + ", ".join(f"{v:.3f} ({s})" for s, v in scores.items())
                for name, scores in choice["inner_validation_r"].items()
            )
            lines.append(f"- {fold} held out: {choice['chosen']} (r on inner validation: {shown})")
    lines += ["", "## Synthetic cohort, held-out section", "", "| program | r | shuffled |", "|---|---|---|"]
    programs = d["synthetic_programs"]
    for name, r in programs["run"].items():
        lines.append(f"| {name} | {_shown(r)} | {_shown(programs['shuffled'][name])} |")
    lines += [
        "",
        f"Median over the programs that leave a trace in the picture: {d['synthetic_r']:.3f} (bar: .9 or more);",
        f"shuffled {d['synthetic_shuffled']:.3f} (bar: .1 or less). UNSEEN leaves no trace: near 0 is right.",
        "",
        "## Loader",
        "",
        f"One thread each: loader alone {d['loader_tiles_per_s']} tiles/s ({d['loader_spread'][0]} to "
        f"{d['loader_spread'][1]}), training step",
        f"{d['step_tiles_per_s']} tiles/s ({d['step_spread'][0]} to {d['step_spread'][1]}): ratio "
        f"{d['loader_over_step']}. The loader works in a thread of its own beside the step.",
        "",
    ]
    return "\n".join(lines)


def _without(folds: dict[str, Any], rung: str, left_out: str) -> float:
    """Mean of the `ridge` column without a fold."""
    values = [row_of(rows, rung, "probe") for f, rows in folds.items() if f != left_out]
    return statistics.mean(v for v in values if v is not None) if values else float("nan")


def _gains(folds: dict[str, Any], rung: str) -> list[str]:
    """Signed differences to the frozen backbone by fold."""
    pairs = {f: (row_of(rows, rung, "probe"), row_of(rows, "frozen_ridge", "probe")) for f, rows in folds.items()}
    return [f"{f} {a - b:+.3f}" for f, (a, b) in pairs.items() if a is not None and b is not None]


def _shown(r: float | None) -> str:
    return "-" if r is None else f"{r:.3f}"


def _bar(what: str, value: float, limit: float, by: str = "") -> str:
    verdict = "met" if value > limit else "NOT met"
    return f"- {what}: {value:.3f} against {limit:.3f}, {verdict} by {value - limit:+.3f}" + (f" ({by})" if by else "")


if __name__ == "__main__":
    main()
