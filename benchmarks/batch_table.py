"""The numbers of bench_batch.py for people, in Markdown."""

from __future__ import annotations

from typing import Any


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    parts = found["parts"]
    apart = parts["heat_maps"].get("written_by")
    runs = (
        f"the heat maps in a run of their own ({apart['date']}, {apart['revision'][:9]})" if apart else "all in one run"
    )
    lines = [
        "# Batches",
        "",
        f"Measured by benchmarks/bench_batch.py on {found['machine']}; {runs}.",
        "",
        f"Overlap: {parts['overlap']['slides']} slides of make_wsi.py (4:2:0, 0.25 um/px), "
        f"{parts['overlap']['tiles']} tiles of 224 px at 0.5 um/px. The engine is a stand-in that takes a device's "
        "time and no CPU. Ratio: batch without start-up over the slower of tiling alone and engine alone.",
        "",
        "| engine rate over tiling rate | tiling alone, s | engine alone, s | batch, s | ratio (spread) | "
        "start-up, s | ratio with start-up |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in parts["overlap"]["table"]:
        lines.append(
            f"| {row['device_over_tiling_rate']} | {row['tiling_alone_s']:.2f} | {row['engine_alone_s']:.2f} | "
            f"{row['batch_s']:.2f} | {row['ratio']:.3f} ({row['ratio_spread']:.3f}) | {row['startup_s']:.2f} | "
            f"{row['ratio_with_startup']:.3f} |"
        )
    cpu = parts["overlap"].get("cpu")
    if cpu:
        lines += [
            "",
            f"A real engine on the same CPU cores: {cpu['tiles']} tiles, tiling alone {cpu['tiling_alone_s']} s, "
            f"engine alone {cpu['engine_alone_s']} s, batch {cpu['batch_s']} s: ratio {cpu['ratio']:.3f} "
            f"({cpu['ratio_with_startup']:.3f} with start-up).",
        ]
    m, g, h = parts["memory"], parts["geojson"], parts["heat_maps"]
    lines += [
        "",
        "| | measured | bar |",
        "|---|---|---|",
        f"| end to end over the slower stage, worst row | {found['e2e_over_slowest_stage']:.3f} | 1.1 |",
        f"| memory growth over {m['slides']} small slides, last tenth against first | {m['growth']:+.2%} "
        f"({m['first_tenth_mb']} to {m['last_tenth_mb']} MB) | 5 % |",
        f"| GeoJSON of {g['tiles']} tiles, {g['pathways']} pathways | {g['seconds']:.2f} s "
        f"(spread {g['spread']:.2f}) | 5 s |",
        f"| {h['pathways']} heat maps and overview sheets, {h['tiles']} tiles, CPU time | {h['cpu_s']:.2f} s (spread "
        f"{h['spread']:.2f}); the maps by matplotlib {h['matplotlib_cpu_s']:.1f} s: {h['ratio']:.1f} times | 2 s |",
    ]
    return "\n".join(lines) + "\n"
