"""The numbers of bench_trust.py for people, in Markdown."""

from __future__ import annotations

from typing import Any

from stamp_deploy.trust.sample import SAMPLE_TILES

PATIENT = {"C5": "same patient", "B4": "another patient"}
COST_LIMIT = 0.03
STAND_IN_TILES_PER_S = 3000.0


def to_text(record: dict[str, Any], about: str) -> str:
    """trust.md, which begins with what is measured and how."""
    lines = ["# Trust", "", about, ""]
    for view, part in record["power"].items():
        for label, facts in part.items():
            lines += [
                f"## {view}; reference of {label}",
                "",
                f"{facts['tiles']} tiles in {facts['groups']} groups. Largest median distance of a left-out group "
                f"{facts['largest_median_left_out']:.2f}, 95th percentile {facts['95th_percentile_left_out']:.2f}. "
                "Slides are doubtful over a ratio of 1.5 and outside over 3.",
                "",
                "| tiles | section | detected at 5 % false alarms | over the left-out 95th percentile | left out "
                "| ratio | verdict |",
                "|---|---|---|---|---|---|---|",
            ]
            for section, rows in facts["sections"].items():
                for name, row in rows.items():
                    own = "(5 %)" if name == "clean" else f"{row['detected_at_5_percent']:.0%}"
                    where = f"{section}, {PATIENT[section]}"
                    lines.append(f"| {name} | {where} | {own} | {_shares(row)} |")
            for name, row in facts["slides"].items():
                real = "a real slide"
                lines.append(
                    f"| {name} | {real} | not read: {row['unread']} | | | | |"
                    if "unread" in row
                    else f"| {name} | {real} | {row['detected_at_5_percent']:.0%} | {_shares(row)} |"
                )
            lines.append("")
    most_s = 1e-6 * record["cost"]["microseconds_per_tile"] * SAMPLE_TILES
    lines += [
        "## Cost",
        "",
        f"{record['cost']['microseconds_per_tile']:.0f} us of one core per tile, at most {SAMPLE_TILES} tiles per slide"
        f": {most_s:.3f} s at most. That is {COST_LIMIT:.0%} of {most_s / COST_LIMIT:.1f} s, and an engine of "
        f"{STAND_IN_TILES_PER_S:.0f} tiles/s takes so long for {most_s / COST_LIMIT * STAND_IN_TILES_PER_S:.0f} tiles "
        "alone. Where seconds scatter widely the machine was busy with other work, and the shares are of slower runs.",
        "",
        "| engine | tiles | with, s | without, s | difference | measuring, share of the run | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in record["cost"].items():
        if isinstance(row, dict):
            spans = []
            for way in ("with", "without"):
                low, high = row[f"spread_{way}"]
                spans.append(f"{row[f'seconds_{way}']:.2f} ({low:.2f} to {high:.2f})")
            shares = f"{row['measuring_share']:.2%} | {row['measuring_share_most']:.2%}"
            tiles = f"{row['tiles']} of {row['tile_px']} px"
            lines.append(f"| {name} | {tiles} | {spans[0]} | {spans[1]} | {row['difference']:+.1%} | {shares} |")
    lines.append("")
    return "\n".join(lines)


def _shares(row: dict[str, Any]) -> str:
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return f"{row['over_95th_of_left_out']:.0%} | {row['left_out']:.0%} | {ratio} | {row['verdict']}"
