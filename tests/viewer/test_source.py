"""Which file is shown: the scored one, proven by its hash, and watched; never another of the same name."""

from __future__ import annotations

import io
import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide
from support.viewer_client import Client, running, score

from stamp_deploy.result_files import read_result
from stamp_deploy.viewer import slide_source
from stamp_deploy.viewer.slide_finder import SlideFinder
from stamp_deploy.viewer.tile_cache import TileCache


def settled(client: Client, key: str = "slide") -> dict[str, object]:
    """What is known of the file, once its hash is worked out."""
    for _ in range(600):
        found: dict[str, object] = client.get(f"api/slides/{key}/source").json
        if found["state"] != "checking":
            return found
        time.sleep(0.05)
    raise AssertionError("the hash was not worked out")


def test_the_scored_slide_is_told_as_such(viewer_world: Path) -> None:
    with running(viewer_world / "out", (viewer_world / "slides",)) as client:
        first = client.get("api/slides/slide/source").json
        assert first["state"] in ("checking", "scored")
        found = settled(client)
        assert (found["state"], found["kind"]) == ("scored", "slide")
        assert len(found["levels"]) == 4  # type: ignore[arg-type]


def test_a_slide_beside_its_result_is_found_and_no_deeper(own_world: Path) -> None:
    with running(own_world / "out") as client:
        assert settled(client)["state"] == "absent"
    (own_world / "slides" / "slide.svs").rename(own_world / "slide.svs")
    with running(own_world / "out") as client:
        assert settled(client)["state"] == "scored"
    with running(own_world / "out" / "slide", (own_world / "slide.svs",)) as client:
        assert settled(client)["state"] == "scored"


def test_without_its_slide_the_picture_is_shown(own_world: Path) -> None:
    with running(own_world / "out") as client:
        found = settled(client)
        assert (found["state"], found["kind"]) == ("absent", "picture")
        assert "--slides" in str(found["words"])
        assert client.get("api/slides/slide/tiles/picture/0/0/0.jpg").status == 200
        assert client.get("api/slides/slide/tiles/slide/0/0/0.jpg").status == 409


def test_another_slide_of_the_same_name_is_not_shown(own_world: Path) -> None:
    """Same size in pixels, other content."""
    path = own_world / "slides" / "slide.svs"
    write_slide(path, texture(1100, 1500, seed=9), tile=256, levels=(4,), coding="420")
    with running(own_world / "out", (own_world / "slides",)) as client:
        found = settled(client)
        assert (found["state"], found["kind"]) == ("refused", "picture")
        assert client.get("api/slides/slide/tiles/slide/0/0/0.jpg").status == 409


def test_a_file_of_another_size_is_passed_over_before_a_pixel_of_it_is_shown(own_world: Path) -> None:
    """As many pixels, other bytes: no hash is waited for, and the scored file is found behind it."""
    other = own_world / "slides" / "a" / "slide.svs"
    other.parent.mkdir()
    write_slide(other, texture(1100, 1500, seed=9), tile=256, levels=(4,), coding="420")
    scored = own_world / "slides" / "slide.svs"
    assert other.stat().st_size != scored.stat().st_size
    with running(own_world / "out", (other, scored)) as client:
        assert settled(client)["state"] == "scored"
    with running(own_world / "out", (other,)) as client:
        first = client.get("api/slides/slide/source").json
        assert first["state"] == "refused" and "its size differs" in str(first["words"])


def test_two_slides_that_are_looked_at_do_not_lend_each_other_their_tiles(own_world: Path) -> None:
    path = own_world / "slides" / "other.svs"
    write_slide(path, texture(1100, 1500, seed=9), tile=256, levels=(4,), coding="420")
    score(path, make_bundle(own_world / "bundle", tile_px=64), own_world / "out" / "other", all_tiles=True)
    with running(own_world / "out", (own_world / "slides",)) as client:
        url = "api/slides/{}/tiles/slide/2/0/0.jpg"  # a level that is made, and kept
        tiles = {key: client.get(url.format(key)).body for key in ("slide", "other")}
        assert tiles["slide"] != tiles["other"]
        assert {key: client.get(url.format(key)).body for key in ("other", "slide")} == tiles


def test_a_slide_that_is_being_looked_at_is_not_closed(own_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slide_source, "MOST_OPEN", 1)
    result = read_result(own_world / "out" / "slide")
    sources = slide_source.SlideSources(SlideFinder((own_world / "slides",)), TileCache())
    with sources.use("first", result) as first:
        with sources.use("second", result) as second:
            assert list(sources._open) == ["first", "second"] and second is not first
        assert list(sources._open) == ["first"], "the other one was done with"
        assert first.kind == "slide" and first.maker.tile(0, 0, 0)
    sources.close()


def test_one_changed_byte_is_seen(own_world: Path) -> None:
    path = own_world / "slides" / "slide.svs"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with running(own_world / "out", (own_world / "slides",)) as client:
        found = settled(client)
        assert found["state"] == "refused"
        assert "SHA-256 differs" in str(found["words"])


def test_a_slide_that_changes_while_it_is_shown(own_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slide_source, "LOOK_EVERY_S", 0.0)
    path = own_world / "slides" / "slide.svs"
    with running(own_world / "out", (own_world / "slides",)) as client:
        assert settled(client)["state"] == "scored"
        tile = "api/slides/slide/tiles/slide/3/1/1.jpg"
        assert client.get(tile).status == 200
        write_slide(path, texture(1100, 1500, seed=9), tile=256, levels=(4,), coding="420")
        assert client.get(tile).status == 409
        found = settled(client)
        assert (found["state"], found["kind"]) == ("refused", "picture")
        assert "changed" in str(found["words"])
        assert str(own_world) not in str(found["words"])


def test_a_slide_that_cannot_be_opened_is_told(own_world: Path) -> None:
    (own_world / "slides" / "slide.svs").write_bytes(b"II*\0 no slide")
    with running(own_world / "out", (own_world / "slides",)) as client:
        found = settled(client)
        assert (found["state"], found["kind"]) == ("refused", "picture")
        assert "cannot be shown" in str(found["words"])


def test_the_right_one_of_two_is_taken(own_world: Path) -> None:
    other = own_world / "slides" / "a" / "slide.svs"
    other.parent.mkdir()
    write_slide(other, texture(500, 500))
    with running(own_world / "out", (own_world / "slides",)) as client:
        assert settled(client)["state"] == "scored"


def test_no_picture_of_the_label_is_ever_read(own_world: Path) -> None:
    """What the file holds beside its levels is not among the zoom levels."""
    path = own_world / "slides" / "slide.svs"
    with tifffile.TiffWriter(path, append=True) as writer:
        label = np.zeros((300, 300, 3), np.uint8)
        writer.write(label, description="Aperio\nlabel 300x300", metadata=None, subfiletype=1)
    score(path, make_bundle(own_world / "bundle", tile_px=64), own_world / "own" / "slide", all_tiles=True)
    with running(own_world / "own", (own_world / "slides",)) as client:
        found = settled(client)
        assert found["state"] == "scored"
        for level, facts in enumerate(found["levels"]):  # type: ignore[arg-type,var-annotated]
            columns, rows = facts["tiles"]
            for row, column in itertools.product(range(rows), range(columns)):
                tile = client.get(f"api/slides/slide/tiles/slide/{level}/{column}/{row}.jpg").body
                assert np.asarray(Image.open(io.BytesIO(tile))).mean() > 40, "the label is black"


def test_slides_are_closed_when_many_were_looked_at(
    viewer_world: Path, own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        shutil.copytree(own_world / "out" / "slide", own_world / "out" / f"slide-{number}")
    monkeypatch.setattr(slide_source, "MOST_OPEN", 2)
    with running(own_world / "out", (own_world / "slides",)) as client:
        for number in range(4):
            assert settled(client, f"slide-{number}")["state"] == "scored"
        assert len(client.server.app.sources._open) == 2
        assert client.get("api/slides/slide-0/tiles/slide/3/0/0.jpg").status == 200


def test_names_are_found_below_folders(tmp_path: Path) -> None:
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.svs").touch()
    (tmp_path / "y.svs").touch()
    finder = SlideFinder((tmp_path / "b",), (tmp_path, tmp_path / "none"))
    assert finder.find("x.svs") == [tmp_path / "b" / "c" / "x.svs"]
    assert finder.find("y.svs") == [tmp_path / "y.svs"]
    assert finder.find("z.svs") == []
    assert SlideFinder((tmp_path / "y.svs",)).find("y.svs") == [tmp_path / "y.svs"]
