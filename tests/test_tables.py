"""Tables as people write them: separators, encodings, cells that state nothing, numbers, and names of slides."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.tables import MISSING, class_name, key, parse_number, read_lines, read_table, slide_names

ROWS = [["Slide ID", "Patient", "label"], ["1001", "Pätient, A", "MSS"], ["1002", "P2", "MSI-H"]]
WANT = [
    {"slide_id": "1001", "patient": "Pätient, A", "label": "MSS"},
    {"slide_id": "1002", "patient": "P2", "label": "MSI-H"},
]


def quoted(rows: list[list[str]], separator: str, end: str = "\r\n") -> str:
    return "".join(separator.join(f'"{c}"' if separator in c else c for c in row) + end for row in rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_every_separator_in_every_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(quoted(ROWS, separator).encode(encoding))
    table = read_table(path)
    assert table.rows == WANT and table.separator == separator and table.columns == tuple(ROWS[0])


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\n"])
def test_line_ends_and_empty_lines(tmp_path: Path, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(("\n,,\n" + quoted(ROWS, ",", end)).encode())
    assert read_table(tmp_path / "t.csv").rows == WANT


def test_gzip_excels_line_and_trailing_separators(tmp_path: Path) -> None:
    text = "sep=;\nslide;mpp;;\na, b.svs;0,25;;\n\nc.svs;;;\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    table = read_table(tmp_path / "t.csv.gz")
    assert [row["slide"] for row in table.rows] == ["a, b.svs", "c.svs"] and table.lines == [3, 5]
    assert table.optional_number(0, "mpp") == 0.25 and table.optional_number(1, "mpp") is None
    with pytest.raises(UsageError, match="line 5: mpp is empty"):
        table.number(1, "mpp")


def test_an_index_column_without_a_name_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",slide,label\n0,a,x\n1,b,y\n")
    assert [row["slide"] for row in read_table(tmp_path / "t.csv").rows] == ["a", "b"]


@pytest.mark.parametrize("text", ["#N/A", "N/A", "<NA>", "NA", "NaN", "-", "", " ", "\u00a0", "None", "NULL", "n.a."])
def test_cells_that_state_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(f"slide,label\na,{text}\nb,x\u00a0\n", encoding="utf-8")
    assert [row["label"] for row in read_table(tmp_path / "t.csv").rows] == ["", "x"]
    assert text.strip().lower() in MISSING


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"slide,mpp\na.svs,0,25\n", r"line 2 has 3 cells for 2 columns.*separated by the comma.*'slide', 'mpp'"),
        (b"slide\na,b\n", "no separator was found"),
        (b'slide,label\n"a,x\nb,y\n', "cannot be read as a table"),
        (b"slide,label\n", "holds no lines below its header"),
        (b"", "holds no lines"),
        (b"PK\x03\x04xl/workbook", "workbook"),
        (b"slide,label\na\x00b,c\n", "zero bytes"),
        (b"\xff\xfes\x00l", "no text in utf-16"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
        (b"slide,caf\x81\na,b\n", "no text in cp1252"),
    ],
)
def test_what_is_no_table_is_refused_with_the_cause(tmp_path: Path, data: bytes, cause: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=cause) as caught:
        read_table(tmp_path / "t.csv", error=DataError)
    assert "t.csv" in str(caught.value) and caught.value.remedy


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_table(path)


def test_columns_are_found_whatever_their_case_and_refused_where_double(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Slide-ID;Label;label\n1;a;b\n")
    table = read_table(tmp_path / "t.csv")
    assert table.column("slide", "slide_id", what="slides") == "slide_id"
    with pytest.raises(UsageError, match="2 columns called 'label'"):
        table.column("label")
    with pytest.raises(UsageError, match=r"no column names the patients.*semicolon.*'Slide-ID', 'Label'"):
        table.column("patient", "case", what="patients")
    with pytest.raises(UsageError, match="lacks the column x"):
        table.require("slide_id", "x")
    assert key(" Case  ID ") == "case_id"


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text in ("AAC-1,1,2\nAAG-1,3,4\n", "\ufeffbarcode,x,y\nAAC-1,1,2\nAAG-1,3,4\n"):
        path.write_text(text, encoding="utf-8")
        table = read_table(path, default_columns=("barcode", "x", "y"))
        assert [row["barcode"] for row in table.rows] == ["AAC-1", "AAG-1"] and table.number(1, "y") == 4
    path.write_text("AAC-1,1\nAAG-1,3,4\n")
    with pytest.raises(UsageError, match="line 1 has 2 cells, not 3"):
        read_table(path, default_columns=("barcode", "x", "y"))
    assert read_lines(path) == [(1, ["AAC-1", "1"]), (2, ["AAG-1", "3", "4"])]


def test_numbers_as_people_write_them() -> None:
    assert parse_number("0.25") == parse_number("0,25") == parse_number("0,250") == 0.25
    assert parse_number("1,234") is None and parse_number("1,234", decimal_comma=True) == 1.234
    for text in ("nan", "inf", "1_0", "x", "1.2.3", "1,2,3", ""):
        value = parse_number(text)
        assert value is None, text


def test_names_of_classes_and_slides() -> None:
    written = ("1", "1.0", "1,0", "0.00", "1.5", "v1.0", "1.10")
    assert [class_name(text) for text in written] == ["1", "1", "1", "0", "1.5", "v1.0", "1.10"]
    for text in ("1001", "1001.0", "1001.h5", "/data/slides/1001.svs", r"C:\slides\1001.ndpi", "1001.svs.h5"):
        assert "1001" in slide_names(text), text
    assert slide_names("TCGA-AA-01.0b-DX1")[-1] == "TCGA-AA-01.0b-DX1"
