"""Every tile's score stands at its place, in every file, on every route.

A slide is drawn whose tiles carry their column and row as colour, with other microns per pixel in x than in y. It is
scored by a bundle that reads the colour back. Each format is then read with the library that its users read it with,
and each field is compared with what was drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.position_slide import (
    ORIENTATION,
    ORIGIN_MM,
    PATHWAYS,
    STORAGE_PX,
    THICKNESS_MM,
    Layout,
    position_bundle,
    write_dicom,
    write_tiff,
)

from stamp_deploy.bundle import load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.infer import infer_slide
from stamp_deploy.result import Result

FILE_FORMATS = ("json", "hdf5", "parquet", "geojson", "ome-tiff", "anndata")
DICOM_FORMATS = ("dicom-pmap", "dicom-seg", "dicom-sr")
SCORE_BOUND = 0.05
"""Normalised colour; neighbouring tiles differ by 0.139 or more, JPEG moves a mean by 0.03."""
COARSE, FINE, WIDE = Layout(), Layout(mpp_x=0.2, mpp_y=0.21), Layout(columns=400, rows=5)
"""COARSE is decoded at full scale, FINE at half scale with a rest to be resampled; WIDE is served in upright strips."""


@dataclass(frozen=True)
class Scored:
    """A slide that was scored, with what was drawn."""

    layout: Layout
    result: Result
    out: Path

    @property
    def scores(self) -> NDArray[np.float64]:
        """Expected scores in row-major order, [N, 3]."""
        return self.layout.scores().reshape(-1, 3)

    @property
    def corners(self) -> NDArray[np.int64]:
        """Expected corners in row-major order, [N, 2]."""
        return self.layout.corners().reshape(-1, 2)

    @property
    def cells(self) -> NDArray[np.int64]:
        """Expected (column, row) in row-major order, [N, 2]."""
        row, column = np.divmod(np.arange(self.layout.columns * self.layout.rows), self.layout.columns)
        return np.stack([column, row], axis=1)

    @property
    def attention(self) -> NDArray[np.float64]:
        """Expected attention of the head "msi" on each tile: a softmax over the drawn embeddings."""
        embedding = np.zeros((len(self.scores), 16))
        embedding[:, :3] = self.scores
        raw = embedding @ head_weights(self.out.parent / "bundle", "msi", "score")
        weights = np.exp(raw - raw.max())
        share: NDArray[np.float64] = weights / weights.sum()
        return share


def head_weights(bundle: Path, head: str, name: str) -> NDArray[np.float32]:
    """A constant of a head's graph, read from the file."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(bundle / "heads" / f"{head}.onnx")
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


KINDS: dict[str, tuple[Layout, str]] = {
    "jpeg-rgb": (COARSE, "jpeg-tiff"),
    "jpeg-420": (COARSE, "jpeg-tiff"),
    "jpeg-420-half-scale": (FINE, "jpeg-tiff"),
    "jpeg-rgb-wide": (WIDE, "jpeg-tiff"),
    "deflate": (COARSE, "codec-tiff"),
    "packbits": (COARSE, "openslide"),
    "strips": (COARSE, "pyvips"),
    "dicom": (COARSE, ""),
}
"""Kind of slide -> its layout, and the route that must read it ("": any)."""


@pytest.fixture(scope="module", params=KINDS)
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    kind = request.param
    layout, route = KINDS[kind]
    folder = tmp_path_factory.mktemp(kind)
    if kind == "dicom":
        slide = write_dicom(folder / "slide.dcm", layout)
    else:
        slide = write_tiff(
            folder / "slide.tif", layout, kind.removesuffix("-half-scale").removesuffix("-wide"), levels=(4,)
        )
    bundle = load_bundle(position_bundle(folder / "bundle", layout))
    writers = FILE_FORMATS + (DICOM_FORMATS if kind == "dicom" else ())
    # batches and threads that divide nothing evenly, so that a slip of one tile is seen
    options = InferOptions(all_tiles=True, engine="onnxruntime", batch=7, threads=2, writers=writers)
    result = infer_slide(slide, bundle, folder / "out", options)
    assert route in ("", result.slide.route)
    return Scored(layout, result, folder / "out")


def test_a_wide_slide_is_not_served_in_the_order_of_its_rows(tmp_path: Path) -> None:
    """Otherwise the case "jpeg-rgb-wide" would not notice that scores are left in the order in which they came."""
    from stamp_deploy.grid import make_grid, select_tiles
    from stamp_deploy.slide import open_slide
    from stamp_deploy.tiles import open_tiles

    with open_slide(write_tiff(tmp_path / "slide.tif", WIDE, "jpeg-rgb")) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=WIDE.target_mpp, tile_px=WIDE.tile_px), None, 0)
        with open_tiles(slide, tiles, batch=7, threads=2) as source:
            came = np.concatenate([batch.index.copy() for batch in source])
    assert (np.diff(came) < 0).sum() >= 2


def close(found: object, expected: object, bound: float = SCORE_BOUND) -> bool:
    return bool(np.allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=bound))


def test_the_record(scored: Scored) -> None:
    result, layout = scored.result, scored.layout
    assert np.array_equal(result.coords, scored.corners)
    assert np.array_equal(result.tile_cells, scored.cells)
    assert close(result.pathways, scored.scores)
    assert close(result.embedding[:, :3], scored.scores)
    assert (result.tissue_fraction == 1).all()
    assert close((result.slide.mpp_x, result.slide.mpp_y), (layout.mpp_x, layout.mpp_y), 1e-6)
    high, wide = result.thumbnail.shape[:2]
    assert abs(high - wide * layout.size[1] / layout.size[0]) <= 1
    if min(np.array(layout.span) * [wide, high] / layout.size) > 4:  # else a tile is too small in the picture
        column, row = ((scored.corners + np.array(layout.span) / 2) * [wide, high] / layout.size).astype(int).T
        assert close(result.thumbnail[row, column], layout.colours().reshape(-1, 3), 12)


def test_result_json(scored: Scored) -> None:
    record, layout = json.loads((scored.out / "result.json").read_text()), scored.layout
    grid, slide, counts = record["grid"], record["slide"], record["tiles"]
    assert (grid["columns"], grid["rows"]) == (layout.columns, layout.rows)
    for name in ("span", "step"):
        stated = (grid[f"{name}_x_level0_px"], grid[f"{name}_y_level0_px"])
        assert close(stated, layout.span, 1e-3)
    assert (slide["width"], slide["height"]) == layout.size
    assert close((slide["mpp_x"], slide["mpp_y"]), (layout.mpp_x, layout.mpp_y), 1e-6)
    n = layout.columns * layout.rows
    assert {key: counts[key] for key in ("grid", "background", "seen", "ok", "unreadable")} == {
        "grid": n, "background": 0, "seen": n, "ok": n, "unreadable": 0,
    }  # fmt: skip
    for index, name in enumerate(PATHWAYS):
        drawn = np.sort(scored.result.pathways[:, index].astype(float))  # held to the drawing in test_the_record
        said = record["pathways"]["summary"][name]
        expected = {"mean": drawn.mean(), "sd": drawn.std(ddof=1), "min": drawn[0], "max": drawn[-1]}
        expected |= {f"p{q:02d}": np.percentile(drawn, q, method="inverted_cdf") for q in (5, 25, 50, 75, 95)}
        assert set(said) == set(expected)
        for key, value in expected.items():
            assert close(said[key], value, 1e-6), (name, key)
    head = next(head for head in record["heads"] if head["name"] == "msi")
    pooled = np.zeros(16)
    pooled[:3] = scored.attention @ scored.scores
    logits = pooled @ head_weights(scored.out.parent / "bundle", "msi", "linear") / head["temperature"]
    positive = np.exp(logits[1]) / np.exp(logits).sum()
    assert close(head["probabilities"], [1 - positive, positive])
    assert head["value"] == pytest.approx(head["probabilities"][1])
    low, high = head["interval"]
    assert low < head["value"] < high


def test_hdf5_as_clam_and_trident_read_it(scored: Scored) -> None:
    import h5py

    layout = scored.layout
    with h5py.File(scored.out / "tiles.h5") as file:
        coords, features = file["coords"], file["features"]
        assert np.array_equal(coords[:], scored.corners)
        assert features.shape == (len(scored.corners), 16)
        assert close(features[:, :3], scored.scores)
        assert close(file["pathways"][:], scored.scores)
        assert [name.decode() for name in file["pathway_names"][:]] == list(PATHWAYS)
        assert (file["tissue_fraction"][:] == 1).all()
        assert close(file["attention/msi"][:], scored.attention, 5e-4)
        attributes = dict(coords.attrs)
    assert attributes["patch_size"] == layout.tile_px
    assert attributes["patch_size_level0"] == round(layout.span[0])
    assert (attributes["level0_width"], attributes["level0_height"]) == layout.size
    assert attributes["mpp"] == layout.target_mpp
    assert attributes["target_magnification"] == 20
    assert attributes["level0_magnification"] == 40
    assert attributes["overlap"] == 0
    stated = (attributes["level0_mpp_x"], attributes["level0_mpp_y"])
    assert close(stated, (layout.mpp_x, layout.mpp_y), 1e-6)
    assert close((attributes["span_x_level0"], attributes["span_y_level0"]), layout.span, 1e-3)


def test_parquet_in_pandas(scored: Scored) -> None:
    pandas = pytest.importorskip("pandas")
    from pyarrow import parquet

    table = pandas.read_parquet(scored.out / "tiles.parquet")
    assert np.array_equal(table[["x", "y"]], scored.corners)
    assert np.array_equal(table[["column", "row"]], scored.cells)
    assert close(table[list(PATHWAYS)], scored.scores)
    assert (table["tissue_fraction"] == 1).all()
    assert close(table["attention.msi"], scored.attention, 5e-4)
    notes = {
        key.decode(): value.decode()
        for key, value in parquet.read_schema(scored.out / "tiles.parquet").metadata.items()
    }
    layout = scored.layout
    stated = [float(notes[key]) for key in ("level0_mpp_x", "level0_mpp_y", "span_x_level0", "span_y_level0")]
    assert close(stated, (layout.mpp_x, layout.mpp_y, *layout.span), 1e-3)
    assert (int(notes["tile_px"]), float(notes["target_mpp"])) == (layout.tile_px, layout.target_mpp)


def test_geojson_in_shapely(scored: Scored) -> None:
    shapely = pytest.importorskip("shapely")
    document = json.loads((scored.out / "tiles.geojson").read_text())
    polygons = shapely.from_geojson(json.dumps(document), on_invalid="raise").geoms
    bounds = np.array([polygon.bounds for polygon in polygons])
    width, height = scored.layout.size
    ends = np.minimum(np.rint(scored.corners + np.array(scored.layout.span)), (width, height))
    assert np.array_equal(bounds[:, :2], scored.corners)
    assert np.array_equal(bounds[:, 2:], ends)
    measures = [feature["properties"]["measurements"] for feature in document["features"]]
    assert close([[row[name] for name in PATHWAYS] for row in measures], scored.scores)
    assert {row["tissue fraction"] for row in measures} == {1}
    assert close([row["attention: msi"] for row in measures], scored.attention, 5e-4)
    assert len({feature["id"] for feature in document["features"]}) == len(measures)


def test_ome_tiff_as_qupath_reads_it(scored: Scored) -> None:
    import tifffile

    layout = scored.layout
    side_um = layout.tile_px * layout.target_mpp
    with tifffile.TiffFile(scored.out / "maps.ome.tiff") as file:
        stack = file.series[0].asarray()
        page = file.pages[0]
        attributes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        per_cm = [numerator / denominator for numerator, denominator in (page.tags[t].value for t in (282, 283))]
        unit = page.tags["ResolutionUnit"].value
    assert stack.shape == (3, layout.rows, layout.columns)
    assert close(stack.transpose(1, 2, 0), layout.scores())
    assert [channel["Name"] for channel in attributes["Channel"]] == list(PATHWAYS)
    assert close((attributes["PhysicalSizeX"], attributes["PhysicalSizeY"]), (side_um, side_um), 1e-3)
    assert {attributes.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"} == {"µm"}
    assert int(unit) == 3
    assert close(per_cm, (1e4 / side_um, 1e4 / side_um), 0.1)


def test_anndata_in_anndata(scored: Scored) -> None:
    anndata = pytest.importorskip("anndata")
    data, layout = anndata.read_h5ad(scored.out / "tiles.h5ad"), scored.layout
    assert list(data.var_names) == list(PATHWAYS)
    assert close(data.X, scored.scores)
    assert close(data.obsm["X_embedding"][:, :3], scored.scores)
    assert np.array_equal(data.obs[["x", "y"]], scored.corners)
    assert np.array_equal(data.obs[["array_col", "array_row"]], scored.cells)
    assert close(data.obsm["spatial"], scored.corners + np.array(layout.span) / 2, 1e-3)
    assert close(data.obs["attention_msi"], scored.attention, 5e-4)
    (place,) = data.uns["spatial"].values()
    scale = place["scalefactors"]
    assert scale["tissue_hires_scalef"] == pytest.approx(place["images"]["hires"].shape[1] / layout.size[0])
    assert scale["spot_diameter_fullres"] == pytest.approx(layout.span[0])


only_dicom = pytest.mark.parametrize("scored", ["dicom"], indirect=True, scope="module")


def glass_mm(layout: Layout, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """Millimetres on the glass of level-0 positions: PS3.3 C.8.12.4 by hand; [N, 3].

    Positions count from the outer corner of the first pixel; DICOM places images by that pixel's centre.
    """
    along_row, along_column = np.array(ORIENTATION[:3]), np.array(ORIENTATION[3:])
    right = (np.asarray(x)[:, None] - 0.5) * layout.mpp_x / 1000
    down = (np.asarray(y)[:, None] - 0.5) * layout.mpp_y / 1000
    placed: NDArray[np.float64] = np.array(ORIGIN_MM) + right * along_row + down * along_column
    return placed


def check_place(image: object, layout: Layout) -> None:
    """Spacing, thickness and place of a map of one pixel per tile."""
    import highdicom as hd

    groups = image.SharedFunctionalGroupsSequence[0]  # type: ignore[attr-defined]
    measures = groups.PixelMeasuresSequence[0]
    side_mm = layout.tile_px * layout.target_mpp / 1000
    assert close(measures.PixelSpacing, (side_mm, side_mm), 1e-7)
    assert float(measures.SliceThickness) == THICKNESS_MM
    to_glass = hd.spatial.PixelToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    row, column = np.indices((layout.rows, layout.columns)).reshape(2, -1)
    found = to_glass(np.stack([column, row], axis=1))
    middle = (np.stack([column, row], axis=1) + 0.5) * np.array(layout.span)
    assert close(found, glass_mm(layout, middle[:, 0], middle[:, 1]), 2e-6)


@only_dicom
def test_parametric_maps_in_pydicom(scored: Scored) -> None:
    pytest.importorskip("highdicom")
    import pydicom

    layout = scored.layout
    for index, name in enumerate(PATHWAYS):
        image = pydicom.dcmread(scored.out / "dicom" / f"map-{index + 1:03d}.dcm")
        pixels = np.frombuffer(image.FloatPixelData, "<f4").reshape(image.Rows, image.Columns)
        assert pixels.shape == (layout.rows, layout.columns)
        assert close(pixels, layout.scores()[..., index])
        mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.LUTExplanation == name
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        check_place(image, layout)


@only_dicom
def test_segmentation_in_highdicom(scored: Scored) -> None:
    hd = pytest.importorskip("highdicom")
    segmentation = hd.seg.segread(scored.out / "dicom" / "tiles-seg.dcm")
    mask = segmentation.get_total_pixel_matrix(combine_segments=True)
    assert mask.shape == (scored.layout.rows, scored.layout.columns)
    assert (mask == 1).all()
    check_place(segmentation, scored.layout)


@only_dicom
def test_structured_report_in_highdicom(scored: Scored) -> None:
    hd = pytest.importorskip("highdicom")
    report = hd.sr.srread(scored.out / "dicom" / "calls-sr.dcm")
    groups = {str(group.tracking_identifier): group for group in report.content.get_image_measurement_groups()}
    means = {m.name.meaning: m.value for m in groups["Pathway scores"].get_measurements()}
    assert close(list(means.values()), scored.scores.mean(axis=0))
    values = {m.name.meaning: m.value for m in groups["msi"].get_measurements()}
    (head,) = (head for head in scored.result.heads if head.name == "msi")
    assert values["P(MSI)"] == pytest.approx(head.probabilities[1], abs=1e-6)


# What is left out of a result: damaged tiles and glass.

Spoil = Callable[[Path, int], None]


def truncate(path: Path, number: int) -> None:
    """Let storage tile `number` of level 0 end after a third of its bytes."""
    import tifffile

    with tifffile.TiffFile(path, mode="r+b") as tiff:
        sizes = list(tiff.pages[0].tags["TileByteCounts"].value)
        sizes[number] //= 3
        tiff.pages[0].tags["TileByteCounts"].overwrite(sizes)


def test_damaged_tiles_are_left_out_and_counted(tmp_path: Path) -> None:
    """One storage tile is cut short: just the tiles that need it are missing, and all others keep their place."""
    layout = Layout(mpp_y=0.25)  # whole pixels, so that which tiles touch the damage is plain
    slide = write_tiff(tmp_path / "slide.tif", layout, "jpeg-rgb")
    across = -(-layout.size[0] // STORAGE_PX)
    bad_column, bad_row = 5, 2
    truncate(slide, bad_row * across + bad_column)
    bundle = load_bundle(position_bundle(tmp_path / "bundle", layout))
    writers = ("json", "hdf5", "ome-tiff", "geojson")
    options = InferOptions(
        all_tiles=True, engine="onnxruntime", batch=7, threads=2, max_unreadable=0.05, writers=writers
    )
    result = infer_slide(slide, bundle, tmp_path / "out", options)

    column, row = result.tile_cells.T
    n, per_storage = layout.columns * layout.rows, STORAGE_PX // round(layout.span[0])
    lost = {
        (bad_column * per_storage + dx, bad_row * per_storage + dy)
        for dx in range(per_storage)
        for dy in range(per_storage)
    }
    everything = {(c, r) for c in range(layout.columns) for r in range(layout.rows)}
    assert everything - set(zip(column.tolist(), row.tolist(), strict=True)) == lost
    assert close(result.pathways, layout.scores()[row, column])
    counts = json.loads((tmp_path / "out" / "result.json").read_text())["tiles"]
    assert {key: counts[key] for key in ("grid", "seen", "ok", "corrupt", "missing", "timeout", "unreadable")} == {
        "grid": n, "seen": n, "ok": n - len(lost), "corrupt": len(lost), "missing": 0, "timeout": 0,
        "unreadable": len(lost),
    }  # fmt: skip
    assert any(f"{len(lost)} of {n}" in warning for warning in result.warnings)
    import tifffile

    maps = tifffile.imread(tmp_path / "out" / "maps.ome.tiff")
    blank = {(int(c), int(r)) for r, c in np.argwhere(np.isnan(maps[0]))}
    assert blank == lost
    features = json.loads((tmp_path / "out" / "tiles.geojson").read_text())["features"]
    assert len(features) == n - len(lost)


@pytest.mark.parametrize(("budget", "passes"), [(4 / 312, True), (4 / 312 - 1e-9, False)])
def test_the_budget_holds_at_its_edge(tmp_path: Path, budget: float, passes: bool) -> None:
    """Four of 312 tiles are unreadable: a budget of just that share allows it, anything below does not."""
    from stamp_deploy.errors import SlideError

    layout = Layout(mpp_y=0.25)
    slide = write_tiff(tmp_path / "slide.tif", layout, "jpeg-rgb")
    truncate(slide, 20)
    bundle = load_bundle(position_bundle(tmp_path / "bundle", layout))
    options = InferOptions(all_tiles=True, engine="onnxruntime", max_unreadable=budget, writers=("json",))
    if passes:
        assert infer_slide(slide, bundle, tmp_path / "out", options).tiles.unreadable == 4
    else:
        with pytest.raises(SlideError, match="4 of 312"):
            infer_slide(slide, bundle, tmp_path / "out", options)
        assert not (tmp_path / "out").exists()


def test_glass_is_left_out_and_tissue_fractions_lie_at_their_place(tmp_path: Path) -> None:
    """Three columns are glass, 0.6 of the fourth is tissue, and a damaged storage tile leaves a gap in the order."""
    layout = Layout(columns=8, rows=4, tile_px=128, glass_columns=3)
    picture = layout.picture()
    border = round(3.4 * layout.span[0])
    picture[:, :border] = 244
    slide = write_tiff(tmp_path / "slide.tif", layout, "jpeg-rgb", picture=picture)
    truncate(slide, -(-layout.size[0] // STORAGE_PX) + 2 * 4)  # across the border of tiles (4, 0) and (4, 1)
    bundle = load_bundle(position_bundle(tmp_path / "bundle", layout))
    options = InferOptions(engine="onnxruntime", batch=7, max_unreadable=0.1, writers=("json", "hdf5", "parquet"))
    result = infer_slide(slide, bundle, tmp_path / "out", options)
    column, row = result.tile_cells.T
    tissue = {(c, r) for c in range(3, 8) for r in range(4)}
    assert set(zip(column.tolist(), row.tolist(), strict=True)) == tissue - {(4, 0), (4, 1)}
    assert (result.tiles.background, result.tiles.seen, result.tiles.ok) == (12, 20, 18)
    at_border = column == 3
    assert close(result.tissue_fraction[~at_border], 1, 0.02)
    assert close(result.tissue_fraction[at_border], 0.6, 0.15)
    assert close(result.pathways[~at_border], layout.scores()[row, column][~at_border])
    said = json.loads((tmp_path / "out" / "result.json").read_text())
    assert said["tissue"]["fraction"] == pytest.approx(4.6 / 8, abs=0.05)
    import pandas

    table = pandas.read_parquet(tmp_path / "out" / "tiles.parquet")
    assert np.array_equal(table["tissue_fraction"], result.tissue_fraction)
