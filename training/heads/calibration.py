"""What the held-out predictions of a head say: how good it is, its temperature, threshold and abstention band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .abmil import risk_score
from .bags import LabelTable
from .config import HeadConfig
from .metrics import (
    abstention_band,
    auprc,
    auroc,
    binary_threshold,
    calibration_error,
    concordance,
    fit_temperature,
    negative_log_likelihood,
    patient_interval,
    softmax,
)


@dataclass(eq=False)
class Slides:
    """Everything about the slides, in memory: embeddings as float32 [N, D] each."""

    bags: list[Tensor]
    label: NDArray[np.int64]
    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    patients: list[str]
    bin_index: NDArray[np.int64]
    edges: NDArray[np.float64]


def calibrated_entry(table: LabelTable, slides: Slides, raw: NDArray[np.float64], config: HeadConfig) -> dict[str, Any]:
    """The bundle's head entry, without its file."""
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
        return entry | _survival(slides, raw, details, config)
    return entry | {"classes": list(table.classes)} | _classes(table, slides, raw, details, config)


def _survival(slides: Slides, raw: NDArray[np.float64], details: dict[str, Any], config: HeadConfig) -> dict[str, Any]:
    """Two risk groups, cut at the median of the held-out risks."""
    risk = risk_score(torch.from_numpy(raw)).numpy()
    details["c_index"] = concordance(slides.time, slides.event, risk)
    details["c_index_interval"] = patient_interval(
        slides.patients, lambda r: concordance(slides.time[r], slides.event[r], risk[r]),
        draws=config.draws, seed=config.seed,
    )  # fmt: skip
    details |= {"events": int(slides.event.sum()), "bin_edges": slides.edges.tolist()}
    return {"classes": ["low", "high"], "thresholds": [float(np.median(risk))], "temperature": 1.0}


def _of_rows(
    measure: Callable[[NDArray[np.integer], NDArray[np.float64]], float],
    label: NDArray[np.int64],
    probability: NDArray[np.float64],
    rows: NDArray[np.integer],
) -> float:
    return measure(label[rows], probability[rows])


def _classes(
    table: LabelTable, slides: Slides, raw: NDArray[np.float64], details: dict[str, Any], config: HeadConfig
) -> dict[str, Any]:
    """Temperature, threshold, band and measures, all from held-out predictions."""
    label = slides.label
    temperature = fit_temperature(raw, label)
    p = softmax(raw, temperature)
    for name, measure in (("auroc", auroc), ("auprc", auprc)):
        details[name] = measure(label, p)
        details[f"{name}_interval"] = patient_interval(
            slides.patients, partial(_of_rows, measure, label, p), draws=config.draws, seed=config.seed
        )
    details["calibration"] = {
        "nll_before": negative_log_likelihood(raw, label),
        "nll_after": negative_log_likelihood(raw, label, temperature),
        "ece_before": calibration_error(softmax(raw), label),
        "ece_after": calibration_error(p, label),
    }
    if table.task == "binary":
        cut = binary_threshold(p[:, 1], label)
        value, centre = p[:, 1], cut
        wrong, thresholds = (p[:, 1] >= cut) != (label == 1), [cut]
    else:
        value, centre = p.max(axis=1), 1.0 / p.shape[1]
        wrong, thresholds = p.argmax(axis=1) != label, []
    band = abstention_band(value, wrong, centre, max_error=config.max_error, max_share=config.max_abstain)
    details["error"] = float(wrong.mean())
    details["abstention"] = {k: v for k, v in band.items() if k != "band"} | {"aim": config.max_error}
    low_high = band["band"]
    if low_high is not None and table.task == "multiclass":
        low_high = [0.0, low_high[1]]
    return {"thresholds": thresholds, "temperature": temperature, "abstain": low_high}
