"""The pathway scores of a run as a linear function of its embedding."""

from __future__ import annotations

from pathlib import Path

from stamp_deploy.errors import UsageError

from ..model.checkpoint import read_tensors
from ..model.run_info import read_info
from .bag_model import Readout


def read_pathways(run: Path) -> Readout:
    """The read-out that is comparable across slides (`pathway_global`) of a run's folder.

    Raises
    ------
    UsageError
        The folder is no finished run, or its heads cannot be read.
    """
    read_info(run)
    try:
        tensors, _ = read_tensors(run / "heads.safetensors")
        return Readout(tensors["pathway_global.weight"].float(), tensors["pathway_global.bias"].float())
    except (OSError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"its pathway read-out cannot be read: {error}",
            path=run / "heads.safetensors",
            remedy="train the run again",
        ) from error
