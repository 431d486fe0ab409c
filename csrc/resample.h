/* Weights of area averaging along one axis. */
#ifndef STAMP_RESAMPLE_H
#define STAMP_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Output i is the sum over k < used[i] of weight[i * taps + k] * source[first[i] + k], in 1 / 65536. */
typedef struct {
    int count;       /* output pixels */
    int taps;        /* room for weights, an output pixel */
    int reach;       /* the most weights that one uses */
    int *used;       /* [count] */
    int32_t *first;  /* [count] */
    uint16_t *weight; /* [count * taps], zeros from used[i] on; 65535 stands for 1 */
    uint16_t *wide;  /* [count * taps * 8]: each weight eight times */
    double *share;   /* scratch */
    int shift;       /* 1: half-width chroma */
    double start;    /* what the axis was last filled for */
    int length;
} stamp_axis;

/* Room for `count` outputs at `scale` source pixels each, of the kind `shift` (see below); 0 without memory. */
int stamp_axis_alloc(stamp_axis *axis, int count, double scale, int shift);
void stamp_axis_free(stamp_axis *axis);

/*
 * Fill an axis: output pixel i covers the source interval [start + i * scale, start + (i + 1) * scale), and each source
 * pixel counts by the share of the interval that it covers. Intervals are clipped to [0, length).
 * With shift 1 the samples are chroma of half the width: sample c covers pixels 2c and 2c + 1, and a pixel is 3/4 its own
 * sample and 1/4 the nearer neighbour, as in libjpeg's upsampling; the two filters are folded into one.
 */
void stamp_axis_fill(stamp_axis *axis, double start, double scale, int length);

#endif
