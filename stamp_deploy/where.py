"""Where a slide is scored: its tissue, found or given, within annotations or everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .absence import Absence, leave_out
from .annotations import OUTLINES, PICTURES, file_for_slide, rasterise, read_annotations, read_mask
from .config import InferOptions
from .errors import SlideError, UsageError
from .grid import Grid, TileSet, select_tiles
from .slide import Slide
from .tissue import TissueMask, TissueRule, find_tissue, mask_shape


@dataclass(frozen=True, eq=False)
class Where:
    """Where a slide is scored.

    Attributes
    ----------
    tissue : TissueMask or None
        The tissue, found or given; None where every tile is scored.
    tiles : TileSet
        Tiles to score.
    absence : Absence
        What the file leaves out.
    classes : dict of str to float32 [N]
        Per class of annotation, the share of each tile that is tissue of that class.
    facts : dict
        What the record says about it.
    notes : tuple of str
        What a reader of the result should know.
    """

    tissue: TissueMask | None
    tiles: TileSet
    absence: Absence
    classes: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_where(slide: Slide, grid: Grid, rule: TissueRule, options: InferOptions) -> Where:
    """Find tissue, read what the user drew, and choose the tiles.

    Raises
    ------
    SlideError
        No tile has tissue enough, within the annotations if there are any.
    UsageError
        A file of annotations or a mask cannot be used.
    """
    tissue, facts = _tissue(slide, grid, rule, options)
    tissue, absence = leave_out(slide, grid, tissue)
    min_fraction = options.min_tissue(rule.min_fraction)
    facts["min_fraction"] = None if options.all_tiles else min_fraction
    if options.roi is None:
        tiles = select_tiles(grid, tissue, min_fraction)
        _refuse_empty(slide, tiles, "no tissue was found", "look at the slide with `stamp-deploy inspect`; ")
        return Where(tissue, tiles, absence, facts=facts)
    path = file_for_slide(options.roi, slide.path, OUTLINES, "--roi")
    drawn = read_annotations(path, slide.width, slide.height, _corner(slide))
    shape = mask_shape(slide, rule) if tissue is None else tissue.mask.shape
    scale_x, scale_y = slide.width / shape[1], slide.height / shape[0]
    base = np.ones(shape, bool) if tissue is None else tissue.mask
    masks = {name: base & rasterise(area, shape, scale_x, scale_y) for name, area in drawn.areas.items()}
    restrict = options.roi_use == "restrict"
    inside = _drawn(slide, rule, np.logical_or.reduce(list(masks.values())))
    tiles = select_tiles(grid, inside if restrict else tissue, min_fraction)
    _refuse_empty(slide, tiles, "no tissue was found in the annotations", "check that they lie on tissue; ")
    classes = {
        name: _drawn(slide, rule, mask).tile_fractions(tiles.coords, grid.span_x, grid.span_y)
        for name, mask in masks.items()
    }
    facts["roi"] = {"use": options.roi_use, **drawn.facts()}
    note = (
        f"scored within annotations only: {inside.fraction:.1%} of the slide is tissue in them; calls rest on it alone"
    )
    return Where(tissue, tiles, absence, classes, facts, (note,) if restrict else ())


def _tissue(
    slide: Slide, grid: Grid, rule: TissueRule, options: InferOptions
) -> tuple[TissueMask | None, dict[str, Any]]:
    """The tissue, None for all tiles, and where it comes from."""
    if options.all_tiles:
        return None, {"source": "every tile"}
    if options.tissue_mask is None:
        return find_tissue(slide, rule), {"source": "found"}
    path = file_for_slide(options.tissue_mask, slide.path, (*OUTLINES, *PICTURES), "--tissue-mask")
    mask, sha256 = read_mask(path, slide.width, slide.height, mask_shape(slide, rule), _corner(slide))
    given = _drawn(slide, rule, mask)
    if given.scale_x > grid.span_x or given.scale_y > grid.span_y:
        raise UsageError(
            f"one pixel of the mask covers {given.scale_x:.0f} x {given.scale_y:.0f} px of the slide, more than a tile",
            path=path,
            remedy="save the mask at about 8 um per pixel",
        )
    return given, {"source": "given", "file_sha256": sha256}


def _drawn(slide: Slide, rule: TissueRule, mask: NDArray[np.bool_]) -> TissueMask:
    """A mask over the whole slide that was drawn, not found."""
    height, width = mask.shape
    return TissueMask(mask, slide.width / width, slide.height / height, rule, None, float(mask.mean()))


def _corner(slide: Slide) -> tuple[int, int]:
    """What QuPath counts from: the corner of the box that was scanned, where the file states one."""
    left, top = (slide.bounds or (0, 0))[:2]
    return int(left), int(top)


def _refuse_empty(slide: Slide, tiles: TileSet, cause: str, remedy: str) -> None:
    if len(tiles) == 0:
        grid = tiles.grid
        raise SlideError(
            f"{cause} in {tiles.total} tiles of {grid.tile_px} px at {grid.target_mpp:g} um/px",
            path=slide.path,
            remedy=f"{remedy}--all-tiles scores every tile",
        )
