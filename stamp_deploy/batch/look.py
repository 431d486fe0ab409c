"""The look at all slides before a batch begins: they are opened, compared with earlier runs, and told apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..atomic import is_whole
from ..bundle import Bundle
from .options import BatchOptions
from .planning.changes import Changes
from .planning.folder import Skipped
from .planning.identity import ByLevels
from .planning.inputs import expand_inputs
from .planning.plan import Plan
from .planning.planner import plan_batch
from .planning.probe import SafeProbe
from .progress import View
from .records.slide_states import SlideStates
from .workers.process import WorkerConfig

SLIDE_STATES = "slides"
"""Folder in the state folder for what is known of each slide."""


def make_plan(inputs: Sequence[Path], options: BatchOptions, bundle: Bundle, view: View) -> Plan:
    """Look at everything and change nothing, the log of the probing process apart."""
    log = options.state / f"probe-{os.getpid()}.log" if options.state.is_dir() else Path(os.devnull)
    probe = SafeProbe(WorkerConfig({"bundle": None}, log))
    skipped = Skipped()
    try:
        return plan_batch(
            expand_inputs(inputs, skip=options.out, series_of=probe.series, skipped=skipped),
            options.out,
            probe=probe,
            is_done=lambda key: is_whole(options.out / key),
            changes=make_changes(options, probe),
            recognise=ByLevels(probe.levels, probe.identity),
            skipped=skipped,
            bytes_per_tile=8 * (bundle.embedding_dim + len(bundle.pathways)) + 64,
            tile_span_um=bundle.tile_px * bundle.mpp,
            mpp=options.infer.mpp,
            shard=options.shard,
            on_slide=view.planning,
        )
    finally:
        probe.close()


def make_changes(options: BatchOptions, probe: SafeProbe) -> Changes:
    """Compares slides with what earlier runs noted; writes nothing where there is no state folder (a dry run)."""
    states = SlideStates(options.state / SLIDE_STATES)
    return Changes(options.out, states, probe.identity, probe.series, note=options.state.is_dir())
