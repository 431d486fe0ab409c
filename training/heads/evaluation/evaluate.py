"""`evaluate-head`: a trained head on a cohort that it never saw. Nothing is fitted to that cohort.

Temperature, thresholds and operating points come from the training side: from the held-out predictions that
`train-head` kept. Intervals of areas are DeLong's and those of a bootstrap over patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.errors import DataError, UsageError

from ...model.checkpoint import read_tensors
from ..bag_model import risk_score
from ..bags import LabelTable
from ..metrics import Floats, areas, calibration_error, concordance, patient_interval, softmax
from ..slides import read_bags
from ..train import load_heads
from .delong import area
from .operating import SENSITIVITIES, counts_at, decision_curve, locked_threshold
from .reliability import reliability
from .survival import Followed, cox, missing_libraries, over_time, risk_groups

SCHEMA = "stamp-deploy/head-evaluation/1"
MIN_OF_A_CLASS = 2


@dataclass(frozen=True)
class Options:
    """How a head is evaluated: sensitivities of the operating points, draws and seed of the bootstrap, and whether
    slides of a patient are averaged first."""

    sensitivities: tuple[float, ...] = SENSITIVITIES
    draws: int = 1000
    seed: int = 0
    per_patient: bool = False


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head with its entry of heads.json and the held-out predictions of its training slides: `raw` [N, C], `label`,
    `time`, `event`."""

    module: nn.Module
    entry: dict[str, Any]
    held_out: dict[str, NDArray[Any]]


def read_head(folder: Path, name: str = "") -> TrainedHead:
    """A head of a folder, by its name where there are several.

    Raises
    ------
    UsageError
        There is none of that name, or several to choose from, or its held-out predictions are gone.
    """
    heads = load_heads(folder)
    names = [str(entry["name"]) for _, entry in heads]
    if not heads:
        raise UsageError("holds no heads", path=folder, remedy="train one: stamp-deploy train-head")
    if name not in names and (name or len(names) > 1):
        raise UsageError(
            f"there is no head {name}" if name else "holds several heads", path=folder,
            remedy=f"name one of them: --head {' or '.join(names)}",
        )  # fmt: skip
    module, entry = heads[names.index(name) if name else 0]
    path = folder / "heads" / f"{entry['name']}.heldout.safetensors"
    try:
        tensors, _ = read_tensors(path)
    except OSError as error:
        raise UsageError(
            f"the held-out predictions of the training are missing: {error}", path=path, remedy="train the head again"
        ) from error
    return TrainedHead(module, entry, {k: v.numpy() for k, v in tensors.items()})


def evaluate_head(
    head: TrainedHead, table: LabelTable, options: Options, say: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """What head-evaluation.json holds.

    Raises
    ------
    DataError
        Features of another length or encoder than the head's, a class with fewer than two slides, or slides of one
        patient that disagree where they are to be averaged.
    """
    entry = head.entry
    encoders, known = table.encoders(), entry["details"].get("encoder", "")
    if known and encoders and encoders != [known]:
        raise DataError(
            f"the head learned from features of {known}, and these are of {', '.join(encoders)}",
            remedy="extract the features with the head's encoder",
        )
    outputs = _predict(head, table, say)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "head": {k: entry[k] for k in ("name", "kind", "classes", "thresholds", "temperature", "abstain")},
        "training": {
            k: entry["details"].get(k) for k in ("slides", "patients", "auroc", "auprc", "c_index", "encoder")
        },
        "cohort": {
            "slides": len(table.slides),
            "patients": len({s.patient for s in table.slides}),
            "class_counts": table.counts(),
            "sites": table.sites(),
            "without_label": table.without_label,
            "without_features": table.without_features,
        },
        "unit": "patients" if options.per_patient else "slides",
        "notes": [],
    }
    if options.per_patient:
        table, outputs = per_patient(table, outputs)
    elif document["cohort"]["patients"] < len(table.slides):
        document["notes"].append(
            "patients have several slides: DeLong's and Wilson's intervals take slides as independent and are too "
            "narrow; the bootstrap draws patients. --per-patient averages a patient's slides first"
        )
    patients = [s.patient for s in table.slides]
    if entry["kind"] == "survival":
        return document | _survival(head, table, outputs[:, 0], patients, options)
    label = np.array([s.label for s in table.slides])
    for place, name in enumerate(table.classes):
        if np.sum(label == place) < MIN_OF_A_CLASS:
            raise DataError(
                f"fewer than {MIN_OF_A_CLASS} {document['unit']} are {name}", remedy="add some of that class"
            )
    for name, (value, interval) in areas(label, outputs, patients, draws=options.draws, seed=options.seed).items():
        document[name] = {"value": value, "bootstrap": interval}
    if entry["kind"] == "multiclass":
        called = outputs.argmax(axis=1)
        return document | {
            "accuracy": float((called == label).mean()),
            "ece": calibration_error(outputs, label),
            "per_class": {name: area(label == c, outputs[:, c]).to_dict() for c, name in enumerate(table.classes)},
        }
    return document | _binary(head, outputs[:, 1], label == 1, document, options)


def _predict(head: TrainedHead, table: LabelTable, say: Callable[[str], object]) -> Floats:
    """Probabilities [N, C], or risks [N, 1]."""
    bags = read_bags(table.slides)
    dim = head.module.get_buffer("mean").numel()
    if bags[0].shape[1] != dim:
        raise DataError(
            f"embeddings of {bags[0].shape[1]} values, and the head wants {dim}",
            remedy="extract the features with the head's encoder",
        )
    rows = []
    with torch.inference_mode():
        for number, bag in enumerate(bags):
            rows.append(head.module(bag.float())[0].double().numpy())
            if (number + 1) % 200 == 0:
                say(f"{number + 1} of {len(bags)} slides")
    found = np.stack(rows)
    return found if head.entry["kind"] == "survival" else softmax(found, head.entry["temperature"])


def per_patient(table: LabelTable, outputs: Floats) -> tuple[LabelTable, Floats]:
    """One row a patient: the first of its slides, with the mean of its outputs.

    Raises
    ------
    DataError
        Slides of a patient carry different labels, times or events.
    """
    groups: dict[str, list[int]] = {}
    for i, slide in enumerate(table.slides):
        groups.setdefault(slide.patient, []).append(i)
    for rows in groups.values():
        if len({(table.slides[i].label, table.slides[i].time, table.slides[i].event) for i in rows}) > 1:
            raise DataError("slides of one patient carry different labels", remedy="evaluate slides: no --per-patient")
    kept = tuple(table.slides[rows[0]] for rows in groups.values())
    return replace(table, slides=kept), np.stack([outputs[rows].mean(axis=0) for rows in groups.values()])


def _binary(
    head: TrainedHead, probability: Floats, positive: NDArray[np.bool_], so_far: dict[str, Any], options: Options
) -> dict[str, Any]:
    entry = head.entry
    trained = softmax(head.held_out["raw"], entry["temperature"])[:, 1]
    truth = head.held_out["label"] == 1
    points = []
    for wanted in options.sensitivities:
        threshold = locked_threshold(trained, truth, wanted)
        points.append({
            "wanted_sensitivity": wanted,
            "training": counts_at(trained, truth, threshold),
            "external": counts_at(probability, positive, threshold),
        })  # fmt: skip
    shipped = entry["thresholds"][0] if entry["thresholds"] else 0.5
    band = entry["abstain"]
    silent = np.zeros(len(positive), bool) if band is None else (probability >= band[0]) & (probability <= band[1])
    wrong = (probability >= shipped) != positive
    return {
        "auroc": so_far["auroc"] | {"delong": area(positive, probability).to_dict()},
        "auprc": so_far["auprc"] | {"prevalence": float(positive.mean())},
        "calibration": reliability(probability, positive),
        "shipped_threshold": counts_at(probability, positive, shipped),
        "abstention": {
            "share": float(silent.mean()),
            "error_of_calls": None if silent.all() else float(wrong[~silent].mean()),
        },
        "operating_points": points,
        "decision_curve": decision_curve(probability, positive),
        "roc": _roc(probability, positive),
    }


def _roc(probability: Floats, positive: NDArray[np.bool_]) -> dict[str, list[float]]:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(positive, probability)
    return {"false_positive": false.tolist(), "true_positive": true.tolist()}


def _survival(
    head: TrainedHead, table: LabelTable, risk: Floats, patients: list[str], options: Options
) -> dict[str, Any]:
    held = head.held_out
    trained = Followed(risk_score(torch.from_numpy(held["raw"])).numpy(), held["time"], held["event"].astype(bool))
    new = Followed(risk, np.array([s.time for s in table.slides]), np.array([s.event for s in table.slides]))
    interval = patient_interval(
        patients, lambda r: concordance(new.time[r], new.event[r], risk[r]), draws=options.draws, seed=options.seed
    )
    names = table.covariates
    covariates = {n: np.array([s.covariates[i] for s in table.slides]) for i, n in enumerate(names)}
    cut = head.entry["thresholds"][0]
    return {
        "events": int(new.event.sum()),
        "c_index": {"value": concordance(new.time, new.event, risk), "bootstrap": interval},
        "risk_groups": risk_groups(new, cut),
        "cox": cox(new, covariates),
        "over_time": over_time(trained, new),
        "not_run": missing_libraries(),
    }
