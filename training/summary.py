"""What a row of the evaluation table says of its predictions: all its numbers, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .intervals import bootstrap
from .metrics import SectionResult, headline, json_number, mean_over_sections, mean_r, median_r, pooled_r

DEPTH = ("depth_r", "predicted_depth_r", "partial_r")


def summary(sections: Sequence[SectionResult], names: Sequence[str], *, seed: int = 0) -> Mapping[str, Any]:
    """Everything a table row needs, as JSON values; r that do not exist are None.

    ``depth_r`` is the truth's r with the log of detected genes, ``predicted_depth_r`` the prediction's, ``partial_r``
    their partial correlation given log counts and log genes: each the mean over sections of the median over pathways.
    """
    per_section = {key: np.array([getattr(s, key) for s in sections]) for key in ("r", *DEPTH)}
    pathway = {key: mean_over_sections(values) for key, values in per_section.items()}
    pooled = pooled_r(sections)
    return {
        "mean_of_medians": json_number(headline(sections)),
        "mean_r": json_number(mean_r(sections)),
        "pooled_median": json_number(median_r(pooled)),
        **{key: json_number(float(np.mean([median_r(row) for row in per_section[key]]))) for key in DEPTH},
        "interval": asdict(bootstrap(sections, seed=seed)),
        "per_section": {
            s.id: {
                "median_r": json_number(median_r(s.r)),
                "spots": len(s.truth),
                "pathways": int(np.isfinite(s.r).sum()),
            }
            for s in sections
        },
        "per_pathway": {
            name: {
                "mean_r": json_number(pathway["r"][i]),
                "pooled_r": json_number(pooled[i]),
                **{key: json_number(pathway[key][i]) for key in DEPTH},
            }
            for i, name in enumerate(names)
        },
    }
