"""Types of the compiled tiler (csrc/_tiler.pyx)."""

import numpy as np
from numpy.typing import NDArray

OK: int
MISSING: int
CORRUPT: int
NO_MEMORY: int
MAX_TILE_SIDE: int

def build_info() -> str: ...

class Decoder:
    read_s: float
    decode_s: float
    bytes_read: int
    tiles: int
    def __init__(self, tables: bytes, colour: int, width: int, height: int, denominator: int) -> None: ...
    @property
    def message(self) -> str: ...
    def decode(self, data: bytes) -> tuple[int, NDArray[np.uint8]]: ...
    def decode_many(
        self,
        fd: int,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        slots: NDArray[np.int32],
        pool: NDArray[np.uint8],
        status: NDArray[np.uint8],
    ) -> None: ...

class Assembler:
    resample_s: float
    def __init__(self, tile_px: int, scale_x: float, scale_y: float) -> None: ...
    def assemble(
        self,
        pool: NDArray[np.uint8],
        slot: NDArray[np.int32],
        state: NDArray[np.uint8],
        image_w: int,
        image_h: int,
        corners: NDArray[np.float64],
        out: NDArray[np.uint8],
        status: NDArray[np.uint8],
    ) -> None: ...
