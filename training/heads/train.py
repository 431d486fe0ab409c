"""`train-head`: a slide-level head from tile embeddings and a table of labels, and how far it can be trusted.

Patients, never slides, are split. Each fold trains on some patients, stops on others, and predicts the rest. Every
figure comes from those held-out predictions, judged by thresholds that were set inside the fold (nested.py). The head
that is kept is trained on all slides, for as many epochs as the folds needed; its temperature, threshold and abstention
band come from all held-out predictions, which are kept beside it for `evaluate-head`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.atomic import disk_errors, write_json_atomic
from stamp_deploy.errors import UsageError

from ..model.checkpoint import read_tensors, write_tensors
from ..torch_threads import set_torch_threads
from .bag_model import Readout
from .bags import LabelTable
from .calibration import Judged, calibrated_entry
from .config import HeadConfig
from .fitting import Problem, build_model, fit_head, model_facts, predict
from .folds import fold_numbers, patient_folds, stopping_rows
from .nested import judged_folds
from .slides import Slides, load_slides

SCHEMA = "stamp-deploy/heads/1"


@dataclass(eq=False)
class HeldOut:
    """What the models of the folds predict of slides that they never saw.

    Attributes
    ----------
    raw : float64 [N, C]
        Logits; for survival the bins' hazard logits, less the baseline of the fold's model.
    best_epochs : list of int
    """

    folds: list[NDArray[np.intp]]
    raw: NDArray[np.float64]
    best_epochs: list[int]


def train_head(
    table: LabelTable,
    out: Path,
    config: HeadConfig,
    say: Callable[[str], object] = lambda text: None,
    *,
    readout: Readout | None = None,
) -> dict[str, Any]:
    """Train, calibrate and write one head into the folder `out` (heads/NAME.safetensors and heads.json).

    A folder with other heads keeps them; a head of the same name is replaced.

    Parameters
    ----------
    readout : Readout, optional
        Pathway scores of an embedding; needed where `config.inputs` asks for them.

    Returns
    -------
    dict
        The head's entry in heads.json.

    Raises
    ------
    DataError
        Too few patients for the folds, embeddings of different lengths, a class in too few patients.
    UsageError
        Pathway scores are wanted and there is no read-out, or one of another length.
    """
    set_torch_threads()
    slides = load_slides(table, config)
    problem = problem_of(table, slides, config, readout)
    held = held_out(table, slides, problem, config, say)
    everything = np.arange(len(slides.bags))
    final, _ = fit_head(
        slides, everything, everything[:0], problem,
        config.with_(epochs=max(1, round(float(np.median(held.best_epochs))))), config.folds,
    )  # fmt: skip
    final = final.cpu()
    judged: list[Judged] = []
    how = ""
    if table.task == "survival":
        held.raw += final.baseline.detach().double().numpy()
    else:
        judged, how = judged_folds(table, slides, held.folds, held.raw, problem, config, say)
    entry = calibrated_entry(table, slides, held.raw, config, judged=judged, folds=held.folds)
    details = entry["details"]
    details |= {"best_epochs": held.best_epochs, "inputs": config.inputs, "model": config.model}
    details["encoder"] = next((s.bag.encoder for s in table.slides if s.bag.encoder), "")
    if how:
        details["judged_by"] = how
    entry |= {"model": model_facts(problem, config)}
    with disk_errors(out):
        (out / "heads").mkdir(parents=True, exist_ok=True)
        write_tensors(out / "heads" / f"{config.name}.safetensors", dict(final.state_dict()))
        write_tensors(out / "heads" / f"{config.name}.heldout.safetensors", _record(slides, held))
        document = _read_document(out)
        document["heads"] = [h for h in document["heads"] if h["name"] != config.name] + [entry]
        write_json_atomic(out / "heads.json", document)
    return entry


def problem_of(table: LabelTable, slides: Slides, config: HeadConfig, readout: Readout | None) -> Problem:
    """What the heads of this table are to do.

    Raises
    ------
    UsageError
        Pathway scores are wanted and there is no read-out, or one of another length.
    """
    dim, outputs = slides.bags[0].shape[1], config.bins if table.task == "survival" else len(table.classes)
    if config.inputs == "embeddings":
        return Problem(table.task, dim, outputs)
    if readout is None:
        raise UsageError(
            f'inputs = "{config.inputs}" needs the run that made the embeddings', remedy="name it: --pathways RUN"
        )
    if readout.weight.shape[1] != dim:
        raise UsageError(
            f"the run reads pathways from embeddings of {readout.weight.shape[1]} values, and these have {dim}",
            remedy="name the run that made the embeddings",
        )
    return Problem(table.task, dim, outputs, readout)


def held_out(
    table: LabelTable, slides: Slides, problem: Problem, config: HeadConfig, say: Callable[[str], object]
) -> HeldOut:
    """Fit the folds and predict their test patients."""
    folds = patient_folds(table.slides, table.task, config.folds, config.seed)
    raw = np.zeros((len(slides.bags), problem.outputs))
    epochs = []
    for number, test in enumerate(folds):
        rest = np.setdiff1d(np.arange(len(slides.bags)), test)
        stop = stopping_rows(table, rest, config, number)
        learn = np.setdiff1d(rest, stop)
        head, best = fit_head(slides, learn, stop, problem, config, number)
        raw[test] = predict(head, slides, test)
        if problem.task == "survival":
            raw[test] -= head.baseline.detach().double().cpu().numpy()
        epochs.append(best)
        say(f"fold {number + 1} of {len(folds)}: {len(learn)} slides, best epoch {best}")
    return HeldOut(folds, raw, epochs)


def _record(slides: Slides, held: HeldOut) -> dict[str, torch.Tensor]:
    """The held-out predictions with what they should have been: no names, no patients."""
    values = {
        "raw": held.raw, "label": slides.label, "time": slides.time, "event": slides.event.astype(np.uint8),
        "fold": fold_numbers(held.folds, len(held.raw)).astype(np.int64),
    }  # fmt: skip
    return {name: torch.from_numpy(value) for name, value in values.items()}


def load_heads(folder: Path) -> list[tuple[nn.Module, dict[str, Any]]]:
    """The heads of a folder, for export: modules in evaluation mode, embeddings [N, D] -> (logits [C], attention [N]),
    each with its entry: name, kind, classes, thresholds, temperature, abstain, details. Empty where there are none.

    Raises
    ------
    UsageError
        heads.json is of another schema, or does not fit the tensors.
    """
    found: list[tuple[nn.Module, dict[str, Any]]] = []
    for entry in _read_document(folder)["heads"]:
        try:
            head = build_model(entry["model"])
            head.load_state_dict(read_tensors(folder / "heads" / f"{entry['name']}.safetensors")[0])
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise UsageError(
                f"the head {entry['name']} cannot be read: {error}", path=folder, remedy="train it again"
            ) from error
        found.append((head.eval(), {k: v for k, v in entry.items() if k != "model"}))
    return found


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / "heads.json"
    if not path.is_file():
        return {"schema": SCHEMA, "heads": []}
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"cannot be read as JSON: {error}", path=path) from error
    if document.get("schema") != SCHEMA or not isinstance(document.get("heads"), list):
        raise UsageError(f"is not of the schema {SCHEMA}", path=path, remedy="train the heads again")
    return document
