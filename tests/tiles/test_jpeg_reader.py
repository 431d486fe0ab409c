"""The compiled route's bookkeeping: faults of the disk that pass or stay, and strips that are done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import ReadError
from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus, jpeg_reader, schedule
from stamp_deploy.tiles.areas_reader import open_storage
from stamp_deploy.tiles.jpeg_reader import JpegReader
from stamp_deploy.tiles.reader import Stop


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("s") / "a.svs", texture(320, 960), tile=64, coding="422")


def read(path: Path, *, threads: int = 1, tile_px: int = 40, at_once: int = 16) -> tuple[list[int], list[Any]]:
    """Status of every tile, and (served, stops of the strips that are begun, slots in use) after each fill."""
    seen = []
    with open_slide(path) as slide:
        tiles = select_tiles(make_grid(slide, target_mpp=0.5, tile_px=tile_px), None, 0.0)
        reader = open_storage(slide, tiles, threads=threads, exact=False, stop=Stop())
        assert isinstance(reader, JpegReader)
        status = np.full(len(tiles), 99, np.uint8)
        try:
            for start in range(0, len(tiles), at_once):
                index = reader.order[start : start + at_once]
                status[index] = reader.fill(index, np.empty((len(index), tile_px, tile_px, 3), np.uint8))
                used = int((reader._pool._slot >= 0).sum())
                seen.append((reader._served, [begun.strip.stop for begun in reader._begun], used))
        finally:
            reader.close()
    return status.tolist(), seen


@pytest.mark.parametrize("faults", [0, 1, 3, 4, 99])
def test_a_fault_is_tried_again_as_often_as_there_are_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    left = [faults]

    def fault(self: JpegReader) -> str | None:
        left[0] -= 1
        return "input/output error" if left[0] >= 0 else None

    monkeypatch.setattr(jpeg_reader, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(JpegReader, "_fault", fault)
    if faults > 3:
        with pytest.raises(ReadError, match="cannot be read: input/output error, 4 times") as stopped:
            read(path)
        assert stopped.value.path is not None and stopped.value.path.name == path.name and stopped.value.remedy
    else:
        assert set(read(path)[0]) == {TileStatus.OK}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seam", [0, 1 << 30])
def test_strips_are_let_go_when_they_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, seam: int
) -> None:
    monkeypatch.setattr(schedule, "MIN_STRIP", 2)
    monkeypatch.setattr(schedule, "MAX_STRIP", 2)
    monkeypatch.setattr(schedule, "SEAM_BYTES", seam)
    status, seen = read(path, threads=threads)
    assert set(status) == {TileStatus.OK} and len(seen) > 10
    for before, (served, stops, used) in zip([0, *(one[0] for one in seen)], seen, strict=False):
        # what was served before this batch is let go when the batch begins
        assert all(stop > before for stop in stops[:-1]), (served, stops)
        assert 0 < used <= 40  # of 75 storage tiles: two strips of two columns and five rows, and what is ahead
    assert seen[-1][0] == len(status)


def test_a_job_holds_four_mib_of_storage_tiles() -> None:
    held = schedule.Storage(9, 9, 256, 256, 256 * 256 * 3)
    assert jpeg_reader.LIVE_BYTES == 4 << 20
    touched = (224 / 256 + 0.5) * (300 / 256 + 0.5)
    assert JpegReader._tiles_of_a_job(224, 300, held, 1) == int((4 << 20) / (touched * held.slot_bytes)) == 9
    assert JpegReader._tiles_of_a_job(2240, 300, held, 1) == 4
    assert JpegReader._tiles_of_a_job(224, 300, held, 1) < JpegReader._tiles_of_a_job(224, 300, held, 2) == 16
    assert JpegReader._tiles_of_a_job(2240, 300, held, 3) == 24
