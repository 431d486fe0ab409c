/* Area averaging, separable, in fixed point: exact for integer factors up to the final rounding. */
#include "resample.h"

#include <math.h>
#include <string.h>

int stamp_axis_taps(double scale)
{
    return (int)ceil(scale) + 2;
}

void stamp_axis_fill(stamp_axis *axis, double start, double scale, int length)
{
    for (int i = 0; i < axis->count; i++) {
        double low = start + i * scale, high = low + scale;
        if (low < 0)
            low = 0;
        if (high > length)
            high = length;
        if (high <= low) { /* beyond the source: its last pixel */
            low = length - 1;
            high = length;
        }
        int first = (int)floor(low + 1e-9);
        if (first > length - 1)
            first = length - 1;
        axis->first[i] = first;
        int16_t *weight = axis->weight + (size_t)i * axis->taps;
        int total = 0, largest = 0;
        for (int k = 0; k < axis->taps; k++) {
            double from = first + k > low ? first + k : low;
            double to = first + k + 1 < high ? first + k + 1 : high;
            double share = first + k < length && to > from ? (to - from) / (high - low) : 0;
            weight[k] = (int16_t)lrint(share * STAMP_ONE);
            total += weight[k];
            if (weight[k] > weight[largest])
                largest = k;
        }
        weight[largest] = (int16_t)(weight[largest] + STAMP_ONE - total);
        /* zeros only at the end, so that the loops below can stop at the first one */
        int lead = 0;
        while (weight[lead] == 0)
            lead++;
        if (lead > 0) {
            memmove(weight, weight + lead, sizeof *weight * (size_t)(axis->taps - lead));
            memset(weight + axis->taps - lead, 0, sizeof *weight * (size_t)lead);
            axis->first[i] += lead;
        }
    }
}

/* One source row to x->count pixels of 3 channels, in 1/64 of a grey level. */
static void squeeze_row(const uint8_t *source, const stamp_axis *x, uint16_t *out)
{
    for (int i = 0; i < x->count; i++) {
        const int16_t *weight = x->weight + (size_t)i * x->taps;
        const uint8_t *pixel = source + (size_t)x->first[i] * 3;
        int32_t r = 128, g = 128, b = 128;
        for (int k = 0; k < x->taps; k++, pixel += 3) {
            int32_t w = weight[k];
            if (w == 0)
                break;
            r += w * pixel[0];
            g += w * pixel[1];
            b += w * pixel[2];
        }
        out[3 * i] = (uint16_t)(r >> 8);
        out[3 * i + 1] = (uint16_t)(g >> 8);
        out[3 * i + 2] = (uint16_t)(b >> 8);
    }
}

void stamp_resample(const uint8_t *source, size_t stride, int rows, const stamp_axis *x, const stamp_axis *y,
                    uint16_t *scratch, uint8_t *out, size_t out_stride)
{
    int width = x->count * 3;
    for (int r = 0; r < rows; r++)
        squeeze_row(source + (size_t)r * stride, x, scratch + (size_t)r * width);
    for (int i = 0; i < y->count; i++) {
        const int16_t *weight = y->weight + (size_t)i * y->taps;
        const uint16_t *column = scratch + (size_t)y->first[i] * width;
        uint8_t *row = out + (size_t)i * out_stride;
        int used = 0;
        while (used < y->taps && weight[used] != 0)
            used++;
        for (int c = 0; c < width; c++) {
            int32_t sum = 1 << 19;
            for (int k = 0; k < used; k++)
                sum += weight[k] * (int32_t)column[(size_t)k * width + c];
            row[c] = (uint8_t)(sum >> 20);
        }
    }
}
