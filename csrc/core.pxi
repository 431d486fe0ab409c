# What the C core and libjpeg offer, for _tiler.pyx.

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

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
