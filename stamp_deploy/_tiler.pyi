"""Types of the compiled tiler (csrc/_tiler.pyx)."""

import numpy as np
from numpy.typing import NDArray

OK: int
MISSING: int
CORRUPT: int
UNREAD: int
BACKGROUND: int
BARE: int
DICOM_ITEMS: int
INTERVAL: int
MAX_TILE_SIDE: int

def build_info() -> str: ...

class Stop:
    def __init__(self, deadline: float = ...) -> None: ...
    def set(self) -> None: ...
    @property
    def asked(self) -> bool: ...
    @property
    def reached(self) -> bool: ...

class Decoded:
    def __init__(
        self,
        pool: NDArray[np.uint8],
        slot: NDArray[np.int32],
        state: NDArray[np.uint8],
        layout: NDArray[np.uint8],
        image_w: int,
        image_h: int,
    ) -> None: ...
    def put(self, cell: int, slot: int, rgb: NDArray[np.uint8]) -> None: ...

class Reads:
    def __init__(
        self,
        fds: NDArray[np.int32],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        cells: NDArray[np.int32],
        slots: NDArray[np.int32],
        absent: int = ...,
        framing: int = ...,
    ) -> None: ...

class Tiles:
    def __init__(self, corners: NDArray[np.float64], out: NDArray[np.uint8], status: NDArray[np.uint8]) -> None: ...

class Job:
    def __init__(self, decoded: Decoded, reads: Reads, tiles: Tiles, stop: Stop) -> None: ...

class Worker:
    read_s: float
    decode_s: float
    assemble_s: float
    bytes_read: int
    tiles: int
    out_of_memory: bool
    read_errno: int
    def __init__(
        self,
        tables: bytes,
        colour: int,
        width: int,
        height: int,
        denominator: int,
        tile_px: int = ...,
        scale_x: float = ...,
        scale_y: float = ...,
        exact: bool = ...,
        plain: bool = ...,
    ) -> None: ...
    @property
    def message(self) -> str: ...
    @property
    def slot_bytes(self) -> int: ...
    def run(self, job: Job) -> None: ...
    def decode_at(self, fd: int, offset: int, size: int, framing: int = ...) -> tuple[int, NDArray[np.uint8]]: ...
    def decode(self, data: bytes) -> tuple[int, NDArray[np.uint8]]: ...

class Resampler:
    def __init__(self, tile_px: int, scale_x: float, scale_y: float) -> None: ...
    def resample(self, region: NDArray[np.uint8], x: float, y: float, out: NDArray[np.uint8]) -> None: ...

def tile_statistics(
    tiles: NDArray[np.uint8], density: NDArray[np.float32], unmix: NDArray[np.float32]
) -> NDArray[np.float64]: ...
def vary_tiles(
    tiles: NDArray[np.uint8],
    rows: NDArray[np.int64],
    corners: NDArray[np.int32],
    turns: NDArray[np.uint8],
    mix: NDArray[np.float32],
    shift: NDArray[np.float32],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
