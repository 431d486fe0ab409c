"""What a file leaves out: background where the format may, the finer level in Aperio slides, else damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.format_factory import PHILIPS, PHILIPS_LEVEL
from support.slide_factory import replace_tiles, texture, write_slide
from tiles.test_tiles import difference, read_all

from stamp_deploy.absence import leave_out
from stamp_deploy.grid import make_grid
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus
from stamp_deploy.tissue import TissueRule, find_tissue

SIDE, STORAGE = 1024, 128


def stained(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Tissue in the middle, glass around it."""
    picture = np.full((height, width, 3), 243, np.uint8)
    y, x = height // 8, width // 8
    picture[y:-y, x:-x] = np.clip(texture(height - 2 * y, width - 2 * x).astype(int) // 3 + (130, 60, 110), 0, 255)
    return picture


def write_generic(path: Path, picture: NDArray[np.uint8], *, levels: tuple[int, ...] = (4,)) -> Path:
    """A pyramidal TIFF that no vendor has marked, 0.5 um/px."""
    options = {"photometric": "rgb", "tile": (STORAGE, STORAGE), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, resolution=(20000, 20000), resolutionunit=3, **options)
        for level in levels:
            writer.write(np.ascontiguousarray(picture[::level, ::level]), subfiletype=1, **options)
    return path


def lower_half(number: int, side: int) -> bool:
    across = -(-side // STORAGE)
    return number // across >= across // 2


def sparse(tmp_path: Path, *, every_level: bool = True) -> Path:
    """A generic TIFF whose lower half was never written."""
    path = write_generic(tmp_path / "whole.tif", stained())
    for page, side in ((0, SIDE), (1, SIDE // 4))[: 2 if every_level else 1]:
        target = tmp_path / f"sparse-{page}.tif"
        replace_tiles(path, target, lambda n, s, side=side: b"" if lower_half(n, side) else s, page)  # type: ignore[misc]
        path = target
    return path


@pytest.mark.parametrize("route", ["jpeg-tiff", "openslide"])
@pytest.mark.parametrize("factor", [1, 1.3, 2])
def test_what_a_generic_tiff_leaves_out_is_white(tmp_path: Path, route: str, factor: float) -> None:
    path = sparse(tmp_path, every_level=False)
    pixels, status, tiles = read_all(path, route, tile_px=96, target_mpp=0.5 * factor)
    assert (status == TileStatus.OK).all()
    below = tiles.coords[:, 1] >= SIDE // 2
    assert below.any()
    assert (pixels[below] == 255).all()
    assert pixels[~below].std() > 10
    whole, _, _ = read_all(tmp_path / "whole.tif", route, tile_px=96, target_mpp=0.5 * factor)
    above = tiles.coords[:, 1] + 96 * factor <= SIDE // 2
    np.testing.assert_array_equal(pixels[above], whole[above])


def test_both_routes_show_the_same_across_the_edge(tmp_path: Path) -> None:
    path = sparse(tmp_path, every_level=False)
    ours, theirs = (read_all(path, route, tile_px=100, target_mpp=0.5)[0] for route in ("jpeg-tiff", "openslide"))
    assert difference(ours, theirs).max() <= 1


@pytest.mark.parametrize("every_level", [True, False])
def test_a_half_that_was_never_written_is_told(tmp_path: Path, every_level: bool) -> None:
    """It is no glass that nobody hears of: counted, out of the mask, and the edge along tissue is told."""
    with open_slide(sparse(tmp_path, every_level=every_level)) as slide:
        grid = make_grid(slide, target_mpp=0.5, tile_px=64)
        tissue = find_tissue(slide, TissueRule())
        less, absence = leave_out(slide, grid, tissue)
        assert less is not None
        assert absence.share == pytest.approx(0.5)
        assert absence.tiles == grid.columns * grid.rows // 2
        assert not less.mask[len(less.mask) // 2 + 1 :].any()
        assert less.mask[: len(less.mask) // 2].any()
        assert absence.edge_um == pytest.approx(SIDE * 0.5 * 3 / 4, rel=0.3)
        assert "cuts tissue" in absence.notes[0]


def test_absent_glass_is_counted_without_alarm(tmp_path: Path) -> None:
    path = write_generic(tmp_path / "whole.tif", stained(), levels=())
    corner = replace_tiles(path, tmp_path / "corner.tif", lambda n, s: b"" if n == 0 else s)
    with open_slide(corner) as slide:
        tissue, absence = leave_out(
            slide, make_grid(slide, target_mpp=0.5, tile_px=64), find_tissue(slide, TissueRule())
        )
        assert absence.tiles == 4
        assert absence.notes
        assert "cuts" not in absence.notes[0]
        assert "look at" not in absence.notes[0]
    with open_slide(path) as slide:
        assert leave_out(slide, make_grid(slide, target_mpp=0.5, tile_px=64), tissue)[1].notes == ()


@pytest.mark.parametrize("name", ["a-svs-length0.svs", "b-svs-both0.svs"])
def test_an_aperio_level_tile_comes_from_the_finer_level(data_dir: Path, name: str) -> None:
    path = data_dir / "cases" / "11-svs-missing-level-tile" / name
    for factor in (1.0, 2.0):
        ours, status, _ = read_all(path, "jpeg-tiff", tile_px=64, target_mpp=factor)
        theirs, _, _ = read_all(path, "openslide", tile_px=64, target_mpp=factor)
        assert (status == TileStatus.OK).all()
        assert difference(ours, theirs).mean() <= 1
        assert (ours < 250).any()


def test_a_generic_level_with_a_hole_is_not_used_where_level_0_has_none(data_dir: Path) -> None:
    """OpenSlide shows white there; the levels contradict each other, and the finer one is believed."""
    path = data_dir / "cases" / "11-svs-missing-level-tile" / "c-generic.tif"
    with open_slide(path, mpp=0.25) as slide:
        assert "shows another picture" in slide.notes[0]
    for route in ("jpeg-tiff", "openslide"):
        pixels, status, _ = read_all(path, route, tile_px=64, target_mpp=1.0, mpp=0.25)
        assert (status == TileStatus.OK).all()
        assert not (pixels == 255).all(axis=(1, 2, 3)).any()


def holes(tmp_path: Path, page: int, numbers: tuple[int, ...]) -> tuple[Path, Path]:
    clean = write_slide(tmp_path / "clean.svs", stained(), tile=STORAGE, levels=(4,))
    return clean, replace_tiles(clean, tmp_path / f"holes-{page}.svs", lambda n, s: b"" if n in numbers else s, page)


@pytest.mark.parametrize("route", ["jpeg-tiff", "openslide"])
def test_an_aperio_hole_in_level_0_is_missing_at_every_level(tmp_path: Path, route: str) -> None:
    _, path = holes(tmp_path, 0, (3 * 8 + 4,))  # pixels 512..640 x 384..512
    for factor in (1, 4):
        _, status, tiles = read_all(path, route, tile_px=32, target_mpp=0.5 * factor)
        x, y = tiles.coords.T
        span = 32 * factor
        touched = (x < 640) & (x + span > 512) & (y < 512) & (y + span > 384)
        np.testing.assert_array_equal(status, np.where(touched, TileStatus.MISSING, TileStatus.OK))


def test_an_aperio_tile_over_a_hole_is_not_trusted(tmp_path: Path) -> None:
    """OpenSlide takes it from the finer level; so do we, although the coarser one has pixels there."""
    clean, path = holes(tmp_path, 0, (0,))
    lying = replace_tiles(path, tmp_path / "lying.svs", lambda n, s: streams_of(clean, 1)[3] if n == 0 else s, 1)
    ours, status, tiles = read_all(lying, "jpeg-tiff", tile_px=32, target_mpp=2.0)
    theirs, _, _ = read_all(lying, "openslide", tile_px=32, target_mpp=2.0)
    ok = status == TileStatus.OK
    assert (tiles.coords[ok] < 512).all(1).sum() > 8
    assert difference(ours[ok], theirs[ok]).max() <= 1


def streams_of(path: Path, page: int) -> list[bytes]:
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        places = zip(tiff.pages[page].dataoffsets, tiff.pages[page].databytecounts, strict=True)
        return [data[offset : offset + size] for offset, size in places]


def test_an_aperio_slide_without_its_lower_half_is_no_glass(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "clean.svs", stained(), tile=STORAGE, levels=(4,))
    for page, side in ((0, SIDE), (1, SIDE // 4)):
        target = tmp_path / f"half-{page}.svs"
        replace_tiles(path, target, lambda n, s, side=side: b"" if lower_half(n, side) else s, page)  # type: ignore[misc]
        path = target
    with open_slide(path) as slide:
        assert slide.left_out is None
        tissue = find_tissue(slide, TissueRule())
        assert tissue.mask[len(tissue.mask) // 2 + 1 :].all()  # tried, and found missing


def test_frames_that_a_sparse_dicom_slide_does_not_hold_are_background(data_dir: Path, tmp_path: Path) -> None:
    import pydicom
    from pydicom.encaps import encapsulate, generate_frames

    source = data_dir / "dicom" / "camelyon_multiframe_jpeg.dcm"
    path = tmp_path / "sparse.dcm"
    shutil.copy(source, path)
    dataset = pydicom.dcmread(path)
    across = -(-dataset.TotalPixelMatrixColumns // dataset.Columns)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    kept = [i for i in range(len(frames)) if i not in (0, 1)]
    dataset.DimensionOrganizationType = "TILED_SPARSE"
    dataset.PerFrameFunctionalGroupsSequence = [position(i % across, i // across, dataset) for i in kept]
    dataset.PixelData = encapsulate([frames[i] for i in kept])
    dataset.NumberOfFrames = len(kept)
    dataset.save_as(path)
    with open_slide(path, mpp=0.25) as slide:
        slide.thumbnail(512)
        assert slide.left_out is not None
        corners = np.array([[0, 0], [dataset.Columns, 0], [2 * dataset.Columns, 0]])
        np.testing.assert_array_equal(slide.left_out.touched(corners + 8, 16, 16), [True, True, False])


def position(column: int, row: int, dataset):  # type: ignore[no-untyped-def]
    import pydicom

    place = pydicom.Dataset()
    place.ColumnPositionInTotalImagePixelMatrix = column * dataset.Columns + 1
    place.RowPositionInTotalImagePixelMatrix = row * dataset.Rows + 1
    frame = pydicom.Dataset()
    frame.PlanePositionSlideSequence = [place]
    return frame


def test_what_a_philips_slide_leaves_out_is_background(tmp_path: Path) -> None:
    path, picture = tmp_path / "whole.tiff", stained()
    options = {"photometric": "rgb", "tile": (STORAGE, STORAGE), "compression": "jpeg", "metadata": None}
    levels = "".join(PHILIPS_LEVEL.format(mm=mm) for mm in (0.0005, 0.002))
    record = PHILIPS.format(levels=levels, mm=0.0005)
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, description=record, software="Philips DP v1.0", **options)
        writer.write(np.ascontiguousarray(picture[::4, ::4]), subfiletype=1, **options)
    holes = replace_tiles(path, tmp_path / "holes.tiff", lambda n, s: b"" if n in (0, 7, 28) else s)
    with open_slide(holes) as slide:
        assert slide.vendor == "philips"
        assert slide.missing is None
        absence = leave_out(slide, make_grid(slide, target_mpp=0.5, tile_px=STORAGE), None)[1]
        assert absence.tiles == 3
        assert absence.notes
        assert (slide.read_region(0, 0, 0, STORAGE, STORAGE) == 255).all()
    _, status, _ = read_all(holes, "openslide", tile_px=64, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
