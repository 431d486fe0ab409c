"""The numbers of bench_tiler.py for people, in Markdown, and the bars that they miss."""

from __future__ import annotations

from typing import Any

from tiler_cases import CODINGS, TILE, middle

BARS = {
    "vs_openslide_40x": {"as coded (RGB 4:4:4)": 6.0, "4:2:2": 7.5, "4:2:0": 9.0},
    "vs_openslide_20x": {"as coded (RGB 4:4:4)": 3.7, "4:2:2": 4.0, "4:2:0": 4.4},
    "of_decode_ceiling": dict.fromkeys(CODINGS, 0.88),
}


def to_markdown(report: dict[str, Any]) -> str:
    machine, slides = report["machine"], report["slides"]
    lines = [
        "# The tiler, measured", "",
        f"Written by benchmarks/bench_tiler.py on {machine['date']}: {machine['cpu']}, {machine['cores']} cores "
        f"(load {machine['load_at_start']:.1f} at the start), Python {machine['python']}, {machine['core']}. "
        f"Medians of {report['rounds']} interleaved rounds, the spread (largest less smallest) in brackets. "
        f"Tiles of {TILE} px, one thread unless said.", "",
        "## Bars", "",
        "| | " + " | ".join(slides) + " | bar |", "|---|" + "---|" * (len(slides) + 1),
    ]  # fmt: skip

    def row(title: str, key: str, bar: str) -> None:
        cells = " | ".join(f"{s['keys'][key]:.2f} ({s['keys'][key + '_spread']:.2f})" for s in slides.values())
        lines.append(f"| {title} | {cells} | {bar} |")

    def bar(key: str) -> str:
        return " / ".join(f"{BARS[key][name]:g}" for name in slides)

    row("40x to 0.5 um/px against OpenSlide + PIL, times", "vs_openslide_40x", bar("vs_openslide_40x"))
    row("20x native against OpenSlide, times", "vs_openslide_20x", bar("vs_openslide_20x"))
    row("of the decode ceiling, 40x", "of_decode_ceiling_40x", bar("of_decode_ceiling"))
    row("of the decode ceiling, 20x", "of_decode_ceiling_20x", bar("of_decode_ceiling"))
    row("two threads against one, 40x", "two_thread_speedup", "1.85")
    row("0.2526 um/px against the exact factor 2", "resampled_fraction", "0.75")
    k = report["keys"]
    lines += [
        "", "| 4:2:0 | measured | bar |", "|---|---|---|",
        f"| peak memory, 48,000 x 38,400 px | {k['peak_mb_large']:.0f} MB ({k['peak_mb_large_spread']:.0f}) "
        "| below 500 |",
        f"| peak memory, 12,000 x 9,600 px | {k['peak_mb_small']:.0f} MB ({k['peak_mb_small_spread']:.0f}) | "
        "within 20 % |",
        f"| tiler's time, all glass of all tissue | {k['glass_fraction']:.2%} ({k['glass_fraction_spread']:.2%}) "
        "| below 2 % |",
        "",
        f"Finding that the glass slide holds no tissue takes {k['glass_tissue_finding_s']:.2f} s more (thumbnail and "
        f"mask); decoding all tissue takes {k['all_tissue_s']:.2f} s on one thread.",
        "", "## Tiles per second", "",
    ]  # fmt: skip
    for name, slide in slides.items():
        lines += [f"### {name}", "", "| reader | 40x to 0.5 um/px | 20x native |", "|---|---|---|"]
        readers = list(dict.fromkeys([*slide["rates"]["40x"], *slide["rates"]["20x"]]))
        for reader in readers:
            cells = []
            for scenario in ("40x", "20x"):
                values = slide["rates"][scenario].get(reader)
                cells.append("{:,.0f} ({:,.0f})".format(*middle(values)) if values else "")
            lines.append(f"| {reader} | {cells[0]} | {cells[1]} |")
        lines.append("")
    lines += [f"Readers: {'; '.join(report['readers'].values())}.", ""]
    if report["not_installed"]:
        lines += [f"Not installed here, so not measured: {', '.join(report['not_installed'])}.", ""]
    missed = report["missed"]
    lines += ["## Missed", "", *([f"- {m}" for m in missed] or ["None."]), ""]
    return "\n".join(lines)


def missed_bars(report: dict[str, Any]) -> list[str]:
    """Which bars the run did not reach."""
    out = []
    for name, slide in report["slides"].items():
        for key, bars in BARS.items():
            if slide["keys"][key] < bars[name]:
                out.append(f"{key}, {name}: {slide['keys'][key]:.2f}, the bar is {bars[name]:g}")
        for key, bar in (("two_thread_speedup", 1.85), ("resampled_fraction", 0.75)):
            if slide["keys"][key] < bar:
                out.append(f"{key}, {name}: {slide['keys'][key]:.2f}, the bar is {bar:g}")
    k = report["keys"]
    if k["peak_mb_large"] >= 500 or abs(k["peak_mb_large"] / k["peak_mb_small"] - 1) > 0.2:
        out.append(f"peak memory: {k['peak_mb_large']:.0f} MB large, {k['peak_mb_small']:.0f} MB small")
    if k["glass_fraction"] >= 0.02:
        out.append(f"glass_fraction: {k['glass_fraction']:.2%}, the bar is 2 %")
    return out
