"""`train-head`: a slide-level head from tile embeddings and a table of labels, and how far it can be trusted.

Patients, never slides, are split. Each fold trains on some patients, stops on others, and predicts the rest; the
temperature, the threshold and the abstention band come from those held-out predictions. The head that is kept is
trained on all slides, for as many epochs as the folds needed.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stamp_deploy.atomic import disk_errors, write_json_atomic
from stamp_deploy.errors import DataError, UsageError

from ..model.checkpoint import read_tensors, write_tensors
from .abmil import GatedABMIL, hazard_loss
from .bags import LabelledSlide, LabelTable
from .calibration import Slides, calibrated_entry
from .config import HeadConfig

SCHEMA = "stamp-deploy/heads/1"


def train_head(
    table: LabelTable, out: Path, config: HeadConfig, say: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """Train, calibrate and write one head into the folder `out` (heads/NAME.safetensors and heads.json).

    A folder with other heads keeps them; a head of the same name is replaced.

    Returns
    -------
    dict
        The head's entry in heads.json.

    Raises
    ------
    DataError
        Too few patients for the folds, embeddings of different lengths, a class in too few patients.
    """
    slides = _load(table, config)
    dim, outputs = slides.bags[0].shape[1], config.bins if table.task == "survival" else len(table.classes)
    folds = patient_folds(table.slides, table.task, config.folds, config.seed)
    raw = np.zeros((len(slides.bags), outputs))
    epochs = []
    for number, test in enumerate(folds):
        rest = np.setdiff1d(np.arange(len(slides.bags)), test)
        stop = _stopping_rows(table, rest, config, number)
        learn = np.setdiff1d(rest, stop)
        head, best = _fit(slides, learn, stop, table.task, dim, outputs, config, number)
        raw[test] = _predict(head, slides, test)
        epochs.append(best)
        say(f"fold {number + 1} of {len(folds)}: {len(learn)} slides, best epoch {best}")
    everything = np.arange(len(slides.bags))
    final, _ = _fit(
        slides, everything, everything[:0], table.task, dim, outputs,
        config.with_(epochs=max(1, round(float(np.median(epochs))))), config.folds,
    )  # fmt: skip
    entry = calibrated_entry(table, slides, raw, config) | {
        "model": {
            "dim": dim, "outputs": outputs, "hidden": config.hidden, "attention": config.attention,
            "survival": table.task == "survival",
        }
    }  # fmt: skip
    entry["details"]["best_epochs"] = epochs
    encoders = sorted({s.bag.encoder for s in table.slides} - {""})
    if len(encoders) > 1:
        raise DataError(f"the features are of several encoders: {', '.join(encoders)}", remedy="extract them with one")
    entry["details"]["encoder"] = encoders[0] if encoders else ""
    with disk_errors(out):
        (out / "heads").mkdir(parents=True, exist_ok=True)
        write_tensors(out / "heads" / f"{config.name}.safetensors", dict(final.state_dict()))
        document = _read_document(out)
        document["heads"] = [h for h in document["heads"] if h["name"] != config.name] + [entry]
        write_json_atomic(out / "heads.json", document)
    return entry


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
        shape = dict(entry["model"])
        head = GatedABMIL(
            shape["dim"], shape["outputs"], hidden=shape["hidden"], attention=shape["attention"],
            survival=shape["survival"],
        )  # fmt: skip
        try:
            head.load_state_dict(read_tensors(folder / "heads" / f"{entry['name']}.safetensors")[0])
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"the head {entry['name']} cannot be read: {error}", path=folder, remedy="train it again"
            ) from error
        found.append((head.eval(), {k: v for k, v in entry.items() if k != "model"}))
    return found


def patient_folds(slides: Sequence[LabelledSlide], task: str, folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Rows of each fold: whole patients, classes (or events) spread evenly.

    Raises
    ------
    DataError
        Fewer patients than folds, or a class in a single patient.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.array([s.patient for s in slides])
    strata = np.array([int(s.event) if task == "survival" else s.label for s in slides])
    count = len(np.unique(patients))
    if count < folds:
        raise DataError(f"{count} patients are too few for {folds} folds", remedy="use fewer: --folds")
    for stratum in np.unique(strata):
        if len(np.unique(patients[strata == stratum])) < 2:
            raise DataError("a class occurs in one patient only", remedy="merge it with another, or add patients")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(np.zeros(len(slides)), strata, patients)]


def _load(table: LabelTable, config: HeadConfig) -> Slides:
    bags = [torch.from_numpy(s.bag.embeddings()) for s in table.slides]
    sizes = {b.shape[1] for b in bags}
    if len(sizes) > 1:
        raise DataError(f"embeddings of several lengths: {sorted(sizes)}", remedy="extract all slides with one model")
    time, event = np.array([s.time for s in table.slides]), np.array([s.event for s in table.slides])
    edges, bin_index = np.zeros(0), np.zeros(len(bags), np.int64)
    if table.task == "survival":
        if event.sum() < config.bins:
            raise DataError(f"{int(event.sum())} events are too few for {config.bins} time bins", remedy="--bins 2")
        edges = np.unique(np.quantile(time[event], np.linspace(0, 1, config.bins + 1)[1:-1]))
        bin_index = np.searchsorted(edges, time, side="right").astype(np.int64)
    label = np.array([s.label for s in table.slides], np.int64)
    return Slides(bags, label, time, event, [s.patient for s in table.slides], bin_index, edges)


def _stopping_rows(table: LabelTable, rows: NDArray[np.intp], config: HeadConfig, number: int) -> NDArray[np.intp]:
    """A fifth of the patients of a fold's training part, or none where they are too few to split."""
    inside = [table.slides[i] for i in rows]
    try:
        parts = patient_folds(inside, table.task, 5, config.seed + 1 + number)
    except (DataError, ValueError):
        return rows[:0]
    return rows[parts[0]]


def _fit(
    slides: Slides,
    learn: NDArray[np.intp],
    stop: NDArray[np.intp],
    task: str,
    dim: int,
    outputs: int,
    config: HeadConfig,
    number: int,
) -> tuple[GatedABMIL, int]:
    """A trained head and its best epoch (the last where nothing stops)."""
    torch.manual_seed(config.seed * 1000 + number)
    rng = np.random.default_rng([config.seed, number])
    head = GatedABMIL(
        dim, outputs, hidden=config.hidden, attention=config.attention, dropout=config.dropout,
        survival=task == "survival",
    )  # fmt: skip
    _standardise(head, [slides.bags[i] for i in learn])
    optimiser = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=config.weight_decay)
    weights = _class_weights(slides.label[learn], outputs) if task != "survival" else None
    best, best_state, best_epoch = float("inf"), OrderedDict(head.state_dict()), config.epochs
    for epoch in range(1, config.epochs + 1):
        head.train()
        for part in np.array_split(rng.permutation(learn), max(1, len(learn) // config.bags_a_step)):
            raw = torch.stack([head.bag(_draw(slides.bags[i], config.max_tiles, rng))[0] for i in part])
            optimiser.zero_grad()
            _loss(raw, slides, part, task, weights).backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
        if not len(stop):
            continue
        raw = torch.from_numpy(_predict(head, slides, stop))
        value = float(_loss(raw, slides, stop, task, None))
        if value < best:
            best, best_epoch = value, epoch
            best_state = OrderedDict((k, v.clone()) for k, v in head.state_dict().items())
        elif epoch - best_epoch >= config.patience:
            break
    if len(stop):
        head.load_state_dict(best_state)
    return head.eval(), best_epoch


def _standardise(head: GatedABMIL, bags: Sequence[Tensor]) -> None:
    """Mean and 1 / sd of the embeddings, each slide counting the same."""
    mean = torch.stack([b.mean(0) for b in bags]).mean(0)
    square = torch.stack([((b - mean) ** 2).mean(0) for b in bags]).mean(0)
    head.mean.copy_(mean)
    head.scale.copy_(torch.where(square > 1e-12, square, torch.ones_like(square)).rsqrt())


def _class_weights(label: NDArray[np.int64], classes: int) -> Tensor:
    """1 / frequency, mean 1 over the slides; the temperature and threshold come from plain held-out predictions."""
    count = np.bincount(label, minlength=classes).astype(float)
    weight = np.where(count > 0, len(label) / (np.count_nonzero(count) * np.maximum(count, 1)), 0.0)
    return torch.from_numpy(weight.astype(np.float32))


def _draw(bag: Tensor, limit: int, rng: np.random.Generator) -> Tensor:
    return bag if len(bag) <= limit else bag[torch.from_numpy(rng.choice(len(bag), limit, replace=False))]


def _loss(raw: Tensor, slides: Slides, rows: NDArray[np.intp], task: str, weights: Tensor | None) -> Tensor:
    if task == "survival":
        return hazard_loss(raw, torch.from_numpy(slides.bin_index[rows]), torch.from_numpy(slides.event[rows]))
    weights = weights.to(raw.dtype) if weights is not None else None
    return nn.functional.cross_entropy(raw, torch.from_numpy(slides.label[rows]), weights)


@torch.inference_mode()
def _predict(head: GatedABMIL, slides: Slides, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Raw outputs [M, C] of whole slides."""
    head.eval()
    return np.stack([head.bag(slides.bags[i])[0].double().numpy() for i in rows])


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
