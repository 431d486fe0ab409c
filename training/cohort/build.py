"""`cohort build`: samples as their platforms leave them -> a cohort folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stamp_deploy import __version__
from stamp_deploy.atomic import check_output, staged_directory
from stamp_deploy.errors import DataError, MppError, StampError
from stamp_deploy.slide import Slide, open_slide

from ..gene_sets import GeneSets, read_gmt
from ..scoring import as_counts
from .config import CohortConfig, SampleConfig, load_config
from .genes import GeneReport, harmonise, looks_like_mouse, read_gene_table
from .readers import RawSample, reader
from .spot_tiles import CutReport, cut_tiles
from .store import Cohort, SampleFacts, load_cohort
from .write import tiles_file, write_cohort_json, write_sample

MPP_AGREEMENT = 0.05
"""Relative difference up to which two statements of a resolution count as the same."""

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample after quality control, before its tiles are cut."""

    raw: RawSample
    counts: sparse.csr_array
    symbols: tuple[str, ...]
    facts: SampleFacts
    report: GeneReport


def build_cohort(
    config_path: Path,
    out: Path,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    pictures: bool = True,
    log: Log = print,
) -> Cohort:
    """Build a cohort folder; it appears whole or not at all.

    Parameters
    ----------
    config_path : Path
        See docs/cohort.md.
    out : Path
    overwrite : bool
        Replace a finished cohort.
    dry_run : bool
        Read and check everything but the tiles, and write nothing.
    pictures : bool
        Draw the QC sheets.
    log : callable
        Takes a line for the user now and then.

    Raises
    ------
    UsageError, DataError, SlideError
        The first sample that cannot be used, with the cause and the remedy.
    """
    config, samples = load_config(config_path)
    if not dry_run:
        check_output(out, overwrite=overwrite)
    folder = config_path.parent
    sets = [(name, read_gmt(folder / Path(name).expanduser())) for name in config.gmt]
    table = read_gene_table(folder / Path(config.gene_table).expanduser()) if config.gene_table else {}
    if dry_run:
        for sample in samples:
            prepared, slide = prepare(sample, config, sets, table)
            slide.close()
            log(_line(prepared))
        return Cohort(out, (), config.tile_px, config.mpp)
    with staged_directory(out, overwrite=overwrite) as staging:
        rows = []
        for sample in samples:
            prepared, slide = prepare(sample, config, sets, table)
            with slide:
                rows.append(_write(staging, prepared, slide, config, pictures))
            log(_line(prepared))
        write_cohort_json(
            staging,
            rows,
            tile_px=config.tile_px,
            mpp=config.mpp,
            software=f"stamp-deploy {__version__}",
            min_genes=config.min_genes,
            gene_sets=[{"file": Path(name).name, "sha256": s.sha256, "sets": len(s)} for name, s in sets],
        )
    return load_cohort(out)


def prepare(
    sample: SampleConfig, config: CohortConfig, sets: Sequence[tuple[str, GeneSets]], table: dict[str, str]
) -> tuple[Prepared, Slide]:
    """Read one sample, name its genes, drop poor spots, and open its image.

    Raises
    ------
    StampError
        Whatever makes the sample unusable; the message names the sample.
    """
    read, _ = reader(sample.format)
    settings = sample.settings
    try:
        raw = read(settings)
        counts = as_counts(raw.counts, len(raw.names))
        if not settings.values.get("allow_fractions", False):
            _whole(counts)
        counts, symbols, report = harmonise(counts, raw.names, raw.ids, table)
        genes_of = np.diff(counts.indptr)
        keep = np.flatnonzero(genes_of >= config.min_genes)
        if not keep.size:
            raise DataError(
                f"no spot has {config.min_genes} genes (the richest has {int(genes_of.max(initial=0))})",
                remedy="lower min_genes, or pool more cells into a spot",
            )
        coverage = {Path(name).name: _coverage(gene_sets, counts, symbols) for name, gene_sets in sets}
        facts = SampleFacts(
            id=sample.id,
            patient_id=sample.patient_id or raw.patient_id,
            platform=settings.text("platform") or raw.platform or "unknown",
            organ=settings.text("organ") or raw.organ or "unknown",
            mpp=1.0,
        )
        facts.check()
        slide, source = _open_image(raw, settings.number("mpp"), bool(settings.values.get("mpp_overrides", False)))
        try:
            inside = _inside(raw, slide, str(settings.values.get("outside", "refuse")))
            keep = keep[inside[keep]]
            if not keep.size:
                raise DataError("no spot of quality lies inside the image", path=raw.image)
            chosen = counts[keep]
            if config.keep_genes == "measured":
                columns = np.flatnonzero(np.bincount(chosen.indices, minlength=chosen.shape[1]))
                chosen, symbols = chosen[:, columns], tuple(symbols[i] for i in columns)
            totals = np.asarray(chosen.sum(axis=1)).ravel()
            qc = {
                "spots_read": int(counts.shape[0]),
                "spots_poor": int((genes_of < config.min_genes).sum()),
                "spots_outside": int((~inside).sum()),
                "spots_kept": int(keep.size),
                "median_counts": float(np.median(totals)),
                "median_genes": float(np.median(np.diff(chosen.indptr))),
                "gene_names": report.to_dict(),
                "coverage": coverage,
                "image_px": [slide.width, slide.height],
                "image_sha256": slide.sha256(),
                **raw.notes,
            }
            facts = replace(facts, mpp=float(np.mean(slide.mpp_xy)), mpp_source=source, qc=qc)
            kept = replace(raw, barcodes=tuple(raw.barcodes[i] for i in keep), centres=raw.centres[keep], counts=chosen)
            return Prepared(kept, chosen, symbols, facts, report), slide
        except BaseException:
            slide.close()
            raise
    except StampError as error:
        if sample.id in error.cause:
            raise
        raise type(error)(f"sample {sample.id}: {error.cause}", remedy=error.remedy, path=error.path) from error


def _whole(counts: sparse.csr_array) -> None:
    fractions = int((counts.data != np.rint(counts.data)).sum())
    if fractions:
        raise DataError(
            f"{fractions} of {counts.nnz} counts are no whole numbers (such as "
            f"{counts.data[counts.data != np.rint(counts.data)][0]:.4g}): they look normalised",
            remedy="use raw counts (another layer, perhaps); allow_fractions = true accepts fractions",
        )


def _coverage(sets: GeneSets, counts: sparse.csr_array, symbols: Sequence[str]) -> dict[str, Any]:
    """How far the gene sets are covered by genes with at least one count."""
    seen = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]))
    measured = [symbols[i] for i in seen]
    rows = sets.coverage(measured)
    if not any(row.valid() for row in rows):
        best = max(rows, key=lambda row: row.fraction)
        mouse = looks_like_mouse(measured)
        raise DataError(
            f"no gene set can be scored: the best covered, {best.name}, has {best.measured} of {best.total} genes "
            f"measured (measured are {', '.join(measured[:3])}, ...; the set holds "
            f"{', '.join(sets.genes[rows.index(best)][:3])}, ...)",
            remedy="the names look like mouse genes: use mouse gene sets, or a gene_table of orthologues"
            if mouse
            else 'use gene sets of the same species, or name a table of symbols: gene_table = "FILE.tsv"',
        )
    return {
        "sets": len(rows),
        "valid": sum(row.valid() for row in rows),
        "median_fraction": round(float(np.median([row.fraction for row in rows])), 4),
        "fractions": {row.name: round(row.fraction, 4) for row in rows},
    }


def _open_image(raw: RawSample, stated: float | None, overrides: bool) -> tuple[Slide, str]:
    """The image at the best known resolution, and how that was found; statements that differ are refused."""
    found: list[tuple[float, str]] = []
    if stated is not None:
        found.append((stated, "stated in the config"))
    if raw.mpp is not None:
        found.append((raw.mpp, raw.mpp_source))
    weak = False
    try:
        with open_slide(raw.image) as probe:
            found.append((float(np.mean(probe.mpp_xy)), f"the image's {probe.mpp.source} metadata"))
            weak = probe.mpp.source == "tiff-resolution"  # editors write any number there
    except MppError as error:
        if not found:
            raise DataError(
                "the microns per pixel are unknown: neither config nor files nor image state them",
                path=raw.image,
                remedy='state mpp, or spot_pitch_um with format = "legacy-st"',
            ) from error
    best, source = found[0]
    for i, (value, other) in enumerate(found[1:], 1):
        agrees = abs(value - best) <= MPP_AGREEMENT * best
        if not agrees and not overrides and not (weak and i == len(found) - 1):
            raise DataError(
                f"the microns per pixel are in doubt: {best:.4g} ({source}), but {value:.4g} ({other})",
                path=raw.image,
                remedy="find out which is right; mpp_overrides = true lets the first one stand",
            )
        source += f"; {'agrees with' if agrees else 'not believed:'} {value:.4g}, {other}"
    return open_slide(raw.image, mpp=best), source


def _inside(raw: RawSample, slide: Slide, policy: str) -> NDArray[np.bool_]:
    """Which spot centres lie inside the image; refuses an image that cannot be the right one."""
    if raw.image_size is not None:
        for have, want, axis in zip((slide.width, slide.height), raw.image_size, ("wide", "high"), strict=True):
            if abs(have - want) > 0.01 * want + 2:
                raise DataError(
                    f"is {have} px {axis}, but the full-resolution image has {want:.0f}",
                    path=slide.path,
                    remedy="name the image that was given to the pipeline, not a reduced copy",
                )
    size = np.array([slide.width, slide.height])
    inside = np.asarray(((raw.centres >= 0) & (raw.centres < size)).all(axis=1))
    outside = int((~inside).sum())
    if outside and policy != "drop":
        x, y = raw.centres[~inside][0]
        raise DataError(
            f"{outside} of {len(inside)} spots lie outside the image of {slide.width} x {slide.height} px (one at "
            f"{x:.0f}, {y:.0f})",
            path=slide.path,
            remedy='name the image that the positions belong to, at full resolution; outside = "drop" leaves spots out',
        )
    return inside


def _write(staging: Path, prepared: Prepared, slide: Slide, config: CohortConfig, pictures: bool) -> SampleFacts:
    import anndata
    import pandas as pd

    from .qc_sheet import write_qc_sheet

    raw, facts = prepared.raw, prepared.facts
    tiles = tiles_file(staging, facts.id, len(raw.barcodes), config.tile_px)
    cut = cut_tiles(slide, raw.centres, tiles, target_mpp=config.mpp, allow_upsampling=config.allow_upsampling)
    facts = replace(facts, qc={**facts.qc, "tiles": cut.to_dict()})
    data = anndata.AnnData(
        sparse.csr_matrix(prepared.counts),
        obs=pd.DataFrame(index=pd.Index(raw.barcodes, dtype=str)),
        var=pd.DataFrame(index=pd.Index(prepared.symbols, dtype=str)),
        obsm={"spatial": raw.centres},
    )
    facts = write_sample(staging, data, None, facts)
    if pictures:
        write_qc_sheet(staging / "samples" / facts.id / "qc.png", prepared, facts, slide, tiles, cut)
    del tiles  # closes the map before the folder moves
    return facts


def _line(prepared: Prepared) -> str:
    facts = prepared.facts
    qc = facts.qc
    covered = "; ".join(f"{c['valid']} of {c['sets']} sets of {name}" for name, c in qc["coverage"].items())
    return (
        f"{facts.id}: {qc['spots_kept']} of {qc['spots_read']} spots, median {qc['median_counts']:.0f} counts and "
        f"{qc['median_genes']:.0f} genes, {facts.mpp:.4g} um/px ({facts.mpp_source})"
        + (f"; {covered}" if covered else "")
    )


__all__ = ["CutReport", "Prepared", "build_cohort", "prepare"]
