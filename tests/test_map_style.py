"""Range, colours, title and order of maps: one function for every picture."""

from __future__ import annotations

import numpy as np
import pytest
from support.result_factory import make_result, make_trust, make_validation

from stamp_deploy.map_style import COMMON_RANGE, DIVERGING, STRETCHED, colour_table, evidence, map_styles
from stamp_deploy.validation import PathwayValidation, Scale, Validation
from stamp_deploy.writers.picture import HATCH_COLOUR, OPACITY, Painter, make_view, result_styles

NAMES = ("A", "B", "C", "D")


def test_a_common_scale_gives_the_same_range_and_colours_to_every_slide() -> None:
    validation = make_validation(NAMES)
    for spread in (0.01, 1.0, 50.0):
        scores = np.random.default_rng(0).normal(0, spread, (60, 4))
        for style in map_styles(NAMES, scores, "unit", validation):
            assert (style.low, style.high) == COMMON_RANGE
            assert style.palette == DIVERGING
            assert "z −3 to 3" in style.span
    style = map_styles(NAMES, scores, "unit", validation)[0]
    assert style.scale == Scale(0.1, 0.8)
    assert style.shown(np.array([0.1, 0.9, -0.7])) == pytest.approx([0, 1, -1])
    assert style.score_range == pytest.approx((0.1 - 3 * 0.8, 0.1 + 3 * 0.8))


@pytest.mark.parametrize("scale", [None, Scale(0.0, 0.0), Scale(0.0, float("nan"))])
def test_without_a_common_scale_the_picture_says_that_it_is_stretched(scale: Scale | None) -> None:
    scores = np.linspace(0, 1, 1001)[:, None]
    facts = PathwayValidation("A", 0.6, 0.5, 0.7, 3, 2, scale=scale)
    (style,) = map_styles(["A"], scores, "log2", Validation("log2", (facts,)))
    assert (style.low, style.high) == pytest.approx((0.01, 0.99))
    assert style.palette == STRETCHED
    assert "stretched to this slide" in style.span
    assert style.unit == "log2"


def test_what_is_not_validated_comes_last_and_what_was_not_measured_says_so() -> None:
    scores = np.zeros((5, 4))
    validation = make_validation(NAMES, not_validated=1, unmeasured=1)
    styles = map_styles(NAMES, scores, "unit", validation)
    assert [style.name for style in styles] == ["C", "D", "A", "B"]
    assert [style.status for style in styles] == ["validated", "validated", "not validated", "not validated"]
    assert [style.pale for style in styles] == [False, False, True, True]
    assert styles[-1].short == "not validated, r not measured"
    assert styles[2].title.startswith("not validated: r −0.06 (95 %: −0.20 to 0.08)")
    assert [style.name for style in map_styles(NAMES, scores, "unit", None)] == list(NAMES)
    nothing = make_validation(NAMES, unmeasured=4)
    for given in (None, nothing):
        unsaid = map_styles(NAMES, scores, "unit", given)
        assert {(style.short, style.status, style.pale) for style in unsaid} == {
            ("r not measured", "not measured", False)
        }


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (PathwayValidation("A"), "r not measured"),
        (PathwayValidation("A", 0.62, 0.5, 0.7, 2, 2), "r 0.62 (95 %: 0.50 to 0.70), 2 sections of 2 unseen patients"),
        (PathwayValidation("A", 0.62, 0.5, 0.7, 1, 1), "r 0.62 (95 %: 0.50 to 0.70), 1 section of 1 unseen patient"),
        (PathwayValidation("A", 0.62, sections=3), "r 0.62 (no interval), 3 sections, of no unseen patient"),
    ],
)
def test_evidence_is_worded_with_its_interval_and_what_it_rests_on(facts: PathwayValidation, words: str) -> None:
    assert evidence(facts) == words


def test_an_r_without_an_interval_is_not_enough() -> None:
    facts = PathwayValidation("A", 0.9, sections=3)
    (style,) = map_styles(["A"], np.zeros((3, 1)), "unit", Validation("unit", (facts,)))
    assert style.status == "not validated"


def _dichromat(rgb: np.ndarray, kind: str) -> np.ndarray:
    """sRGB 0..1 as a dichromat sees it, in CIELAB: Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrices[kind]).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-6))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("kind", ["protan", "deutan", "tritan"])
def test_the_diverging_map_tells_its_sides_apart_for_colour_blind_readers(kind: str) -> None:
    """z of +1 and -1 or more differ by a clear step (CIE76 of 15; 2.3 is just noticeable), and |z| darkens evenly."""
    lab = _dichromat(colour_table(DIVERGING) / 255.0, kind)
    for step in range(43, 128):
        assert np.linalg.norm(lab[128 + step - 1] - lab[127 - step + 1]) > 15
    assert (np.diff(lab[130:, 0]) < 0.5).all()
    assert (np.diff(lab[:126, 0]) > -0.5).all()


def test_pictures_are_pale_where_not_validated_and_hatched_where_left_out() -> None:
    names = make_result(20, 2).pathway_names
    trust = make_trust(300, "doubtful", [5, 6, 7])
    white = np.full((600, 900, 3), 255, np.uint8)
    result = make_result(300, 2, validation=make_validation(names, 1), trust=trust, thumbnail=white)
    plain = make_result(300, 2, validation=make_validation(names, 1), thumbnail=white)
    view = make_view(result, 900)
    sure, pale = result_styles(result)
    assert pale.pale
    painter, without = Painter(result, view), Painter(plain, view)
    strong = painter.paint_map(sure)
    weak = painter.paint_map(type(sure)(**{**sure.__dict__, "status": "not validated"}))
    assert (255 - weak.astype(int)).sum() < 0.65 * (255 - strong.astype(int)).sum()
    for tile in (5, 6, 7):
        column, row = result.tile_cells[tile]
        square = np.ix_(np.flatnonzero(view.rows == row), np.flatnonzero(view.columns == column))
        lines = (strong[square] == HATCH_COLOUR).all(axis=-1)
        assert 0.2 < lines.mean() < 0.4
        full = 255 - without.paint_map(sure)[square].astype(int)
        assert np.abs((255 - strong[square].astype(int))[~lines] - full[~lines] * 0.2 / OPACITY).max() <= 2
    others = np.ones(view.picture.shape[:2], bool)
    for tile in (5, 6, 7):
        column, row = result.tile_cells[tile]
        others[np.ix_(np.flatnonzero(view.rows == row), np.flatnonzero(view.columns == column))] = False
    assert np.array_equal(strong[others], without.paint_map(sure)[others])
