"""One sample on its way into a cohort: genes named, poor spots left out, its image opened and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from stamp_deploy.errors import DataError, StampError
from stamp_deploy.slide import Slide

from ..gene_sets import GeneSets
from ..scoring import as_counts
from .config import CohortConfig, SampleConfig
from .genes import GeneReport, harmonise, looks_like_mouse
from .genomes import choose_genome
from .placement import open_image, place_spots, spots_inside
from .readers import RawSample, reader
from .store import SampleFacts


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample after quality control, before its tiles are cut."""

    raw: RawSample
    counts: sparse.csr_array
    symbols: tuple[str, ...]
    facts: SampleFacts
    report: GeneReport
    warnings: tuple[str, ...] = ()


def prepare(
    sample: SampleConfig, config: CohortConfig, sets: Sequence[tuple[str, GeneSets]], table: dict[str, str]
) -> tuple[Prepared, Slide]:
    """Read one sample, name its genes, drop poor spots, and open its image.

    Raises
    ------
    StampError
        Whatever makes the sample unusable; the message names the sample.
    """
    read = reader(sample.format)
    settings = sample.settings
    try:
        raw = read(settings)
        choice = choose_genome(raw.names, raw.ids, settings.text("genome"))
        counts = as_counts(raw.counts, len(raw.names))[:, list(choice.columns)]
        if not settings.values.get("allow_fractions", False):
            _whole(counts)
        counts, symbols, report = harmonise(counts, choice.names, choice.ids, table)
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
        slide, source = open_image(raw, settings.number("mpp"), bool(settings.values.get("mpp_overrides", False)))
        try:
            raw = place_spots(raw, slide)
            inside = spots_inside(raw, slide, str(settings.values.get("outside", "refuse")))
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
                **({"genome": choice.genome, "other_genomes": choice.left_out} if choice.genome else {}),
                **raw.notes,
            }
            facts = replace(facts, mpp=float(np.mean(slide.mpp_xy)), mpp_source=source, qc=qc)
            kept = replace(raw, barcodes=tuple(raw.barcodes[i] for i in keep), centres=raw.centres[keep], counts=chosen)
            warnings = [*report.warnings()]
            if choice.left_out:
                others = ", ".join(f"{count} of {name}" for name, count in choice.left_out.items())
                warnings.append(f"genes of {choice.genome} are kept; left out: {others}")
            return Prepared(kept, chosen, symbols, facts, report, tuple(warnings)), slide
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
    measured = [symbols[i] for i in seen.tolist()]
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
