"""DICOM through the compiled tiler: the same pixels as the same streams in an SVS, whatever the file's organisation."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from support.dicom_factory import BRIGHTFIELD, EPIFLUORESCENCE, How, Picture, write_level
from support.format_factory import pages_of
from support.slide_factory import encode, texture, write_slide
from tiles.test_tiles import difference, read_all

from stamp_deploy.errors import SlideError, StampError
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.dicom.part import read_part
from stamp_deploy.tiles import TileStatus

SIDE, HEIGHT, WIDTH = 64, 300, 410
TAGS = {"rgb": "RGB", "444": "YBR_FULL", "422": "YBR_FULL_422", "420": "YBR_FULL_422"}


def write_svs(folder: Path, coding: str = "420", levels: tuple[int, ...] = ()) -> Path:
    return write_slide(folder / "a.svs", texture(HEIGHT, WIDTH), tile=SIDE, coding=coding, levels=levels)


def pictures_of(svs: Path) -> list[Picture]:
    """The streams of each level of an SVS."""
    return [page.picture for page in pages_of(svs)]


def dicom(folder: Path, picture: Picture, how: How) -> Path:
    folder.mkdir(exist_ok=True)
    return write_level(folder / "a.dcm", picture, how)[0]


ORGANISATIONS = {
    "basic": How(),
    "extended": How(table="extended"),
    "extended, unpadded": How(table="extended, unpadded"),
    "extended without lengths": How(table="extended without lengths"),
    "none": How(table="none"),
    "fragments": How(fragments=3),
    "fragments, none": How(fragments=3, table="none"),
    "fragments, extended without lengths": How(fragments=2, table="extended without lengths"),
    "sparse": How(sparse=True),
    "sparse, undefined": How(sparse=True, undefined=True),
    "full with places": How(per_frame=True, undefined=True, table="extended"),
    "concatenation": How(parts=3),
    "concatenation, sparse": How(parts=2, sparse=True, table="extended"),
    "focal planes": How(planes=3, plane_of_frames=1),
    "optical paths": How(paths=(EPIFLUORESCENCE, BRIGHTFIELD)),
}


@pytest.mark.parametrize("organisation", ORGANISATIONS)
def test_the_same_streams_are_the_same_tiles(tmp_path: Path, organisation: str) -> None:
    svs = write_svs(tmp_path)
    path = dicom(tmp_path / "dicom", pictures_of(svs)[0], ORGANISATIONS[organisation])
    for factor in (1.0, 1.3, 2.0):
        want, _, _ = read_all(svs, "jpeg-tiff", tile_px=50, target_mpp=0.5 * factor)
        ours, status, _ = read_all(path, "jpeg-dicom", tile_px=50, target_mpp=0.5 * factor, threads=2)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)
    with open_slide(path) as slide, open_slide(svs) as same:
        assert slide.route.name == "jpeg-dicom"
        assert slide.mpp_xy == (0.5, 0.5)
        assert slide.left_out is None
        np.testing.assert_array_equal(slide.thumbnail(200), same.thumbnail(200))
        told = "focal planes: number 2 of them, the middle one"
        assert any(told in note for note in slide.notes) == (organisation == "focal planes")


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_frames_lie_in_any_order_where_each_has_its_place(tmp_path: Path, table: str) -> None:
    svs = write_svs(tmp_path)
    picture = pictures_of(svs)[0]
    order = list(range(len(picture.streams)))
    random.Random(1).shuffle(order)
    mixed = replace(picture, streams=[picture.streams[number] for number in order])
    path = dicom(tmp_path / "dicom", mixed, How(sparse=True, table=table))
    data = pydicom.dcmread(path)
    places = data.PerFrameFunctionalGroupsSequence
    data.PerFrameFunctionalGroupsSequence = [places[number] for number in order]
    data.save_as(path)
    want, _, _ = read_all(svs, "jpeg-tiff", tile_px=50, target_mpp=0.5)
    ours, status, _ = read_all(path, "jpeg-dicom", tile_px=50, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    np.testing.assert_array_equal(ours, want)


@pytest.mark.parametrize("coding", TAGS)
def test_every_coding_is_openslides_and_pydicoms(tmp_path: Path, coding: str) -> None:
    """OpenSlide does not take YBR_FULL; pydicom decodes each frame by itself."""
    picture = pictures_of(write_svs(tmp_path, coding))[0]
    path = dicom(tmp_path / "dicom", picture, How(photometric=TAGS[coding]))
    ours, status, tiles = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    if coding != "444":
        theirs, _, _ = read_all(path, "openslide", tile_px=SIDE, target_mpp=0.5)
        assert difference(ours, theirs).max() <= 1
    frames = pydicom.dcmread(path).pixel_array
    inside = (tiles.coords[:, 0] + SIDE <= WIDTH) & (tiles.coords[:, 1] + SIDE <= HEIGHT)
    for i in np.flatnonzero(inside):
        frame = tiles.rows[i] * picture.across + tiles.columns[i]
        assert difference(ours[i], frames[frame]).mean() < 1.5  # Pillow's libjpeg-turbo may be another release


@pytest.mark.parametrize(
    ("coding", "tag", "told"), [("rgb", "YBR_FULL_422", 1), ("420", "RGB", 1), ("444", "YBR_FULL", 0)]
)
def test_the_stream_decides_its_colour(tmp_path: Path, coding: str, tag: str, told: int) -> None:
    svs = write_svs(tmp_path, coding)
    path = dicom(tmp_path / "dicom", pictures_of(svs)[0], How(photometric=tag))
    want, _, _ = read_all(svs, "jpeg-tiff", tile_px=50, target_mpp=1.0)
    ours, _, _ = read_all(path, "jpeg-dicom", tile_px=50, target_mpp=1.0)
    np.testing.assert_array_equal(ours, want)
    with open_slide(path) as slide, open_slide(svs) as same:
        np.testing.assert_array_equal(slide.thumbnail(200), same.thumbnail(200))
        assert len(slide.notes) == told


def test_a_pyramid_has_its_levels_and_no_other_picture(tmp_path: Path) -> None:
    svs = write_svs(tmp_path, levels=(2, 4))
    folder = tmp_path / "dicom"
    folder.mkdir()
    first, *others = pictures_of(svs)
    resampled = How(image_type=("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"))
    paths = [write_level(folder / "c.dcm", first, How())[0]]
    for name, picture in zip("ba", others, strict=True):
        paths += write_level(folder / f"{name}.dcm", picture, resampled)
    small = replace(first, width=SIDE, height=SIDE, streams=first.streams[:1])
    for number, flavor in enumerate(("LABEL", "OVERVIEW", "THUMBNAIL")):
        write_level(folder / f"{number}.dcm", small, How(image_type=("ORIGINAL", "PRIMARY", flavor, "NONE")))
    write_level(folder / "other.dcm", first, How(), series="another slide")
    for path in paths:
        with open_slide(path) as slide, open_slide(svs) as same:
            assert slide.levels == same.levels
            assert slide.route.name == "jpeg-dicom"
            assert slide.properties["openslide.objective-power"] == "20"
            assert not any("Doe" in value for value in slide.properties.values())
    for factor in (1.0, 2.0, 2.3, 4.0):
        want, _, _ = read_all(svs, "jpeg-tiff", tile_px=32, target_mpp=0.5 * factor)
        ours, _, _ = read_all(paths[0], "jpeg-dicom", tile_px=32, target_mpp=0.5 * factor)
        np.testing.assert_array_equal(ours, want)


def test_frames_that_are_not_there_are_glass(tmp_path: Path) -> None:
    picture = pictures_of(write_svs(tmp_path))[0]
    holes = (0, 1, 9)
    sparse = replace(picture, streams=[None if i in holes else s for i, s in enumerate(picture.streams)])
    path = dicom(tmp_path / "dicom", sparse, How(sparse=True))
    ours, status, tiles = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=SIDE, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1
    number = tiles.coords[:, 1] // SIDE * picture.across + tiles.coords[:, 0] // SIDE
    assert (ours[np.isin(number, holes)] == 255).all()
    with open_slide(path) as slide:
        assert slide.left_out is not None
        np.testing.assert_array_equal(np.flatnonzero(slide.left_out.cells), holes)
        slide.thumbnail(100)
        np.testing.assert_array_equal(np.flatnonzero(slide.left_out.cells), holes)


@pytest.mark.parametrize("name", ["camelyon_multiframe_jpeg.dcm", "osp_boxes_0.dcm"])
def test_real_files(data_dir: Path, name: str) -> None:
    path = data_dir / "dicom" / name
    options = {"tile_px": 64, "target_mpp": 0.25, "mpp": 0.25}
    ours, status, _ = read_all(path, "jpeg-dicom", **options)  # type: ignore[arg-type]
    theirs, _, _ = read_all(path, "openslide", **options)  # type: ignore[arg-type]
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1
    data = pydicom.dcmread(path)
    frames = list(generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames))
    with open_slide(path, mpp=0.25) as slide, open_slide(path, mpp=0.25, route="openslide") as same:
        assert len(frames) == np.prod(slide.storage.levels[0][0].offsets.shape)  # type: ignore[union-attr]
        for key in ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power"):
            assert float(slide.properties.get(key, 0)) == pytest.approx(float(same.properties.get(key, 0)))
        assert slide.sha256() == same.sha256()


def test_a_real_slide_whose_image_type_is_misspelt(data_dir: Path) -> None:
    """It says ORGINAL, and YBR_FULL for RGB streams, which OpenSlide refuses: the SVS of the same streams is true."""
    folder, svs = data_dir / "formats" / "CMU-1-Small-Region-dicom", data_dir / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(folder) as slide, open_slide(svs) as same:
        assert slide.route.name == "jpeg-dicom" and len(slide.levels) == 1  # neither its label nor its overview
        assert slide.mpp_xy == pytest.approx(same.mpp_xy, abs=1e-3)
        size = slide.width, slide.height
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, *size), same.read_region(0, 0, 0, *size))
    options = {"tile_px": 64, "target_mpp": 0.499, "mpp": 0.499}
    ours, status, _ = read_all(folder, "jpeg-dicom", **options)  # type: ignore[arg-type]
    theirs, _, _ = read_all(svs, "jpeg-tiff", **options)  # type: ignore[arg-type]
    assert (status == TileStatus.OK).all()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("image_type", "is_level"),
    [
        (("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"), True),
        (("ORIGINAL", "PRIMARY", "VOLUME"), True),
        (("", "PRIMARY", "VOLUME", "NONE"), True),
        (("ORIGINAL", "PRIMARY", "LABEL", "NONE"), False),
        (("ORIGINAL", "PRIMARY", "OVERVIEW", "RESAMPLED"), False),
        (("DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"), False),
        (("DERIVED", "PRIMARY", "VOLUME", "SEGMENTED"), False),
        (("DERIVED", "SECONDARY", "VOLUME", "NONE"), False),
        (("VOLUME",), False),
    ],
)
def test_what_is_a_level_by_its_image_type(tmp_path: Path, image_type: tuple[str, ...], is_level: bool) -> None:
    picture = pictures_of(write_svs(tmp_path))[0]
    (path,) = write_level(tmp_path / "level.dcm", picture, How(image_type=image_type))
    part = read_part(path)
    assert isinstance(part, str) != is_level
    assert is_level or part == "its image flavor is no level's"


def test_damage_and_truncation_stay_where_they_are(tmp_path: Path) -> None:
    picture = pictures_of(write_svs(tmp_path))[0]
    streams = list(picture.streams)
    streams[8] = streams[8][: len(streams[8]) // 3]  # type: ignore[index]
    streams[20] = b""
    path = dicom(tmp_path / "dicom", replace(picture, streams=streams), How(table="extended"))
    _, status, tiles = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
    number = tiles.coords[:, 1] // SIDE * picture.across + tiles.coords[:, 0] // SIDE
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, np.isin(number, (8, 20)))
    data = path.read_bytes()
    path.write_bytes(data[: -len(data) // 4])
    _, status, tiles = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
    assert (status == TileStatus.CORRUPT).mean() > 0.15
    assert (status == TileStatus.OK).mean() > 0.5


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_an_offset_that_lies_is_damage_or_refused(tmp_path: Path, table: str) -> None:
    picture = pictures_of(write_svs(tmp_path))[0]
    path = dicom(tmp_path / "dicom", picture, How(table=table))
    data = bytearray(path.read_bytes())
    if table == "extended":
        at = data.index(b"\xe0\x7f\x01\x00OV") + 12
        data[at + 16 : at + 24] = (10**9).to_bytes(8, "little")
    elif table == "basic":
        at = data.index(b"\xe0\x7f\x10\x00OB\x00\x00") + 12 + 8
        data[at + 8 : at + 12] = (7).to_bytes(4, "little")  # inside of the first frame
    else:
        at = data.index(b"\xe0\x7f\x10\x00OB\x00\x00") + 12 + 8 + 4
        data[at : at + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    if table != "none":
        _, status, _ = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
        assert (status == TileStatus.CORRUPT).any()
        assert (status == TileStatus.OK).mean() > 0.8
    else:
        with pytest.raises(SlideError, match="contradicts itself"):
            open_slide(path)


def edit(path: Path, **changes: object) -> None:
    data = pydicom.dcmread(path)
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path)


@pytest.mark.parametrize(
    ("how", "changes", "why"),
    [
        (How(), {"NumberOfFrames": 30}, "table of offsets has 35 entries for 30 frames"),
        (How(table="none"), {"NumberOfFrames": 34}, "35 fragments are not 34 frames"),
        (How(), {"TotalPixelMatrixRows": 400}, "states 35 frames"),
        (How(planes=2), {"TotalPixelMatrixFocalPlanes": 3}, "states 70 frames"),
        (How(sparse=True), {"TotalPixelMatrixRows": 200}, "outside of the picture"),
        (How(sparse=True), {"Columns": 48, "Rows": 48}, "side by side"),
        (How(sparse=True), {"PerFrameFunctionalGroupsSequence": None}, "no place for its frames"),
        (How(paths=(BRIGHTFIELD, BRIGHTFIELD)), {}, "2 optical paths"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, how: How, changes: dict[str, object], why: str) -> None:
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path))[0], how)
    edit(path, **changes)
    with pytest.raises(SlideError, match="contradicts itself") as caught:
        open_slide(path)
    assert why in str(caught.value)


def test_two_frames_for_one_place_are_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path))[0], How(sparse=True))
    data = pydicom.dcmread(path)
    items = data.PerFrameFunctionalGroupsSequence
    items[3].PlanePositionSlideSequence = items[4].PlanePositionSlideSequence
    data.save_as(path)
    with pytest.raises(SlideError, match="two frames for one place"):
        open_slide(path)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_concatenation_without_one_of_its_files_is_refused(tmp_path: Path, part: int) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    paths = write_level(folder / "a.dcm", pictures_of(write_svs(tmp_path))[0], How(parts=3))
    paths[part].unlink()
    with pytest.raises(SlideError, match=r"missing|parts of one image"):
        open_slide(paths[(part + 1) % 3])


def test_fluorescence_is_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path))[0], How())
    data = pydicom.dcmread(path)
    data.OpticalPathSequence[0].IlluminationTypeCodeSequence[0].CodeValue = EPIFLUORESCENCE
    data.save_as(path)
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(path)


def test_what_it_does_not_read_is_left_to_openslide_with_the_reason(tmp_path: Path, data_dir: Path) -> None:
    with open_slide(data_dir / "dicom" / "highdicom_sm_image.dcm") as slide:
        assert slide.route.name == "openslide"
        assert "transfer syntax" in slide.route.reason
        assert slide.storage is None


@pytest.mark.filterwarnings("ignore")
def test_header_and_frames_of_many_spoilt_files(tmp_path: Path) -> None:
    """A SlideError or an answer; any other error is a fault of ours. csrc/fuzz/fuzz_dicom.py runs for longer."""
    picture = pictures_of(write_svs(tmp_path))[0]
    choose = random.Random(1)
    for organisation in ("basic", "extended", "fragments, none", "sparse, undefined"):
        path = dicom(tmp_path / "dicom", picture, ORGANISATIONS[organisation])
        data = path.read_bytes()
        head = data.index(b"\xe0\x7f\x10\x00") + 60
        for _ in range(40):
            spoilt = bytearray(data)
            for _ in range(choose.randint(1, 4)):
                spoilt[choose.randrange(132, head)] = choose.randrange(256)
            path.write_bytes(spoilt)
            try:
                with open_slide(path, mpp=0.5) as slide:
                    assert slide.levels
            except StampError:
                pass


def test_a_frame_of_12_bits_or_of_another_size_is_damage(tmp_path: Path) -> None:
    picture = pictures_of(write_svs(tmp_path))[0]
    streams = list(picture.streams)
    streams[4] = encode(texture(SIDE, SIDE // 2), "420")
    path = dicom(tmp_path / "dicom", replace(picture, streams=streams), How())
    _, status, _ = read_all(path, "jpeg-dicom", tile_px=SIDE, target_mpp=0.5)
    assert np.flatnonzero(status == TileStatus.CORRUPT).tolist() == [4]
