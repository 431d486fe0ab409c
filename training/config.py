"""Every setting of a training run, its default and the reason for it, on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .toml_settings import Numbers, Texts, TomlSettings, read_toml, setting


class TrainConfig(TomlSettings):
    """A training run. Paths are relative to the config's folder; empty strings and zeros mean "not set"."""

    # What is learned from
    cohort: str = setting("", "folder written by `stamp-deploy cohort build`")
    gmt: str = setting("", "gene sets; the names become the bundle's pathways")
    samples: Texts = setting((), "train on these only; empty: all that are not held out")
    held_out: Texts = setting((), "never read by training, not even to stop; evaluate uses them")
    validation: Texts = setting((), "samples to stop on; empty: whole patients are drawn by val_fraction")
    val_fraction: float = setting(
        0.2, "of the patients; with one patient left there is no validation, and no early stop", ge=0
    )
    # Targets
    targets: Literal["pathways", "genes"] = setting(
        "pathways", 'or "genes": the n_genes most variable, for the ablation table'
    )
    n_genes: int = setting(50, "HEST-Bench's number; losses beside the targets take fewer of a smaller panel", ge=0)
    genes_measured_by: Literal["all", "any"] = setting(
        "all", 'single genes are taken from those that all training samples measure; "any": missing where they are not'
    )
    score: Literal["ucell", "zmean"] = setting(
        "ucell", 'ranks within a spot, so depth and platform matter least; or "zmean"'
    )
    smooth_um: float = setting(
        0.0, "radius of neighbour smoothing of training targets; 0: none. Evaluation is never smoothed", ge=0
    )
    target_rank: int = setting(
        0, "principal components kept of the training targets; 0: all. Denoises small cohorts", ge=0
    )
    depth: Literal["none", "residual", "downsample"] = setting(
        "none", 'scores follow sequencing depth; "residual" or "downsample" take it out, at a price (docs/training.md)'
    )
    level_by: Literal["cohort", "platform"] = setting(
        "cohort", "or \"platform\": the global head's scores are standardised by each platform's own mean and deviation"
    )
    control: Literal["", "shuffled", "random-sets"] = setting(
        "", '"shuffled": targets permuted within slides; "random-sets": size-matched random gene sets'
    )
    # The model
    pfm: str = setting("uni", 'see `stamp-deploy models`, or "timm/NAME"')
    timm_kwargs: str = setting("", "JSON, replaces the registry's kwargs")
    weights: str = setting("", "local safetensors; empty: random weights")
    weights_sha256: str = setting("", "needed for .pt files")
    copy_backbone: bool = setting(True, "False: the run names the weights file instead of holding a copy")
    tile_px: int = setting(0, "0: as the model was trained", ge=0)
    mpp: float = setting(0.0, "0: as the model was trained", ge=0)
    mean: Numbers = setting((), "of RGB in [0, 1]; empty: as the model was trained")
    std: Numbers = setting((), "likewise")
    fields_um: Numbers = setting(
        (), "sides of several fields of view around a spot, embedded side by side; empty: the tile itself"
    )
    field_steps: Literal["joined", "one"] = setting(
        "joined", 'or "one": a step sees one field, drawn at random, with a head of its own; needs head_final = "ridge"'
    )
    adapt: Literal["lora", "full", "last-block", "frozen"] = setting("lora", 'or "full", "last-block", "frozen"')
    lora_r: int = setting(8, "few weights for few spots; the benchmark compares 32", ge=1)
    lora_alpha: float = setting(16.0, "twice r, peft's usual choice")
    lora_dropout: float = setting(0.1, "cohorts are small", ge=0)
    lora_target: str = setting(
        "", "a regex; empty: the model's own, attention only (a list would also hit patch_embed.proj)"
    )
    head_init: Literal["ridge", "random"] = setting(
        "ridge", 'start from the frozen model\'s ridge solution, so adapting can only add; or "random"'
    )
    head_final: Literal["trained", "ridge"] = setting("trained", 'or "ridge": refitted on the adapted embedding')
    warm_up: Literal["none", "vicreg"] = setting(
        "none", 'self-supervised steps before, for random weights: "vicreg" (see training/warm_up.py)'
    )
    warm_up_steps: int = setting(0, "200 were enough on three sections of 180 spots", ge=0)
    warm_up_batch: int = setting(128, "views per step: two of each crop")
    # Losses: a weight of 0 switches a term off
    w_regression: float = setting(1.0, "smooth L1 on z-scores", ge=0)
    w_correlation: float = setting(0.5, "mean (1 - rho)^2 per slide: what is reported is r", ge=0)
    w_contrastive: float = setting(0.25, "more harms expression prediction (HESCAPE)", ge=0)
    w_anchor: float = setting(0.5, "1 - cos to the frozen embedding; off where there is no adapter", ge=0)
    w_genes: float = setting(0.0, "reconstruction of n_genes", ge=0)
    w_batch: float = setting(0.0, "adversarial head: the embedding is not to tell batch_label", ge=0)
    batch_label: Literal["id", "platform", "patient"] = setting(
        "id", "what the adversarial head guesses; id: the sample"
    )
    projection_dim: int = setting(128, "of the contrastive space", ge=0)
    # What other recipes add (docs/recipes.md), off by default
    genes_smooth_um: float = setting(
        0.0, "radius of neighbour smoothing of the genes that are learned from; 0: none", ge=0
    )
    gene_latent: int = setting(64, "length of the gene embedding", ge=1)
    gene_temperature: float = setting(0.05, "of contrasts between pictures and genes (SEAL's)", gt=0)
    w_gene_autoencoder: float = setting(0.0, "SEAL: variational autoencoder of n_genes", ge=0)
    w_gene_contrast: float = setting(0.0, "SEAL: InfoNCE of picture and gene embedding", ge=0)
    w_gene_decoding: float = setting(0.0, "SEAL: genes decoded from the picture", ge=0)
    w_image_decoding: float = setting(0.0, "SEAL: the picture's features decoded from genes", ge=0)
    w_spot_contrast: float = setting(0.0, "ST-Align: smallest field of view and the spot's genes", ge=0)
    w_niche_contrast: float = setting(0.0, "ST-Align: largest field of view and the neighbours' genes", ge=0)
    w_cross_contrast: float = setting(0.0, "ST-Align: both levels, fused by attention", ge=0)
    st_token: bool = setting(False, "MINT: a learned token beside the class token, part of the embedding; of ViTs")
    w_distillation: float = setting(0.0, "MINT: DINO self-distillation of the model's own embedding", ge=0)
    w_patches: float = setting(0.0, "MINT: scores of the places within a tile, from its patch tokens", ge=0)
    w_teacher: float = setting(0.0, "AIDO.Tissue: a frozen gene transformer's embedding of the spot", ge=0)
    teacher_steps: int = setting(400, "of the gene transformer's pretraining on the training sections", ge=0)
    # The loop
    epochs: int = setting(20, "0: no adaptation, ridge heads on the model as it is", ge=0)
    batch_slides: int = setting(8, "8 x 48 = 384: enough in-slide negatives, several slides per step", ge=1)
    balance: Literal["", "id", "platform", "organ"] = setting(
        "", 'or "platform", "organ", "id": as many batches\' parts of each, rare ones repeated; "": every spot once'
    )
    batch_spots: int = setting(48, "of each section", ge=1)
    micro_batch: int = setting(
        0, "tiles a forward pass; 0: the whole batch. The frozen reference runs in the same pieces", ge=0
    )
    accumulation: int = setting(1, "batches per step", ge=1)
    lr: float = setting(1e-4, "adapters and backbone", ge=0)
    lr_heads: float = setting(3e-4, "heads start from scratch or ridge and may move faster", ge=0)
    weight_decay: float = setting(0.05, "on every weight that learns", ge=0)
    warmup_fraction: float = setting(0.05, "of the steps, linear; then cosine to 0", ge=0)
    clip: float = setting(1.0, "gradient norm", ge=0)
    precision: Literal["bf16", "fp32"] = setting("bf16", 'or "fp32"; weights and optimiser stay in fp32')
    gradient_checkpointing: bool = setting(False, "switched on by itself from 600 M parameters")
    shift_um: float = setting(0.0, "crops are moved by up to this; needs a cohort of tiles larger than tile_px", ge=0)
    hed_jitter: float = setting(0.03, "sd of stain concentration scale and shift; 0: off", ge=0)
    flips: bool = setting(True, "flips and quarter turns: tissue has no up")
    cache_views: int = setting(
        0, "augmented views kept of each spot, as the first block that learns gets them; 0: every step anew", ge=0
    )
    cache_dir: str = setting("", "where kept views lie, to be shared by runs; empty: in the run, until it ends")
    patience: int = setting(5, "epochs without a better validation r; 0: run to the end", ge=0)
    checkpoint_minutes: float = setting(5.0, "a kill loses at most this much", ge=0)
    seed: int = setting(0, "of weights, draws and augmentation")
    threads: int = setting(
        0,
        "torch threads; 0: torch's choice, at most the cores it may use. On the CPU, equal threads give equal bits",
        ge=0,
    )
    loader_threads: int = setting(
        0, "prepare batches side by side, for each process; 0: 4 where a GPU waits for them, else 1", ge=0
    )
    progress: bool = setting(True, "on a terminal only")
    controls: bool = setting(
        True, "the verb also trains RUN/controls: random gene sets, shuffled targets. Without them nothing is shown"
    )

    @property
    def refits_head(self) -> bool:
        """Whether the pathway head is fitted by ridge at the end: asked for, or nothing else trains it."""
        return self.head_final == "ridge" or self.epochs == 0 or self.w_regression == 0

    @property
    def aligns_genes(self) -> bool:
        """Whether pictures are brought into the latent space of a gene autoencoder (SEAL)."""
        return any((self.w_gene_autoencoder, self.w_gene_contrast, self.w_gene_decoding, self.w_image_decoding))

    @property
    def aligns_niches(self) -> bool:
        """Whether spot and niche are matched with their genes (ST-Align)."""
        return any((self.w_spot_contrast, self.w_niche_contrast, self.w_cross_contrast))

    @property
    def reads_genes(self) -> bool:
        """Whether anything learns from single genes beside the targets."""
        return self.w_genes > 0 or self.aligns_genes or self.aligns_niches or self.w_teacher > 0

    @property
    def turns_tiles(self) -> bool:
        """Whether the loader flips and turns tiles; where patches learn, the step does, and their targets with them."""
        return self.flips and self.w_patches == 0

    @property
    def adds_token(self) -> bool:
        """Whether any of MINT's ingredients is on."""
        return self.st_token or self.w_distillation > 0 or self.w_patches > 0

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: Path | None = None) -> TrainConfig:
        """Checked settings; see `TomlSettings.checked`."""
        return cls.checked(values, source)


def load_config(path: Path, recipe: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a TOML file; it overrides the settings of a recipe where it names them.

    Raises
    ------
    UsageError
        No such file, not TOML, or as `TrainConfig.checked`.
    """
    stated = _placed(read_toml(path, "name the config of the run"), path.parent)
    return TrainConfig.checked({**(recipe or {}), **stated}, path)


def _placed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings whose relative paths are taken from the config's folder, or from the working folder where that alone
    holds such a file, as runs of older versions state them."""
    out = dict(values)
    for key in ("cohort", "gmt", "weights", "cache_dir"):
        value = out.get(key)
        if not isinstance(value, str) or not value or Path(value).is_absolute():
            continue
        here = (folder / value).resolve()
        out[key] = value if not here.exists() and Path(value).exists() else str(here)
    return out
