"""report.html: its text and its data."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.result_factory import full_result, make_gallery, make_head, make_result, make_trust, make_validation

from stamp_deploy.gallery_tiles import MAX_BYTES
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.writers.picture import result_styles
from stamp_deploy.writers.report_data import BINS, MAX_LAYER_CHARS, histogram, map_layers, page_data
from stamp_deploy.writers.report_html import render, write
from stamp_deploy.writers.report_words import significant


def test_page_is_self_contained_and_says_what_it_must() -> None:
    result = make_result(pathways=2)
    page = render(result)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}';" in page
    for text in (
        result.slide.sha256,
        result.bundle.sha256,
        "For research use only",
        "MSI-H",
        "0.81",
        "0.74 to 0.87",
    ):
        assert text in page, text


def test_names_from_outside_cannot_run_as_script() -> None:
    evil = "</script><script>alert(1)</script>"
    result = make_result(pathways=(evil, "<img src=x onerror=alert(1)>"), heads=[make_head(evil)])
    slide = type(result.slide)(**{**result.slide.__dict__, "name": evil})
    page = render(make_result(pathways=(evil,), heads=[make_head(evil)], slide=slide))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 2


def test_a_normal_slide_stays_below_five_megabytes(tmp_path: Path) -> None:
    result = make_result(n_tiles=20_000, pathways=50, thumbnail_px=2048)
    (path,) = write(result, tmp_path)
    assert path.stat().st_size < 5_000_000
    assert page_data(result)["merged"] == 1


def test_a_huge_slide_is_merged_and_says_so() -> None:
    result = make_result(n_tiles=150_000, pathways=50, heads=0, thumbnail_px=400, embedding_dim=1)
    data = page_data(result)
    assert data["merged"] == 2
    assert sum(len(layer["data"]) for layer in data["layers"]) <= MAX_LAYER_CHARS * 1.2
    assert len(render(result)) < 5_000_000
    assert "mean of up to 2 x 2 tiles" in re.sub(r"\s+", " ", render(result))


def test_quantised_values_are_within_a_step_of_the_scores() -> None:
    result = make_result(n_tiles=300, pathways=2, heads=1)
    data = page_data(result)
    assert data["bits"] == 16
    for layer, packed in zip(map_layers(result), data["layers"], strict=True):
        low, high = packed["quantised"]
        codes = np.frombuffer(b64decode(packed["data"]), "<u2")
        assert np.abs(low + (high - low) * codes / 65535 - layer.values).max() <= (high - low) / 65535 + 1e-6


def test_the_same_result_gives_the_same_page() -> None:
    result = make_result()
    assert render(result) == render(result)


def test_abstention_survival_and_no_heads_are_worded() -> None:
    heads = [
        make_head("BRAF", call=None, abstained=True, probabilities=(0.5, 0.5), interval=None),
        make_head("OS", kind="survival", classes=("risk",), probabilities=(-0.42,), call=None, interval=(-0.9, 0.1)),
    ]
    page = render(make_result(heads=heads))
    assert "No call" in page
    assert "abstained" in page
    assert "\N{MINUS SIGN}0.420" in page
    assert "Slide-level calls" not in render(make_result(heads=0)).split("<main>")[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (-0.01234, "\N{MINUS SIGN}0.012"), (123.4, "123"), (1234.5, "1.23e+03")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_values_in_the_page_are_the_results() -> None:
    result = full_result()
    page = render(result)
    summary = result.summary()
    rows = re.findall(r'<tr data-layer="(\d+)" data-sort="([^"]*)">.*?<button title="([^"]*)">', page)
    styles = result_styles(result)
    assert [name for _, _, name in rows] == [style.name for style in styles]
    for (number, sort, name), style in zip(rows, styles, strict=True):
        values = json.loads(unescape(sort))
        assert int(number) == styles.index(style)
        assert values["r"] == style.r
        for key in ("mean", "sd", "p05", "p50", "p95"):
            assert values[key] == pytest.approx(summary[name][key])
            assert f">{significant(summary[name][key])}</td>" in page
        whole = next(item for item in result.summaries[0].pathways if item.name == name)
        assert values["share"] == pytest.approx(whole.share_above)
        assert values["z"] == pytest.approx(whole.mean_z)
        assert values["moran"] == pytest.approx(whole.morans_i)
    data = page_data(result)
    assert result.gallery is not None
    for style, layer in zip(styles, data["layers"], strict=False):
        for shown, side in zip(layer["tiles"], (result.gallery.highest, result.gallery.lowest), strict=True):
            assert [tile for tile, _ in shown] == side[style.index].tolist()
            for tile, score in shown:
                assert score == pytest.approx(float(result.pathways[tile, style.index]), rel=1e-5)
                x, y, file = data["gallery"]["tiles"][str(tile)]
                assert [x, y] == result.coords[tile].tolist()
                assert b64decode(file) == result.gallery.jpeg[result.gallery.tiles.tolist().index(tile)]


def test_the_first_tile_is_a_tile_of_the_gallery_and_a_place_without_one_is_none() -> None:
    result = full_result()
    assert result.gallery is not None
    row = np.array([0] + [-1] * (result.gallery.highest.shape[1] - 1))
    table = np.tile(row, (len(result.pathway_names), 1))
    gallery = replace(result.gallery, highest=table, lowest=table, tiles=row[:1], jpeg=(b"file",))
    for layer in page_data(replace(result, gallery=gallery))["layers"][: len(result.pathway_names)]:
        assert [[tile for tile, _ in side] for side in layer["tiles"]] == [[0], [0]]


def test_histograms_count_the_tiles_that_count_and_show_what_the_bundle_expects() -> None:
    result = full_result()
    for style in result_styles(result):
        found = histogram(result, style)
        z = style.shown(result.pathways[result.counted, style.index])
        assert sum(found["counts"]) == result.counted.sum() == 1170
        assert len(found["counts"]) == BINS
        edges = np.linspace(found["low"], found["high"], BINS + 1)
        for i in (5, 20, 40):
            assert found["counts"][i] == ((z >= edges[i]) & (z < edges[i + 1])).sum()
        if style.r is None:
            assert (found["known"], found["outside"]) == (None, None)
            continue
        low, _, high = found["known"]
        assert (low, high) == pytest.approx(((-1.6 - 0.1) / 0.8, (1.8 - 0.1) / 0.8))
        assert found["outside"] == pytest.approx(((z < low) | (z > high)).mean())


@pytest.mark.parametrize(
    ("verdict", "word"),
    [("inside", "Inside"), ("doubtful", "Doubtful"), ("outside", "Outside"), ("not judged", "Not judged")],
)
def test_the_verdict_and_its_reasons_stand_at_the_top(verdict: Any, word: str) -> None:
    trust = make_trust(400, verdict, [3, 4])
    top = render(make_result(400, trust=trust)).split('id="maps"')[0]
    assert f'<span class="word">{word}</span>' in top
    for reason in trust.reasons:
        assert reason in top
    assert "2 of 400 tiles (0.5 %); 2 blurred" in top
    assert trust.rule in top


def test_the_verdict_is_told_once_and_its_shares_are_of_the_tiles_that_were_measured() -> None:
    """139 of 156 left out reads like 17 good ones, where nobody looked at those."""
    n = 60
    distance = np.r_[np.full(20, 9.0), np.full(20, 1.0), np.full(20, np.nan)].astype(np.float32)
    flags = np.r_[np.full(20, TileFlag.INK | TileFlag.FOREIGN), np.zeros(40)].astype(np.uint16)
    trust = SlideTrust("doubtful", ("half of it is ink",), tile_distance=distance, tile_flags=flags, judged_tiles=40)
    result = make_result(n_tiles=n, trust=trust, warnings=(*trust.warnings, "the scan is coarse"))
    page = render(result).split('<template id="sheet">')[0]
    assert page.count("half of it is ink") == 1 and page.count("the scan is coarse") == 1
    words = "20 of 40 measured tiles (50.0 %); 20 ink; 20 unlike the training tiles."
    assert words in page and "20 tiles were not measured and count." in page
    outside = replace(trust, verdict="outside", tile_flags=np.r_[flags[:40], np.full(20, 64)].astype(np.uint16))
    page = render(make_result(n_tiles=n, trust=outside))
    assert words in page and "20 tiles were not measured and are left out, too." in page


def test_a_slide_of_which_no_tile_counts_lists_its_pathways_without_figures() -> None:
    result = make_result(n_tiles=60, pathways=3, trust=make_trust(60, "outside", range(60)))
    page = render(result)
    rows = re.findall(r'<tr data-layer="\d+".*?</tr>', page, re.DOTALL)
    assert len(rows) == 3 and all(row.count("\N{EN DASH}</td>") >= 5 and "whisker" not in row for row in rows)
    assert "No tile counts" in page and '<input type="checkbox" class="chosen"' in rows[0]
    assert page_data(result)["layers"][0]["histogram"]["outside"] is None


def test_what_is_not_known_is_said() -> None:
    page = render(make_result(pathways=3))
    assert '<span class="word">Not judged</span>' in page
    assert "was not measured" in page
    assert page.count("r not measured") >= 3
    assert "Not validated" not in page.split("<script")[0]
    assert "stretched to this slide" in page


def test_what_is_not_validated_comes_last_under_its_heading() -> None:
    result = full_result()
    page = render(result).split("<script")[0]
    heading = page.index('scope="rowgroup">Not validated')
    for style in result_styles(result):
        at = page.index(f'title="{style.name}">')
        assert (at > heading) == style.pale
        assert style.title in page
    layers = page_data(result)["layers"]
    assert [layer["group"] for layer in layers[:6]] == ["Pathways"] * 3 + ["Not validated"] * 3
    assert [layer["pale"] for layer in layers[:6]] == [False] * 3 + [True] * 3
    assert {tuple(layer["range"]) for layer in layers[:6]} == {(-3.0, 3.0)}


def test_fifty_pathways_of_twenty_thousand_tiles_with_a_full_gallery_stay_below_eight_megabytes(tmp_path: Path) -> None:
    names = make_result(20, 50).pathway_names
    result = make_result(
        20_000, 50, thumbnail=np.random.default_rng(0).integers(60, 255, (1400, 2048, 3), dtype=np.uint8),
        validation=make_validation(names, 8), trust=make_trust(20_000, "doubtful", range(500)),
    )  # fmt: skip
    result = replace(result, gallery=make_gallery(result, file_bytes=MAX_BYTES // 96))
    assert result.gallery is not None
    assert 0.9 * MAX_BYTES < sum(map(len, result.gallery.jpeg)) <= MAX_BYTES
    (path,) = write(result, tmp_path)
    assert path.stat().st_size < 8_000_000


def test_left_out_cells_and_their_flags_travel() -> None:
    result = full_result()
    flags = page_data(result)["flags"]
    assert np.array_equal(np.frombuffer(b64decode(flags["leftOut"]), np.uint8) > 0, ~result.counted)
    words = [flags["words"][code] for code in b64decode(flags["codes"])]
    assert words[99:131] == ["", *["blurred"] * 30, ""]


def test_the_outline_is_that_of_the_tissue_mask_under_the_picture() -> None:
    result = make_result(400)
    mask = np.zeros((result.slide.height // 40, result.slide.width // 40), bool)
    mask[20:60, 30:90] = True
    data = page_data(replace(result, tissue_mask=mask))
    packed = data["mask"]
    wide, high = packed["size"]
    bits = np.unpackbits(np.frombuffer(b64decode(packed["bits"]), np.uint8), bitorder="little")[: wide * high]
    rows, columns = np.nonzero(bits.reshape(high, wide))
    left, top, right, bottom = packed["box"]
    kx, ky = (right - left) / wide, (bottom - top) / high
    scale_x, scale_y = result.slide.width / mask.shape[1], result.slide.height / mask.shape[0]
    found = (
        left + columns.min() * kx,
        left + (columns.max() + 1) * kx,
        top + rows.min() * ky,
        top + (rows.max() + 1) * ky,
    )
    x0, y0, x1, y1 = data["box"]
    there = (max(30 * scale_x, x0), min(90 * scale_x, x1), max(20 * scale_y, y0), min(60 * scale_y, y1))
    assert found == pytest.approx(there, abs=1.5 * max(scale_x, scale_y))
    assert page_data(result)["mask"] is None
