"""Readers of spatial transcriptomics: real her2st and Visium, synthetic Xenium, HEST and AnnData; gene names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.cohort.genes import harmonise, is_control, looks_like_mouse, read_gene_table
from stamp_deploy.training.cohort.readers import Settings, hest, legacy_st, reader, visium, visium_hd, xenium
from stamp_deploy.training.cohort.readers import anndata_file as anndata_reader


def settings(root: Path, /, **values: Any) -> Settings:
    return Settings(values, root, "S1")


# legacy Spatial Transcriptomics


def her2st(data_dir: Path, name: str, **more: Any) -> Settings:
    folder = data_dir / "st" / "her2st"
    files = {"counts": f"{name}.tsv.gz", "spots": f"{name}_selection.tsv", "image": f"{name}_HE.jpg"}
    return settings(folder, **files, **more)


def test_her2st_resolution_follows_from_the_spot_pitch(data_dir: Path) -> None:
    raw = legacy_st.read(her2st(data_dir, "C3", spot_pitch_um=200))
    assert raw.counts.shape == (180, 15821)  # 182 spots are selected, 180 have counts
    assert raw.mpp == pytest.approx(0.6874, abs=2e-3)
    assert "200 um stated" in raw.mpp_source and "affine fit" in raw.mpp_source
    assert raw.counts.data.min() >= 1 and (raw.counts.data == np.rint(raw.counts.data)).all()
    place = dict(zip(raw.barcodes, raw.centres, strict=True))
    assert all("x" in b for b in place)


def test_her2st_without_a_pitch_states_no_resolution(data_dir: Path) -> None:
    assert legacy_st.read(her2st(data_dir, "C3")).mpp is None


def tiny_st(folder: Path, *, header: str = "\tA\tB", rows: tuple[str, ...] = (), spots: str = "") -> Settings:
    counts = rows or tuple(f"{x}x{y}\t{x}\t{y}" for x in (1, 2, 3) for y in (1, 2, 3))
    (folder / "c.tsv").write_text("\n".join([header, *counts]) + "\n")
    lines = [f"{x}\t{y}\t{100 * x}\t{100 * y}\t1" for x in (1, 2, 3) for y in (1, 2, 3)]
    (folder / "s.tsv").write_text(spots or "x\ty\tpixel_x\tpixel_y\tselected\n" + "\n".join(reversed(lines)) + "\n")
    Image.new("RGB", (500, 500), "white").save(folder / "i.png")
    return settings(folder, counts="c.tsv", spots="s.tsv", image="i.png", spot_pitch_um=50)


@pytest.mark.parametrize("header", ["\tA\tB", "A\tB", "spot\tA\tB"])
def test_headers_with_and_without_a_corner(tmp_path: Path, header: str) -> None:
    raw = legacy_st.read(tiny_st(tmp_path, header=header))
    assert raw.names == ("A", "B")
    assert raw.mpp == pytest.approx(0.5)
    # the spot file lists the spots backwards: barcodes decide, not the order
    for barcode, counts, centre in zip(raw.barcodes, raw.counts.toarray(), raw.centres, strict=True):
        x, y = map(int, barcode.split("x"))
        assert counts.tolist() == [x, y] and centre.tolist() == [100 * x, 100 * y]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"rows": ("1x1\t1",)}, "line 2 has 1 counts for 2 genes"),
        ({"rows": ("1x1\tone\ttwo",)}, "table of counts"),
        ({"rows": ("1x1\t1\t2", "1x1\t1\t2")}, "comes twice in the counts"),
        ({"rows": ("71x1\t1\t2", "72x1\t1\t2")}, "have no position"),
        ({"spots": "x\ty\tpixel_x\n1\t1\t1\n"}, "lacks the column pixel_y"),
        ({"spots": "x\ty\tpixel_x\tpixel_y\n1\t1\tNA\t1\n"}, "not a number"),
        ({"spots": "x\ty\tpixel_x\tpixel_y\n1\t1\t5\t1\n1\t1\t6\t1\n"}, "comes twice"),
    ],
)
def test_broken_legacy_files_are_refused(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        legacy_st.read(tiny_st(tmp_path, **change))


def test_an_array_on_one_line_has_no_pitch(tmp_path: Path) -> None:
    spots = "x\ty\tpixel_x\tpixel_y\n" + "".join(f"{i}\t1\t{i * 100}\t5\n" for i in (1, 2, 3))
    with pytest.raises(DataError, match="too few spots"):
        legacy_st.read(tiny_st(tmp_path, spots=spots, rows=tuple(f"{i}x1\t1\t1" for i in (1, 2, 3))))


def test_a_missing_key_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not state counts"):
        legacy_st.read(settings(tmp_path))
    with pytest.raises(DataError, match=r"gone\.tsv: does not exist"):
        legacy_st.read(settings(tmp_path, counts="gone.tsv", spots="x"))


# Visium


def test_visium_needs_the_full_image(data_dir: Path) -> None:
    with pytest.raises(DataError, match="no full-resolution image") as caught:
        visium.read(settings(data_dir / "st", folder="visium_cytassist"))
    assert "image_level" in caught.value.remedy


def test_visium_resolution_is_that_of_the_image_that_is_read(data_dir: Path) -> None:
    folder = data_dir / "st"
    image = "visium_cytassist/spatial/aligned_fiducials.jpg"
    full = visium.read(settings(folder, folder="visium_cytassist", image=image))
    assert full.mpp == pytest.approx(4.667, abs=1e-3)  # 100 um are 21.43 px
    assert full.image_size == pytest.approx((3000, 3000), abs=1)
    low = visium.read(settings(folder, folder="visium_cytassist", image_level="lowres"))
    assert low.mpp == pytest.approx(full.mpp * 5)
    np.testing.assert_allclose(low.centres * 5, full.centres)
    assert len(full.barcodes) == full.notes["spots_under_tissue"] == 2898
    assert full.ids is not None and full.ids[0].startswith("ENSMUSG")


def tiny_visium(folder: Path, *, barcodes: list[str] | None = None, header: bool = True) -> Path:
    """Space Ranger output of 24 spots, 1 um a pixel; the positions are in another order than the matrix."""
    root = folder / "run"
    matrix, spatial = root / "filtered_feature_bc_matrix", root / "spatial"
    matrix.mkdir(parents=True)
    spatial.mkdir()
    names = barcodes or [f"BC{i}-1" for i in range(24)]
    counts = np.arange(24)[:, None] + np.arange(3)[None]
    mmwrite(matrix / "matrix.mtx", sparse.coo_array(counts.T.astype(int)))
    (matrix / "barcodes.tsv").write_text("\n".join(names) + "\n")
    features = ["ENSG00000141510\tTP53\tGene Expression", "ENSG00000012048\tBRCA1\tGene Expression"]
    (matrix / "features.tsv").write_text("\n".join([*features, "CD3\tCD3\tAntibody Capture"]) + "\n")
    rows = []
    for i in range(24):
        row, column = i // 6, 2 * (i % 6) + (i // 6) % 2
        x, y = 100 + 50 * column, 100 + 86.60254 * row
        rows.append(f"BC{i}-1,{int(i != 3)},{row},{column},{y},{x}")
    title = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    (spatial / name).write_text("\n".join([*([title] if header else []), *reversed(rows)]) + "\n")
    (spatial / "scalefactors_json.json").write_text(json.dumps({"tissue_hires_scalef": 0.5}))
    Image.new("RGB", (800, 500), "white").save(root / "full.png")
    Image.new("RGB", (400, 250), "white").save(spatial / "tissue_hires_image.png")
    return root


@pytest.mark.parametrize("header", [True, False])
def test_visium_joins_by_barcode_and_keeps_genes_only(tmp_path: Path, header: bool) -> None:
    root = tiny_visium(tmp_path, header=header)
    raw = visium.read(settings(root, folder=".", image="full.png"))
    assert raw.mpp == pytest.approx(1.0, abs=1e-4)
    assert raw.names == ("TP53", "BRCA1")
    assert len(raw.barcodes) == 23 and "BC3-1" not in raw.barcodes
    for barcode, counts, (x, _) in zip(raw.barcodes, raw.counts.toarray(), raw.centres, strict=True):
        i = int(barcode[2:-2])
        assert counts.tolist() == [i, i + 1]
        assert x == 100 + 50 * (2 * (i % 6) + (i // 6) % 2)


def test_visium_h5_gives_the_same_as_the_folder(tmp_path: Path) -> None:
    root = tiny_visium(tmp_path)
    folder = visium.read(settings(root, folder=".", image="full.png"))
    write_10x_h5(
        root / "filtered_feature_bc_matrix.h5",
        np.arange(24)[:, None] + np.arange(3)[None],
        [f"BC{i}-1" for i in range(24)],
        [("ENSG00000141510", "TP53"), ("ENSG00000012048", "BRCA1")],
        extra=("CD3", "CD3", "Antibody Capture"),
    )
    h5 = visium.read(settings(root, folder=".", image="full.png"))
    assert h5.barcodes == folder.barcodes and h5.names == folder.names
    np.testing.assert_array_equal(h5.counts.toarray(), folder.counts.toarray())


def test_visium_barcodes_of_another_run_are_refused(tmp_path: Path) -> None:
    root = tiny_visium(tmp_path, barcodes=[f"XX{i}-1" for i in range(24)])
    with pytest.raises(DataError, match="24 of 24 barcodes of the counts have no position"):
        visium.read(settings(root, folder=".", image="full.png"))


def test_visium_matrix_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    root = tiny_visium(tmp_path, barcodes=[f"BC{i}-1" for i in range(23)])
    with pytest.raises(DataError, match="does not fit"):
        visium.read(settings(root, folder=".", image="full.png"))


# Xenium


def write_10x_h5(
    path: Path,
    counts: Any,
    barcodes: list[str],
    genes: list[tuple[str, str]],
    extra: tuple[str, str, str] | None = None,
) -> None:
    rows = [(i, n, "Gene Expression") for i, n in genes] + ([extra] if extra else [])
    matrix = sparse.csc_array(np.asarray(counts).T)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = np.array(matrix.shape)
        group["barcodes"] = np.array([b.encode() for b in barcodes])
        features = group.create_group("features")
        for k, name in enumerate(("id", "name", "feature_type")):
            features[name] = np.array([row[k].encode() for row in rows])


def tiny_xenium(root: Path, parquet: bool = True) -> Path:
    """40 cells on a line of 10 um steps; counts are 1 of the first gene, so a pool's count is its cells."""
    root.mkdir()
    cells = [f"cell{i}" for i in range(40)]
    xy = np.stack([np.arange(40) * 10.0 + 5, np.full(40, 30.0)], 1)
    genes = [("ENSG1", "EPCAM"), ("NegControlProbe_0001", "NegControlProbe_0001")]
    write_10x_h5(root / "cell_feature_matrix.h5", np.ones((40, 2), int), cells, genes)
    frame = pd.DataFrame({"cell_id": cells, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1]})
    frame = frame.sample(frac=1, random_state=0)  # another order than the matrix
    if parquet:
        frame.to_parquet(root / "cells.parquet")
    else:
        with gzip.open(root / "cells.csv.gz", "wt") as handle:
            frame.to_csv(handle, index=False)
    (root / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    Image.new("RGB", (2000, 400), "white").save(root / "he.png")
    return root


@pytest.mark.parametrize("parquet", [True, False])
def test_xenium_cells_are_pooled(tmp_path: Path, parquet: bool) -> None:
    root = tiny_xenium(tmp_path / "x", parquet)
    raw = xenium.read(settings(root, folder=".", image="he.png", pool_um=100, alignment="identity"))
    assert raw.counts[:, [0]].toarray().ravel().tolist() == [10, 10, 10, 10]
    assert raw.mpp == 0.2125
    np.testing.assert_allclose(raw.centres[0], np.array([50, 50]) / 0.2125)
    assert raw.notes["cells"] == 40 and raw.pooled_um == 100
    assert raw.barcodes[1] == "1x0"


def test_xenium_alignment_is_inverted(tmp_path: Path) -> None:
    root = tiny_xenium(tmp_path / "x")
    # a pixel of the H&E image is 2 pixels of the morphology image; turned by a quarter and moved
    matrix = np.array([[0, 2, 30], [-2, 0, 900], [0, 0, 1.0]])
    np.savetxt(root / "align.csv", matrix, delimiter=",")
    raw = xenium.read(settings(root, folder=".", image="he.png", pool_um=100, alignment="align.csv"))
    assert raw.mpp == pytest.approx(0.425)
    back = np.c_[raw.centres, np.ones(len(raw.centres))] @ matrix.T * 0.2125
    np.testing.assert_allclose(back[:, :2], [[50, 50], [150, 50], [250, 50], [350, 50]])


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"alignment": "identity"}, "states no pool_um"),
        ({"pool_um": 100}, "how its image lies"),
        ({"pool_um": -1, "alignment": "identity"}, "not a positive number"),
    ],
)
def test_xenium_guesses_nothing(tmp_path: Path, values: dict[str, Any], cause: str) -> None:
    root = tiny_xenium(tmp_path / "x")
    with pytest.raises(DataError, match=cause):
        xenium.read(settings(root, folder=".", image="he.png", **values))


# Visium HD


def tiny_hd(root: Path) -> Path:
    """12 x 12 bins of 8 um, 4 px each, turned by a quarter; one count a bin, so a pool's count is its bins."""
    (root / "spatial").mkdir(parents=True)
    column, row = (v.ravel() for v in np.meshgrid(np.arange(12), np.arange(12)))
    names = [f"s_008um_{r:05}_{c:05}-1" for r, c in zip(row, column, strict=True)]
    frame = pd.DataFrame({"barcode": names, "in_tissue": 1, "array_row": row, "array_col": column})
    frame["pxl_row_in_fullres"], frame["pxl_col_in_fullres"] = 100 - 4.0 * column, 50 + 4.0 * row
    frame.loc[0, "in_tissue"] = 0
    frame.sample(frac=1, random_state=0).to_parquet(root / "spatial" / "tissue_positions.parquet")
    (root / "spatial" / "scalefactors_json.json").write_text(json.dumps({"bin_size_um": 8.0}))
    write_10x_h5(root / "filtered_feature_bc_matrix.h5", np.ones((144, 1), int), names, [("ENSG1", "EPCAM")])
    Image.new("RGB", (200, 200), "white").save(root / "he.png")
    return root


def test_visium_hd_bins_are_pooled(tmp_path: Path) -> None:
    root = tiny_hd(tmp_path / "square_008um")
    raw = visium_hd.read(settings(root, folder=".", image="he.png", pool_um=32))
    assert raw.mpp == pytest.approx(2.0) and "bins of 8 um" in raw.mpp_source
    assert sorted(raw.counts.toarray().ravel()) == [15, *[16] * 8]  # one bin is not under tissue
    # a square of 4 x 4 bins is centred between its bins 1 and 2
    place = dict(zip(raw.barcodes, raw.centres.round(6).tolist(), strict=True))
    assert place["0x0"] == [50 + 4 * 1.5, 100 - 4 * 1.5] and place["2x1"] == [50 + 4 * 5.5, 100 - 4 * 9.5]
    few = visium_hd.read(settings(root, folder=".", image="he.png", pool_um=32, min_bins=16))
    assert len(few.barcodes) == 8
    with pytest.raises(DataError, match="needs a pool_um of 8 or more"):
        visium_hd.read(settings(root, folder=".", image="he.png"))


# HEST and AnnData


def tiny_anndata(path: Path, **change: Any) -> Any:
    data = anndata.AnnData(
        sparse.csr_matrix(np.arange(12.0).reshape(4, 3)),
        obs=pd.DataFrame(index=list("abcd")),
        var=pd.DataFrame({"symbol": ["TP53", "BRCA1", "EGFR"]}, index=["E1", "E2", "E3"]),
        obsm={"spatial": np.array([[10, 10], [20, 10], [10, 20], [20, 20.0]])},
    )
    for key, value in change.items():
        setattr(data, key, value)
    data.write_h5ad(path)
    return data


def test_hest_metadata_states_resolution_patient_and_organ(tmp_path: Path) -> None:
    for folder in ("st", "wsis", "metadata"):
        (tmp_path / folder).mkdir()
    tiny_anndata(tmp_path / "st" / "TENX1.h5ad")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "wsis" / "TENX1.tif")
    facts = {"pixel_size_um_estimated": 0.27, "pixel_size_um_embedded": 0.5, "patient": "P1", "organ": "Breast"}
    (tmp_path / "metadata" / "TENX1.json").write_text(json.dumps({**facts, "st_technology": "Visium"}))
    raw = hest.read(settings(tmp_path, folder=".", hest_id="TENX1"))
    assert (raw.mpp, raw.organ, raw.platform, raw.patient_id) == (0.27, "Breast", "Visium", "P1")
    (tmp_path / "metadata" / "TENX1.json").unlink()
    (tmp_path / "HEST_v1.csv").write_text("id,pixel_size_um_embedded,patient,dataset_title\nTENX1,0.5,3,A study\n")
    raw = hest.read(settings(tmp_path, folder=".", hest_id="TENX1"))
    assert raw.mpp == 0.5 and raw.patient_id.endswith("-3") and raw.patient_id != "3"


def test_hest_without_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wsis").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "wsis" / "S1.tif")
    with pytest.raises(DataError, match="neither metadata"):
        hest.read(settings(tmp_path, folder="."))


def test_anndata_layers_and_gene_columns(tmp_path: Path) -> None:
    tiny_anndata(tmp_path / "a.h5ad")
    Image.new("RGB", (50, 50)).save(tmp_path / "i.png")
    raw = anndata_reader.read(settings(tmp_path, counts="a.h5ad", image="i.png", gene_column="symbol"))
    assert raw.names == ("TP53", "BRCA1", "EGFR")
    var = pd.DataFrame({"symbol": ["TP53", "BRCA1", "EGFR"]}, index=[f"ENSG0000014151{i}" for i in range(3)])
    tiny_anndata(tmp_path / "e.h5ad", var=var)
    named = anndata_reader.read(settings(tmp_path, counts="e.h5ad", image="i.png"))
    assert named.names == raw.names and named.ids == tuple(var.index)
    with pytest.raises(DataError, match="no layer raw"):
        anndata_reader.read(settings(tmp_path, counts="a.h5ad", image="i.png", layer="raw"))


def test_anndata_without_places_is_refused(tmp_path: Path) -> None:
    tiny_anndata(tmp_path / "a.h5ad", obsm={})
    Image.new("RGB", (50, 50)).save(tmp_path / "i.png")
    with pytest.raises(DataError, match="no obsm"):
        anndata_reader.read(settings(tmp_path, counts="a.h5ad", image="i.png"))


def test_unknown_formats_are_listed() -> None:
    with pytest.raises(UsageError, match="legacy-st, visium, visium-hd, xenium, hest, anndata"):
        reader("geomx")


# gene names


def test_names_become_symbols() -> None:
    counts = np.array([[1, 2, 4, 8, 16, 32, 64.0]])
    names = ["TP53", "ENSG00000141510.18", "ENSG00000012048", "NegControlProbe_1", "BLANK_0001", "EGFR"]
    names.append("ENSG00000099999")
    table = {"ENSG00000141510": "TP53", "ENSG00000012048": "BRCA1"}
    out, symbols, report = harmonise(counts, names, table=table)
    assert symbols == ("TP53", "BRCA1", "EGFR")
    assert out.toarray().tolist() == [[3, 4, 32]]
    assert report.to_dict() == {"given": 7, "controls": 2, "translated": 2, "unknown": 1, "merged": 1, "genes": 3}


def test_identifiers_beside_names_are_looked_up_first() -> None:
    table = {"ENSG00000131591": "NEW"}
    _, symbols, report = harmonise(np.ones((1, 2)), ["C1orf159", "X"], ["ENSG00000131591.5", "X"], table)
    assert symbols == ("NEW", "X") and report.translated == 1


@pytest.mark.parametrize(
    "name",
    [
        "ERCC-00130",
        "NegControlCodeword_0500",
        "antisense_ABC",
        "Blank-3",
        "__no_feature",
        "UnassignedCodeword_0001",
        "DeprecatedCodeword_0321",
        "Intergenic_Region_1",
    ],
)
def test_controls_are_recognised(name: str) -> None:
    assert is_control(name)


@pytest.mark.parametrize("name", ["ERCC1", "ERCC2", "NEGR1", "BLNK", "SYS1", "INTS1", "TP53"])
def test_genes_are_no_controls(name: str) -> None:
    assert not is_control(name)


def test_only_unknown_identifiers_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 2 gene names has a symbol") as caught:
        harmonise(np.ones((1, 2)), ["ENSG00000141510", "ENSG00000012048"])
    assert "gene_table" in caught.value.remedy


def test_gene_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,symbol\nENSG00000141510.1,TP53\nP53,TP53\n")
    assert read_gene_table(tmp_path / "t.csv") == {"ENSG00000141510": "TP53", "P53": "TP53"}
    with gzip.open(tmp_path / "t.tsv.gz", "wt") as handle:
        handle.write("A\tB\nA\tC\n")
    with pytest.raises(DataError, match="two symbols"):
        read_gene_table(tmp_path / "t.tsv.gz")


def test_mouse_names_are_recognised() -> None:
    assert looks_like_mouse(["Trp53", "Brca1", "Xkr4", "Sox17", "H2-K1"])
    assert not looks_like_mouse(["TP53", "BRCA1", "C1orf159", "SOX17"])
