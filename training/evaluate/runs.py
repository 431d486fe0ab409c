"""What an evaluation is computed from: sections with their true scores, and what models make of their tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, UsageError

from ..cohort import Cohort, Sample
from ..config import TrainConfig, load_config
from ..depth import Depth, score_spots, spot_depth
from ..gene_sets import GeneSets
from ..ingredients import Matching, load_matching
from ..model import RunInfo, StampModel, load_run
from ..model.embed import embed_tiles
from ..model.trunk_cache import TrunkCache
from ..scoring import GeneStatistics

if TYPE_CHECKING:
    from torch.nn import Linear

Progress = Callable[[str, int, int], None]
BLOCK = 256
"""Tiles embedded between two reports of progress."""


@dataclass(eq=False)
class Section:
    """One section.

    Attributes
    ----------
    sample : Sample
    truth : float32 [N, P]
        Scores, unsmoothed.
    mask : bool [P]
    xy_um : float64 [N, 2]
        Places of the spots, in microns.
    depth : float64 [N, 2]
        Log counts and log genes detected of each spot.
    seen_patient : bool
        Whether a section of this patient was trained on.
    """

    sample: Sample
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    xy_um: NDArray[np.float64]
    depth: NDArray[np.float64]
    seen_patient: bool = False


@dataclass(eq=False)
class Run:
    """An opened run folder; what it makes of a section is computed once, when asked for.

    Attributes
    ----------
    path : Path
    model : StampModel
    info : RunInfo
    config : TrainConfig
    progress : callable
        Told what is being computed, tiles done and tiles in all.
    cache : Path, optional
        Where the work of frozen trunks is kept, for runs that share one.
    """

    path: Path
    model: StampModel
    info: RunInfo
    config: TrainConfig
    progress: Progress | None = None
    cache: Path | None = None
    _known: dict[tuple[Path, bool], NDArray[np.float32]] = field(default_factory=dict)

    @property
    def has_frozen(self) -> bool:
        """Whether the model as it was before adapting is still in the run."""
        return self.model.has_frozen

    def embedding(self, sample: Sample) -> NDArray[np.float32]:
        """Embeddings of a sample's tiles: float32 [N, D]."""
        return self._embed(sample, frozen=False)

    def frozen(self, sample: Sample) -> NDArray[np.float32]:
        """The same, of the model before it was adapted."""
        return self._embed(sample, frozen=self.info.adapt != "frozen" or self.info.st_token)

    def head(self, sample: Sample) -> NDArray[np.float32]:
        """Pathway scores of the run's own head: float32 [N, P]."""
        return self._read_out(self.model.pathway, sample)

    def global_head(self, sample: Sample) -> NDArray[np.float32]:
        """Scores of the read-out that is comparable across slides: float32 [N, P]."""
        return self._read_out(self.model.pathway_global, sample)

    def _read_out(self, head: Linear, sample: Sample) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            scores = head(torch.from_numpy(self.embedding(sample)).to(head.weight.device))
        return np.asarray(scores.float().cpu().numpy())

    def _embed(self, sample: Sample, frozen: bool) -> NDArray[np.float32]:
        key = (sample.folder, frozen)
        if key not in self._known:
            embedding = self._compute(sample, frozen)
            if not np.isfinite(embedding).all():
                raise DataError(
                    f"the model gives NaN on the sample {sample.id}", path=self.path, remedy="train it again"
                )
            self._known[key] = embedding
        return self._known[key]

    @cached_property
    def matching(self) -> dict[str, Matching]:
        """The run's ingredients that match pictures and molecules, on its device."""
        found = load_matching(self.path, self.config, self.model, len(self.info.genes))
        return {name: part.to(self.model.pathway.weight.device) for name, part in found.items()}

    @cached_property
    def _trunk(self) -> TrunkCache | None:
        """The work of the trunk that is kept; None where none is to be, or the model has no frozen trunk."""
        if self.cache is None:
            return None
        try:
            return TrunkCache(self.model, self.info, self.cache)
        except UsageError:
            return None

    def _compute(self, sample: Sample, frozen: bool) -> NDArray[np.float32]:
        if self._trunk is not None:
            if self.progress is not None:
                self.progress(f"{self.path.name}: {sample.id}", sample.n_spots, sample.n_spots)
            return self._trunk.embed(sample, frozen=frozen)
        tiles = sample.tiles()
        parts = []
        for start in range(0, len(tiles), BLOCK):
            parts.append(embed_tiles(self.model, self.info, np.array(tiles[start : start + BLOCK]), frozen=frozen))
            if self.progress is not None:
                self.progress(f"{self.path.name}: {sample.id}", min(start + BLOCK, len(tiles)), len(tiles))
        return np.concatenate(parts)


def open_run(path: Path, device: str = "cpu", progress: Progress | None = None, cache: Path | None = None) -> Run:
    """Open a run folder with its settings.

    Raises
    ------
    UsageError
        It is no finished run.
    """
    model, info = load_run(path)
    config_path = path / "config.toml"
    if not config_path.is_file():
        raise UsageError("holds no config.toml", path=path, remedy="name a folder that `stamp-deploy train` wrote")
    return Run(path, model.to(device), info, load_config(config_path), progress, cache)


def check_fits(run: Run, cohort: Cohort) -> None:
    """Refuse tiles that are smaller than the model's, or of another resolution; of larger ones the middle is used.

    Raises
    ------
    DataError
        They do not fit.
    """
    info = run.info
    if cohort.tile_px < info.tile_px or abs(cohort.mpp - info.mpp) > 0.02 * info.mpp:
        raise DataError(
            f"its tiles are {cohort.tile_px} px at {cohort.mpp:g} um; the model wants {info.tile_px} px at "
            f"{info.mpp:g} um",
            path=cohort.path,
            remedy=f"build the cohort again with tile_px = {info.tile_px} (or more) and mpp = {info.mpp:g}",
        )


def training_samples(cohort: Cohort, config: TrainConfig) -> list[Sample]:
    """The samples that a run learned from (those that it stopped on included)."""
    chosen = [s for s in cohort if s.id not in config.held_out]
    if config.samples:
        wanted = {*config.samples, *config.validation}
        chosen = [s for s in chosen if s.id in wanted]
    return chosen


def score_sections(
    samples: Sequence[Sample],
    sets: GeneSets,
    method: str,
    depth: Depth = "none",
    *,
    statistics: dict[str, GeneStatistics] | None = None,
    seen_patients: Sequence[str] = (),
) -> list[Section]:
    """True scores of sections, in the order given.

    Parameters
    ----------
    depth : str
        As the run's config says: the truth is what the run learned to predict.
    statistics : dict, optional
        For the z-mean: of each platform's training samples; a platform that is not among them uses its own.
    seen_patients : sequence of str
        The patients that were trained on.
    """
    out = []
    for sample in samples:
        data = sample.expression()
        genes = list(map(str, data.var_names))
        known = (statistics or {}).get(sample.platform)
        scores = score_spots(data.X, genes, sets, method, depth, statistics=known)
        out.append(
            Section(
                sample,
                scores.values,
                scores.mask,
                np.asarray(data.obsm["spatial"], np.float64) * sample.mpp,
                spot_depth(data.X),
                sample.patient in seen_patients,
            )
        )
    return out
