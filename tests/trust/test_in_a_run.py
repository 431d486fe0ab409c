"""Trust through the whole flow: a slide inside, one outside; heads, warnings, --strict, batch, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401
from support.slide_factory import write_slide
from support.stained_tiles import stained_tiles

pytest.importorskip("sklearn")
pytest.importorskip("torch")

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import ExitCode, OutsideError, UsageError
from stamp_deploy.export.trust_reference import ReferenceTiles, fit_reference
from stamp_deploy.heads import OUTSIDE_NO_CALL
from stamp_deploy.infer import infer_slide
from stamp_deploy.result_files import read_result
from stamp_deploy.trust import TileFlag
from stamp_deploy.trust.judge import MIN_TILES
from stamp_deploy.trust.sample import ENOUGH_TILES, SAMPLE_TILES, TileSample, chosen
from stamp_deploy.trust.statistics import measure_tiles

SIDE, ACROSS = 64, 8
OPTIONS = InferOptions(engine="onnxruntime", writers=("json", "hdf5", "parquet"), all_tiles=True, batch=16)


def mosaic(seed: int, **stain: float) -> np.ndarray:
    """RGB of 8 x 8 made-up tiles."""
    tiles = stained_tiles(seed, ACROSS * ACROSS, SIDE, **stain)
    return tiles.reshape(ACROSS, ACROSS, SIDE, SIDE, 3).swapaxes(1, 2).reshape(ACROSS * SIDE, ACROSS * SIDE, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a reference, one without, a slide like the training tiles, and an inverted one."""
    folder = tmp_path_factory.mktemp("trust")
    groups = tuple(stained_tiles(seed) for seed in range(4))
    known = fit_reference(ReferenceTiles(groups, "patient"), 0.5)
    make_bundle(folder / "bundle", global_scores=True, trust=known.to_json())
    make_bundle(folder / "silent")
    write_slide(folder / "inside.svs", mosaic(9), coding="444", quality=98)
    write_slide(folder / "outside.svs", 255 - mosaic(9), coding="444", quality=98)
    return folder


@pytest.fixture(scope="module")
def bundle(world: Path) -> Bundle:
    return load_bundle(world / "bundle")


def test_a_slide_inside_is_told_so_and_its_heads_call(world: Path, bundle: Bundle) -> None:
    result = infer_slide(world / "inside.svs", bundle, None, OPTIONS)
    assert result.trust is not None and result.trust.verdict == "inside", result.trust
    assert result.trust.judged_tiles == ACROSS * ACROSS == len(result.coords)
    assert not any("what the model knows" in warning for warning in result.warnings)
    assert all(head.cause != OUTSIDE_NO_CALL for head in result.heads)
    assert result.timing["trust"] > 0
    assert result.pathways_global is not None
    np.testing.assert_allclose(result.pathways_global, result.pathways * 0.5, atol=1e-6)


def test_every_tile_is_measured_as_it_was_scored(world: Path, bundle: Bundle) -> None:
    """The tiler gives batches in file order: distances must land on the tiles that they were measured on."""
    plain = mosaic(9)
    odd = [3, 20, 41, 63]
    for tile in odd:
        row, column = divmod(tile, ACROSS)
        plain[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = (20, 120, 60)
    slide = write_slide(world / "odd.svs", plain, coding="444", quality=98)
    result = infer_slide(slide, bundle, None, OPTIONS)
    assert result.trust is not None
    inked = (result.trust.tile_flags & np.uint16(TileFlag.INK)) != 0
    assert (result.tile_cells[inked] @ [1, ACROSS]).tolist() == odd and result.trust.left_out[inked].all()


def test_a_slide_outside_is_warned_of_and_no_head_calls(world: Path, bundle: Bundle, tmp_path: Path) -> None:
    result = infer_slide(world / "outside.svs", bundle, tmp_path / "out", OPTIONS)
    assert result.trust is not None and result.trust.verdict == "outside"
    assert result.trust.distance is not None and result.trust.distance > 3
    assert any(warning.startswith("the slide is outside what the model knows: ") for warning in result.warnings)
    for head in result.heads:
        assert head.call is None and head.abstained and head.cause == OUTSIDE_NO_CALL
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["trust"]["verdict"] == "outside" and record["trust"]["reasons"] == list(result.trust.reasons)
    assert record["trust"]["left_out_tiles"] == result.trust.left_out.sum() > 0
    assert record["trust"]["flags"]["not H&E"] > 0 and "more than 3 times" in record["trust"]["rule"]
    assert record["heads"][0]["cause"] == OUTSIDE_NO_CALL
    again = read_result(tmp_path / "out")
    assert again.trust is not None
    for name in ("tile_distance", "tile_flags", "tile_percentile"):
        np.testing.assert_array_equal(getattr(again.trust, name), getattr(result.trust, name))
    assert again.trust.to_dict() == result.trust.to_dict() and again.validation == result.validation
    np.testing.assert_array_equal(again.pathways_global, result.pathways_global)
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out" / "tiles.parquet")
    np.testing.assert_array_equal(table["left_out"].to_numpy(), result.trust.left_out)
    np.testing.assert_array_equal(table["global.HYPOXIA"].to_numpy(), result.pathways_global[:, 0])


def test_a_bundle_without_a_reference_judges_nothing_and_says_so(world: Path) -> None:
    result = infer_slide(world / "outside.svs", load_bundle(world / "silent"), None, OPTIONS)
    assert result.trust is not None and result.trust.verdict == "not judged"
    assert not result.trust.left_out.any() and np.isnan(result.trust.tile_distance).all()
    assert any("was not judged" in warning and "no reference" in warning for warning in result.warnings)
    assert result.trust.columns() == {} and result.pathways_global is None


def test_strict_refuses_what_is_outside_and_what_cannot_be_judged(world: Path, bundle: Bundle, tmp_path: Path) -> None:
    strict = replace(OPTIONS, strict=True)
    assert infer_slide(world / "inside.svs", bundle, None, strict).trust is not None
    out = tmp_path / "out"
    with pytest.raises(OutsideError) as caught:
        infer_slide(world / "outside.svs", bundle, out, strict)
    assert caught.value.exit_code == ExitCode.OUTSIDE == 7
    assert "outside" in caught.value.cause and "microns per pixel" in caught.value.remedy
    assert not out.exists() and not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="cannot be kept") as said:
        infer_slide(world / "inside.svs", load_bundle(world / "silent"), out, strict)
    assert "leave --strict out" in said.value.remedy


def test_strict_refuses_a_slide_of_too_few_tiles_to_be_judged(world: Path, bundle: Bundle, tmp_path: Path) -> None:
    small = write_slide(tmp_path / "small.svs", mosaic(9)[: 3 * SIDE, : 3 * SIDE], coding="444", quality=98)
    result = infer_slide(small, bundle, None, OPTIONS)
    assert result.trust is not None and result.trust.verdict == "not judged"
    assert result.trust.reasons == (f"9 tiles of tissue were measured, and {MIN_TILES} are needed",)
    out = tmp_path / "out"
    with pytest.raises(OutsideError) as caught:
        infer_slide(small, bundle, out, replace(OPTIONS, strict=True))
    assert caught.value.exit_code == ExitCode.OUTSIDE and caught.value.path == small
    assert "not judged" in caught.value.cause and result.trust.reasons[0] in caught.value.cause
    assert not out.exists()


def test_the_command_says_it_and_has_its_own_exit_code(world: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    words = ("--bundle", world / "bundle", "--engine", "onnxruntime", "--write", "json", "--all-tiles")
    done = runner("infer", world / "outside.svs", *words, "-o", tmp_path / "a")
    assert done.code == 0 and "trust   outside" in done.out and "outside what the model knows" in done.err
    assert "abstained (the slide is outside what the model knows)" in done.out
    done = runner("infer", world / "outside.svs", *words, "-o", tmp_path / "b", "--strict")
    assert done.code == 7 and not (tmp_path / "b").exists() and "without --strict" in done.err


def test_a_batch_flags_the_slide_and_is_done(world: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    words = ("--bundle", world / "bundle", "--engine", "onnxruntime", "--write", "json", "--all-tiles")
    done = runner("batch", world / "outside.svs", world / "inside.svs", *words, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "batch.json").read_text())
    rows = {row["name"]: row for row in report["slides"]}
    assert done.code == 0, done.err
    assert (rows["outside.svs"]["state"], rows["outside.svs"]["trust"]) == ("done", "outside")
    assert (rows["inside.svs"]["state"], rows["inside.svs"]["trust"]) == ("done", "inside")
    strict = runner("batch", world / "outside.svs", world / "inside.svs", *words, "--strict", "-o", tmp_path / "strict")
    report = json.loads((tmp_path / "strict" / "batch.json").read_text())
    rows = {row["name"]: row for row in report["slides"]}
    assert strict.code == 3 and rows["outside.svs"]["state"] == "failed" and rows["inside.svs"]["state"] == "done"
    assert "outside" in rows["outside.svs"]["reason"]


def test_a_sample_is_spread_over_the_tiles_with_tissue() -> None:
    fraction = np.where(np.arange(4000) % 2, 0.9, 0.3).astype(np.float32)
    wanted = chosen(fraction)
    assert wanted.sum() == SAMPLE_TILES and not wanted[::2].any()
    assert np.diff(np.flatnonzero(wanted)).max() <= 10 and wanted[:10].any() and wanted[-10:].any()
    few = np.full(200, 0.3, np.float32)
    few[: ENOUGH_TILES - 1] = 1
    assert chosen(few).all(), "where few tiles are full of tissue, all are measured"
    assert chosen(np.empty(0, np.float32)).sum() == 0 and chosen(np.ones(5, np.float32)).all()


def test_tiles_are_measured_before_their_buffer_is_used_again() -> None:
    tiles = stained_tiles(1, 8)
    sample = TileSample(np.ones(8, np.float32))
    buffer = np.empty((4, SIDE, SIDE, 3), np.uint8)
    for rows in (np.array([6, 1, 4, 0]), np.array([7, 2, 5, 3])):
        buffer[:] = tiles[rows]
        sample.take(rows, buffer)
        buffer[:] = 0
    np.testing.assert_array_equal(sample.measures, measure_tiles(tiles[sample.index]))
    assert sample.index.tolist() == [6, 1, 4, 0, 7, 2, 5, 3] and sample.seconds > 0


def test_a_reference_that_was_changed_is_refused(world: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    import shutil

    shutil.copytree(world / "bundle", tmp_path / "bundle")
    file = tmp_path / "bundle" / "trust.json"
    file.write_bytes(file.read_bytes().replace(b'"left_out_by": "patient"', b'"left_out_by": "section"'))
    done = runner("verify", tmp_path / "bundle")
    assert done.code == 5 and "trust.json" in done.err
