"""What alignment teaches, measured on real sections: the ladder of the recipe `stamp`, its controls, and the loader.

    python benchmarks/bench_training.py --work DIR [--seeds 3] [--rungs A,B] [--full] [--parts A,B] [--quick]

1. The ladder on her2st C2 to C5: each section held out in turn, trained on the other three with `train --recipe stamp`
   (EfficientNet-Lite0, three fields of view), 50 Hallmark UCell scores, unsmoothed. Every figure is `evaluate`'s. The
   rungs differ from the recipe in what RUNGS says; nothing is chosen on a held-out section.
2. What taking depth out of the targets does: ridge on the frozen embedding for each setting of `depth`.
3. The synthetic cohort, whose programs are known: held-out r, and r of a run on shuffled targets.
4. The siblings' recipes beside each other on a small synthetic cohort (recipe_table.py).
5. Tiles per second of the loader alone, on one core, against the training step.

Runs lie in DIR/FOLD/SEED/RUNG and are kept, as are kept views and the work of frozen layers: a second call does only
what is missing. One process, one thread. Parts that are not asked for keep the figures that stand in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_slides import DATA, ROOT
from recipe_table import recipe_table
from result_files import keep, written_by
from training_rungs import FULL, ONE_SEED, PAIRS, ROWS, RUNGS
from training_table import markdown

from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.intervals import block_r
from stamp_deploy.training.metrics import SectionResult, headline, mean_over_pathways, mean_r
from stamp_deploy.training.model import read_info
from stamp_deploy.training.recipes import read_recipe

SECTIONS = ("C2", "C3", "C4", "C5")
STORED_PX, MPP = 356, 0.7
"""Stored tiles are larger than the largest field's 320 px, so that crops can be moved."""
PARTS = ("ladder", "depth", "synthetic", "loader", "recipes")
CARRIED = (
    "depth_targets", "synthetic_r", "synthetic_shuffled", "synthetic_programs", "loader_tiles_s_core", "loader_spread",
    "recipes",
    "loader_measured",
)  # fmt: skip
"""Figures of the parts that can be left out."""
SYNTHETIC: dict[str, Any] = {
    "pfm": "stamp-vit-s", "val_fraction": 0.0, "hed_jitter": 0.03, "precision": "fp32", "threads": 1,
    "checkpoint_minutes": 1.0, "progress": False,
}  # fmt: skip
WARM_UP: dict[str, Any] = {
    "adapt": "frozen", "epochs": 0, "warm_up": "vicreg", "warm_up_steps": 200, "warm_up_batch": 96,
}  # fmt: skip


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for cohorts and runs; kept between calls")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rungs", default=",".join(RUNGS), help="of the ladder; last_stage is always among them")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure: " + ", ".join(PARTS))
    parser.add_argument("--full", action="store_true", help="with full fine-tuning, with the first seed")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one fold, an epoch, nothing written")
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(1)
    her2st_cohort(args)
    before = args.results / "training.json"
    kept: dict[str, Any] = json.loads(before.read_text(encoding="utf-8")) if before.exists() and not args.quick else {}
    parts = args.parts.split(",")
    document = kept  # with the date and machine of its ladder
    if "ladder" in parts or not kept:
        document = {k: v for k, v in kept.items() if k in CARRIED} | climb(args)
    measures = {"depth": depth_table, "synthetic": synthetic, "loader": loader_speed, "recipes": recipe_table}
    for part, measure in measures.items():
        if part in parts:
            document |= measure(args)
    text = markdown(document)
    print(text)
    if not args.quick:
        keep("training", document, text, args.results)


def climb(args: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate every rung of every fold and seed; the figures of the ladder."""
    clock = time.perf_counter()
    folds, seeds = (SECTIONS[:1], 1) if args.quick else (SECTIONS, args.seeds)
    found: dict[int, dict[str, list[SectionResult]]] = {}
    for seed in range(seeds):
        for rung in rungs(args, seed):
            for fold in folds:
                train(settings(fold, args, seed, rung), args.work / fold / str(seed) / rung)
        found[seed] = ladder(folds, args, seed)
    return summarise(found) | {
        "seeds": seeds,
        "folds": list(folds),
        "sections": per_section(found),
        "seconds_a_run": {r: seconds(folds, args, 1 if r in ONE_SEED else seeds, r) for r in rungs(args, 0)},
        "quick": args.quick,
        "seconds_this_call": round(time.perf_counter() - clock),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def rungs(args: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """The rungs to train with a seed, and what they change. Full fine-tuning, the slowest, has the first seed alone."""
    wanted = {"last_stage", *args.rungs.split(",")}
    full = {"full_finetune": FULL} if args.full and seed == 0 else {}
    return {k: v for k, v in RUNGS.items() if k in wanted} | full


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


def gmt(args: argparse.Namespace) -> str:
    """The Hallmark gene sets."""
    return str(next((args.data / "gmt").glob("h.all.*.gmt")))


def settings(fold: str, args: argparse.Namespace, seed: int, rung: str, **changes: Any) -> TrainConfig:
    """The config of a run that holds `fold` out: the recipe, with what the rung changes."""
    values: dict[str, Any] = {
        **read_recipe("stamp"),
        "cohort": str(args.work / "cohort"),
        "gmt": gmt(args),
        "samples": [s for s in SECTIONS if s != fold],
        "held_out": [fold],
        "val_fraction": 0.0,  # one patient: nothing to stop on
        "cache_dir": str(args.work / "views"),
        "seed": seed,
        "threads": 1,
        "progress": False,
        **rungs(args, seed).get(rung, {}),
        **changes,
    }
    if args.quick:
        values["epochs"] = min(1, values["epochs"])
    return TrainConfig.from_dict(values)


def train(config: TrainConfig, out: Path) -> dict[str, Any]:
    """Train a run where it is not there yet; its metrics."""
    from stamp_deploy.training.loop import fit

    if not (out / "run.json").exists():
        clock = time.perf_counter()
        info = fit(config, out)
        print(f"{out}: {time.perf_counter() - clock:.0f} s, {info.metrics}", flush=True)
    return dict(read_info(out).metrics)


def seconds(folds: Sequence[str], args: argparse.Namespace, seeds: int, rung: str) -> float:
    """Mean time of the training loop of a run, views not counted."""
    runs = [args.work / fold / str(seed) / rung for fold in folds for seed in range(seeds)]
    return round(statistics.mean(float(read_info(run).metrics["seconds"]) for run in runs), 1)


def ladder(folds: Sequence[str], args: argparse.Namespace, seed: int) -> dict[str, list[SectionResult]]:
    """Every row of every fold, by the product's own evaluation: row -> results of the held-out sections."""
    out: dict[str, list[SectionResult]] = {}
    for fold in folds:
        folder = args.work / fold / str(seed)
        file = folder / "predictions.npz"
        if not file.exists() or not set(rungs(args, seed)) <= _rows(file):
            compare = tuple((rung, folder / rung) for rung in rungs(args, seed) if rung != "last_stage")
            options = EvaluateOptions(folder / "last_stage", compare=compare, tier1=False, cache=args.work / "trunk")
            made = evaluate(options)
            print(made.document["verdict"]["sentence"], flush=True)
            (folder / "evaluation.json").write_text(json.dumps(made.document, indent=1) + "\n", encoding="utf-8")
            rows = {name: made.sections[key][0] for name, key in ROWS.items() if key in made.sections}
            first = next(iter(rows.values()))
            facts = {"truth": first.truth, "mask": first.mask, "xy_um": first.xy_um, "depth": first.depth}
            predicted = {f"row/{name}": r.predicted for name, r in rows.items()}
            np.savez(file, **{k: np.asarray(v) for k, v in {**facts, **predicted}.items()})  # type: ignore[arg-type]
        with np.load(file, allow_pickle=False) as kept:
            for name in kept.files:
                if name.startswith("row/"):
                    row = SectionResult(
                        fold, "C", kept["truth"], kept[name], kept["mask"], kept["xy_um"], kept["depth"]
                    )
                    out.setdefault(name.removeprefix("row/"), []).append(row)
    return out


def _rows(file: Path) -> set[str]:
    """The rows whose predictions a file holds."""
    with np.load(file, allow_pickle=False) as kept:
        return {name.removeprefix("row/") for name in kept.files if name.startswith("row/")}


def summarise(found: dict[int, dict[str, list[SectionResult]]]) -> dict[str, Any]:
    """Median r over pathways, mean over sections and seeds, of every row; differences of mean r, with intervals."""
    out: dict[str, Any] = {}
    rows = {name: [made[name] for made in found.values() if name in made] for name in found[0]}
    for name, of_seeds in rows.items():
        out[name] = round(statistics.mean(headline(r) for r in of_seeds), 4)
    out["aligned_ridge"] = out["last_stage"]
    for key, row in (("frozen", "frozen_ridge"), ("aligned", "last_stage")):
        for kind in ("partial_r", "predicted_depth_r"):
            values = [np.nanmedian(getattr(s, kind)) for results in rows[row] for s in results]
            out[f"{kind}_{key}"] = round(float(np.mean(values)), 4)
    out["truth_depth_r"] = round(float(np.mean([np.nanmedian(s.depth_r) for s in rows["frozen_ridge"][0]])), 4)
    for name, (a, b) in PAIRS.items():
        if a in rows and b in rows:
            value, low, high = difference(rows[a], rows[b])
            out |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return out


def difference(a: list[list[SectionResult]], b: list[list[SectionResult]]) -> tuple[float, float, float]:
    """Mean r over pathways of `a` minus `b`, mean over seeds and sections, and its 95 % interval by the block
    bootstrap: all seeds and both rows see the same draws of a section's blocks."""
    draws = np.mean([_draws(x) - _draws(y) for x, y in zip(a, b, strict=True)], axis=0)
    value = statistics.mean(mean_r(x) - mean_r(y) for x, y in zip(a, b, strict=True))
    low, high = np.percentile(draws, [2.5, 97.5])
    return round(value, 4), round(float(low), 4), round(float(high), 4)


def _draws(sections: list[SectionResult]) -> NDArray[np.float64]:
    drawn = block_r(sections)
    assert len(drawn) == len(sections)
    return np.asarray(np.mean([mean_over_pathways(r) for r in drawn], axis=0), np.float64)


def per_section(found: dict[int, dict[str, list[SectionResult]]]) -> dict[str, dict[str, float]]:
    """Row -> section -> median r, mean over seeds."""
    return {
        name: {
            s.id: round(
                statistics.mean(float(np.nanmedian(made[name][i].r)) for made in found.values() if name in made), 4
            )
            for i, s in enumerate(results)
        }
        for name, results in found[0].items()
    }


def depth_table(args: argparse.Namespace) -> dict[str, Any]:
    """Ridge on the frozen embedding of the held-out section, its targets with and without depth: r with the plain
    scores, their partial r given depth, r with the scores that were learned, r of those with depth."""
    from stamp_deploy.training.cohort import load_cohort
    from stamp_deploy.training.evaluate.runs import open_run, score_sections
    from stamp_deploy.training.gene_sets import read_gmt
    from stamp_deploy.training.metrics import section_z
    from stamp_deploy.training.ridge import EMBEDDING_FLOOR, fit_ridge_measured

    sets, table = read_gmt(Path(gmt(args))), {}
    folds = SECTIONS[:1] if args.quick else SECTIONS
    samples = list(load_cohort(args.work / "cohort"))
    for depth in ("none", "residual", "downsample"):
        rows: list[list[float]] = []
        scored = {s.sample.id: s for s in score_sections(samples, sets, "ucell", depth)}
        plain = {s.sample.id: s for s in score_sections(samples, sets, "ucell")}
        for fold in folds:
            run = open_run(args.work / fold / "0" / "last_stage", cache=args.work / "trunk")
            x = {s.id: run.frozen(s) - run.frozen(s).mean(axis=0) for s in samples}
            names = [n for n in SECTIONS if n != fold]
            y, masks = [section_z(scored[n].truth) for n in names], [scored[n].mask for n in names]
            model = fit_ridge_measured([x[n] for n in names], y, masks, names, floor=EMBEDDING_FLOOR)
            predicted = model.predict(x[fold])
            held = plain[fold]
            raw = SectionResult(fold, "C", held.truth, predicted, held.mask, held.xy_um, held.depth)
            own = SectionResult(fold, "C", scored[fold].truth, predicted, held.mask, held.xy_um, held.depth)
            rows.append([float(np.nanmedian(v)) for v in (raw.r, raw.partial_r, own.r, own.depth_r)])
        keys = ("r", "partial_r", "own_r", "own_depth_r")
        table[depth] = {k: round(float(v), 4) for k, v in zip(keys, np.mean(rows, axis=0), strict=True)}
    return {"depth_targets": table}


def synthetic(args: argparse.Namespace) -> dict[str, Any]:
    """r on a held-out synthetic section, over the programs that leave a trace in the picture, and shuffled; a small
    transformer from random weights, warmed up on pixels."""
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
        **SYNTHETIC, "mpp": 1.0, "shift_um": 8.0, "cohort": str(folder / "cohort"),
        "gmt": str(folder / "raw" / "programs.gmt"), "held_out": [held], "w_contrastive": 0.0,
    }  # fmt: skip
    frozen = folder / "frozen"
    steps = {"warm_up_steps": 3} if args.quick else {}
    train(TrainConfig.from_dict({**common, **WARM_UP, **steps}), frozen)
    fixed = {"lr_heads": 5e-4, "warmup_fraction": 0.15, "batch_spots": 24, "head_final": "ridge"}
    out: dict[str, Any] = {}
    for name, change in (("run", {}), ("shuffled", {"control": "shuffled"})):
        start = {"weights": str(frozen / "backbone.safetensors"), "adapt": "full", "lr": 3e-4}
        start["epochs"] = 1 if args.quick else 40
        train(TrainConfig.from_dict({**common, **start, **fixed, **change}), folder / name)
        options = EvaluateOptions(folder / name, tier1=False)
        rows = [row for row in evaluate(options).document["rows"] if row["how"] == "head" and row["result"]]
        own = next(row for row in rows if row["key"] in ("full", "shuffled"))
        out[name] = {k: v["mean_r"] for k, v in own["result"]["per_pathway"].items()}
    visible = [p for p in out["run"] if p in made.VISIBLE]
    return {
        "synthetic_r": round(statistics.median(out["run"][p] for p in visible), 4),
        "synthetic_shuffled": round(statistics.median(out["shuffled"][p] or 0.0 for p in visible), 4),
        "synthetic_programs": out,
    }


def loader_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Tiles of 224 px that one core augments in a second of its own time: crops, stain jitter, turns, normalisation.

    Batches as training draws them, from the mapped file to normalised float32; each is let go before the next is made,
    as in training. The first epoch, which maps the file and takes the memory, is not counted.
    """
    from stamp_deploy.training.data import Loader
    from stamp_deploy.training.run_setup import prepare

    config = settings(SECTIONS[0], args, 0, "last_stage", fields_um=[], field_steps="joined", cache_views=0)
    start = prepare(config)
    info = start.info
    loader = Loader(start.train, config, info.tile_px, info.mean, info.std, info.mpp)
    found = []
    for epoch in range(2 if args.quick else 8):
        clock = time.process_time()
        count = sum(len(loader.make(rows, epoch, i).tiles) for i, rows in enumerate(loader.mine(epoch)))
        if epoch:
            found.append(count / (time.process_time() - clock))
    return {
        "loader_tiles_s_core": round(statistics.median(found), 1),
        "loader_spread": [round(min(found), 1), round(max(found), 1)],
        "loader_measured": written_by(),
    }


if __name__ == "__main__":
    main()
