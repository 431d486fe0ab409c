"""Every setting of a slide-level head, its default and the reason for it."""

from __future__ import annotations

from typing import Literal

from ..toml_settings import TomlSettings, setting


class HeadConfig(TomlSettings):
    """How a slide-level head is fitted, calibrated and judged."""

    name: str = setting("head", "names its files and its entry in the bundle")
    model: Literal["abmil", "transformer", "mean"] = setting(
        "abmil", 'gated attention; "transformer": tiles see each other; "mean": no attention, the control'
    )
    inputs: Literal["embeddings", "pathways", "both"] = setting(
        "embeddings", 'or "pathways", "both": scores of the run that made the embeddings, by its own read-out'
    )
    folds: int = setting(5, "of patients: every figure that is reported comes from held-out predictions", ge=2)
    inner_folds: int = setting(
        3, "inside each fold: they set the threshold that the fold judges; 0: the other folds' predictions set it", ge=0
    )
    epochs: int = setting(40, "at most; stopping decides", ge=1)
    patience: int = setting(8, "epochs without a better loss on the patients that stop a fold", ge=1)
    lr: float = setting(2e-4, "AdamW, as in CLAM", gt=0)
    weight_decay: float = setting(1e-2, "a few hundred slides overfit soon", ge=0)
    dropout: float = setting(0.25, "as in CLAM", ge=0, le=1)
    hidden: int = setting(512, "width of a tile's representation", ge=1)
    attention: int = setting(384, "width of the gated attention", ge=1)
    bags_a_step: int = setting(8, "gradients of so many slides are summed", ge=1)
    max_tiles: int = setting(4096, "of a slide in a training step, drawn again each time; predictions use all", ge=1)
    bins: int = setting(4, "of survival times, by quantiles of the events", ge=2)
    max_error: float = setting(0.1, "aim of the abstention band: wrong calls outside it", ge=0, le=1)
    max_abstain: float = setting(0.4, "share of slides that may go without a call", ge=0, le=1)
    device: str = setting("auto", "cuda where there is one, else cpu")
    draws: int = setting(1000, "of the bootstrap", ge=1)
    seed: int = setting(0, "of folds, weights and draws", ge=0)
