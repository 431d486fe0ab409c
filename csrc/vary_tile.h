/* A tile on its way into a model that trains: crop, flips and quarter turns, stain jitter and normalisation in one pass. */
#ifndef STAMP_VARY_TILE_H
#define STAMP_VARY_TILE_H

#include <stddef.h>
#include <stdint.h>

/* What each value of each input channel adds to the output; the last of four is padding. */
typedef struct {
    float factor[3][256][4]; /* a pixel's outputs are the products over its three channels, ... */
    float top[4];            /* ... at most this (white), ... */
    float offset[4];         /* ... less this. */
} stamp_variation;

/*
 * No jitter: the output is (value / 255 - mean) / std.
 */
void stamp_variation_plain(const float *mean, const float *std, stamp_variation *v);

/*
 * Jitter: optical densities d = -log(max(value, 1) / 255) become mix * d + shift, mix being 3 x 3 by rows. As the
 * exponential of a sum is a product of exponentials, 768 of them serve all pixels.
 */
void stamp_variation_of(const float *mix, const float *shift, const float *mean, const float *std, stamp_variation *v);

/*
 * A square of `side` pixels of interleaved RGB to three planes. `pixels` is the source of the first output pixel; one to
 * the right lies `step_x` bytes on, one below `step_y` bytes: a turned tile is read the other way. `row` holds 4 * side.
 */
void stamp_vary_tile(const uint8_t *pixels, ptrdiff_t step_x, ptrdiff_t step_y, int side, const stamp_variation *v,
                     float *row, float *out);

#endif
