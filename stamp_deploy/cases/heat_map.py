"""The clustered heat map of slides by pathways as a PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..map_style import COMMON_RANGE, DIVERGING
from ..pathway_names import display_name
from .matrix import COMMON, Matrix
from .slide_record import Results

CELL_IN, MIN_CELL_IN, MAX_SIDE_IN = 0.3, 0.02, 30.0
MAX_LABELLED = 120
DPI = 110
PALE = 0.35


def draw_heat_map(matrix: Matrix, results: Results) -> bytes:
    """PNG of the matrix with its trees; outside slides hatched below a gap, unvalidated pathways pale behind one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows, columns = matrix.values.shape
    labels = [results.slides[i].name for i in matrix.slides]
    side = min(max(len(name) for name in labels), 34) * 0.085 + 0.2 if rows <= MAX_LABELLED else 0.3
    names = [display_name(name) for name in matrix.names]
    below = min(max(len(name) for name in names), 34) * 0.085 + 0.2 if columns <= MAX_LABELLED else 0.3
    cell_y = float(np.clip(MAX_SIDE_IN / rows, MIN_CELL_IN, CELL_IN))
    cell_x = float(np.clip(MAX_SIDE_IN / columns, MIN_CELL_IN, CELL_IN))
    tree = 0.9
    wide, high = max(cell_x * (columns + 1), 1.2), max(cell_y * (rows + 1), 0.6)
    width, height = tree + wide + side + 0.4, 0.75 + tree + high + below + 0.9
    width = max(width, 6.4)
    figure = Figure((width, height), dpi=DPI)
    FigureCanvasAgg(figure)

    def place(left: float, bottom: float, w: float, h: float) -> Any:
        return figure.add_axes((left / width, bottom / height, w / width, h / height))

    bottom = below + 0.9
    main = place(tree + 0.1, bottom, wide, high)
    colours = ScalarMappable(Normalize(*COMMON_RANGE), DIVERGING)
    y_of, x_of = _positions(rows, matrix.outside), _positions(columns, matrix.unvalidated)
    _cells(main, matrix, colours, x_of, y_of)
    if rows <= MAX_LABELLED:
        main.yaxis.tick_right()
        main.set_yticks(y_of, [_short(name) for name in labels], fontsize=8)
    else:
        main.set_yticks([])
    if columns <= MAX_LABELLED:
        main.set_xticks(x_of, [_short(name) for name in names], fontsize=8, rotation=90)
    else:
        main.set_xticks([])
    main.tick_params(length=0)
    _tree(place(0.05, bottom, tree, high), matrix.slide_tree, (y_of[-1] + 0.5, -0.5), sideways=True)
    _tree(place(tree + 0.1, bottom + high, wide, tree), matrix.pathway_tree, (-0.5, x_of[-1] + 0.5), sideways=False)
    bar = place(tree + 0.1, 0.55, min(wide, 3.0), 0.14)
    figure.colorbar(colours, cax=bar, orientation="horizontal", extend="both")
    bar.tick_params(labelsize=8)
    what = "z on the common scale" if matrix.scale == COMMON else "sd about the mean of these slides (no common scale)"
    bar.set_title(what, fontsize=8, loc="left", pad=3)
    figure.text(0.1 / width, 1 - 0.28 / height, f"{rows} slides by {columns} pathways", fontsize=11)
    notes = [
        *([f"hatched: {matrix.outside} outside what the model knows"] if matrix.outside else []),
        *([f"pale: {matrix.unvalidated} not validated"] if matrix.unvalidated else []),
        "research use only",
    ]
    figure.text(0.1 / width, 1 - 0.52 / height, "; ".join(notes), fontsize=8, color="#5d666d")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _positions(count: int, apart: int) -> np.ndarray:
    """Where rows or columns stand: the last `apart` behind a gap of half a cell."""
    at = np.arange(count, dtype=float)
    if 0 < apart < count:
        at[count - apart :] += 0.5
    return at


def _cells(axes: Any, matrix: Matrix, colours: Any, x_of: np.ndarray, y_of: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Rectangle

    rgba = colours.to_rgba(np.nan_to_num(matrix.values))
    rgba[~np.isfinite(matrix.values)] = (0.85, 0.85, 0.85, 1)
    rows, columns = matrix.values.shape
    rgba[:, columns - matrix.unvalidated :, 3] = PALE
    middles = np.stack(np.meshgrid(x_of, y_of), axis=-1).reshape(-1, 1, 2)
    corners = middles + np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    axes.add_collection(
        PolyCollection(list(corners), facecolors=rgba.reshape(-1, 4), edgecolors="white", linewidths=0.4)
    )
    for y in y_of[rows - matrix.outside :]:
        axes.add_patch(
            Rectangle((-0.5, y - 0.5), x_of[-1] + 1, 1, fill=False, hatch="////", edgecolor="#444", linewidth=0)
        )
    axes.set_xlim(-0.5, x_of[-1] + 0.5)
    axes.set_ylim(y_of[-1] + 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _tree(axes: Any, tree: dict[str, Any] | None, span: tuple[float, float], *, sideways: bool) -> None:
    """A tree beside the rows or above the columns; scipy puts leaf i at 10 i + 5."""
    axes.set_axis_off()
    if tree is None:
        return
    from matplotlib.collections import LineCollection

    along, up = np.array(tree["icoord"]) / 10 - 0.5, np.array(tree["dcoord"])
    lines = np.stack((up, along) if sideways else (along, up), axis=-1)
    axes.add_collection(LineCollection(list(lines), colors="#5d666d", linewidths=0.8))
    top = float(up.max()) * 1.03 or 1.0
    if sideways:
        axes.set_xlim(top, 0)
        axes.set_ylim(*span)
    else:
        axes.set_xlim(*span)
        axes.set_ylim(0, top)


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:31]}..."
