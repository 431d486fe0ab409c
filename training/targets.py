"""Training targets denoised, by neighbouring spots or by principal components; their mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def smooth(values: NDArray[np.floating], xy_um: NDArray[np.floating], radius_um: float) -> NDArray[np.float32]:
    """Half the spot, half a Gaussian mean (sd = radius / 2) of the spots within the radius, itself included.

    Parameters
    ----------
    values : float [N, P]
    xy_um : float [N, 2]
        Places in microns.
    """
    from scipy.sparse import csr_array, diags_array
    from scipy.spatial import cKDTree

    tree = cKDTree(xy_um)
    near = tree.sparse_distance_matrix(tree, radius_um, output_type="coo_matrix")
    weight = np.exp(-0.5 * (near.data / (radius_um / 2)) ** 2)
    kernel = csr_array((weight, (near.row, near.col)), shape=near.shape)
    kernel = kernel - diags_array(kernel.diagonal()) + diags_array(np.ones(len(values)))  # the spot itself weighs 1
    kernel = diags_array(1 / np.asarray(kernel.sum(axis=1)).ravel()) @ kernel
    return np.asarray(0.5 * values + 0.5 * (kernel @ values), np.float32)


IMPUTATIONS = 200
"""Rounds at most until what stands in for missing targets settles."""


def keep_components(
    targets: Sequence[NDArray[np.float32]], rank: int, masks: Sequence[NDArray[np.bool_]] = ()
) -> list[NDArray[np.float32]]:
    """Targets [N, P] of all sections, reduced to the `rank` components that they vary most along, about their mean.

    Pathways share genes and respond together: what a few hundred spots can tell of 50 scores has few dimensions.
    Targets outside a section's mask [P] are missing, not 0: they are filled in from the components, in turn, until they
    settle (Kiers 1997), and take no part otherwise.
    """
    together = np.concatenate(targets).astype(np.float64)
    known = np.ones(together.shape, bool)
    if len(masks):
        known = np.concatenate([np.broadcast_to(m, t.shape) for m, t in zip(masks, targets, strict=True)])
    mean = _means_of(together, known)
    filled = np.where(known, together, mean)
    kept = filled
    for _ in range(IMPUTATIONS):
        mean = filled.mean(axis=0)
        centred = filled - mean
        axes = np.linalg.eigh(centred.T @ centred)[1][:, -rank:]
        kept = mean + centred @ axes @ axes.T
        moved = float(np.abs(kept - filled)[~known].max(initial=0.0))
        filled = np.where(known, together, kept)
        if moved < 1e-4:
            break
    ends = np.cumsum([len(t) for t in targets])[:-1]
    return [part.astype(np.float32) for part in np.split(kept, ends)]


def _means_of(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each column over what is known; 0 where nothing is."""
    sums, counts = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    return np.asarray(sums / np.maximum(counts, 1), np.float64)


def over_measured(
    values: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation [P] of each pathway over the spots of the sections that measure it."""
    together = np.concatenate(values).astype(np.float64)
    known = np.concatenate([np.broadcast_to(m, v.shape) for m, v in zip(masks, values, strict=True)])
    mean = _means_of(together, known)
    return mean, np.sqrt(_means_of((together - mean) ** 2, known))
