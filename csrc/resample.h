/* Area averaging of a gathered rectangle into a model tile. */
#ifndef STAMP_RESAMPLE_H
#define STAMP_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Weights of one axis: output i is the sum of weight[i * taps + k] * source[first[i] + k], in 1 / 16384. */
typedef struct {
    int count;       /* output pixels */
    int taps;        /* weights an output pixel, padded with zeros */
    int32_t *first;  /* [count] */
    int16_t *weight; /* [count * taps], each row sums to 16384 */
} stamp_axis;

#define STAMP_ONE 16384

/* Taps that an axis of this scale needs. */
int stamp_axis_taps(double scale);

/*
 * Fill an axis: output pixel i covers the source interval [start + i * scale, start + (i + 1) * scale), and each
 * source pixel counts by the share of the interval that it covers. Intervals are clipped to [0, length).
 */
void stamp_axis_fill(stamp_axis *axis, double start, double scale, int length);

/* out[h][w][3] from source[rows][cols][3]; scratch holds (rows used) * x.count * 3 int16 values. */
void stamp_resample(const uint8_t *source, size_t stride, int rows, const stamp_axis *x, const stamp_axis *y,
                    uint16_t *scratch, uint8_t *out, size_t out_stride);

#endif
