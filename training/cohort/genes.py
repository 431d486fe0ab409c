"""Gene names: identifiers to symbols, control probes out, duplicates summed, with a report of what was done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from stamp_deploy.errors import DataError
from stamp_deploy.tables import read_lines

_ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{11}(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_CONTROL = re.compile(
    "|".join(
        (
            r"neg(ative)?[ _-]?(control|ctrl|prb|prob)",
            r"(unassigned|deprecated)[ _-]?codeword",
            r"(blank|antisense|intergenic|deprecated)[_-]",
            r"(genomic|system)[ _-]?control",
            r"false[ _-]?code",
            r"ercc[_-]\d",
            r"__(ambiguous|no_feature|alignment_not_unique|not_aligned|too_low)",
        )
    ),
    re.IGNORECASE,
)

_MONTHS = "Jan Feb Mar Mär Mrz Apr May Mai Jun Jul Aug Sep Sept Oct Okt Nov Dec Dez"
_MONTH = "|".join(_MONTHS.split() + _MONTHS.lower().split())  # never capitals: JUN-1 is a repeat of the gene JUN
_DATE = re.compile(
    rf"(\d{{1,2}}[-./ ]{{1,2}}({_MONTH})\.?([-./ ]\d{{2,4}})?"  # 1-Mar, 01. Mrz, 1-Mar-01
    rf"|({_MONTH})[-./ ]\d{{1,4}}([-./ ]\d{{2,4}})?"  # Mar-01
    r"|\d{4}-\d{2}-\d{2}( 00:00:00)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}"  # 2022-03-01, 3/1/2022
    r"|\d([.,]\d+)?[eE]\+?\d+)(-\d)?"  # 2.31E+13; -1: numbered as a repeat
)
_NUMBERED = re.compile(r"(.+)[-.]\d{1,2}")


@dataclass(frozen=True)
class GeneReport:
    """What became of the gene names of a sample, in numbers of names.

    Attributes
    ----------
    given : int
        Names in the file.
    controls : int
        Control probes and counters that are no genes: dropped.
    translated : int
        Ensembl identifiers or aliases replaced by symbols.
    unknown : int
        Identifiers without a symbol: dropped.
    merged : int
        Names that were summed into another of the same symbol.
    genes : int
        Symbols that are left.
    numbered : int
        Of the merged, those that a program had told apart by a number (GENE-1 beside GENE).
    dates : tuple of str
        Names that Excel turned into dates or numbers (1-Mar): dropped.
    """

    given: int
    controls: int
    translated: int
    unknown: int
    merged: int
    genes: int
    numbered: int = 0
    dates: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is rare stands there where it occurs."""
        found = {"numbered": self.numbered, "dates": list(self.dates)}
        plain = {k: v for k, v in asdict(self).items() if k not in found}
        return plain | {k: v for k, v in found.items() if v}

    def warnings(self) -> Iterator[str]:
        """What a person should look at."""
        if self.dates:
            yield (
                f"{len(self.dates)} gene names were turned into dates or numbers by Excel (such as {self.dates[0]}): "
                "left out; take the names from the original files, or state identifiers and a gene_table"
            )
        if self.numbered:
            yield f"{self.numbered} genes numbered as repeats (such as GENE-1 beside GENE) were summed into their gene"


def harmonise(
    counts: Any, names: Sequence[str], ids: Sequence[str] | None = None, table: Mapping[str, str] | None = None
) -> tuple[sparse.csr_array, tuple[str, ...], GeneReport]:
    """Counts under gene symbols.

    A name is looked up in `table` (identifiers without their version, or aliases); an Ensembl identifier among `names`
    that the table does not know is dropped, every other name is kept as it is.

    Parameters
    ----------
    counts : array [N, G]
    names : sequence of str, G
        Symbols or Ensembl identifiers.
    ids : sequence of str, optional
        The file's own identifiers beside the names: looked up in the table first, and recognise control probes.
    table : mapping, optional
        Identifier or alias -> symbol.

    Returns
    -------
    counts : CSR array [N, genes]
        Columns of the same symbol summed, in order of first appearance.
    symbols : tuple of str
    report : GeneReport

    Raises
    ------
    DataError
        No gene is left.
    """
    table = table or {}
    symbols: list[str | None] = []
    controls = translated = unknown = 0
    dates: list[str] = []
    for i, given in enumerate(names):
        name = str(given).strip()
        identifier = str(ids[i]).strip() if ids is not None else ""
        if is_control(name) or is_control(identifier):
            controls += 1
            symbols.append(None)
            continue
        symbol = table.get(without_version(identifier)) or table.get(without_version(name))
        if symbol is not None:
            translated += symbol != name
        elif not name or is_ensembl(name):
            unknown += 1
        elif is_date(name):
            dates.append(name)
        else:
            symbol = name
        symbols.append(symbol)
    numbered = _merge_numbered(symbols)
    place: dict[str, int] = {}
    for symbol in symbols:
        if symbol is not None:
            place.setdefault(symbol, len(place))
    kept = np.array([i for i, s in enumerate(symbols) if s is not None], np.int64)
    report = GeneReport(
        len(names), controls, translated, unknown, len(kept) - len(place), len(place), numbered, tuple(dates)
    )
    if not place:
        raise DataError(
            f"none of the {len(names)} gene names has a symbol ({unknown} unknown identifiers, {controls} controls)",
            remedy='name a table of identifiers and symbols: gene_table = "FILE.tsv"',
        )
    columns = np.array([place[s] for s in symbols if s is not None], np.int64)
    summing = sparse.csr_array((np.ones(len(kept), np.float32), (kept, columns)), shape=(len(names), len(place)))
    summed = sparse.csr_array(sparse.csr_array(counts).astype(np.float32) @ summing)
    summed.sort_indices()
    return summed, tuple(place), report


def _merge_numbered(symbols: list[str | None]) -> int:
    """Give GENE-1 and GENE.1 the symbol GENE where that is a gene too; how many there were.

    AnnData and R number repeated names so; symbols of their own that end alike (NKX2-1) have no gene without the end.
    """
    known = {s for s in symbols if s}
    merged = 0
    for i, symbol in enumerate(symbols):
        match = _NUMBERED.fullmatch(symbol or "")
        if match and match[1] in known:
            symbols[i] = match[1]
            merged += 1
    return merged


def is_date(name: str) -> bool:
    """Whether a gene's name has become a date or a number in Excel: 1-Mar, Sep-02, 2022-03-01, 2.31E+13."""
    return bool(_DATE.fullmatch(name))


def is_control(name: str) -> bool:
    """Whether a feature is a control probe or a counter, not a gene."""
    return bool(_CONTROL.match(name))


def is_ensembl(name: str) -> bool:
    """Whether a name is an Ensembl gene identifier, with or without version."""
    return bool(_ENSEMBL.fullmatch(name))


def without_version(name: str) -> str:
    """ENSG00000141510.18 -> ENSG00000141510; other names as they are."""
    return name.split(".")[0].upper() if is_ensembl(name) else name


def looks_like_mouse(symbols: Sequence[str]) -> bool:
    """Whether most symbols are written as mouse genes are (Trp53), not as human ones (TP53)."""
    words = [s for s in symbols if s[:1].isalpha() and len(s) > 2][:2000]
    titled = sum(s[0].isupper() and s[1:].lower() == s[1:] and any(c.isalpha() for c in s[1:]) for s in words)
    return bool(words) and titled > 0.6 * len(words)


def read_gene_table(path: Path) -> dict[str, str]:
    """Read a table of identifiers and symbols.

    Tab or comma separated; the first column is what is looked up, the second its symbol. A header is
    recognised by its first field (gene_id, ensembl, alias and the like) and left out. Gzip is accepted.

    Raises
    ------
    DataError
        No line has two columns, or an identifier has two symbols.
    """
    table: dict[str, str] = {}
    for number, (line, row) in enumerate(read_lines(path, error=DataError), 1):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            continue
        key, symbol = without_version(row[0].strip()), row[1].strip()
        if number == 1 and re.match(r"(#|gene|ensembl|id\b|alias|name|symbol|stable)", key, re.IGNORECASE):
            continue
        if table.setdefault(key, symbol) != symbol:
            raise DataError(f"line {line}: {key} has two symbols, {table[key]} and {symbol}", path=path)
    if not table:
        raise DataError("holds no pair of identifier and symbol", path=path, remedy="two columns: identifier, symbol")
    return table
