# cython: language_level=3
"""The compiled tiler: checks arguments, drops the GIL, and hands buffers to the C core (csrc/*.c)."""

import numpy as np

include "core.pxi"

OK = STAMP_OK
MISSING = STAMP_MISSING
CORRUPT = STAMP_CORRUPT
UNREAD = STAMP_UNREAD
BACKGROUND = STAMP_BACKGROUND
BARE = STAMP_BARE
DICOM_ITEMS = STAMP_DICOM_ITEMS
INTERVAL = STAMP_INTERVAL
MAX_TILE_SIDE = STAMP_MAX_TILE_SIDE


def build_info():
    """Which libjpeg-turbo the core was built with, its row kernels, and whether it is a checked build."""
    number = LIBJPEG_TURBO_VERSION_NUMBER
    version = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
    kernels = stamp_kernels_best().name.decode()
    return f"libjpeg-turbo {version}, {kernels} kernels{', checked build' if STAMP_CHECKED else ''}"


include "job.pxi"
include "worker.pxi"
include "resampler.pxi"
include "model_tiles.pxi"
