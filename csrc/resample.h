/* Weights of area averaging along one axis. */
#ifndef STAMP_RESAMPLE_H
#define STAMP_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Output i is the sum of weight[i * taps + k] * source[first[i] + k], in 1 / 16384. */
typedef struct {
    int count;        /* output pixels */
    int taps;         /* weights an output pixel, a multiple of 4, padded with zeros */
    int *used;        /* [count]: weights that are not padding */
    int32_t *first;   /* [count] */
    int16_t *weight;  /* [count * taps], each row sums to 16384 */
    uint16_t *coarse; /* [count * taps]: the same in 1 / 65536, at most 65535 */
    double *share;    /* [taps]: scratch */
    double start;     /* what the axis was last filled for */
    int length, shift;
} stamp_axis;

#define STAMP_ONE 16384

/* Room for `count` outputs at `scale` source pixels each; 0 without memory. */
int stamp_axis_alloc(stamp_axis *axis, int count, double scale);
void stamp_axis_free(stamp_axis *axis);

/*
 * Fill an axis: output pixel i covers the source interval [start + i * scale, start + (i + 1) * scale), and each source
 * pixel counts by the share of the interval that it covers. Intervals are clipped to [0, length).
 * With shift 1 the samples are chroma of half the width: sample c covers pixels 2c and 2c + 1, and a pixel is 3/4 its own
 * sample and 1/4 the nearer neighbour, as in libjpeg's upsampling; the two filters are folded into one.
 */
void stamp_axis_fill(stamp_axis *axis, double start, double scale, int length, int shift);

#endif
