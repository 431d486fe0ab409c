"""The words of the report: calls, verdicts, rows of the table of pathways, provenance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..heads import HeadCall, value_text
from ..map_style import MapStyle, signed
from ..result import Result
from ..summaries import PathwaySummary
from ..trust import SlideTrust, TileFlag, besides_verdict
from ..validation import MIN_VALIDATED_R

VERDICTS = {
    "inside": ("Inside", "This slide looks like the tiles that the model was made on."),
    "doubtful": (
        "Doubtful",
        "This slide differs from the tiles that the model was made on. Read its scores with care.",
    ),
    "outside": (
        "Outside",
        "This slide does not look like the tiles that the model was made on. How far its scores hold is not known.",
    ),
    "not judged": ("Not judged", "Nobody knows whether this slide looks like what the model was made on."),
}
"""What a verdict is called and what it means. "Outside" says what was seen and no more: a scanner that the model has
not seen looks outside, too, where scores hold well (our own measurement)."""

DASH = "\N{EN DASH}"
"""Where a number is not known."""


def significant(value: float) -> str:
    """Three significant digits without an exponent for everyday sizes, with a true minus sign."""
    text = "0" if value == 0 else f"{value:.3g}"
    if "e" not in text and abs(value) < 1000 and value != 0:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:.{min(decimals, 3)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def trust_words(result: Result) -> dict[str, Any]:
    """The verdict on the slide for the top of the page: its name, what it means, why, and what is left out."""
    trust = result.trust
    verdict = "not judged" if trust is None else trust.verdict
    name, meaning = VERDICTS[verdict]
    reasons = ["this result holds no judgement of the slide"] if trust is None else list(trust.reasons)
    facts = []
    if trust is not None and trust.distance is not None:
        facts.append(
            f"Distance {significant(trust.distance)}: the slide's median over the largest median of a reference "
            f"section that was left out; {trust.judged_tiles:,} tiles judged."
        )
    if trust is not None and trust.rule:
        facts.append(f"Rule: {trust.rule}.")
    return {
        "verdict": verdict,
        "name": name,
        "meaning": meaning,
        "reasons": reasons,
        "left_out": "" if trust is None else _left_out(trust),
        "facts": facts,
    }


def _left_out(trust: SlideTrust) -> str:
    """How many tiles summaries leave out, of each kind, and how many nobody measured; "" where all were measured and
    count."""
    flags, gone = trust.tile_flags, trust.left_out
    unseen = np.isnan(trust.tile_distance) & (trust.judged_tiles > 0)
    seen, odd = int((~unseen).sum()), int((gone & ~unseen).sum())
    said = []
    if odd:
        kinds = [
            f"{int(((flags[gone] & int(flag)) != 0).sum()):,} {flag.label}"
            for flag in TileFlag
            if flag != TileFlag.NOT_MEASURED and (flags[gone] & int(flag)).any()
        ]
        whom = f"{odd:,} of {seen:,} {'measured ' if unseen.any() else ''}tiles ({100 * odd / seen:.1f} %)"
        said.append(f"Left out of summaries: {'; '.join((whom, *kinds))}. They are hatched on the maps.")
    if unseen.any():
        count = f"{int(unseen.sum()):,} tiles were not measured"
        said.append(f"{count} and count." if not gone[unseen].any() else f"{count} and are left out, too.")
    return " ".join(said)


def warning_words(result: Result) -> list[str]:
    """The warnings that do not repeat the verdict, which `trust_words` tells."""
    return list(result.warnings) if result.trust is None else besides_verdict(result.warnings)


def validation_words(result: Result, styles: tuple[MapStyle, ...]) -> list[str]:
    """How far the pathways' scores were checked, in one or two sentences."""
    lacks = "" if result.validation is None else result.validation.lacks
    tail = [f"{lacks[:1].upper()}{lacks[1:]}."] if lacks else []
    if not styles:
        return tail
    if all(style.status == "not measured" for style in styles):
        return ["How well the pathways' scores hold up on sections that training never saw was not measured.", *tail]
    good = sum(style.status == "validated" for style in styles)
    words = (
        f"{good} of {len(styles)} pathways are validated: Pearson r of at least {MIN_VALIDATED_R:g} on sections that "
        "training never saw, with an interval above 0. The others are shown last and pale."
    )
    return [words, *tail]


def call_words(head: HeadCall) -> dict[str, Any]:
    """A call for the table: words, and positions in percent for its little diagram."""
    scale = head.kind != "survival"

    def word(value: float) -> str:
        return value_text(head.kind, value) if scale else significant(value)

    def percent(value: float) -> float:
        return round(100 * min(max(value, 0.0), 1.0), 2)

    return {
        "name": head.name,
        "kind": head.kind,
        "call": head.call or ("No call" if head.abstained else "\N{EM DASH}"),
        "abstained": head.abstained,
        "value": word(head.value),
        "value_name": head.value_name,
        "interval": None if head.interval is None else [word(v) for v in head.interval],
        "thresholds": [f"{v:g}" for v in head.thresholds],
        "abstain": None if head.abstain is None else [f"{v:g}" for v in head.abstain],
        "classes": [(name, word(p)) for name, p in zip(head.classes, head.probabilities, strict=False)],
        "diagram": scale,
        "at": percent(head.value) if scale else 0,
        "bar": [percent(v) for v in head.interval] if scale and head.interval else None,
        "band": [percent(v) for v in head.abstain] if scale and head.abstain else None,
        "cut": percent(head.thresholds[0]) if head.kind == "binary" and head.thresholds else None,
    }


STATISTICS = ("mean", "sd", "p05", "p50", "p95")


def spread_in_z(result: Result) -> bool:
    """Whether the spread of every pathway can be drawn on the scale that all slides share."""
    return bool(result.pathway_names) and None not in result.summary_scales


def pathway_rows(
    result: Result, summary: dict[str, dict[str, float]], styles: tuple[MapStyle, ...]
) -> list[dict[str, Any]]:
    """The table's rows in the order of the maps; `sort` holds the numbers that a column is sorted by.

    `summary` is the result's own, which takes a while to work out.

    Each pathway's 5th to 95th percentile is placed between all pathways' extremes: in z where every pathway has a
    scale, else in the unit of the scores. Where no tile counts there are dashes, and no place.
    """
    scales = dict(zip(result.pathway_names, result.summary_scales, strict=True))
    in_z = spread_in_z(result)

    def placed(name: str) -> list[float]:
        centre, spread = (in_z and scales[name]) or (0.0, 1.0)
        return [(summary[name][key] - centre) / spread for key in ("p05", "p25", "p50", "p75", "p95")]

    def figures(style: MapStyle) -> dict[str, float | None]:
        return {key: summary[style.name][key] if summary else None for key in STATISTICS}

    low = min((placed(name)[0] for name in summary), default=0.0)
    width = (max((placed(name)[-1] for name in summary), default=1.0) - low) or 1.0
    whole = {item.name: item for item in result.summaries[0].pathways} if result.summaries else {}
    return [
        {
            "layer": number,
            "name": style.name,
            "label": style.label,
            "pale": style.pale,
            "short": style.short,
            "title": style.title,
            "r": DASH if style.r is None else signed(style.r, 2),
            "sort": {"r": style.r, **figures(style), **_areas(whole, style)[1]},
            **{key: DASH if value is None else significant(value) for key, value in figures(style).items()},
            **_areas(whole, style)[0],
            "bar": [round(100 * (value - low) / width, 2) for value in placed(style.name)] if summary else None,
        }
        for number, style in enumerate(styles)
    ]


def _areas(whole: dict[str, PathwaySummary], style: MapStyle) -> tuple[dict[str, str], dict[str, float | None]]:
    """Mean z, tissue above the threshold, hot-spot and Moran's I, in words and as numbers; a dash where unknown."""
    item = whole.get(style.name)
    spot = None if item is None or item.hot_spot is None else item.hot_spot.area_mm2
    numbers = {
        "z": None if item is None else item.mean_z,
        "share": None if item is None else item.share_above,
        "spot": spot,
        "moran": None if item is None else item.morans_i,
    }
    words = {key: DASH if value is None else significant(value) for key, value in numbers.items()}
    if numbers["share"] is not None:
        words["share"] = f"{100 * numbers['share']:.1f} %"
    return words, numbers


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def provenance_rows(record: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of (term, value), in words."""
    slide, bundle, engine, grid, plan = (record[key] for key in ("slide", "bundle", "engine", "grid", "read_plan"))
    return [
        (
            "Slide",
            [
                ("SHA-256", slide["sha256"]),
                ("Format", slide["vendor"]),
                ("Resolution", f"{slide['mpp_x']:g} x {slide['mpp_y']:g} µm/px, from {slide['mpp_source']}"),
                ("Evidence for it", "; ".join(slide["mpp_evidence"]) or "none recorded"),
                ("Read by", f"{slide['route']}: {slide['route_reason']}"),
                (
                    "Reading plan",
                    ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in plan.items()),
                ),
            ],
        ),
        (
            "Model",
            [
                ("Bundle", bundle["name"]),
                ("SHA-256 of bundle.json", bundle["sha256"]),
                ("Foundation model", f"{bundle['pfm_id']} ({bundle['pfm_licence']})"),
                ("Gene sets' SHA-256", bundle["gene_set_sha256"]),
                (
                    "Tiles",
                    f"{grid['tile_px']} px at {grid['target_mpp']:g} µm/px, overlap {grid['overlap_px']} px",
                ),
            ],
        ),
        (
            "Run",
            [
                ("Started (UTC)", record["started_utc"]),
                (
                    "Engine",
                    f"{engine['name']} {engine['version']} on {engine['device']}, {engine['precision']}",
                ),
                ("Chosen because", engine["why"] or "not recorded"),
                (
                    "Time",
                    ", ".join(f"{key.replace('_', ' ')} {s:g} s" for key, s in record["timing_seconds"].items()),
                ),
                ("Limiting stage", record["limiting_stage"] or "not recorded"),
                ("Configuration's SHA-256", record["config_sha256"]),
                ("Software", ", ".join(f"{key} {value}" for key, value in record["software"].items())),
            ],
        ),
    ]
