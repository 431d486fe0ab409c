"""The evaluation as a person reads it: a table on the terminal, pictures and evaluation.json in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.atomic import staged_directory, write_json_atomic
from stamp_deploy.map_style import MapStyle, map_styles
from stamp_deploy.pathway_names import display_name
from stamp_deploy.validation import PathwayValidation, Scale, Validation

from ..cohort.qc_sheet import spot_diameter
from ..metrics import SectionResult, section_z
from .evaluate import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

_INK, _ACCENT = "#222222", "#2f6f9f"
SHOWN = 6


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


def chosen_pathways(result: SectionResult, count: int = SHOWN) -> list[int]:
    """Pathways from the best to the worst predicted, evenly over the ranks: nothing is picked by hand."""
    r = result.r
    known = np.flatnonzero(np.isfinite(r))
    order = known[np.argsort(-r[known], kind="stable")]
    if not order.size:
        return []
    return [int(order[i]) for i in np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))]


def map_looks(names: tuple[str, ...], result: SectionResult, said: dict[str, Any] | None) -> list[MapStyle]:
    """The look of each pathway's maps, by its column: z within the section, and what all sections say of it.

    Parameters
    ----------
    said : dict, optional
        evaluation.json's ``validation``.
    """
    known = {entry["name"]: entry for entry in (said or {}).get("pathways", ())}
    keys = ("r", "r_low", "r_high", "sections", "patients")
    facts = [
        PathwayValidation(name, **{key: known[name][key] for key in keys if name in known}, scale=Scale(0.0, 1.0))
        for name in names
    ]
    styles = map_styles(names, section_z(result.predicted), "z", Validation("z", tuple(facts)))
    return sorted(styles, key=lambda style: style.index)


def draw_maps(path: Path, result: SectionResult, styles: Sequence[MapStyle], xy: NDArray[np.float64], row: str) -> None:
    """Truth beside prediction, z-scored within the section, for pathways from best to worst.

    Those that are not validated over all sections come last, their predictions pale.
    """
    spread = np.ptp(xy, axis=0) + spot_diameter(xy)
    cell = 2.3 * float(np.clip(spread[1] / max(spread[0], 1e-9), 0.4, 2.5))
    figure = _figure((2.5 * SHOWN, 2 * cell + 1.2))
    chosen = sorted(chosen_pathways(result), key=lambda p: styles[p].pale)
    axes = figure.subplots(2, max(len(chosen), 1), squeeze=False)
    truth, predicted, r = section_z(result.truth), section_z(result.predicted), result.r
    drawn = None
    for column, p in enumerate(chosen):
        for line, values in enumerate((truth, predicted)):
            pale = styles[p].pale and line == 1
            spots = _spots(axes[line, column], xy, values[:, p], styles[p], opacity=0.45 if pale else 1.0)
            drawn = spots if drawn is None or not pale else drawn
        title = f"{_short(styles[p].name)}\nr = {r[p]:.2f}{', not validated' if styles[p].pale else ''}"
        axes[0, column].set_title(title, fontsize=9, color=_INK)
    for line, label in enumerate(("measured", "predicted")):
        axes[line, 0].text(-0.06, 0.5, label, transform=axes[line, 0].transAxes, rotation=90, va="center", fontsize=10)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, location="right", shrink=0.6, aspect=30)
        bar.set_label("z within the section", fontsize=9)
    title = f"{result.id}: measured, and predicted by {_how(row)}, from the best to the worst pathway"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def draw_scatter(path: Path, result: SectionResult, names: tuple[str, ...], row: str) -> None:
    """Measured against predicted, a point per spot; and r of every pathway."""
    figure = _figure((2.3 * SHOWN, 6.4))
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.2])
    chosen = chosen_pathways(result)
    truth, predicted, r = section_z(result.truth), section_z(result.predicted), result.r
    axes = np.atleast_1d(upper.subplots(1, max(len(chosen), 1)))
    for panel, p in zip(axes, chosen, strict=False):
        panel.plot([-3, 3], [-3, 3], color="#bbbbbb", linewidth=1)
        panel.scatter(predicted[:, p], truth[:, p], s=6, color=_ACCENT, alpha=0.5, linewidths=0)
        panel.set_xlim(-3.5, 3.5)
        panel.set_ylim(-3.5, 3.5)
        panel.set_aspect("equal")
        panel.set_title(f"{_short(names[p])}\nr = {r[p]:.2f}", fontsize=9, color=_INK)
        panel.set_xlabel("predicted z", fontsize=8)
        _clean(panel)
    axes[0].set_ylabel("measured z", fontsize=8)
    bars = lower.subplots()
    known = np.flatnonzero(np.isfinite(r))
    order = known[np.argsort(-r[known], kind="stable")]
    bars.bar(np.arange(len(order)), r[order], color=_ACCENT, width=0.8)
    if order.size:
        bars.axhline(float(np.median(r[order])), color=_INK, linewidth=1, linestyle="--")
        median = float(np.median(r[order]))
        bars.text(0.995, 0.95, f"median {median:.3f}", transform=bars.transAxes, ha="right", va="top", fontsize=9)
    bars.axhline(0, color=_INK, linewidth=0.6)
    if len(order) <= 80:
        bars.set_xticks(np.arange(len(order)), [_short(names[p], 26) for p in order], rotation=90, fontsize=6.5)
    else:
        bars.set_xlabel(f"{len(order)} pathways", fontsize=9)
    bars.set_xlim(-0.6, max(len(order), 1) - 0.4)
    bars.set_ylabel("Pearson r", fontsize=9)
    _clean(bars)
    figure.suptitle(f"{result.id}: {len(truth)} spots, predicted by {_how(row)}", fontsize=11)
    figure.savefig(path)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _spots(
    axes: Any, xy: NDArray[np.float64], values: NDArray[np.float64], style: MapStyle, opacity: float = 1.0
) -> Any:
    from matplotlib.collections import EllipseCollection

    diameter = np.full(len(xy), 1.5 * spot_diameter(xy))
    spots = EllipseCollection(
        diameter, diameter, np.zeros(len(xy)), units="x", offsets=xy, offset_transform=axes.transData,
        array=values, cmap=style.palette, linewidths=0, alpha=opacity,
    )  # fmt: skip
    spots.set_clim(style.low, style.high)
    axes.add_collection(spots)
    margin = diameter[0]
    axes.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
    axes.set_ylim(xy[:, 1].max() + margin, xy[:, 1].min() - margin)
    axes.set_aspect("equal")
    axes.set_facecolor("#f4f4f4")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return spots


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _short(name: str, length: int = 27) -> str:
    text = display_name(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def _how(row: str) -> str:
    return "the run's own head" if row.endswith("/head") else "ridge on the run's embedding"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".")
