"""Bags: the tile embeddings of slides, and the table that says what is known of each slide and its patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.tables import Table, class_name, key, read_table, slide_names

Task = Literal["binary", "multiclass", "survival"]
SLIDE_COLUMNS = ("slide_id", "slide", "filename")
PATIENT_COLUMNS = ("patient_id", "patient", "case_id", "case")
SITE_COLUMNS = ("site", "site_id", "hospital", "centre", "center", "institution")
EVENT = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Bag:
    """One slide: its name, the HDF5 file that holds its embeddings, and the slide's own name where the file says it."""

    name: str
    path: Path
    slide: str = ""

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
    """A slide with its patient and what is to be predicted: a class, or a time (in the table's unit) and an event.

    `site` is where it comes from; empty where the table does not say. `covariates` are numbers in the table's order.
    """

    bag: Bag
    patient: str
    label: int = 0
    time: float = 0.0
    event: bool = False
    site: str = ""
    covariates: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelTable:
    """Slides that have both embeddings and a label.

    Attributes
    ----------
    task, classes
        Classes in the order of the logits; empty for survival.
    without_label, without_features : int
        Slides left out.
    warnings : tuple of str
        What a person should look at.
    covariates : tuple of str
        Names of the slides' covariates.
    """

    slides: tuple[LabelledSlide, ...]
    task: Task
    classes: tuple[str, ...]
    without_label: int
    without_features: int
    warnings: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()

    def sites(self) -> dict[str, dict[str, int]] | None:
        """Slides and patients of each site; None where the table has no column of sites."""
        names = sorted({s.site for s in self.slides})
        if names in ([], [""]):
            return None
        inside = {name: [s for s in self.slides if s.site == name] for name in names}
        return {
            name or "not stated": {"slides": len(rows), "patients": len({s.patient for s in rows})}
            for name, rows in inside.items()
        }

    def encoders(self) -> list[str]:
        """What made the embeddings, each once; of the files that say so."""
        return sorted({s.bag.encoder for s in self.slides} - {""})

    def counts(self) -> dict[str, dict[str, int]]:
        """Slides and patients of each class; of a survival task those with and without an event."""
        names = self.classes or ("censored", "event")
        found: dict[str, dict[str, int]] = {}
        for place, name in enumerate(names):
            inside = [s for s in self.slides if (s.label if self.classes else int(s.event)) == place]
            found[name] = {"slides": len(inside), "patients": len({s.patient for s in inside})}
        return found


def find_bags(folder: Path) -> dict[str, Bag]:
    """Name -> bag, of a folder of results (NAME/tiles.h5), or of CLAM or TRIDENT files (NAME.h5).

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
        found[name] = Bag(name, path, _slide_of(path))
    if not found:
        raise UsageError("holds no .h5 files", path=folder, remedy="name a folder of results or of CLAM features")
    return found


def _slide_of(path: Path) -> str:
    """The slide's name as results of `batch` and files of TRIDENT state it; empty where there is none."""
    import h5py

    try:
        with h5py.File(path) as file:
            name = file["coords"].attrs.get("name", "")
    except (OSError, KeyError):
        return ""  # `Bag.embeddings` says what is wrong, where the slide is needed
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


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
    covariates: Sequence[str] = (),
) -> LabelTable:
    """Join a table with the bags, by the names of their files, of their folders, or of their slides.

    Parameters
    ----------
    label : str
        Column of the class. Ignored where `time` and `event` are given: then the task is survival.
    classes : sequence of str
        Order of the classes, for two: negative, positive. By default sorted.
    covariates : sequence of str
        Columns of numbers that join a survival model; a slide without one of them counts as without a label.

    Raises
    ------
    DataError
        No patient column, a slide twice, a time or event that is none, fewer than two classes, or nothing to join.
    """
    table = read_table(path, error=DataError)
    slide = table.column(*([slide_column] if slide_column else SLIDE_COLUMNS), what="slides")
    patient = table.column(*([patient_column] if patient_column else PATIENT_COLUMNS), what="patients")
    site = next((table.column(name) for name in SITE_COLUMNS if table.has(name)), None)
    survival = bool(time or event)
    needed = [table.column(name) for name in (*((time, event) if survival else (label,)), *covariates)]
    known = [i for i, row in enumerate(table.rows) if all(row[c] for c in needed)]
    warnings: list[str] = []
    chosen: dict[int, str] = {}
    order: tuple[str, ...] = ()
    if not survival:
        order, chosen, warnings = _classes(table, known, needed[0], tuple(map(class_name, classes)))
    find = _finder(bags, table)
    slides: list[LabelledSlide] = []
    lines: dict[str, int] = {}
    taken: dict[str, str] = {}
    for i in known:
        row, line = table.rows[i], table.lines[i]
        name = row[slide]
        if not name:
            raise table.refuse(f"line {line} names no slide", "name it, or remove the line")
        if not row[patient]:
            raise table.refuse(f"the slide {name} has no patient", "folds are by patient")
        if name in lines:
            raise table.refuse(f"the slide {name} comes twice (lines {lines[name]} and {line})", "keep one of them")
        lines[name] = line
        bag = find(name)
        if bag is None:
            continue
        if bag.name in taken:
            raise table.refuse(
                f"the slide {bag.name} comes twice, as {taken[bag.name]} and {name}", "keep one of its lines"
            )
        taken[bag.name] = name
        who = class_name(row[patient])
        where = class_name(row[site]) if site is not None and row[site] else ""
        if survival:
            beside = tuple(table.number(i, name) for name in covariates)
            slides.append(LabelledSlide(bag, who, 0, _time(table, i, time), _event(table, i, needed[1]), where, beside))
        else:
            slides.append(LabelledSlide(bag, who, order.index(chosen[i]), site=where))
    if not slides:
        example = next((b.slide or b.name for b in bags.values()), "")
        raise table.refuse(
            f"no slide of the table has features (the table has {next(iter(lines), 'none')!r}, the folder {example!r})",
            "name slides as their files of features, their result folders, or the slides themselves are called",
        )
    task: Task = "survival" if survival else "binary" if len(order) == 2 else "multiclass"
    return LabelTable(
        tuple(slides), task, order, len(table.rows) - len(known), len(lines) - len(slides), tuple(warnings),
        tuple(covariates),
    )  # fmt: skip


def _classes(
    table: Table, known: list[int], column: str, stated: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[int, str], list[str]]:
    """The order of the classes, the class of each row, and warnings; spellings that differ by case alone are one class.

    Of several spellings the stated one is taken, else the most frequent one.
    """
    spelt = {i: class_name(table.rows[i][column]) for i in known}
    frequent = sorted(Counter(spelt.values()).items(), key=lambda pair: (-pair[1], pair[0]))
    merged: dict[str, str] = {}
    for name, _ in frequent:
        same = [c for c in (*stated, *merged.values()) if c.casefold() == name.casefold()]
        merged[name] = name if name in stated or not same else same[0]
    warnings = [
        f"the class {name} is taken as {kept}: they differ by case alone"
        for name, kept in sorted(merged.items())
        if name != kept
    ]
    names = sorted(set(merged.values()))
    order = stated or tuple(names)
    if len(order) < 2 or len(set(order)) < len(order) or set(names) - set(order):
        raise table.refuse(
            f"the column {column} holds the classes {', '.join(map(repr, names[:6])) or 'none'}",
            "name two or more that hold them all: --classes A,B",
        )
    return order, {i: merged[name] for i, name in spelt.items()}, warnings


def _finder(bags: dict[str, Bag], table: Table) -> Callable[[str], Bag | None]:
    """A function from a slide's name in the table to its bag.

    The names of files and folders come first; then those of the slides, which two results (of two slides, or of one
    that was scored twice) may share: that is refused where the table asks for them.
    """
    by_slide: dict[str, list[Bag]] = {}
    for bag in bags.values():
        for name in slide_names(bag.slide) if bag.slide else ():
            by_slide.setdefault(name, []).append(bag)

    def find(name: str) -> Bag | None:
        for candidate in (*slide_names(name), Path(name).stem):
            if candidate in bags:
                return bags[candidate]
            found = by_slide.get(candidate, [])
            if len(found) > 1:
                raise table.refuse(
                    f"{len(found)} results are of a slide called {name}: {', '.join(b.name for b in found[:3])}",
                    "name the result's folder in the table instead",
                )
            if found:
                return found[0]
        return None

    return find


def _time(table: Table, row: int, column: str) -> float:
    value = table.number(row, column)
    if value < 0:
        raise table.refuse(f"line {table.lines[row]}: the time {value:g} is below 0", "use a number >= 0")
    return value


def _event(table: Table, row: int, column: str) -> bool:
    value = class_name(table.rows[row][key(column)]).lower()
    if value not in EVENT:
        raise table.refuse(f"line {table.lines[row]}: the event {value!r} is none", "use 1 or 0")
    return EVENT[value]
