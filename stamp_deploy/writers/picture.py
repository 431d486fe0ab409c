"""Pictures of score maps: the map blended over the slide, in microns, with a scale bar and a colour bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..map_style import STRETCHED, MapStyle, colour_table, map_styles
from ..maps import value_map
from ..result import Result

OPACITY, PALE_OPACITY, LEFT_OUT_OPACITY = 0.7, 0.35, 0.2
"""Of a map over the slide; of one whose pathway is not validated; of tiles that summaries leave out, under hatching."""
HATCH_PX, HATCH_LINE_PX = 7, 2
HATCH_COLOUR = (84, 84, 84)
MAX_PICTURE_PX = 1000


@dataclass(frozen=True, eq=False)
class View:
    """The part of the slide that pictures show: the scored tiles with a margin.

    Attributes
    ----------
    picture : uint8 [h, w, 3]
        The thumbnail's crop.
    width_um, height_um : float
        What it covers, in microns.
    rows, columns : int64 [h], [w]
        The grid row and column under each picture pixel; -1 outside the grid.
    box : (x0, y0, x1, y1)
        What it covers, in level-0 pixels.
    """

    picture: NDArray[np.uint8]
    width_um: float
    height_um: float
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    box: tuple[float, float, float, float]


def make_view(result: Result, max_px: int = MAX_PICTURE_PX, *, enlarge: bool = True) -> View:
    """Crop the thumbnail to the scored tiles and one tile around them, and bring its longer side to `max_px`; to less
    where it has fewer pixels and is not to be enlarged."""
    from PIL import Image

    grid, slide = result.grid, result.slide
    high, wide = result.thumbnail.shape[:2]
    x0, y0, x1, y1 = 0.0, 0.0, float(slide.width), float(slide.height)
    if len(result.coords):
        x0, y0 = np.maximum(result.coords.min(axis=0) - (grid.span_x, grid.span_y), 0)
        x1, y1 = np.minimum(result.coords.max(axis=0) + 2 * np.array([grid.span_x, grid.span_y]), (x1, y1))
    left, right = math.floor(x0 * wide / slide.width), math.ceil(x1 * wide / slide.width)
    top, bottom = math.floor(y0 * high / slide.height), math.ceil(y1 * high / slide.height)
    crop = result.thumbnail[top:bottom, left:right]
    scale = max_px / max(crop.shape[:2])
    scale = scale if enlarge else min(scale, 1.0)
    width_um = (right - left) * slide.width / wide * slide.mpp_x
    height_um = (bottom - top) * slide.height / high * slide.mpp_y
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    picture = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))
    x = (left + (np.arange(size[0]) + 0.5) * (right - left) / size[0]) * slide.width / wide
    y = (top + (np.arange(size[1]) + 0.5) * (bottom - top) / size[1]) * slide.height / high
    columns, rows = np.floor(x / grid.step_x).astype(np.int64), np.floor(y / grid.step_y).astype(np.int64)
    columns[columns >= grid.columns] = -1
    rows[rows >= grid.rows] = -1
    box = (
        left * slide.width / wide,
        top * slide.height / high,
        right * slide.width / wide,
        bottom * slide.height / high,
    )
    return View(picture, width_um, height_um, rows, columns, box)


class Painter:
    """Lays values over a view, many maps over the same one.

    The slide is pale grey under the map, so that colours read as in the colour bar; where there is no tile it
    keeps its own colours, paler. Tiles that summaries leave out (`SlideTrust.left_out`) are weak and hatched. What all
    maps share is made once, so that a map costs a look-up and an addition.
    """

    def __init__(self, result: Result, view: View) -> None:
        self._result, self._view = result, view
        known = ~np.isnan(value_map(result, np.zeros(len(result.coords), np.float32)))
        here = known[view.rows[:, None], view.columns[None, :]]
        here &= (view.rows >= 0)[:, None] & (view.columns >= 0)[None, :]
        self._here = here
        self._left_out = np.zeros(known.shape, bool)
        if result.trust is not None:
            cells = result.tile_cells[result.trust.left_out]
            self._left_out[cells[:, 1], cells[:, 0]] = True
        self._weak = self._left_out[view.rows[:, None], view.columns[None, :]] & here
        high, wide = view.picture.shape[:2]
        lines = (np.arange(high)[:, None] + np.arange(wide)[None, :]) % HATCH_PX < HATCH_LINE_PX
        self._hatch = self._weak & lines if self._left_out.any() else None
        self._unders: dict[float, NDArray[np.uint32]] = {}
        self._lock = Lock()

    def paint(
        self,
        values: NDArray[np.floating],
        low: float,
        high: float,
        palette: str = STRETCHED,
        opacity: float = OPACITY,
    ) -> NDArray[np.uint8]:
        """The picture of one value per tile, coloured from `low` to `high`: uint8 [h, w, 3]."""
        cells = value_map(self._result, values)
        level = 1 + np.clip((cells - low) / (high - low), 0, 1) * 254
        index = np.where(np.isnan(level), 0, np.rint(level)).astype(np.int64)
        index += self._left_out * 255
        # Beside the grid, where row or column is -1, there is nothing: one more row and column of entry 0.
        colours = _colours(palette, opacity)[np.pad(index, ((0, 1), (0, 1)))]
        # Four bytes per pixel, looked up and added at once; no sum runs over into the next byte.
        shown = np.take(colours[self._view.rows], self._view.columns, axis=1)
        shown += self._under(opacity)
        if self._hatch is not None:
            shown[self._hatch] = _packed(np.array(HATCH_COLOUR, np.uint8))
        return _unpacked(shown)

    def paint_map(self, style: MapStyle) -> NDArray[np.uint8]:
        """The picture of a pathway in its style."""
        scores = style.shown(self._result.pathways[:, style.index])
        return self.paint(scores, style.low, style.high, style.palette, map_opacity(style))

    def _under(self, opacity: float) -> NDArray[np.uint32]:
        """The slide under maps of an opacity, as what is added to their colours: packed pixels [h, w]."""
        with self._lock:  # pictures are painted by several threads
            if opacity not in self._unders:
                slide = self._view.picture.astype(np.float32)
                contrast = 165 * opacity / OPACITY  # a weak map lies over a weak slide
                grey = 255 - contrast + slide.mean(axis=2, keepdims=True) * (contrast / 255)
                through = np.where(self._weak, 1 - min(LEFT_OUT_OPACITY, opacity), 1 - opacity)[..., None]
                # Even values: no eye sees the difference, and the PNG is a sixth smaller.
                even = 2 * np.rint(through * grey / 2)
                under = np.where(self._here[..., None], even, 0.55 * slide + 0.45 * 255)
                self._unders[opacity] = _packed(under.round().astype(np.uint8))
            return self._unders[opacity]


def _colours(palette: str, opacity: float) -> NDArray[np.uint32]:
    """What a map adds to the slide, packed pixels [511]: entry 0 nothing, where there is no tile; then 255 steps of the
    colour map; then the same for tiles that are left out."""
    steps = colour_table(palette)[np.rint(np.linspace(0, 255, 255)).astype(np.int64)]
    weak = min(LEFT_OUT_OPACITY, opacity)
    return _packed(np.vstack([np.zeros(3), opacity * steps, weak * steps]).round().astype(np.uint8))


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """RGB, uint8 [..., 3], as uint32 [...] whose bytes are R, G, B and 0."""
    out = np.zeros((*rgb.shape[:-1], 4), np.uint8)
    out[..., :3] = rgb
    return out.view(np.uint32)[..., 0]


def _unpacked(pixels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The RGB of packed pixels, uint8 [..., 3]: channel by channel, five times as fast as a copy of [..., :3]."""
    quads = pixels.view(np.uint8).reshape(*pixels.shape, 4)
    out = np.empty((*pixels.shape, 3), np.uint8)
    for channel in range(3):
        out[..., channel] = quads[..., channel]
    return out


def map_opacity(style: MapStyle) -> float:
    """How strong a map's colours are."""
    return PALE_OPACITY if style.pale else OPACITY


def result_styles(result: Result) -> tuple[MapStyle, ...]:
    """The style of each pathway of a result, in the order in which pictures show them."""
    return map_styles(result.pathway_names, result.pathways, result.score_unit, result.validation)


def left_out_note(result: Result) -> str:
    """What the hatch means, where a tile has it."""
    count = 0 if result.trust is None else int(result.trust.left_out.sum())
    return f"Hatched: {count:,} tiles that summaries leave out.   " if count else ""


def blend(result: Result, view: View, values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """One map over a view: see `Painter`, which is quicker for many."""
    return Painter(result, view).paint(values, low, high)


def round_length_um(width_um: float) -> float:
    """The largest of 1, 2, 5 x 10^k microns that is at most a quarter of `width_um`."""
    if not width_um > 0:
        raise ValueError("the width must be above 0 microns")
    power = 10.0 ** math.floor(math.log10(width_um / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width_um / 4 * (1 + 1e-9))


def length_label(length_um: float) -> str:
    """ "500 µm", "2 mm"."""
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
