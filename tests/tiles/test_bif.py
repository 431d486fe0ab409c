"""Ventana BIF: OpenSlide's pixels, also where joints are named from the other side, which it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bif_factory import write_bif
from support.format_factory import Page, pages_of, set_colours
from support.slide_factory import replace_tiles, texture, write_slide
from tiles.test_tiles import difference, read_all

from stamp_deploy.errors import SlideError, StampError
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.storage.bif_layout import read_bif
from stamp_deploy.tiles import TileStatus

SIDE, COLUMNS, ROWS = 64, 11, 8
WHOLE = [(0, 0, COLUMNS, ROWS)]
NAMES = [("LEFT", "UP"), ("RIGHT", "DOWN"), ("LEFT", "DOWN")]


def pages_for(folder: Path, levels: tuple[int, ...] = (2, 4), seed: int = 0) -> list[Page]:
    picture = texture(ROWS * SIDE, COLUMNS * SIDE, seed)
    return pages_of(write_slide(folder / f"{seed}.svs", picture, tile=SIDE, coding="422", levels=levels))


def test_tiles_that_touch_go_through_the_compiled_tiler(tmp_path: Path) -> None:
    pages = pages_for(tmp_path)
    path = write_bif(tmp_path / "a.bif", pages, WHOLE)
    with open_slide(path) as slide, open_slide(path, route="openslide") as theirs:
        assert slide.route.name == "jpeg-bif"
        assert slide.mpp_xy == (0.5, 0.5)
        assert slide.levels == theirs.levels
    for factor in (1.0, 1.3, 2.0, 4.0):
        svs, _, _ = read_all(tmp_path / "0.svs", "jpeg-tiff", tile_px=44, target_mpp=0.5 * factor)
        ours, status, _ = read_all(path, "jpeg-bif", tile_px=44, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, svs)
    theirs_px, _, _ = read_all(path, "openslide", tile_px=44, target_mpp=0.5)
    ours, _, _ = read_all(path, "jpeg-bif", tile_px=44, target_mpp=0.5)
    assert difference(ours, theirs_px).max() <= 1


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("overlap", [(0, 0), (6, 4)])
def test_joints_named_from_the_other_side_are_the_same_slide(
    tmp_path: Path, names: tuple[str, str], overlap: tuple[int, int]
) -> None:
    """OpenSlide refuses LEFT and DOWN; the same slide with RIGHT and UP it reads."""
    pages = pages_for(tmp_path)
    known = write_bif(tmp_path / "known.bif", pages, WHOLE, overlap=overlap)
    other = write_bif(tmp_path / "other.bif", pages, WHOLE, overlap=overlap, directions=names)
    with pytest.raises(StampError):
        open_slide(other, route="openslide")
    with open_slide(known, route="openslide") as theirs, open_slide(other) as ours:
        assert ours.route.name == ("bif" if any(overlap) else "jpeg-bif")
        assert ours.vendor == theirs.vendor == "ventana"
        assert ours.mpp_xy == theirs.mpp_xy
        sizes = [[(level.width, level.height, level.downsample_x) for level in s.levels] for s in (ours, theirs)]
        assert sizes[0] == sizes[1]
        for level in ours.levels:
            a, b = (s.read_region(level.index, 0, 0, level.width, level.height) for s in (ours, theirs))
            error = difference(a, b)
            # OpenSlide puts a storage tile on parts of a pixel, we on the nearest one
            assert error.mean() <= (8 if any(overlap) else 0.5), (level, error.mean())
            if not any(overlap):
                assert error.max() <= 1


def test_whole_pixels_of_overlap_are_openslides(tmp_path: Path) -> None:
    pages = pages_for(tmp_path, levels=())
    change = [('OverlapX="7"', 'OverlapX="6"')]
    known = write_bif(tmp_path / "known.bif", pages, WHOLE, overlap=(6, 4), change=change)
    other = write_bif(tmp_path / "other.bif", pages, WHOLE, overlap=(6, 4), directions=("LEFT", "DOWN"), change=change)
    with open_slide(known, route="openslide") as theirs, open_slide(other) as ours:
        a, b = (s.read_region(0, 3, 5, 500, 400) for s in (ours, theirs))
        assert difference(a, b).max() <= 1
    want, _, _ = read_all(known, "openslide", tile_px=44, target_mpp=1.0)
    with open_slide(other) as slide:
        assert "its storage tiles overlap by 6 x 4 px" in slide.route.reason
    ours_px, status, _ = read_all(other, None, tile_px=44, target_mpp=1.0)  # type: ignore[arg-type]
    assert (status == TileStatus.OK).all()
    assert difference(ours_px, want).max() <= 1


AREAS = [(1, 2, 4, 4), (7, 0, 3, 5)]


@pytest.mark.parametrize("names", [("RIGHT", "UP"), ("LEFT", "DOWN")])
def test_what_lies_between_areas_is_white(tmp_path: Path, names: tuple[str, str]) -> None:
    pages = pages_for(tmp_path)
    known = write_bif(tmp_path / "known.bif", pages, AREAS)
    path = write_bif(tmp_path / "a.bif", pages, AREAS, directions=names)
    with open_slide(path) as slide, open_slide(known, route="openslide") as theirs:
        assert slide.route.name == "jpeg-bif"
        assert [(lv.width, lv.height) for lv in slide.levels] == [(lv.width, lv.height) for lv in theirs.levels]
        for level in slide.levels:
            a, b = (s.read_region(level.index, 0, 0, level.width, level.height) for s in (slide, theirs))
            assert difference(a, b).max() <= 1
    want, _, tiles = read_all(known, "openslide", tile_px=32, target_mpp=0.5)
    ours, status, _ = read_all(path, None, tile_px=32, target_mpp=0.5)  # type: ignore[arg-type]
    assert (status == TileStatus.OK).all()
    assert difference(ours, want).max() <= 1
    assert (ours[(tiles.coords == (0, 0)).all(1)] == 255).all()


@pytest.mark.parametrize("overlap", [(0, 0), (6, 4)])
def test_streams_count_against_a_colour_tag_that_contradicts_them(tmp_path: Path, overlap: tuple[int, int]) -> None:
    pages = pages_for(tmp_path, levels=())
    path = write_bif(tmp_path / "a.bif", pages, WHOLE, overlap=overlap, directions=("LEFT", "UP"))
    with open_slide(path) as slide:
        want = slide.read_region(0, 0, 0, 300, 300)
    set_colours(path, [None, 2])
    with open_slide(path) as slide:
        assert any("read as the streams say" in note for note in slide.notes)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 300, 300), want)


@pytest.mark.parametrize("how", ["truncated", "beyond"])
def test_damage_stays_where_it_is(tmp_path: Path, how: str) -> None:
    pages = pages_for(tmp_path, levels=())
    path = write_bif(tmp_path / "a.bif", pages, WHOLE, directions=("LEFT", "UP"))
    want, _, _ = read_all(path, "jpeg-bif", tile_px=SIDE, target_mpp=0.5)

    def change(number: int, stream: bytes) -> bytes:
        return stream[: len(stream) // 3] if number == 8 else stream

    spoilt = replace_tiles(path, tmp_path / "b.bif", change, page=1)
    if how == "beyond":
        spoilt.write_bytes(spoilt.read_bytes()[:-1])
    ours, status, tiles = read_all(spoilt, "jpeg-bif", tile_px=SIDE, target_mpp=0.5)
    bad = status == TileStatus.CORRUPT
    assert bad[tiles.coords[:, 0] // SIDE + tiles.coords[:, 1] // SIDE * COLUMNS == 8].all()
    assert bad.sum() == (1 if how == "truncated" else 2)
    np.testing.assert_array_equal(ours[~bad], want[~bad])


CONTRADICTIONS = {
    "no area": [("<AOI0 ", "<AOI0/><AOI1 ")],
    "another tile size": [('Width="64"', 'Width="60"')],
    "off the grid": [('OriginX="0"', 'OriginX="13"')],
    "negative": [('NumCols="11"', 'NumCols="-1"')],
    "huge": [('NumCols="11"', 'NumCols="999999999"')],
    "huge overlap": [('OverlapX="0"', 'OverlapX="60"')],
    "nowhere": [('Pos-X="0"', 'Pos-X="nan"')],
    "no number": [('Confidence="90"', 'Confidence="x"')],
    "sideways": [('Direction="LEFT"', 'Direction="NORTH"')],
    "entities": [('<?xml version="1.0"?>', '<!DOCTYPE a [<!ENTITY b "c">]>')],
    "cut off": [("</EncodeInfo>", "")],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path: Path, name: str) -> None:
    pages = pages_for(tmp_path, levels=())
    path = write_bif(tmp_path / "a.bif", pages, WHOLE, directions=("LEFT", "UP"), change=CONTRADICTIONS[name])
    with pytest.raises(SlideError, match="damaged"):
        read_bif(path)
    with pytest.raises(StampError):
        open_slide(path)


def test_several_focal_planes_are_left_to_openslide(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", pages_for(tmp_path, levels=()), WHOLE, focal_planes=3)
    assert read_bif(path) == "it holds 3 focal planes"


def test_areas_that_begin_inside_of_coarser_storage_tiles_leave_those_levels_out(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", pages_for(tmp_path), AREAS)
    with open_slide(path) as slide:
        assert slide.storage is not None
        assert not isinstance(slide.storage.levels[0], str)
        assert "do not begin with a storage tile" in str(slide.storage.levels[1])


def test_a_missing_storage_tile_is_background(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", pages_for(tmp_path, levels=()), WHOLE, directions=("LEFT", "UP"))
    holes = replace_tiles(path, tmp_path / "b.bif", lambda n, s: b"" if n == 13 else s, page=1)
    ours, status, tiles = read_all(holes, "jpeg-bif", tile_px=SIDE, target_mpp=0.5)
    hit = (tiles.coords == (2 * SIDE, SIDE)).all(1)
    assert (status == TileStatus.OK).all()
    assert (ours[hit] == 255).all()
