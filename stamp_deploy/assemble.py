"""The Result out of the parts of a run: slide, bundle, tiles, engine, heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .engine.interface import EngineInfo
from .heads import HeadCall
from .prepare import Prepared
from .provenance import software
from .result import UNSTATED_UNIT, BundleFacts, Result, SlideFacts, TileCounts
from .slide import Slide
from .system.names import shown_name
from .timing import READER, limiting_stage
from .trust import SlideTrust


def assemble(
    prepared: Prepared,
    engine: EngineInfo,
    index: NDArray[np.int64],
    embedding: NDArray[np.float32],
    pathways: NDArray[np.float32],
    heads: Sequence[HeadCall] = (),
    warnings: Sequence[str] = (),
    *,
    pathways_global: NDArray[np.float32] | None = None,
    trust: SlideTrust | None = None,
) -> Result:
    """Bring the parts of one run together.

    Parameters
    ----------
    prepared : Prepared
        Its tile source is finished; it may be closed.
    engine : EngineInfo
        The engine that ran.
    index : int64 [N]
        Positions in the tile set of the readable tiles, ascending.
    embedding, pathways : float32 [N, D], [N, P]
        The engine's answers for those tiles.
    heads : sequence of HeadCall
        Slide-level calls.
    warnings : sequence of str
        What a reader of the result should know.
    pathways_global : float32 [N, P], optional
        The read-out that is comparable across slides.
    trust : SlideTrust, optional
        Whether the slide looks like what the model knows.
    """
    source, tiles, bundle = prepared.source, prepared.tiles, prepared.bundle
    seen = len(tiles.coords)
    counts = TileCounts(
        grid=int(tiles.total),
        background=int(tiles.skipped_background),
        seen=seen,
        ok=int(source.ok),
        missing=int(source.missing),
        corrupt=int(source.corrupt),
        timeout=seen - int(source.ok) - int(source.missing) - int(source.corrupt),
        absent=prepared.where.absence.tiles,
    )
    notes = list(warnings)
    if counts.unreadable:
        notes.append(f"{counts.unreadable} of {seen} tissue tiles could not be read and have no score")
    timing, limiting = _timing(prepared)
    mask = prepared.where.tissue
    tissue: dict[str, Any] = {"rule": dict(bundle.tissue), **prepared.where.facts}
    if mask is not None:
        tissue.update(threshold=mask.threshold, fraction=float(mask.fraction))
        tissue.update(faint_sections=mask.faint_sections, left_fraction=mask.left_fraction)
    return Result(
        slide=slide_facts(prepared.slide),
        grid=tiles.grid,
        bundle=bundle_facts(bundle),
        engine=engine,
        tiles=counts,
        coords=tiles.coords[index],
        embedding=embedding,
        pathways=pathways,
        tissue_fraction=tiles.tissue_fraction[index],
        pathway_names=tuple(bundle.pathways),
        thumbnail=prepared.thumbnail,
        heads=tuple(heads),
        read_plan=source.plan.to_dict(),
        timing=timing,
        limiting=limiting,
        software=software(),
        config=prepared.options.to_dict(),
        config_sha256=prepared.options.sha256(),
        tissue=tissue,
        tissue_mask=None if mask is None else mask.mask,
        started_utc=prepared.started.isoformat(timespec="seconds"),
        warnings=tuple(notes),
        score_unit=bundle.validation.unit or UNSTATED_UNIT,
        source_path=prepared.slide.path,
        validation=bundle.validation,
        trust=trust,
        pathways_global=pathways_global,
        gallery=prepared.gallery,
    )


def slide_facts(slide: Slide) -> SlideFacts:
    """The facts of an open slide, its streamed SHA-256 included."""
    return SlideFacts(
        name=shown_name(slide.path),
        sha256=slide.sha256(),
        size_bytes=slide.size_bytes,
        vendor=slide.vendor,
        width=slide.width,
        height=slide.height,
        mpp_x=float(slide.mpp.mpp_x),
        mpp_y=float(slide.mpp.mpp_y),
        mpp_source=slide.mpp.source,
        mpp_evidence=tuple(slide.mpp.evidence),
        levels=tuple(
            {
                "width": level.width,
                "height": level.height,
                "downsample_x": level.downsample_x,
                "downsample_y": level.downsample_y,
            }
            for level in slide.levels
        ),
        route=slide.route.name,
        route_reason=slide.route.reason,
        properties=dict(slide.properties),
        bounds=slide.bounds or (),
    )


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """The facts of a loaded bundle."""
    return BundleFacts(
        name=bundle.name,
        sha256=bundle.sha256,
        pfm_id=bundle.pfm_id,
        pfm_licence=bundle.pfm_licence,
        tile_px=bundle.tile_px,
        mpp=bundle.mpp,
        embedding_dim=bundle.embedding_dim,
        gene_set_sha256=bundle.gene_set_sha256,
        files={name: str(entry["sha256"]) for name, entry in bundle.files.items()},
        parity=dict(bundle.parity),
    )


def _timing(prepared: Prepared) -> tuple[dict[str, float], str]:
    """Seconds by stage, and the stage that set the pace."""
    times = prepared.source.times
    reader = {f"tiler_{name}": float(getattr(times, f"{name}_s", 0.0)) for name in READER}
    seconds = {**prepared.seconds, **reader}
    return seconds, limiting_stage(seconds)
