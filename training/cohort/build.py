"""`cohort build`: samples as their platforms leave them -> a cohort folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scipy import sparse

from stamp_deploy import __version__
from stamp_deploy.atomic import check_output, staged_directory
from stamp_deploy.slide import Slide

from ..gene_sets import read_gmt
from .config import CohortConfig, load_config
from .genes import read_gene_table
from .sample import Prepared, prepare
from .spot_tiles import cut_tiles
from .store import Cohort, SampleFacts, load_cohort
from .write import tiles_file, write_cohort_json, write_sample

Log = Callable[[str], None]


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
            _say(prepared, log)
        return Cohort(out, (), config.tile_px, config.mpp)
    with staged_directory(out, overwrite=overwrite) as staging:
        rows = []
        for sample in samples:
            prepared, slide = prepare(sample, config, sets, table)
            with slide:
                rows.append(_write(staging, prepared, slide, config, pictures))
            _say(prepared, log)
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


def _say(prepared: Prepared, log: Log) -> None:
    """A line for the sample, and one for each thing that a person should look at."""
    facts = prepared.facts
    qc = facts.qc
    covered = "; ".join(f"{c['valid']} of {c['sets']} sets of {name}" for name, c in qc["coverage"].items())
    log(
        f"{facts.id}: {qc['spots_kept']} of {qc['spots_read']} spots, median {qc['median_counts']:.0f} counts and "
        f"{qc['median_genes']:.0f} genes, {facts.mpp:.4g} um/px ({facts.mpp_source})"
        + (f"; {covered}" if covered else "")
    )
    for warning in prepared.warnings:
        log(f"{facts.id}: warning: {warning}")
