/* Gather a rectangle from decoded storage tiles, then average it down to the model tile. */
#include "mosaic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg_tile.h"
#include "resample.h"

struct stamp_workspace {
    int tile_px;
    double scale_x, scale_y;
    int gather_w, gather_h; /* the largest rectangle that a tile can need */
    uint8_t *gathered;
    uint16_t *squeezed;
    stamp_axis x, y;
};

static int axis_alloc(stamp_axis *axis, int count, double scale)
{
    axis->count = count;
    axis->taps = stamp_axis_taps(scale);
    axis->first = malloc(sizeof *axis->first * (size_t)count);
    axis->weight = malloc(sizeof *axis->weight * (size_t)count * (size_t)axis->taps);
    return axis->first != NULL && axis->weight != NULL;
}

stamp_workspace *stamp_workspace_new(int tile_px, double scale_x, double scale_y)
{
    stamp_workspace *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->tile_px = tile_px;
    w->scale_x = scale_x;
    w->scale_y = scale_y;
    w->gather_w = (int)ceil(tile_px * scale_x) + 2;
    w->gather_h = (int)ceil(tile_px * scale_y) + 2;
    w->gathered = malloc((size_t)w->gather_w * (size_t)w->gather_h * 3);
    w->squeezed = malloc(sizeof *w->squeezed * (size_t)w->gather_h * (size_t)tile_px * 3);
    if (!axis_alloc(&w->x, tile_px, scale_x) || !axis_alloc(&w->y, tile_px, scale_y) || w->gathered == NULL ||
        w->squeezed == NULL) {
        stamp_workspace_free(w);
        return NULL;
    }
    return w;
}

void stamp_workspace_free(stamp_workspace *w)
{
    if (w == NULL)
        return;
    free(w->gathered);
    free(w->squeezed);
    free(w->x.first);
    free(w->x.weight);
    free(w->y.first);
    free(w->y.weight);
    free(w);
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* Copy the rectangle at (left, top) of w x h pixels to out, white beyond the image; the worst status met. */
static int gather(const stamp_mosaic *m, int left, int top, int w, int h, uint8_t *out, size_t stride)
{
    int x0 = max_int(left, 0), y0 = max_int(top, 0);
    int x1 = min_int(left + w, m->image_w), y1 = min_int(top + h, m->image_h);
    int worst = STAMP_OK;

    if (x0 > left || y0 > top || x1 < left + w || y1 < top + h)
        for (int r = 0; r < h; r++)
            memset(out + (size_t)r * stride, 255, (size_t)w * 3);
    for (int row = y0 / m->tile_h; y0 < y1 && row * m->tile_h < y1; row++) {
        for (int column = x0 / m->tile_w; x0 < x1 && column * m->tile_w < x1; column++) {
            if (row >= m->rows || column >= m->columns)
                return STAMP_BAD_ARGUMENT;
            size_t cell = (size_t)row * (size_t)m->columns + (size_t)column;
            if (m->state[cell] != STAMP_OK || m->slot[cell] < 0) {
                worst = max_int(worst, m->state[cell] != STAMP_OK ? m->state[cell] : STAMP_BAD_ARGUMENT);
                continue;
            }
            int from_x = max_int(x0, column * m->tile_w), to_x = min_int(x1, (column + 1) * m->tile_w);
            int from_y = max_int(y0, row * m->tile_h), to_y = min_int(y1, (row + 1) * m->tile_h);
            const uint8_t *tile = m->pool + (size_t)m->slot[cell] * (size_t)m->tile_h * (size_t)m->tile_w * 3;
            for (int y = from_y; y < to_y; y++)
                memcpy(out + (size_t)(y - top) * stride + (size_t)(from_x - left) * 3,
                       tile + ((size_t)(y - row * m->tile_h) * (size_t)m->tile_w + (size_t)(from_x - column * m->tile_w)) * 3,
                       (size_t)(to_x - from_x) * 3);
        }
    }
    return worst;
}

int stamp_assemble(const stamp_mosaic *m, stamp_workspace *w, double x, double y, uint8_t *out)
{
    int left = (int)floor(x + 1e-6), top = (int)floor(y + 1e-6);
    double fraction_x = x - left > 1e-6 ? x - left : 0, fraction_y = y - top > 1e-6 ? y - top : 0;
    size_t out_stride = (size_t)w->tile_px * 3;

    if (fabs(w->scale_x - 1) < 1e-9 && fabs(w->scale_y - 1) < 1e-9 && fraction_x == 0 && fraction_y == 0)
        return gather(m, left, top, w->tile_px, w->tile_px, out, out_stride);

    int width = min_int((int)ceil(fraction_x + w->tile_px * w->scale_x - 1e-6), w->gather_w);
    int height = min_int((int)ceil(fraction_y + w->tile_px * w->scale_y - 1e-6), w->gather_h);
    size_t stride = (size_t)width * 3;
    int status = gather(m, left, top, width, height, w->gathered, stride);
    if (status != STAMP_OK)
        return status;
    stamp_axis_fill(&w->x, fraction_x, w->scale_x, width);
    stamp_axis_fill(&w->y, fraction_y, w->scale_y, height);
    stamp_resample(w->gathered, stride, height, &w->x, &w->y, w->squeezed, out, out_stride);
    return STAMP_OK;
}
