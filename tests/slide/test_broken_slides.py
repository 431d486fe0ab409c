"""Broken and odd files: one line of cause and remedy, the documented exit code, nothing left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tifffile
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.slide_factory import damage, texture, write_slide

from stamp_deploy.slide import open_slide
from stamp_deploy.tissue import TissueRule, find_tissue


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", tile_px=64, mpp=0.5)


def refused(run: Runner, slide: Path, bundle: Path, out: Path, *more: str, code: int = 4) -> str:
    """Run infer and inspect on a file that both must refuse in one line; that line."""
    done = run("infer", slide, "--bundle", bundle, "-o", out, "--engine", "onnxruntime", *more)
    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith(f"stamp-deploy: {slide.name}: ")
    assert " - " in done.err
    assert str(slide.parent) not in done.err
    assert not out.exists()
    assert not list(out.parent.glob(".*")), "something half-written was left"
    return done.err


BROKEN = {
    "slides/histolab_broken.svs": "is not a slide format",
    "slides/osp_unopenable.tiff": "Unsupported TIFF compression: 52479 - convert it",
    "slides/osp_unreadable.svs": "cannot be decoded",
    "dicom/highdicom_sm_image_jpegls.dcm": "Unsupported transfer syntax",
}


@pytest.mark.parametrize("name", BROKEN)
def test_real_broken_files(runner: Runner, data_dir: Path, bundle: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    text = refused(runner, data_dir / name, bundle, tmp_path / "out", "--mpp", "0.5")
    assert BROKEN[name] in text
    done = runner("inspect", data_dir / name)
    assert (done.code, done.out, done.err) == (4, "", text)


WITHOUT_MPP = {
    "slides/kidney-48-5.tif": "TIFF resolution: not recorded",
    "slides/osp_boxes.tiff": "352.778 x 352.778 um/px, refused",
    "slides/panimg_valid_tiff.tif": "1000 x 1000 um/px, refused",
    "slides/panimg_invalid_resolutions_tiff.tif": "per unit 'none': refused",
    "slides/tcga-cr-7395-01a-01-ts1.svs": "vendor tag: not recorded",
    "dicom/camelyon_multiframe_jpeg.dcm": "28.969 x 28.968 um/px, refused",
}


@pytest.mark.parametrize("name", WITHOUT_MPP)
def test_real_files_without_a_believable_mpp(
    runner: Runner,  # noqa: F811
    data_dir: Path,
    bundle: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """Refused with the flag and the evidence; inspect describes the file all the same."""
    text = refused(runner, data_dir / name, bundle, tmp_path / "out")
    assert WITHOUT_MPP[name] in text
    assert "objective power" in text
    remedy = "full resolution" if "28.969" in text else "--mpp 0.25"  # an overview is not to be scored as a slide
    assert remedy in text
    done = runner("inspect", data_dir / name, "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["mpp"] is None
    assert remedy in facts["problem"]
    assert any(WITHOUT_MPP[name].split(",")[0] in line for line in facts["evidence"])


@pytest.mark.parametrize("mpp", ["1000", "0", "-1", "nan", "0.001"])
def test_a_nonsense_mpp_is_refused_before_anything_is_opened(
    runner: Runner,  # noqa: F811
    cmu_slide: Path,
    bundle: Path,
    tmp_path: Path,
    mpp: str,
) -> None:
    for verb in (("infer", cmu_slide, "--bundle", bundle, "-o", tmp_path / "out"), ("inspect", cmu_slide)):
        done = runner(*verb, "--mpp", mpp)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert f"--mpp {float(mpp):g}" in done.err
    assert not (tmp_path / "out").exists()


def test_a_slide_coarser_than_the_model_names_the_file(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    bundle: Path,
) -> None:
    slide = write_slide(tmp_path / "coarse.svs", texture(300, 300), mpp=1.0)
    assert "coarser than the 0.5" in refused(runner, slide, bundle, tmp_path / "out")


def test_a_slide_of_glass_is_refused_and_can_be_scored_all_the_same(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    bundle: Path,
) -> None:
    slide = write_slide(tmp_path / "glass.svs", texture(256, 256) // 64 + 240)
    assert "no tissue" in refused(runner, slide, bundle, tmp_path / "out")
    assert json.loads(runner("inspect", slide, "--json").out)["problem"] is not None
    quick = ("--write", "json", "--engine", "onnxruntime", "--json")
    done = runner("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", "--all-tiles", *quick)
    assert done.code == 0
    assert json.loads(done.out)["tiles"]["ok"] == 16


def test_a_file_that_ends_early_is_not_taken_for_a_plain_image(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    bundle: Path,
) -> None:
    slide = write_slide(tmp_path / "short.svs", texture(1280, 1280))
    damage(slide, 12, "beyond")
    assert "Short read" in refused(runner, slide, bundle, tmp_path / "out")


@pytest.mark.parametrize("how", ["truncated", "garbage"])
def test_a_damaged_storage_tile_is_counted_not_passed_over_as_glass(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    bundle: Path,
    how: str,
) -> None:
    """In the middle of the slide, where it is tried first, and on the level that the thumbnail is made of."""
    slide = write_slide(tmp_path / "damaged.svs", texture(1280, 1280))
    damage(slide, 12, how)
    text = refused(runner, slide, bundle, tmp_path / "out")
    assert "unreadable, more than the budget of 1.00%" in text
    assert "--max-unreadable" in text
    quick = ("--write", "json", "--engine", "onnxruntime", "--json")
    done = runner("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", "--max-unreadable", "0.2", *quick)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["tiles"]["unreadable"] == 16
    assert record["tiles"]["ok"] + record["tiles"]["background"] + 16 == record["tiles"]["grid"]
    assert any("could not be read" in warning for warning in record["warnings"])


@pytest.mark.parametrize("route", ["jpeg-tiff", "codec-tiff"])
def test_a_slide_of_which_only_the_overview_can_be_read(
    runner: Runner,  # noqa: F811
    tmp_path: Path,
    bundle: Path,
    route: str,
) -> None:
    """inspect tries some of the tiles that it counts, and infer names the cause."""
    rgb = texture(1024, 1024)
    slide = tmp_path / "slide.svs"
    if route == "jpeg-tiff":
        write_slide(slide, rgb, levels=(4,))
    else:
        with tifffile.TiffWriter(slide) as writer:
            note = "Aperio Image Library v12.0.0|AppMag = 20|MPP = 0.5"
            for level in (rgb, rgb[::4, ::4]):
                writer.write(
                    level, tile=(256, 256), compression="zlib", photometric="rgb", description=note, metadata=None
                )
    for number in range(16):
        damage(slide, number, "garbage")
    done = runner("inspect", slide, "--tile-px", "64", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["route"]["name"] == route
    assert (facts["tiles"]["tried"], facts["tiles"]["readable"]) == (16, 0)
    assert facts["problem"].startswith("16 of 16 tissue tiles that were tried cannot be read")
    text = refused(runner, slide, bundle, tmp_path / "out")
    assert "256 of 256 tissue tiles are unreadable" in text
    assert ("the first cannot be decoded" in text) == (route == "codec-tiff")


def test_what_the_thumbnail_cannot_show_is_tried_as_tissue(tmp_path: Path) -> None:
    rgb = texture(1024, 1024) // 64 + 240
    slide_path = write_slide(tmp_path / "glass.svs", rgb)
    damage(slide_path, 5, "garbage")
    with open_slide(slide_path) as slide:
        found = find_tissue(slide, TissueRule())
        assert slide.damage == [(256, 256, 256, 256)]
        assert found.fraction == pytest.approx(1 / 16, rel=0.3)


def test_truncated_and_mutated_files_end_in_one_line(
    runner: Runner,  # noqa: F811
    data_dir: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    """Whatever the damage, a run ends well or with a stated error: never a traceback, never half a result."""
    rng = random.Random(3)
    ended = set()
    for name in ("slides/CMU-1-Small-Region.svs", "slides/panimg_valid_tiff.tif", "dicom/highdicom_sm_image.dcm"):
        whole = (data_dir / name).read_bytes()
        for i, cut in enumerate((0.002, 0.5, 0.95, None, None, None)):
            data = bytearray(whole if cut is None else whole[: int(len(whole) * cut)])
            if cut is None:
                for _ in range(len(data) // 2000):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            path = tmp_path / f"{i}-{Path(name).name}"
            path.write_bytes(data)
            out = tmp_path / f"out-{path.name}"
            quick = ("--mpp", "0.5", "--write", "json", "--engine", "onnxruntime")
            done = runner("infer", path, "--bundle", bundle, "-o", out, *quick)
            assert done.code in (0, 4), done.err
            assert (out / "DONE").is_file() == (done.code == 0)
            assert done.code == 0 or len(done.err.splitlines()) == 1, done.err
            ended.add(done.code)
    assert 4 in ended
    assert not list(tmp_path.glob(".partial*"))
