"""The evaluation's pictures: maps of measured beside predicted, scatter plots, r of every pathway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.map_style import MapStyle, map_styles
from stamp_deploy.pathway_names import display_name
from stamp_deploy.validation import PathwayValidation, Scale, Validation

from ..cohort.qc_sheet import spot_diameter
from ..metrics import SectionResult, section_z

_INK, _ACCENT = "#222222", "#2f6f9f"
SHOWN = 6
"""Pathways in a picture."""


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
