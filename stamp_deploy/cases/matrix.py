"""Slides by pathways as numbers that can be compared, and in the order of a hierarchical clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .slide_record import Results
from .tables import OUTSIDE

COMMON = "common scale: z = (mean - centre) / spread of the bundle's held-out predictions"
WITHIN = (
    "the bundle states no common scale: each pathway is shown in standard deviations about the mean of these slides, "
    "which says nothing of slides elsewhere"
)
MIN_TO_CLUSTER = 3
"""Fewer rows have no tree worth drawing."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """Slides by pathways.

    Attributes
    ----------
    values : float64 [S, P]
        In the order drawn: slides inside or doubtful or not judged first, then those outside; validated pathways
        first, then the others. NaN where no tile counts.
    slides : list of int
        Position of each row in `Results.slides`.
    names : list of str
    outside : int
        Rows at the end that are of slides outside what the model knows.
    unvalidated : int
        Columns at the end that are not validated; 0 where the bundle says nothing of it.
    scale : str
        What the values are, in words.
    slide_tree, pathway_tree : dict or None
        As `scipy.cluster.hierarchy.dendrogram` gives it for the rows and columns that come first; None where there are
        too few.
    """

    values: NDArray[np.float64]
    slides: list[int]
    names: list[str]
    outside: int
    unvalidated: int
    scale: str
    slide_tree: dict[str, Any] | None
    pathway_tree: dict[str, Any] | None


def make_matrix(results: Results) -> Matrix:
    """Order slides and pathways by average linkage of Euclidean distances, leaves ordered optimally.

    (Sokal and Michener 1958 for the linkage, Bar-Joseph et al. 2001 for the order, both as scipy implements them.)
    Slides outside and pathways that are not validated take no part: they would pull the tree their way.
    """
    names = results.pathway_names
    common = all(set(names) <= slide.z.keys() for slide in results.slides if slide.means)
    rows = [slide.z if common else slide.means for slide in results.slides]
    values = np.array([[row.get(name, np.nan) for name in names] for row in rows], np.float64)
    inside = [i for i, slide in enumerate(results.slides) if slide.verdict != OUTSIDE]
    outside = [i for i in range(len(rows)) if i not in set(inside)]
    if not common:
        values = _standardised(values, inside or outside)
    validated = results.slides[0].validated
    sure = [i for i, name in enumerate(names) if validated.get(name, not validated)]
    unsure = [i for i in range(len(names)) if i not in set(sure)]
    used = sure or unsure
    slide_order, slide_tree = _clustered(values[np.ix_(inside, used)])
    pathway_order, pathway_tree = _clustered(values[np.ix_(inside, sure)].T)
    slides = [*(inside[i] for i in slide_order), *outside]
    pathways = [*(sure[i] for i in pathway_order), *unsure]
    return Matrix(
        values[np.ix_(slides, pathways)],
        slides,
        [names[i] for i in pathways],
        len(outside),
        len(unsure),
        COMMON if common else WITHIN,
        slide_tree,
        pathway_tree,
    )


def _standardised(values: NDArray[np.float64], rows: list[int]) -> NDArray[np.float64]:
    """Each column about the mean of `rows`, in their standard deviations (n - 1); 0 where they are all equal."""
    known = values[rows]
    count = np.maximum(np.isfinite(known).sum(axis=0), 1)
    mean = np.nansum(known, axis=0) / count
    spread = np.sqrt(np.nansum((known - mean) ** 2, axis=0) / np.maximum(count - 1, 1))
    made: NDArray[np.float64] = (values - mean) / np.where(spread > 0, spread, np.inf)
    return made


def _clustered(rows: NDArray[np.float64]) -> tuple[list[int], dict[str, Any] | None]:
    """The order of rows, and their tree; rows that lack a value come last, and without a tree."""
    whole = np.asarray(np.isfinite(rows).all(axis=1))
    if whole.sum() < MIN_TO_CLUSTER or not whole.all() or rows.shape[1] == 0:
        return sorted(range(len(rows)), key=lambda i: not whole[i]), None
    from scipy.cluster.hierarchy import dendrogram, linkage

    tree: dict[str, Any] = dendrogram(linkage(rows, "average", metric="euclidean", optimal_ordering=True), no_plot=True)
    return [int(leaf) for leaf in tree["leaves"]], tree
