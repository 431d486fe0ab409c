"""`compare-encoders`: does one encoder give better heads than another? Same slides, same patient folds, paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from ...intervals import word_of
from ..bags import LabelTable
from ..config import HeadConfig
from ..folds import fold_numbers
from ..metrics import Floats, auprc, auroc, concordance, patient_interval, softmax
from ..slides import Slides, load_slides
from ..train import HeldOut, held_out, problem_of
from .delong import area, area_difference

SCHEMA = "stamp-deploy/encoder-comparison/1"
RULE = (
    "Shown: the difference's 95 % interval over patients lies above 0. Harmful: below 0. Not shown: everything else. "
    "The measure is AUROC, or Harrell's C, of held-out patients, averaged over the seeds."
)


@dataclass(eq=False)
class Runs:
    """What an encoder's heads predict of held-out patients, one entry a seed."""

    slides: Slides
    held: list[HeldOut]


def common_slides(tables: Mapping[str, LabelTable]) -> dict[str, LabelTable]:
    """The slides that every encoder has features of, in one order.

    Raises
    ------
    DataError
        There are none.
    """
    by_name = {
        name: {(s.patient, s.bag.slide or s.bag.name): s for s in table.slides} for name, table in tables.items()
    }
    first = next(iter(tables))
    shared = [k for k in by_name[first] if all(k in rows for rows in by_name.values())]
    if not shared:
        raise DataError("no slide has features of every encoder", remedy="extract the same slides with each")
    return {name: replace(table, slides=tuple(by_name[name][k] for k in shared)) for name, table in tables.items()}


def compare_encoders(
    tables: Mapping[str, LabelTable],
    config: HeadConfig,
    seeds: int,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """What encoder-comparison.json holds: each encoder's measures, and its difference from the last one.

    Parameters
    ----------
    tables : name -> LabelTable
        The last is the reference: the frozen encoder, say.
    seeds : int
        Each gives other folds, other weights and other draws, the same for every encoder.
    """
    tables = common_slides(tables)
    runs: dict[str, Runs] = {}
    for name, table in tables.items():
        slides = load_slides(table, config)
        held = []
        for seed in range(config.seed, config.seed + seeds):
            own = config.with_(seed=seed)
            held.append(held_out(table, slides, problem_of(table, slides, own, None), own, lambda text: None))
            say(f"{name}: seed {seed + 1 - config.seed} of {seeds}")
        runs[name] = Runs(slides, held)
    table = next(iter(tables.values()))
    patients = [s.patient for s in table.slides]
    reference = list(tables)[-1]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "task": table.task,
        "rule": RULE,
        "slides": len(patients),
        "patients": len(set(patients)),
        "left_out": {n: t.without_features for n, t in tables.items()},
        "folds": config.folds,
        "seeds": seeds,
        "model": config.model,
        "reference": reference,
        "encoders": {},
        "differences": {},
    }
    for measure in ("c_index",) if table.task == "survival" else ("auroc", "auprc"):
        of = {name: _measure(run, measure) for name, run in runs.items()}
        everything = np.arange(len(patients))
        for name, value in of.items():
            interval = patient_interval(patients, value, draws=config.draws, seed=config.seed)
            document["encoders"].setdefault(name, {})[measure] = {"value": value(everything), "bootstrap": interval}
            if name != reference:
                document["differences"].setdefault(name, {})[measure] = _difference(
                    value, of[reference], patients, config
                )
    if table.task == "binary":
        _add_delong(document, runs)
    return document


def _measure(run: Runs, name: str) -> Callable[[NDArray[np.integer]], float]:
    """A function from rows to the mean over seeds of a measure on held-out predictions."""
    slides = run.slides
    if name == "c_index":
        risks = [(held.raw.mean(axis=1), fold_numbers(held.folds, len(held.raw))) for held in run.held]
        return lambda r: float(
            np.mean([concordance(slides.time[r], slides.event[r], risk[r], fold[r]) for risk, fold in risks])
        )
    area_of = auroc if name == "auroc" else auprc
    probabilities = [softmax(held.raw) for held in run.held]
    return lambda r: float(np.mean([area_of(slides.label[r], p[r]) for p in probabilities]))


def _difference(
    first: Callable[[NDArray[np.integer]], float],
    second: Callable[[NDArray[np.integer]], float],
    patients: list[str],
    config: HeadConfig,
) -> dict[str, Any]:
    """The paired difference, its interval over patients, and the verdict by `RULE`."""
    interval = patient_interval(patients, lambda r: first(r) - second(r), draws=config.draws, seed=config.seed)
    rows = np.arange(len(patients))
    return {
        "value": first(rows) - second(rows),
        "bootstrap": interval,
        "word": word_of(*(interval or (None, None))),
    }


def _add_delong(document: dict[str, Any], runs: Mapping[str, Runs]) -> None:
    """DeLong's intervals of the mean score over seeds, beside those of the bootstrap."""
    mean: dict[str, Floats] = {
        name: np.mean([softmax(h.raw)[:, 1] for h in run.held], axis=0) for name, run in runs.items()
    }
    positive = next(iter(runs.values())).slides.label == 1
    for name, score in mean.items():
        document["encoders"][name]["auroc"]["delong"] = area(positive, score).to_dict()
        if name != document["reference"]:
            found = area_difference(positive, score, mean[document["reference"]])
            document["differences"][name]["auroc"]["delong"] = found.to_dict()
