"""The numbers of bench_training.py for people, in Markdown."""

from __future__ import annotations

from typing import Any

from recipe_table import recipe_lines
from training_rungs import PAIRS

LABELS = {
    "floor_29_features": "29 stain and texture features",
    "depth_only": "sequencing depth of the tested spots (no picture)",
    "frozen_ridge": "frozen",
    "last_stage": "aligned: last stage",
    "lora_r8": "aligned: LoRA r8",
    "lora_r32": "aligned: LoRA r32",
    "full_finetune": "aligned: full fine-tuning",
    "random_sets": "control: last stage on random gene sets",
    "shuffled": "control: last stage on shuffled targets",
    "frozen_with_neighbours": "frozen, with neighbours",
    "aligned_with_neighbours": "aligned: last stage, with neighbours",
    "frozen_head": "frozen, the run's head",
    "last_stage_head": "aligned: last stage, the run's head",
    "lora_r8_head": "aligned: LoRA r8, the run's head",
    "lora_r32_head": "aligned: LoRA r32, the run's head",
    "shuffled_head": "control: shuffled targets, the run's head",
}
BARS = (("frozen_ridge", 0.445), ("aligned_ridge", 0.465), ("aligned_with_neighbours", 0.485), ("synthetic_r", 0.9))


def markdown(d: dict[str, Any]) -> str:
    """benchmarks/results/training.md."""
    folds = d["folds"]
    count = f"{d['seeds']} seed" + "s" * (d["seeds"] > 1)
    lines = [
        "# Training, measured",
        "",
        f"Written by benchmarks/bench_training.py on {d['machine']}; {count}. her2st C2 to C5, one patient: each",
        "section is held out and trained on the other three with `train --recipe stamp` (EfficientNet-Lite0 with",
        "ImageNet weights, fields of 112, 157 and 224 um). Pearson r within the held-out section, median over 50",
        "Hallmark UCell scores, unsmoothed. Read-out: `evaluate`'s probe, ridge with its penalty chosen on training",
        "sections; `the run's head` is ridge on denoised targets; `with neighbours` adds the mean of the 8 neighbours'",
        "embedding.",
        "",
        "| features | " + " | ".join(folds) + " | mean |",
        "|---|" + "---|" * (len(folds) + 1),
    ]
    for key, label in LABELS.items():
        if key in d["sections"]:
            shown = " | ".join(f"{d['sections'][key][f]:.3f}" for f in folds)
            lines.append(f"| {label} | {shown} | **{d[key]:.3f}** |")
    lines += [
        "",
        "## Differences of mean r over pathways",
        "",
        "Paired, by the same read-out; 95 % intervals draw blocks of 600 um within the sections. They say nothing",
        "about other patients.",
        "",
        "| | difference | 95 % |",
        "|---|---|---|",
    ]
    for name in PAIRS:
        if name in d:
            lines.append(
                f"| {name.replace('_', ' ')} | {d[name]:+.3f} | {d[name + '_low']:+.3f} to {d[name + '_high']:+.3f} |"
            )
    lines += [
        "",
        "## Depth",
        "",
        f"Median r of the measured scores with the log of detected genes: {d['truth_depth_r']:.3f}; of predictions:",
        f"frozen {d['predicted_depth_r_frozen']:.3f}, aligned {d['predicted_depth_r_aligned']:.3f}. Partial r given",
        f"log counts and log genes: frozen {d['partial_r_frozen']:.3f}, aligned {d['partial_r_aligned']:.3f}.",
        "",
    ]
    if "depth_targets" in d:
        lines += [
            "Ridge on the frozen embedding, its targets with and without depth:",
            "",
            "| targets | r with plain scores | partial r | r with what was learned | r of that with depth |",
            "|---|---|---|---|---|",
        ]
        for name, row in d["depth_targets"].items():
            shown = " | ".join(f"{row[k]:.3f}" for k in ("r", "partial_r", "own_r", "own_depth_r"))
            lines.append(f"| `{name}` | {shown} |")
    lines += ["", "## Bars", ""]
    lines += [_bar(key, d[key], limit) for key, limit in BARS if key in d]
    lines.append(_bar("aligned_minus_frozen_low", d["aligned_minus_frozen_low"], 0.0))
    if "random_sets" in d:
        lines.append(_bar("aligned_ridge over random_sets", d["aligned_ridge"], d["random_sets"]))
    if "loader_tiles_s_core" in d:
        lines.append(_bar("loader_tiles_s_core (224 px, with stain jitter)", d["loader_tiles_s_core"], 1500.0))
    took = ", ".join(f"{k} {v:.0f}" for k, v in d["seconds_a_run"].items())
    lines += ["", f"Seconds in the training loop per run, views not counted: {took}."]
    if "synthetic_programs" in d:
        lines += ["", "## Synthetic cohort, held-out section", "", "| program | r | shuffled |", "|---|---|---|"]
        programs = d["synthetic_programs"]
        lines += [f"| {n} | {_shown(r)} | {_shown(programs['shuffled'][n])} |" for n, r in programs["run"].items()]
        lines += [
            "",
            f"Median over the programs that leave a trace in the picture: {d['synthetic_r']:.3f}; shuffled",
            f"{d['synthetic_shuffled']:.3f}. UNSEEN leaves no trace: near 0 is right.",
            "One run, one section, one seed: `shuffled` says how far from 0 chance reaches here, not its mean.",
        ]
    if "recipes" in d:
        lines += recipe_lines(d["recipes"])
    return "\n".join([*lines, ""])


def _shown(r: float | None) -> str:
    return "-" if r is None else f"{r:.3f}"


def _bar(what: str, value: float, limit: float) -> str:
    verdict = "met" if value > limit else "NOT met"
    return f"- {what}: {value:.4g} against {limit:.4g}, {verdict}"
