"""The synthetic sections: what the demo and the tests of training take for the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anndata", reason="needs the extra [train]")
pytest.importorskip("imagecodecs", reason="needs the extra [train]")

from stamp_deploy.export.demo import synthetic
from stamp_deploy.slide import open_slide
from stamp_deploy.tissue import TissueRule, find_tissue

SECTION = synthetic.Section(7, width=1920, height=1440)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_slide(tmp_path_factory.mktemp("slide") / "synthetic.svs", SECTION)


def test_the_slide_is_a_pyramid_with_its_mpp_recorded_and_is_read_by_the_compiled_route(slide: Path) -> None:
    with open_slide(slide) as opened:
        assert [round(level.downsample_x) for level in opened.levels] == [1, 4, 16]
        assert opened.mpp_xy == (0.5, 0.5)
        assert opened.route.name == "jpeg-tiff"


def test_the_tissue_mask_finds_the_tissue_that_was_drawn(slide: Path) -> None:
    with open_slide(slide) as opened:
        mask = find_tissue(opened, TissueRule())
    drawn = SECTION.in_tissue(np.stack(np.meshgrid(np.arange(8, 1920, 16), np.arange(8, 1440, 16)), -1).reshape(-1, 2))
    assert abs(mask.fraction - drawn.mean()) < 0.05


def test_expression_follows_the_programs_at_the_spots() -> None:
    data = synthetic.expression(SECTION)
    dense = data.X.toarray()
    counts = np.log1p(1e4 * dense / dense.sum(1, keepdims=True))
    for k, program in enumerate(synthetic.PROGRAMS):
        own = [i for i, gene in enumerate(data.var_names) if gene.startswith(program[:4])]
        assert len(own) == synthetic.GENES_EACH
        assert np.corrcoef(counts[:, own].mean(1), data.obsm["truth"][:, k])[0, 1] > 0.9, program
    assert np.allclose(SECTION.programs(data.obsm["spatial"]), data.obsm["truth"])


def around_spots(section: synthetic.Section) -> tuple[list[np.ndarray], np.ndarray]:
    """The picture around each spot, 60 um wide, and the programs there."""
    picture, spots = section.picture().astype(float), section.spots()
    tiles = [picture[int(y) - 60 : int(y) + 60, int(x) - 60 : int(x) + 60] for x, y in spots]
    return tiles, section.programs(spots)


def test_vacuoles_and_dark_nuclei_show_in_the_picture() -> None:
    tiles, truth = around_spots(SECTION)
    pale = np.array([np.percentile(tile[..., 1], 95) for tile in tiles])
    dark = np.array([(tile[..., 0] < 110).mean() for tile in tiles])
    assert np.corrcoef(pale, truth[:, 1])[0, 1] > 0.5
    assert np.corrcoef(dark, truth[:, 0] + truth[:, 3])[0, 1] > 0.6


def test_mean_eosin_tells_little_of_any_program() -> None:
    """It varies for reasons of its own, as in real sections; what programs change is texture."""
    section = synthetic.Section(8, width=4800, height=3840)
    tiles, truth = around_spots(section)
    green = np.array([np.percentile(tile[..., 1], 50) for tile in tiles])
    amount = section._sample(section._eosin, section.spots())
    assert np.corrcoef(green, amount)[0, 1] < -0.6
    assert abs(np.corrcoef(green, truth[:, 1])[0, 1]) < 0.5


def test_spots_lie_as_far_apart_as_asked() -> None:
    close = synthetic.Section(7, width=1920, height=1440, pitch_um=64.0).spots()
    distance = np.linalg.norm(close[:, None] - close[None], axis=2)
    assert np.isclose(distance[distance > 0].min() * SECTION.mpp, 64.0, rtol=0.01)
    assert len(close) > 2 * len(SECTION.spots())


def test_a_seed_gives_the_same_section_and_another_seed_another_one() -> None:
    again, other = synthetic.Section(7, width=1920, height=1440), synthetic.Section(8, width=1920, height=1440)
    assert np.array_equal(again.picture(), SECTION.picture())
    assert not np.array_equal(other.spots(), SECTION.spots())


def test_a_size_that_has_no_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        synthetic.Section(0, width=1001, height=1000)
