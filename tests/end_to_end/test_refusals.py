"""What may not be scored is counted by its cause or refused, and nothing half-written stays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.position_slide import STORAGE_PX, Layout, position_bundle, write_tiff

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.config import InferOptions
from stamp_deploy.engine import EngineOutput, load_engine
from stamp_deploy.errors import SlideError
from stamp_deploy.infer import infer_slide
from stamp_deploy.tiles import TileStatus, source

LAYOUT = Layout(mpp_y=0.25)
OPTIONS = InferOptions(all_tiles=True, engine="onnxruntime", batch=7, threads=2, writers=("json", "hdf5"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(position_bundle(tmp_path / "bundle", LAYOUT))


class Spoiling:
    """An engine that answers with one value that is no number, late in the slide."""

    def __init__(self, bundle: Bundle, field: str, value: float) -> None:
        self._engine = load_engine(bundle, "onnxruntime", batch=7)
        self.field, self.value = field, value

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]:
        for number, output in enumerate(self._engine.stream(batches)):
            if number == 40:
                spoilt = getattr(output, self.field).copy()
                spoilt[-1, -1] = self.value
                output = replace(output, **{self.field: spoilt})
            yield output


@pytest.mark.parametrize("field", ["embedding", "pathways"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_gives_no_result(tmp_path: Path, bundle: Bundle, field: str, value: float) -> None:
    slide = write_tiff(tmp_path / "slide.tif", LAYOUT, "jpeg-rgb")
    engine = Spoiling(bundle, field, value)
    with pytest.raises(SlideError, match="not finite"):
        infer_slide(slide, bundle, tmp_path / "out", OPTIONS, engine=engine)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("coding", "route"), [("deflate", "codec-tiff"), ("packbits", "openslide")])
def test_a_region_that_does_not_decode_is_a_corrupt_tile(
    tmp_path: Path, bundle: Bundle, coding: str, route: str
) -> None:
    """The tiles over one spoilt storage tile have no score, and are counted; also on the general route."""
    slide = write_tiff(tmp_path / "slide.tif", LAYOUT, coding)
    across = -(-LAYOUT.size[0] // STORAGE_PX)
    bad_column, bad_row = 7, 3
    with tifffile.TiffFile(slide) as tiff:
        number = bad_row * across + bad_column
        offset, size = tiff.pages[0].dataoffsets[number], tiff.pages[0].databytecounts[number]
    with slide.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x80" * size)  # no head of a deflate stream; in PackBits nothing at all
    result = infer_slide(slide, bundle, tmp_path / "out", replace(OPTIONS, max_unreadable=0.05))
    assert result.slide.route == route
    per_storage = STORAGE_PX // round(LAYOUT.span[0])
    lost = {
        (bad_column * per_storage + dx, bad_row * per_storage + dy)
        for dx in range(per_storage)
        for dy in range(per_storage)
    }
    kept = set(zip(*result.tile_cells.T.tolist(), strict=True))
    assert {(c, r) for c in range(LAYOUT.columns) for r in range(LAYOUT.rows)} - kept == lost
    assert (result.tiles.corrupt, result.tiles.missing, result.tiles.timeout) == (len(lost), 0, 0)


def test_every_status_is_counted_as_what_it_is(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tiles that the reader calls OK are scored; each other one is counted under its own cause."""
    causes = {3: TileStatus.MISSING, 50: TileStatus.CORRUPT, 51: TileStatus.CORRUPT, 7: TileStatus.TIMEOUT}
    causes |= {200: TileStatus.TIMEOUT, 201: TileStatus.TIMEOUT}
    open_reader = source._open_reader

    def spoiling(*args: object, **options: object) -> object:
        reader = open_reader(*args, **options)  # type: ignore[arg-type]
        fill = reader.fill

        def marked(index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
            status = fill(index, out)
            for position, cause in causes.items():
                status[index == position] = cause
                out[index == position] = 255
            return status

        reader.fill = marked  # type: ignore[method-assign]
        return reader

    monkeypatch.setattr(source, "_open_reader", spoiling)
    slide = write_tiff(tmp_path / "slide.tif", LAYOUT, "jpeg-rgb")
    result = infer_slide(slide, bundle, tmp_path / "out", replace(OPTIONS, max_unreadable=0.05))
    counts = json.loads((tmp_path / "out" / "result.json").read_text())["tiles"]
    assert [counts[key] for key in ("missing", "corrupt", "timeout", "unreadable")] == [1, 2, 3, 6]
    assert counts["ok"] == counts["seen"] - 6 == len(result.coords)
    columns, rows = result.tile_cells.T
    assert set(causes).isdisjoint((rows * LAYOUT.columns + columns).tolist())
    assert np.allclose(result.pathways, LAYOUT.scores()[rows, columns], atol=0.05)


def test_no_more_than_one_percent_may_be_unreadable_by_default() -> None:
    assert InferOptions().max_unreadable == 0.01
