"""The bundle's golden tiles: an engine is accepted on this machine when it reproduces what torch said of them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..spread import spread
from .head_model import head_probabilities
from .interface import OUTPUTS, EngineOutput
from .parity import Outputs, StageReport, compare

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .interface import Engine

GOLDEN_TILES = 64
"""Tiles kept in the bundle: 9.6 MB at 224 px, and ranks of 64 tiles are enough to see a broken engine."""
BATCHES_PER_LANE = 2
"""Full batches that the check sends through each lane of an engine, at least."""
REST_TILES = 3
"""Tiles of the last batch, which is not full."""


def write_golden(folder: Path, tiles: NDArray[np.uint8], expected: Outputs) -> None:
    """Write tiles.npy, and embedding.npy, pathways.npy and pathways_global.npy: no pickle, any numpy reads them."""
    folder.mkdir()
    keep = spread(len(tiles), GOLDEN_TILES)
    for name, values in {"tiles": tiles, **{name: getattr(expected, name) for name in OUTPUTS}}.items():
        if values is not None:
            np.save(folder / f"{name}.npy", values[keep], allow_pickle=False)


def load_golden(bundle: Bundle) -> tuple[NDArray[np.uint8], Outputs]:
    """Golden tiles uint8 [G, T, T, 3] and their expected outputs, those of the slide-level heads included.

    Raises
    ------
    BundleError
        A file has been changed, is no array, or the arrays do not fit the bundle or each other.
    """
    tiles = _read_array(bundle, "tiles")
    arrays = {name: _read_array(bundle, name) for name in bundle.outputs}
    total, side = len(tiles) if tiles.ndim else 0, bundle.tile_px
    if (
        tiles.dtype != np.uint8
        or tiles.shape != (total, side, side, 3)
        or any(arrays[name].shape != (total, width) for name, width in bundle.widths.items())
        or any(values.dtype.kind != "f" for values in arrays.values())
        or total < 2
    ):
        raise BundleError("the golden arrays do not fit the bundle", path=bundle.path, remedy="export the bundle again")
    answers: dict[str, Any] = {name: values.astype(np.float32) for name, values in arrays.items()}
    reference = Outputs(**answers)
    return np.ascontiguousarray(tiles), with_heads(bundle, reference)


def with_heads(bundle: Bundle, outputs: Outputs) -> Outputs:
    """The tiles taken for one slide: every head's probabilities over them; NaN where the embeddings are not finite."""
    if not np.isfinite(outputs.embedding).all():
        nan: NDArray[np.float32] = np.full(1, np.nan, np.float32)
        return replace(outputs, heads={spec.name: nan for spec in bundle.heads})
    return replace(outputs, heads=head_probabilities(bundle, outputs.embedding))


def check_engine(bundle: Bundle, engine: Engine) -> StageReport:
    """Compare an engine's embeddings, pathway scores and heads with the golden ones, by its precision's tolerance."""
    return time_and_check(bundle, engine)[0]


def time_and_check(bundle: Bundle, engine: Engine) -> tuple[StageReport, float, float]:
    """`check_engine`, and the tiles/s of its full batches, and the seconds that they took.

    The golden tiles are repeated until every lane has had `BATCHES_PER_LANE` full batches, then comes one that is not
    full; each repetition begins a tile later, so that a tile meets other rows. Every row is compared.
    """
    tiles, reference = load_golden(bundle)
    count, batch = len(tiles), engine.max_batch
    full = -(-max(count, BATCHES_PER_LANE * getattr(engine, "depth", 1) * batch) // batch) * batch
    index = turned(count, full + min(batch - 1, REST_TILES))
    start = time.perf_counter()
    found = _run(engine, tiles, index[:full])
    seconds = time.perf_counter() - start
    if full < len(index):
        rest = _run(engine, tiles, index[full:])
        found = EngineOutput.join([found, rest])
    heads = with_heads(bundle, Outputs(found.embedding[:count], found.pathways[:count])).heads
    expected = {name: getattr(reference, name)[index] for name in bundle.outputs}
    info = engine.info
    report = compare(
        Outputs(**expected, heads=reference.heads),
        Outputs(**{name: getattr(found, name) for name in OUTPUTS}, heads=heads),
        stage=f"golden -> {info.name} {info.precision}",
        names=("the golden outputs", f"{info.name} {info.version} {info.precision} on {info.device}"),
        precision=info.precision,
        pathways=bundle.pathways,
        tiles=count,
        details={
            "engine": info.name,
            "version": info.version,
            "device": info.device,
            "rows": str(len(index)),
            **info.details,
        },
    )
    return report, full / seconds, seconds


def time_engine(bundle: Bundle, engine: Engine) -> tuple[float, float]:
    """Tiles/s over full batches of golden tiles, and the seconds that they took."""
    tiles, _ = load_golden(bundle)
    rows = BATCHES_PER_LANE * getattr(engine, "depth", 1) * engine.max_batch
    start = time.perf_counter()
    _run(engine, tiles, turned(len(tiles), rows))
    seconds = time.perf_counter() - start
    return rows / seconds, seconds


def turned(count: int, rows: int) -> NDArray[np.int64]:
    """Which of `count` tiles stands in each of `rows` rows: all in order, then all again from the second on, ..."""
    row = np.arange(rows)
    return np.asarray((row + row // count) % count)


def _run(engine: Engine, tiles: NDArray[np.uint8], index: NDArray[np.int64]) -> EngineOutput:
    step = engine.max_batch

    def batches() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(index), step):
            yield tiles[index[start : start + step]]

    return EngineOutput.join(list(engine.stream(batches())))


def _read_array(bundle: Bundle, name: str) -> NDArray[Any]:
    """An array out of the bytes that were hashed; numbers only, and no larger than the file says it is."""
    file = f"{bundle.golden_dir}/{name}.npy"
    if file not in bundle.files:
        raise BundleError(f"the bundle has no golden {name}", path=bundle.path, remedy="export the bundle again")
    data = bundle.read(file)
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](stream)
        values = np.frombuffer(data, dtype, offset=stream.tell())
        if dtype.hasobject or dtype.kind not in "uif":
            raise ValueError("not numbers")
        return values.reshape(shape, order="F" if fortran else "C")
    except Exception as error:  # a damaged header can raise almost anything, a SyntaxError included
        raise BundleError(
            f"the golden {name} cannot be read ({type(error).__name__})",
            path=bundle.path,
            remedy="export the bundle again",
        ) from error
