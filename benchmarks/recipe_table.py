"""The recipes side by side on synthetic sections: a part of bench_training.py.

One backbone (a small transformer of random weights, warmed up on pixels), one cohort, the same LoRA, rates and epochs;
what differs is the recipe. The held-out section's programs are known. Recipes of one field of view and of two are
compared with a run of pathways on as many. A small cohort of drawn tissue says whether a recipe works as it should, not
which is best on real tissue.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from stamp_deploy.training.ablations import train_ablations
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

SEEDS = (31, 32, 33, 34)
SIDE_PX = 2400
BASE: dict[str, Any] = {
    "pfm": "demo-vit", "mpp": 1.0, "shift_um": 0.0, "val_fraction": 0.0, "hed_jitter": 0.03, "precision": "fp32",
    "threads": 1, "progress": False, "controls": False,
}  # fmt: skip
WARM_UP: dict[str, Any] = {
    "adapt": "frozen", "epochs": 0, "warm_up": "vicreg", "warm_up_steps": 200, "warm_up_batch": 96,
}  # fmt: skip
ADAPT: dict[str, Any] = {
    "adapt": "lora", "lr": 2e-3, "lr_heads": 1e-3, "epochs": 6, "batch_spots": 48, "w_contrastive": 0.0,
    "w_anchor": 0.1, "head_final": "ridge",
}  # fmt: skip
FIELDS = {"one_field": (), "two_fields": (64.0, 128.0)}


def recipe_table(args: argparse.Namespace) -> dict[str, Any]:
    """``recipes``: fields -> recipe -> median r over the visible programs by ridge, the frozen model's by the same, and
    recall@5 of pictures among molecules where the recipe matches them."""
    from stamp_deploy.export.demo import synthetic as made

    folder: Path = args.work / "recipes"
    seeds, side = (SEEDS[:2], 1440) if args.quick else (SEEDS, SIDE_PX)
    if not (folder / "cohort" / "cohort.json").exists():
        config = made.write_cohort(folder / "raw", seeds, width=side, height=side)
        config.write_text(config.read_text(encoding="utf-8").replace("tile_px = 64", "tile_px = 128"), encoding="utf-8")
        build_cohort(config, folder / "cohort", pictures=False)
    common = {
        **BASE, "cohort": str(folder / "cohort"), "gmt": str(folder / "raw" / "programs.gmt"),
        "held_out": [f"section-{seeds[-1]}"],
    }  # fmt: skip
    frozen = folder / "frozen"
    if not (frozen / "run.json").exists():
        from stamp_deploy.training.loop import fit

        fit(TrainConfig.from_dict({**common, **WARM_UP, **({"warm_up_steps": 3} if args.quick else {})}), frozen)
    out: dict[str, Any] = {}
    for fields, sides in FIELDS.items():
        changes = {"epochs": 1, "teacher_steps": 3} if args.quick else {}
        base = {**common, **ADAPT, "fields_um": list(sides), "weights": str(frozen / "backbone.safetensors"), **changes}
        table = folder / fields
        for row, info in train_ablations(TrainConfig.from_dict(base), table, ("lora", "recipes"), say=print):
            print(f"{fields} {row}: {info.metrics['seconds']} s", flush=True)
        out[fields] = _rows(table, made.VISIBLE)
    return {"recipes": out}


def _rows(table: Path, visible: tuple[str, ...]) -> dict[str, Any]:
    document = evaluate(EvaluateOptions(table / "lora", ablations=table, tier1=False)).document
    out: dict[str, Any] = {}
    for row in document["rows"]:
        own = row["how"] == "probe" or (row["key"] == "frozen_ridge_cv" and row["how"] == "baseline")
        if row["result"] is None or not own:
            continue
        r = [row["result"]["per_pathway"][name]["mean_r"] for name in visible]
        entry: dict[str, Any] = {"r": round(statistics.median(r), 4)}
        found = document["retrieval"].get(row["key"], {})
        for kind, ways in found.items():
            if kind != "chance":
                entry["recall_at_5"] = ways["picture_to_molecules"]["recall_at_5"]
                entry["recall_at_5_chance"] = found["chance"]["recall_at_5"]
        out["stamp" if row["key"] == "lora" else row["key"].removesuffix("_ridge_cv")] = entry
    return out


def recipe_lines(table: dict[str, Any]) -> list[str]:
    """Of training.md."""
    lines = ["", "## Recipes, on a synthetic section", ""]
    lines += [
        "One small transformer from random weights, the same LoRA, rates and epochs; ridge on the embedding, median",
        "r over the programs that leave a trace; 1 seed. docs/recipes.md says what each recipe is.",
        "",
    ]
    lines += ["| fields of view | recipe | r | recall@5 of its molecules by picture (chance) |", "|---|---|---|---|"]
    for fields, rows in table.items():
        for name, row in rows.items():
            found = f"{row['recall_at_5']:.3f} ({row['recall_at_5_chance']:.3f})" if "recall_at_5" in row else ""
            lines.append(f"| {fields.replace('_', ' ')} | {name} | {row['r']:.3f} | {found} |")
    return lines
