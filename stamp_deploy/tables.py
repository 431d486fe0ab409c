"""Tables as people write them (labels, manifests, positions): one reader for every separator and encoding.

Excel and pandas leave semicolons, byte order marks, UTF-16, `#N/A`, `1001.0` and trailing separators behind. All of
that is read; what is ambiguous or cut short is refused with the separator and the columns that were seen.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from .errors import StampError, UsageError
from .system.files import refuse_special

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MISSING = frozenset(
    {"", "na", "n/a", "n.a.", "<na>", "nan", "-nan", "nat", "none", "null", "unknown", "-", "--", "'--", "–", "—", "?"}
    | {".", "#n/a", "#n/a n/a", "#na", "#value!", "#ref!", "#div/0!", "#name?", "#null!", "#num!"}
    | {"not available", "not applicable", "[not available]", "[not applicable]", "[not evaluated]", "[unknown]"}
    | {"[discrepancy]"}
)
"""Cells, in lower case, that state nothing: spellings of Excel, pandas, R and of the archives of TCGA."""

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm"}
    | {".jp2", ".qptiff", ".afi", ".vsi", ".h5", ".hdf5", ".pt", ".npy", ".zarr"}
)
"""Endings of slides and of files of features: no part of a slide's name in a table."""

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_WHOLE = re.compile(r"([+-]?\d+)[.,]0*")
_SNIFFED_LINES = 50


@dataclass(frozen=True, eq=False)
class Table:
    """A table in memory.

    Attributes
    ----------
    path : Path
    columns : tuple of str
        As the file writes them.
    rows : list of dict
        Cells by `key` of their column, stripped; a cell that states nothing (see `MISSING`) is "".
    lines : list of int
        The line of the file that each row ends on, for messages.
    separator, encoding : str
    error : type
        What `column`, `number` and `refuse` raise.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]
    separator: str
    encoding: str
    error: type[StampError] = field(default=UsageError, repr=False)

    def has(self, name: str) -> bool:
        """Whether there is a column of that name; case, blanks and underscores do not matter."""
        return key(name) in map(key, self.columns)

    def column(self, *names: str, what: str = "") -> str:
        """The key of the first of these columns that exists.

        Raises
        ------
        StampError
            None exists, or it exists twice.
        """
        for name in map(key, names):
            count = sum(key(c) == name for c in self.columns)
            if count > 1:
                raise self.refuse(f"has {count} columns called {name!r}", "rename or remove one of them")
            if count:
                return name
        cause = f"no column names the {what}" if what else f"has no column {names[0]!r}"
        asked = f"call one of them {names[0]}" if what else "name one of them"
        raise self.refuse(f"{cause}; {self.seen}", asked)

    @property
    def seen(self) -> str:
        """The separator and the columns, for messages."""
        named = [repr(c) for c in self.columns if c]
        shown = ", ".join(named[:12] + ["..."] * (len(named) > 12))
        how = f"separated by the {SEPARATORS[self.separator]}" if len(self.columns) > 1 else "no separator was found"
        return f"columns seen ({how}): {shown}"

    def require(self, *names: str) -> None:
        """Refuse a table that lacks one of these columns."""
        for name in names:
            if not self.has(name):
                raise self.refuse(f"lacks the column {name}; {self.seen}", "export the table again")
            self.column(name)

    def number(self, row: int, column: str) -> float:
        """The number in a cell, with a decimal point or a decimal comma.

        Raises
        ------
        StampError
            The cell states nothing, or no finite number.
        """
        value = self.optional_number(row, column)
        if value is None:
            raise self.refuse(f"line {self.lines[row]}: {column} is empty, not a number", "state it, as 0.25")
        return value

    def optional_number(self, row: int, column: str) -> float | None:
        """As `number`, but None for a cell that states nothing."""
        text = self.rows[row][key(column)]
        if not text:
            return None
        value = parse_number(text, decimal_comma=self.separator != ",")
        if value is None:
            raise self.refuse(f"line {self.lines[row]}: {column} is {text!r}, not a number", "write it as 0.25")
        return value

    def refuse(self, cause: str, remedy: str = "") -> StampError:
        """An error that names this file."""
        return self.error(cause, remedy=remedy, path=self.path)


def read_table(path: Path, *, default_columns: Sequence[str] = (), error: type[StampError] = UsageError) -> Table:
    """Read a table with a header line; gzip is accepted.

    Separators are the comma, semicolon, tab and bar; encodings UTF-8 and UTF-16 with and without a byte order mark, and
    Windows-1252. Empty lines are left out.

    Parameters
    ----------
    default_columns : sequence of str
        The columns of a file without a header: used where the first line holds none of these names.
    error : type
        Raised for what cannot be read.

    Raises
    ------
    StampError
        Of the type `error`: the file cannot be read, is no table, has no rows, or a row has more cells than columns.
    """
    text, encoding = _read_text(path, error)
    lines, separator = _split(text, path, error)
    if not lines:
        raise error("holds no lines", path=path, remedy="the first line names the columns")
    header, first = [cell.strip() for cell in lines[0][1]], 1
    names = set(map(key, default_columns))
    if names and not names & set(map(key, header)):
        header, first = list(default_columns), 0
    table = Table(path, tuple(header), [], [], separator, encoding, error)
    keys = [key(name) for name in header]
    for line, cells in lines[first:]:
        while len(cells) > len(keys) and not cells[-1]:
            cells.pop()
        if len(cells) > len(keys):
            raise table.refuse(
                f"line {line} has {len(cells)} cells for {len(keys)} columns; {table.seen}",
                "put cells that hold the separator (such as 0,25) into double quotes",
            )
        if default_columns and first == 0 and len(cells) != len(keys):
            raise table.refuse(f"line {line} has {len(cells)} cells, not {len(keys)}", "export the table again")
        values = [_known(cell) for cell in cells] + [""] * (len(keys) - len(cells))
        if any(values):
            table.rows.append(dict(zip(keys, values, strict=True)))
            table.lines.append(line)
    if not table.rows:
        raise table.refuse(f"holds no lines below its header; {table.seen}", "add a line for each row")
    return table


def read_lines(path: Path, *, error: type[StampError] = UsageError) -> list[tuple[int, list[str]]]:
    """(line number, cells) of a table of which no header is known, as `read_table` reads it."""
    return _split(_read_text(path, error)[0], path, error)[0]


def key(name: str) -> str:
    """A column's name as it is looked up: "Slide ID" is slide_id."""
    return re.sub(r"[\s_-]+", "_", name.strip()).lower()


def parse_number(text: str, *, decimal_comma: bool = False) -> float | None:
    """0.25 and 0,25 as 0.25; None for what is no finite number.

    "1,234" may be a thousand: it is None unless `decimal_comma` says that commas are decimal (the cells are not
    separated by them).
    """
    if "," in text and "." not in text and (decimal_comma or not _THOUSANDS.fullmatch(text)):
        text = text.replace(",", ".", 1)
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") and "_" not in text else None


def class_name(text: str) -> str:
    """A class as it is compared: 1.0 (and 1,0) is 1."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def slide_names(text: str) -> tuple[str, ...]:
    """What a slide's file may be called that a table names so, the likeliest first.

    /data/1001.svs, 1001.h5, 1001.0 and C:\\\\slides\\\\1001.ndpi all lead to 1001.
    """
    name = PureWindowsPath(text.strip()).name  # takes both kinds of slashes
    found = [text.strip(), name]
    while (stem := PureWindowsPath(name)).suffix.lower() in SLIDE_SUFFIXES and stem.stem:
        name = stem.stem
        found.append(name)
    found.append(class_name(name))
    return tuple(dict.fromkeys(found))


def _known(cell: str) -> str:
    stripped = cell.strip().strip("\u200b\ufeff").strip()
    return "" if stripped.lower() in MISSING else stripped


def _read_text(path: Path, error: type[StampError]) -> tuple[str, str]:
    """The text of a file and its encoding."""
    refuse_special(path, error)
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(f"the table cannot be read: {reason}", path=path, remedy="name a table (CSV or TSV)") from cause
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise error("is a workbook, not a text table", path=path, remedy="save the sheet as CSV")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as cause:
        raise error(f"is no text in {encoding}", path=path, remedy="save the table as CSV in UTF-8") from cause
    if "\0" in text:
        raise error("holds zero bytes: it is no text", path=path, remedy="save the table as CSV in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _encoding(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):  # every second byte of Latin text is 0
        half = data[start:2000:2]
        if len(data) > 3 and half.count(0) > 0.8 * len(half):
            return name
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _split(text: str, path: Path, error: type[StampError]) -> tuple[list[tuple[int, list[str]]], str]:
    """Lines that are not empty, with their numbers, and the separator."""
    stated = re.match(r"\s*\"?sep=(.)\"?\n", text)  # Excel's own line before the header
    separator = stated[1] if stated and stated[1] in SEPARATORS else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as cause:
        raise error(
            f"line {reader.line_num} cannot be read as a table: {cause}", path=path, remedy="close its double quotes"
        ) from cause
    return lines[1:] if stated else lines, separator


def _separator(text: str) -> str:
    """The separator that gives the header the most columns, and the lines below it no more than those."""
    best, found = (-1, 0), ","
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        widths: list[int] = []
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    widths.append(len(cells))
                if len(widths) == _SNIFFED_LINES:
                    break
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            fit = 2 * widths.count(widths[0]) >= len(widths)
            best, found = max((best, found), ((int(fit), widths[0]), separator), key=lambda pair: pair[0])
    return found
