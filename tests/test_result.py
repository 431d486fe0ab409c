"""The Result: its checks, summary and JSON form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.result_factory import make_result

from stamp_deploy.provenance import revision
from stamp_deploy.result import SCHEMA, TileCounts


def test_summary_is_what_numpy_says_of_the_scores() -> None:
    result = make_result(n_tiles=101, pathways=2, tissue_fraction=np.full(101, 0.7, np.float32))
    scores = result.pathways[:, 1].astype(np.float64)
    summary = result.summary()[result.pathway_names[1]]
    assert summary["mean"] == pytest.approx(scores.mean())
    assert summary["sd"] == pytest.approx(scores.std(ddof=1))
    assert summary["p05"] == pytest.approx(np.percentile(scores, 5, method="inverted_cdf"))
    assert summary["p50"] == pytest.approx(np.median(scores))
    assert (summary["min"], summary["max"]) == (pytest.approx(scores.min()), pytest.approx(scores.max()))


def test_one_tile_has_no_spread_and_no_nan() -> None:
    result = make_result(n_tiles=1, pathways=1)
    assert next(iter(result.summary().values()))["sd"] == 0
    json.dumps(result.to_json_dict(), allow_nan=False)


def test_json_holds_the_provenance_and_no_folder() -> None:
    result = make_result(source_path=None)
    value = result.to_json_dict()
    assert value["schema"] == SCHEMA
    assert value["slide"]["sha256"] == result.slide.sha256
    assert value["bundle"]["files"] == {"encoder.onnx": "e0" * 32}
    assert value["engine"]["name"] == "onnxruntime"
    assert value["tiles"]["unreadable"] == 2
    assert value["heads"][0]["interval"] == [0.74, 0.87]
    assert "research use only" in value["research_use"].lower()
    assert set(value["software"]) >= {"stamp-deploy", "revision", "python", "numpy"}
    assert "source_path" not in json.dumps(value)


def test_numpy_values_in_free_fields_become_plain() -> None:
    value = make_result(read_plan={"level": np.int64(2), "residual": np.float32(1.5)}).to_json_dict()
    assert value["read_plan"] == {"level": 2, "residual": 1.5}


def test_arrays_that_disagree_are_refused() -> None:
    result = make_result(n_tiles=10)
    with pytest.raises(ValueError, match="disagree"):
        make_result(n_tiles=10, embedding=result.embedding[:9])
    with pytest.raises(ValueError, match="counted as readable"):
        make_result(n_tiles=10, tiles=TileCounts(grid=20, background=9, seen=11, ok=11))
    with pytest.raises(ValueError, match="finite"):
        make_result(n_tiles=10, pathways=3, embedding=np.full_like(result.embedding, np.inf))


def test_tile_cells_invert_the_grid() -> None:
    result = make_result(n_tiles=500)
    cells = result.tile_cells
    assert np.array_equal(result.grid.coords(cells[:, 0], cells[:, 1]), result.coords)
    assert cells[:, 0].max() < result.grid.columns
    assert cells[:, 1].max() < result.grid.rows


def test_revision_reads_git_without_git(tmp_path) -> None:
    package = tmp_path / "stamp_deploy"
    package.mkdir()
    assert revision(package) == "unknown"
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text("# pack-refs\n" + "b" * 40 + " refs/heads/main\n")
    assert revision(package) == "b" * 40
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    assert revision(package) == "a" * 40


def test_revision_is_read_in_a_linked_worktree(tmp_path) -> None:
    home, tree = tmp_path / "home" / ".git", tmp_path / "tree"
    (home / "worktrees" / "tree").mkdir(parents=True)
    (home / "refs" / "heads").mkdir(parents=True)
    (home / "refs" / "heads" / "other").write_text("c" * 40 + "\n")
    (home / "worktrees" / "tree" / "HEAD").write_text("ref: refs/heads/other\n")
    (home / "worktrees" / "tree" / "commondir").write_text("../..\n")
    (tree / "stamp_deploy").mkdir(parents=True)
    (tree / ".git").write_text(f"gitdir: {home / 'worktrees' / 'tree'}\n")
    assert revision(tree / "stamp_deploy") == "c" * 40
    (home / "worktrees" / "tree" / "HEAD").write_text("d" * 40 + "\n")
    assert revision(tree / "stamp_deploy") == "d" * 40
