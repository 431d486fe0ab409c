# Regions that other readers give, averaged down to model tiles.

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
