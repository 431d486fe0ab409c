"""The evaluation as a person reads it: a table on the terminal, pictures and evaluation.json in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stamp_deploy.atomic import staged_directory, write_json_atomic

from .evaluate import Evaluation
from .pictures import draw_maps, draw_scatter, map_looks

if TYPE_CHECKING:
    from rich.table import Table


def rich_table(evaluation: Evaluation) -> Table:
    """One line per row: its own prediction, and the ridge probe on its embedding where it has one."""
    from rich import box
    from rich.table import Table as RichTable

    tests = [t["id"] for t in evaluation.document["tested_on"]]
    few = tests if len(tests) <= 4 else []
    table = RichTable(title="Pearson r, median over pathways", title_justify="left", box=box.SIMPLE)
    table.add_column("row", no_wrap=True)
    for name in ("mean", "95 %", "pooled", *few, "probe", "neighb.", "depth", "partial"):
        table.add_column(name, justify="right", no_wrap=True)
    keys = list(dict.fromkeys(row.key for row in evaluation.rows))
    for key in keys:
        rows = {row.how: row for row in evaluation.rows if row.key == key}
        own, probe = rows.get("baseline") or rows.get("head"), rows.get("probe")
        label = next(iter(rows.values())).label
        around = rows.get("neighbours")
        near = _number(around.result["mean_of_medians"]) if around is not None and around.result is not None else ""
        probed = _number(probe.result["mean_of_medians"]) if probe is not None and probe.result is not None else ""
        if own is None or own.result is None:
            missing = "" if probed else "not run"
            depth = _depth(probe.result) if probe is not None and probe.result is not None else ("", "")
            table.add_row(label, missing, *[""] * (2 + len(few)), probed, near, *depth, style=None if probed else "dim")
            continue
        result = own.result
        table.add_row(
            label,
            _number(result["mean_of_medians"]),
            _interval(result["interval"]) if key != "slide_mean" else "",
            _number(result["pooled_median"]),
            *(_number(result["per_section"][name]["median_r"]) for name in few),
            probed,
            near,
            *_depth(result),
        )
    return table


def _depth(result: dict[str, Any]) -> tuple[str, str]:
    """The prediction's r with depth, and r given depth."""
    return _number(result["predicted_depth_r"]), _number(result["partial_r"])


def _interval(interval: dict[str, Any]) -> str:
    if interval["low"] is None:
        return "none"
    mark = "" if interval["unit"] == "patients" else " *"
    return f"{_number(interval['low'])} to {_number(interval['high'])}{mark}"


def footnotes(evaluation: Evaluation) -> list[str]:
    """What has to be read with the table."""
    document = evaluation.document
    lines = [
        "mean: over sections. pooled: all spots together, each section z-scored. probe: mean of ridge on the run's "
        "embedding; neighb.: on it beside the mean of the neighbours'",
    ]
    intervals = [row.result["interval"] for row in evaluation.rows if row.result is not None]
    drawn = next((i for i in intervals if i["unit"] != "patients" and i["low"] is not None), None)
    if drawn is not None:
        lines.append(f"* drawn over {drawn['note']}" if drawn["unit"] == "blocks" else f"* sections of {drawn['note']}")
    elif any(i["low"] is None for i in intervals):
        lines.append("no interval exists: one section of one patient")
    else:
        lines.append("95 % interval: bootstrap over patients")
    truth = next((row.result["depth_r"] for row in evaluation.rows if row.result is not None), None)
    lines.append(
        f"depth: r of the prediction with the log of detected genes (the measured scores': {_number(truth)}); partial: "
        "r given log counts and log genes"
    )
    guard = document["guard"]
    if guard is not None:
        verdict = "kept" if guard["ok"] else "BROKEN: the adapter has bent the model far"
        lines.append(f"guard: mean cosine to the frozen embedding {guard['mean_cosine']:.3f} (.8 or more): {verdict}")
    tier1 = document["tier1"]
    if tier1 is not None:
        values = ", ".join(f"{k.replace('_', ' ')} {_number(v)}" for k, v in tier1["mean_r"].items())
        lines.append(f"tier 1, {len(tier1['genes'])} genes (HEST-Bench protocol; {tier1['split']}): mean r {values}")
    lines += _batch_effects(document["batch_effects"])
    lines += _retrieval(document["retrieval"])
    lines += [f"warning: {w}" for w in document["warnings"]]
    return [*lines, *_not_run(evaluation), *_verdict(document["verdict"])]


def _batch_effects(found: dict[str, Any] | None) -> list[str]:
    """How well each label is told from the embedding, before and after."""
    lines = []
    for label, after in (found or {}).get("adapted", {}).items():
        before = (found or {}).get("frozen", {}).get(label)
        probe = f"{_number(before['probe'])} to " if before else ""
        apart = f"{_signed(before['silhouette'])} to " if before else ""
        lines.append(
            f"batch effects: {label} told from the embedding (frozen to adapted) {probe}{_number(after['probe'])} of "
            f"held-out {after['held_out']} (chance {_number(after['chance'])}); silhouette "
            f"{apart}{_signed(after['silhouette'])}"
        )
    return lines


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _retrieval(found: dict[str, Any]) -> list[str]:
    """Recall@5 both ways, a line for each matching of each run."""
    lines = []
    for run, kinds in found.items():
        for kind in (k for k in kinds if k != "chance"):
            way = {name: values["recall_at_5"] for name, values in kinds[kind].items()}
            lines.append(
                f"retrieval, {run} by {kind.replace('_', ' ')}: recall@5 within the section, picture to molecules "
                f"{_number(way['picture_to_molecules'])}, molecules to picture {_number(way['molecules_to_picture'])} "
                f"(chance {_number(kinds['chance']['recall_at_5'])})"
            )
    return lines


READ_OUTS = {"head": "heads", "probe": "ridge", "neighbours": "ridge with neighbours"}


def _verdict(verdict: dict[str, Any] | None) -> list[str]:
    """The paired differences of the run, the rule, and the verdict as the last word."""
    if verdict is None:
        return []
    lines = []
    for c in verdict["comparisons"]:
        interval, how = c["interval"], READ_OUTS[c["how"]]
        shown = "no interval" if interval["low"] is None else f"{interval['low']:+.3f} to {interval['high']:+.3f}"
        lines.append(f"run minus {c['label']} (both by {how}): {c['difference']:+.3f} [{shown}] {c['word']}")
    return [*lines, f"rule: {verdict['rule']}", verdict["sentence"]]


def _not_run(evaluation: Evaluation) -> list[str]:
    """Why rows have no numbers: one command for all runs that are missing, and the other reasons one by one."""
    missing = [row for row in evaluation.rows if row.missing]
    runs = [row for row in missing if " --rows " in row.missing]
    lines = []
    if runs:
        command = runs[0].missing.replace(f"--rows {runs[0].key} ", f"--rows {','.join(row.key for row in runs)} ")
        lines.append(f"not run: {command}, then evaluate with --ablations ABLATIONS")
    for reason in dict.fromkeys(row.missing for row in missing if row not in runs):
        labels = ", ".join(dict.fromkeys(row.label for row in missing if row.missing == reason))
        lines.append(f"not run: {labels}: {reason}")
    return lines


def write_evaluation(evaluation: Evaluation, out: Path, *, overwrite: bool = False, pictures: bool = True) -> None:
    """Write evaluation.json, and for each section maps and scatter plots, whole or not at all."""
    with staged_directory(out, overwrite=overwrite) as staging:
        write_json_atomic(staging / "evaluation.json", evaluation.document)
        best = best_run(evaluation)
        if pictures and best is not None:
            for section, result in zip(evaluation.tests, evaluation.sections[best], strict=True):
                xy = np.asarray(section.sample.expression().obsm["spatial"], np.float64)
                styles = map_looks(evaluation.names, result, evaluation.document["validation"])
                draw_maps(staging / f"maps-{result.id}.png", result, styles, xy, best)
                draw_scatter(staging / f"scatter-{result.id}.png", result, evaluation.names, best)


def best_run(evaluation: Evaluation) -> str | None:
    """The row that the pictures show: the evaluated run's own head, else its probe."""
    key = evaluation.document["run"]["row"]
    return next((f"{key}/{how}" for how in ("head", "probe") if f"{key}/{how}" in evaluation.sections), None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".")
