/* Model tiles out of decoded storage tiles. */
#ifndef STAMP_MOSAIC_H
#define STAMP_MOSAIC_H

#include <stddef.h>
#include <stdint.h>

#include "planes.h"
#include "kernels.h"

/* Decoded storage tiles of one level, at the decoding scale. Coordinates are pixels at that scale. */
typedef struct {
    const uint8_t *pool;   /* slots, see planes.h */
    const int32_t *slot;   /* [rows][columns]: place in the pool, or -1 */
    const uint8_t *state;  /* [rows][columns]: enum stamp_status */
    const uint8_t *layout; /* [rows][columns]: enum stamp_layout */
    stamp_geometry geometry;
    int columns, rows, slots;
    int image_w, image_h; /* what lies beyond is white */
} stamp_mosaic;

/* Buffers of one thread for tiles of one size and scale. */
typedef struct stamp_workspace stamp_workspace;

/* exact: convert to RGB before resampling, pixel for pixel what decoding and then averaging gives. */
stamp_workspace *stamp_workspace_new(const stamp_kernels *kernels, stamp_geometry geometry, int tile_px, double scale_x,
                                     double scale_y, int exact);
void stamp_workspace_free(stamp_workspace *w);

/*
 * Write the model tile whose top-left corner is (x, y) to out[tile_px][tile_px][3].
 * Returns the worst status of the storage tiles that the model tile touches; STAMP_OK only if all are decoded or
 * background, which is white. The pixels of a tile that is not STAMP_OK are not written.
 */
int stamp_assemble(const stamp_mosaic *m, stamp_workspace *w, double x, double y, uint8_t *out);

#endif
