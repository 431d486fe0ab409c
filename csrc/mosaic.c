/* Colour conversion and resampling straight from the planes of decoded storage tiles into model tiles. */
#include "mosaic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "resample.h"

typedef struct {
    int left, top, width, height;
} rectangle;

struct stamp_workspace {
    const stamp_kernels *kernels;
    int tile_px, exact;
    double scale_x, scale_y;
    rectangle largest; /* that a tile can need */
    uint16_t *chroma_sums;
    uint8_t *chroma[2]; /* one row, upsampled */
    size_t line;        /* values from line to line */
    uint16_t *lines;    /* [STAMP_LINES] rows summed down, as wide as the largest rectangle */
    uint16_t *columns;  /* the same, transposed */
    int16_t *sums[3];   /* [STAMP_LINES] rows of the model tile */
    const uint8_t **rows;
    uint8_t *converted; /* rectangle as RGB planes; made when it is first needed */
    uint8_t *rgb_row;
    stamp_axis x[2][2], y[2][2]; /* [of half-size chroma][starting on an odd pixel] */
};

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

stamp_workspace *stamp_workspace_new(const stamp_kernels *kernels, stamp_geometry geometry, int tile_px, double scale_x,
                                     double scale_y, int exact)
{
    stamp_workspace *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->kernels = kernels;
    w->tile_px = tile_px;
    w->exact = exact;
    w->scale_x = scale_x;
    w->scale_y = scale_y;
    w->largest.width = (int)ceil(tile_px * scale_x) + 2;
    w->largest.height = (int)ceil(tile_px * scale_y) + 2;
    size_t cell = (size_t)geometry.width + 64;
    w->chroma_sums = malloc(sizeof *w->chroma_sums * cell);
    w->chroma[0] = malloc(cell);
    w->chroma[1] = malloc(cell);
    int ok = w->chroma_sums != NULL && w->chroma[0] != NULL && w->chroma[1] != NULL;
    for (int c = 0; c < 3; c++) {
        w->sums[c] = malloc(sizeof *w->sums[c] * (size_t)tile_px * STAMP_LINES);
        ok = ok && w->sums[c] != NULL;
    }
    for (int i = 0; i < 4; i++) {
        ok = stamp_axis_alloc(&w->x[i / 2][i % 2], tile_px, scale_x, i / 2) && ok;
        ok = stamp_axis_alloc(&w->y[i / 2][i % 2], tile_px, scale_y, i / 2) && ok;
    }
    w->line = ((size_t)w->largest.width + (size_t)max_int(w->x[0][0].taps, w->x[1][0].taps) + 23) / 8 * 8;
    w->lines = calloc(w->line * STAMP_LINES, sizeof *w->lines);
    w->columns = calloc(w->line * STAMP_LINES, sizeof *w->columns);
    w->rows = malloc(sizeof *w->rows * (size_t)max_int(w->y[0][0].taps, w->y[1][0].taps));
    if (!ok || w->lines == NULL || w->columns == NULL || w->rows == NULL) {
        stamp_workspace_free(w);
        return NULL;
    }
    return w;
}

void stamp_workspace_free(stamp_workspace *w)
{
    if (w == NULL)
        return;
    free(w->chroma_sums);
    free(w->chroma[0]);
    free(w->chroma[1]);
    free(w->lines);
    free(w->columns);
    for (int c = 0; c < 3; c++)
        free(w->sums[c]);
    for (int i = 0; i < 4; i++) {
        stamp_axis_free(&w->x[i / 2][i % 2]);
        stamp_axis_free(&w->y[i / 2][i % 2]);
    }
    free(w->rows);
    free(w->converted);
    free(w->rgb_row);
    free(w);
}

static size_t cell_at(const stamp_mosaic *m, int x, int y)
{
    return (size_t)(y / m->geometry.height) * (size_t)m->columns + (size_t)(x / m->geometry.width);
}

static const uint8_t *slot_of(const stamp_mosaic *m, size_t cell)
{
    return m->pool + (size_t)m->slot[cell] * m->geometry.slot;
}

/* The part of a rectangle that lies in the image. */
static rectangle inside(const stamp_mosaic *m, rectangle r)
{
    int x0 = max_int(r.left, 0), y0 = max_int(r.top, 0);
    int x1 = min_int(r.left + r.width, m->image_w), y1 = min_int(r.top + r.height, m->image_h);
    rectangle part = {x0, y0, max_int(x1 - x0, 0), max_int(y1 - y0, 0)};
    return part;
}

/* The worst status of the storage tiles under a part of the image, background counting as decoded; *layout is theirs, or
 * -1 where they differ or are not all decoded. */
static int look(const stamp_mosaic *m, rectangle part, int *layout)
{
    int worst = STAMP_OK;
    *layout = -2;
    if (part.width == 0 || part.height == 0)
        return STAMP_OK;
    int last_column = (part.left + part.width - 1) / m->geometry.width;
    int last_row = (part.top + part.height - 1) / m->geometry.height;
    if (last_column >= m->columns || last_row >= m->rows)
        return STAMP_BAD_ARGUMENT;
    for (int row = part.top / m->geometry.height; row <= last_row; row++)
        for (int column = part.left / m->geometry.width; column <= last_column; column++) {
            size_t cell = (size_t)row * (size_t)m->columns + (size_t)column;
            int status = m->state[cell];
            if (status == STAMP_BACKGROUND) {
                *layout = -1;
                continue;
            }
            if (status == STAMP_OK && (m->slot[cell] < 0 || m->slot[cell] >= m->slots))
                status = STAMP_BAD_ARGUMENT;
            worst = max_int(worst, status);
            *layout = *layout == -2 || *layout == m->layout[cell] ? m->layout[cell] : -1;
        }
    return worst;
}

/* Pixels [x0, x1) of row y of a storage tile to interleaved RGB, as libjpeg would give them. */
static void convert_row(const stamp_mosaic *m, const stamp_workspace *w, size_t cell, int y, int x0, int x1, uint8_t *out)
{
    const stamp_geometry *g = &m->geometry;
    const uint8_t *slot = slot_of(m, cell), *row = slot + (size_t)y * g->stride;
    const uint8_t *planes[2] = {slot + g->plane, slot + 2 * g->plane};
    const uint8_t *full[2];
    int layout = m->layout[cell];

    if (layout == STAMP_PLANES_RGB || layout == STAMP_PLANES_444) {
        size_t at = (size_t)y * g->stride + (size_t)x0;
        (layout == STAMP_PLANES_RGB ? w->kernels->interleave : w->kernels->ycc_to_rgb)(
            row + x0, planes[0] + at, planes[1] + at, x1 - x0, out);
        return;
    }
    int samples = (g->width + 1) / 2, from = x0 / 2, to = (x1 + 1) / 2;
    for (int c = 0; c < 2; c++) {
        if (layout == STAMP_PLANES_422) {
            w->kernels->upsample_422(planes[c] + (size_t)y * g->stride, samples, from, to, w->chroma_sums,
                                     w->chroma[c]);
        } else {
            int near = y / 2, far = y & 1 ? min_int(near + 1, (g->height + 1) / 2 - 1) : max_int(near - 1, 0);
            w->kernels->upsample_420(planes[c] + (size_t)near * g->stride, planes[c] + (size_t)far * g->stride, samples,
                                     from, to, w->chroma_sums, w->chroma[c]);
        }
        full[c] = w->chroma[c] + (x0 - 2 * from);
    }
    w->kernels->ycc_to_rgb(row + x0, full[0], full[1], x1 - x0, out);
}

/* Row y of the image, pixels [x0, x1), to interleaved RGB; background is white. */
static void convert_span(const stamp_mosaic *m, const stamp_workspace *w, int y, int x0, int x1, uint8_t *out)
{
    for (int x = x0; x < x1;) {
        int start = x / m->geometry.width * m->geometry.width, stop = min_int(x1, start + m->geometry.width);
        size_t cell = cell_at(m, x, y);
        if (m->state[cell] == STAMP_BACKGROUND)
            memset(out, 255, (size_t)(stop - x) * 3);
        else
            convert_row(m, w, cell, y % m->geometry.height, x - start, stop - start, out);
        out += (size_t)(stop - x) * 3;
        x = stop;
    }
}

/* A rectangle of the image as it is, white beyond. */
static void copy_rectangle(const stamp_mosaic *m, const stamp_workspace *w, rectangle r, rectangle part, uint8_t *out)
{
    size_t stride = (size_t)r.width * 3;
    if (part.width < r.width || part.height < r.height)
        memset(out, 255, stride * (size_t)r.height);
    for (int y = part.top; y < part.top + part.height; y++)
        convert_span(m, w, y, part.left, part.left + part.width,
                     out + (size_t)(y - r.top) * stride + (size_t)(part.left - r.left) * 3);
}

/* Lines summed down, of plane c, to sums of the model tile's pixels. */
static void sum_across(const stamp_workspace *w, const stamp_axis *axis, int width, int c)
{
    w->kernels->sum_across(w->lines, w->line, width, axis->first, axis->wide, axis->taps, axis->reach, w->tile_px,
                           w->columns, w->sums[c]);
}

/* Sums of three planes to `count` rows of the model tile. */
static void finish_rows(const stamp_workspace *w, int is_rgb, int count, uint8_t *out)
{
    size_t row = (size_t)w->tile_px;
    for (size_t i = 0; i < (size_t)count; i++)
        (is_rgb ? w->kernels->sums_to_rgb : w->kernels->ycc_sums_to_rgb)(
            w->sums[0] + i * row, w->sums[1] + i * row, w->sums[2] + i * row, w->tile_px, out + i * row * 3);
}

/* Convert the rectangle, white beyond the image, to planes of RGB, then average. */
static int resample_converted(const stamp_mosaic *m, stamp_workspace *w, const stamp_axis *ax, const stamp_axis *ay,
                              rectangle r, rectangle part, uint8_t *out)
{
    size_t stride = (size_t)w->largest.width + 16, plane = stride * (size_t)w->largest.height;
    if (w->converted == NULL) {
        w->converted = malloc(3 * plane + 16);
        w->rgb_row = malloc((size_t)w->largest.width * 3 + 64);
        if (w->converted == NULL || w->rgb_row == NULL)
            return STAMP_NO_MEMORY;
    }
    memset(w->rgb_row, 255, (size_t)r.width * 3);
    for (int y = r.top; y < r.top + r.height; y++) {
        uint8_t *row = w->converted + (size_t)(y - r.top) * stride;
        int present = y >= part.top && y < part.top + part.height;
        if (present && part.width > 0)
            convert_span(m, w, y, part.left, part.left + part.width, w->rgb_row + (size_t)(part.left - r.left) * 3);
        for (int c = 0; c < 3; c++)
            if (present)
                for (int x = 0; x < r.width; x++)
                    row[(size_t)c * plane + (size_t)x] = w->rgb_row[3 * x + c];
            else
                memset(row + (size_t)c * plane, 255, (size_t)r.width);
    }
    for (int top = 0; top < w->tile_px; top += STAMP_LINES, out += (size_t)w->tile_px * 3 * STAMP_LINES) {
        int count = min_int(STAMP_LINES, w->tile_px - top);
        for (int c = 0; c < 3; c++) {
            for (int i = top; i < top + count; i++) {
                for (int k = 0; k < ay->used[i]; k++)
                    w->rows[k] = w->converted + (size_t)c * plane + (size_t)(ay->first[i] + k) * stride;
                w->kernels->sum_down(w->rows, ay->weight + (size_t)i * (size_t)ay->taps, ay->used[i], r.width,
                                     w->lines + (size_t)(i - top) * w->line);
            }
            sum_across(w, ax, r.width, c);
        }
        finish_rows(w, 1, count, out);
    }
    return STAMP_OK;
}

/* Rows that are asked for so long before they are summed: decoded tiles lie in the outer caches. */
enum { STAMP_ROWS_AHEAD = 10 };

/* The address may lie beyond the pool: nothing is read. */
static void prefetch_row(uintptr_t row, int n)
{
    for (int x = 0; x < n; x += 64)
        __builtin_prefetch((const void *)(row + (size_t)x), 0, 3);
}

/*
 * Rows [first, first + count) of plane c summed down into the lines: piece by piece, a piece being the width of a
 * storage tile, so that each is read from top to bottom in one go.
 */
static void sum_down_planes(const stamp_mosaic *m, const stamp_workspace *w, const stamp_axis *ay, int first, int count,
                            int c, int shift_x, int shift_y, int top, int left, int right)
{
    int cell_w = m->geometry.width >> shift_x, cell_h = m->geometry.height >> shift_y;
    size_t stride = m->geometry.stride;
    int column = left / cell_w;
    for (int x = left, start = column * cell_w; x < right; column++, start += cell_w) {
        int stop = min_int(right, start + cell_w), row = (top + ay->first[first]) / cell_h;
        const uint8_t *plane = NULL;
        for (int i = first; i < first + count; i++) {
            int y = top + ay->first[i] - row * cell_h, used = ay->used[i];
            for (; y >= cell_h; y -= cell_h, row++)
                plane = NULL;
            int r = row;
            const uint8_t *p = plane;
            for (int k = 0; k < used; k++, y++) {
                if (y == cell_h) {
                    y = 0;
                    r++;
                    p = NULL;
                }
                if (p == NULL)
                    p = slot_of(m, (size_t)r * (size_t)m->columns + (size_t)column) +
                        (size_t)c * m->geometry.plane + (size_t)(x - start);
                if (r == row)
                    plane = p;
                w->rows[k] = p + (size_t)y * stride;
            }
            for (int k = 0; k < used - 1; k++)
                prefetch_row((uintptr_t)w->rows[used - 1] + (size_t)(STAMP_ROWS_AHEAD + k) * stride, stop - x);
            w->kernels->sum_down(w->rows, ay->weight + (size_t)i * (size_t)ay->taps, used, stop - x,
                                 w->lines + (size_t)(i - first) * w->line + (x - left));
        }
        x = stop;
    }
}

/* Average the planes as they are coded, and convert the averages: a quarter of the work, or less. */
static void resample_planes(const stamp_mosaic *m, stamp_workspace *w, stamp_axis *const *across, stamp_axis *const *down,
                            rectangle r, int layout, uint8_t *out)
{
    for (int first = 0; first < w->tile_px; first += STAMP_LINES, out += (size_t)w->tile_px * 3 * STAMP_LINES) {
        int count = min_int(STAMP_LINES, w->tile_px - first);
        for (int c = 0; c < 3; c++) {
            int sx = c > 0 ? stamp_chroma_shift_x(layout) : 0, sy = c > 0 ? stamp_chroma_shift_y(layout) : 0;
            int left = r.left >> sx, right = (r.left + r.width + sx) >> sx;
            sum_down_planes(m, w, down[sy], first, count, c, sx, sy, r.top >> sy, left, right);
            sum_across(w, across[sx], right - left, c);
        }
        finish_rows(w, layout == STAMP_PLANES_RGB, count, out);
    }
}

int stamp_assemble(const stamp_mosaic *m, stamp_workspace *w, double x, double y, uint8_t *out)
{
    int left = (int)floor(x + 1e-6), top = (int)floor(y + 1e-6), layout;
    double fraction_x = x - left > 1e-6 ? x - left : 0, fraction_y = y - top > 1e-6 ? y - top : 0;
    int as_is = fabs(w->scale_x - 1) < 1e-9 && fabs(w->scale_y - 1) < 1e-9 && fraction_x == 0 && fraction_y == 0;
    rectangle r = {left, top, w->tile_px, w->tile_px};

    if (!as_is) {
        r.width = min_int((int)ceil(fraction_x + w->tile_px * w->scale_x - 1e-6), w->largest.width);
        r.height = min_int((int)ceil(fraction_y + w->tile_px * w->scale_y - 1e-6), w->largest.height);
    }
    rectangle part = inside(m, r);
    int status = look(m, part, &layout);
    if (status != STAMP_OK)
        return status;
    if (as_is) {
        copy_rectangle(m, w, r, part, out);
        return STAMP_OK;
    }
    int sx = layout >= 0 ? stamp_chroma_shift_x(layout) : 0, sy = layout >= 0 ? stamp_chroma_shift_y(layout) : 0;
    /* the planes serve where the rectangle lies in the image and chroma samples do not cross storage tiles */
    int whole = part.width == r.width && part.height == r.height;
    if (w->exact || layout < 0 || !whole || (m->geometry.width & sx) || (m->geometry.height & sy)) {
        stamp_axis_fill(&w->x[0][0], fraction_x, w->scale_x, r.width);
        stamp_axis_fill(&w->y[0][0], fraction_y, w->scale_y, r.height);
        return resample_converted(m, w, &w->x[0][0], &w->y[0][0], r, part, out);
    }
    /* start on a whole chroma sample: one pixel earlier, in a storage tile that has been looked at, since all are even */
    int odd_x = sx & left, odd_y = sy & top;
    r.left -= odd_x;
    r.top -= odd_y;
    r.width = min_int(r.width + odd_x, w->largest.width);
    r.height = min_int(r.height + odd_y, w->largest.height);
    fraction_x += odd_x;
    fraction_y += odd_y;
    stamp_axis *across[2] = {&w->x[0][odd_x], &w->x[1][odd_x]}, *down[2] = {&w->y[0][odd_y], &w->y[1][odd_y]};
    for (int shift = 0; shift <= sx; shift++)
        stamp_axis_fill(across[shift], fraction_x, w->scale_x, r.width);
    for (int shift = 0; shift <= sy; shift++)
        stamp_axis_fill(down[shift], fraction_y, w->scale_y, r.height);
    resample_planes(m, w, across, down, r, layout, out);
    return STAMP_OK;
}
