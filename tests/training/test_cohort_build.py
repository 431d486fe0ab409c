"""`cohort build`: tiles, quality control, what is refused, and that nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from support.cohort_samples import GENES, SIDE, build, centres, config, picture, sample

from stamp_deploy.errors import DataError, StampError, UsageError
from stamp_deploy.training.cohort import SampleFacts, load_cohort
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.cohort.config import load_config
from stamp_deploy.training.cohort.write import write_cohort_json, write_sample
from stamp_deploy.training.verbs_cohort import cohort as cohort_verb


def centre_of(tile: np.ndarray) -> tuple[float, float]:
    """Where a tile of the picture is centred, in its pixels: from the mean colours."""
    return float(tile[..., 0].mean() * 4 + 1.5 + 0.5), float(tile[..., 1].mean() * 4 + 1.5 + 0.5)


@pytest.mark.parametrize("image", ["image.png", "image.tif", "pyramid.tif"])
def test_tiles_are_centred_on_their_spots(tmp_path: Path, image: str) -> None:
    if image == "pyramid.tif":
        write_pyramid(tmp_path / image)
    made = build(config(tmp_path, sample(tmp_path, image=image)), tmp_path / "out")
    tiles = made.samples[0].tiles()
    assert tiles.shape == (9, 32, 32, 3) and not tiles.flags.writeable
    tolerance = 4.0 if image == "pyramid.tif" else 1.0  # JPEG
    for tile, (x, y) in zip(tiles, centres(), strict=True):
        assert centre_of(tile) == pytest.approx((x, y), abs=tolerance)
    # 32 px at 1 um are 64 px of the image: colours rise by 16 over the tile
    assert float(tiles[0, :, -1, 0].mean() - tiles[0, :, 0, 0].mean()) == pytest.approx(62 / 4, abs=1.5)
    route = made.samples[0].qc["tiles"]["route"]
    assert route == ("jpeg-tiff" if image == "pyramid.tif" else "pyvips")


def write_pyramid(path: Path) -> None:
    full = picture()
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(full, subifds=0, **options)
        writer.write(full[::2, ::2], subfiletype=1, **options)


def test_expression_and_facts_come_back(tmp_path: Path) -> None:
    made = build(config(tmp_path, sample(tmp_path, organ="breast")), tmp_path / "out", pictures=True)
    again = load_cohort(tmp_path / "out")
    s = again.samples[0]
    assert again.samples == made.samples and (s.organ, s.patient, s.n_spots, s.mpp) == ("breast", "P1", 9, 0.5)
    data = s.expression()
    assert list(data.var_names) == GENES and list(data.obs_names) == [f"b{i}" for i in range(9)]
    assert data.X.dtype == np.float32
    np.testing.assert_array_equal(data.obsm["spatial"], centres())
    assert (s.folder / "qc.png").stat().st_size > 10_000
    described = json.dumps(again.describe())
    assert "P1" not in described and "S1" in described
    assert str(tmp_path) not in (tmp_path / "out" / "cohort.json").read_text()


def test_a_rebuild_is_the_same(tmp_path: Path) -> None:
    path = config(tmp_path, sample(tmp_path))
    build(path, tmp_path / "a")
    build(path, tmp_path / "b")
    for name in ("cohort.json", "samples/S1/tiles.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def tissue_picture(path: Path) -> None:
    """A stained square on glass, x 250 to 600 and y 200 to 600."""
    rgb = np.full((SIDE, SIDE, 3), (243, 241, 244), np.uint8)
    rgb[200:600, 250:600] = (190, 110, 170)
    Image.fromarray(rgb).save(path)


def test_places_in_microns_are_noticed_and_converted_where_the_config_says_so(tmp_path: Path) -> None:
    tissue_picture(tmp_path / "image.png")
    places = np.array([[x, y] for y in (260.0, 400.0, 560.0) for x in (300.0, 420.0, 560.0)])
    pixels, microns = {"centres": places}, {"centres": places * 0.5}
    made = build(config(tmp_path, sample(tmp_path, "px", **pixels)), tmp_path / "px")
    np.testing.assert_array_equal(made.samples[0].expression().obsm["spatial"], places)
    with pytest.raises(DataError, match="100% if they are microns") as caught:
        build(config(tmp_path, sample(tmp_path, "um", **microns)), tmp_path / "refused")
    assert 'coordinates = "um"' in caught.value.remedy
    made = build(config(tmp_path, sample(tmp_path, "um", **microns, coordinates="um")), tmp_path / "um")
    np.testing.assert_array_equal(made.samples[0].expression().obsm["spatial"], places)
    assert build(config(tmp_path, sample(tmp_path, "um", **microns, coordinates="px")), tmp_path / "stated").samples
    with pytest.raises(UsageError, match="does not exist"):
        build(config(tmp_path, sample(tmp_path, "um", coordinates="inch")), tmp_path / "inch")


def test_places_in_microns_of_a_coarse_image_lie_outside_it(tmp_path: Path) -> None:
    tissue_picture(tmp_path / "image.png")
    places = np.array([[x, y] for y in (260.0, 400.0, 560.0) for x in (300.0, 420.0, 560.0)])
    with pytest.raises(DataError, match="none if they are microns"):
        build(config(tmp_path, sample(tmp_path, centres=places * 2, mpp=2.0), mpp=2.0), tmp_path / "out")


def test_what_a_person_should_look_at_is_said(tmp_path: Path) -> None:
    genes = [*(f"GRCh38_G{i}" for i in range(27)), "GRCh38_G0-1", "1-Mar", "mm10___Trp53"]
    said: list[str] = []
    made = build_cohort(
        config(tmp_path, sample(tmp_path, genes=genes)), tmp_path / "out", pictures=False, log=said.append
    )
    names = list(made.samples[0].expression().var_names)
    assert names == [f"G{i}" for i in range(27)]
    warnings = [line for line in said if "warning" in line]
    assert any("1-Mar" in w for w in warnings) and any("GENE-1" in w for w in warnings)
    assert any("left out: 1 of mm10" in w for w in warnings)
    assert made.samples[0].qc["genome"] == "GRCh38" and made.samples[0].qc["gene_names"]["dates"] == ["1-Mar"]


def test_poor_spots_are_left_out(tmp_path: Path) -> None:
    counts = np.ones((9, 30), np.float32)
    counts[4, 5:] = 0
    made = build(config(tmp_path, sample(tmp_path, counts=counts)), tmp_path / "out")
    s = made.samples[0]
    assert s.n_spots == 8 and "b4" not in s.expression().obs_names
    assert s.qc["spots_poor"] == 1
    assert centre_of(s.tiles()[4]) == pytest.approx((500, 300), abs=1)  # the next spot moved up


def test_tiles_at_the_edge_are_filled_with_white(tmp_path: Path) -> None:
    places = centres()
    places[0] = [10, 10]
    for image in ("image.png", "pyramid.tif"):
        if image == "pyramid.tif":
            write_pyramid(tmp_path / image)
        made = build(config(tmp_path, sample(tmp_path, centres=places, image=image)), tmp_path / image[:4])
        tile = made.samples[0].tiles()[0]
        assert (tile[:9, :9] > 250).all()
        assert tile[20, 20, 2] < 230
        assert made.samples[0].qc["tiles"]["at_edge"] == 1


def test_coarse_images_are_enlarged_only_when_asked(tmp_path: Path) -> None:
    one = sample(tmp_path, mpp=1.5)
    with pytest.raises(DataError, match="pixels would have to be invented") as caught:
        build(config(tmp_path, one), tmp_path / "out")
    assert "allow_upsampling" in caught.value.remedy
    made = build(config(tmp_path, one, allow_upsampling=True), tmp_path / "out")
    s = made.samples[0]
    assert s.qc["tiles"]["upsampled"] == 1.5
    assert centre_of(s.tiles()[4]) == pytest.approx((300, 300), abs=2)


def test_barcodes_in_another_order_give_the_same_pairs(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(9)
    counts = np.arange(270, dtype=np.float32).reshape(9, 30) + 1
    first = build(config(tmp_path, sample(tmp_path, counts=counts)), tmp_path / "a").samples[0]
    mixed = sample(tmp_path, counts=counts[order], centres=centres()[order])
    second = build(config(tmp_path, mixed), tmp_path / "b").samples[0]
    np.testing.assert_array_equal(first.tiles()[order], second.tiles())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"patient_id": None}, "no patient id"),
        ({"patient_id": "  "}, "no patient id"),
        ({"mpp": None}, "microns per pixel are unknown"),
        ({"mpp": -1}, "not a positive number"),
        ({"centres": centres() + 300}, "lie outside the image of 640 x 640"),
        ({"counts": np.full((9, 30), np.nan, np.float32)}, "NaN"),
        ({"counts": np.full((9, 30), -1, np.float32)}, "negative"),
        ({"counts": np.full((9, 30), 0.5, np.float32)}, "look normalised"),
        ({"genes": [f"ENSG{i:011d}" for i in range(30)]}, "has a symbol"),
        ({"counts": np.eye(9, 30, dtype=np.float32)}, "no spot has 10 genes"),
        ({"image": "missing/image.png"}, "does not exist"),
        ({"id": "../evil"}, "cannot be a sample's id"),
    ],
)
def test_bad_samples_are_refused_and_leave_nothing(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    if change.get("image", "").startswith("missing"):
        lines = sample(tmp_path).replace("image.png", change["image"])
    elif "id" in change:
        lines = sample(tmp_path).replace('id = "S1"', 'id = "../evil"', 1)
    else:
        lines = sample(tmp_path, **change)
    with pytest.raises(StampError, match=cause) as caught:
        build(config(tmp_path, lines), tmp_path / "out")
    assert caught.value.remedy or "not a positive number" in cause
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize(
    ("pixels", "cause"), [(picture()[..., 0], "grey picture"), (picture() // 8 * [0, 0, 1], "fluorescence")]
)
def test_images_that_are_no_brightfield_colour_are_refused(tmp_path: Path, pixels: np.ndarray, cause: str) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "image.png")
    with pytest.raises(StampError, match=cause):
        build(config(tmp_path, sample(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ome", [True, False])
def test_colour_kept_as_three_grey_pages_is_never_taken_for_grey(tmp_path: Path, ome: bool) -> None:
    """Refused with the cause, or merged into the colours that they are: not the first page alone."""
    pages = np.ascontiguousarray(np.moveaxis(picture(), -1, 0))
    name = tmp_path / ("image.ome.tif" if ome else "image.tif")
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (128, 128)}
    if ome:
        tifffile.imwrite(name, pages, ome=True, metadata={"axes": "CYX"}, **options)
    else:
        tifffile.imwrite(name, pages, metadata=None, **options)
    lines = config(tmp_path, sample(tmp_path, image=name.name))
    try:
        made = build(lines, tmp_path / "out")
    except StampError as error:
        assert "grey" in str(error) and error.remedy and not (tmp_path / "out").exists()
    else:
        assert centre_of(made.samples[0].tiles()[0]) == pytest.approx(tuple(centres()[0]), abs=1.5)


def test_the_sample_is_named(tmp_path: Path) -> None:
    good, bad = sample(tmp_path, "S1"), sample(tmp_path, "S2", centres=centres() + 400)
    with pytest.raises(DataError, match="sample S2"):
        build(config(tmp_path, good, bad), tmp_path / "out")


def test_spots_outside_can_be_dropped(tmp_path: Path) -> None:
    lines = sample(tmp_path, centres=centres() + 300, outside="drop")
    made = build(config(tmp_path, lines), tmp_path / "out")
    assert made.samples[0].n_spots == 4 and made.samples[0].qc["spots_outside"] == 5


def test_gene_sets_are_checked_and_reported(tmp_path: Path) -> None:
    (tmp_path / "s.gmt").write_text("HALF\tx\t" + "\t".join([*GENES[:12], *(f"X{i}" for i in range(12))]) + "\n")
    made = build(config(tmp_path, sample(tmp_path), gmt=["s.gmt"]), tmp_path / "out")
    assert made.samples[0].qc["coverage"]["s.gmt"]["fractions"] == {"HALF": 0.5}
    mouse = sample(tmp_path, genes=[f"Gm{i}abc" for i in range(30)])
    with pytest.raises(DataError, match="no gene set can be scored") as caught:
        build(config(tmp_path, mouse, gmt=["s.gmt"]), tmp_path / "none")
    assert "mouse" in caught.value.remedy


def test_statements_of_resolution_that_differ_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{x}\t{y}\t{x * 200}\t{y * 200}\n" for x in (1, 2, 3) for y in (1, 2, 3))
    (tmp_path / "s.tsv").write_text("x\ty\tpixel_x\tpixel_y\n" + rows)
    header = "\t".join(["", *GENES])
    lines = [f"{x}x{y}\t" + "\t".join("2" for _ in GENES) for x in (1, 2, 3) for y in (1, 2, 3)]
    (tmp_path / "c.tsv").write_text("\n".join([header, *lines]))
    Image.fromarray(picture()).save(tmp_path / "i.jpg", quality=95)
    values = {"id": "L", "patient_id": "P", "format": "legacy-st", "counts": "c.tsv", "spots": "s.tsv"}
    values |= {"image": "i.jpg", "spot_pitch_um": 200}

    def table(**more: Any) -> str:
        return "[[samples]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in {**values, **more}.items())

    made = build(config(tmp_path, table(), tile_px=16, mpp=2.0), tmp_path / "a")
    assert made.samples[0].mpp == pytest.approx(1.0) and "200 um stated" in made.samples[0].mpp_source
    with pytest.raises(DataError, match=r"in doubt: 0\.5"):
        build(config(tmp_path, table(mpp=0.5), tile_px=16, mpp=2.0), tmp_path / "b")
    made = build(config(tmp_path, table(mpp=0.5, mpp_overrides=True), tile_px=16, mpp=2.0), tmp_path / "b")
    assert made.samples[0].mpp == 0.5 and "not believed" in made.samples[0].mpp_source


def test_real_visium_is_mouse_tissue_and_says_so(tmp_path: Path, data_dir: Path) -> None:
    values = {
        "id": "mouse", "patient_id": "m1", "format": "visium", "folder": str(data_dir / "st" / "visium_cytassist"),
        "image": str(data_dir / "st" / "visium_cytassist" / "spatial" / "aligned_fiducials.jpg"),
    }  # fmt: skip
    lines = "[[samples]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    gmt = str(data_dir / "gmt" / "h.all.v2025.1.Hs.symbols.gmt")
    with pytest.raises(DataError, match="no gene set can be scored") as caught:
        build(config(tmp_path, lines, tile_px=16, mpp=5.0, gmt=[gmt]), tmp_path / "out")
    assert "mouse" in caught.value.remedy
    made = build(config(tmp_path, lines, tile_px=16, mpp=5.0, min_genes=200), tmp_path / "out")
    assert made.samples[0].mpp == pytest.approx(4.667, abs=1e-3)
    assert made.samples[0].n_spots == 1043  # of 2,898: the others have fewer than 200 genes


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("tile_px = [", "TOML"),
        ("tilepx = 3\n[[samples]]\nid = 'a'", "unknown key tilepx"),
        ("tilepx = 3\n[[samples]]\nid = 'a'", "did you mean tile_px"),
        ("[[samples]]\nid = 'a'\nformat = 'visium'\nfloder = 'x'", "did you mean folder"),
        ("[[samples]]\nid = 'a'\nformat = 'vissium'", "did you mean visium"),
        ("[[samples]]\nid = 'a'\nformat = 'visium'\nimage_level = 'high'", "image_level = 'high' does not exist"),
        ("tile_px = 'a'\n[[samples]]\nid = 'a'", "wrong type"),
        ("mpp = 50\n[[samples]]\nid = 'a'", "not possible"),
        ("", "names no samples"),
        ("[[samples]]\npatient_id = 'p'", "has no id"),
        ("[[samples]]\nid = 'a'", "states no format"),
        ("[[samples]]\nid = 'a'\nformat = 'visium'\nfloder = 'x'", "unknown key floder"),
        ("[[samples]]\nid = 'a'\nformat = 'visium'\n[[samples]]\nid = 'a'\nformat = 'visium'", "comes twice"),
    ],
)
def test_broken_configs_are_refused(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises((UsageError, DataError), match=cause):
        load_config(path)


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda c, d: d.update(schema="other"), "schema"),
        (lambda c, d: d["samples"][0].update(patient_id=""), "no patient id"),
        (lambda c, d: d["samples"][0].update(id="../../etc"), "cannot be a sample's id"),
        (lambda c, d: d["samples"].append(d["samples"][0]), "comes twice"),
        (lambda c, d: d.pop("tile_px"), "lacks or has wrong fields"),
        (lambda c, d: d.update(samples=[]), "no samples"),
    ],
)
def test_damaged_cohorts_are_refused(tmp_path: Path, damage: Any, cause: str) -> None:
    build(config(tmp_path, sample(tmp_path)), tmp_path / "out")
    path = tmp_path / "out" / "cohort.json"
    document = json.loads(path.read_text())
    damage(tmp_path, document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=cause):
        load_cohort(tmp_path / "out")


def test_a_short_tile_file_is_refused(tmp_path: Path) -> None:
    made = build(config(tmp_path, sample(tmp_path)), tmp_path / "out")
    np.save(made.samples[0].folder / "tiles.npy", np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="build the cohort again"):
        made.samples[0].tiles()


def test_write_sample_checks_what_it_is_given(tmp_path: Path) -> None:
    data = anndata.AnnData(np.ones((2, 2)), obsm={"spatial": np.zeros((2, 2))})
    with pytest.raises(DataError, match="no patient id"):
        write_sample(tmp_path, data, np.zeros((2, 8, 8, 3), np.uint8), SampleFacts("a", "", mpp=1.0))
    with pytest.raises(DataError, match="not uint8"):
        write_sample(tmp_path, data, np.zeros((3, 8, 8, 3), np.uint8), SampleFacts("a", "p", mpp=1.0))
    facts = write_sample(tmp_path, data, np.zeros((2, 8, 8, 3), np.uint8), SampleFacts("a", "p", mpp=1.0))
    assert write_cohort_json(tmp_path, [facts], tile_px=8, mpp=1.0).samples[0].n_spots == 2


def test_the_command_line(tmp_path: Path) -> None:
    path = config(tmp_path, sample(tmp_path))
    run = CliRunner()
    dry = run.invoke(cohort_verb, ["build", str(path), "--dry-run"])
    assert dry.exit_code == 0 and "nothing was written" in dry.output and not (tmp_path / "out").exists()
    made = run.invoke(cohort_verb, ["build", str(path), "-o", str(tmp_path / "out"), "--no-pictures"])
    assert made.exit_code == 0 and "1 samples of 1 patients, 9 spots" in made.output
    again = run.invoke(cohort_verb, ["build", str(path), "-o", str(tmp_path / "out")])
    assert isinstance(again.exception, UsageError)
    listed = run.invoke(cohort_verb, ["show", str(tmp_path / "out")])
    assert "S1" in listed.output and "P1" not in listed.output
