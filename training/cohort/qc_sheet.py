"""The QC sheet of a sample: one picture that shows whether spots, image and counts belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.slide import Slide

from .placement import THUMBNAIL_PX

if TYPE_CHECKING:
    from .sample import Prepared
    from .spot_tiles import CutReport
    from .store import SampleFacts

TILES_SHOWN = 8
_INK, _ACCENT, _FAINT = "#222222", "#2f6f9f", "#c9d6df"


def write_qc_sheet(
    path: Path, prepared: Prepared, facts: SampleFacts, slide: Slide, tiles: NDArray[np.uint8], cut: CutReport
) -> None:
    """Draw the sheet as PNG.

    Left: the image with every spot, coloured by its counts. Right: counts and genes per spot, how far gene sets are
    covered. Below: tiles from poor to rich spots, as the model will see them. No patient id is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    totals = np.asarray(prepared.counts.sum(axis=1)).ravel()
    genes = np.diff(prepared.counts.indptr)
    figure: Any = Figure(figsize=(13.5, 10.4), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=[5, 1.25])
    left, right = upper.subfigures(1, 2, width_ratios=[1.75, 1])
    _image(left.subplots(), figure, prepared, slide, facts, totals)
    plots = right.subplots(3, 1, height_ratios=[1, 1, 1.3])
    _histogram(plots[0], totals, "counts per spot (log scale)", log=True)
    _histogram(plots[1], genes, "genes per spot", log=False)
    _coverage(plots[2], facts.qc["coverage"])
    order = np.argsort(totals, kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(TILES_SHOWN, len(order))).astype(int)]
    strip = np.atleast_1d(lower.subplots(1, len(shown)))
    for axes, i in zip(strip, shown, strict=True):
        axes.imshow(tiles[i])
        axes.set_title(f"{totals[i]:,.0f} counts", fontsize=8, color=_INK)
        axes.set_axis_off()
    qc = facts.qc
    dropped = f"{qc['spots_poor']} poor in genes, {qc['spots_outside']} outside the image"
    upsampled = f", enlarged {cut.upsampled:.2f} times" if cut.upsampled > 1 else ""
    figure.suptitle(
        f"{facts.id}   {facts.platform}, {facts.organ}   {qc['spots_kept']:,} of {qc['spots_read']:,} spots kept "
        f"({dropped})\n{facts.mpp:.4g} um per pixel; tiles read by {cut.route}{upsampled}, {cut.at_edge} reach beyond "
        "the image",
        fontsize=11,
        color=_INK,
    )
    figure.savefig(path)


def _image(axes: Any, figure: Any, prepared: Prepared, slide: Slide, facts: SampleFacts, totals: NDArray[Any]) -> None:
    from matplotlib.collections import EllipseCollection

    picture = slide.thumbnail(THUMBNAIL_PX)
    axes.imshow(picture, extent=(0, slide.width, slide.height, 0), interpolation="bilinear")
    xy = prepared.raw.centres
    spots = EllipseCollection(
        np.full(len(xy), spot_diameter(xy)),
        np.full(len(xy), spot_diameter(xy)),
        np.zeros(len(xy)),
        units="x",
        offsets=xy,
        offset_transform=axes.transData,
        array=np.log10(np.maximum(totals, 1)),
        cmap="viridis",
        alpha=0.75,
        linewidths=0,
    )
    axes.add_collection(spots)
    bar = figure.colorbar(spots, ax=axes, location="bottom", shrink=0.6, pad=0.02, aspect=40)
    bar.set_label("log10 counts", fontsize=9)
    length_um = _round_length(slide.width * facts.mpp / 5)
    length = length_um / facts.mpp
    x, y = slide.width * 0.03, slide.height * 0.97
    axes.plot([x, x + length], [y, y], color=_INK, linewidth=3, solid_capstyle="butt")
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} um"
    axes.text(x, y - slide.height * 0.012, label, fontsize=9, color=_INK)
    axes.set_xlim(0, slide.width)
    axes.set_ylim(slide.height, 0)
    axes.set_axis_off()


def spot_diameter(xy: NDArray[np.float64]) -> float:
    """A diameter for drawing: 60 % of the usual distance to the nearest spot, level-0 pixels."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 50.0
    distance, _ = cKDTree(xy).query(xy, k=2)
    return 0.6 * float(np.median(distance[:, 1])) or 50.0


def _round_length(microns: float) -> float:
    power = 10.0 ** np.floor(np.log10(max(microns, 1e-9)))
    return float(max(f for f in (1, 2, 5, 10) if f * power <= microns * 1.001) * power)


def _histogram(axes: Any, values: NDArray[Any], label: str, *, log: bool) -> None:
    values = np.maximum(np.asarray(values, np.float64), 1)
    if log:
        bins: Any = np.geomspace(values.min(), values.max() * 1.0001 + 1e-9, 40)
        axes.set_xscale("log")
    else:
        bins = 40
    axes.hist(values, bins=bins, color=_ACCENT)
    median = float(np.median(values))
    axes.axvline(median, color=_INK, linewidth=1, linestyle="--")
    axes.text(0.98, 0.92, f"median {median:,.0f}", transform=axes.transAxes, ha="right", va="top", fontsize=9)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("spots", fontsize=9)
    _clean(axes)


def _coverage(axes: Any, coverage: dict[str, Any]) -> None:
    """Share of every gene set that is measured, sorted; sets below the validity rule in grey."""
    if not coverage:
        axes.text(0.5, 0.5, "no gene sets named (gmt = ...)", ha="center", va="center", fontsize=9, color="#666666")
        axes.set_axis_off()
        return
    name, row = next(iter(coverage.items()))
    fractions = np.sort(np.array(list(row["fractions"].values())))[::-1]
    place = np.arange(len(fractions))
    axes.bar(place, fractions, width=1.0, color=np.where(fractions >= 0.2, _ACCENT, _FAINT))
    axes.axhline(0.2, color=_INK, linewidth=1, linestyle="--")
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.5, len(fractions) - 0.5)
    axes.set_xlabel(f"sets of {name}: {row['valid']} of {row['sets']} can be scored", fontsize=9)
    axes.set_ylabel("genes measured", fontsize=9)
    _clean(axes)


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
