"""`cohort build`: samples as their platforms leave them -> a cohort folder.

Samples are made side by side, each on its own, in a folder beside the cohort that is to be. A build that was killed, or
that met a sample it could not use, goes on from the samples that are finished. The cohort appears when all of them are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from scipy import sparse

from stamp_deploy import __version__
from stamp_deploy.atomic import check_output, disk_errors, staged_directory
from stamp_deploy.errors import StampError, UsageError
from stamp_deploy.hashing import sha256_file
from stamp_deploy.slide import Slide
from stamp_deploy.system.processor import usable_cores

from ..gene_sets import GeneSets, read_gmt
from .config import CohortConfig, SampleConfig, load_config
from .genes import read_gene_table
from .sample import Prepared, prepare
from .shard_writer import wants_shards, write_shards
from .spot_tiles import cut_tiles
from .store import Cohort, SampleFacts, load_cohort
from .unfinished import Unfinished, sample_key
from .write import tiles_file, write_cohort_json, write_sample

Log = Callable[[str], None]
SAME = ("tile_px", "mpp", "min_genes")
"""What the samples of a cohort share: a config that appends must not change it."""


@dataclass(frozen=True)
class Recipe:
    """What is the same for every sample of a build.

    Attributes
    ----------
    sets : list of (str, GeneSets)
        For the coverage report, by their files.
    samples : int
        Of the whole cohort.
    table : dict
        Identifier or alias -> symbol; `table_sha256` of its file.
    """

    config: CohortConfig
    sets: list[tuple[str, GeneSets]]
    table: dict[str, str]
    table_sha256: str
    pictures: bool
    samples: int = 1

    def key(self, sample: SampleConfig) -> str:
        """See `sample_key`."""
        return sample_key(sample, self.config, [*(s.sha256 for _, s in self.sets), self.table_sha256], self.pictures)


def build_cohort(
    config_path: Path,
    out: Path,
    *,
    overwrite: bool = False,
    append: bool = False,
    dry_run: bool = False,
    pictures: bool = True,
    jobs: int = 1,
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
    append : bool
        Add the samples that the finished cohort lacks; those that it has are left as they are.
    dry_run : bool
        Read and check everything but the tiles, and write nothing.
    pictures : bool
        Draw the QC sheets.
    jobs : int
        Samples made at the same time, each in a process of its own; 0: as many as there are cores.
    log : callable
        Takes a line for the user now and then.

    Raises
    ------
    UsageError, DataError, SlideError
        The first sample that cannot be used, with the cause and the remedy. The same command goes on from the others.
    """
    config, samples = load_config(config_path)
    folder = config_path.parent
    sets = [(name, read_gmt(folder / Path(name).expanduser())) for name in config.gmt]
    table_path = folder / Path(config.gene_table).expanduser() if config.gene_table else None
    table = dict(read_gene_table(table_path)) if table_path is not None else {}
    recipe = Recipe(config, sets, table, sha256_file(table_path) if table_path is not None else "", pictures)
    if dry_run:
        for sample in samples:
            prepared, slide = prepare(sample, config, sets, table)
            slide.close()
            for line in _lines(prepared):
                log(line)
        return Cohort(out, (), config.tile_px, config.mpp)
    before: list[SampleFacts] = []
    if append:
        before = _existing(out, config)
        have = {row.id for row in before}
        samples = tuple(sample for sample in samples if sample.id not in have)
        log(f"{len(have)} samples are there, {len(samples)} are new")
    else:
        check_output(out, overwrite=overwrite)
    recipe = replace(recipe, samples=len(before) + len(samples))
    unfinished = Unfinished(out)
    with disk_errors(out), unfinished.held():
        keys = {sample.id: recipe.key(sample) for sample in samples}  # before their files are read
        made = _make(samples, keys, recipe, unfinished, jobs, log)
        facts = [made[sample.id] for sample in samples]
        if append:
            for row in facts:
                unfinished.hand_over(row, out)
            _write_json(out, [*before, *facts], recipe)
        else:
            _move_in(out, facts, keys, unfinished, recipe, overwrite)
    return load_cohort(out)


def _make(
    samples: Sequence[SampleConfig],
    keys: dict[str, str],
    recipe: Recipe,
    unfinished: Unfinished,
    jobs: int,
    log: Log,
) -> dict[str, SampleFacts]:
    """The facts of every sample, by its id; those that are finished are not made again."""
    made: dict[str, SampleFacts] = {}
    left = []
    for sample in samples:
        found = unfinished.finished(sample.id, keys[sample.id])
        if found is None:
            left.append(sample)
        else:
            made[sample.id] = found
    if made:
        log(f"{len(made)} samples were finished by an earlier build")
    try:
        for sample, (facts, lines) in _each(left, partial(_one, recipe=recipe, folder=unfinished.folder), jobs):
            unfinished.finish(facts, keys[sample.id])
            made[sample.id] = facts
            for line in lines:
                log(line)
    except StampError:
        if made:
            log(f"{len(made)} samples are finished and kept: the same command goes on from them")
        raise
    return made


Made = tuple[SampleFacts, list[str]]


def _each(
    samples: Sequence[SampleConfig], work: Callable[[SampleConfig], Made], jobs: int
) -> Iterator[tuple[SampleConfig, Made]]:
    """What `work` makes of each sample, as they are finished."""
    jobs = min(jobs or usable_cores(), len(samples))
    if jobs <= 1:
        yield from ((sample, work(sample)) for sample in samples)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, sample): sample for sample in samples}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one(sample: SampleConfig, recipe: Recipe, folder: Path) -> Made:
    """One sample, from its files to its folder."""
    prepared, slide = prepare(sample, recipe.config, recipe.sets, recipe.table)
    with slide:
        facts = _write(folder, prepared, slide, recipe)
    return facts, _lines(prepared)


def _existing(out: Path, config: CohortConfig) -> list[SampleFacts]:
    """The samples of a finished cohort that is to grow.

    Raises
    ------
    UsageError
        It was built with other settings.
    """
    load_cohort(out)  # raises where it is none
    document: dict[str, Any] = json.loads((out / "cohort.json").read_text(encoding="utf-8"))
    for key in SAME:
        have, wanted = document.get(key, getattr(config, key)), getattr(config, key)
        if have != wanted:
            raise UsageError(
                f"the cohort has {key} = {have}, the config {wanted}",
                path=out,
                remedy=f"set {key} = {have}, or build another cohort",
            )
    return [SampleFacts(**row) for row in document["samples"]]


def _move_in(
    out: Path,
    facts: Sequence[SampleFacts],
    keys: dict[str, str],
    unfinished: Unfinished,
    recipe: Recipe,
    overwrite: bool,
) -> None:
    """The finished samples become the cohort; they stay finished where that fails."""
    with staged_directory(out, overwrite=overwrite) as staging:
        try:
            for row in facts:
                unfinished.hand_over(row, staging)
            _write_json(staging, facts, recipe)
        except BaseException:
            for row in facts:
                unfinished.take_back(row, keys[row.id], staging)
            raise


def _write_json(folder: Path, rows: Sequence[SampleFacts], recipe: Recipe) -> None:
    config = recipe.config
    sets = [{"file": Path(name).name, "sha256": s.sha256, "sets": len(s)} for name, s in recipe.sets]
    write_cohort_json(
        folder,
        rows,
        tile_px=config.tile_px,
        mpp=config.mpp,
        software=f"stamp-deploy {__version__}",
        min_genes=config.min_genes,
        gene_sets=sets,
    )


def _write(folder: Path, prepared: Prepared, slide: Slide, recipe: Recipe) -> SampleFacts:
    import anndata
    import pandas as pd

    from .qc_sheet import write_qc_sheet

    raw, facts, config = prepared.raw, prepared.facts, recipe.config
    tiles = tiles_file(folder, facts.id, len(raw.barcodes), config.tile_px)
    cut = cut_tiles(slide, raw.centres, tiles, target_mpp=config.mpp, allow_upsampling=config.allow_upsampling)
    facts = replace(facts, qc={**facts.qc, "tiles": cut.to_dict()})
    data = anndata.AnnData(
        sparse.csr_matrix(prepared.counts),
        obs=pd.DataFrame(index=pd.Index(raw.barcodes, dtype=str)),
        var=pd.DataFrame(index=pd.Index(prepared.symbols, dtype=str)),
        obsm={"spatial": raw.centres},
    )
    facts = write_sample(folder, data, None, facts)
    if recipe.pictures:
        write_qc_sheet(folder / "samples" / facts.id / "qc.png", prepared, facts, slide, tiles, cut)
    if wants_shards(config.store, tiles.nbytes, recipe.samples):
        place = folder / "samples" / facts.id
        facts = replace(facts, qc={**facts.qc, "store": write_shards(place, tiles, config.tile_format)})
        (place / "tiles.npy").unlink()
    del tiles  # closes the map before the folder moves
    return facts


def _lines(prepared: Prepared) -> list[str]:
    """A line for the sample, and one for each thing that a person should look at."""
    facts = prepared.facts
    qc = facts.qc
    covered = "; ".join(f"{c['valid']} of {c['sets']} sets of {name}" for name, c in qc["coverage"].items())
    head = (
        f"{facts.id}: {qc['spots_kept']} of {qc['spots_read']} spots, median {qc['median_counts']:.0f} counts and "
        f"{qc['median_genes']:.0f} genes, {facts.mpp:.4g} um/px ({facts.mpp_source})"
    )
    return [head + (f"; {covered}" if covered else ""), *(f"{facts.id}: warning: {w}" for w in prepared.warnings)]
