"""What the held-out predictions of a head say: how good it is, its temperature, threshold and abstention band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .bag_model import risk_score
from .bags import LabelTable
from .config import HeadConfig
from .folds import fold_numbers
from .metrics import (
    abstention_band,
    areas,
    binary_threshold,
    calibration_error,
    concordance,
    fit_temperature,
    negative_log_likelihood,
    patient_interval,
    softmax,
)
from .slides import Slides


@dataclass(frozen=True, eq=False)
class Rule:
    """How logits become a call: fitted on predictions that are not the ones it judges.

    Attributes
    ----------
    temperature : float
    cut : float or None
        Threshold of a binary head's positive class.
    band : [low, high] or None
        Where no call is made, of P(positive class) or P(likeliest class).
    """

    temperature: float
    cut: float | None
    band: list[float] | None

    def judge(
        self, raw: NDArray[np.float64], label: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Probabilities [N, C] of logits [N, C]; whether the call would be wrong [N]; whether none is made [N]."""
        p = softmax(raw, self.temperature)
        value = p.max(axis=1) if self.cut is None else p[:, 1]
        called = p.argmax(axis=1) if self.cut is None else (value >= self.cut).astype(int)
        inside = np.zeros(len(raw), bool)
        if self.band is not None:
            inside = (value >= self.band[0]) & (value <= self.band[1])
        return p, called != label, inside


def fit_rule(raw: NDArray[np.float64], label: NDArray[np.int64], config: HeadConfig) -> Rule:
    """Temperature, threshold and abstention band from held-out logits [N, C] and their labels."""
    temperature = fit_temperature(raw, label)
    p = softmax(raw, temperature)
    if p.shape[1] == 2:
        cut: float | None = binary_threshold(p[:, 1], label)
        value, centre = p[:, 1], cut or 0.0
        wrong = (value >= centre) != (label == 1)
    else:
        cut, value, centre = None, p.max(axis=1), 1.0 / p.shape[1]
        wrong = p.argmax(axis=1) != label
    band = abstention_band(value, wrong, centre, max_error=config.max_error, max_share=config.max_abstain)["band"]
    if band is not None and cut is None:
        band = [0.0, band[1]]
    return Rule(temperature, cut, band)


Judged = tuple[NDArray[np.intp], Rule]
"""Slides, and the rule that judges them."""


def calibrated_entry(
    table: LabelTable,
    slides: Slides,
    raw: NDArray[np.float64],
    config: HeadConfig,
    *,
    judged: Sequence[Judged] = (),
    folds: Sequence[NDArray[np.intp]] = (),
) -> dict[str, Any]:
    """The bundle's head entry, without its file.

    Parameters
    ----------
    raw : float64 [N, C]
        Held-out outputs of every slide.
    judged : sequence of (rows, Rule)
        By which rule each slide is judged: one that was not fitted on it. Empty: by the rule that is shipped.
    folds : sequence of rows
        Slides that one model predicted: of a survival head only pairs within them are compared. Empty: all.
    """
    details: dict[str, Any] = {
        "slides": len(slides.bags),
        "patients": len(set(slides.patients)),
        "folds": config.folds,
        "class_counts": table.counts(),
        "sites": table.sites(),
        "without_label": table.without_label,
        "without_features": table.without_features,
    }
    entry: dict[str, Any] = {"name": config.name, "kind": table.task, "abstain": None, "details": details}
    if table.task == "survival":
        return entry | _survival(slides, raw, details, config, folds)
    return entry | {"classes": list(table.classes)} | _classes(slides, raw, details, config, judged)


def _survival(
    slides: Slides,
    raw: NDArray[np.float64],
    details: dict[str, Any],
    config: HeadConfig,
    folds: Sequence[NDArray[np.intp]],
) -> dict[str, Any]:
    """Two risk groups, cut at the median of the held-out risks."""
    risk = risk_score(torch.from_numpy(raw)).numpy()
    group = fold_numbers(folds, len(risk))
    details["c_index"] = concordance(slides.time, slides.event, risk, group)
    details["c_index_interval"] = patient_interval(
        slides.patients, lambda r: concordance(slides.time[r], slides.event[r], risk[r], group[r]),
        draws=config.draws, seed=config.seed,
    )  # fmt: skip
    details |= {"events": int(slides.event.sum()), "bin_edges": slides.edges.tolist()}
    return {"classes": ["low", "high"], "thresholds": [float(np.median(risk))], "temperature": 1.0}


def _classes(
    slides: Slides, raw: NDArray[np.float64], details: dict[str, Any], config: HeadConfig, judged: Sequence[Judged]
) -> dict[str, Any]:
    """The rule that is shipped, fitted on all held-out predictions; and the measures, by the rules that judge."""
    label = slides.label
    rule = fit_rule(raw, label, config)
    p, wrong, silent = np.zeros(raw.shape), np.zeros(len(raw), bool), np.zeros(len(raw), bool)
    after = 0.0
    for rows, own in judged or [(np.arange(len(raw)), rule)]:
        p[rows], wrong[rows], silent[rows] = own.judge(raw[rows], label[rows])
        after += len(rows) / len(raw) * negative_log_likelihood(raw[rows], label[rows], own.temperature)
    for name, (value, interval) in areas(label, p, slides.patients, draws=config.draws, seed=config.seed).items():
        details[name], details[f"{name}_interval"] = value, interval
    details["calibration"] = {
        "nll_before": negative_log_likelihood(raw, label),
        "nll_after": after,
        "ece_before": calibration_error(softmax(raw), label),
        "ece_after": calibration_error(p, label),
    }
    error = float(wrong[~silent].mean()) if not silent.all() else 0.0
    details["error"] = float(wrong.mean())
    details["abstention"] = {
        "share": float(silent.mean()), "error": error, "met": error <= config.max_error, "aim": config.max_error,
    }  # fmt: skip
    if rule.cut is not None:
        positive = label == 1
        details["sensitivity"], details["specificity"] = (
            float(1 - wrong[positive].mean()),
            float(1 - wrong[~positive].mean()),
        )
    return {"thresholds": [] if rule.cut is None else [rule.cut], "temperature": rule.temperature, "abstain": rule.band}
