"""What is listed and told: slides with their verdicts, failures of the batch, and what the report says, no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.result_factory import full_result, stored
from support.viewer_client import running

from stamp_deploy.errors import UsageError
from stamp_deploy.result_files import read_result
from stamp_deploy.viewer.app import ViewerApp
from stamp_deploy.viewer.result_facts import cells_bytes, layer_bytes, result_facts
from stamp_deploy.writers.report_data import map_layers, page_data
from stamp_deploy.writers.report_words import trust_words


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result with everything in it, in a folder of a batch."""
    out = tmp_path_factory.mktemp("full") / "out"
    stored(full_result(), out / "case-one")
    return out


def test_maps_are_told_as_in_the_report(full_folder: Path) -> None:
    """One function decides on colours, range, order and words; the report's page data are its witness."""
    result = read_result(full_folder / "case-one")
    facts, report = result_facts(result), page_data(result)
    own = [{key: layer[key] for key in layer if key not in ("quantised", "data")} for layer in report["layers"]]
    assert facts["layers"] == own
    assert facts["palettes"] == report["palettes"]
    assert facts["flags"] == report["flags"]
    assert facts["trust"] == trust_words(result)
    for number, layer in enumerate(map_layers(result)):
        assert np.array_equal(np.frombuffer(layer_bytes(result, number), "<f4"), layer.values)
    assert np.array_equal(np.frombuffer(cells_bytes(result), "<u4").reshape(-1, 2), result.tile_cells)


def test_embeddings_are_not_read(full_folder: Path) -> None:
    whole, shown = (read_result(full_folder / "case-one", embeddings=flag) for flag in (True, False))
    assert shown.embedding.shape == (len(whole.coords), 0)
    assert np.array_equal(shown.pathways, whole.pathways)


def test_gallery_and_thumbnail(full_folder: Path) -> None:
    result = read_result(full_folder / "case-one")
    assert result.gallery is not None
    with running(full_folder) as client:
        tile = int(result.gallery.tiles[0])
        assert client.get(f"api/slides/case-one/gallery/{tile}").body == result.gallery.jpeg[0]
        absent = next(i for i in range(len(result.coords)) if i not in result.gallery.tiles)
        assert client.get(f"api/slides/case-one/gallery/{absent}").status == 404
        assert client.get("api/slides/case-one/thumbnail").body[:2] == b"\xff\xd8"


def test_the_list_has_verdicts_cases_and_failures(full_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(full_folder, out)
    rows = [
        {"name": "one.svs", "key": "case-one", "case_id": "C 7", "state": "done", "reason": ""},
        {"name": "bad.svs", "key": "bad-1", "case_id": "", "state": "failed", "reason": "is no slide"},
        {"name": "stuck.svs", "key": "bad-2", "case_id": "", "state": "quarantined", "reason": "crashed twice"},
        {"name": "moved.svs", "key": "gone", "case_id": "", "state": "done", "reason": ""},  # its folder is not here
    ]
    (out / "batch.json").write_text(json.dumps({"slides": rows}))
    (out / "broken").mkdir()
    (out / "broken" / "DONE").write_text("done\n")
    with running(out) as client:
        told = client.get("api/slides").json
        assert told["batch"] is True
        found = {row["key"]: row for row in told["slides"]}
        result = read_result(out / "case-one")
        assert result.trust is not None
        one = found["case-one"]
        assert (one["verdict"], one["case"], one["state"]) == (result.trust.verdict, "C 7", "done")
        assert set(result.trust.reasons) <= set(one["reasons"])
        assert one["left_out"] == int(result.trust.left_out.sum())
        assert (found["bad-1"]["state"], found["bad-1"]["reasons"]) == ("failed", ["is no slide"])
        assert found["bad-2"]["state"] == "quarantined"
        assert found["broken"]["state"] == "unreadable"
        assert set(found) == {"case-one", "bad-1", "bad-2", "broken"}, "what is done is listed where its result is"
        assert client.get("api/slides/broken").status == 422
        assert client.get("api/slides/bad-1").status == 404
        shutil.copytree(out / "case-one", out / "later")
        assert "later" in {row["key"] for row in client.get("api/slides").json["slides"]}, "a batch may go on"


def test_one_result_alone(full_folder: Path) -> None:
    with running(full_folder / "case-one") as client:
        told = client.get("api/slides").json
        assert told["batch"] is False
        assert [row["key"] for row in told["slides"]] == ["case-one"]
        assert client.get("api/slides/case-one").status == 200


def test_a_slide_that_is_scored_again_is_read_again(full_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stored(full_result(), out / "a")
    with running(out) as client:
        before = client.get("api/slides/a").json
        (listed,) = client.get("api/slides").json["slides"]
        shutil.rmtree(out / "a")
        stored(full_result(700), out / "a")
        after = client.get("api/slides/a").json
        (again,) = client.get("api/slides").json["slides"]
    assert before["tiles"] != after["tiles"] == 700
    assert listed["tiles"] != again["tiles"] == 700, "the list is of the new one, too"


def test_what_is_no_result_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        ViewerApp(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no finished result"):
        ViewerApp(tmp_path / "empty")


def test_the_page_is_told_no_path(full_folder: Path) -> None:
    with running(full_folder) as client:
        for path in ("api/slides", "api/slides/case-one", "api/slides/case-one/source", "api/slides/none", ""):
            assert str(full_folder.parent).encode() not in client.get(path).body
