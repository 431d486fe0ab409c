"""Every format that the compiled tiler reads, against OpenSlide + PIL and against the same streams in an SVS.

    python benchmarks/bench_formats.py [--json FILE] [--markdown FILE]    writes benchmarks/results/formats.{json,md}
    python benchmarks/bench_formats.py --quick --json FILE                under 50 s, 4:2:0 only

The pixels are make_wsi.py's (as in bench_tiler.py), written in each format by tests/support out of the very same JPEG
streams; JPEG 2000 out of the pixels that those hold. Every round runs every reader once, one after the other, on one
thread (and, for JPEG 2000, one helper process that decodes); a ratio is taken within a round. Figures are medians over
the rounds; the spread is the largest less the smallest. What no provider reads is null.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from real_slides import ROOT, make_slide
from result_files import keep
from rivals import Read, installed, openslide_level_reader, versions
from tiler_cases import Case, case, describe_machine, middle, read_ours, read_rival

sys.path.insert(0, str(ROOT / "tests"))

from support.bif_factory import write_bif
from support.codec_factory import write_as_j2k
from support.dicom_factory import How, Picture, write_level
from support.format_factory import Page, halved, pages_of, write_dicom, write_philips, write_scn, write_sub_pages
from support.ndpi_factory import write_ndpi
from support.slide_factory import encode

from stamp_deploy.grid import TileSet
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import open_tiles

CODINGS = {"420": "4:2:0", "422": "4:2:2", "rgb": "RGB"}
KEYS = (
    "dicom420_vs_openslide", "dicom420_vs_svs", "philips_vs_openslide", "scn_vs_openslide", "j2k_vs_openslide",
    "dicom_open_100k_s",
)  # fmt: skip
BARS = {
    "dicom420_vs_openslide": 7.0, "dicom422_vs_openslide": 6.0, "dicomrgb_vs_openslide": 5.0, "dicom420_vs_svs": 0.95,
    "dicom422_vs_svs": 0.95, "dicomrgb_vs_svs": 0.95, "dicom_20x_vs_openslide": 3.5, "philips_vs_openslide": 6.0,
    "scn_vs_openslide": 6.0, "j2k_vs_openslide": 2.2, "dicom_by_2_vs_openslide": 3.5,
    "philips_by_2_vs_openslide": 3.5, "bif_by_2_vs_openslide": 3.5,
}  # fmt: skip
OPEN_FRAMES, OPEN_ACROSS, OPEN_BAR_S = 100_000, 400, 1.0
SVS, SVS_QUALITY = "svs", 75
"""The quality is the one at which make_wsi.py codes: as many bytes per pixel in every level."""
J2K, J2K_QUICK, J2K_FULL = "j2k", (30, 24), (60, 48)
"""JPEG 2000 takes long: a slide of its own, all of which is read; storage tiles across and down, quick and full."""
NDPI_INTERVAL, REGIONS = 15, "region reads"
"""Blocks of a restart interval, which are 16 x 8 px; and the product's own route without storage tiles."""
RIVALS_OF = {
    "ndpi": ("OpenSlide",),
    "dicom": ("OpenSlide", "wsidicom", "fastslide", "hs2p"),
    "philips": ("OpenSlide", "tiffslide", "pyvips Region.fetch", "fastslide", "hs2p"),
    "scn": ("OpenSlide", "tiffslide", "fastslide", "hs2p"),
    "bif": ("OpenSlide",),
    J2K: ("OpenSlide", "tiffslide", "fastslide", "hs2p"),
}
"""Who reads the format, as its project says. libvips is built without JPEG 2000, and takes an SCN's first picture."""


def write_formats(folder: Path, pages: list[Page], names: list[str], mpp: float) -> dict[str, Path]:
    """The slide in each format, all of the same streams."""
    size = pages[0].width, pages[0].height
    found = {}
    if "dicom" in names:
        found["dicom"] = write_dicom(folder / "dicom", pages, mpp=mpp)
    if "philips" in names:
        found["philips"] = write_philips(folder / "slide-philips.tiff", pages, mpp=mpp)
    if "scn" in names:
        # the glass is one storage tile larger, so that the area is not taken for the picture of all of it
        glass = size[0] + pages[0].side, size[1]
        found["scn"] = write_scn(folder / "slide.scn", [(0, 0, pages)], size=glass, mpp=mpp)
    for path in found.values():
        path.read_bytes()  # into the page cache
    return found


def readers_of(cases: dict[str, Case], rivals: dict[str, Read]) -> tuple[dict[str, dict[str, Read]], list[str]]:
    """The readers of each case, and in sentences which of them cannot read it."""
    found: dict[str, dict[str, Read]] = {}
    notes = []
    for name, one in cases.items():
        found[name] = {}
        for rival in RIVALS_OF.get(name, ()):
            if rival not in rivals:
                continue
            try:
                rivals[rival](one.slide, one.runs[0][:1], round(one.tiles.grid.span_x), 224)
            except Exception as error:  # whatever another project raises
                notes.append(f"{rival} did not open the synthetic {name}, and is not compared: {type(error).__name__}")
            else:
                found[name][rival] = rivals[rival]
    return found, notes


def compare(cases: dict[str, Case], rivals: dict[str, Read], rounds: int) -> list[str]:
    """Fill the cases' rates, all readers of all formats one after the other within a round.

    Returns
    -------
    notes : list of str
        Who does not read what.
    """
    readers, notes = readers_of(cases, rivals)
    for one in cases.values():  # pages, imports
        read_ours(one, tiles=one.tiles.part(slice(64)))
    for _ in range(rounds):
        for name, one in cases.items():
            one.rates.setdefault("tiler", []).append(read_ours(one))
            for rival, read in readers[name].items():
                one.rates.setdefault(rival, []).append(read_rival(one, read))
    return notes


def figures_of(cases: dict[str, Case], label: str) -> dict[str, float]:
    """Ratios and their spreads: each format against OpenSlide, and against the SVS of the same streams."""
    found: dict[str, float] = {}
    for name, one in cases.items():
        if name == SVS:
            continue
        key = f"{name}{label}" if name == "dicom" else name + ("" if label == "420" else label)
        found[f"{key}_vs_openslide"], found[f"{key}_vs_openslide_spread"] = one.ratio("tiler", "OpenSlide")
        if name == J2K:  # other streams
            continue
        pairs = zip(one.rates["tiler"], cases[SVS].rates["tiler"], strict=True)
        found[f"{key}_vs_svs"], found[f"{key}_vs_svs_spread"] = middle([a / b for a, b in pairs])
    return found


def pyramids_by_2(folder: Path, svs: Path, sample: int, rounds: int) -> tuple[dict[str, float], dict[str, Case]]:
    """Pyramids with a level of half the size, all of it tissue: against OpenSlide, which reads that level, too.

    Beside them the level by itself, as a slide of its own: what reading at full scale takes.
    """
    page = pages_of(svs)[0]
    pages = [page, halved(page, quality=SVS_QUALITY)]
    storage = page.width // page.side, page.height // page.side
    paths = {
        SVS: write_sub_pages(folder / "half.tiff", pages[1:], mpp=0.5),
        "dicom": write_dicom(folder / "dicom-by-2", pages, mpp=0.25),
        "philips": write_philips(folder / "philips-by-2.tiff", pages, mpp=0.25),
        "bif": write_bif(folder / "by-2.bif", pages, [(0, 0, *storage)], mpp=0.25),
    }
    cases = {}
    for name, path in paths.items():
        path.read_bytes()
        cases[name] = case(path, 0.5 if name == SVS else 0.25, None, sample, all_tiles=True)
    compare(cases, {"OpenSlide": openslide_level_reader}, rounds)
    return figures_of(cases, "_by_2"), cases


def ndpi(folder: Path, svs: Path, sample: int, rounds: int) -> tuple[dict[str, float], dict[str, Case]]:
    """An NDPI of the pixels of an SVS, coded again: against OpenSlide, and against region reads of this product."""
    with open_slide(svs) as slide:
        # whole intervals, also in the level of a quarter
        rgb = slide.read_region(0, 0, 0, slide.width // 960 * 960, slide.height // 32 * 32)
    path = write_ndpi(folder / "slide.ndpi", rgb, interval=NDPI_INTERVAL, coding="422", mpp=0.25, levels=(4,))
    del rgb
    path.read_bytes()
    one = case(path, 0.25, None, sample, all_tiles=True)
    regions = one.tiles.part(slice(sample))
    rival = {"OpenSlide": installed()[0]["OpenSlide"]}
    compare({"ndpi": one}, rival, 1)  # pages, imports
    one.rates.clear()
    for _ in range(rounds):
        compare({"ndpi": one}, rival, 1)
        one.rates.setdefault(REGIONS, []).append(read_regions(one, regions))
    found: dict[str, float] = {}
    for key, other in (("ndpi_vs_openslide", "OpenSlide"), ("ndpi_vs_regions", REGIONS)):
        found[key], found[f"{key}_spread"] = one.ratio("tiler", other)
    return found, {"ndpi": one}


def read_regions(one: Case, tiles: TileSet) -> float:
    """Tiles/s of some tiles by the route that asks OpenSlide for one region per tile."""
    with open_slide(one.slide, mpp=one.mpp, route="openslide") as slide:
        clock = time.perf_counter()
        with open_tiles(slide, tiles, batch=64, threads=1) as source:
            for _ in source:
                pass
        return len(tiles) / (time.perf_counter() - clock)


def open_seconds(folder: Path, rounds: int) -> dict[str, float]:
    """Opening a DICOM slide of 100,000 frames with an item for each and an extended table of offsets."""
    folder.mkdir()
    stream = encode(np.full((64, 64, 3), 243, np.uint8), "420")
    down = OPEN_FRAMES // OPEN_ACROSS
    picture = Picture(OPEN_ACROSS * 64, down * 64, 64, [stream] * OPEN_FRAMES)
    (path,) = write_level(folder / "many.dcm", picture, How(table="extended", per_frame=True, undefined=True))
    seconds = []
    for _ in range(rounds):
        path.touch()  # another state of the file: nothing that was remembered of it counts
        clock = time.perf_counter()
        open_slide(path).close()
        seconds.append(time.perf_counter() - clock)
    value, spread = middle(seconds)
    return {"dicom_open_100k_s": value, "dicom_open_100k_s_spread": spread}


def run(*, quick: bool) -> dict[str, Any]:
    rivals, absent = installed()
    if "OpenSlide" not in rivals:
        raise SystemExit("openslide-python and openslide-bin are needed to compare with")
    rounds = 3 if quick else 7
    kept = {"OpenSlide": rivals["OpenSlide"]} if quick else rivals
    report: dict[str, Any] = {
        "machine": describe_machine(), "rounds": rounds, "readers": {name: versions()[name] for name in kept},
        "absent": absent, "cannot": [], "rates": {},
        **dict.fromkeys(KEYS),
    }  # fmt: skip
    tiles, limit, sample = ("60x48", 500, 32) if quick else ("200x160", 4000, 96)
    with tempfile.TemporaryDirectory() as name:
        for coding in ("420",) if quick else tuple(CODINGS):
            folder = Path(name) / coding
            folder.mkdir()
            svs = make_slide(folder / "slide.svs", tiles, recode=None if coding == "rgb" else coding)
            formats = ["dicom", "philips", "scn"] if coding == "420" else ["dicom"]
            paths = {SVS: svs, **write_formats(folder, pages_of(svs), formats, 0.25)}
            cases = {key: case(path, 0.25, limit, sample) for key, path in paths.items()}
            if coding == "420":
                across, down = J2K_QUICK if quick else J2K_FULL
                tissue = make_slide(folder / "tissue.svs", f"{across}x{down}", tissue=1.0, recode=coding)
                path = write_as_j2k(folder / "slide-j2k.svs", pages_of(tissue)[0], across, down, mpp=0.25)
                path.read_bytes()
                cases[J2K] = case(path, 0.25, None, 16 if quick else 48, all_tiles=True)
            report["cannot"] += compare(cases, kept, rounds)
            report.update(figures_of(cases, coding))
            report["rates"][CODINGS[coding]] = {key: one.rates for key, one in cases.items()}
            if coding == "420" and not quick:
                native = {key: case(paths[key], 0.5, limit, 2 * sample) for key in (SVS, "dicom")}
                report["cannot"] += compare(native, kept, rounds)
                report.update(figures_of(native, "_20x"))
                report["rates"]["4:2:0, 20x native"] = {key: one.rates for key, one in native.items()}
                figures, by_2 = pyramids_by_2(folder, tissue, 2 * sample, rounds)
                report.update(figures)
                figures, of_ndpi = ndpi(folder, tissue, 2 * sample, rounds)
                report.update(figures)
                report["rates"]["4:2:2, NDPI of restart intervals of 240 x 8 px"] = {"ndpi": of_ndpi["ndpi"].rates}
                title = "4:2:0, pyramids by 2, OpenSlide at the same level; svs: that level as a slide of its own"
                report["rates"][title] = {key: one.rates for key, one in by_2.items()}
            for path in folder.rglob("*"):
                if path.is_file():
                    path.unlink()
        report.update(open_seconds(Path(name) / "open", rounds))
    report["missed"] = missed_bars(report)
    return report


def missed_bars(report: dict[str, Any]) -> list[str]:
    """Which bars the run did not reach; a figure that was not measured is no miss here."""
    out = [
        f"{key}: {report[key]:.2f}, the bar is {bar:g}"
        for key, bar in BARS.items()
        if report.get(key) is not None and report[key] < bar
    ]
    if report["dicom_open_100k_s"] >= OPEN_BAR_S:
        out.append(f"dicom_open_100k_s: {report['dicom_open_100k_s']:.2f} s, the bar is {OPEN_BAR_S:g} s")
    return out


def to_markdown(report: dict[str, Any]) -> str:
    machine = report["machine"]
    lines = [
        "# Formats, measured", "",
        f"Written by benchmarks/bench_formats.py on {machine['date']}: {machine['cpu']}, {machine['cores']} cores "
        f"(load {machine['load_at_start']:.1f} at the start), Python {machine['python']}, {machine['core']}. "
        f"Medians of {report['rounds']} interleaved rounds, the spread (largest less smallest) in brackets. "
        "One thread, tiles of 224 px, the same JPEG streams in each format (made of a real slide's tiles).", "",
        "| | measured | bar |", "|---|---|---|",
    ]  # fmt: skip
    for key, value in report.items():
        if key.endswith(("_vs_openslide", "_vs_svs", "_vs_regions")):
            bar = f"{BARS[key]:g}" if key in BARS else ""
            text = "not built" if value is None else f"{value:.2f} ({report[key + '_spread']:.2f})"
            lines.append(f"| {key} | {text} | {bar} |")
    seconds = f"{report['dicom_open_100k_s']:.3f} s ({report['dicom_open_100k_s_spread']:.3f})"
    lines += [f"| dicom_open_100k_s | {seconds} | below {OPEN_BAR_S:g} s |", "", "## Tiles per second", ""]
    for coding, formats in report["rates"].items():
        readers = [
            "tiler",
            *(name for name in (REGIONS, *report["readers"]) if any(name in rates for rates in formats.values())),
        ]
        lines += [f"### {coding}", "", f"| format | {' | '.join(readers)} |", "|---" * (len(readers) + 1) + "|"]
        for name, rates in formats.items():
            cells = ["{:,.0f} ({:,.0f})".format(*middle(rates[r])) if r in rates else "" for r in readers]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"Readers: {'; '.join(f'{name} ({version})' for name, version in report['readers'].items())}.", ""]
    if report["absent"]:
        lines += [f"Not installed where this ran: {', '.join(report['absent'])}.", ""]
    lines += [f"{note}." for note in dict.fromkeys(report["cannot"])] + [""] * bool(report["cannot"])
    lines += ["## Missed", "", *([f"- {m}" for m in report["missed"]] or ["None."]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4:2:0 only, a smaller slide, fewer rounds")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args()
    started = time.perf_counter()
    report = run(quick=options.quick)
    report["seconds"] = round(time.perf_counter() - started, 1)
    text = to_markdown(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(text)
    if not options.quick:
        keep("formats", report, text)
    print(text)


if __name__ == "__main__":
    main()
