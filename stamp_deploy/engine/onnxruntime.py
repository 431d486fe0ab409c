"""ONNX Runtime on the CPU: the default engine, one wheel on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .base import EngineInfo, EngineOutput

if TYPE_CHECKING:
    from ..bundle import Bundle


def check_tiles(tiles: NDArray[np.uint8], tile_px: int, max_batch: int) -> None:
    """Refuse anything but uint8 [1..max_batch, T, T, 3].

    Raises
    ------
    EngineError
        Naming what was handed over.
    """
    good = tiles.dtype == np.uint8 and tiles.ndim == 4 and tiles.shape[1:] == (tile_px, tile_px, 3)
    if not good or not 1 <= len(tiles) <= max_batch:
        raise EngineError(
            f"the engine was handed {tiles.dtype} {tiles.shape} and takes uint8 "
            f"(1..{max_batch}, {tile_px}, {tile_px}, 3)"
        )


class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider, in the precision of the bundle's ONNX file."""

    def __init__(
        self, bundle: Bundle, *, batch: int, threads: int = 0, precision: str | None = None, why: str = ""
    ) -> None:
        import onnxruntime

        if precision not in (None, bundle.precision):
            raise EngineError(
                f"ONNX Runtime on the CPU runs this bundle in {bundle.precision}, not in {precision}",
                path=bundle.path,
                remedy="leave --precision out, or export the bundle in that precision",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(bundle.encoder), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no base class
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the encoder: {error}",
                path=bundle.encoder,
            ) from error
        self._tile_px = bundle.tile_px
        self._max_batch = batch
        self._info = EngineInfo(
            name="onnxruntime",
            version=onnxruntime.__version__,
            device="cpu",
            precision=bundle.precision,
            why=why,
            details={"threads": str(options.intra_op_num_threads)},
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def run(self, tiles: NDArray[np.uint8]) -> EngineOutput:
        """Score uint8 [N, T, T, 3]; see `Engine`."""
        check_tiles(tiles, self._tile_px, self._max_batch)
        if self._session is None:
            raise EngineError("the engine is closed")
        embedding, pathways = self._session.run(
            ["embedding", "pathways"], {"tiles": np.ascontiguousarray(tiles)}
        )
        return EngineOutput(embedding, pathways)

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]:
        """Score batch after batch, in order."""
        for tiles in batches:
            yield self.run(tiles)

    def close(self) -> None:
        """Release the session."""
        self._session = None
