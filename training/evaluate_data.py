"""What an evaluation is computed from: sections with their true scores, and what models make of their tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, UsageError

from .cohort import Cohort, Sample
from .config import TrainConfig, load_config
from .gene_sets import GeneSets
from .images import crop_centre
from .model import RunInfo, StampModel, load_run
from .scoring import GeneStatistics, gene_statistics, score

Progress = Callable[[str, int, int], None]
BATCH = 64


@dataclass(eq=False)
class Section:
    """One section.

    Attributes
    ----------
    sample : Sample
    truth : float32 [N, P]
        Scores, unsmoothed.
    mask : bool [P]
    seen_patient : bool
        Whether a section of this patient was trained on.
    """

    sample: Sample
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    seen_patient: bool = False


@dataclass(eq=False)
class Outputs:
    """What a run makes of a section: embedding and frozen embedding [N, D] (None where it has none), head [N, P]."""

    embedding: NDArray[np.float32]
    frozen: NDArray[np.float32] | None
    head: NDArray[np.float32]

    def frozen_embedding(self) -> NDArray[np.float32]:
        """The frozen embedding of a run that has one."""
        if self.frozen is None:
            raise ValueError("this run holds no frozen model")
        return self.frozen


@dataclass(eq=False)
class Run:
    """An opened run folder; its outputs are computed once a section."""

    path: Path
    model: StampModel
    info: RunInfo
    config: TrainConfig
    device: str = "cpu"
    _outputs: dict[Path, Outputs] = field(default_factory=dict)

    def outputs(self, sample: Sample, progress: Progress | None = None) -> Outputs:
        """Embeddings and predictions of a sample's tiles."""
        if sample.folder not in self._outputs:
            self._outputs[sample.folder] = _predict(self, sample, progress)
        return self._outputs[sample.folder]


def open_run(path: Path, device: str = "cpu") -> Run:
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
    return Run(path, model.to(device), info, load_config(config_path), device)


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
    *,
    statistics: dict[str, GeneStatistics] | None = None,
    seen_patients: Sequence[str] = (),
) -> list[Section]:
    """True scores of sections.

    Parameters
    ----------
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
        scores = score(data.X, genes, sets, method, statistics=known)
        out.append(Section(sample, scores.values, scores.mask, sample.patient in seen_patients))
    return out


def platform_statistics(samples: Sequence[Sample]) -> dict[str, GeneStatistics]:
    """Mean and deviation of the genes of each platform, over all its samples; genes that all of them measured."""
    from scipy import sparse

    out: dict[str, GeneStatistics] = {}
    for platform in sorted({s.platform for s in samples}):
        data = [s.expression() for s in samples if s.platform == platform]
        shared = set.intersection(*(set(map(str, d.var_names)) for d in data))
        genes = [str(g) for g in data[0].var_names if str(g) in shared]
        stacked = sparse.vstack([sparse.csr_array(d[:, genes].X) for d in data], format="csr")
        out[platform] = gene_statistics(stacked, genes)
    return out


def _predict(run: Run, sample: Sample, progress: Progress | None) -> Outputs:
    import torch

    model, info = run.model, run.info
    tiles = sample.tiles()
    mean = torch.tensor(info.mean, device=run.device).view(1, 3, 1, 1)
    std = torch.tensor(info.std, device=run.device).view(1, 3, 1, 1)
    with_adapter = info.adapt == "lora"
    embeddings, frozen, heads = [], [], []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(tiles), BATCH):
            middle = crop_centre(tiles[start : start + BATCH], info.tile_px)
            batch = torch.from_numpy(np.array(middle)).to(run.device)
            x = (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std
            embedding, pathways = model(x)
            embeddings.append(embedding.float().cpu().numpy())
            heads.append(pathways.float().cpu().numpy())
            if with_adapter:
                with model.without_adapter():
                    frozen.append(model.embedding(x).float().cpu().numpy())
            if progress is not None:
                progress(f"{run.path.name}: {sample.id}", start + len(batch), len(tiles))
    embedding = np.concatenate(embeddings)
    if not np.isfinite(embedding).all():
        raise DataError(f"the model gives NaN on the sample {sample.id}", path=run.path, remedy="train it again")
    base = np.concatenate(frozen) if frozen else (embedding if info.adapt == "frozen" else None)
    return Outputs(embedding, base, np.concatenate(heads))
