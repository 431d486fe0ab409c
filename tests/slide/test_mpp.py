"""Microns per pixel: what is believed, what is refused, and what the message says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from stamp_deploy.config import InferOptions
from stamp_deploy.errors import ExitCode, MppError, UsageError
from stamp_deploy.grid import Grid
from stamp_deploy.slide.mpp import find_mpp
from stamp_deploy.slide.ome import pixel_size
from stamp_deploy.units import believable_mpp

SLIDE = Path("/patients/slide.svs")
OME = (
    '<?xml version="1.0"?><OME><Image><Pixels PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{y}"/>'
    "</Image></OME>"
)


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


def test_what_openslide_made_of_the_same_tag_is_no_second_witness() -> None:
    """An ImageScope file states aperio.MPP, and OpenSlide gives it out again; it counts where the tag is no number."""
    tags = {"openslide.vendor": "aperio", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
    found = find_mpp({**tags, "aperio.MPP": "0.25"}, stated=None, path=SLIDE)
    assert [line.split(":")[0] for line in found.evidence] == [
        "vendor tag aperio.MPP", "TIFF resolution", "objective power"
    ]  # fmt: skip
    found = find_mpp({**tags, "aperio.MPP": "unknown"}, stated=None, path=SLIDE)
    assert (found.mpp_x, found.source) == (0.25, "vendor")
    assert found.evidence[:2] == (
        "vendor tag aperio.MPP: refused: not a length", "vendor metadata (aperio): 0.25 x 0.25 um/px, accepted"
    )  # fmt: skip


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
        {"aperio.MPP": "0_25"},
        {"aperio.MPP": "0_5"},
        {"aperio.MPP": "1,234.5"},
        {"aperio.MPP": "\u0660.\u0662\u0665"},
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


@pytest.mark.parametrize("text", ["0,499000", "0.499", " 0,499 ", ".499", "4.99e-1", "+0,499"])
def test_a_number_as_people_write_it(text: str) -> None:
    tags = {"openslide.vendor": "aperio", "aperio.MPP": text}
    assert find_mpp(tags, stated=None, path=SLIDE).mpp_x == 0.499


def test_openslides_own_value_beside_a_tag_that_cannot_be_read() -> None:
    tags = {
        "openslide.vendor": "aperio",
        "aperio.MPP": "0.4990 um",
        "openslide.mpp-x": "0.499",
        "openslide.mpp-y": "0.499",
    }
    found = find_mpp(tags, stated=None, path=SLIDE)
    assert (found.mpp_x, found.source) == (0.499, "vendor")
    assert found.evidence[:2] == (
        "vendor tag aperio.MPP: refused: not a length",
        "vendor metadata (aperio): 0.499 x 0.499 um/px, accepted",
    )


PIXELS = '<{p}Pixels PhysicalSizeX="0.25" PhysicalSizeXUnit="{unit}" PhysicalSizeY="0.25" PhysicalSizeYUnit="{unit}"/>'


@pytest.mark.parametrize(
    "text",
    [
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>'
        + PIXELS.format(p="", unit="\u00b5m")
        + "</Image></OME>",
        '<ome:OME xmlns:ome="urn:ome"><ome:Image>' + PIXELS.format(p="ome:", unit="\u03bcm") + "</ome:Image></ome:OME>",
        "<OME><Image>" + PIXELS.format(p="", unit="&#181;m") + "</Image></OME>",
        "<OME><Image>" + PIXELS.format(p="", unit="&#x3BC;m") + "</Image></OME>",
        "<OME><Image>" + PIXELS.format(p="", unit="um").replace('"', "'") + "</Image></OME>",
        '<?xml version="1.0" encoding="ISO-8859-1"?><OME><Image>'
        + PIXELS.format(p="", unit="\ufffdm")
        + "</Image></OME>",
        '\ufeff<?xml version="1.0" encoding="UTF-16"?>\n<!-- PhysicalSizeX="9" --><OME><Image>'
        + PIXELS.format(p="", unit="\u00b5m"),
        "<OME><!-- <Pixels PhysicalSizeX='9'/> --><Image>" + PIXELS.format(p="", unit="micron") + "</Image></OME>",
        "<OME><Image>" + PIXELS.format(p="", unit="\u00b5m").replace("0.25", "0,25") + "</Image></OME>",
        "<OME><Image>" + PIXELS.format(p="", unit="\u00c5").replace("0.25", "2500") + "</Image></OME>",
    ],
)
def test_ome_xml_as_writers_write_it(text: str) -> None:
    found = find_mpp({"openslide.vendor": "generic-tiff", "openslide.comment": text}, stated=None, path=SLIDE)
    assert (found.mpp_x, found.mpp_y, found.source) == (pytest.approx(0.25), pytest.approx(0.25), "ome-xml")


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE OME [<!ENTITY a "0.25">]><OME><Image><Pixels PhysicalSizeX="&a;"/></Image></OME>',
        '<OME><Image><Pixels PhysicalSizeX="&a;"/></Image></OME>',
        "<OME><Image><Pixels PhysicalSizeX='0.25</OME>",
        "<OME>" + "<!-- filler -->" * 1_200_000 + "<Pixels PhysicalSizeX='0.25'/></OME>",
        "<!-- -->" * 100_000 + "<Other/>",
        "<!-- " * 100_000,
        "a text that speaks of <OME and of PhysicalSizeX='0.25'",
    ],
)
def test_hostile_or_broken_ome_xml_is_no_evidence(text: str) -> None:
    with pytest.raises(MppError):
        find_mpp({"openslide.vendor": "generic-tiff", "openslide.comment": text}, stated=None, path=SLIDE)


def test_an_overview_is_not_to_be_scored_with_a_stated_resolution() -> None:
    tags = {"openslide.vendor": "dicom", "openslide.mpp-x": "28.969", "openslide.mpp-y": "28.968"}
    with pytest.raises(MppError, match="overview") as caught:
        find_mpp(tags, stated=None, path=SLIDE)
    assert "--mpp" not in str(caught.value)


def test_free_text_in_a_field_for_a_number_stays_in_the_file() -> None:
    tags = {
        "openslide.vendor": "aperio",
        "aperio.MPP": "Doe^Jane",
        "aperio.AppMag": "Doe^Jane",
        "tiff.XResolution": "20000",
        "tiff.YResolution": "20000",
        "tiff.ResolutionUnit": "Doe^Jane",
    }
    with pytest.raises(MppError) as caught:
        find_mpp(tags, stated=None, path=SLIDE)
    assert "Doe" not in str(caught.value)
    found = find_mpp({**tags, "tiff.ResolutionUnit": "centimeter"}, stated=None, path=SLIDE)
    assert "Doe" not in " ".join(found.evidence)
    assert (
        find_mpp({**tags, "aperio.AppMag": "20 X"}, stated=0.5, path=SLIDE)
        .evidence[-1]
        .startswith("objective power: 20x")
    )


def test_one_range_of_believable_resolutions_everywhere() -> None:
    grid = {"slide_width": 100, "slide_height": 100, "mpp_x": 0.5, "mpp_y": 0.5, "target_mpp": 0.5, "tile_px": 8}
    for mpp in (0.049, 20.1, math.nan):
        assert not believable_mpp(mpp)
        for name in ("mpp_x", "mpp_y", "target_mpp"):
            with pytest.raises(UsageError, match=r"0\.05 to 20"):
                Grid(**{**grid, name: mpp})
    assert believable_mpp(0.05)
    assert believable_mpp(20)


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


# The edges of what is believed, in numbers.


def of_vendor(x: float, y: float, **more: str) -> dict[str, str]:
    return {"openslide.vendor": "hamamatsu", "openslide.mpp-x": str(x), "openslide.mpp-y": str(y), **more}


@pytest.mark.parametrize(("x", "y"), [(0.25, 0.2749), (0.2749, 0.25), (0.25, 0.25)])
def test_pixels_may_be_ten_percent_longer_one_way_or_the_other(x: float, y: float) -> None:
    found = find_mpp(of_vendor(x, y), stated=None, path=SLIDE)
    assert (found.mpp_x, found.mpp_y, found.source) == (x, y, "vendor")


@pytest.mark.parametrize(("x", "y"), [(0.25, 0.2751), (0.2751, 0.25), (0.25, 0.75), (0.25, 19.0)])
def test_and_no_more(x: float, y: float) -> None:
    with pytest.raises(MppError, match="x and y differ by more than 10 %"):
        find_mpp(of_vendor(x, y), stated=None, path=SLIDE)


@pytest.mark.parametrize(("x", "y"), [(0.049, 0.05), (0.05, 0.049), (20.0, 20.1), (20.1, 20.0), (-0.25, -0.25)])
def test_one_side_out_of_range_is_enough(x: float, y: float) -> None:
    with pytest.raises(MppError, match=r"refused: outside 0\.05 to 20 um/px"):
        find_mpp(of_vendor(x, y), stated=None, path=SLIDE)


@pytest.mark.parametrize(("x", "y"), [("0.25", "here"), ("here", "0.25"), ("0.25", "inf"), ("0.25", "")])
def test_a_side_that_is_no_length_refuses_the_pair(x: str, y: str) -> None:
    tags = {"openslide.vendor": "hamamatsu", "openslide.mpp-x": x, "openslide.mpp-y": y}
    with pytest.raises(MppError, match="refused: not a length"):
        find_mpp(tags, stated=None, path=SLIDE)
    del tags["openslide.mpp-y"]
    with pytest.raises(MppError, match="refused: not a length"):
        find_mpp(tags, stated=None, path=SLIDE)


def per_cm(mpp_x: float, mpp_y: float | None = None) -> dict[str, str]:
    return {
        "tiff.XResolution": repr(10_000 / mpp_x),
        "tiff.YResolution": repr(10_000 / (mpp_y or mpp_x)),
        "tiff.ResolutionUnit": "centimeter",
    }


@pytest.mark.parametrize(("other", "differs"), [(0.2749, False), (0.2274, False), (0.2751, True), (0.2271, True)])
def test_statements_conflict_from_ten_percent_on_whichever_is_larger(other: float, differs: bool) -> None:
    found = find_mpp(of_vendor(0.25, 0.25, **per_cm(other)), stated=None, path=SLIDE)
    assert (found.mpp_x, found.source) == (0.25, "vendor")
    assert bool(found.conflict) is differs
    if differs:
        start = f"the resolution is 0.25 um/px by vendor metadata (hamamatsu), but {other:g} by TIFF resolution"
        assert found.conflict.startswith(start)


def test_the_last_of_three_statements_is_compared_too() -> None:
    text = OME.format(x=0.26, y=0.26, unit="µm")
    found = find_mpp(of_vendor(0.25, 0.25, **per_cm(0.5), **{"openslide.comment": text}), stated=None, path=SLIDE)
    assert (found.mpp_x, found.source) == (0.25, "vendor")
    assert "but 0.5 by TIFF resolution" in found.conflict


def test_what_was_refused_conflicts_with_nothing() -> None:
    found = find_mpp(of_vendor(0.25, 0.25, **per_cm(353.0)), stated=None, path=SLIDE)  # 72 dpi
    assert found.conflict == ""


def test_a_tiff_states_x_and_y_apart() -> None:
    tags = {"openslide.vendor": "generic-tiff", **per_cm(0.5, 0.48)}
    found = find_mpp(tags, stated=None, path=SLIDE)
    assert (found.mpp_x, found.mpp_y) == (pytest.approx(0.5), pytest.approx(0.48))
    del tags["tiff.YResolution"]
    with pytest.raises(MppError, match="not a length"):
        find_mpp(tags, stated=None, path=SLIDE)


@pytest.mark.parametrize(("unit", "found"), [(None, 0.5), ("inch", 0.5), ("centimeter", 10_000 / 50_800)])
def test_an_inch_is_25400_microns_and_the_unit_where_none_is_said(unit: str | None, found: float) -> None:
    tags = {"openslide.vendor": "generic-tiff", "tiff.XResolution": "50800", "tiff.YResolution": "50800"}
    if unit:
        tags["tiff.ResolutionUnit"] = unit
    assert find_mpp(tags, stated=None, path=SLIDE).mpp_x == pytest.approx(found)


@pytest.mark.parametrize(
    ("tags", "source", "mpp"),
    [
        ({"openslide.vendor": "dicom", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, "dicom", 0.25),
        ({"openslide.vendor": "mirax", "openslide.mpp-x": "0.23", "openslide.mpp-y": "0.23"}, "vendor", 0.23),
        # of a plain TIFF, OpenSlide's own value is the resolution; DICOM has no TIFF resolution
        ({"openslide.vendor": "generic-tiff", "openslide.mpp-x": "0.3", **per_cm(0.5)}, "tiff-resolution", 0.5),
        ({"openslide.vendor": "generic", "openslide.mpp-x": "0.3", **per_cm(0.5)}, "tiff-resolution", 0.5),
        ({"openslide.vendor": "aperio", "aperio.MPP": "0.25", "openslide.mpp-x": "0.5"}, "vendor", 0.25),
    ],
)
def test_which_field_of_which_format_is_believed(tags: dict[str, str], source: str, mpp: float) -> None:
    found = find_mpp(tags, stated=None, path=SLIDE)
    assert (found.source, found.mpp_x) == (source, pytest.approx(mpp))


def test_dicom_has_no_tiff_resolution() -> None:
    with pytest.raises(MppError) as caught:
        find_mpp({"openslide.vendor": "dicom", **per_cm(0.5)}, stated=None, path=SLIDE)
    assert "TIFF" not in str(caught.value)


@pytest.mark.parametrize(
    ("mpp", "overview"), [(199.9, True), (200.0, True), (200.1, False), (20.0, None), (20.1, True), (0.01, False)]
)
def test_only_a_coarse_scan_of_the_glass_is_called_an_overview(mpp: float, overview: bool | None) -> None:
    tags = of_vendor(mpp, mpp)
    if overview is None:
        assert find_mpp(tags, stated=None, path=SLIDE).mpp_x == mpp
        return
    with pytest.raises(MppError) as caught:
        find_mpp(tags, stated=None, path=SLIDE)
    assert ("overview" in str(caught.value)) is overview


def test_a_printers_resolution_is_no_overview() -> None:
    with pytest.raises(MppError, match="--mpp"):  # 254 dpi are 100 um/px
        find_mpp({"openslide.vendor": "generic-tiff", **per_cm(100)}, stated=None, path=SLIDE)


@pytest.mark.parametrize("mpp", [0.05, 20.0])
def test_the_command_line_may_say_the_edges_and_goes_first(mpp: float) -> None:
    found = find_mpp(of_vendor(0.25, 0.25), stated=mpp, path=SLIDE)
    assert (found.mpp_x, found.mpp_y) == (mpp, mpp)
    assert found.evidence[0] == f"command line: {mpp:g} um/px, accepted"


@pytest.mark.parametrize(
    ("power", "said"),
    [
        ({"aperio.AppMag": "40"}, "40x, never converted to microns"),
        ({"openslide.objective-power": "20", "aperio.AppMag": "40"}, "20x, never converted to microns"),
        ({"openslide.objective-power": "many", "aperio.AppMag": "40"}, "40x, never converted to microns"),
        ({"openslide.objective-power": "many"}, "not a number"),
        ({"openslide.objective-power": ""}, "not recorded"),
        ({}, "not recorded"),
    ],
)
def test_the_objective_is_listed_only(power: dict[str, str], said: str) -> None:
    found = find_mpp(of_vendor(0.25, 0.25, **power), stated=None, path=SLIDE)
    assert found.evidence[-1] == f"objective power: {said}"
    assert found.mpp_x == 0.25


# OME-XML: which image, which unit, which side.


def image(*attributes: str) -> str:
    return f"<Image><Pixels {' '.join(attributes)}/></Image>"


def sizes(x: float, y: float, unit: str = "") -> str:
    units = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}" ' if unit else ""
    return f'{units}PhysicalSizeX="{x!r}" PhysicalSizeY="{y!r}"'


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([image(sizes(0.25, 0.26)), image(sizes(1.0, 1.04)), image(sizes(60, 60))], (0.25, 0.26)),
        (
            [image(sizes(1.0, 1.04)), image(sizes(0.25, 0.26))],
            (1.0, 1.04),
        ),  # the first, not the finest
        ([image('PhysicalSizeX="0.25"')], (0.25, 0.25)),
        ([image('PhysicalSizeY="0.25"')], None),
        ([image(), image(sizes(0.25, 0.25))], None),  # the slide itself has no size: another image's is not its own
        ([], None),
    ],
)
def test_the_first_image_of_ome_xml_is_the_slide(images: list[str], expected: tuple[float, float] | None) -> None:
    assert pixel_size(f"<OME>{''.join(images)}</OME>") == expected


@pytest.mark.parametrize(
    ("unit", "microns"),
    [
        ("m", 1e6), ("dm", 1e5), ("cm", 1e4), ("mm", 1e3), ("µm", 1), ("\u03bcm", 1), ("um", 1), ("nm", 1e-3),
        ("Å", 1e-4), ("in", 25400), ("inch", 25400), ("micron", 1), ("Microns", 1), ("micrometer", 1),
        ("micrometre", 1), (" UM ", 1),
    ],
)  # fmt: skip
def test_every_unit_of_length_in_both_directions(unit: str, microns: float) -> None:
    found = pixel_size(f"<OME>{image(sizes(0.25 / microns, 0.26 / microns, unit))}</OME>")
    assert found == (pytest.approx(0.25), pytest.approx(0.26))


def test_each_side_has_its_own_unit() -> None:
    text = image('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00026" PhysicalSizeYUnit="mm"')
    assert pixel_size(f"<OME>{text}</OME>") == (pytest.approx(0.25), pytest.approx(0.26))
    text = image('PhysicalSizeX="0.25" PhysicalSizeY="0.00026" PhysicalSizeYUnit="mm"')
    assert pixel_size(f"<OME>{text}</OME>") == (0.25, pytest.approx(0.26))


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "pm2", "lightyear"])
def test_a_unit_that_is_no_length_gives_no_number(unit: str) -> None:
    found = pixel_size(f"<OME>{image(sizes(0.25, 0.25, unit))}</OME>")
    assert found is not None
    assert all(math.isnan(value) for value in found)
