"""What an output folder holds: one record per finished slide, and the case each slide belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..atomic import is_done
from ..errors import DataError, UsageError
from ..result_files import RECORD, read_record
from ..system.names import printable, shown_name
from ..trust import besides_verdict
from ..validation import Validation

NOT_JUDGED = "not judged"


@dataclass(frozen=True, eq=False)
class SlideRecord:
    """One finished slide.

    Attributes
    ----------
    folder : Path
        Its result folder.
    record : dict
        Its result.json.
    case_id : str
        The case it belongs to, as a slides sheet says; empty where none does. It is never taken out of a file name.
    """

    folder: Path
    record: dict[str, Any]
    case_id: str = ""

    @property
    def key(self) -> str:
        """Name of the result folder."""
        return shown_name(self.folder)

    @property
    def name(self) -> str:
        """Name of the slide's file."""
        return str(self.record["slide"]["name"])

    @property
    def verdict(self) -> str:
        """inside, doubtful, outside or not judged."""
        trust = self.record.get("trust")
        return NOT_JUDGED if trust is None else str(trust["verdict"])

    @property
    def reasons(self) -> list[str]:
        """What was seen, in words."""
        trust = self.record.get("trust")
        return [] if trust is None else [str(reason) for reason in trust["reasons"]]

    @property
    def warnings(self) -> list[str]:
        """What the result warns of besides the verdict, whose reasons are `reasons`."""
        said = [str(warning) for warning in self.record["warnings"]]
        return said if self.record.get("trust") is None else besides_verdict(said)

    @property
    def left_out_tiles(self) -> int:
        """Tiles that summaries leave out."""
        trust = self.record.get("trust")
        return 0 if trust is None else int(trust["left_out_tiles"])

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The summary of the whole slide; empty in results of schema version 1."""
        regions = self.record.get("summaries") or [{}]
        return dict(regions[0])

    @property
    def tissue_mm2(self) -> float | None:
        """Tissue that the summary counts."""
        return self.whole.get("tissue_mm2")

    @cached_property
    def means(self) -> dict[str, float]:
        """Mean of each pathway of the summarised read-out; empty where no tile counts."""
        return {name: float(row["mean"]) for name, row in self.record["pathways"]["summary"].items()}

    @property
    def unit(self) -> str:
        """Unit of the means."""
        pathways = self.record["pathways"]
        return str(pathways.get("summary_unit", pathways["unit"]))

    @cached_property
    def z(self) -> dict[str, float]:
        """Means on the scale that all slides share, for the pathways that have one."""
        rows = self.whole.get("pathways", {})
        return {name: float(row["mean_z"]) for name, row in rows.items() if row["mean_z"] is not None}

    @cached_property
    def validated(self) -> dict[str, bool]:
        """Which pathways the bundle validated; empty where no r of any was measured."""
        said = self.record.get("validation")
        facts = () if said is None else Validation.from_dict(said).pathways
        return {item.name: item.validated for item in facts} if any(item.r is not None for item in facts) else {}


@dataclass(frozen=True)
class Unread:
    """A result that could not be read, and why."""

    key: str
    cause: str


@dataclass(frozen=True, eq=False)
class Results:
    """The finished slides of an output folder, by case and name."""

    slides: tuple[SlideRecord, ...]
    unread: tuple[Unread, ...] = field(default_factory=tuple)

    @property
    def pathway_names(self) -> list[str]:
        """In the bundle's order."""
        return [str(name) for name in self.slides[0].record["pathways"]["names"]]


def read_results(out: Path, cases: Mapping[str, str] | None = None) -> Results:
    """Read every finished result of an output folder.

    Parameters
    ----------
    out : Path
        Folder of a batch, or any folder of result folders that hold the format json.
    cases : mapping of str to str, optional
        Name of a slide's file -> its case; outranks what the batch's slides sheet said.

    Raises
    ------
    UsageError
        There is no finished result, or they are of different bundles, which cannot be compared.
    """
    slides, unread = read_records(out, cases)
    if not slides:
        raise UsageError(
            "it holds no finished result with result.json",
            path=out,
            remedy="name the output folder of `stamp-deploy batch`, or score slides with it first",
        )
    bundles = {slide.record["bundle"]["sha256"] for slide in slides}
    if len(bundles) > 1:
        raise UsageError(
            f"its results are of {len(bundles)} bundles, whose scores cannot stand in one table",
            path=out,
            remedy="keep one folder per bundle; `stamp-deploy compare` sets two results of one slide side by side",
        )
    return Results(slides, unread)


def read_records(
    out: Path, cases: Mapping[str, str] | None = None
) -> tuple[tuple[SlideRecord, ...], tuple[Unread, ...]]:
    """The finished results of an output folder, of any bundles, by case and name; and those that cannot be read.

    Raises
    ------
    UsageError
        There is no such folder.
    """
    if not out.is_dir():
        raise UsageError("no such folder", path=out, remedy="name the output folder of a batch")
    of_batch = {row["key"]: row["case_id"] for row in batch_rows(out) if row["case_id"]}
    folders = sorted(path for path in out.iterdir() if path.is_dir() and is_done(path))
    found = [read_slide_record(folder, of_batch.get(folder.name, ""), cases) for folder in folders]
    slides = sorted((item for item in found if isinstance(item, SlideRecord)), key=_order)
    return tuple(slides), tuple(item for item in found if isinstance(item, Unread))


def read_slide_record(folder: Path, case_id: str = "", cases: Mapping[str, str] | None = None) -> SlideRecord | Unread:
    """The record of one finished result, or why it cannot be read; `cases` outranks `case_id`."""
    if not (folder / RECORD).is_file():
        return Unread(shown_name(folder), f"it holds no {RECORD}")
    try:
        record = read_record(folder / RECORD)
        made = SlideRecord(folder, record, case_id)
        made.name, made.means, made.z, made.verdict, made.validated  # noqa: B018 - a damaged record is told here
        int(record["tiles"]["ok"]), [head["value"] for head in record["heads"]], str(record["bundle"]["sha256"])
    except DataError as error:
        return Unread(shown_name(folder), error.cause)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Unread(shown_name(folder), f"its {RECORD} is damaged: {type(error).__name__}")
    case = (cases or {}).get(made.name, case_id)
    return SlideRecord(folder, record, printable(" ".join(case.split())))


def _order(slide: SlideRecord) -> tuple[bool, str, str, str]:
    return slide.case_id == "", slide.case_id, slide.name, slide.key


def batch_rows(out: Path) -> list[dict[str, str]]:
    """What the reports of the batches say of each slide: name, key, case_id, state, reason; a damaged report says
    nothing."""
    found = []
    for path in sorted(out.glob("batch*.json")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["slides"]
            wanted = ("name", "key", "case_id", "state", "reason")
            found += [{name: str(row.get(name) or "") for name in wanted} for row in rows]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found
