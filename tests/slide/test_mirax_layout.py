"""What is read of a MIRAX slide's index and map, held against what was written: places, pages, records, joins."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slide.test_mirax import RGB, SCANS, index_of, spoilt_index, write_key
from support.mrxs_factory import ID, VERSION, Scan, write_mrxs

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import mirax, open_slide
from stamp_deploy.slide.mirax import MiraxLayout, _spread, read_mirax

ROOT = len(VERSION + ID)
SMALL = RGB[:256, :384]
"""Two rows of three photos of 128 px: four rows of six images."""


def edit(path: Path, *changes: Any) -> None:
    """Change the text of Slidedat.ini."""
    ini = path.with_suffix("") / "Slidedat.ini"
    text = ini.read_text("utf-8-sig")
    for change in changes:
        assert change(text) != text
        text = change(text)
    ini.write_text(text, "utf-8-sig")


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_photos_lie_where_they_were_written(tmp_path: Path, scan: Scan) -> None:
    layout = read_mirax(write_mrxs(tmp_path / "a.mrxs", RGB, scan, levels=3))
    assert layout is not None
    down, across = layout.places.shape[:2]
    assert down != across
    np.testing.assert_array_equal(layout.places, scan.places(across, down))
    assert (layout.divisions, layout.image_w, layout.image_h) == (scan.divisions, scan.side, scan.side)
    assert layout.concats == (1, 2, 4) and all(there.all() for there in layout.there)
    assert layout.lacking == {} and not layout.missing.any()


def test_images_of_other_sides_have_places_of_their_own(tmp_path: Path) -> None:
    """Width and height, overlap in x and in y, are not taken one for the other."""
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(overlap=8), levels=1)
    edit(path, write_key("DIGITIZER_HEIGHT", 48), write_key("OVERLAP_Y", "4.0"))
    layout = read_mirax(path)
    assert layout is not None and (layout.image_w, layout.image_h) == (64, 48)
    assert layout.places[1, 1].tolist() == [2 * 64 - 8, 2 * 48 - 4]


@pytest.mark.parametrize(("joined", "box"), [(1, (80, 30, 140, 70)), (2, (40, 15, 70, 35))])
def test_what_is_missing_is_left_out_where_it_lies(joined: int, box: tuple[int, int, int, int]) -> None:
    """Of 3 x 2 photos of 2 x 2 images of 60 x 40 px: the one at the right of the second photo's first row."""
    there = np.ones((4, 6), bool)
    full = there.copy()
    full[0, 1] = False
    places = np.stack(np.meshgrid([20, 130, 260], [30, 110]), -1)
    layout = MiraxLayout((full, there), (joined, 2), 2, 60, 40, places)
    found = layout.left_out(400, 300)
    assert found is not None
    left, top, right, bottom = box
    assert (found.cell_w, found.cell_h) == (20, 20)
    wanted = np.zeros((15, 20), bool)
    wanted[top // 20 : -(-bottom // 20), left // 20 : -(-right // 20)] = True
    np.testing.assert_array_equal(found.cells, wanted)


def test_cells_of_a_coarser_level_cover_what_lies_below_them() -> None:
    there = np.zeros((3, 5), bool)
    there[2, 4] = there[0, 1] = True
    wanted = np.zeros((3, 5), bool)
    wanted[2, 4] = True
    wanted[:2, :2] = True
    np.testing.assert_array_equal(_spread(there, 2), wanted)


def test_a_join_across_photos_may_hold_one_that_was_not_taken(tmp_path: Path) -> None:
    """Three images of a photo and joins of two: a join at the rim belongs to two photos."""
    scan = Scan(side=32, divisions=3)
    path = write_mrxs(tmp_path / "a.mrxs", RGB, scan, levels=2, without=[(1, 1), (2, 4)])
    layout = read_mirax(path)
    assert layout is not None and not layout.missing.any()
    with open_slide(path) as slide:
        assert slide.missing is None


def pages(path: Path, *counts: int, change: Any = None) -> None:
    """The images of level 0 in several pages of so many entries."""
    index = path.with_suffix("") / "Index.dat"
    data = bytearray(index.read_bytes())
    (root,) = struct.unpack_from("<i", data, ROOT)
    (pointer,) = struct.unpack_from("<i", data, root)
    (page,) = struct.unpack_from("<i", data, pointer + 4)
    (count,) = struct.unpack_from("<i", data, page)
    entries = np.frombuffer(bytes(data), "<i4", 4 * count, page + 8).reshape(-1, 4).copy()
    entries = entries if change is None else change(entries)
    assert sum(counts) == count
    link = pointer + 4
    for part in np.split(entries, np.cumsum(counts)[:-1]):
        struct.pack_into("<i", data, link, len(data))
        link = len(data) + 4
        data += struct.pack("<ii", len(part), 0) + part.tobytes()
    index.write_bytes(data)


@pytest.mark.parametrize("counts", [(24,), (10, 14), (0, 24), (5, 0, 19), (24, 0)])
def test_images_may_stand_in_several_pages(tmp_path: Path, counts: tuple[int, ...]) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(), levels=1)
    pages(path, *counts)
    layout = read_mirax(path)
    assert layout is not None and layout.there[0].all() and layout.there[0].shape == (4, 6)


@pytest.mark.parametrize("counts", [(24,), (10, 14), (23, 1)])
def test_two_images_in_one_place_are_refused_within_a_page_and_across(tmp_path: Path, counts: tuple[int, ...]) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(), levels=1)

    def change(entries: Any) -> Any:
        entries[-1, 0] = entries[0, 0]
        return entries

    pages(path, *counts, change=change)
    with pytest.raises(SlideError, match="two images of level 0 lie in one place"):
        read_mirax(path)


@pytest.mark.parametrize("image", [1, 6, 7])
def test_an_image_of_a_coarser_level_stands_for_its_first(tmp_path: Path, image: int) -> None:
    """Image 0 of level 1 joins 0, 1, 6 and 7: under another of their numbers the index is damaged."""
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(), levels=3)

    def change(level: int, rows: Any) -> Any:
        if level == 1:
            rows[0, 0] = image
        return rows

    spoilt_index(path, change)
    with pytest.raises(SlideError, match="an image of level 1 lies off its grid"):
        read_mirax(path)


def test_the_map_is_the_record_after_all_of_the_groups_before_it(tmp_path: Path) -> None:
    """A group may have several records: labels, macro pictures, profiles."""
    scan = Scan(overlap=8, positions="plain", jitter=3)
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, scan, levels=1)
    before = read_mirax(path)
    ini = path.with_suffix("") / "Slidedat.ini"
    text = (
        ini.read_text("utf-8-sig").replace("NONHIER_0", "NONHIER_1").replace("NONHIER_COUNT = 1", "NONHIER_COUNT = 2")
    )
    ini.write_text(
        text.replace("NONHIER_1_NAME", "NONHIER_0_NAME = Scan data layer\nNONHIER_0_COUNT = 2\nNONHIER_1_NAME"),
        "utf-8-sig",
    )
    index = path.with_suffix("") / "Index.dat"
    data = index.read_bytes()
    (root,) = struct.unpack_from("<i", data, ROOT)
    (pointer,) = struct.unpack_from("<i", data, root)
    (page,) = struct.unpack_from("<i", data, pointer + 4)
    (count,) = struct.unpack_from("<i", data, page)
    images = np.frombuffer(data, "<i4", 4 * count, page + 8).reshape(-1, 4)
    size = (path.with_suffix("") / "Data0001.dat").stat().st_size - ROOT
    records = [(0, 9, 0), (3, 5, 0), (ROOT, size, 1)]
    index.write_bytes(index_of([[tuple(row) for row in images.tolist()]], records))
    after = read_mirax(path)
    assert before is not None and after is not None
    np.testing.assert_array_equal(after.places, before.places)


@pytest.mark.parametrize("positions", ["plain", "deflated"])
@pytest.mark.parametrize("photos", [(2, 2), (1, 3), (2, 4), (3, 3)])
def test_a_map_of_more_or_fewer_photos_is_refused(tmp_path: Path, photos: tuple[int, int], positions: str) -> None:
    """The file's map is of 2 x 3."""
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(positions=positions), levels=1)
    folder = path.with_suffix("")
    name = {"plain": "VIMSLIDE_POSITION_BUFFER", "deflated": "StitchingIntensityLayer"}[positions]
    tree = {"NONHIER_COUNT": "1", "NONHIER_0_NAME": name, "NONHIER_0_COUNT": "1"}
    index = mirax._index(folder / "Index.dat", ID.decode())
    paths = [folder / "Data0000.dat", folder / "Data0001.dat"]
    assert mirax._places(paths, tree, index, (2, 3), [128.0, 128.0], 1).shape == (2, 3, 2)
    with pytest.raises(mirax._ContradictionError, match="another number"):
        mirax._places(paths, tree, index, photos, [128.0, 128.0], 1)


def test_places_of_a_map_are_of_images_as_they_were_taken(tmp_path: Path) -> None:
    """The map counts pixels of level 0, of which each may be two of an image's."""
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(positions="plain"), levels=1)
    folder = path.with_suffix("")
    index = mirax._index(folder / "Index.dat", ID.decode())
    tree = {"NONHIER_COUNT": "1", "NONHIER_0_NAME": "VIMSLIDE_POSITION_BUFFER", "NONHIER_0_COUNT": "1"}
    paths = [folder / "Data0000.dat", folder / "Data0001.dat"]
    once, twice = (mirax._places(paths, tree, index, (2, 3), [128.0, 128.0], concat) for concat in (1, 2))
    np.testing.assert_array_equal(twice, 2 * once)
    assert once[1, 2].tolist() == [256, 128]


@pytest.mark.parametrize(
    ("axis", "value", "refused"), [(0, 384 + 128, False), (0, 384 + 129, True), (0, -128, False), (0, -129, True),
                                   (1, 256 + 128, False), (1, 256 + 129, True), (1, -129, True)]
)  # fmt: skip
def test_a_photo_may_lie_one_step_beside_the_slide(tmp_path: Path, axis: int, value: int, refused: bool) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(positions="plain"), levels=1)
    record = path.with_suffix("") / "Data0001.dat"
    data = bytearray(record.read_bytes())
    struct.pack_into("<i", data, ROOT + 9 * 4 + 1 + 4 * axis, value)
    record.write_bytes(data)
    if refused:
        with pytest.raises(SlideError, match="a photo lies off the slide"):
            read_mirax(path)
    else:
        layout = read_mirax(path)
        assert layout is not None and layout.places[1, 1, axis] == value


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (write_key("FILE_1", "../other.dat"), "its data file 1 is not there"),
        (write_key("SLIDE_ID", ID.decode()[::-1]), "its index is another slide's"),
        (write_key("OVERLAP_X", "-1000"), "photos overlap by more than their size"),
        (write_key("OVERLAP_Y", "128"), "photos overlap by more than their size"),
        (write_key("IMAGENUMBER_Y", 3), "6 x 3 images are not whole photos of 2 x 2"),
        (write_key("IMAGENUMBER_X", 5), "5 x 4 images are not whole photos of 2 x 2"),
    ],
)
def test_what_contradicts_itself_is_said(tmp_path: Path, change: Any, why: str) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", SMALL, Scan(positions="plain"), levels=2)
    shutil.copy(path.with_suffix("") / "Data0001.dat", tmp_path / "other.dat")
    edit(path, change)
    with pytest.raises(SlideError, match=why) as refused:
        read_mirax(path)
    assert refused.value.path == path


def test_a_changed_index_is_read_again(tmp_path: Path) -> None:
    """What is remembered is of the files as they are, not of the .mrxs alone, which is a small picture."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=3)
    before = read_mirax(path)
    assert before is not None and before.lacking == {}
    spoilt_index(path, lambda level, rows: rows[:-3] if level == 1 else rows)
    after = read_mirax(path)
    assert after is not None and after.lacking == {1: "lacks 12 images of the slide"}
