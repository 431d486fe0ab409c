# cython: language_level=3
"""The compiled tiler: checks arguments, drops the GIL, and hands buffers to the C core (csrc/*.c)."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stddef cimport ptrdiff_t, size_t
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import numpy as np


cdef extern from "planes.h" nogil:
    ctypedef struct stamp_geometry:
        int width, height
        size_t stride, plane, slot
    stamp_geometry stamp_geometry_of(unsigned width, unsigned height)
    int STAMP_PLANES_RGB
    int STAMP_OK, STAMP_MISSING, STAMP_CORRUPT, STAMP_UNREAD, STAMP_NO_MEMORY, STAMP_READ_ERROR, STAMP_BACKGROUND

cdef extern from "jpeg_tile.h" nogil:
    ctypedef struct stamp_decoder:
        pass
    int STAMP_RGB, STAMP_YCBCR, STAMP_BARE, STAMP_DICOM_ITEMS, STAMP_INTERVAL
    unsigned STAMP_MAX_TILE_SIDE
    stamp_decoder *stamp_decoder_new(const uint8_t *tables, size_t size, int colour, unsigned width, unsigned height,
                                     unsigned denominator, int *status)
    void stamp_decoder_free(stamp_decoder *d)
    int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, uint8_t *slot, uint8_t *layout)
    stamp_geometry stamp_decoder_geometry(const stamp_decoder *d)
    const char *stamp_decoder_message(const stamp_decoder *d)
    const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t *size, int framing, int *status,
                                      int *error)

cdef extern from "kernels.h" nogil:
    ctypedef struct stamp_kernels:
        const char *name
    const stamp_kernels *stamp_kernels_best()
    const stamp_kernels *stamp_kernels_plain()

cdef extern from "mosaic.h" nogil:
    ctypedef struct stamp_mosaic:
        const uint8_t *pool
        const int32_t *slot
        const uint8_t *state
        const uint8_t *layout
        stamp_geometry geometry
        int columns, rows, slots, image_w, image_h
    ctypedef struct stamp_workspace:
        pass
    stamp_workspace *stamp_workspace_new(const stamp_kernels *kernels, stamp_geometry geometry, int tile_px,
                                         double scale_x, double scale_y, int exact)
    void stamp_workspace_free(stamp_workspace *w)
    int stamp_assemble(const stamp_mosaic *m, stamp_workspace *w, double x, double y, uint8_t *out)

cdef extern from "tile_statistics.h" nogil:
    int STAMP_STATISTICS
    void stamp_tile_statistics(const uint8_t *tile, int side, const float *density, const float *unmix, double *out)

cdef extern from "vary_tile.h" nogil:
    ctypedef struct stamp_variation:
        pass
    void stamp_variation_plain(const float *mean, const float *std, stamp_variation *v)
    void stamp_variation_of(const float *mix, const float *shift, const float *mean, const float *std,
                            stamp_variation *v)
    void stamp_vary_tile(const uint8_t *pixels, ptrdiff_t step_x, ptrdiff_t step_y, int side, const stamp_variation *v,
                         float *row, float *out)

cdef extern from "<jpeglib.h>":
    int LIBJPEG_TURBO_VERSION_NUMBER

cdef extern from *:
    """
    #ifndef STAMP_CHECKED
    #define STAMP_CHECKED 0
    #endif
    static inline int64_t stamp_take(int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
    static inline int stamp_load(const int *flag) { return __atomic_load_n(flag, __ATOMIC_RELAXED); }
    static inline void stamp_store(int *flag, int value) { __atomic_store_n(flag, value, __ATOMIC_RELAXED); }
    """
    int STAMP_CHECKED
    int64_t stamp_take(int64_t *counter) nogil
    int stamp_load(const int *flag) nogil
    void stamp_store(int *flag, int value) nogil

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


cdef inline double _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef void _to_planes(const uint8_t[:, :, ::1] rgb, stamp_geometry geometry, uint8_t *out) noexcept nogil:
    """Interleaved pixels as three planes of a slot."""
    cdef Py_ssize_t r, c
    cdef uint8_t *row
    for r in range(geometry.height):
        row = out + r * geometry.stride
        for c in range(geometry.width):
            row[c] = rgb[r, c, 0]
            row[geometry.plane + c] = rgb[r, c, 1]
            row[2 * geometry.plane + c] = rgb[r, c, 2]


cdef class Stop:
    """Ends the work of every thread before its next storage tile: when asked to, or at a time.

    Parameters
    ----------
    deadline : float
        On time.monotonic's clock; infinity for none.
    """

    cdef int is_set
    cdef double deadline

    def __cinit__(self, double deadline=float("inf")):
        self.is_set, self.deadline = 0, deadline

    def set(self):
        """Ask the threads to end; from any thread."""
        stamp_store(&self.is_set, 1)

    @property
    def asked(self):
        """Whether somebody has asked: nobody waits for what is not done."""
        return bool(stamp_load(&self.is_set))

    @property
    def reached(self):
        """Whether somebody has asked, or the time has come."""
        return bool(stamp_load(&self.is_set)) or _now() >= self.deadline


cdef class Decoded:
    """The decoded storage tiles of one level: a pool of slots, and which storage tile lies in which.

    Parameters
    ----------
    pool : uint8 [slots, bytes]
    slot : int32 [rows, columns]
        The slot of each decoded storage tile; filled.
    state, layout : uint8 [rows, columns]
        Its status and how its planes lie; filled.
    image_w, image_h : int
        Size of the level at the decoding scale.

    Raises
    ------
    ValueError
        Shapes differ, or nothing is there.
    """

    cdef int image_w, image_h
    cdef uint8_t[:, ::1] pool
    cdef int32_t[:, ::1] slot
    cdef uint8_t[:, ::1] state, layout

    def __cinit__(self, uint8_t[:, ::1] pool, int32_t[:, ::1] slot, uint8_t[:, ::1] state, uint8_t[:, ::1] layout,
                  int image_w, int image_h):
        if (slot.shape[0] != state.shape[0] or slot.shape[1] != state.shape[1] or
                layout.shape[0] != state.shape[0] or layout.shape[1] != state.shape[1]):
            raise ValueError("slot, state and layout differ in shape")
        if pool.shape[0] < 1 or state.shape[0] < 1 or state.shape[1] < 1:
            raise ValueError("the pool or the level is empty")
        if image_w < 1 or image_h < 1:
            raise ValueError("the image has no pixels")
        self.pool, self.slot, self.state, self.layout = pool, slot, state, layout
        self.image_w, self.image_h = image_w, image_h

    def put(self, int64_t cell, int64_t slot, const uint8_t[:, :, ::1] rgb not None):
        """Put a storage tile that another decoder has decoded, uint8 [h, w, 3], into a slot.

        Raises
        ------
        ValueError
            A slot holds storage tiles of another size, or cell or slot are out of range.
        """
        cdef stamp_geometry geometry
        if not (0 <= cell < self.state.shape[0] * self.state.shape[1] and 0 <= slot < self.pool.shape[0]):
            raise ValueError("a slot or cell is out of range")
        if rgb.shape[2] != 3 or not (0 < rgb.shape[0] <= STAMP_MAX_TILE_SIDE and 0 < rgb.shape[1] <= STAMP_MAX_TILE_SIDE):
            raise ValueError("the storage tile is not RGB of a possible size")
        geometry = stamp_geometry_of(<unsigned>rgb.shape[1], <unsigned>rgb.shape[0])
        if <Py_ssize_t>geometry.slot != self.pool.shape[1]:
            raise ValueError("the storage tile is not of the slots' size")
        with nogil:
            _to_planes(rgb, geometry, &self.pool[slot, 0])
            (&self.slot[0, 0])[cell] = <int32_t>slot
            (&self.layout[0, 0])[cell] = <uint8_t>STAMP_PLANES_RGB
            (&self.state[0, 0])[cell] = <uint8_t>STAMP_OK


cdef class Reads:
    """Storage tiles to read and decode.

    Parameters
    ----------
    fds : int32 [n]
        The open file that each lies in.
    offsets, sizes : int64 [n]
        Where each storage tile lies in it, bytes; size 0 is a tile that the file leaves out.
    cells, slots : int32 [n]
        Its place in the level (flat), and the slot of the pool that it goes to.
    absent : int
        What becomes of a tile that is left out: MISSING, or BACKGROUND where the format may leave out glass.
    framing : int
        BARE; DICOM_ITEMS where offset and size are those of a run of fragments, headers included; INTERVAL where they
        are those of a restart interval of a larger stream, the marker that ends it included.

    Raises
    ------
    ValueError
        Lengths differ, or an offset, a size, `absent` or `framing` is out of range.
    """

    cdef int absent, framing
    cdef const int64_t[::1] offsets, sizes
    cdef const int32_t[::1] fds, cells, slots

    def __cinit__(self, const int32_t[::1] fds, const int64_t[::1] offsets, const int64_t[::1] sizes,
                  const int32_t[::1] cells, const int32_t[::1] slots, int absent=STAMP_MISSING,
                  int framing=STAMP_BARE):
        cdef Py_ssize_t n = offsets.shape[0], i
        if fds.shape[0] != n or sizes.shape[0] != n or cells.shape[0] != n or slots.shape[0] != n:
            raise ValueError("fds, offsets, sizes, cells and slots differ in length")
        for i in range(n):
            if offsets[i] < 0 or sizes[i] < 0:
                raise ValueError("an offset or size is out of range")
        if absent not in (STAMP_MISSING, STAMP_BACKGROUND):
            raise ValueError(f"{absent} is no status of a tile that is left out")
        if framing not in (STAMP_BARE, STAMP_DICOM_ITEMS, STAMP_INTERVAL):
            raise ValueError(f"{framing} is no framing of a stream")
        self.absent, self.framing = absent, framing
        self.fds, self.offsets, self.sizes, self.cells, self.slots = fds, offsets, sizes, cells, slots


cdef class Tiles:
    """Model tiles to assemble.

    Parameters
    ----------
    corners : float64 [m, 2]
        (x, y) of the model tiles, pixels at the decoding scale.
    out : uint8 [m, T, T, 3]
        Filled.
    status : uint8 [m]
        Filled.

    Raises
    ------
    ValueError
        Lengths differ, or a corner is out of range.
    """

    cdef const double[:, ::1] corners
    cdef uint8_t[:, :, :, ::1] out
    cdef uint8_t[::1] status

    def __cinit__(self, const double[:, ::1] corners, uint8_t[:, :, :, ::1] out, uint8_t[::1] status):
        cdef Py_ssize_t i
        if corners.shape[1] != 2 or out.shape[0] != corners.shape[0] or status.shape[0] != corners.shape[0]:
            raise ValueError("corners, out and status differ in length")
        for i in range(corners.shape[0]):
            if not (-1e9 < corners[i, 0] < 1e9 and -1e9 < corners[i, 1] < 1e9):
                raise ValueError("a corner is out of range")
        self.corners, self.out, self.status = corners, out, status


cdef class Job:
    """Storage tiles to decode and model tiles to assemble, shared by the threads that take from it.

    No model tile of a job may touch a storage tile that the same job decodes.

    Parameters
    ----------
    decoded : Decoded
        What is decoded already, and where the rest goes.
    reads : Reads
    tiles : Tiles
    stop : Stop

    Raises
    ------
    ValueError
        A cell or slot of `reads` is out of the range of `decoded`.
    """

    cdef Decoded decoded
    cdef Reads reads
    cdef Tiles tiles
    cdef Stop stop
    cdef int64_t next_decode, next_assemble

    def __cinit__(self, Decoded decoded not None, Reads reads not None, Tiles tiles not None, Stop stop not None):
        cdef Py_ssize_t count = decoded.state.shape[0] * decoded.state.shape[1], i
        for i in range(reads.cells.shape[0]):
            if not 0 <= reads.slots[i] < decoded.pool.shape[0] or not 0 <= reads.cells[i] < count:
                raise ValueError("a slot or cell is out of range")
        self.decoded, self.reads, self.tiles, self.stop = decoded, reads, tiles, stop


cdef class Worker:
    """Decodes storage tiles and assembles model tiles; one a thread.

    Parameters
    ----------
    tables : bytes
        The JPEG tables that the TIFF directory shares; empty where each stream carries its own. Of intervals also
        what goes before each of them: see jpeg_tile.h.
    colour : int
        The photometric tag: 2 (RGB) or 6 (YCbCr). It counts for streams that do not say themselves how they are coded.
    width, height : int
        Size of a storage tile at full scale, pixels.
    denominator : int
        Decoding scale 1/denominator: 1, 2, 4 or 8; it must divide width and height.
    tile_px : int
        Side of a model tile.
    scale_x, scale_y : float
        Decoded pixels per model pixel.
    exact : bool
        Convert to RGB before averaging, instead of averaging the planes as they are coded.
    plain : bool
        Use the plain C kernels, to compare with.

    Attributes
    ----------
    read_s, decode_s, assemble_s : float
        Seconds spent.
    bytes_read, tiles : int
        Of storage tiles.
    out_of_memory : bool
    read_errno : int
        The system's error number of a read that failed, 0 for none: what it was to read stays UNREAD.
    """

    cdef stamp_decoder *decoder
    cdef stamp_workspace *workspace
    cdef stamp_geometry geometry
    cdef int tile_px
    cdef readonly double read_s, decode_s, assemble_s
    cdef readonly int64_t bytes_read, tiles
    cdef readonly bint out_of_memory
    cdef public int read_errno

    def __cinit__(self, bytes tables, int colour, unsigned width, unsigned height, unsigned denominator,
                  int tile_px=1, double scale_x=1.0, double scale_y=1.0, bint exact=False, bint plain=False):
        cdef int status = STAMP_OK
        if colour not in (STAMP_RGB, STAMP_YCBCR):
            raise ValueError(f"photometric {colour} is not RGB (2) or YCbCr (6)")
        if denominator not in (1, 2, 4, 8) or not width or not height or width % denominator or height % denominator:
            raise ValueError(f"scale 1/{denominator} does not divide a storage tile of {width} x {height} px")
        if width > STAMP_MAX_TILE_SIDE or height > STAMP_MAX_TILE_SIDE:
            raise ValueError(f"storage tiles of {width} x {height} px are larger than {STAMP_MAX_TILE_SIDE} px")
        if not 1 <= tile_px <= 16384 or not 0.9 <= scale_x <= 512 or not 0.9 <= scale_y <= 512:
            raise ValueError(f"tiles of {tile_px} px at scale {scale_x} x {scale_y} are not possible")
        self.decoder = stamp_decoder_new(tables, len(tables), colour, width, height, denominator, &status)
        if status == STAMP_NO_MEMORY:
            raise MemoryError("no memory for a JPEG decoder")
        if self.decoder is NULL:
            raise ValueError("the shared JPEG tables are damaged")
        self.geometry = stamp_decoder_geometry(self.decoder)
        self.tile_px = tile_px
        self.workspace = stamp_workspace_new(stamp_kernels_plain() if plain else stamp_kernels_best(), self.geometry,
                                             tile_px, scale_x, scale_y, exact)
        if self.workspace is NULL:
            raise MemoryError("no memory for a tile workspace")

    def __dealloc__(self):
        stamp_decoder_free(self.decoder)
        stamp_workspace_free(self.workspace)

    @property
    def message(self):
        """The library's message of the last failure."""
        return stamp_decoder_message(self.decoder).decode("latin-1")

    @property
    def slot_bytes(self):
        """Bytes of a slot of the pool."""
        return self.geometry.slot

    def run(self, Job job not None):
        """Take work until none is left: first model tiles, then storage tiles, in the job's order.

        What is assembled was decoded by the job before, and may still lie in the caches.
        """
        cdef Decoded decoded = job.decoded
        cdef Reads reads = job.reads
        cdef Tiles tiles = job.tiles
        cdef int64_t n = reads.offsets.shape[0], m = tiles.corners.shape[0]
        if decoded.pool.shape[1] != <Py_ssize_t>self.geometry.slot:
            raise ValueError("the pool's slots are not of this worker's size")
        if tiles.out.shape[1] != self.tile_px or tiles.out.shape[2] != self.tile_px or tiles.out.shape[3] != 3:
            raise ValueError("out is not of the tile's size")
        if self.out_of_memory:
            return
        with nogil:
            if m > 0:
                self._assemble(job, decoded, tiles, m)
            if n > 0:
                self._decode(job, decoded, reads, n)

    cdef void _decode(self, Job job, Decoded decoded, Reads reads, int64_t n) noexcept nogil:
        cdef double clock = _now(), after
        cdef const uint8_t *data
        cdef int64_t i
        cdef int32_t cell
        cdef size_t size
        cdef int status = STAMP_OK, error = 0
        while not stamp_load(&job.stop.is_set) and clock < job.stop.deadline:
            i = stamp_take(&job.next_decode)
            if i >= n:
                return
            cell = reads.cells[i]
            if reads.sizes[i] == 0:
                (&decoded.state[0, 0])[cell] = <uint8_t>reads.absent
                continue
            size = <size_t>reads.sizes[i]
            data = stamp_decoder_read(self.decoder, reads.fds[i], <uint64_t>reads.offsets[i], &size, reads.framing,
                                      &status, &error)
            after = _now()
            self.read_s += after - clock
            if status == STAMP_OK:
                self.bytes_read += reads.sizes[i]
                status = stamp_decode(self.decoder, data, size, &decoded.pool[reads.slots[i], 0],
                                      &decoded.layout[0, 0] + cell)
            self.tiles += 1
            clock = _now()
            self.decode_s += clock - after
            if status == STAMP_NO_MEMORY:
                self.out_of_memory = True
                return
            if status == STAMP_READ_ERROR:
                self.read_errno = error
                return
            if status == STAMP_OK:
                (&decoded.slot[0, 0])[cell] = reads.slots[i]
            (&decoded.state[0, 0])[cell] = <uint8_t>(status if status == STAMP_OK else STAMP_CORRUPT)

    cdef void _assemble(self, Job job, Decoded decoded, Tiles tiles, int64_t m) noexcept nogil:
        cdef double clock = _now()
        cdef stamp_mosaic mosaic
        cdef int64_t i
        cdef int status
        mosaic.pool = &decoded.pool[0, 0]
        mosaic.slot = &decoded.slot[0, 0]
        mosaic.state = &decoded.state[0, 0]
        mosaic.layout = &decoded.layout[0, 0]
        mosaic.geometry = self.geometry
        mosaic.rows, mosaic.columns = <int>decoded.state.shape[0], <int>decoded.state.shape[1]
        mosaic.slots = <int>decoded.pool.shape[0]
        mosaic.image_w, mosaic.image_h = decoded.image_w, decoded.image_h
        while True:
            i = stamp_take(&job.next_assemble)
            if i >= m:
                break
            status = stamp_assemble(&mosaic, self.workspace, tiles.corners[i, 0], tiles.corners[i, 1],
                                    &tiles.out[i, 0, 0, 0])
            if status == STAMP_NO_MEMORY:
                self.out_of_memory = True
            tiles.status[i] = <uint8_t>status
        self.assemble_s += _now() - clock

    def decode_at(self, int fd, uint64_t offset, size_t size, int framing=STAMP_BARE):
        """As `decode`, of a stream in a file; where the system fails, `read_errno` is set."""
        cdef int status = STAMP_OK, error = 0
        cdef const uint8_t *data
        with nogil:
            data = stamp_decoder_read(self.decoder, fd, offset, &size, framing, &status, &error)
        if status == STAMP_READ_ERROR:
            self.read_errno = error
        if status != STAMP_OK:
            return status, np.zeros((self.geometry.height, self.geometry.width, 3), np.uint8)
        return self.decode(data[:size])

    def decode(self, bytes data):
        """One stream to (status, uint8 [h, w, 3]); the pixels are zero where the status is not OK."""
        cdef uint8_t[:, ::1] pool = np.zeros((1, self.geometry.slot), np.uint8)
        cdef uint8_t[:, :, ::1] out = np.zeros((self.geometry.height, self.geometry.width, 3), np.uint8)
        cdef const uint8_t *bytes_ = data
        cdef size_t size = len(data)
        cdef uint8_t layout = 0, state = STAMP_OK
        cdef int32_t slot = 0
        cdef int status, side
        cdef stamp_mosaic mosaic
        cdef stamp_workspace *one
        cdef int y, x
        status = stamp_decode(self.decoder, bytes_, size, &pool[0, 0], &layout)
        if status != STAMP_OK:
            return status, np.asarray(out)
        mosaic.pool, mosaic.slot, mosaic.state, mosaic.layout = &pool[0, 0], &slot, &state, &layout
        mosaic.geometry, mosaic.rows, mosaic.columns = self.geometry, 1, 1
        mosaic.slots = 1
        mosaic.image_w, mosaic.image_h = self.geometry.width, self.geometry.height
        side = max(self.geometry.width, self.geometry.height)
        square = np.zeros((side, side, 3), np.uint8)
        cdef uint8_t[:, :, ::1] view = square
        one = stamp_workspace_new(stamp_kernels_best(), self.geometry, side, 1.0, 1.0, 1)
        if one is NULL:
            raise MemoryError("no memory for a tile workspace")
        status = stamp_assemble(&mosaic, one, 0.0, 0.0, &view[0, 0, 0])
        stamp_workspace_free(one)
        return status, np.ascontiguousarray(square[:self.geometry.height, :self.geometry.width])


cdef class Resampler:
    """Averages regions of interleaved RGB down to model tiles, for the routes that give regions.

    Parameters
    ----------
    tile_px : int
        Side of a model tile.
    scale_x, scale_y : float
        Region pixels per model pixel.
    """

    cdef stamp_workspace *workspace
    cdef int tile_px

    def __cinit__(self, int tile_px, double scale_x, double scale_y):
        if not 1 <= tile_px <= 16384 or not 0.9 <= scale_x <= 512 or not 0.9 <= scale_y <= 512:
            raise ValueError(f"tiles of {tile_px} px at scale {scale_x} x {scale_y} are not possible")
        self.tile_px = tile_px
        self.workspace = stamp_workspace_new(stamp_kernels_best(), stamp_geometry_of(16, 16), tile_px, scale_x, scale_y, 0)
        if self.workspace is NULL:
            raise MemoryError("no memory for a tile workspace")

    def __dealloc__(self):
        stamp_workspace_free(self.workspace)

    def resample(self, const uint8_t[:, :, ::1] region, double x, double y, uint8_t[:, :, ::1] out):
        """Fill out uint8 [T, T, 3] from region uint8 [h, w, 3]; the tile's corner is at (x, y) in it, white beyond."""
        cdef Py_ssize_t rows = region.shape[0], columns = region.shape[1]
        cdef stamp_geometry geometry
        cdef stamp_mosaic mosaic
        cdef uint8_t layout = 0, state = STAMP_OK
        cdef int32_t slot = 0
        cdef int status
        if region.shape[2] != 3 or not 1 <= rows <= 1 << 20 or not 1 <= columns <= 1 << 20:
            raise ValueError("the region is not RGB of a possible size")
        if out.shape[0] != self.tile_px or out.shape[1] != self.tile_px or out.shape[2] != 3:
            raise ValueError("out is not of the tile's size")
        if not -1e6 < x < 1e6 or not -1e6 < y < 1e6:
            raise ValueError("the corner is out of range")
        geometry = stamp_geometry_of(<unsigned>columns, <unsigned>rows)
        cdef uint8_t[::1] pool = np.empty(geometry.slot, np.uint8)
        mosaic.pool, mosaic.slot, mosaic.state, mosaic.layout = &pool[0], &slot, &state, &layout
        mosaic.geometry, mosaic.rows, mosaic.columns, mosaic.slots = geometry, 1, 1, 1
        mosaic.image_w, mosaic.image_h = <int>columns, <int>rows
        with nogil:
            _to_planes(region, geometry, &pool[0])
            status = stamp_assemble(&mosaic, self.workspace, x, y, &out[0, 0, 0])
        if status != STAMP_OK:
            raise MemoryError("no memory to average a region")


def tile_statistics(const uint8_t[:, :, :, ::1] tiles, const float[::1] density, const float[:, ::1] unmix):
    """Stain, focus and saturation of model tiles: float64 [N, S], in the order of tile_statistics.h.

    Parameters
    ----------
    tiles : uint8 [N, T, T, 3]
        T of 3 to 16,384.
    density : float32 [256]
        Optical density of each 8-bit value.
    unmix : float32 [3, 3]
        Concentration of stain k for a density of 1 in channel c, at [c, k].
    """
    cdef Py_ssize_t count = tiles.shape[0], side = tiles.shape[1], i
    if tiles.shape[2] != side or tiles.shape[3] != 3 or not 3 <= side <= 16384:
        raise ValueError("the tiles are not square RGB of 3 to 16384 px")
    if density.shape[0] != 256 or unmix.shape[0] != 3 or unmix.shape[1] != 3:
        raise ValueError("density must hold 256 values and unmix 3 x 3")
    found = np.empty((count, STAMP_STATISTICS))
    cdef double[:, ::1] out = found
    with nogil:
        for i in range(count):
            stamp_tile_statistics(&tiles[i, 0, 0, 0], <int>side, &density[0], &unmix[0, 0], &out[i, 0])
    return found


def vary_tiles(const uint8_t[:, :, :, ::1] tiles, const int64_t[::1] rows, const int32_t[:, ::1] corners,
               const uint8_t[::1] turns, const float[:, :, ::1] mix, const float[:, ::1] shift, const float[::1] mean,
               const float[::1] std, float[:, :, :, ::1] out):
    """Crops of some tiles, turned, stained otherwise and normalised, to `out`: float32 [n, 3, side, side].

    Parameters
    ----------
    tiles : uint8 [N, T, T, 3]
        May be mapped from a file: each pixel of a crop is read once.
    rows : int64 [n]
        Which tiles.
    corners : int32 [n, 2]
        Top and left of each crop, in pixels.
    turns : uint8 [n]
        4: transposed; then 1: mirrored left to right, 2: top to bottom.
    mix, shift : float32 [n or 0, 3, 3], [n or 0, 3]
        Optical densities d become mix @ d + shift; empty: they stay.
    mean, std : float32 [3]
        Of RGB in [0, 1], by channel.
    """
    cdef Py_ssize_t count = rows.shape[0], have = tiles.shape[1], side = out.shape[2], i
    cdef bint jitter = mix.shape[0] > 0
    if tiles.shape[2] != have or tiles.shape[3] != 3 or not 1 <= side <= have or have > 65536:
        raise ValueError("the tiles are not square RGB, or smaller than the crops")
    if out.shape[0] != count or out.shape[1] != 3 or out.shape[3] != side:
        raise ValueError("out must hold a square of three planes for each row")
    if corners.shape[0] != count or corners.shape[1] != 2 or turns.shape[0] != count:
        raise ValueError("each row needs a corner and a turn")
    if jitter and (mix.shape[0] != count or mix.shape[1] != 3 or mix.shape[2] != 3):
        raise ValueError("mix must hold 3 x 3 for each row")
    if jitter and (shift.shape[0] != count or shift.shape[1] != 3):
        raise ValueError("shift must hold 3 values for each row")
    if mean.shape[0] != 3 or std.shape[0] != 3:
        raise ValueError("mean and std must hold 3 values")
    for i in range(count):
        if not 0 <= rows[i] < tiles.shape[0]:
            raise ValueError(f"there is no tile {rows[i]}")
        if not (0 <= corners[i, 0] <= have - side and 0 <= corners[i, 1] <= have - side):
            raise ValueError(f"crop {i} leaves its tile")
        if turns[i] > 7:
            raise ValueError(f"{turns[i]} is no turn")
    cdef stamp_variation *variation = <stamp_variation *>malloc(sizeof(stamp_variation))
    cdef float *row = <float *>malloc(<size_t>side * 4 * sizeof(float))
    cdef ptrdiff_t along, down, step_x, step_y, last = side - 1
    cdef const uint8_t *first
    try:
        if variation == NULL or row == NULL:
            raise MemoryError("no memory to vary tiles")
        with nogil:
            if not jitter:
                stamp_variation_plain(&mean[0], &std[0], variation)
            for i in range(count):
                along = 3 * have if turns[i] & 4 else 3
                down = 3 if turns[i] & 4 else 3 * have
                first = &tiles[rows[i], corners[i, 0], corners[i, 1], 0]
                step_x, step_y = along, down
                if turns[i] & 1:
                    first, step_x = first + last * along, -along
                if turns[i] & 2:
                    first, step_y = first + last * down, -down
                if jitter:
                    stamp_variation_of(&mix[i, 0, 0], &shift[i, 0], &mean[0], &std[0], variation)
                stamp_vary_tile(first, step_x, step_y, <int>side, variation, row, &out[i, 0, 0, 0])
    finally:
        free(variation)
        free(row)
