/* Row kernels: chroma upsampling, colour conversion, weighted sums. Each has a plain C form and, on x86, SIMD ones. */
#ifndef STAMP_KERNELS_H
#define STAMP_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Weighted sums are 16-bit: down the rows in 1/256 of a grey level (unsigned), then across in 1/128 (signed). */
enum { STAMP_LINES = 16 }; /* rows that are summed across at once */

typedef struct {
    const char *name;

    /* libjpeg's integer conversion of full-width Y, Cb, Cr to interleaved RGB, bit for bit. */
    void (*ycc_to_rgb)(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *rgb);

    /* Three rows of samples to interleaved pixels. */
    void (*interleave)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb);

    /* out[x] = sum of weight[k] * rows[k][x]; weights are in 1 / 65536 and sum to 1. */
    void (*sum_down)(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, uint16_t *out);

    /*
     * For each of STAMP_LINES lines: out[i] = sum over k < reach of weight[i * taps + k] * line[first[i] + k]. Weights
     * are in 1 / 65536, and each stands there eight times. Lines are `stride` values apart and hold `width`, output rows
     * are n apart; scratch holds STAMP_LINES * (width + taps + 8) values.
     */
    void (*sum_across)(const uint16_t *lines, size_t stride, int width, const int32_t *first, const uint16_t *weight,
                       int taps, int reach, int n, uint16_t *scratch, int16_t *out);

    /*
     * libjpeg's "fancy" triangle upsampling, bit for bit: the output pixels of samples [from, to) of a chroma row of
     * `width` samples to out[2 * (to - from)]. near and far are the row that the output row lies in and its nearer
     * neighbour (the same row twice where there is none). scratch holds width + 2 values and 16 more.
     */
    void (*upsample_420)(const uint8_t *near, const uint8_t *far, int width, int from, int to, uint16_t *scratch,
                         uint8_t *out);
    void (*upsample_422)(const uint8_t *row, int width, int from, int to, uint16_t *scratch, uint8_t *out);

    /* Rows of sums to interleaved RGB. */
    void (*sums_to_rgb)(const int16_t *r, const int16_t *g, const int16_t *b, int n, uint8_t *rgb);
    void (*ycc_sums_to_rgb)(const int16_t *y, const int16_t *cb, const int16_t *cr, int n, uint8_t *rgb);
} stamp_kernels;

/* The best kernels for this machine, or the plain ones. */
const stamp_kernels *stamp_kernels_best(void);
const stamp_kernels *stamp_kernels_plain(void);

/* Every set that this machine can run, to compare: the plain one first, the best one last, then NULL. */
const stamp_kernels *stamp_kernels_at(int index);

#endif
