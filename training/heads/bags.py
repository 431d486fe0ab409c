"""Bags: the tile embeddings of slides, and the table that says what is known of each slide and its patient."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, UsageError

Task = Literal["binary", "multiclass", "survival"]
SLIDE_COLUMNS = ("slide_id", "slide", "filename")
PATIENT_COLUMNS = ("patient_id", "patient", "case_id", "case")
NOT_KNOWN = ("", "na", "nan", "none", "null", "unknown")
EVENT = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Bag:
    """One slide: its name, and the HDF5 file that holds its embeddings."""

    name: str
    path: Path

    def embeddings(self) -> NDArray[np.float32]:
        """float32 [N, D].

        Raises
        ------
        DataError
            The file cannot be read, is empty, or holds values that are not finite.
        """
        import h5py

        try:
            with h5py.File(self.path) as file:
                values = np.asarray(file["features"], np.float32)
        except (OSError, KeyError) as error:
            raise DataError(f"holds no features: {error}", path=self.path, remedy="extract them again") from error
        if values.ndim == 3 and len(values) == 1:
            values = values[0]
        if values.ndim != 2 or not len(values):
            raise DataError(f"features of shape {values.shape} are not [N, D]", path=self.path)
        if not np.isfinite(values).all():
            raise DataError("features hold NaN or infinite values", path=self.path, remedy="extract them again")
        return values

    @property
    def encoder(self) -> str:
        """What made the embeddings, where the file says so."""
        import h5py

        with h5py.File(self.path) as file:
            return str(file["features"].attrs.get("encoder", ""))


@dataclass(frozen=True)
class LabelledSlide:
    """A slide with its patient and what is to be predicted: a class, or a time (in the table's unit) and an event."""

    bag: Bag
    patient: str
    label: int = 0
    time: float = 0.0
    event: bool = False


@dataclass(frozen=True)
class LabelTable:
    """Slides that have both embeddings and a label.

    Attributes
    ----------
    task, classes
        Classes in the order of the logits; empty for survival.
    without_label, without_features : int
        Slides left out.
    """

    slides: tuple[LabelledSlide, ...]
    task: Task
    classes: tuple[str, ...]
    without_label: int
    without_features: int


def find_bags(folder: Path) -> dict[str, Bag]:
    """Slide name -> bag, of a folder of results (NAME/tiles.h5), or of CLAM or TRIDENT files (NAME.h5).

    Raises
    ------
    UsageError
        None is found.
    DataError
        Two files of one name.
    """
    found: dict[str, Bag] = {}
    for path in sorted(folder.rglob("*.h5")):
        name = path.parent.name if path.name == "tiles.h5" else path.stem
        if name in found:
            raise DataError(f"the slide {name} comes twice", path=path, remedy="keep one of its files")
        found[name] = Bag(name, path)
    if not found:
        raise UsageError("holds no .h5 files", path=folder, remedy="name a folder of results or of CLAM features")
    return found


def read_labels(
    path: Path,
    bags: dict[str, Bag],
    *,
    label: str = "label",
    time: str = "",
    event: str = "",
    classes: Sequence[str] = (),
    slide_column: str = "",
    patient_column: str = "",
) -> LabelTable:
    """Join a CSV table with the bags.

    Parameters
    ----------
    label : str
        Column of the class. Ignored where `time` and `event` are given: then the task is survival.
    classes : sequence of str
        Order of the classes, for two: negative, positive. By default sorted.

    Raises
    ------
    DataError
        No patient column, a slide twice, a time or event that is none, fewer than two classes, or nothing to join.
    """
    rows, columns = _rows(path)
    slide_column = _column(columns, slide_column, SLIDE_COLUMNS, "slides", path)
    patient_column = _column(columns, patient_column, PATIENT_COLUMNS, "patients", path)
    survival = bool(time or event)
    needed = (time, event) if survival else (label,)
    for name in needed:
        if name not in columns:
            raise DataError(f"has no column {name!r}", path=path, remedy="columns: " + ", ".join(columns))
    known = [r for r in rows if all(r[c].strip().lower() not in NOT_KNOWN for c in needed)]
    names = sorted({r[label].strip() for r in known}) if not survival else []
    order = tuple(classes) or tuple(names)
    if not survival and (len(order) < 2 or set(names) - set(order)):
        raise DataError(
            f"the column {label} holds the classes {names[:6]}", path=path, remedy="name two or more: --classes A,B"
        )
    slides: list[LabelledSlide] = []
    seen: set[str] = set()
    for row in known:
        name, patient = row[slide_column].strip(), row[patient_column].strip()
        if patient.lower() in NOT_KNOWN:
            raise DataError(f"the slide {name} has no patient", path=path, remedy="folds are by patient")
        if name in seen:
            raise DataError(f"the slide {name} comes twice", path=path, remedy="keep one of its lines")
        seen.add(name)
        bag = bags.get(name) or bags.get(Path(name).stem)
        if bag is None:
            continue
        if survival:
            slides.append(LabelledSlide(bag, patient, 0, _time(row, time, name, path), _event(row, event, name, path)))
        else:
            slides.append(LabelledSlide(bag, patient, order.index(row[label].strip())))
    if not slides:
        raise DataError(
            f"no slide of the table has features (the table has {sorted(seen)[:1]}, the folder {sorted(bags)[:1]})",
            path=path,
            remedy="slide names must equal the names of the feature files or result folders",
        )
    task: Task = "survival" if survival else "binary" if len(order) == 2 else "multiclass"
    return LabelTable(tuple(slides), task, () if survival else order, len(rows) - len(known), len(seen) - len(slides))


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [{k: v or "" for k, v in row.items() if k} for row in reader]
            columns = [c for c in reader.fieldnames or [] if c]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read as CSV: {error}", path=path) from error
    if not rows:
        raise DataError("holds no lines", path=path)
    return rows, columns


def _column(columns: list[str], asked: str, usual: tuple[str, ...], what: str, path: Path) -> str:
    for name in (asked,) if asked else usual:
        if name in columns:
            return name
    raise DataError(
        f"no column names the {what}", path=path, remedy=f"add one called {asked or usual[0]}; folds are by patient"
    )


def _time(row: dict[str, Any], column: str, name: str, path: Path) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value < 0:
        raise DataError(f"the time {row[column]!r} of the slide {name} is none", path=path, remedy="use a number >= 0")
    return value


def _event(row: dict[str, Any], column: str, name: str, path: Path) -> bool:
    value = row[column].strip().lower()
    if value not in EVENT:
        raise DataError(f"the event {row[column]!r} of the slide {name} is none", path=path, remedy="use 1 or 0")
    return EVENT[value]
