"""The gallery: which tiles it shows, that they are the slide's own pixels, and that it travels with the result."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from support.bundle_factory import make_bundle
from support.result_factory import make_result, make_trust
from support.slide_factory import damage, texture, write_slide

import stamp_deploy as sd
from stamp_deploy.errors import DataError
from stamp_deploy.gallery import ARRAYS, TILES_A_SIDE, Gallery, as_table, extremes
from stamp_deploy.gallery_tiles import MAX_BYTES, MAX_SIDE_PX, fine_grid, fit
from stamp_deploy.grid import Grid
from stamp_deploy.result_files import read_result
from stamp_deploy.writers import write_all

SIDE_PX, TARGET_MPP, MPP = 64, 0.5, 0.25


def jpeg(picture: np.ndarray, quality: int = 85) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_extremes_are_the_highest_and_lowest_apart_from_each_other() -> None:
    rows, columns = 12, 15
    cells = np.stack(np.divmod(np.arange(rows * columns), columns)[::-1], axis=1)
    for seed in range(5):
        random = np.random.default_rng(seed)
        scores, fraction = random.normal(size=len(cells)), random.uniform(0.3, 1, len(cells))
        counted = random.random(len(cells)) < 0.9
        high, low = extremes(scores, fraction, cells, counted)
        assert len(high) == len(low) == TILES_A_SIDE
        usable = np.flatnonzero(counted & (fraction >= 0.5))
        for side, sign in ((high, -1), (low, 1)):
            assert set(side) <= set(usable)
            assert (np.diff(sign * scores[side]) >= 0).all(), "the most extreme comes first"
            apart = np.abs(cells[side][:, None] - cells[side][None]).max(axis=2)
            assert (apart + 9 * np.eye(TILES_A_SIDE) > 1).all(), "no two are neighbours"
            assert side[0] == usable[np.argmin(sign * scores[usable])]
            for (
                tile
            ) in usable:  # whatever is more extreme than the last one and was passed over touches one that was not
                if sign * scores[tile] < sign * scores[side[-1]] and tile not in side:
                    assert np.abs(cells[side] - cells[tile]).max(axis=1).min() <= 1


@pytest.mark.parametrize(("n", "high", "low"), [(1, 1, 0), (2, 1, 1), (5, 3, 2), (8, 4, 4)])
def test_few_tiles_are_shown_once_each(n: int, high: int, low: int) -> None:
    cells = np.stack([np.arange(n), np.zeros(n, int)], axis=1)
    found = extremes(np.arange(n, dtype=float), np.full(n, 0.1), cells, np.ones(n, bool))
    assert [len(side) for side in found] == [high, low]
    assert len(np.unique(np.concatenate(found))) == high + low


def test_pictures_have_the_pixels_of_level_0_up_to_a_limit() -> None:
    fine = fine_grid(Grid(20_000, 10_000, 0.25, 0.27, 0.5, 224))
    assert fine.tile_px == 414  # 112 um at 0.27 um/px, 414.8 px
    assert (fine.span_x, fine.span_y) == pytest.approx((448, 112 / 0.27))
    coarse = fine_grid(Grid(20_000, 10_000, 0.25, 0.25, 2.0, 224))
    assert coarse.tile_px == MAX_SIDE_PX
    assert coarse.span_x == pytest.approx(1792)


def test_pictures_are_coded_again_until_they_fit() -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (448, 448, 3), dtype=np.uint8) for i in range(40)]
    files = [jpeg(picture) for picture in noise]
    assert sum(map(len, files)) > MAX_BYTES
    smaller, reduced = fit(files)
    assert sum(map(len, smaller)) <= MAX_BYTES
    assert {Image.open(io.BytesIO(file)).size for file in smaller} == {(448 // reduced,) * 2}
    few, whole = fit(files[:3])
    assert list(few) == files[:3]
    assert whole == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with a slide, a bundle and a result, and the slide's picture."""
    folder = tmp_path_factory.mktemp("gallery")
    picture = texture(1300, 1600)
    write_slide(folder / "slide.svs", picture, mpp=MPP)
    make_bundle(folder / "bundle", tile_px=SIDE_PX, mpp=TARGET_MPP)
    options: dict[str, Any] = {"engine": "onnxruntime", "progress": False, "all_tiles": True}
    sd.infer_slide(folder / "slide.svs", folder / "bundle", folder / "result", **options)
    return folder, picture


def test_pictures_are_the_slides_own_pixels_where_the_result_says(place: tuple[Path, np.ndarray]) -> None:
    folder, picture = place
    result = read_result(folder / "result")
    gallery = result.gallery
    assert gallery is not None
    assert gallery.side_px == 128
    assert gallery.mpp == pytest.approx(0.25)
    for i, side in enumerate((gallery.highest, gallery.lowest)):
        for column in range(result.pathways.shape[1]):
            chosen = extremes(
                result.pathways[:, column], result.tissue_fraction, result.tile_cells, np.ones(len(result.coords), bool)
            )[i]
            assert np.array_equal(side[column], chosen)
    for tile, file in zip(gallery.tiles, gallery.jpeg, strict=True):
        x, y = result.coords[tile]
        shown = np.asarray(Image.open(io.BytesIO(file))).astype(int)
        there = picture[y : y + 128, x : x + 128].astype(int)
        if there.shape == shown.shape:  # tiles at the edge reach beyond the slide
            assert np.corrcoef(shown.ravel(), there.ravel())[0, 1] > 0.97  # JPEG, twice


def test_the_report_shows_them_again_without_the_slide(place: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, _ = place
    result = read_result(folder / "result")
    write_all(result, tmp_path, ["report"])
    ours = (tmp_path / "report.html").read_text()
    assert 'id="highest"' in ours
    first = (folder / "result" / "report.html").read_text()
    part = first.index('"gallery":')
    assert ours[ours.index('"gallery":') :][:5000] == first[part : part + 5000]


def test_no_pictures_are_taken_where_no_format_holds_them(place: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, _ = place
    options: dict[str, Any] = {"engine": "onnxruntime", "progress": False, "all_tiles": True}
    result = sd.infer_slide(folder / "slide.svs", folder / "bundle", tmp_path / "r", formats=["json"], **options)
    assert result.gallery is None
    assert "gallery" not in result.timing


def test_tiles_that_summaries_leave_out_are_not_shown(
    place: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = place
    before = read_result(folder / "result")
    assert before.gallery is not None
    gone = np.unique(np.concatenate([before.gallery.highest.ravel(), before.gallery.lowest.ravel()]))
    trust = make_trust(len(before.coords), "doubtful", gone.tolist())
    monkeypatch.setattr("stamp_deploy.score.judge_slide", lambda *_: trust)
    options: dict[str, Any] = {"engine": "onnxruntime", "progress": False, "all_tiles": True}
    result = sd.infer_slide(folder / "slide.svs", folder / "bundle", **options)
    assert result.gallery is not None
    assert not set(result.gallery.tiles.tolist()) & set(gone.tolist())
    assert (result.gallery.highest >= 0).all()


def test_the_report_says_where_there_is_no_gallery() -> None:
    from stamp_deploy.writers.report_html import render

    page = render(make_result())
    assert "Not available: this result holds no pictures of tiles" in page
    assert 'id="highest"' not in page


def test_a_tile_that_cannot_be_read_is_not_shown(place: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, picture = place
    write_slide(tmp_path / "slide.svs", picture, mpp=MPP)
    damage(tmp_path / "slide.svs", 6, "garbage")
    options: dict[str, Any] = {"engine": "onnxruntime", "progress": False, "all_tiles": True, "max_unreadable": 0.5}
    result = sd.infer_slide(tmp_path / "slide.svs", folder / "bundle", **options)
    assert result.tiles.unreadable > 0
    assert result.gallery is not None
    assert result.gallery.tiles.max() < len(result.coords)


def test_a_stored_gallery_that_contradicts_itself_is_refused(place: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    import shutil

    folder, _ = place
    shutil.copytree(folder / "result", tmp_path / "result")
    with h5py.File(tmp_path / "result" / "tiles.h5", "r+") as file:
        file["gallery/jpeg_end"][-1] += 1
    with pytest.raises(DataError, match="gallery"):
        read_result(tmp_path / "result")


def test_a_gallery_names_only_tiles_that_it_shows() -> None:
    table = as_table([np.array([3, 1])])
    good = Gallery(table, as_table([np.array([2])]), np.array([1, 2, 3]), (b"a", b"b", b"c"), 4, 0.25)
    again = Gallery.from_arrays({**good.to_arrays(), ARRAYS[-1]: good.rule.encode()})
    assert again is not None
    assert again.jpeg == good.jpeg
    assert np.array_equal(again.highest, table)
    with pytest.raises(ValueError, match="no picture"):
        replace(good, tiles=np.array([1, 2, 4]))
    with pytest.raises(ValueError, match="does not have"):
        make_result(3, 1, gallery=good)
