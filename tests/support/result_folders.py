"""Results of slides as a batch leaves them, made without slides: known means, verdicts and cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stamp_deploy.result import Result
from stamp_deploy.summarise import add_summaries
from stamp_deploy.trust import SlideTrust
from stamp_deploy.validation import PathwayValidation, Scale, Validation

from .result_factory import make_head, make_result

NAMES = ("HALLMARK_HYPOXIA", "HALLMARK_E2F_TARGETS", "HALLMARK_ANGIOGENESIS", "HALLMARK_APOPTOSIS", "UNSEEN")


def facts(names: tuple[str, ...] = NAMES, unseen: str = "UNSEEN") -> Validation:
    """Scale (0, 1) for all; r 0.6 for all but `unseen`."""
    return Validation(
        "z within section",
        tuple(
            PathwayValidation(
                name,
                r=-0.06 if name == unseen else 0.6,
                r_low=-0.2 if name == unseen else 0.5,
                r_high=0.1 if name == unseen else 0.7,
                sections=4,
                patients=4,
                scale=Scale(0.0, 1.0),
            )
            for name in names
        ),
    )


def slide_result(name: str, means: list[float], verdict: Any = "inside", *, seed: int = 0, **changes: Any) -> Result:
    """A slide of 150 tiles whose weighted means are `means`, one per pathway of `NAMES`."""
    plain = make_result(150, NAMES, [make_head("msi", 150)], seed=seed, thumbnail_px=300)
    weights = plain.tissue_fraction.astype(np.float64)
    scores = plain.pathways - (weights @ plain.pathways / weights.sum()).astype(np.float32) + np.float32(means)
    reasons = () if verdict == "inside" else ("stained more strongly than any training section",)
    trust = SlideTrust(verdict, reasons, 1.0, np.zeros(150, np.float32), np.zeros(150, np.uint16), 150, "none")
    slide = replace(plain.slide, name=name, sha256=f"{seed:064x}")
    result = replace(plain, pathways=scores.astype(np.float32), trust=trust, validation=facts(), slide=slide)
    return add_summaries(replace(result, **changes))
