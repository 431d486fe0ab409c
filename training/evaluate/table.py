"""Rows of the evaluation table: every prediction of the test sections, scored by one rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..cohort import Sample
from ..gene_sets import GeneSets
from ..metrics import SectionResult, median_r, pearson, section_z
from ..neighbours import neighbours_mean
from ..ridge import EMBEDDING_FLOOR, fit_ridge_measured
from ..stain_features import features29
from ..summary import summary
from .rows import BASELINES, KINDS, RUNS, Row, RowKind, command_for, kind_of
from .runs import Run, Section

Features = Callable[[Sample], NDArray[np.floating]]


class Table:
    """Rows in the making, with what they are computed from."""

    def __init__(self, names: Sequence[str], train: list[Section], test: list[Section], seed: int) -> None:
        self.names, self.train, self.test, self.seed = names, train, test, seed
        self.rows: list[Row] = []
        self.sections: dict[str, list[SectionResult]] = {}

    def add(self, key: str, label: str, how: str, predictions: Sequence[NDArray[np.floating]], note: str = "") -> None:
        results = [
            SectionResult(s.sample.id, s.sample.patient, s.truth, p, s.mask, s.xy_um, s.depth)
            for s, p in zip(self.test, predictions, strict=True)
        ]
        self.sections[f"{key}/{how}"] = results
        self.rows.append(Row(key, label, how, dict(summary(results, self.names, seed=self.seed)), note))

    def ridge(
        self, features: Features, alpha: float | None, *, embedding: bool = False
    ) -> tuple[list[NDArray[np.float64]], str]:
        """Predictions for the test sections of ridge fitted on the training sections, all z-scored within section.

        An `embedding` is centred within section instead, its features scaled over the training sections (`fit_ridge`).

        `alpha` None: chosen for each pathway by leaving out a training section at a time. A pathway is fitted on the
        sections that measure it.
        """
        prepare = _centred if embedding else section_z
        x = [prepare(features(s.sample)) for s in self.train]
        y = [section_z(s.truth) for s in self.train]
        names, masks = [s.sample.id for s in self.train], [s.mask for s in self.train]
        model = fit_ridge_measured(x, y, masks, names, alpha, floor=EMBEDDING_FLOOR if embedding else 0.0)
        note = f"alpha {np.nanmedian(model.alpha):g}" + (" (median)" if alpha is None else "")
        return [model.predict(prepare(features(s.sample))) for s in self.test], note


def _centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    x = np.asarray(values, np.float64)
    return np.asarray(x - x.mean(axis=0), np.float64)


def add_baselines(table: Table, run: Run, have_training: bool) -> None:
    raw = pearson(
        np.concatenate([s.truth for s in table.test]),
        np.concatenate([np.broadcast_to(s.truth.mean(axis=0), s.truth.shape) for s in table.test]),
    )
    note = "constant within a section, so r is 0"
    if len(table.test) > 1:
        note += f"; over raw pooled scores, section means alone give r {median_r(raw):.3f}"
    constant = [np.zeros_like(s.truth) for s in table.test]
    table.add("slide_mean", KINDS["slide_mean"].label, "baseline", constant, note)
    if not have_training or not table.train:
        for kind in BASELINES[1:]:
            table.rows.append(
                Row(kind.key, kind.label, "baseline", missing="needs the training cohort: --train-cohort DIR")
            )
        return

    def simple(sample: Sample) -> NDArray[np.floating]:
        return features29(sample.tiles(), run.info.mpp)

    predictions, note = table.ridge(simple, None)
    table.add("features_29", KINDS["features_29"].label, "baseline", predictions, note)
    depth = {s.sample.folder: s.depth for s in (*table.train, *table.test)}
    predictions, note = table.ridge(lambda sample: depth[sample.folder], None)
    note = f"log counts and log genes of the tested spots themselves, which no picture shows; {note}"
    table.add("depth_only", KINDS["depth_only"].label, "baseline", predictions, note)
    if not run.has_frozen:
        for kind in (KINDS["frozen_ridge_fixed"], KINDS["frozen_ridge_cv"]):
            why = f"a run with adapt = {run.info.adapt} holds no frozen model: --compare NAME=RUN with a LoRA run"
            table.rows.append(Row(kind.key, kind.label, "baseline", missing=why))
        return
    add_frozen_rows(table, run)


def add_frozen_rows(table: Table, run: Run) -> None:
    """Ridge on the embedding of the model as it was before adapting."""
    fixed = 100.0 / (run.model.frozen_dim * len(table.names))
    for key, alpha in (("frozen_ridge_fixed", fixed), ("frozen_ridge_cv", None)):
        predictions, note = table.ridge(run.frozen, alpha, embedding=True)
        table.rows = [row for row in table.rows if row.key != key]
        table.add(key, KINDS[key].label, "baseline", predictions, note)
    add_neighbours(table, "frozen_ridge_cv", KINDS["frozen_ridge_cv"].label, run.frozen)


def add_neighbours(table: Table, key: str, label: str, embedding: Features) -> None:
    """Ridge on the embedding of a spot beside the mean of those of its up to 8 neighbours."""
    places = {s.sample.folder: s.xy_um for s in (*table.train, *table.test)}

    def joined(sample: Sample) -> NDArray[np.floating]:
        own = embedding(sample)
        return np.concatenate([own, neighbours_mean(own, places[sample.folder])], axis=1)

    predictions, note = table.ridge(joined, None, embedding=True)
    table.add(key, label, "neighbours", predictions, note)


def add_run(table: Table, name: str, kind: RowKind, run: Run, sets: GeneSets) -> None:
    label = kind.label if not name else f"{kind.label} [{name}]"
    if kind.key == "lora" and run.info.lora is not None:
        label = label.replace("LoRA", f"LoRA r{run.info.lora.r}", 1)
    key = kind.key if not name else f"{kind.key}:{name}"
    same_sets = run.info.pathway_names == sets.names and run.info.gene_set_sha256 == sets.sha256
    if kind.head and same_sets:
        table.add(key, label, "head", [run.head(s.sample) for s in table.test])
    elif kind.head:
        table.rows.append(Row(key, label, "head", missing="its head predicts other gene sets"))
    if not table.train:
        table.rows.append(Row(key, label, "probe", missing="needs the training cohort: --train-cohort DIR"))
        return
    frozen_rows_missing = any(row.key == "frozen_ridge_cv" and row.result is None for row in table.rows)
    if frozen_rows_missing and run.has_frozen:
        add_frozen_rows(table, run)

    predictions, note = table.ridge(run.embedding, None, embedding=True)
    table.add(key, label, "probe", predictions, note)
    add_neighbours(table, key, label, run.embedding)


def add_frozen_head(table: Table, run: Run, sets: GeneSets) -> None:
    """The run's head on the frozen model, where no run of its own fills the row."""
    from .frozen_head import frozen_head

    taken = any(row.key == "frozen_head" for row in table.rows)
    same_sets = run.info.pathway_names == sets.names and run.info.gene_set_sha256 == sets.sha256
    kind = kind_of(run.config)
    if taken or not (table.train and run.has_frozen and same_sets and kind.head) or run.config.control:
        return
    predictions = frozen_head(run, sets, [s.sample for s in table.train], [s.sample for s in table.test])
    note = "fitted here, on the frozen embeddings without augmentation; otherwise as the run's"
    table.add("frozen_head", KINDS["frozen_head"].label, "head", predictions, note)


def add_missing(table: Table, run: Run) -> None:
    have = {row.key for row in table.rows}
    for kind in RUNS:
        if kind.key not in have:
            missing = command_for(kind, str(run.path), run.config)
            table.rows.append(Row(kind.key, kind.label, "head" if kind.head else "probe", missing=missing))
    order = list(KINDS)
    table.rows.sort(key=lambda row: (order.index(row.key.split(":")[0]), row.key, row.how))
