"""An open slide that gives its tissue and its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from ..bundle import Bundle
from ..grid import TileSet, make_grid, select_tiles
from ..slide import Slide
from ..tiles import TileBatch, open_tiles
from ..tissue import TissueMask, TissueRule, find_tissue


class OpenSlide(Slide):
    """An open slide with its tiles; closes itself at the end of a ``with`` block.

    Everything of `Slide` is here: ``levels``, ``mpp``, ``route``, ``thumbnail(max_px)``, ``read_region(...)``.
    """

    @classmethod
    def of(cls, slide: Slide) -> OpenSlide:
        """Take over an open slide: the given one must not be used or closed any more."""
        taken = cls.__new__(cls)
        taken.__dict__.update(slide.__dict__)
        return taken

    def __enter__(self) -> OpenSlide:
        return self

    def tissue(self, rule: TissueRule | None = None) -> TissueMask:
        """Where the tissue is, by `rule` or the default one."""
        return find_tissue(self, rule or TissueRule())

    def tiles(
        self,
        bundle: Bundle | None = None,
        *,
        tile_px: int = 224,
        mpp: float = 0.5,
        overlap_px: int = 0,
        batch: int = 32,
        all_tiles: bool = False,
        threads: int = 0,
        exact: bool = False,
    ) -> Iterator[TileBatch]:
        """Iterate over the slide's tiles of tissue, decoded by the compiled tiler where the slide allows.

        Parameters
        ----------
        bundle : Bundle, optional
            Take tile size, resolution and tissue rule from a bundle, as inference does.
        tile_px, mpp, overlap_px : int, float, int
            Side of a tile, its microns per pixel, pixels that neighbours share; without a bundle.
        batch : int
            Tiles per batch; the last one may be smaller.
        all_tiles : bool
            Glass, too.
        threads : int
            Decoding threads; 0 takes every core.
        exact : bool
            Decode at full scale instead of the reduced JPEG scales.

        Yields
        ------
        TileBatch
            ``pixels`` uint8 [N, T, T, 3], a copy of your own; ``coords`` int64 [N, 2], level-0 pixels; ``index`` and
            ``status`` [N]. A tile whose status is not ``TileStatus.OK`` could not be read.

        Raises
        ------
        SlideError
            The slide is coarser than `mpp`, or cannot be read.

        >>> with open_slide("slide.svs") as slide:
        ...     sum(len(batch.pixels) for batch in slide.tiles(tile_px=64, all_tiles=True))
        36
        """
        rule = TissueRule() if bundle is None else TissueRule.from_dict(bundle.tissue)
        tileset = self._tileset(bundle, rule, tile_px, mpp, overlap_px, all_tiles)
        with closing(open_tiles(self, tileset, batch=batch, threads=threads, exact=exact)) as source:
            for filled in source:
                # The ring is filled again behind the consumer's back: list(slide.tiles()) must hold true.
                yield replace(filled, pixels=filled.pixels.copy())

    def _tileset(
        self, bundle: Bundle | None, rule: TissueRule, tile_px: int, mpp: float, overlap_px: int, all_tiles: bool
    ) -> TileSet:
        if bundle is not None:
            tile_px, mpp, overlap_px = bundle.tile_px, bundle.mpp, 0
        grid = make_grid(self, target_mpp=mpp, tile_px=tile_px, overlap_px=overlap_px)
        return select_tiles(grid, None if all_tiles else find_tissue(self, rule), rule.min_fraction)
