/* One decoded storage tile: three planes of 8-bit samples, as the JPEG stream codes them. */
#ifndef STAMP_PLANES_H
#define STAMP_PLANES_H

#include <stddef.h>
#include <stdint.h>

/* The first four are TileStatus in Python: what is never decoded is what there was no time for. */
enum stamp_status {
    STAMP_OK = 0,
    STAMP_MISSING = 1,
    STAMP_CORRUPT = 2,
    STAMP_UNREAD = 3,
    STAMP_NO_MEMORY = 4,
    STAMP_BAD_ARGUMENT = 5,
    STAMP_READ_ERROR = 6,
    STAMP_BACKGROUND = 7, /* of a storage tile alone: left out by the file, and so white */
};

/* What the planes hold: R, G, B of full size, or Y of full size with Cb, Cr of full, half width, or half size. */
enum stamp_layout { STAMP_PLANES_RGB = 0, STAMP_PLANES_444 = 1, STAMP_PLANES_422 = 2, STAMP_PLANES_420 = 3 };

/* Where the planes lie in a slot of the pool; the same for every layout, so that slots can be exchanged. */
typedef struct {
    int width, height; /* of the decoded storage tile, pixels */
    size_t stride;     /* bytes from row to row, of every plane; at least width + 16 */
    size_t plane;      /* bytes from plane to plane */
    size_t slot;       /* bytes of a slot */
} stamp_geometry;

/* Room for whole JPEG blocks at the right and below, and for loads of 16 bytes that start inside a row. */
static inline stamp_geometry stamp_geometry_of(unsigned width, unsigned height)
{
    stamp_geometry g = {(int)width, (int)height, 0, 0, 0};
    g.stride = ((size_t)width + 31) / 16 * 16;
    g.plane = g.stride * ((size_t)height + 16);
    g.slot = 3 * g.plane;
    return g;
}

static inline int stamp_chroma_shift_x(int layout)
{
    return layout >= STAMP_PLANES_422;
}

static inline int stamp_chroma_shift_y(int layout)
{
    return layout == STAMP_PLANES_420;
}

#endif
