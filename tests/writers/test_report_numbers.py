"""What the report's script draws from, where nothing is square: places, merged cells, attention, outlines, words."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.result_factory import full_result, make_head, make_result, make_trust

from stamp_deploy.grid import Grid
from stamp_deploy.heads import value_text
from stamp_deploy.result import Result
from stamp_deploy.validation import PathwayValidation, Scale, Validation
from stamp_deploy.writers import report_data
from stamp_deploy.writers.card import card_html
from stamp_deploy.writers.picture import result_styles
from stamp_deploy.writers.report_data import page_data
from stamp_deploy.writers.report_words import call_words, pathway_rows, spread_in_z, validation_words

GRID = Grid(4000, 3000, 0.28, 0.25, 0.5, 64, 16)


def crooked(cells: list[tuple[int, int]], **changes: Any) -> Result:
    """A result of the tiles in these (column, row), whose score is their number."""
    base = make_result(n_tiles=len(cells), pathways=("UP",), heads=0)
    slide = replace(base.slide, width=4000, height=3000, mpp_x=0.28, mpp_y=0.25)
    scores = np.arange(len(cells), dtype=np.float32)[:, None]
    picture = np.full((600, 1000, 3), 200, np.uint8)
    given = {"slide": slide, "coords": GRID.coords(*np.array(cells).T), "pathways": scores, "thumbnail": picture}
    return replace(base, grid=GRID, **{**given, **changes})


def test_places_are_told_in_level_0_pixels_of_each_direction() -> None:
    data = page_data(crooked([(2, 5), (7, 6)]))
    assert data["step"] == pytest.approx([48 * 0.5 / 0.28, 96])
    assert data["span"] == pytest.approx([64 * 0.5 / 0.28, 128])
    assert data["mpp"] == [0.28, 0.25] and data["grid"] == [GRID.columns, GRID.rows] and data["merged"] == 1
    assert np.frombuffer(b64decode(data["cells"]), "<u2").reshape(-1, 2).tolist() == [[2, 5], [7, 6]]


def test_merged_cells_lie_where_their_tiles_lie_and_hold_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles 0 and 1 share a cell, 3 and 4 another one, 2, 5 and 6 a third. One of two is not most of them, two of three
    are."""
    monkeypatch.setattr(report_data, "MAX_LAYER_CHARS", 4)
    result = crooked(
        [(2, 4), (3, 5), (9, 5), (6, 10), (7, 11), (8, 4), (8, 5)], trust=make_trust(7, left_out=[0, 2, 5])
    )
    data = page_data(result)
    assert data["merged"] == 2
    assert GRID.columns % 2 and data["grid"] == [(GRID.columns + 1) // 2, (GRID.rows + 1) // 2]
    assert data["step"] == pytest.approx([2 * GRID.step_x, 2 * GRID.step_y])
    cells = np.frombuffer(b64decode(data["cells"]), "<u2").reshape(-1, 2).tolist()
    assert sorted(cells) == [[1, 2], [3, 5], [4, 2]]
    (layer,) = data["layers"]
    low, high = layer["quantised"]
    values = low + (high - low) * np.frombuffer(b64decode(layer["data"]), np.uint8) / 255
    found = {tuple(cell): value for cell, value in zip(cells, values, strict=True)}
    assert found == {
        (1, 2): pytest.approx(0.5), (4, 2): pytest.approx(13 / 3), (3, 5): pytest.approx(3.5, abs=0.02)
    }  # fmt: skip
    left_out = np.frombuffer(b64decode(data["flags"]["leftOut"]), np.uint8)
    assert {tuple(cell): bool(out) for cell, out in zip(cells, left_out, strict=True)} == {
        (1, 2): False, (4, 2): True, (3, 5): False
    }  # fmt: skip
    codes = np.frombuffer(b64decode(data["flags"]["codes"]), np.uint8)
    words = {tuple(cell): data["flags"]["words"][code] for cell, code in zip(cells, codes, strict=True)}
    assert words == {(1, 2): "blurred", (4, 2): "blurred", (3, 5): ""}, "two blurred tiles are blurred, and no more"


def test_attention_is_told_in_multiples_of_the_average_tile() -> None:
    weights = np.array([0.1, 0.2, 0.7], np.float32)
    result = crooked([(0, 0), (1, 0), (2, 0)], heads=(make_head("msi", attention=weights),))
    layer = page_data(result)["layers"][-1]
    assert layer["unit"] == "times the average tile"
    assert layer["quantised"] == pytest.approx([0.3, 2.1])


@pytest.mark.parametrize("first", [(0, 0), (5, 6)])
def test_the_outline_of_a_mask_of_other_proportions_lies_on_its_tissue(first: tuple[int, int]) -> None:
    """One pixel of this mask is 20 x 50 of level 0: its two scales are not one. It begins where the tiles do."""
    mask = np.zeros((60, 200), bool)
    mask[20:30, 50:100] = True  # x 1000 to 2000, y 1000 to 1500
    data = page_data(crooked([first, (45, 30)], tissue_mask=mask))
    wide, high = data["mask"]["size"]
    bits = np.unpackbits(np.frombuffer(b64decode(data["mask"]["bits"]), np.uint8), bitorder="little")[: wide * high]
    rows, columns = np.nonzero(bits.reshape(high, wide))
    left, top, right, bottom = data["mask"]["box"]
    kx, ky = (right - left) / wide, (bottom - top) / high
    assert (left + columns.min() * kx, left + (columns.max() + 1) * kx) == pytest.approx((1000, 2000), abs=20)
    assert (top + rows.min() * ky, top + (rows.max() + 1) * ky) == pytest.approx((1000, 1500), abs=50)


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "0.00"), (0.004, "< 0.01"), (0.005, "0.01"), (0.5, "0.50"), (0.994, "0.99"), (0.996, "> 0.99"),
     (1.0, "1.00")],
)  # fmt: skip
def test_a_probability_is_certain_only_where_it_is_exact(p: float, text: str) -> None:
    assert call_words(make_head(probabilities=(1 - p, p)))["value"] == text


def test_values_of_heads_at_the_command_line_and_in_a_notebook_are_as_careful() -> None:
    assert [value_text("binary", p, 3) for p in (0.0, 0.0004, 0.9994, 0.9996, 1.0)] == [
        "0.000", "< 0.001", "0.999", "> 0.999", "1.000",
    ]  # fmt: skip
    assert value_text("survival", 0.9997, 3) == "1.000", "a risk score is no probability"
    html = card_html(make_result(n_tiles=40, heads=[make_head("MSI", 40, probabilities=(0.0001, 0.9999))]))
    assert "(P(MSI-H) &gt; 0.999)" in html


def test_only_a_binary_call_has_a_cut_in_its_diagram() -> None:
    assert call_words(make_head(thresholds=(0.3,)))["cut"] == 30
    risk = make_head(kind="survival", classes=("low", "high"), probabilities=(1.2,), thresholds=(0.4,), interval=None)
    words = call_words(risk)
    assert words["cut"] is None and not words["diagram"] and words["thresholds"] == ["0.4"]
    several = make_head(kind="multiclass", classes=("A", "B"), probabilities=(0.3, 0.7), thresholds=(0.4,))
    assert call_words(several)["cut"] is None


def scaled(*scales: Scale | None) -> Result:
    base = full_result(200, len(scales))
    facts = [PathwayValidation(name, scale=s) for name, s in zip(base.pathway_names, scales, strict=True)]
    return replace(base, validation=Validation("z within section", tuple(facts)))


@pytest.mark.parametrize("scales", [(Scale(0.2, 0.5), Scale(-0.3, 2.0)), (Scale(0.2, 0.5), None)], ids=["all", "one"])
def test_bars_of_spread_stand_on_one_scale_in_z_where_all_pathways_have_one(scales: tuple[Scale | None, ...]) -> None:
    result = scaled(*scales)
    in_z = None not in scales
    assert spread_in_z(result) == in_z
    summary = result.summary()
    placed = {}
    for name, scale in zip(result.pathway_names, scales, strict=True):
        centre, spread = scale if in_z and scale is not None else (0.0, 1.0)
        placed[name] = [(summary[name][key] - centre) / spread for key in ("p05", "p25", "p50", "p75", "p95")]
    low = min(values[0] for values in placed.values())
    width = max(values[-1] for values in placed.values()) - low
    for row in pathway_rows(result, summary, result_styles(result)):
        assert row["bar"] == pytest.approx([100 * (v - low) / width for v in placed[row["name"]]], abs=0.006)
        assert 0 <= row["bar"][0] <= row["bar"][-1] <= 100


def test_the_number_of_validated_pathways_is_theirs_alone() -> None:
    result = full_result(200)
    styles = result_styles(result)
    good = sum(style.status == "validated" for style in styles)
    assert 0 < good < len(styles) and sum(style.r is not None for style in styles) != good
    assert validation_words(result, styles)[0].startswith(f"{good} of {len(styles)} pathways are validated")
