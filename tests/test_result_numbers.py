"""The result out of the parts of a run, and back from its files: every field, told apart by its value."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from support.result_factory import make_head, make_result, make_trust, stored
from writers.test_writers_numbers import COLUMNS, CORNERS, FRACTION, GRID, PATHWAYS, ROWS, crooked

from stamp_deploy import result_files
from stamp_deploy.assemble import assemble, bundle_facts, slide_facts
from stamp_deploy.engine.interface import EngineInfo
from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.grid import TileSet
from stamp_deploy.result import Result, TileCounts, _plain
from stamp_deploy.result_files import attention_name, read_result
from stamp_deploy.tiles.reader import StageTimes
from stamp_deploy.writers import write_all

ENGINE = EngineInfo("onnxruntime", "1.32.0", "CPU", "fp32", "asked for")


def slide() -> Any:
    return SimpleNamespace(
        path=Path("/data/a slide.svs"), sha256=lambda: "5a" * 32, size_bytes=77, vendor="aperio", width=4000,
        height=3000, mpp=SimpleNamespace(mpp_x=0.26, mpp_y=0.25, source="vendor", evidence=["one", "two"]),
        levels=[
            SimpleNamespace(width=4000, height=3000, downsample_x=1.0, downsample_y=1.0),
            SimpleNamespace(width=1000, height=700, downsample_x=4.0, downsample_y=4.2857),
        ],
        route=SimpleNamespace(name="jpeg-tiff", reason="tiled"), properties={"aperio.AppMag": "40"},
        bounds=(1, 2, 3, 4),
    )  # fmt: skip


def bundle() -> Any:
    return SimpleNamespace(
        name="b", sha256="b0" * 32, pfm_id="pfm", pfm_licence="mit", tile_px=64, mpp=0.5, embedding_dim=4,
        gene_set_sha256="9e" * 32, files={"encoder.onnx": {"sha256": "e0" * 32, "bytes": 5}}, parity={"tiles": 3},
        pathways=["UP", "DOWN"], tissue={"method": "saturation-otsu"}, validation=SimpleNamespace(unit="z", lacks=""),
    )  # fmt: skip


def prepared(**counts: int) -> Any:
    """Seven tiles, of which five could be read; `counts` are what the tile source counted."""
    columns, rows = np.append(COLUMNS, [9, 11]), np.append(ROWS, [3, 4])
    tiles = TileSet(
        GRID, columns.astype(np.int32), rows.astype(np.int32), GRID.coords(columns, rows),
        np.append(FRACTION, [0.1, 0.2]).astype(np.float32), total=1300, skipped_background=1293,
    )  # fmt: skip
    times = StageTimes(read_s=1.0, decode_s=2.0, resample_s=3.0, blocked_s=4.0)
    source = SimpleNamespace(**{"ok": 5, "missing": 1, "corrupt": 0, **counts}, times=times,
                             plan=SimpleNamespace(to_dict=lambda: {"level": 1}))  # fmt: skip
    mask = SimpleNamespace(
        threshold=0.07, fraction=np.float64(0.31), faint_sections=2, left_fraction=0.01, mask=np.ones((3, 4), bool)
    )
    return SimpleNamespace(
        source=source, tiles=tiles, bundle=bundle(), slide=slide(), thumbnail=np.zeros((6, 8, 3), np.uint8),
        where=SimpleNamespace(tissue=mask, absence=SimpleNamespace(tiles=17), facts={"min_fraction": 0.3}),
        options=SimpleNamespace(to_dict=lambda: {"batch": 3}, sha256=lambda: "c0" * 32),
        started=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), seconds={"engine": 9.0}, gallery=None,
    )  # fmt: skip


def assembled(**changes: Any) -> Result:
    index = np.array([4, 5, 0, 2, 6])
    given: dict[str, Any] = {
        "embedding": np.arange(20, dtype=np.float32).reshape(5, 4), "pathways": PATHWAYS, "heads": [make_head()],
        "warnings": ["mind"],
    }  # fmt: skip
    return assemble(changes.pop("prepared", None) or prepared(), ENGINE, index, **{**given, **changes})


def test_each_part_goes_to_its_field() -> None:
    found = assembled()
    assert found.coords.tolist() == [CORNERS[4], [831, 288], CORNERS[0], CORNERS[2], [1015, 384]]
    np.testing.assert_allclose(found.tissue_fraction, [FRACTION[4], 0.1, FRACTION[0], FRACTION[2], 0.2])
    np.testing.assert_array_equal(found.pathways, PATHWAYS)
    np.testing.assert_array_equal(found.embedding, np.arange(20).reshape(5, 4))
    assert found.tiles == TileCounts(
        grid=1300, background=1293, seen=7, ok=5, missing=1, corrupt=0, timeout=1, absent=17
    )
    assert found.warnings == ("mind", "2 of 7 tissue tiles could not be read and have no score")
    assert found.grid is GRID
    assert found.engine is ENGINE
    assert (found.read_plan, found.config, found.config_sha256) == ({"level": 1}, {"batch": 3}, "c0" * 32)
    assert found.started_utc == "2026-01-02T03:04:05+00:00"
    assert found.tissue == {
        "rule": {"method": "saturation-otsu"}, "min_fraction": 0.3, "threshold": 0.07, "fraction": 0.31,
        "faint_sections": 2, "left_fraction": 0.01,
    }  # fmt: skip
    assert found.thumbnail.shape == (6, 8, 3)
    assert (found.pathway_names, found.score_unit) == (("UP", "DOWN"), "z")
    assert found.source_path == Path("/data/a slide.svs")
    assert [head.name for head in found.heads] == ["MSI"]
    assert found.timing == {
        "engine": 9.0, "tiler_read": 1.0, "tiler_decode": 2.0, "tiler_resample": 3.0,
        **{name: seconds for name, seconds in found.timing.items() if name.startswith("tiler_blocked")},
    }  # fmt: skip
    assert found.limiting == "engine"


@pytest.mark.parametrize(
    ("counts", "timeout", "unreadable"),
    [
        ({"ok": 5, "missing": 2}, 0, 2),
        ({"ok": 5, "missing": 0, "corrupt": 1}, 1, 2),
        ({"ok": 5, "missing": 0, "corrupt": 2}, 0, 2),
        ({"ok": 5, "missing": 0, "corrupt": 0}, 2, 2),
    ],
)
def test_what_was_not_handed_over_ran_out_of_time(counts: dict[str, int], timeout: int, unreadable: int) -> None:
    found = assembled(prepared=prepared(**counts)).tiles
    assert (found.timeout, found.unreadable, found.seen) == (timeout, unreadable, 7)
    assert found.to_dict()["unreadable"] == unreadable


def test_without_a_mask_there_is_no_threshold() -> None:
    one = prepared()
    one.where.tissue = None
    found = assembled(prepared=one)
    assert found.tissue == {"rule": {"method": "saturation-otsu"}, "min_fraction": 0.3}
    assert found.tissue_mask is None


def test_facts_of_slide_and_bundle() -> None:
    facts = dataclasses.asdict(slide_facts(slide()))
    assert facts == {
        "name": "a slide.svs", "sha256": "5a" * 32, "size_bytes": 77, "vendor": "aperio", "width": 4000,
        "height": 3000, "mpp_x": 0.26, "mpp_y": 0.25, "mpp_source": "vendor", "mpp_evidence": ("one", "two"),
        "levels": (
            {"width": 4000, "height": 3000, "downsample_x": 1.0, "downsample_y": 1.0},
            {"width": 1000, "height": 700, "downsample_x": 4.0, "downsample_y": 4.2857},
        ),
        "route": "jpeg-tiff", "route_reason": "tiled", "properties": {"aperio.AppMag": "40"}, "bounds": (1, 2, 3, 4),
    }  # fmt: skip
    without = slide()
    without.bounds = None
    assert slide_facts(without).bounds == ()
    assert dataclasses.asdict(bundle_facts(bundle())) == {
        "name": "b", "sha256": "b0" * 32, "pfm_id": "pfm", "pfm_licence": "mit", "tile_px": 64, "mpp": 0.5,
        "embedding_dim": 4, "gene_set_sha256": "9e" * 32, "files": {"encoder.onnx": "e0" * 32}, "parity": {"tiles": 3},
    }  # fmt: skip


# What a Result refuses.


@pytest.mark.parametrize(
    "changes",
    [
        {"coords": np.zeros((4, 2), np.int64)},
        {"coords": np.zeros((5, 3), np.int64)},
        {"embedding": np.zeros((4, 4), np.float32)},
        {"pathways": np.zeros((4, 2), np.float32)},
        {"pathways": np.zeros((5, 3), np.float32)},
        {"tissue_fraction": np.zeros(4, np.float32)},
        {"tissue_fraction": np.zeros((5, 1), np.float32)},
        {"pathways_global": np.zeros((4, 2), np.float32)},
        {"pathways_global": np.zeros((5, 1), np.float32)},
    ],
)
def test_arrays_that_disagree_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"disagree|counted as readable"):
        crooked(**changes)


def test_each_array_of_trust_is_per_tile() -> None:
    facts = vars(make_trust(5))
    arrays = [name for name, value in facts.items() if isinstance(value, np.ndarray)]
    assert len(arrays) >= 2
    assert crooked(trust=SimpleNamespace(**facts)).trust is not None
    for name in arrays:
        for other in (facts[name][:-1], np.append(facts[name], facts[name][:1])):
            with pytest.raises(ValueError, match=f"trust.{name}"):
                crooked(trust=SimpleNamespace(**{**facts, name: other}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["embedding", "pathways", "pathways_global"])
def test_numbers_that_are_none_are_refused_wherever_they_stand(name: str, value: float) -> None:
    shape = {"embedding": (5, 4)}.get(name, (5, 2))
    for at in ((0, 0), (shape[0] - 1, shape[1] - 1)):
        values = np.zeros(shape, np.float32)
        values[at] = value
        with pytest.raises(ValueError, match="not finite"):
            crooked(**{name: values})


@pytest.mark.parametrize("ok", [4, 6])
def test_as_many_tiles_are_scored_as_were_counted(ok: int) -> None:
    with pytest.raises(ValueError, match=f"5 tiles have scores but {ok} were counted"):
        crooked(tiles=TileCounts(1300, 1293, 7, ok))


def test_counts_add_up_by_name() -> None:
    counts = TileCounts(grid=100, background=60, seen=40, ok=30, missing=1, corrupt=2, timeout=7, absent=5)
    assert counts.unreadable == 10
    assert counts.to_dict() == {
        "grid": 100, "background": 60, "seen": 40, "ok": 30, "missing": 1, "corrupt": 2, "timeout": 7, "absent": 5,
        "unreadable": 10,
    }  # fmt: skip


def test_the_record_says_each_thing_under_its_name() -> None:
    result = crooked(
        timing={"engine": np.float32(1.23456789)}, limiting="reader", warnings=("a", "b"), started_utc="then",
        config={"x": Path("/secret/folder/name")}, read_plan={"level": np.int16(2), "sizes": np.array([1, 2])},
    )  # fmt: skip
    record = result.to_json_dict()
    assert record["grid"] == {
        "target_mpp": 0.5, "tile_px": 64, "overlap_px": 16, "columns": GRID.columns, "rows": GRID.rows,
        "span_x_level0_px": pytest.approx(64 * 0.5 / 0.26), "span_y_level0_px": 128,
        "step_x_level0_px": pytest.approx(48 * 0.5 / 0.26), "step_y_level0_px": 96,
    }  # fmt: skip
    assert record["timing_seconds"] == {"engine": 1.2346}
    assert (record["limiting_stage"], record["warnings"], record["started_utc"]) == ("reader", ["a", "b"], "then")
    assert record["config"] == {"x": "name"}
    assert record["read_plan"] == {"level": 2, "sizes": [1, 2]}
    assert (record["pathways"]["unit"], record["pathways"]["names"]) == ("z", ["UP", "DOWN"])
    assert record["schema"] == "stamp-deploy/result"
    with pytest.raises(TypeError, match="set has no JSON form"):
        _plain({1})


# Back from the files.


def test_a_crooked_result_comes_back_field_by_field(tmp_path: Path) -> None:
    result = crooked(tissue_mask=np.eye(5, 7, dtype=bool))
    again = read_result(stored(result, tmp_path / "out"))
    for field in dataclasses.fields(Result):
        one, two = getattr(result, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two, err_msg=field.name)
            assert one.dtype == two.dtype, field.name
        elif field.name == "heads":
            for head, copy in zip(one, two, strict=True):
                facts = [dataclasses.asdict(dataclasses.replace(one, attention=None)) for one in (head, copy)]
                assert facts[0] == facts[1]
                assert (head.attention is None) == (copy.attention is None)
                assert head.attention is None or (head.attention == copy.attention).all()
        elif field.name != "source_path":
            assert one == two, field.name
    assert isinstance(again.slide.bounds, tuple)
    assert isinstance(again.heads[0].interval, tuple)


@pytest.mark.parametrize("kept", ["json", "hdf5"])
def test_both_files_are_needed(tmp_path: Path, kept: str) -> None:
    folder = stored(crooked(), tmp_path / "out", (kept,))
    missing = "tiles.h5" if kept == "json" else "result.json"
    with pytest.raises(UsageError, match=f"holds no {missing}"):
        read_result(folder)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schema", "another/thing", "another/thing version"),
        ("schema_version", 0, "version 0"),
        ("schema_version", "2", "version 2"),
    ],
)
def test_records_of_another_kind_are_refused(tmp_path: Path, field: str, value: object, said: str) -> None:
    folder = stored(crooked(), tmp_path / "out")
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**record, field: value}))
    with pytest.raises(DataError, match=said):
        read_result(folder)


@pytest.mark.parametrize("other", ["00" * 32, "ff" * 32])
@pytest.mark.parametrize("name", ["slide_sha256", "bundle_sha256"])
def test_files_of_two_slides_or_bundles_are_not_mixed(tmp_path: Path, name: str, other: str) -> None:
    folder = stored(crooked(), tmp_path / "out")
    with h5py.File(folder / "tiles.h5", "r+") as file:
        file.attrs[name] = other
    with pytest.raises(DataError, match=f"different {name.partition('_')[0]}s"):
        read_result(folder)


@pytest.mark.parametrize(
    ("constant", "value", "said"),
    [
        ("MAX_RECORD_BYTES", 1 << 20, None),
        ("MAX_RECORD_BYTES", 100, "more than"),
        ("MAX_THUMBNAIL_PX", 6000, None),
        ("MAX_THUMBNAIL_PX", 5999, "tissue mask is larger"),
        ("MAX_THUMBNAIL_PX", 5899, "thumbnail is larger"),
    ],
)
def test_sizes_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str, value: int, said: str | None
) -> None:
    """The mask has 60 x 100 pixels, the thumbnail 59 x 100."""
    thumbnail = np.zeros((59, 100, 3), np.uint8)
    folder = stored(crooked(thumbnail=thumbnail, tissue_mask=np.ones((60, 100), bool)), tmp_path / "out")
    monkeypatch.setattr(result_files, constant, value)
    if said is None:
        assert len(read_result(folder).coords) == 5
        return
    with pytest.raises(DataError, match=said):
        read_result(folder)


@pytest.mark.parametrize("name", result_files.ARRAYS)
def test_each_array_is_needed(tmp_path: Path, name: str) -> None:
    folder = stored(crooked(), tmp_path / "out")
    with h5py.File(folder / "tiles.h5", "r+") as file:
        del file[name]
    with pytest.raises(DataError, match=f"lacks {name}"):
        read_result(folder)


def test_attention_is_found_by_the_name_it_was_written_under() -> None:
    assert attention_name("MSI") == "attention/MSI"
    assert attention_name("a/b/c") == "attention/a_b_c"


def test_a_summary_of_no_tiles_is_empty() -> None:
    empty = make_result(n_tiles=0, pathways=2, heads=0)
    assert empty.summary() == {}
    assert empty.tile_cells.shape == (0, 2)


@pytest.mark.parametrize("names", [("AAA", "DOWN"), ("ZZZ", "DOWN"), ("DOWN", "UP")])
def test_both_files_name_the_same_pathways_in_one_order(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = stored(crooked(), tmp_path / "out")
    with h5py.File(folder / "tiles.h5", "r+") as file:
        file["pathway_names"][:] = names
    with pytest.raises(DataError, match="different pathways"):
        read_result(folder)


@pytest.mark.parametrize(
    ("shape", "limit", "found"),
    [
        ((60, 100, 3), 6000, True),
        ((60, 100, 3), 5999, False),
        ((60, 100, 4), 1 << 20, False),
        ((60, 100, 2), 1 << 20, False),
        ((60, 100), 1 << 20, False),
        (None, 1 << 20, False),
    ],
)
def test_the_picture_alone_is_read_where_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] | None, limit: int, found: bool
) -> None:
    monkeypatch.setattr(result_files, "MAX_THUMBNAIL_PX", limit)
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        if shape is not None:
            file["thumbnail"] = np.full(shape, 7, np.uint8)
    picture = result_files.read_small_thumbnail(tmp_path / "tiles.h5")
    assert (picture is not None) == found
    if picture is not None:
        assert picture.shape == (60, 100, 3) and (picture == 7).all()


@pytest.mark.parametrize("shape", [(221, 220, 3), (220, 221, 3)])
def test_a_small_picture_that_is_larger_than_any_that_is_written_is_not_read(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["thumbnail_small"] = np.full(shape, 7, np.uint8)
        file["thumbnail"] = np.full((60, 100, 3), 7, np.uint8)
    assert result_files.read_small_thumbnail(tmp_path / "tiles.h5") is None


@pytest.mark.parametrize(("size", "small"), [((330, 660), (110, 220)), ((660, 110), (220, 37)), ((60, 100), (60, 100))])
def test_the_small_picture_is_the_large_one_shrunk(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    """Read from the small one, which is all that is unpacked; from the large one in results of earlier versions."""
    large = np.zeros((*size, 3), np.uint8)
    large[: size[0] // 2, :, 0] = 200  # red above, green on the left
    large[:, : size[1] // 2, 1] = 100
    write_all(crooked(thumbnail=large), tmp_path, ["hdf5"])
    picture = result_files.read_small_thumbnail(tmp_path / "tiles.h5")
    assert picture is not None and picture.shape == (*small, 3)
    high, wide = small
    assert picture[high // 8, wide // 8].tolist() == [200, 100, 0]
    assert picture[high // 8, -wide // 8].tolist() == [200, 0, 0]
    assert picture[-high // 8, wide // 8].tolist() == [0, 100, 0]
    with h5py.File(tmp_path / "tiles.h5", "r+") as file:
        np.testing.assert_array_equal(file["thumbnail_small"][:], picture)
        del file["thumbnail"]
        np.testing.assert_array_equal(result_files.read_small_thumbnail(tmp_path / "tiles.h5"), picture)
        file["thumbnail"] = large
        del file["thumbnail_small"]
    np.testing.assert_array_equal(result_files.read_small_thumbnail(tmp_path / "tiles.h5"), picture)


@pytest.mark.parametrize("trust", [False, True])
def test_tiles_that_trust_leaves_out_do_not_count(trust: bool) -> None:
    result = crooked(trust=make_trust(5, left_out=(1, 3))) if trust else crooked()
    assert result.counted.tolist() == ([True, False, True, False, True] if trust else [True] * 5)
    weights = FRACTION * result.counted
    expected = (PATHWAYS * weights[:, None]).sum(0) / weights.sum()
    assert [row["mean"] for row in result.summary().values()] == pytest.approx(expected.tolist())


def test_the_read_out_that_summaries_rest_on() -> None:
    assert crooked().summarised == "pathways"
    both = crooked(pathways_global=PATHWAYS + 10)
    assert both.summarised == "pathways_global"
    assert both.summary()["UP"]["max"] == 14.5
    np.testing.assert_array_equal(both.tile_scores().values, PATHWAYS + 10)
