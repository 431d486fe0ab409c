# cython: language_level=3
"""The compiled tiler: checks arguments, drops the GIL, and hands buffers to the C core (csrc/*.c)."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stddef cimport size_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import numpy as np


cdef extern from "jpeg_tile.h" nogil:
    ctypedef struct stamp_decoder:
        pass
    int STAMP_OK, STAMP_MISSING, STAMP_CORRUPT, STAMP_NO_MEMORY, STAMP_BAD_ARGUMENT, STAMP_READ_ERROR
    int STAMP_RGB, STAMP_YCBCR
    unsigned STAMP_MAX_TILE_SIDE
    stamp_decoder *stamp_decoder_new()
    void stamp_decoder_free(stamp_decoder *d)
    int stamp_decoder_tables(stamp_decoder *d, const uint8_t *tables, size_t size)
    int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, int colour, unsigned width, unsigned height,
                     unsigned denominator, unsigned row0, unsigned row1, uint8_t *out, size_t stride)
    const char *stamp_decoder_message(const stamp_decoder *d)
    const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t size, int *status)

cdef extern from "mosaic.h" nogil:
    ctypedef struct stamp_mosaic:
        const uint8_t *pool
        const int32_t *slot
        const uint8_t *state
        int tile_w, tile_h, columns, rows, image_w, image_h
    ctypedef struct stamp_workspace:
        pass
    stamp_workspace *stamp_workspace_new(int tile_px, double scale_x, double scale_y)
    void stamp_workspace_free(stamp_workspace *w)
    int stamp_assemble(const stamp_mosaic *m, stamp_workspace *w, double x, double y, uint8_t *out)

cdef extern from "<jpeglib.h>":
    int LIBJPEG_TURBO_VERSION_NUMBER

cdef extern from *:
    """
    #ifndef STAMP_CHECKED
    #define STAMP_CHECKED 0
    #endif
    """
    int STAMP_CHECKED

OK = STAMP_OK
MISSING = STAMP_MISSING
CORRUPT = STAMP_CORRUPT
NO_MEMORY = STAMP_NO_MEMORY
MAX_TILE_SIDE = STAMP_MAX_TILE_SIDE


def build_info():
    """Which libjpeg-turbo the core was built with, and whether it is a checked build."""
    number = LIBJPEG_TURBO_VERSION_NUMBER
    version = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
    return f"libjpeg-turbo {version}{', checked build' if STAMP_CHECKED else ''}"


cdef inline double _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef class Decoder:
    """Decodes storage tiles; one a thread.

    Parameters
    ----------
    tables : bytes
        The JPEG tables that the TIFF directory shares; empty where each stream carries its own.
    colour : int
        The photometric tag: 2 (RGB) or 6 (YCbCr).
    width, height : int
        Size of a storage tile at full scale, pixels.
    denominator : int
        Decoding scale 1/denominator: 1, 2, 4 or 8; it must divide width and height.
    """

    cdef stamp_decoder *handle
    cdef int colour
    cdef unsigned width, height, denominator
    cdef readonly double read_s, decode_s
    cdef readonly int64_t bytes_read, tiles

    def __cinit__(self, bytes tables, int colour, unsigned width, unsigned height, unsigned denominator):
        if colour not in (STAMP_RGB, STAMP_YCBCR):
            raise ValueError(f"photometric {colour} is not RGB (2) or YCbCr (6)")
        if denominator not in (1, 2, 4, 8) or not width or not height or width % denominator or height % denominator:
            raise ValueError(f"scale 1/{denominator} does not divide a storage tile of {width} x {height} px")
        if width > STAMP_MAX_TILE_SIDE or height > STAMP_MAX_TILE_SIDE:
            raise ValueError(f"storage tiles of {width} x {height} px are larger than {STAMP_MAX_TILE_SIDE} px")
        self.handle = stamp_decoder_new()
        if self.handle is NULL:
            raise MemoryError("no memory for a JPEG decoder")
        self.colour, self.width, self.height, self.denominator = colour, width, height, denominator
        if stamp_decoder_tables(self.handle, tables, len(tables)) != STAMP_OK:
            raise ValueError(f"the JPEG tables are damaged: {self.message}")

    def __dealloc__(self):
        stamp_decoder_free(self.handle)

    @property
    def message(self):
        """The library's message of the last failure."""
        return stamp_decoder_message(self.handle).decode("latin-1")

    def decode(self, bytes data):
        """One stream to (status, uint8 [h, w, 3])."""
        cdef unsigned rows = self.height // self.denominator
        cdef unsigned columns = self.width // self.denominator
        cdef uint8_t[:, :, ::1] out = np.zeros((rows, columns, 3), np.uint8)
        cdef const uint8_t *bytes_ = data
        cdef size_t size = len(data)
        cdef int status
        with nogil:
            status = stamp_decode(self.handle, bytes_, size, self.colour, self.width, self.height, self.denominator,
                                  0, rows, &out[0, 0, 0], columns * 3)
        return status, np.asarray(out)

    def decode_many(self, int fd, const int64_t[::1] offsets, const int64_t[::1] sizes, const int32_t[::1] slots,
                    uint8_t[:, :, :, ::1] pool, uint8_t[::1] status):
        """Read and decode storage tiles from a file into slots of a pool.

        Parameters
        ----------
        fd : int
            Open file.
        offsets, sizes : int64 [n]
            Bytes; size 0 is a tile that the file leaves out.
        slots : int32 [n]
            Places in the pool.
        pool : uint8 [slots, h, w, 3]
        status : uint8 [n]
            Filled.
        """
        cdef Py_ssize_t n = offsets.shape[0], i
        cdef unsigned rows = self.height // self.denominator
        cdef unsigned columns = self.width // self.denominator
        cdef const uint8_t *data
        cdef int result
        cdef double clock, after
        if sizes.shape[0] != n or slots.shape[0] != n or status.shape[0] != n:
            raise ValueError("offsets, sizes, slots and status differ in length")
        if pool.shape[1] != rows or pool.shape[2] != columns or pool.shape[3] != 3:
            raise ValueError("the pool's tiles are not of the decoded size")
        for i in range(n):
            if not 0 <= slots[i] < pool.shape[0] or offsets[i] < 0 or sizes[i] < 0:
                raise ValueError("a slot, offset or size is out of range")
        with nogil:
            clock = _now()
            for i in range(n):
                if sizes[i] == 0:
                    status[i] = STAMP_MISSING
                    continue
                data = stamp_decoder_read(self.handle, fd, <uint64_t>offsets[i], <size_t>sizes[i], &result)
                after = _now()
                self.read_s += after - clock
                if result == STAMP_OK:
                    self.bytes_read += sizes[i]
                    self.tiles += 1
                    result = stamp_decode(self.handle, data, <size_t>sizes[i], self.colour, self.width, self.height,
                                          self.denominator, 0, rows, &pool[slots[i], 0, 0, 0], columns * 3)
                clock = _now()
                self.decode_s += clock - after
                status[i] = <uint8_t>result


cdef class Assembler:
    """Writes model tiles out of decoded storage tiles; one a thread.

    Parameters
    ----------
    tile_px : int
        Side of a model tile.
    scale_x, scale_y : float
        Decoded pixels per model pixel.
    """

    cdef stamp_workspace *workspace
    cdef int tile_px
    cdef readonly double resample_s

    def __cinit__(self, int tile_px, double scale_x, double scale_y):
        if not 1 <= tile_px <= 16384 or not 0.9 <= scale_x <= 512 or not 0.9 <= scale_y <= 512:
            raise ValueError(f"tiles of {tile_px} px at scale {scale_x} x {scale_y} are not possible")
        self.tile_px = tile_px
        self.workspace = stamp_workspace_new(tile_px, scale_x, scale_y)
        if self.workspace is NULL:
            raise MemoryError("no memory for a tile workspace")

    def __dealloc__(self):
        stamp_workspace_free(self.workspace)

    def assemble(self, const uint8_t[:, :, :, ::1] pool, const int32_t[:, ::1] slot, const uint8_t[:, ::1] state,
                 int image_w, int image_h, const double[:, ::1] corners, uint8_t[:, :, :, ::1] out,
                 uint8_t[::1] status):
        """Fill out uint8 [n, T, T, 3] and status uint8 [n] for corners float64 [n, 2] (x, y) in decoded pixels."""
        cdef stamp_mosaic mosaic
        cdef Py_ssize_t n = corners.shape[0], i
        cdef double clock
        if out.shape[0] != n or status.shape[0] != n or corners.shape[1] != 2:
            raise ValueError("corners, out and status differ in length")
        if out.shape[1] != self.tile_px or out.shape[2] != self.tile_px or out.shape[3] != 3:
            raise ValueError("out is not of the tile's size")
        if slot.shape[0] != state.shape[0] or slot.shape[1] != state.shape[1]:
            raise ValueError("slot and state differ in shape")
        if n == 0:
            return
        mosaic.pool = &pool[0, 0, 0, 0]
        mosaic.slot = &slot[0, 0]
        mosaic.state = &state[0, 0]
        mosaic.tile_h, mosaic.tile_w = <int>pool.shape[1], <int>pool.shape[2]
        mosaic.rows, mosaic.columns = <int>slot.shape[0], <int>slot.shape[1]
        mosaic.image_w, mosaic.image_h = image_w, image_h
        with nogil:
            clock = _now()
            for i in range(n):
                status[i] = <uint8_t>stamp_assemble(&mosaic, self.workspace, corners[i, 0], corners[i, 1],
                                                    &out[i, 0, 0, 0])
            self.resample_s += _now() - clock
