"""Options of a batch, beside those of a single slide."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import FILES, InferOptions

STATE_FOLDER = ".stamp"
STALL_S = 300.0
"""Seconds without progress after which a slide counts as hung."""
LEASE_S = 600.0
"""Seconds without a heartbeat after which another host's claim is taken over."""


@dataclass(frozen=True)
class BatchOptions:
    """Options of ``stamp-deploy batch`` beside those of a single slide.

    Attributes
    ----------
    bundle : Path
        The model.
    out : Path
        Folder of the results.
    infer : InferOptions
        How each slide is scored; its ``mpp`` holds for slides that record none and whose manifest row gives none.
    require_signature : Path, optional
        Public key that must have signed the bundle.
    shard : (int, int)
        Work on shard i of n only.
    devices, workers
        See ``workers.local.worker_setups``.
    stall_s : float
        Seconds without progress after which a slide counts as hung.
    lease_s : float
        Seconds without a heartbeat after which another host's claim is taken over.
    wait_for_others : bool
        Stay until slides that other processes hold are settled.
    retry_failed : bool
        Try failed and quarantined slides of earlier runs again.
    ignore_space : bool
        Start although the estimate says that the disk will be full.
    metrics : Path, optional
        Prometheus textfile; ``OUT/.stamp/stamp.prom`` by default.
    """

    bundle: Path
    out: Path
    infer: InferOptions = field(default_factory=InferOptions)
    require_signature: Path | None = None
    shard: tuple[int, int] = (0, 1)
    devices: str = "auto"
    workers: int = 0
    stall_s: float = STALL_S
    lease_s: float = LEASE_S
    wait_for_others: bool = True
    retry_failed: bool = False
    ignore_space: bool = False
    metrics: Path | None = None

    @property
    def state(self) -> Path:
        """The folder for claims, ledger, audit log and logs."""
        return self.out / STATE_FOLDER

    def worker_config(self) -> dict[str, Any]:
        """What a worker is told at its start."""
        signature = str(self.require_signature.absolute()) if self.require_signature else None
        paths = {name: getattr(self.infer, name) for name in FILES}
        files = {name: None if path is None else str(path.absolute()) for name, path in paths.items()}
        options = {**replace(self.infer, mpp=None).to_dict(), **files}
        return {"bundle": str(self.bundle.absolute()), "options": options, "require_signature": signature}
