"""The words of the report, row by row: what is left out, calls, areas, provenance; each number where it belongs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.result_factory import full_result, make_head, make_result, make_validation

from stamp_deploy.result import Result
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.writers.card import card_html
from stamp_deploy.writers.picture import result_styles
from stamp_deploy.writers.report_words import (
    call_words,
    pathway_rows,
    provenance_rows,
    significant,
    trust_words,
    validation_words,
    warning_words,
)

MINUS = "\N{MINUS SIGN}"
BLURRED, INK, STAINED, UNSEEN = TileFlag.BLURRED, TileFlag.INK, TileFlag.OVER_STAINED, TileFlag.NOT_MEASURED


def judged(flags: list[int], measured: int, **changes: Any) -> Result:
    """A result of as many tiles as flags, of which the first so many were measured."""
    n = len(flags)
    distance = np.where(np.arange(n) < measured, 1.0, np.nan).astype(np.float32)
    given: dict[str, Any] = {"distance": 1.0, "tile_distance": distance, "tile_flags": np.array(flags, np.uint16),
                             "judged_tiles": measured, "rule": "the rule"}  # fmt: skip
    return make_result(n_tiles=n, trust=SlideTrust("outside", ("less eosin",), **{**given, **changes}))


@pytest.mark.parametrize(
    ("flags", "measured", "said"),
    [
        ([0] * 8, 8, ""),
        ([STAINED] + [0] * 7, 8, ""),  # over-staining alone leaves nothing out
        ([BLURRED] + [0] * 7, 8,
         "Left out of summaries: 1 of 8 tiles (12.5 %); 1 blurred. They are hatched on the maps."),
        ([BLURRED | STAINED, BLURRED | INK, INK, STAINED, 0, 0, 0, 0], 8,
         "Left out of summaries: 3 of 8 tiles (37.5 %); 2 blurred; 2 ink; 1 over-stained. They are hatched on the "
         "maps."),
        ([0] * 8, 5, "3 tiles were not measured and count."),
        ([0] * 5 + [UNSEEN] * 3, 5, "3 tiles were not measured and are left out, too."),
        ([BLURRED] + [0] * 4 + [UNSEEN] * 3, 5,
         "Left out of summaries: 1 of 5 measured tiles (20.0 %); 1 blurred. They are hatched on the maps. "
         "3 tiles were not measured and are left out, too."),
        ([INK] + [0] * 7, 4,
         "Left out of summaries: 1 of 4 measured tiles (25.0 %); 1 ink. They are hatched on the maps. "
         "4 tiles were not measured and count."),
    ],
)  # fmt: skip
def test_how_many_tiles_are_left_out_and_of_how_many(flags: list[int], measured: int, said: str) -> None:
    words = trust_words(judged(flags, measured))
    assert words["left_out"] == said
    assert words["facts"][0].endswith(f"{measured} tiles judged.") and words["facts"][1] == "Rule: the rule."


def test_of_a_slide_that_was_not_judged_nothing_was_not_measured() -> None:
    assert trust_words(judged([0] * 4, 0, distance=None, rule=""))["left_out"] == ""
    assert trust_words(make_result(n_tiles=4))["reasons"] == ["this result holds no judgement of the slide"]


def test_the_verdict_is_said_once() -> None:
    result = judged([0] * 4, 4)
    assert result.trust is not None
    (own,) = result.trust.warnings
    assert warning_words(replace(result, warnings=(own, "1 tile could not be read"))) == ["1 tile could not be read"]
    assert warning_words(replace(result, trust=None, warnings=(own, "x"))) == [own, "x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (-5, f"{MINUS}5.00"), (12.345, "12.3"), (0.0123, "0.012"), (999.4, "999"), (0.0001234, "0.000")],
)
def test_everyday_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_call_in_words() -> None:
    words = call_words(make_head(thresholds=(0.55, 0.125), abstain=(0.3, 0.62), interval=(0.74, 0.87)))
    assert (words["interval"], words["thresholds"], words["abstain"]) == (
        ["0.74", "0.87"],
        ["0.55", "0.125"],
        ["0.3", "0.62"],
    )
    assert (words["at"], words["bar"], words["band"], words["cut"]) == (81, [74, 87], [30, 62], 55)
    assert words["classes"] == [("MSS", "0.19"), ("MSI-H", "0.81")] and words["call"] == "MSI-H"
    silent = call_words(make_head(call=None, abstained=False, interval=None, abstain=None))
    assert (silent["call"], silent["bar"], silent["band"], silent["interval"]) == ("\N{EM DASH}", None, None, None)
    assert call_words(make_head(call=None, abstained=True))["call"] == "No call"
    risk = call_words(make_head(kind="survival", classes=("risk",), probabilities=(-0.42,), interval=(-0.9, 0.1)))
    assert risk["interval"] == [f"{MINUS}0.900", "0.100"]
    assert (risk["at"], risk["bar"], risk["band"]) == (0, None, None), "a log hazard has no place between 0 and 1"


def test_figures_of_each_pathway_are_those_of_the_whole_slide() -> None:
    base = full_result(300)
    whole = base.summaries[0]
    area = replace(
        whole, pathways=tuple(replace(item, mean_z=9.0, share_above=0.99, morans_i=0.01) for item in whole.pathways)
    )
    result = replace(base, summaries=(whole, area))
    summary = result.summary()
    known = {item.name: item for item in whole.pathways}
    rows = pathway_rows(result, summary, result_styles(result))
    assert sorted(row["name"] for row in rows) == sorted(known)
    for row in rows:
        item, sort = known[row["name"]], row["sort"]
        spot = None if item.hot_spot is None else item.hot_spot.area_mm2
        figures = (item.mean_z, item.share_above, item.morans_i, spot)
        assert (sort["z"], sort["share"], sort["moran"], sort["spot"]) == figures
        assert row["share"] == f"{100 * (item.share_above or 0):.1f} %" and row["z"] == significant(item.mean_z or 0)
        assert [sort[key] for key in ("mean", "sd", "p05", "p50", "p95")] == [
            summary[item.name][key] for key in ("mean", "sd", "p05", "p50", "p95")
        ]
    assert any(known[row["name"]].hot_spot is not None for row in rows)


def test_the_others_are_named_where_some_pathways_were_not_measured() -> None:
    base = full_result(200)
    result = replace(base, validation=make_validation(base.pathway_names, not_validated=1, unmeasured=1))
    styles = result_styles(result)
    good = sum(style.status == "validated" for style in styles)
    assert validation_words(result, styles)[0].startswith(f"{good} of {len(styles)} pathways are validated")
    unmeasured = replace(base, validation=make_validation(base.pathway_names, unmeasured=len(base.pathway_names)))
    assert "was not measured" in validation_words(unmeasured, result_styles(unmeasured))[0]


def test_where_each_number_of_the_provenance_comes_from() -> None:
    base = make_result()
    result = replace(base, slide=replace(base.slide, mpp_x=0.2526, mpp_y=0.2498), config_sha256="c0" * 32)
    rows = {head: dict(items) for head, items in provenance_rows(result.to_json_dict())}
    assert rows["Slide"]["Resolution"] == "0.2526 x 0.2498 µm/px, from vendor"
    hashes = rows["Slide"]["SHA-256"], rows["Model"]["SHA-256 of bundle.json"], rows["Model"]["Gene sets' SHA-256"]
    assert hashes == (result.slide.sha256, result.bundle.sha256, result.bundle.gene_set_sha256)
    assert rows["Run"]["Configuration's SHA-256"] == result.config_sha256
    assert rows["Run"]["Started (UTC)"] == result.started_utc


def test_the_card_of_a_notebook_escapes_heads_and_counts_what_was_scored() -> None:
    heads = [
        make_head("<b>MSI</b>", 40, probabilities=(0.1234, 0.8766)),
        make_head("none", 40, call=None, abstained=True), make_head("risk", 40, call=None, abstained=False),
    ]  # fmt: skip
    base = make_result(n_tiles=40, heads=heads)
    tiles = replace(base.tiles, seen=47, ok=40, corrupt=7)
    html = card_html(replace(base, tiles=tiles))
    assert "<b>MSI" not in html and "&lt;b&gt;MSI&lt;/b&gt;: MSI-H (P(MSI-H) 0.877)" in html
    assert "<li>none: no call (" in html and "<li>risk:  (" in html
    assert "40 tiles of 224 px" in html and base.research_use in html


@pytest.mark.parametrize(("verdict", "why"), [("inside", False), ("doubtful", True), ("outside", True)])
def test_the_card_says_why_a_slide_is_not_inside(verdict: str, why: bool) -> None:
    base = judged([0] * 4, 4)
    assert base.trust is not None
    html = card_html(replace(base, trust=replace(base.trust, verdict=verdict)))  # type: ignore[arg-type]
    assert ("less eosin" in html) == why
