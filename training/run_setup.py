"""What a run starts from: the cohort's sections with their targets, the model's description and its first weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.hashing import sha256_file
from stamp_deploy.provenance import software

from .cohort import Cohort, load_cohort
from .config import TrainConfig
from .gene_sets import GeneSets, read_gmt
from .ingredients import check_ingredients
from .ingredients.patch_regression import patch_rows
from .model import LoraSettings, RunInfo, StampModel, base_state, build_model, measured_dim
from .model.checkpoint import Checkpoint, read_tensors, write_tensors
from .model.registry import build_backbone, get_pfm, packaged_weights
from .model.st_token import patches_along, token_width
from .progress import Report
from .sections import TrainSection, control_sets, make_sections, platform_statistics, variable_genes
from .split import Split, split_cohort
from .warm_up import warm_up

CHECKPOINTING_FROM_M = 600.0
"""Millions of parameters from which gradients are checkpointed without being asked."""
NOT_IN_KEY = ("cache_dir", "progress", "checkpoint_minutes", "threads", "copy_backbone", "controls")


@dataclass(eq=False)
class Start:
    """Everything that is read before the first step."""

    cohort: Cohort
    split: Split
    sets: GeneSets | None
    info: RunInfo
    train: list[TrainSection]
    validation: list[TrainSection]
    key: str


def prepare(config: TrainConfig) -> Start:
    """Read the cohort, score it, and describe the run.

    Raises
    ------
    UsageError, DataError
        A setting or a file that cannot be used; named in the message.
    """
    if not config.cohort:
        raise UsageError("the config names no cohort", remedy='set cohort = "FOLDER" (stamp-deploy cohort build)')
    cohort = load_cohort(config.cohort)
    split = split_cohort(cohort, config)
    genes: tuple[str, ...] = ()
    if config.targets == "genes" or config.reads_genes:
        genes = variable_genes(
            split.train, config.n_genes, at_most=config.targets == "pathways", measured_by=config.genes_measured_by
        )
    sets = None
    if config.targets == "pathways":
        if not config.gmt:
            raise UsageError("the config names no gene sets", remedy='set gmt = "FILE.gmt", or targets = "genes"')
        sets = control_sets(config, read_gmt(config.gmt), split.train)
    statistics = platform_statistics(split.train) if config.score == "zmean" and sets is not None else None
    train = make_sections(config, split.train, sets, genes, statistics=statistics)
    if not any(s.mask.any() for s in train):
        raise DataError("no gene set has enough measured genes", remedy="see the coverage that cohort build reported")
    batch_numbers(config, train)  # raises where there is nothing to tell apart
    validation = make_sections(config, split.validation, sets, genes, statistics=statistics, training=False)
    info = describe(config, cohort, split, sets, genes)
    if config.w_patches > 0:
        patches = patches_along(build_backbone(info.timm_name, info.timm_kwargs, device="meta"), info.tile_px)
        for section in train:
            section.patch_rows = patch_rows(section.xy_um, info.tile_px * info.mpp, patches)
    return Start(cohort, split, sets, info, train, validation, digest(config, cohort))


def batch_numbers(config: TrainConfig, sections: Sequence[TrainSection]) -> list[int]:
    """What the adversarial head guesses of each section, counted from 0 in order of appearance.

    Raises
    ------
    UsageError
        There is such a head, and all sections are of one.
    """
    labels = [str(getattr(s.sample, config.batch_label)) for s in sections]
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    if config.w_batch > 0 and len(numbers) < 2:
        what = {"id": "sample"}.get(config.batch_label, config.batch_label)
        raise UsageError(
            f"w_batch is set, and all training sections are of one {what}",
            remedy="set w_batch = 0, or another batch_label",
        )
    return [numbers[label] for label in labels]


def describe(
    config: TrainConfig, cohort: Cohort, split: Split, sets: GeneSets | None, genes: tuple[str, ...]
) -> RunInfo:
    """The run's RunInfo, checked against the cohort's tiles.

    Raises
    ------
    UsageError
        The cohort's tiles are of another resolution, or smaller than the model's.
    """
    pfm = get_pfm(config.pfm)
    kwargs = json.loads(config.timm_kwargs) if config.timm_kwargs else dict(pfm.kwargs)
    tile_px, mpp = config.tile_px or pfm.tile_px, config.mpp or pfm.mpp
    fields_px: tuple[int, ...] = ()
    view_px = 0
    if config.fields_um:
        view_px, fields_px = tile_px, tuple(round(side / mpp) for side in config.fields_um)
        tile_px = max(fields_px)
    _check_fields(config)
    check_ingredients(config)
    if abs(cohort.mpp - mpp) > 0.02 * mpp or cohort.tile_px < tile_px:
        raise UsageError(
            f"the cohort's tiles are {cohort.tile_px} px at {cohort.mpp:g} um, "
            f"the model wants {tile_px} px at {mpp:g} um",
            remedy=f"build the cohort with tile_px = {tile_px} (or more) and mpp = {mpp:g}, "
            "or set tile_px and mpp of the run",
        )
    backbone = build_backbone(pfm.timm_name, kwargs, device="meta")
    dim = measured_dim(backbone, pfm.embed) * (len(fields_px) or 1)
    dim += token_width(backbone, pfm.embed) if config.st_token else 0
    names = sets.names if sets is not None else genes
    ids = {s.id for s in (*split.train, *split.validation)}
    cohort_facts = cohort.describe()
    cohort_facts["samples"] = [s for s in cohort_facts["samples"] if s["id"] in ids]
    cohort_facts["validation"] = [s.id for s in split.validation]
    cohort_facts["note"] = split.note
    return RunInfo(
        pfm_id=pfm.id,
        timm_name=pfm.timm_name,
        timm_kwargs=kwargs,
        embed=pfm.embed,
        mean=_colours(config.mean, "mean") or pfm.mean,
        std=_colours(config.std, "std") or pfm.std,
        tile_px=tile_px,
        mpp=mpp,
        pathway_names=names,
        gene_set_sha256=sets.sha256 if sets is not None else hashlib.sha256("\n".join(genes).encode()).hexdigest(),
        embedding_dim=dim,
        adapt=config.adapt,
        lora=LoraSettings(config.lora_r, config.lora_alpha, config.lora_dropout, config.lora_target or pfm.lora_target)
        if config.adapt == "lora"
        else None,
        projection_dim=config.projection_dim if config.w_contrastive > 0 else 0,
        licence=pfm.licence,
        share_merged=pfm.share_merged,
        score_method=config.score if sets is not None else "log1p-cp10k",
        seed=config.seed,
        fields_px=fields_px,
        view_px=view_px,
        genes=genes if config.reads_genes else (),
        st_token=config.st_token,
        cohort=cohort_facts,
        software=versions(),
    )


def _check_fields(config: TrainConfig) -> None:
    if any(side <= 0 for side in config.fields_um):
        raise UsageError("fields_um must be positive", remedy="such as [112, 157, 224]")
    if config.field_steps == "one":
        wrong = {
            "fields_um is empty": not config.fields_um,
            'head_final is not "ridge"': config.head_final != "ridge",
            "w_contrastive is not 0": config.w_contrastive > 0,
        }
        for cause, so in wrong.items():
            if so:
                raise UsageError(f'field_steps = "one", and {cause}', remedy="see training/recipes/stamp.toml")
    if config.cache_views and config.fields_um and config.field_steps != "one":
        raise UsageError("kept views are of one field each", remedy='set field_steps = "one", or cache_views = 0')


def _colours(values: tuple[float, ...], name: str) -> tuple[float, ...]:
    if values and (len(values) != 3 or (name == "std" and min(values) <= 0)):
        raise UsageError(f"{name} = {list(values)} is not three numbers", remedy="such as [0.5, 0.5, 0.5]")
    return values


def versions() -> dict[str, str]:
    """What trained the run."""
    from importlib import metadata

    found = {k: v for k, v in software().items() if k in ("stamp-deploy", "revision", "python", "numpy")}
    return found | {name: metadata.version(name) for name in ("torch", "timm", "peft", "accelerate")}


def digest(config: TrainConfig, cohort: Cohort) -> str:
    """What a checkpoint depends on, as SHA-256."""
    settings: dict[str, Any] = {k: v for k, v in config.to_dict().items() if k not in NOT_IN_KEY}
    facts = [settings, cohort.describe()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def first_model(
    config: TrainConfig, start: Start, checkpoint: Checkpoint, report: Report, device: torch.device
) -> tuple[StampModel, list[dict[str, Any]]]:
    """The model before its first step, and the warm-up's history.

    The backbone comes from the weights file; or random, warmed up where the config says so. A warmed-up backbone is
    kept as checkpoint/base.safetensors.
    """
    info, history = start.info, []
    torch.manual_seed(config.seed)
    weights, sha256 = named_weights(config)
    if config.warm_up != "none":
        base = checkpoint.folder / "base.safetensors"
        if not base.is_file():
            full = build_model(replace(info, adapt="full", lora=None), weights=weights, sha256=sha256)
            history = warm_up(full.to(device), info, start.train, config, checkpoint, report)
            if checkpoint.enabled:
                write_tensors(base, base_state(full.backbone), {"warm-up": json.dumps(history)})
        else:
            history = json.loads(read_tensors(base)[1].get("warm-up", "[]"))
        weights, sha256 = base, ""
        torch.manual_seed(config.seed)
    model = build_model(info, weights=weights, sha256=sha256)
    size = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    if config.gradient_checkpointing or size >= CHECKPOINTING_FROM_M:
        switch = getattr(model.backbone, "set_grad_checkpointing", None)
        if switch is None:
            raise UsageError(f"{info.timm_name} cannot checkpoint gradients", remedy="gradient_checkpointing = false")
        switch(True)
    model.pathway_global.requires_grad_(False)  # fitted by ridge at the end
    return model.to(device), history


def weights_of(config: TrainConfig) -> tuple[Path | None, str]:
    """The weights file and its hash, for the run's record."""
    path, sha256 = named_weights(config)
    if path is None or config.warm_up != "none":
        return None, ""
    return path, sha256 or sha256_file(path)


def named_weights(config: TrainConfig) -> tuple[Path | None, str]:
    """The weights file that the config names, or a package ships for its model, and the hash stated for it."""
    if config.weights:
        return Path(config.weights), config.weights_sha256
    return packaged_weights(get_pfm(config.pfm))
