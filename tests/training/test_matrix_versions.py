"""Matrices and gene names as programs and spreadsheets leave them: versions, genomes, dates, repeats."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from stamp_deploy.errors import DataError
from stamp_deploy.training.cohort.genes import harmonise
from stamp_deploy.training.cohort.genomes import choose_genome
from stamp_deploy.training.cohort.readers import Settings, visium


@pytest.mark.parametrize(
    "name", ["1-Mar", "2-Sep", "Mar-01", "15-Sep", "1-Dec", "01. Mrz", "2022-03-01", "3/1/2022", "2.31E+13", "1-Mar-1"]
)
def test_names_that_excel_turned_into_dates_are_left_out_and_told(name: str) -> None:
    counts, symbols, report = harmonise(np.ones((2, 3)), ["TP53", name, "EGFR"])
    assert symbols == ("TP53", "EGFR") and counts.shape == (2, 2)
    assert report.to_dict()["dates"] == [name] and f"such as {name}" in " ".join(report.warnings())


def test_an_identifier_rescues_a_name_that_excel_changed() -> None:
    ids = ["ENSG00000173838", "ENSG00000186205"]
    _, symbols, report = harmonise(np.ones((1, 2)), ["1-Mar", "1-Mar-1"], ids, {ids[0]: "MARCHF1", ids[1]: "MTARC1"})
    assert symbols == ("MARCHF1", "MTARC1") and not report.dates


def test_numbered_repeats_are_summed_and_other_names_with_numbers_are_not() -> None:
    names = ["TBCE", "TBCE-1", "TBCE.1", "NKX2-1", "JUN", "JUN-1", "RP11-34P13.7", "HLA-A"]
    counts, symbols, report = harmonise(np.arange(8.0)[None], names)
    assert symbols == ("TBCE", "NKX2-1", "JUN", "RP11-34P13.7", "HLA-A")
    assert counts.toarray().tolist() == [[3, 3, 9, 6, 7]]
    assert report.numbered == 3 and "summed" in " ".join(report.warnings())


@pytest.mark.parametrize("front", ["GRCh38_", "GRCh38______", "hg19_", "mm10___"])
def test_the_prefix_of_the_only_genome_goes(front: str) -> None:
    choice = choose_genome([f"{front}A", f"{front}B-1", "GFP"], [f"{front}ENSG1", f"{front}ENSG2", "GFP"])
    assert choice.names == ("A", "B-1", "GFP") and choice.ids == ("ENSG1", "ENSG2", "GFP") and not choice.left_out


def test_of_two_genomes_the_human_one_is_kept_unless_another_is_asked_for() -> None:
    names = ["GRCh38_TP53", "mm10___Trp53", "GRCh38_EGFR", "mm10___Egfr"]
    human, mouse = choose_genome(names), choose_genome(names, wanted="mm10")
    assert (human.columns, human.names, human.left_out) == ((0, 2), ("TP53", "EGFR"), {"mm10": 2})
    assert (mouse.columns, mouse.names) == ((1, 3), ("Trp53", "Egfr"))
    with pytest.raises(DataError, match="genomes GRCh38, mm10, not of rn6"):
        choose_genome(names, wanted="rn6")
    with pytest.raises(DataError, match="genomes mm10, rn6 -") as caught:
        choose_genome(["mm10_A", "rn6_B"])
    assert "genome =" in caught.value.remedy


def space_ranger(root: Path, version: str) -> tuple[Settings, sparse.csr_matrix, list[str]]:
    """Space Ranger's files, 16 spots and 6 genes, as `version` writes them."""
    barcodes, genes = [f"{'ACGT'[i // 4]}{'ACGT'[i % 4]}-1" for i in range(16)], [f"GENE{i}" for i in range(6)]
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(5, (16, 6)))
    spatial = root / "outs" / "spatial"
    spatial.mkdir(parents=True)
    header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    rows = [f"{b},1,{i // 4},{2 * (i % 4) + i // 4 % 2},{100 + 87 * (i // 4)},{100 + 100 * (i % 4) + i // 4 % 2 * 50}"
            for i, b in enumerate(barcodes)]  # fmt: skip
    text = ("\ufeff" if version == "bom" else "") + header + "\n".join(rows) + "\n"
    name = spatial / "tissue_positions.csv"
    if version == "positions-gz":
        Path(f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    elif version == "no-header":
        (spatial / "tissue_positions_list.csv").write_text("\n".join(rows))
    else:
        name.write_text(text.replace(",", ";") if version == "semicolon" else text, encoding="utf-8")
    (spatial / "scalefactors_json.json").write_text("{}")
    matrix = sparse.csc_matrix(counts.T)
    with h5py.File(root / "outs" / "filtered_feature_bc_matrix.h5", "w") as file:
        if version == "molecules":
            file["barcode_idx"], file["umi"] = np.arange(3), np.arange(3)
        elif version == "h5ad":
            for part in ("X", "obs", "var"):
                file.create_group(part)
        else:
            group = file.create_group("GRCh38" if version.startswith("v2") else "matrix")
            for key in ("data", "indices", "indptr", "shape"):
                group[key] = getattr(matrix, key)
            group["barcodes"] = np.array(barcodes, "S")
            if version.startswith("v2"):
                group["genes"], group["gene_names"] = np.array(genes, "S"), np.array(genes, "S")
                if version == "v2-two-genomes":
                    file.copy("GRCh38", "mm10")
            else:
                features = group.create_group("features")
                features["id"] = features["name"] = np.array(genes, "S")
                if version != "no-feature-type":
                    features["feature_type"] = np.array(["Gene Expression"] * 6, "S")
    Image.new("RGB", (600, 600), "white").save(root / "i.png")
    return Settings({"folder": "outs", "image": "i.png"}, root, "S1"), counts, barcodes


@pytest.mark.parametrize(
    "version",
    ["v3", "v2", "v2-two-genomes", "no-feature-type", "bom", "positions-gz", "no-header", "semicolon"],
)
def test_space_rangers_files_of_every_version(tmp_path: Path, version: str) -> None:
    settings, counts, barcodes = space_ranger(tmp_path, version)
    raw = visium.read(settings)
    choice = choose_genome(raw.names, raw.ids)
    assert choice.names == tuple(f"GENE{i}" for i in range(6)) and sorted(raw.barcodes) == sorted(barcodes)
    order = [barcodes.index(b) for b in raw.barcodes]
    np.testing.assert_array_equal(raw.counts[:, list(choice.columns)].toarray(), counts.toarray()[order])
    assert raw.centres[raw.barcodes.index("AC-1")].tolist() == [200, 100]
    assert choice.left_out == ({"mm10": 6} if version == "v2-two-genomes" else {})


@pytest.mark.parametrize(
    ("version", "cause", "remedy"),
    [
        ("molecules", "molecule_info", "filtered_feature_bc_matrix"),
        ("h5ad", "is an AnnData file", 'format = "anndata"'),
    ],
)
def test_files_that_are_no_count_matrix_are_refused_with_the_one_to_take(
    tmp_path: Path, version: str, cause: str, remedy: str
) -> None:
    with pytest.raises(DataError, match=cause) as caught:
        visium.read(space_ranger(tmp_path, version)[0])
    assert remedy in caught.value.remedy
