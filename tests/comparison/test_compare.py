"""Two results beside each other: matching by position, agreement of known truth, refusals, files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.result_factory import full_result, make_head, make_result, stored
from support.result_folders import NAMES, facts, slide_result

from stamp_deploy.comparison import agreement, compare_results, match_tiles
from stamp_deploy.comparison.comparison import ALL_PAIRS
from stamp_deploy.comparison.write import write_comparison
from stamp_deploy.errors import UsageError
from stamp_deploy.grid import Grid
from stamp_deploy.result import Result
from stamp_deploy.trust import SlideTrust, TileFlag


def part(result: Result, chosen: np.ndarray) -> Result:
    """The result with some of its tiles, in another order."""
    return replace(
        result,
        coords=result.coords[chosen],
        embedding=result.embedding[chosen],
        pathways=result.pathways[chosen],
        tissue_fraction=result.tissue_fraction[chosen],
        tiles=replace(result.tiles, ok=len(chosen)),
        heads=(),
    )


def test_bland_altman_pearson_and_lin_by_hand() -> None:
    first, second = np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 4, 6])
    found = agreement("P", first, second)
    differences = np.array([1.0, 0, 1, 2])
    assert (found.bias, found.sd) == (1.0, pytest.approx(differences.std(ddof=1)))
    assert (found.low, found.high) == (pytest.approx(1 - 1.96 * 0.81649658), pytest.approx(1 + 1.96 * 0.81649658))
    assert found.pearson_r == pytest.approx(np.corrcoef(first, second)[0, 1])
    # Lin: 2 s12 / (s1^2 + s2^2 + (m1 - m2)^2) with n: 2 * 1.75 / (1.25 + 2.75 + 1)
    assert found.ccc == pytest.approx(0.7)
    assert found.largest == 2
    turned = agreement("P", second, first)
    assert (turned.bias, turned.largest) == (-1.0, 2), "the largest difference is the one farthest from 0"
    assert (turned.mean_first, turned.mean_second) == (3.5, 2.5)


def test_proportional_scores_correlate_and_do_not_agree() -> None:
    first = np.random.default_rng(0).normal(size=500)
    found = agreement("P", first, 2 * first + 1)
    assert found.pearson_r == pytest.approx(1)
    assert found.ccc is not None and found.ccc < 0.7
    assert agreement("P", first, first).ccc == pytest.approx(1)
    flat = agreement("P", np.ones(5), np.ones(5))
    assert (flat.pearson_r, flat.ccc, flat.bias) == (None, None, 0)


def test_tiles_are_matched_by_position_whatever_their_order() -> None:
    one = make_result(300, 2)
    random = np.random.default_rng(1)
    chosen = random.permutation(300)[:200]
    other = part(one, chosen)
    tiles = match_tiles(one, other)
    assert sorted(tiles.first.tolist()) == sorted(chosen.tolist())
    assert np.array_equal(one.coords[tiles.first], other.coords[tiles.second])
    assert (tiles.only_first, tiles.only_second, tiles.left_out) == (100, 0, 0)
    found = compare_results(one, other)
    assert all(item.bias == 0 and item.ccc == pytest.approx(1) for item in found.agreements)
    assert any("33%" in note for note in found.notes)


def test_a_shift_is_found_as_bias_in_microns_of_both_scans() -> None:
    """A rescan at half the microns per pixel: the same places have other level-0 coordinates."""
    one = make_result(300, 2)
    fine = Grid(
        one.grid.slide_width * 2, one.grid.slide_height * 2, 0.1263, 0.1263, one.grid.target_mpp, one.grid.tile_px
    )
    cells = one.tile_cells
    other = replace(
        one,
        grid=fine,
        slide=replace(one.slide, name="rescan.svs", sha256="e" * 64, mpp_x=0.1263, mpp_y=0.1263),
        coords=fine.coords(cells[:, 0], cells[:, 1]),
        pathways=one.pathways + np.float32([0.5, -0.25]),
    )
    with pytest.raises(UsageError, match=r"different slides: synthetic\.svs and rescan\.svs") as refused:
        compare_results(one, other)
    assert "--different-slides" in refused.value.remedy
    found = compare_results(one, other, different_slides=True)
    assert len(found.tiles) == 300 and found.tiles.distance_um.max() < 1
    assert [item.bias for item in found.agreements] == pytest.approx([0.5, -0.25], abs=1e-5)
    assert "not registered" in found.notes[0]
    assert found.to_dict()["same_slide"] is False


def test_tiles_of_another_size_are_matched_to_half_a_step() -> None:
    one = make_result(300, 1)
    grid = replace(one.grid, target_mpp=0.55)
    rows, columns = np.divmod(np.arange(grid.columns * grid.rows), grid.columns)
    coords = grid.coords(columns, rows)
    n = len(coords)
    other = replace(
        one, grid=grid, coords=coords, embedding=np.zeros((n, 16), np.float32), pathways=np.zeros((n, 1), np.float32),
        tissue_fraction=np.ones(n, np.float32), tiles=replace(one.tiles, ok=n), heads=(),
    )  # fmt: skip
    tiles = match_tiles(one, other)
    assert 0 < len(tiles) < 300
    assert tiles.limit_um == pytest.approx(112 / 2)
    assert tiles.distance_um.max() <= tiles.limit_um
    assert len(set(tiles.second.tolist())) == len(tiles)
    assert any("differ in size" in note for note in compare_results(one, other).notes)


def test_tiles_that_either_result_leaves_out_do_not_count() -> None:
    one = slide_result("a.svs", [0.0] * 5)
    flags = np.zeros(150, np.uint16)
    flags[:20] = TileFlag.INK
    other = replace(one, trust=SlideTrust("outside", ("ink",), 4.0, np.zeros(150, np.float32), flags, 150, "rule"))
    found = compare_results(one, other)
    assert (len(found.tiles), found.tiles.left_out) == (130, 20)
    assert any("second result is outside: ink" in note for note in found.notes)


def test_two_results_of_a_slide_that_is_outside_are_compared_all_the_same() -> None:
    """Another engine is judged on any slide; nothing would be left of one whose tiles are all left out."""
    flags = np.full(150, TileFlag.FOREIGN, np.uint16)
    trust = SlideTrust("outside", ("brown",), 4.0, np.zeros(150, np.float32), flags, 150, "rule")
    one = replace(slide_result("a.svs", [0.0] * 5), trust=trust)
    found = compare_results(one, one)
    assert (len(found.tiles), found.tiles.left_out) == (150, 0)
    assert ALL_PAIRS in found.notes


def test_bundles_are_compared_on_their_common_scales_or_it_says_not() -> None:
    one = slide_result("a.svs", [0.0] * 5)
    validation = facts()
    stretched = replace(
        validation, pathways=tuple(replace(item, scale=type(item.scale)(3.0, 2.0)) for item in validation.pathways)
    )
    bundle = replace(one.bundle, sha256="d" * 64, gene_set_sha256="0" * 64)
    other = replace(one, bundle=bundle, validation=stretched, pathways=one.pathways * 2 + 3)
    found = compare_results(one, other)
    assert found.unit.startswith("z on each")
    assert all(abs(item.bias) < 1e-5 and item.ccc == pytest.approx(1) for item in found.agreements)
    assert any("gene sets" in note for note in found.notes)
    bare = compare_results(one, replace(other, validation=None))
    assert bare.agreements[0].bias == pytest.approx(3 + one.pathways[:, 0].mean(), abs=1e-4)
    assert any("no common scale" in note for note in bare.notes)


def test_what_has_nothing_in_common_is_refused() -> None:
    one = make_result(300, ("A", "B"))
    found = compare_results(one, make_result(300, ("B", "C")))
    assert ([item.name for item in found.agreements], found.only_one, found.only_other) == (["B"], ("A",), ("C",))
    with pytest.raises(UsageError, match="no pathway in common"):
        compare_results(one, make_result(300, ("D",)))
    with pytest.raises(UsageError, match="2 tiles"):
        compare_results(one, part(one, np.array([4, 7])))


def test_few_pairs_are_warned_of_and_nothing_is_rounded_to_certainty(tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    """Of 12 pairs the 95 % interval of a limit is 1.96 sqrt(3 / 12) = 0.98 sd either way."""
    one = make_result(300, ("A", "B"))
    few = compare_results(one, part(one, np.arange(12)))
    assert any("only 12 pairs of tiles" in note and "uncertain by 1.0 standard" in note for note in few.notes)
    assert not any("pairs of tiles" in note for note in compare_results(one, one).notes)
    near = replace(one, pathways=one.pathways + np.float32([1e-4, 0]) * np.arange(300, dtype=np.float32)[:, None] / 300)
    done = runner("compare", stored(one, tmp_path / "one"), stored(near, tmp_path / "two"))
    first, second = (line.split() for line in done.out.splitlines() if line[:2] in ("A ", "B "))
    assert first[0] == "A" and first[-4:] == [">", "0.999", ">", "0.999"]
    assert 4e-5 < float(first[1]) < 6e-5
    assert second[-2:] == ["1.000", "1.000"]


def test_the_verb_writes_table_record_and_maps(tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    one = slide_result("a.svs", [0.0] * 5)
    call = make_head("msi", 150, call="MSS", probabilities=(0.7, 0.3))
    other = replace(one, pathways=one.pathways + np.float32([0, 0, 0, 0, 1]), heads=(call,))
    first, second = stored(one, tmp_path / "one"), stored(other, tmp_path / "two")
    done = runner("compare", first, second, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "150 pairs" in done.out and "DIFFERENT CALLS" in done.out
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["pathways"]["UNSEEN"]["bias"] == pytest.approx(1, abs=1e-5)
    assert record["calls"][0]["same_call"] is False
    rows = list(csv.DictReader((tmp_path / "out" / "agreement.csv").open()))
    assert [row["name"] for row in rows] == list(NAMES)
    maps = sorted((tmp_path / "out" / "difference").glob("*.png"))
    assert len(maps) == 5
    red, white = (np.asarray(Image.open(path).convert("RGB"), int) for path in (maps[-1], maps[0]))
    assert maps[-1].name == "UNSEEN.png"
    reddish = [(picture[..., 0] - picture[..., 2] > 35).sum() for picture in (red, white)]
    assert reddish[0] > 5000 + reddish[1]
    assert json.loads(runner("compare", first, second, "--json").out)["tiles"]["pairs"] == 150
    assert runner("compare", first, second, "-o", tmp_path / "out").code == 2
    assert runner("compare", first, tmp_path / "none").code == 2
    strange = stored(slide_result("b.svs", [0.0] * 5, seed=1), tmp_path / "strange")
    refused = runner("compare", first, strange)
    assert refused.code == 2 and "different slides" in refused.err


def test_results_with_a_gallery_are_compared_and_drawn_without_it(tmp_path: Path) -> None:
    one = full_result(300, 3)
    write_comparison(compare_results(one, one), tmp_path / "out")
    assert len(list((tmp_path / "out" / "difference").glob("*.png"))) == 3
