"""Every setting of a training run, its default and the reason for it, on one screen."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from stamp_deploy.errors import UsageError
from stamp_deploy.files import refuse_special


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Paths are relative to the working folder; empty strings and zeros mean "not set"."""

    # What is learned from
    cohort: str = ""  # folder written by `stamp-deploy cohort build`
    gmt: str = ""  # gene sets; the names become the bundle's pathways
    samples: tuple[str, ...] = ()  # train on these only; empty: all that are not held out
    held_out: tuple[str, ...] = ()  # never read by training, not even to stop; evaluate uses them
    validation: tuple[str, ...] = ()  # samples to stop on; empty: whole patients are drawn by val_fraction
    val_fraction: float = 0.2  # of the patients; with one patient left there is no validation, and no early stop
    # Targets
    targets: str = "pathways"  # or "genes": the n_genes most variable, for the ablation table
    n_genes: int = 50  # HEST-Bench's number
    score: str = "ucell"  # ranks within a spot, so depth and platform matter least; or "zmean"
    smooth_um: float = 0.0  # radius of neighbour smoothing of training targets; 0: none. Evaluation is never smoothed
    target_rank: int = 0  # principal components kept of the training targets; 0: all. Denoises small cohorts
    control: str = ""  # "shuffled": targets permuted within slides; "random-sets": size-matched random gene sets
    # The model
    pfm: str = "uni"  # see training/registry.py, or "timm/NAME"
    timm_kwargs: str = ""  # JSON, replaces the registry's kwargs
    weights: str = ""  # local safetensors; empty: random weights
    weights_sha256: str = ""  # needed for .pt files
    copy_backbone: bool = True  # False: the run names the weights file instead of holding a copy
    tile_px: int = 0  # 0: as the model was trained
    mpp: float = 0.0  # 0: as the model was trained
    adapt: str = "lora"  # or "full", "last-block", "frozen"
    lora_r: int = 8  # few weights for few spots; the benchmark compares 32
    lora_alpha: float = 16.0  # twice r, peft's usual choice
    lora_dropout: float = 0.1  # cohorts are small
    lora_target: str = r"blocks\.\d+\.attn\.(qkv|proj)"  # attention only; a list would also hit patch_embed.proj
    head_init: str = "ridge"  # start from the frozen model's ridge solution, so adapting can only add; or "random"
    head_final: str = "trained"  # or "ridge": refitted on the adapted embedding
    warm_up: str = "none"  # self-supervised steps before, for random weights: "vicreg" (see training/ssl.py)
    warm_up_steps: int = 0  # 200 were enough on three sections of 180 spots
    warm_up_batch: int = 128  # views a step: two of each crop
    # Losses: a weight of 0 switches a term off
    w_regression: float = 1.0  # smooth L1 on z-scores
    w_correlation: float = 0.5  # mean (1 - rho)^2 per slide: what is reported is r
    w_contrastive: float = 0.25  # more harms expression prediction (HESCAPE)
    w_anchor: float = 0.5  # 1 - cos to the frozen embedding; off where there is no adapter
    w_genes: float = 0.0  # reconstruction of n_genes
    w_batch: float = 0.0  # adversarial sample head
    projection_dim: int = 128  # of the contrastive space
    # The loop
    epochs: int = 20  # 0: no adaptation, ridge heads on the model as it is
    batch_slides: int = 8  # 8 x 48 = 384: enough in-slide negatives, several slides a step
    batch_spots: int = 48  # of each section
    micro_batch: int = 0  # tiles a forward pass; 0: the whole batch. The frozen reference runs in the same pieces
    accumulation: int = 1  # batches a step
    lr: float = 1e-4  # adapters and backbone
    lr_heads: float = 3e-4  # heads start from scratch or ridge and may move faster
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05  # of the steps, linear; then cosine to 0
    clip: float = 1.0  # gradient norm
    precision: str = "bf16"  # or "fp32"; weights and optimiser stay in fp32
    gradient_checkpointing: bool = False  # switched on by itself from 600 M parameters
    shift_um: float = 0.0  # crops are moved by up to this; needs a cohort of tiles larger than tile_px
    hed_jitter: float = 0.03  # sd of stain concentration scale and shift; 0: off
    flips: bool = True  # flips and quarter turns: tissue has no up
    patience: int = 5  # epochs without a better validation r; 0: run to the end
    checkpoint_minutes: float = 5.0  # a kill loses at most this much
    seed: int = 0
    threads: int = 0  # torch threads; 0: torch's choice. Results on the CPU are bit-equal for equal threads
    progress: bool = True  # on a terminal only

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_toml(self, *, reasons: bool = False) -> str:
        """The settings as TOML; `from_dict(tomllib.loads(...))` gives them back. With `reasons`, as comments too."""
        why = _reasons() if reasons else {}
        lines = [(f"{key} = {_toml(value)}", why.get(key, "")) for key, value in self.to_dict().items()]
        return "".join(f"{text:<34} # {note}\n" if note else f"{text}\n" for text, note in lines)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: Path | None = None) -> TrainConfig:
        """Checked settings.

        Raises
        ------
        UsageError
            An unknown key, a value of the wrong type, or a choice that does not exist.
        """
        known = {f.name: f.default for f in fields(cls)}
        clean: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                raise UsageError(f"unknown setting {key}", path=source, remedy="settings: " + ", ".join(known))
            default = known[key]
            if isinstance(default, tuple):
                value = tuple(str(item) for item in ([value] if isinstance(value, str) else value))
            elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            elif type(value) is not type(default):
                raise UsageError(
                    f"{key} = {value!r} is not a {type(default).__name__}", path=source, remedy=f"such as {default!r}"
                )
            clean[key] = value
        config = cls(**clean)
        for key, choices in CHOICES.items():
            if getattr(config, key) not in choices:
                raise UsageError(
                    f"{key} = {getattr(config, key)!r} does not exist",
                    path=source,
                    remedy="use one of: " + ", ".join(repr(c) for c in choices),
                )
        for key in ("batch_slides", "batch_spots", "accumulation", "lora_r"):
            if getattr(config, key) < 1:
                raise UsageError(f"{key} must be 1 or more", path=source)
        for key in ("epochs", "warm_up_steps", "lr", "lr_heads", "checkpoint_minutes", *WEIGHTS):
            if getattr(config, key) < 0:
                raise UsageError(f"{key} must not be negative", path=source)
        return config

    def with_(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed, checked again."""
        return TrainConfig.from_dict({**replace(self).to_dict(), **changes})


WEIGHTS = ("w_regression", "w_correlation", "w_contrastive", "w_anchor", "w_genes", "w_batch")
CHOICES: dict[str, tuple[str, ...]] = {
    "targets": ("pathways", "genes"),
    "control": ("", "shuffled", "random-sets"),
    "adapt": ("lora", "full", "last-block", "frozen"),
    "head_init": ("ridge", "random"),
    "head_final": ("trained", "ridge"),
    "warm_up": ("none", "vicreg"),
    "precision": ("bf16", "fp32"),
    "score": ("ucell", "zmean"),
}


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file.

    Raises
    ------
    UsageError
        Not TOML, or as `TrainConfig.from_dict`.
    """
    refuse_special(path, UsageError)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError("there is no such file", path=path, remedy="name the config of the run") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot be read as TOML: {error}", path=path) from error
    return TrainConfig.from_dict(values, path)


def _reasons() -> dict[str, str]:
    """The comment behind each setting in this file; empty where the source is not there."""
    import inspect
    import re

    try:
        source = inspect.getsource(TrainConfig)
    except OSError:
        return {}
    return dict(re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", source, flags=re.MULTILINE))


def _toml(value: Any) -> str:
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
