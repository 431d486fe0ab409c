"""What each precision may cost, and why; docs/parity.md explains the numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

ONE_SIDED_99 = 2.326
"""Standard errors below which one value in a hundred lies."""


@dataclass(frozen=True)
class Tolerance:
    """What a precision may cost.

    ``max_abs`` is in units of the reference's largest value where that is above 1, and plain otherwise, so
    that an encoder with large activations is held to the same relative rounding; so is ``head_max_abs``, for log
    hazards. None means not judged.
    ``spearman_min`` and ``pearson_min`` hold for the tiles that a site will see: `correlation_floor` is what some
    tiles must show. ``bias_max`` is the mean difference of a pathway's scores in standard deviations of the reference's
    scores, ``slope_max`` how far the slope of candidate on reference may be from 1, ``norm_max`` how far the median
    ratio of the embeddings' lengths may be from 1: what a cosine and a correlation cannot see.
    """

    cosine_min: float
    cosine_median: float
    max_abs: float | None
    pathway_max_abs: float | None
    spearman_min: float
    pearson_min: float
    bias_max: float
    slope_max: float
    norm_max: float
    head_max_abs: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        cosine_min=0.99999,
        cosine_median=0.999999,
        max_abs=1e-5,
        pathway_max_abs=1e-4,
        spearman_min=0.9999,
        pearson_min=0.99999,
        bias_max=0.001,
        slope_max=0.001,
        norm_max=0.0001,
        head_max_abs=1e-4,
        reason="the same arithmetic in another order: rounding of 2**-24 grows a hundredfold or so over blocks, and "
        "tenfold more in a linear head on correlated dimensions; scores are in standard deviations",
    ),
    "fp16": Tolerance(
        cosine_min=0.999,
        cosine_median=0.9999,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.995,
        pearson_min=0.999,
        bias_max=0.01,
        slope_max=0.01,
        norm_max=0.002,
        head_max_abs=0.01,
        reason="11 significant bits in the matrix products, sums in fp32; a wrong cast or overflow falls far below",
    ),
    "bf16": Tolerance(
        cosine_min=0.99,
        cosine_median=0.999,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.99,
        pearson_min=0.99,
        bias_max=0.05,
        slope_max=0.03,
        norm_max=0.01,
        head_max_abs=0.03,
        reason="8 significant bits, sums in fp32: single elements move by a percent, the order of tiles must not",
    ),
    "int8": Tolerance(
        cosine_min=0.9,
        cosine_median=0.98,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.98,
        pearson_min=0.98,
        bias_max=0.2,
        slope_max=0.15,
        norm_max=0.1,
        head_max_abs=0.05,
        reason="256 levels a tensor: embeddings drift, so what is read, the order of tiles by pathway, is the gate",
    ),
}
TOLERANCES["fp8"] = replace(TOLERANCES["int8"], reason="4 significant bits (e4m3): held to the bounds of int8")


def correlation_floor(limit: float, tiles: int) -> float:
    """What a correlation over some tiles must reach when `limit` holds for all tiles.

    A correlation over few tiles scatters. The floor is the lower end of its one-sided 99 % interval about the limit, by
    Fisher's z with the variance of Bonett and Wright (2000), (1 + r^2 / 2) / (n - 3), which serves Spearman's
    coefficient and is wide enough for Pearson's. So a candidate fails when the tiles contradict the limit, and an
    engine that keeps it is not accepted on some tiles and refused on others.
    """
    if limit >= 1:
        return limit
    error = np.sqrt((1 + limit**2 / 2) / max(tiles - 3, 1))
    return float(np.tanh(np.arctanh(limit) - ONE_SIDED_99 * error))
