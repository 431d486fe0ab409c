"""What a bundle says about each pathway: evaluation.json's ``validation``, of its own head on sections left out.

Nothing is filled in: what was not measured is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.validation import QUANTILES

from ..intervals import pathway_intervals
from ..metrics import SectionResult, json_number, mean_over_sections, pearson
from ..scoring import robust_z
from .rows import kind_of
from .runs import Run, Section

CONTROLS = {
    "frozen_r": "frozen_ridge_cv/baseline",
    "random_sets_r": "random_sets/probe",
    "features_r": "features_29/baseline",
}
"""Which row of the table each control is."""
_PERCENT = {"min": 0.0, "max": 100.0, **{name: float(name[1:]) for name in QUANTILES if name[0] == "p"}}


def pathway_facts(
    run: Run, test: Sequence[Section], rows: dict[str, list[SectionResult]], names: Sequence[str], *, seed: int = 0
) -> dict[str, Any] | None:
    """The block, or None where the run's own head does not predict these pathways.

    Parameters
    ----------
    test : sequence of Section
        The sections that were tested, in the order of the rows.
    rows : dict of list of SectionResult
        "lora/head" and so on -> truth and prediction per section.
    """
    own = rows.get(f"{kind_of(run.config).key}/head")
    if own is None:
        return None
    r = pathway_r(own)
    interval = pathway_intervals(own, seed=seed)
    controls = {
        key: pathway_r(rows[row]) if row in rows else np.full(len(names), np.nan) for key, row in CONTROLS.items()
    }
    depth_r = mean_over_sections(np.array([s.predicted_depth_r for s in own]))
    shared = [run.global_head(s.sample) for s in test]
    new = {s.sample.patient for s in test if not s.seen_patient}
    pathways = []
    for i, name in enumerate(names):
        use = [k for k, s in enumerate(test) if s.mask[i]]
        measured = [k for k in use if np.isfinite(own[k].r[i])]
        predicted = _together([own[k].predicted[:, i] for k in use])
        everywhere = _together([shared[k][:, i] for k in use])
        truth = _together([test[k].truth[:, i] for k in use])
        pathways.append(
            {
                "name": name,
                "r": json_number(r[i]),
                "r_low": json_number(interval.low[i]),
                "r_high": json_number(interval.high[i]),
                "sections": len(measured),
                "patients": len({test[k].sample.patient for k in measured} & new),
                **{key: json_number(values[i]) for key, values in controls.items()},
                "depth_r": json_number(depth_r[i]),
                "global_r": json_number(pearson(truth[:, None], everywhere[:, None])[0]) if len(truth) > 2 else None,
                "predictions": quantiles(predicted),
                "targets": quantiles(_together([robust_z(test[k].truth[:, [i]])[:, 0] for k in use])),
                "global_predictions": quantiles(everywhere),
                "scale": scale(predicted),
                "scale_global": scale(everywhere),
            }
        )
    return {
        "unit": f"z within section ({run.info.score_method})",
        "interval_over": interval.unit,
        "pathways": pathways,
    }


def pathway_r(sections: Sequence[SectionResult]) -> NDArray[np.float64]:
    """Mean over sections of Pearson r per pathway, float64 [P]; NaN where no section has one."""
    return mean_over_sections(np.array([s.r for s in sections]))


def quantiles(values: NDArray[np.floating]) -> dict[str, float] | None:
    """`QUANTILES` of some values; None where there are none."""
    if not len(values):
        return None
    found = np.percentile(values.astype(np.float64), [_PERCENT[name] for name in QUANTILES])
    ordered = np.maximum.accumulate(np.round(found, 6))
    return {name: float(value) for name, value in zip(QUANTILES, ordered, strict=True)}


def scale(values: NDArray[np.floating]) -> dict[str, float] | None:
    """Mean and standard deviation of predictions, for z = (score - centre) / spread; None where they do not vary."""
    if len(values) < 2 or float(values.std()) < 1e-6:
        return None
    return {
        "centre": round(float(values.mean(dtype=np.float64)), 6),
        "spread": round(float(values.std(dtype=np.float64, ddof=1)), 6),
    }


def _together(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
