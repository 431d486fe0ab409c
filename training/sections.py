"""Sections ready to learn from: what every spot is to be predicted as, from its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from .cohort import Sample
from .cohort.shards import Tiles
from .config import TrainConfig
from .depth import score_spots
from .gene_sets import GeneSets
from .neighbours import neighbours_mean
from .scoring import GeneStatistics, GeneSums, as_counts, gene_statistics, log_cp10k, robust_z
from .targets import keep_components, over_measured, smooth

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(eq=False)
class TrainSection:
    """One section.

    Attributes
    ----------
    sample : Sample
    scores : float32 [N, P]
        As scored, unsmoothed: what validation compares with.
    target : float32 [N, P]
        Robust z within the section, clipped at 4, smoothed and permuted where the config says so.
    level : float32 [N, P]
        Scores standardised over the training sections, or over those of its platform, for the global head.
    mask : bool [P]
        Pathways that enough measured genes speak for.
    genes : float32 [N, G]
        z-scored log1p CP10k of the genes that losses learn from, smoothed where the config says so; G is 0 without
        such losses. 0, the mean, of those that the sample does not measure.
    measured : bool [G], optional
        Which of them it measures; None where every sample measures all.
    xy_um : float64 [N, 2]
        Places of the spots, in microns.
    tables : dict of array [N, ...]
        Further values of each spot that ingredients learn from. ``niche`` float32 [N, G]: the mean of its neighbours'
        genes; ``teacher`` float32 [N, W]: its embedding by a frozen teacher.
    patch_rows : int64 [N, g, g], optional
        The row of the place that lies in each patch of the spot's tile, -1 for none.
    """

    sample: Sample
    scores: NDArray[np.float32]
    target: NDArray[np.float32]
    level: NDArray[np.float32]
    mask: NDArray[np.bool_]
    genes: NDArray[np.float32]
    xy_um: NDArray[np.float64]
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    patch_rows: NDArray[np.int64] | None = None
    measured: NDArray[np.bool_] | None = None

    @property
    def tiles(self) -> Tiles:
        """uint8 [N, S, S, 3], mapped or of shards."""
        return self.sample.tiles()

    def gather(self, index: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """The tables of some spots; with `patch_rows`, also ``patches`` float32 [n, g, g, P]: the targets of the places
        in the tile's patches, NaN where there is none. With `measured`, also that, float32 [n, G], 1 or 0."""
        found = {name: table[index] for name, table in self.tables.items()}
        if self.measured is not None:
            found["measured"] = np.tile(self.measured.astype(np.float32), (len(index), 1))
        if self.patch_rows is not None:
            rows = self.patch_rows[index]
            found["patches"] = np.where(rows[..., None] >= 0, self.target[rows], np.float32("nan"))
        return found


def control_sets(config: TrainConfig, sets: GeneSets, samples: Sequence[Sample]) -> GeneSets:
    """The sets to learn: those given, or size-matched random ones from the genes that every sample measured."""
    if config.control != "random-sets":
        return sets
    rng = np.random.default_rng(config.seed)
    if config.genes_measured_by == "any":
        return sets.random_from(rng, panels(samples))
    return sets.random_like(rng, sorted(shared_genes(samples)))


def variable_genes(
    samples: Sequence[Sample], count: int, *, at_most: bool = False, measured_by: str = "all"
) -> tuple[str, ...]:
    """The genes with the largest variance of log1p CP10k, mean over the samples, among those that all measured.

    Samples are read one after the other, twice: one table is in memory at a time. With `at_most`, all genes where they
    are fewer than `count` (a panel of a few hundred genes).

    Parameters
    ----------
    measured_by : str
        "any": among those that any sample measures, mean over the samples that do. A variance then counts as a multiple
        of the mean variance of the sample's genes: a panel of few genes has more of each in 10,000 counts, which must
        not say whose genes are taken.

    Raises
    ------
    DataError
        There are fewer genes.
    """
    if measured_by == "any":
        return _variable_in_panels(samples, count, at_most)
    names = shared_genes(samples)
    if len(names) < count and not (at_most and names):
        raise DataError(
            f"the samples share {len(names)} genes, fewer than n_genes = {count}",
            remedy='set genes_measured_by = "any", lower n_genes, or train on samples of one panel',
        )
    total = np.zeros(len(names))
    for sample in samples:
        x = log_cp10k(as_counts(sample.expression()[:, names].X, len(names)))
        mean = np.asarray(x.mean(axis=0)).ravel()
        total += np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    best = np.argsort(-total, kind="stable")[:count]
    return tuple(names[i] for i in sorted(best))


def _variable_in_panels(samples: Sequence[Sample], count: int, at_most: bool) -> tuple[str, ...]:
    sums: dict[str, list[float]] = {}
    for sample in samples:
        data = sample.expression()
        names = [str(g) for g in data.var_names]
        variance = gene_statistics(data.X, names).sd ** 2
        level = variance.mean() if len(variance) else 0.0
        for gene, value in zip(names, (variance / level if level > 0 else variance).tolist(), strict=True):
            own = sums.setdefault(gene, [0.0, 0.0])
            own[0] += value
            own[1] += 1
    if len(sums) < count and not (at_most and sums):
        raise DataError(f"the samples measure {len(sums)} genes, fewer than n_genes = {count}", remedy="lower n_genes")
    names = list(sums)
    best = np.argsort([-total / n for total, n in sums.values()], kind="stable")[:count]
    return tuple(names[i] for i in sorted(best))


def panels(samples: Sequence[Sample]) -> list[list[str]]:
    """The genes of all samples, by which samples measure them; one table is in memory at a time."""
    found: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        for gene in sample.expression().var_names:
            found.setdefault(str(gene), []).append(i)
    groups: dict[tuple[int, ...], list[str]] = {}
    for gene, own in found.items():
        groups.setdefault(tuple(own), []).append(gene)
    return list(groups.values())


def shared_genes(samples: Sequence[Sample]) -> list[str]:
    """The genes that every sample measures, in the order of the first; one table is in memory at a time."""
    first = [str(g) for g in samples[0].expression().var_names]
    shared = set(first)
    for sample in samples[1:]:
        shared &= set(map(str, sample.expression().var_names))
    return [gene for gene in first if gene in shared]


def log_expression(data: AnnData, genes: Sequence[str]) -> NDArray[np.float32]:
    """log1p CP10k float32 [N, G] of some genes, 0 of those that are not measured; the depth is that of all genes."""
    place = {str(name): i for i, name in enumerate(data.var_names)}
    everything = log_cp10k(as_counts(data.X, len(place)))
    out = np.zeros((data.n_obs, len(genes)), np.float32)
    known = [i for i, gene in enumerate(genes) if gene in place]
    if known:
        out[:, known] = everything[:, [place[genes[i]] for i in known]].toarray()
    return out


def make_sections(
    config: TrainConfig,
    samples: Sequence[Sample],
    sets: GeneSets | None,
    genes: Sequence[str],
    *,
    statistics: dict[str, GeneStatistics] | None = None,
    training: bool = True,
) -> list[TrainSection]:
    """Score and standardise the spots of some samples.

    Parameters
    ----------
    sets : GeneSets or None
        None where `config.targets` is "genes": then `genes` are the targets.
    genes : sequence of str
        Targets, or what the reconstruction loss wants.
    statistics : dict, optional
        For the z-mean: a platform's training statistics.
    training : bool
        False for validation: no smoothing, no shuffling.

    Raises
    ------
    DataError
        As `scoring.score`; or a section with fewer than 8 spots.
    """
    rng = np.random.default_rng([config.seed, 7])
    raw: list[tuple[Sample, NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float64]]] = []
    measured: list[NDArray[np.bool_]] = []
    for sample in samples:
        data = sample.expression()
        if data.n_obs < 8:
            raise DataError(f"the sample {sample.id} has {data.n_obs} spots", remedy="leave it out: 8 are the least")
        names = list(map(str, data.var_names))
        wanted = np.zeros((data.n_obs, 0), np.float32)
        if genes:
            missing = sorted(set(genes) - set(names), key=list(genes).index)
            if missing and config.genes_measured_by == "all":
                raise DataError(
                    f"the gene {missing[0]} is not measured in the sample {sample.id}",
                    remedy='set genes_measured_by = "any", or build the cohort from one gene list',
                )
            wanted = log_expression(data, genes)
        measured.append(np.isin(list(genes), names) if genes else np.zeros(0, bool))
        if sets is None:
            values, mask = wanted, measured[-1]
        else:
            known = (statistics or {}).get(sample.platform)
            found = score_spots(data.X, names, sets, config.score, config.depth, statistics=known)
            values, mask = found.values, found.mask
        raw.append((sample, values, mask, wanted, np.asarray(data.obsm["spatial"]) * sample.mpp))
    if not raw:
        return []
    masks = [m for _, _, m, _, _ in raw]
    by = [row[0].platform if config.level_by == "platform" else "" for row in raw]
    spread = {}
    for name in set(by):
        own = [row for row, platform in zip(raw, by, strict=True) if platform == name]
        spread[name] = over_measured([row[1] for row in own], [row[2] for row in own])
    targets = [robust_z(values) for _, values, _, _, _ in raw]
    if training and config.smooth_um > 0:
        targets = [smooth(t, row[4], config.smooth_um) for t, row in zip(targets, raw, strict=True)]
    if training and config.target_rank > 0:
        targets = keep_components(targets, config.target_rank, masks)
    partly = not all(own_genes.all() for own_genes in measured)
    sections = []
    for target, own_genes, (sample, values, mask, wanted, xy_um), platform in zip(
        targets, measured, raw, by, strict=True
    ):
        extra, tables = np.zeros((len(values), 0), np.float32), {}
        if config.reads_genes and wanted.shape[1]:
            extra = learned_genes(wanted, xy_um, config.genes_smooth_um if training else 0.0)
            if config.aligns_niches:
                tables["niche"] = neighbours_mean(extra, xy_um)
        if training and config.control == "shuffled":  # whatever is learned from, or the control would learn
            order = rng.permutation(len(target))
            target, extra, tables = target[order], extra[order], {k: v[order] for k, v in tables.items()}
        mean, sd = spread[platform]
        level = np.divide(values - mean, sd, out=np.zeros(values.shape), where=(sd > 1e-9) & mask)
        section = TrainSection(sample, values, target, level.astype(np.float32), mask, extra, xy_um, tables)
        section.measured = own_genes if partly and extra.shape[1] else None
        sections.append(section)
    return sections


def learned_genes(
    expression: NDArray[np.float32], xy_um: NDArray[np.floating], smooth_um: float
) -> NDArray[np.float32]:
    """Robust z within the section of log1p CP10k [N, G], smoothed over neighbours within `smooth_um` first."""
    return robust_z(smooth(expression, xy_um, smooth_um) if smooth_um > 0 else expression)


def platform_statistics(samples: Sequence[Sample]) -> dict[str, GeneStatistics]:
    """Mean and deviation of the genes of each platform, each gene over the samples that measure it.

    One table is in memory at a time.
    """
    sums: dict[str, GeneSums] = {}
    for sample in samples:
        data = sample.expression()
        sums.setdefault(sample.platform, GeneSums()).add(data.X, [str(g) for g in data.var_names])
    return {platform: sums[platform].statistics() for platform in sorted(sums)}
