"""The rows of the evaluation table: which there are, which run belongs to which, and how to get a missing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import TrainConfig
from ..recipes import ingredients_of


@dataclass(frozen=True)
class RowKind:
    """A row of the table.

    Attributes
    ----------
    key : str
        In the JSON, and the folder of its run under ``--ablations``.
    label : str
    settings : dict
        What the run's config has otherwise than the main run; empty for rows that need no run of their own.
    head : bool
        Whether the run's own head predicts these pathways. Where it does not (it learned genes, or other sets), only
        a ridge probe on its embedding can be compared.
    """

    key: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: bool = True


BASELINES = (
    RowKind("slide_mean", "slide-mean predictor"),
    RowKind("features_29", "29 features + ridge"),
    RowKind("depth_only", "sequencing depth + ridge"),
    RowKind("frozen_ridge_fixed", "frozen + ridge, fixed alpha"),
    RowKind("frozen_ridge_cv", "frozen + ridge, CV alpha"),
)
RUNS = (
    RowKind("frozen_head", "frozen + same head", {"adapt": "frozen"}),
    RowKind("lora_genes", "LoRA on genes", {"targets": "genes"}, head=False),
    RowKind("lora", "LoRA on pathways", {"adapt": "lora"}),
    RowKind("random_sets", "LoRA on random sets", {"control": "random-sets"}, head=False),
    RowKind("shuffled", "LoRA, shuffled targets", {"control": "shuffled"}),
    RowKind("last_block", "last block only", {"adapt": "last-block"}),
    RowKind("full", "full fine-tuning", {"adapt": "full"}),
    RowKind(
        "regression_only",
        "LoRA, regression only",
        {"w_correlation": 0.0, "w_contrastive": 0.0, "w_anchor": 0.0},
    ),
    RowKind(
        "contrast_only",
        "LoRA, contrast only",
        {"w_regression": 0.0, "w_correlation": 0.0, "w_anchor": 0.0},
        head=False,
    ),
)
RECIPES = (
    RowKind("seal", "SEAL: gene autoencoder, contrast", ingredients_of("seal")),
    RowKind("mint", "MINT: ST token, distillation", ingredients_of("mint")),
    RowKind("st-align", "ST-Align: spot, niche, both", ingredients_of("st-align")),
    RowKind("aido-tissue", "AIDO.Tissue: gene teacher", ingredients_of("aido-tissue")),
)
"""Other recipes on the same backbone, data and rates: what the recipe's file says of losses and ingredients. They are
trained where they are asked for (``--ablations --rows recipes``)."""
CONTROLS = ("random_sets", "shuffled")
"""Rows that `train` makes beside the run, in RUN/controls/KEY."""
KINDS = {kind.key: kind for kind in (*BASELINES, *RUNS, *RECIPES)}


def kind_of(config: TrainConfig) -> RowKind:
    """The row that a run belongs to, from its settings."""
    if config.control == "shuffled":
        key = "shuffled"
    elif config.control == "random-sets":
        key = "random_sets"
    elif config.targets == "genes":
        key = "lora_genes"
    elif config.adds_token:
        key = "mint"
    elif config.w_teacher > 0:
        key = "aido-tissue"
    elif config.aligns_niches:
        key = "st-align"
    elif config.aligns_genes:
        key = "seal"
    elif config.adapt in ("frozen", "full"):
        key = {"frozen": "frozen_head", "full": "full"}[config.adapt]
    elif config.adapt == "last-block":
        key = "last_block"
    elif config.w_correlation == 0 and config.w_contrastive == 0 and config.w_regression > 0:
        key = "regression_only"
    elif config.w_regression == 0 and config.w_correlation == 0 and config.w_contrastive > 0:
        key = "contrast_only"
    else:
        key = "lora"
    return KINDS[key]


@dataclass
class Row:
    """A row with its numbers, or why it has none.

    Attributes
    ----------
    key, label : str
    how : str
        "head": the model's own prediction; "probe": ridge on its embedding; "neighbours": ridge on its embedding beside
        the mean of its neighbours'; "baseline".
    result : dict or None
        As `summary.summary` gives it.
    note : str
    missing : str
        Why there is no result, with the command that would make one.
    """

    key: str
    label: str
    how: str
    result: dict[str, Any] | None = None
    note: str = ""
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "key": self.key,
            "label": self.label,
            "how": self.how,
            "result": self.result,
            "note": self.note,
            "missing": self.missing,
        }


def command_for(kind: RowKind, run: str, config: TrainConfig) -> str:
    """The command that trains the run of a missing row; a LoRA run still holds its warmed-up backbone."""
    command = f"stamp-deploy train {run}/config.toml --ablations --rows {kind.key} -o ABLATIONS"
    if config.warm_up != "none" and config.adapt == "lora":
        command += f" --set warm_up=none --set weights={run}/backbone.safetensors"
    return command
