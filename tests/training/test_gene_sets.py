"""GMT files, their coverage, and the random control sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stamp_deploy.errors import DataError
from stamp_deploy.training.gene_sets import GeneSets, membership, read_gmt


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_hallmark_has_fifty_sets(data_dir: Path) -> None:
    sets = read_gmt(data_dir / "gmt" / "h.all.v2025.1.Hs.symbols.gmt")
    assert len(sets) == 50
    assert sets.names[0].startswith("HALLMARK_")
    assert all(len(genes) == len(set(genes)) >= 30 for genes in sets.genes)


def test_reactome_is_read(data_dir: Path) -> None:
    sets = read_gmt(data_dir / "gmt" / "ReactomePathways_2024-09-18.gmt")
    assert len(sets) > 1000


def test_line_endings_bom_descriptions_and_repeats_do_not_matter(tmp_path: Path) -> None:
    plain = read_gmt(write(tmp_path / "a.gmt", "S\tfrom here\tA\tB\tC\nT\t\tD\tE\n"))
    odd = read_gmt(write(tmp_path / "b.gmt", "\ufeffS\tfrom there\tA\tB\tC\tB\r\nT\tna\tD\tE\t\r\n\r\n"))
    assert odd == plain
    assert odd.sha256 == plain.sha256


def test_the_hash_tells_order_and_genes_apart() -> None:
    base = GeneSets(("S", "T"), (("A", "B"), ("C",)))
    assert GeneSets(("T", "S"), (("C",), ("A", "B"))).sha256 != base.sha256
    assert GeneSets(("S", "T"), (("A",), ("B", "C"))).sha256 != base.sha256


def test_weights_follow_a_comma(tmp_path: Path) -> None:
    sets = read_gmt(write(tmp_path / "w.gmt", "S\tx\tA,0.5\tB,-2\tC\n"))
    assert sets.genes == (("A", "B", "C"),)
    assert sets.weights == ((0.5, -2.0, 1.0),)
    rows, columns, values = membership(sets, ["C", "A"], weighted=True)
    assert sorted(zip(rows, columns, values, strict=True)) == [(0, 0, 1.0), (1, 0, 0.5)]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no gene set"),
        ("S\tonly a description\n", "line 1"),
        ("S\tx\tA\nS\tx\tB\n", "twice"),
        ("S\tx\t\t\n", "no genes"),
        ("A,B,C\n", "line 1"),
    ],
)
def test_what_is_no_gmt_is_refused(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        read_gmt(write(tmp_path / "bad.gmt", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.gmt"):
        read_gmt(tmp_path / "none.gmt")


def test_coverage_and_the_validity_rule() -> None:
    sets = GeneSets(("FEW", "THIN", "GOOD"), (tuple("ABC"), tuple(f"T{i}" for i in range(100)), tuple("DEFGHIJKLM")))
    few, thin, good = sets.coverage([*"ABC", *(f"T{i}" for i in range(19)), *"DEFGHIJKLM"])
    assert (few.measured, few.fraction) == (3, 1.0)
    assert not few.valid()
    assert few.valid(min_genes=3)
    assert thin.measured == 19 and not thin.valid()
    assert good.valid()


def test_random_sets_match_the_measured_sizes_and_repeat() -> None:
    universe = [f"G{i}" for i in range(300)]
    sets = GeneSets(("A", "B"), ((*universe[:40], "UNKNOWN"), tuple(universe[50:61])))
    drawn = sets.random_like(np.random.default_rng(1), universe)
    assert [len(g) for g in drawn.genes] == [40, 11]
    assert drawn.names == ("RANDOM_A", "RANDOM_B")
    assert all(set(g) <= set(universe) for g in drawn.genes)
    again = sets.random_like(np.random.default_rng(1), list(reversed(universe)))
    assert again == drawn
    assert sets.random_like(np.random.default_rng(2), universe) != drawn


def test_select_keeps_the_order_asked_for() -> None:
    sets = GeneSets(("A", "B", "C"), (("X",), ("Y",), ("Z",)))
    assert sets.select(["C", "A"]).genes == (("Z",), ("X",))
    with pytest.raises(DataError, match="no gene set is called"):
        sets.select(["D"])
