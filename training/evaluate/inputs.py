"""What an evaluation is asked for, and the runs, gene sets and sections that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stamp_deploy.errors import DataError, UsageError

from ..cohort import Cohort, Sample, load_cohort
from ..gene_sets import GeneSets, read_gmt
from .foreign_sections import cohort_at
from .rows import CONTROLS, RowKind, kind_of
from .runs import Progress, Run, open_run


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate.

    Attributes
    ----------
    run : Path
    cohort : Path, optional
        Another cohort: all its samples are tested. By default the run's held-out samples.
    train_cohort : Path, optional
        Where the run's cohort is now, if it moved.
    gmt : Path, optional
        Where the run's gene sets are now, if they moved.
    compare : tuple of (str, Path)
        Further runs: name and folder.
    ablations : Path, optional
        A folder of runs; each subfolder with a run.json is a row.
    samples : tuple of str
        Test these only.
    tier1 : bool
        Whether single genes are evaluated too.
    device : str
    seed : int
        Of the bootstrap.
    cache : Path, optional
        Where the work of frozen trunks is kept between evaluations.
    """

    run: Path
    cohort: Path | None = None
    train_cohort: Path | None = None
    gmt: Path | None = None
    compare: tuple[tuple[str, Path], ...] = ()
    ablations: Path | None = None
    samples: tuple[str, ...] = ()
    tier1: bool = True
    device: str = "cpu"
    seed: int = 0
    cache: Path | None = None


def gene_sets_of(run: Run, options: EvaluateOptions) -> GeneSets:
    path = options.gmt or (Path(run.config.gmt) if run.config.gmt else None)
    if path is None or not path.is_file():
        raise UsageError(
            "the run's gene sets are not where it names them", path=path or options.run, remedy="name them: --gmt FILE"
        )
    sets = read_gmt(path)
    if run.info.pathway_names != sets.names and kind_of(run.config).head:
        known = [n for n in run.info.pathway_names if n in sets.names]
        if len(known) == len(run.info.pathway_names):
            return sets.select(run.info.pathway_names)
        raise UsageError("holds other gene sets than the run was trained on", path=path, remedy="name them: --gmt FILE")
    return sets


def training_cohort_of(run: Run, options: EvaluateOptions) -> Cohort | None:
    path = options.train_cohort or (Path(run.config.cohort) if run.config.cohort else None)
    if path is None or not path.exists():
        if options.train_cohort is not None:
            raise DataError("does not exist", path=path)
        return None
    return load_cohort(path)


def test_samples_of(
    run: Run, options: EvaluateOptions, train_cohort: Cohort | None, train_samples: Sequence[Sample]
) -> tuple[list[Sample], Cohort]:
    if options.cohort is not None:
        like = train_cohort or run.info
        cohort = cohort_at(options.cohort, tile_px=like.tile_px, mpp=like.mpp)
        chosen = list(cohort)
        hashes = {s.qc["image_sha256"] for s in train_samples if "image_sha256" in s.qc}
        trained = [s.id for s in chosen if s.qc.get("image_sha256") in hashes]
        if trained:
            chosen = [s for s in chosen if s.id not in trained]
            if not chosen:
                raise DataError(
                    f"every sample ({', '.join(trained)}) was trained on",
                    path=cohort.path,
                    remedy="test on sections that the run never saw",
                )
    elif train_cohort is not None:
        cohort = train_cohort
        chosen = [s for s in cohort if s.id in run.config.held_out]
        if not chosen:
            raise DataError(
                "the run held nothing out, so nothing is left to test on",
                path=options.run,
                remedy="name another cohort (--cohort DIR), or train with held_out = [...]",
            )
    else:
        raise DataError(
            "the run's cohort is not where it was",
            path=Path(run.config.cohort) if run.config.cohort else options.run,
            remedy="name it (--train-cohort DIR), or test on another (--cohort DIR)",
        )
    if options.samples:
        wanted = [cohort[name] for name in options.samples]
        outside = [s.id for s in wanted if s.id not in {c.id for c in chosen}]
        if outside:
            raise DataError(f"the sample {outside[0]} was trained on", remedy="test on sections that the run never saw")
        chosen = wanted
    return chosen, cohort


def runs_of(run: Run, options: EvaluateOptions, progress: Progress | None) -> list[tuple[str, RowKind, Run]]:
    """The run itself, then the others: (name, row, run). A row's first run needs no name of its own."""
    runs = [("", kind_of(run.config), run)]
    folders = [(key, options.run / "controls" / key) for key in CONTROLS]
    folders = [(name, folder) for name, folder in folders if (folder / "run.json").is_file()]
    folders += options.compare
    if options.ablations is not None:
        found = sorted(p.parent for p in options.ablations.glob("*/run.json"))
        if not found:
            raise UsageError("holds no finished runs", path=options.ablations, remedy="a run is a folder with run.json")
        folders += [(p.name, p) for p in found if p.resolve() != options.run.resolve()]
    for name, folder in folders:
        other = open_run(folder, options.device, progress, options.cache)
        if other.info.tile_px != run.info.tile_px or abs(other.info.mpp - run.info.mpp) > 0.02 * run.info.mpp:
            raise UsageError(
                f"the run {name} wants tiles of {other.info.tile_px} px at {other.info.mpp:g} um, not "
                f"{run.info.tile_px} px at {run.info.mpp:g} um",
                path=folder,
            )
        if set(other.config.held_out) != set(run.config.held_out):
            raise UsageError(
                f"the run {name} held out {', '.join(other.config.held_out) or 'nothing'}, not "
                f"{', '.join(run.config.held_out) or 'nothing'}: it may have seen the test sections",
                path=folder,
                remedy="compare runs of the same split",
            )
        kind = kind_of(other.config)
        taken = any(k.key == kind.key for _, k, _ in runs)
        runs.append((name if taken else "", kind, other))
    return runs
