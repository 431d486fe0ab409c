"""The summary of an output folder: OUT/summary/ with tables, heat map and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..atomic import write_files_atomic
from .heat_map import draw_heat_map
from .matrix import make_matrix
from .page import render_page
from .slide_record import Results, Unread, read_results
from .tables import (
    CALL_COLUMNS,
    CASE_COLUMNS,
    FIGURE_COLUMNS,
    TEXT_COLUMNS,
    Row,
    call_rows,
    case_rows,
    columns_of,
    figure_rows,
    parquet_bytes,
    pathway_rows,
    to_arrow,
    to_csv,
)
from .thumbnails import Thumbnails

SUMMARY_FOLDER = "summary"


@dataclass(frozen=True)
class Written:
    """What was written: the folder, its files, how many slides and cases, and results that could not be read."""

    folder: Path
    files: tuple[Path, ...]
    slides: int
    cases: int
    unread: tuple[Unread, ...]


def write_summary(
    out: Path,
    folder: Path | None = None,
    cases: Mapping[str, str] | None = None,
    *,
    thumbnails: Thumbnails | None = None,
) -> Written:
    """Write the summary of all finished results of an output folder.

    Parameters
    ----------
    out : Path
        Folder of a batch.
    folder : Path, optional
        Where to write; OUT/summary by default. The files are put in place when all of them are on the disk, index.html
        last.
    cases : mapping of str to str, optional
        Name of a slide's file -> its case.
    thumbnails : Thumbnails, optional
        Those of the last summary, where the same process writes one after another.

    Raises
    ------
    UsageError
        There is nothing to summarise, or the results are of different bundles.
    DiskError
        The folder cannot be written.
    """
    target = out / SUMMARY_FOLDER if folder is None else folder
    results = read_results(out, cases)
    matrix = make_matrix(results)
    heat_map = draw_heat_map(matrix, results)
    contents = {**_tables(results), "heatmap.png": heat_map}
    contents["index.html"] = render_page(results, matrix, heat_map, target, thumbnails).encode()
    write_files_atomic(target, contents)
    in_cases = {slide.case_id for slide in results.slides if slide.case_id}
    files = tuple(target / name for name in contents)
    return Written(target, files, len(results.slides), len(in_cases), results.unread)


def _tables(results: Results) -> dict[str, bytes]:
    """File name -> content of each table, as CSV and Parquet."""
    tables: dict[str, tuple[list[Row], list[str]]] = {
        "pathways": (pathway_rows(results), []),
        "figures": (figure_rows(results), FIGURE_COLUMNS),
        "calls": (call_rows(results), CALL_COLUMNS),
        "cases": (case_rows(results), [*CASE_COLUMNS, *(f"pathway.{name}" for name in results.pathway_names)]),
    }
    contents = {}
    for name, (rows, otherwise) in tables.items():
        columns = columns_of(rows, otherwise)
        contents[f"{name}.csv"] = to_csv(rows, columns)
        contents[f"{name}.parquet"] = parquet_bytes(to_arrow(rows, columns, TEXT_COLUMNS))
    return contents
