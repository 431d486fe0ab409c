"""Figures of a head's evaluation, as SVG: text that scales, and no network."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCENT, SECOND, QUIET = "#2b5f86", "#b4541a", "#8a939a"
SIZE_INCHES = (4.6, 4.0)


def figures(document: dict[str, Any]) -> dict[str, bytes]:
    """Name -> SVG of what the document holds."""
    wanted: dict[str, Callable[[Axes, dict[str, Any]], None]] = {}
    if document["head"]["kind"] == "binary":
        wanted = {"roc": _roc, "calibration": _calibration, "decision-curve": _decision, "triage": _triage}
    elif document.get("risk_groups"):
        wanted = {"kaplan-meier": _kaplan_meier}
    return {name: _draw(draw, document) for name, draw in wanted.items()}


def _draw(draw: Callable[[Axes, dict[str, Any]], None], document: dict[str, Any]) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "stamp-deploy", "svg.fonttype": "path", "font.size": 9.5}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, document)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _roc(axes: Axes, d: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls=":")
    axes.plot(d["roc"]["false_positive"], d["roc"]["true_positive"], color=ACCENT, label="head")
    for point in d["operating_points"]:
        at = point["external"]
        x, y = 1 - at["specificity"]["value"], at["sensitivity"]["value"]
        axes.plot(x, y, "o", color=SECOND, ms=5)
        axes.annotate(f"{point['wanted_sensitivity']:.0%}", (x, y), (5, -10), textcoords="offset points", color=SECOND)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC; points were locked on the training side")


def _calibration(axes: Axes, d: dict[str, Any]) -> None:
    bins = d["calibration"]["bins"]
    axes.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls=":")
    axes.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o-", color=ACCENT, ms=4)
    for b in bins:
        axes.annotate(
            str(b["slides"]), (b["predicted"], b["observed"]), (4, -10), textcoords="offset points", fontsize=8
        )
    axes.set(xlabel="predicted probability", ylabel="observed share", title="Calibration (with counts)", xlim=(0, 1),
             ylim=(-0.03, 1.03))  # fmt: skip


def _decision(axes: Axes, d: dict[str, Any]) -> None:
    curve = d["decision_curve"]
    prevalence = d["auprc"]["prevalence"]
    axes.plot(curve["threshold"], curve["head"], color=ACCENT, label="by the head")
    axes.plot(curve["threshold"], curve["all"], color=SECOND, ls="--", label="everybody")
    axes.axhline(0, color=QUIET, lw=0.8, label="nobody")
    axes.set(xlabel="threshold probability", ylabel="net benefit", title="Decision curve",
             ylim=(-0.25 * prevalence, 1.1 * prevalence))  # fmt: skip
    axes.legend(frameon=False)


def _triage(axes: Axes, d: dict[str, Any]) -> None:
    points = d["operating_points"]
    names = [f"{p['wanted_sensitivity']:.0%}" for p in points]
    axes.bar(names, [p["external"]["ruled_out"]["value"] for p in points], color=ACCENT, width=0.5)
    axes.set(xlabel="sensitivity that the threshold was locked at", ylabel="share of tests saved", ylim=(0, 1),
             title="Triage: below the threshold no test")  # fmt: skip


def _kaplan_meier(axes: Axes, d: dict[str, Any]) -> None:
    for (name, group), colour in zip(d["risk_groups"]["groups"].items(), (ACCENT, SECOND), strict=True):
        label = f"{name} risk ({group['slides']}, {group['events']} events)"
        axes.step(group["time"], group["survival"], where="post", color=colour, label=label)
    axes.set(xlabel="time, in the table's unit", ylabel="without event", ylim=(0, 1.02),
             title="Risk groups, cut where training cut")  # fmt: skip
    axes.legend(frameon=False)
