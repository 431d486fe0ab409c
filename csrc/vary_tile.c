#include "vary_tile.h"

#include <math.h>

static void limits(const float *mean, const float *std, stamp_variation *v)
{
    for (int k = 0; k < 4; k++) {
        v->top[k] = k < 3 ? 1.0f / std[k] : 0.0f;
        v->offset[k] = k < 3 ? mean[k] / std[k] : 0.0f;
    }
}

void stamp_variation_plain(const float *mean, const float *std, stamp_variation *v)
{
    limits(mean, std, v);
    for (int c = 0; c < 3; c++)
        for (int value = 0; value < 256; value++)
            for (int k = 0; k < 4; k++)
                v->factor[c][value][k] = k == c ? (float)value / 255.0f * v->top[k] : 1.0f;
}

void stamp_variation_of(const float *mix, const float *shift, const float *mean, const float *std, stamp_variation *v)
{
    limits(mean, std, v);
    for (int value = 0; value < 256; value++) {
        float density = -logf((float)(value ? value : 1) / 255.0f);
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < 4; k++) {
                float exponent = k < 3 ? -mix[3 * k + c] * density - (c ? 0.0f : shift[k]) : 0.0f;
                v->factor[c][value][k] = expf(exponent) * (c ? 1.0f : v->top[k]);
            }
    }
}

/* One row of outputs, interleaved by four. */
static void mix_row(const uint8_t *p, ptrdiff_t step, int side, const stamp_variation *v, float *restrict row)
{
    for (int x = 0; x < side; x++, p += step, row += 4) {
        const float *r = v->factor[0][p[0]], *g = v->factor[1][p[1]], *b = v->factor[2][p[2]];
        for (int k = 0; k < 4; k++) {
            float value = r[k] * g[k] * b[k];
            row[k] = (value < v->top[k] ? value : v->top[k]) - v->offset[k];
        }
    }
}

void stamp_vary_tile(const uint8_t *pixels, ptrdiff_t step_x, ptrdiff_t step_y, int side, const stamp_variation *v,
                     float *row, float *out)
{
    size_t plane = (size_t)side * side;
    for (int y = 0; y < side; y++) {
        mix_row(pixels + y * step_y, step_x, side, v, row);
        for (int k = 0; k < 3; k++) {
            float *restrict line = out + k * plane + (size_t)y * side;
            for (int x = 0; x < side; x++)
                line[x] = row[4 * x + k];
        }
    }
}
