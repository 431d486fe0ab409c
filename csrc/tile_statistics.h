/* Stain, focus and saturation of one model tile: what trust/statistics.py judges a slide by. */
#ifndef STAMP_TILE_STATISTICS_H
#define STAMP_TILE_STATISTICS_H

#include <stdint.h>

/* Colours are taken on a lattice of at most so many pixels a side, focus on a square of so many in the middle. */
#define STAMP_LATTICE_SIDE 80
#define STAMP_FOCUS_SIDE 112

#define STAMP_COLOUR_LEVELS 16

enum stamp_statistic {
    STAMP_STAIN_MEAN_0, STAMP_STAIN_SD_0, STAMP_STAIN_MEAN_1, STAMP_STAIN_SD_1, STAMP_STAIN_MEAN_2, STAMP_STAIN_SD_2,
    STAMP_LAPLACIAN,  /* variance of the Laplacian, grey levels squared */
    STAMP_GRADIENT,   /* mean squared gradient by central differences, grey levels squared */
    STAMP_SATURATION, /* mean of (max - min) / max over R, G, B */
    STAMP_BRIGHTEST,  /* mean of max / 255 */
    STAMP_INK,        /* share of pixels of a hue that marker ink has and stained tissue has not */
    STAMP_BLACK,      /* share of pixels that are dark and grey */
    STAMP_COLOURED,   /* share of pixels with max - min of STAMP_COLOUR_LEVELS or more */
    STAMP_HE_HUE,     /* share of those whose least channel is green, as stained with haematoxylin and eosin; 1 without */
    STAMP_STATISTICS
};

/*
 * `tile` is RGB, interleaved, side x side, side of 3 or more. `density` gives the optical density of each 8-bit value;
 * stain k of a pixel is the sum over its channels c of density[value] * unmix[3 * c + k].
 */
void stamp_tile_statistics(const uint8_t *tile, int side, const float *density, const float *unmix, double *out);

#endif
