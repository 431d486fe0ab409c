"""Which level and which decoding scale a tile is read from, case by case."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import Grid
from stamp_deploy.slide.backends import Level
from stamp_deploy.tiles.read_plan import choose_plan

ALL = (1, 2, 4, 8)


def levels(*downsamples: float | tuple[float, float]) -> list[Level]:
    pairs = [d if isinstance(d, tuple) else (d, d) for d in downsamples]
    return [Level(i, int(16000 / x), int(12000 / y), x, y) for i, (x, y) in enumerate(pairs)]


def grid(factor_x: float, factor_y: float | None = None) -> Grid:
    """A grid whose tiles have so many level-0 pixels per tile pixel."""
    return Grid(16000, 12000, 1 / factor_x, 1 / (factor_y or factor_x), 1.0, 64)


@pytest.mark.parametrize(
    ("factor", "pyramid", "scales", "level", "scale", "residual"),
    [
        # full scale only: the coarsest level that is fine enough
        (1, (1,), None, 0, 1, 1),
        (4, (1, 4, 16), None, 1, 1, 1),
        (3.9, (1, 4, 16), None, 0, 1, 3.9),
        (15.9, (1, 4, 16), None, 1, 1, 3.975),
        (16, (1, 4, 16), None, 2, 1, 1),
        # the decoder leaves frequencies out: the largest reduction that is fine enough
        (2, (1,), ALL, 0, 2, 1),
        (1.9, (1,), ALL, 0, 1, 1.9),
        (7.9, (1,), ALL, 0, 4, 1.975),
        (8, (1,), ALL, 0, 8, 1),
        (40 / 3, (1,), ALL, 0, 8, 5 / 3),
        # a coarser level goes before a larger reduction: fewer bytes to read
        (8, (1, 4), ALL, 1, 2, 1),
        (4, (1, 4), ALL, 1, 1, 1),
        (7, (1, 4), ALL, 1, 1, 1.75),
        # levels whose decoder cannot reduce
        (2, (1,), (1,), 0, 1, 2),
        # rounded sizes: a downsample of 4.003 still serves a factor of 4, one of 4.005 does not
        (4, (1, 4.003), None, 1, 1, 4 / 4.003),
        (4, (1, 4.005), None, 0, 1, 4),
        # level 0 at full scale serves a slide that is a little coarser than the model wants
        (0.96, (1, 4), ALL, 0, 1, 0.96),
    ],
)
def test_the_cheapest_that_is_never_coarser_than_the_target(
    factor: float, pyramid: Sequence[float], scales: Sequence[int] | None, level: int, scale: int, residual: float
) -> None:
    pyramid_levels = levels(*pyramid)
    plan = choose_plan(
        pyramid_levels, grid(factor), route="jpeg-tiff", scales=scales and [scales] * len(pyramid_levels)
    )
    assert (plan.level, plan.dct_scale) == (level, scale)
    assert (plan.residual_x, plan.residual_y) == (pytest.approx(residual), pytest.approx(residual))
    assert plan.route == "jpeg-tiff"


def test_exact_reads_full_scale() -> None:
    plan = choose_plan(levels(1, 4), grid(8), route="openslide", scales=[ALL, ALL], exact=True)
    assert (plan.level, plan.dct_scale, plan.residual_x) == (1, 1, 2)
    assert plan.route == "openslide"


@pytest.mark.parametrize(("x", "y"), [(2.2, 1.9), (1.9, 2.2)])
def test_the_finer_of_two_directions_decides(x: float, y: float) -> None:
    plan = choose_plan(levels(1), grid(x, y), route="jpeg-tiff", scales=[ALL])
    assert plan.dct_scale == 1
    assert (plan.residual_x, plan.residual_y) == (pytest.approx(x), pytest.approx(y))


def test_levels_with_two_downsamples_keep_them_apart() -> None:
    plan = choose_plan(levels(1, (4.0, 3.2)), grid(8, 8), route="jpeg-tiff", scales=[ALL, ALL])
    assert (plan.level, plan.dct_scale) == (1, 2)
    assert (plan.residual_x, plan.residual_y) == (pytest.approx(1), pytest.approx(1.25))


def test_each_level_has_its_own_scales() -> None:
    plan = choose_plan(levels(1, 2, 4), grid(8), route="jpeg-tiff", scales=[ALL, (1,), (1, 2)])
    assert (plan.level, plan.dct_scale) == (2, 2)
    plan = choose_plan(levels(1, 4), grid(8), route="jpeg-tiff", scales=[ALL, (1,)])
    assert (plan.level, plan.dct_scale) == (1, 1)


def test_the_reason_says_what_is_read() -> None:
    why = choose_plan(levels(1, 4), grid(8), route="jpeg-tiff", scales=[ALL, ALL]).why
    assert why.startswith("level 1 (4000 x 3000) decoded at 1/2, exactly: ")
    why = choose_plan(levels(1), grid(1.5, 1.25), route="jpeg-tiff").why
    assert why.startswith("level 0 (16000 x 12000), resampled by 1.5 x 1.25: ")
    for x, y in ((1, 1.25), (1.25, 1)):
        assert "resampled" in choose_plan(levels(1), grid(x, y), route="jpeg-tiff").why


def test_no_level_is_an_error() -> None:
    with pytest.raises(SlideError, match="coarser"):
        choose_plan([], grid(1), route="jpeg-tiff")


def test_the_plan_as_json() -> None:
    plan = choose_plan(levels(1), grid(2, 1.5), route="pyvips")
    assert plan.to_dict() == {
        "route": "pyvips", "level": 0, "dct_scale": 1, "residual_x": 2, "residual_y": 1.5, "why": plan.why,
    }  # fmt: skip
