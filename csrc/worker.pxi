# Who does a job: one worker per thread.

cdef class Worker:
    """Decodes storage tiles and assembles model tiles; one per thread.

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
