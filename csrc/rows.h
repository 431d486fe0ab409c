/* Row kernels: chroma upsampling, colour conversion, weighted sums. Each has a plain C form and, on x86, a SIMD one. */
#ifndef STAMP_ROWS_H
#define STAMP_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Rows of weighted sums hold 16-bit values in 1/128 of a grey level. */
typedef struct {
    const char *name;

    /* libjpeg's integer conversion of full-width Y, Cb, Cr to interleaved RGB, bit for bit. */
    void (*ycc_to_rgb)(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *rgb);

    /* Three rows of samples to interleaved pixels. */
    void (*interleave)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb);

    /* out[x] = sum of weight[k] * rows[k][x]; weights are in 1 / 65536 and sum to 1. */
    void (*sum_down)(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, int16_t *out);

    /* out[i] = sum of weight[i * taps + k] * row[first[i] + k]; weights are in 1 / 16384, taps is a multiple of 4. */
    void (*sum_across)(const int16_t *row, const int32_t *first, const int16_t *weight, int taps, int n, int16_t *out);

    /* Rows of sums to interleaved RGB. */
    void (*sums_to_rgb)(const int16_t *r, const int16_t *g, const int16_t *b, int n, uint8_t *rgb);
    void (*ycc_sums_to_rgb)(const int16_t *y, const int16_t *cb, const int16_t *cr, int n, uint8_t *rgb);
} stamp_kernels;

/* The best kernels for this machine, or the plain ones. */
const stamp_kernels *stamp_kernels_best(void);
const stamp_kernels *stamp_kernels_plain(void);

/*
 * libjpeg's "fancy" triangle upsampling, bit for bit. near and far are chroma rows of `width` samples: the one that the
 * output row lies in and its nearer neighbour (the same row twice where there is none). Writes the output pixels of
 * samples [from, to) to out[2 * (to - from)]; scratch holds width + 2 values.
 */
void stamp_upsample_420(const uint8_t *near, const uint8_t *far, int width, int from, int to, uint16_t *scratch,
                        uint8_t *out);
void stamp_upsample_422(const uint8_t *row, int width, int from, int to, uint16_t *scratch, uint8_t *out);

#endif
