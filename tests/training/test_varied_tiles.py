"""Tiles by the compiled core against the same in torch; batches whose memory is used again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from stamp_deploy import _tiler
from stamp_deploy.errors import UsageError
from stamp_deploy.training.augment import crop_shifted, jitter_stain, normalise, to_unit, turn, turn_each
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.data import Loader
from stamp_deploy.training.varied_tiles import FloatBuffers, varied_tiles

MEAN, STD = (0.7, 0.55, 0.71), (0.2, 0.23, 0.17)


def tiles_of(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Every value of a byte occurs, 0 and 255 too."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("hed_jitter", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("flips", [False, True])
def test_the_core_does_what_torch_does(hed_jitter: float, flips: bool) -> None:
    pieces = [(tiles_of(9, 29), np.array([0, 3, 8])), (tiles_of(30, 29, 1), np.arange(30))]
    found = varied_tiles(pieces, 21, MEAN, STD, np.random.default_rng(5), reach=3, hed_jitter=hed_jitter, flips=flips)
    rng = np.random.default_rng(5)
    x = to_unit(np.concatenate([crop_shifted(t, rows, 21, 3, rng) for t, rows in pieces]))
    x = jitter_stain(x, hed_jitter, rng) if hed_jitter else x
    x = turn_each(x, rng) if flips else x
    assert torch.allclose(found, normalise(x, MEAN, STD), atol=3e-5)
    assert found.std() > 0.5


@pytest.mark.parametrize("k", range(8))
def test_each_turn_is_that_of_torch(k: int) -> None:
    tiles = tiles_of(1, 7)
    out = np.empty((1, 3, 5, 5), np.float32)
    none = np.empty((0, 3, 3), np.float32), np.empty((0, 3), np.float32)
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    corner = np.array([[2, 1]], np.int32)
    _tiler.vary_tiles(tiles, np.zeros(1, np.int64), corner, np.array([k], np.uint8), *none, zero, one, out)
    assert torch.allclose(torch.from_numpy(out), turn(to_unit(tiles[:, 2:7, 1:6]), k), atol=1e-7)


def arguments(**changed: Any) -> list[Any]:
    """Good arguments of `vary_tiles`, but for the changed ones."""
    good = {
        "tiles": tiles_of(2, 8), "rows": np.array([0, 1]), "corners": np.zeros((2, 2), np.int32),
        "turns": np.zeros(2, np.uint8), "mix": np.zeros((2, 3, 3), np.float32), "shift": np.zeros((2, 3), np.float32),
        "mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32), "out": np.empty((2, 3, 6, 6), np.float32),
    }  # fmt: skip
    return list((good | changed).values())


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": np.array([0, 2])},
        {"rows": np.array([-1, 0])},
        {"rows": np.array([0])},
        {"corners": np.array([[0, 3], [0, 0]], np.int32)},
        {"corners": np.array([[-1, 0], [0, 0]], np.int32)},
        {"corners": np.zeros((2, 1), np.int32)},
        {"turns": np.array([0, 8], np.uint8)},
        {"mix": np.zeros((1, 3, 3), np.float32)},
        {"shift": np.zeros((1, 3), np.float32)},
        {"mean": np.zeros(2, np.float32)},
        {"out": np.empty((2, 3, 9, 9), np.float32)},
        {"out": np.empty((2, 3, 6, 5), np.float32)},
        {"tiles": np.zeros((2, 8, 7, 3), np.uint8)},
    ],
)
def test_the_core_reads_nothing_beyond_its_buffers(changed: dict[str, Any]) -> None:
    _tiler.vary_tiles(*arguments())
    with pytest.raises(ValueError, match=r"."):
        _tiler.vary_tiles(*arguments(**changed))


def test_tiles_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match="8 px and the model wants 9"):
        varied_tiles([(tiles_of(1, 8), np.zeros(1, np.int64))], 9, MEAN, STD, np.random.default_rng(0))


def test_threads_change_no_batch() -> None:
    pool = tiles_of(60, 12)
    sections = [
        SimpleNamespace(
            tiles=pool[i::2],
            target=np.ones((30, 2), np.float32),
            mask=np.ones(2, bool),
            genes=np.ones((30, 1)),
            gather=lambda index: {},
        )
        for i in range(2)
    ]
    config = TrainConfig(batch_slides=2, batch_spots=7, shift_um=2.0, flips=True)
    alone, several = (
        [b.tiles.clone() for b in Loader(sections, config, 10, MEAN, STD, 1.0, threads=n).epoch(1, 1)]  # type: ignore[arg-type]
        for n in (1, 4)
    )
    assert len(alone) == len(several) == 3
    assert all(torch.equal(a, b) for a, b in zip(alone, several, strict=True))


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    buffers = FloatBuffers()
    first = buffers.take((2, 3))
    address = first.data_ptr()
    part = first[:1]
    del first
    second = buffers.take((2, 3))
    assert second.data_ptr() != address  # `part` still looks at it
    del part
    third = buffers.take((1, 3))
    assert third.data_ptr() == address and third.shape == (1, 3)
    larger = buffers.take((9, 3))
    assert larger.shape == (9, 3) and larger.data_ptr() not in (address, second.data_ptr())
