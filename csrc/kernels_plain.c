/* Row kernels in plain C. */
#include "kernels.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pairs of pixels are stored as little-endian words");

static uint8_t clamp(int value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *rgb)
{
    for (int i = 0; i < n; i++) {
        int b = cb[i] - 128, r = cr[i] - 128;
        rgb[3 * i] = clamp(y[i] + ((91881 * r + 32768) >> 16));
        rgb[3 * i + 1] = clamp(y[i] + ((-22554 * b - 46802 * r + 32768) >> 16));
        rgb[3 * i + 2] = clamp(y[i] + ((116130 * b + 32768) >> 16));
    }
}

static void interleave(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb)
{
    for (int i = 0; i < n; i++) {
        rgb[3 * i] = r[i];
        rgb[3 * i + 1] = g[i];
        rgb[3 * i + 2] = b[i];
    }
}

static void sum_down(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    for (int x = 0; x < n; x++) {
        uint32_t sum = (uint32_t)taps / 2;
        for (int k = 0; k < taps; k++)
            sum += ((uint32_t)rows[k][x] << 8) * weight[k] >> 16;
        out[x] = (uint16_t)sum;
    }
}

static void sum_across(const uint16_t *lines, size_t stride, int width, const int32_t *first, const uint16_t *weight,
                       int taps, int reach, int n, uint16_t *scratch, int16_t *out)
{
    (void)width;
    (void)scratch;
    for (int line = 0; line < STAMP_LINES; line++, lines += stride, out += n)
        for (int i = 0; i < n; i++) {
            uint32_t sum = (uint32_t)reach / 2;
            for (int k = 0; k < reach; k++)
                sum += (uint32_t)lines[first[i] + k] * weight[8 * ((size_t)i * (size_t)taps + (size_t)k)] >> 16;
            out[i] = (int16_t)(sum >> 1);
        }
}

static void sums_to_rgb(const int16_t *r, const int16_t *g, const int16_t *b, int n, uint8_t *rgb)
{
    for (int i = 0; i < n; i++) {
        rgb[3 * i] = clamp((r[i] + 64) >> 7);
        rgb[3 * i + 1] = clamp((g[i] + 64) >> 7);
        rgb[3 * i + 2] = clamp((b[i] + 64) >> 7);
    }
}

static void ycc_sums_to_rgb(const int16_t *y, const int16_t *cb, const int16_t *cr, int n, uint8_t *rgb)
{
    for (int i = 0; i < n; i++) {
        int b = cb[i] - 16384, r = cr[i] - 16384;
        rgb[3 * i] = clamp((y[i] + r + (26345 * r >> 16) + 64) >> 7);
        rgb[3 * i + 1] = clamp((y[i] - r + (-22554 * b >> 16) + (18734 * r >> 16) + 64) >> 7);
        rgb[3 * i + 2] = clamp((y[i] + 2 * b + (-14942 * b >> 16) + 64) >> 7);
    }
}

/* sums[i + 1] of sample i, for samples from - 1 to to, the outermost repeated at the ends of the row */
static void pad_ends(uint16_t *sums, int width, int from, int to)
{
    if (from == 0)
        sums[0] = sums[1];
    if (to == width)
        sums[to + 1] = sums[to];
}

static void upsample_420(const uint8_t *near, const uint8_t *far, int width, int from, int to, uint16_t *scratch,
                        uint8_t *out)
{
    int low = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (int i = low; i < high; i++)
        scratch[i + 1] = (uint16_t)(3 * near[i] + far[i]);
    pad_ends(scratch, width, from, to);
    const uint16_t *sum = scratch + from + 1;
    for (int i = 0; i < to - from; i++) {
        uint16_t even = (uint16_t)((3 * sum[i] + sum[i - 1] + 8) >> 4);
        uint16_t odd = (uint16_t)((3 * sum[i] + sum[i + 1] + 7) >> 4);
        uint16_t pair = (uint16_t)(even | odd << 8);
        memcpy(out + 2 * i, &pair, 2);
    }
}

static void upsample_422(const uint8_t *row, int width, int from, int to, uint16_t *scratch, uint8_t *out)
{
    int low = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (int i = low; i < high; i++)
        scratch[i + 1] = row[i];
    pad_ends(scratch, width, from, to);
    const uint16_t *sum = scratch + from + 1;
    for (int i = 0; i < to - from; i++) {
        uint16_t even = (uint16_t)((3 * sum[i] + sum[i - 1] + 1) >> 2);
        uint16_t odd = (uint16_t)((3 * sum[i] + sum[i + 1] + 2) >> 2);
        uint16_t pair = (uint16_t)(even | odd << 8);
        memcpy(out + 2 * i, &pair, 2);
    }
}

static const stamp_kernels plain = {
    "plain C", ycc_to_rgb, interleave, sum_down, sum_across, upsample_420, upsample_422, sums_to_rgb, ycc_sums_to_rgb,
};

const stamp_kernels *stamp_kernels_plain(void)
{
    return &plain;
}
