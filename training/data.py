"""Sections ready to learn from: targets of every spot, and batches of tiles drawn from the mapped cohort."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stamp_deploy.errors import DataError

from .augment import crop_shifted, jitter_stain, normalise, to_unit, turn_each
from .cohort import Sample
from .config import TrainConfig
from .gene_sets import GeneSets
from .scoring import GeneStatistics, as_counts, log_cp10k, robust_z, score

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
        Scores standardised over the training sections, for the global head.
    mask : bool [P]
        Pathways that enough measured genes speak for.
    genes : float32 [N, G]
        z-scored log1p CP10k of the genes to reconstruct; G is 0 without that loss.
    """

    sample: Sample
    scores: NDArray[np.float32]
    target: NDArray[np.float32]
    level: NDArray[np.float32]
    mask: NDArray[np.bool_]
    genes: NDArray[np.float32]

    @property
    def tiles(self) -> NDArray[np.uint8]:
        """uint8 [N, S, S, 3], mapped."""
        return self.sample.tiles()


@dataclass(eq=False)
class Batch:
    """Tensors of one step: `tiles` normalised float32 [n, 3, T, T]; `target` [n, P]; `mask` bool [n, P]; `slide` int64
    [n], the section's place in the list; `genes` [n, G]."""

    tiles: Tensor
    target: Tensor
    mask: Tensor
    slide: Tensor
    genes: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(*(t.to(device, non_blocking=True) for t in self.fields()))

    def fields(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The tensors, in order."""
        return self.tiles, self.target, self.mask, self.slide, self.genes


def smooth(values: NDArray[np.floating], xy_um: NDArray[np.floating], radius_um: float) -> NDArray[np.float32]:
    """Half the spot, half a Gaussian mean (sd = radius / 2) of the spots within the radius, itself included.

    Parameters
    ----------
    values : float [N, P]
    xy_um : float [N, 2]
        Places in microns.
    """
    from scipy.sparse import csr_array, diags_array
    from scipy.spatial import cKDTree

    tree = cKDTree(xy_um)
    near = tree.sparse_distance_matrix(tree, radius_um, output_type="coo_matrix")
    weight = np.exp(-0.5 * (near.data / (radius_um / 2)) ** 2)
    kernel = csr_array((weight, (near.row, near.col)), shape=near.shape)
    kernel = kernel - diags_array(kernel.diagonal()) + diags_array(np.ones(len(values)))  # the spot itself weighs 1
    kernel = diags_array(1 / np.asarray(kernel.sum(axis=1)).ravel()) @ kernel
    return np.asarray(0.5 * values + 0.5 * (kernel @ values), np.float32)


def keep_components(targets: Sequence[NDArray[np.float32]], rank: int) -> list[NDArray[np.float32]]:
    """Targets [N, P] of all sections, reduced to the `rank` components that they vary most along, about their mean.

    Pathways share genes and respond together: what a few hundred spots can tell of 50 scores has few dimensions.
    """
    together = np.concatenate(targets).astype(np.float64)
    mean = together.mean(axis=0)
    _, _, axes = np.linalg.svd(together - mean, full_matrices=False)
    keep = axes[:rank].T @ axes[:rank]
    return [(mean + (t - mean) @ keep).astype(np.float32) for t in targets]


def control_sets(config: TrainConfig, sets: GeneSets, samples: Sequence[Sample]) -> GeneSets:
    """The sets to learn: those given, or size-matched random ones from the genes that every sample measured."""
    if config.control != "random-sets":
        return sets
    shared = sorted(set.intersection(*(set(map(str, s.expression().var_names)) for s in samples)))
    return sets.random_like(np.random.default_rng(config.seed), shared)


def variable_genes(samples: Sequence[Sample], count: int) -> tuple[str, ...]:
    """The genes with the largest variance of log1p CP10k, mean over the samples, among those that all measured."""
    tables = [s.expression() for s in samples]
    shared = set.intersection(*(set(map(str, t.var_names)) for t in tables))
    names = [str(g) for g in tables[0].var_names if str(g) in shared]
    if len(names) < count:
        raise DataError(f"the samples share {len(names)} genes, fewer than n_genes = {count}")
    total = np.zeros(len(names))
    for table in tables:
        x = log_cp10k(as_counts(table[:, names].X, len(names)))
        mean = np.asarray(x.mean(axis=0)).ravel()
        total += np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    best = np.argsort(-total, kind="stable")[:count]
    return tuple(names[i] for i in sorted(best))


def _expression(data: AnnData, names: Sequence[str], genes: Sequence[str]) -> NDArray[np.float32]:
    """log1p CP10k float32 [N, G] of some genes; the depth is that of all genes."""
    place = {name: i for i, name in enumerate(names)}
    missing = [g for g in genes if g not in place]
    if missing:
        raise DataError(f"the gene {missing[0]} is not measured", remedy="build the cohort from one gene list")
    everything = log_cp10k(as_counts(data.X, len(names)))
    return np.asarray(everything[:, [place[g] for g in genes]].todense(), np.float32)


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
    for sample in samples:
        data = sample.expression()
        if data.n_obs < 8:
            raise DataError(f"the sample {sample.id} has {data.n_obs} spots", remedy="leave it out: 8 are the least")
        names = list(map(str, data.var_names))
        wanted = np.zeros((data.n_obs, 0), np.float32)
        if genes:
            wanted = _expression(data, names, genes)
        if sets is None:
            values, mask = wanted, np.ones(len(genes), bool)
        else:
            found = score(data.X, names, sets, config.score, statistics=(statistics or {}).get(sample.platform))
            values, mask = found.values, found.mask
        raw.append((sample, values, mask, wanted, np.asarray(data.obsm["spatial"]) * sample.mpp))
    if not raw:
        return []
    everything = np.concatenate([v for _, v, _, _, _ in raw])
    mean, sd = everything.mean(axis=0), everything.std(axis=0)
    targets = [robust_z(values) for _, values, _, _, _ in raw]
    if training and config.smooth_um > 0:
        targets = [smooth(t, row[4], config.smooth_um) for t, row in zip(targets, raw, strict=True)]
    if training and config.target_rank > 0:
        targets = keep_components(targets, config.target_rank)
    sections = []
    for target, (sample, values, mask, wanted, _) in zip(targets, raw, strict=True):
        if training and config.control == "shuffled":
            target = target[rng.permutation(len(target))]
        level = np.divide(values - mean, sd, out=np.zeros_like(values), where=sd > 1e-9)
        extra = robust_z(wanted) if config.w_genes > 0 else np.zeros((len(values), 0), np.float32)
        sections.append(TrainSection(sample, values, target, level.astype(np.float32), mask, extra))
    return sections


def plan_epoch(
    sizes: Sequence[int], slides: int, spots: int, rng: np.random.Generator
) -> list[list[tuple[int, NDArray[np.int64]]]]:
    """Batches that see every spot about once: each is a list of (section, rows).

    A batch holds up to `slides` sections with `spots` rows each, drawn from the sections with most rows left, so that
    within-slide losses have enough rows. A remainder of fewer than 8 rows joins the section's last piece.
    """
    queues: list[list[NDArray[np.int64]]] = []
    for size in sizes:
        order = rng.permutation(size).astype(np.int64)
        cuts = list(range(spots, size, spots))
        if cuts and size - cuts[-1] < 8:
            cuts.pop()
        queues.append(np.split(order, cuts))
    batches = []
    while any(queues):
        left = np.array([len(q) for q in queues]) + rng.random(len(queues))
        chosen = [int(i) for i in np.argsort(-left)[:slides] if queues[int(i)]]
        batches.append([(i, queues[i].pop()) for i in chosen])
    return batches


class Loader:
    """Batches of an epoch, prepared one ahead in a thread. All chance follows from (seed, epoch, batch), so a run
    that was killed goes on with the same batches.

    Parameters
    ----------
    sections : sequence of TrainSection
    config : TrainConfig
    tile_px : int
        Of the model.
    rank, world : int
        Which process of how many: each plans the same epoch and takes every `world`-th batch.
    """

    def __init__(
        self,
        sections: Sequence[TrainSection],
        config: TrainConfig,
        tile_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        mpp: float,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sections, self.config, self.tile_px = sections, config, tile_px
        self.mean, self.std, self.rank, self.world = mean, std, rank, world
        self.reach = round(config.shift_um / mpp)
        self._tiles = [s.tiles for s in sections]

    def batches_per_epoch(self) -> int:
        """The same for every process."""
        return len(self._plan(0)) // self.world or 1

    def _plan(self, epoch: int) -> list[list[tuple[int, NDArray[np.int64]]]]:
        rng = np.random.default_rng([self.config.seed, epoch])
        sizes = [len(s.target) for s in self.sections]
        return plan_epoch(sizes, self.config.batch_slides, self.config.batch_spots, rng)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start` and on of an epoch."""
        plan = self._plan(epoch)
        mine = [plan[(i * self.world + self.rank) % len(plan)] for i in range(self.batches_per_epoch())]
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            ahead: Future[Batch] | None = None
            for i in range(start, len(mine)):
                current = ahead or pool.submit(self.make, mine[i], epoch, i)
                ahead = pool.submit(self.make, mine[i + 1], epoch, i + 1) if i + 1 < len(mine) else None
                yield current.result()

    def make(self, rows: list[tuple[int, NDArray[np.int64]]], epoch: int, number: int) -> Batch:
        """One augmented batch."""
        rng = np.random.default_rng([self.config.seed, epoch, number, self.rank, 1])
        crops, target, mask, slide, genes = [], [], [], [], []
        for i, index in rows:
            section = self.sections[i]
            index = np.sort(index)  # in file order: the pages of the map are read once
            crops.append(crop_shifted(self._tiles[i], index, self.tile_px, self.reach, rng))
            target.append(section.target[index])
            mask.append(np.broadcast_to(section.mask, (len(index), len(section.mask))))
            slide.append(np.full(len(index), i, np.int64))
            genes.append(section.genes[index])
        x = to_unit(np.concatenate(crops))
        if self.config.hed_jitter > 0:
            x = jitter_stain(x, self.config.hed_jitter, rng)
        if self.config.flips:
            x = turn_each(x, rng)
        parts = (np.concatenate(p) for p in (target, mask, slide, genes))
        return Batch(normalise(x, self.mean, self.std), *(torch.from_numpy(np.ascontiguousarray(p)) for p in parts))
