# A job of the tiler: storage tiles to decode, model tiles to assemble, and what ends it.

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


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
