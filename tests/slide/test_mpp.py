"""Microns per pixel: what is believed, what is refused, and what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stamp_deploy.config import InferOptions
from stamp_deploy.errors import ExitCode, MppError, UsageError
from stamp_deploy.slide.mpp import find_mpp

SLIDE = Path("/patients/slide.svs")
OME = '<?xml version="1.0"?><OME><Image><Pixels PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{y}"'


def test_the_vendor_tag_is_taken_and_all_evidence_listed() -> None:
    found = find_mpp(
        {
            "openslide.vendor": "aperio",
            "aperio.MPP": "0.2526",
            "aperio.AppMag": "40",
            "tiff.XResolution": "39588",
            "tiff.YResolution": "39588",
            "tiff.ResolutionUnit": "centimeter",
        },
        stated=None,
        path=SLIDE,
    )
    assert (found.mpp_x, found.mpp_y, found.source) == (0.2526, 0.2526, "vendor")
    assert [line.split(":")[0] for line in found.evidence] == [
        "vendor tag aperio.MPP",
        "TIFF resolution 39588 per centimeter",
        "objective power",
    ]
    assert found.conflict == ""


@pytest.mark.parametrize(
    ("unit", "value", "mpp"), [("centimeter", "20000", 0.5), ("inch", "50800", 0.5), ("inch", "101600", 0.25)]
)
def test_tiff_resolution_in_its_unit(unit: str, value: str, mpp: float) -> None:
    tags = {"tiff.XResolution": value, "tiff.YResolution": value, "tiff.ResolutionUnit": unit}
    found = find_mpp({"openslide.vendor": "generic-tiff", **tags}, stated=None, path=SLIDE)
    assert found.mpp_x == pytest.approx(mpp)
    assert found.source == "tiff-resolution"


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3)])
def test_ome_xml_outranks_the_tiff_resolution(unit: str, factor: float) -> None:
    text = OME.format(x=0.25 / factor, y=0.26 / 1, unit=unit)
    tags = {"tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"}
    found = find_mpp({"openslide.vendor": "generic-tiff", "openslide.comment": text, **tags}, stated=None, path=SLIDE)
    assert (found.mpp_x, found.mpp_y) == (pytest.approx(0.25), 0.26)
    assert found.source == "ome-xml"
    assert "0.5 by TIFF resolution" in found.conflict


def test_anisotropic_pixels_are_kept_apart_up_to_ten_percent() -> None:
    near = {"openslide.vendor": "hamamatsu", "openslide.mpp-x": "0.2312", "openslide.mpp-y": "0.2274"}
    found = find_mpp(near, stated=None, path=SLIDE)
    assert (found.mpp_x, found.mpp_y) == (0.2312, 0.2274)
    with pytest.raises(MppError, match="differ by more than 10 %"):
        find_mpp({**near, "openslide.mpp-y": "0.4"}, stated=None, path=SLIDE)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"aperio.MPP": "1000"},
        {"aperio.MPP": "0"},
        {"aperio.MPP": "-0.25"},
        {"aperio.MPP": "nan"},
        {"aperio.MPP": "0,25"},
        {"aperio.MPP": ""},
        {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"},
        {"tiff.XResolution": "96", "tiff.YResolution": "96", "tiff.ResolutionUnit": "inch"},
        {"tiff.XResolution": "300", "tiff.YResolution": "300", "tiff.ResolutionUnit": "inch"},
        {"tiff.XResolution": "1", "tiff.YResolution": "1", "tiff.ResolutionUnit": "centimeter"},
        {"tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "none"},
        {"tiff.XResolution": "0", "tiff.YResolution": "0", "tiff.ResolutionUnit": "centimeter"},
        {"tiff.XResolution": "inf", "tiff.YResolution": "inf", "tiff.ResolutionUnit": "centimeter"},
        {"openslide.objective-power": "40"},
        {"openslide.comment": OME.format(x=0, y=0, unit="µm")},
        {"openslide.comment": OME.format(x=0.25, y=0.25, unit="parsec")},
    ],
)
def test_nothing_believable_is_refused_with_the_flag_and_the_evidence(tags: dict[str, str]) -> None:
    with pytest.raises(MppError) as caught:
        find_mpp({"openslide.vendor": "aperio", **tags}, stated=None, path=SLIDE)
    text = str(caught.value)
    assert "--mpp 0.25" in text
    for looked_at in ("vendor tag", "TIFF resolution", "objective power"):
        assert looked_at in text
    assert "/patients" not in text
    assert caught.value.exit_code == ExitCode.NONE_SUCCEEDED


def test_a_refused_tag_leaves_the_next_one_to_be_believed() -> None:
    tags = {"aperio.MPP": "1000", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}
    found = find_mpp({**tags, "tiff.ResolutionUnit": "centimeter"}, stated=None, path=SLIDE)
    assert (found.mpp_x, found.source) == (0.5, "tiff-resolution")
    assert "refused" in found.evidence[0]


def test_the_command_line_outranks_the_file_and_says_so() -> None:
    tags = {"openslide.vendor": "aperio", "aperio.MPP": "0.499"}
    same = find_mpp(tags, stated=0.5, path=SLIDE)
    assert (same.mpp_x, same.source, same.conflict) == (0.5, "command-line", "")
    other = find_mpp(tags, stated=0.25, path=SLIDE)
    assert other.mpp_x == 0.25
    assert other.conflict == "the resolution is 0.25 um/px by --mpp, but 0.499 by vendor tag aperio.MPP"


@pytest.mark.parametrize("mpp", [0.0, -0.5, 0.01, 1000.0, float("nan"), float("inf")])
def test_a_nonsense_command_line_is_a_usage_error(mpp: float) -> None:
    with pytest.raises(UsageError, match="--mpp") as caught:
        InferOptions(mpp=mpp)
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(MppError):
        find_mpp({}, stated=mpp, path=SLIDE)
