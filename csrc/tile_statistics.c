#include "tile_statistics.h"

#include <math.h>
#include <stddef.h>

static inline int max3(int a, int b, int c)
{
    int m = a > b ? a : b;
    return m > c ? m : c;
}

static inline int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* The core hues of tissue/ink.py: green or blue ink has green far above red, red ink as much blue as green. */
static inline int is_ink(int r, int g, int b, float saturation)
{
    int span = r - g, lean = b - g;
    int cool = g > r + 16 && (g > b - 25 || b > r + 25) && saturation > 0.25f;
    int warm = saturation > 0.45f && r > 110 && 5 * span > 2 * r && 25 * (lean < 0 ? -lean : lean) < 3 * span;
    return cool || warm;
}

static void colour(const uint8_t *tile, int side, const float *density, const float *unmix, double *out)
{
    int step = (side + STAMP_LATTICE_SIDE - 1) / STAMP_LATTICE_SIDE;
    int count = 0, ink = 0, black = 0, coloured = 0, green_least = 0;
    double sum[3] = {0}, square[3] = {0}, saturations = 0, brightest = 0;
    for (int y = step / 2; y < side; y += step) {
        const uint8_t *p = tile + 3 * ((size_t)y * side + step / 2);
        float rows[3] = {0}, squares[3] = {0}, row_saturation = 0;
        int row_brightest = 0;
        for (int x = step / 2; x < side; x += step, p += 3 * step) {
            int r = p[0], g = p[1], b = p[2], top = max3(r, g, b), low = min3(r, g, b);
            float dr = density[r], dg = density[g], db = density[b];
            float saturation = top ? (float)(top - low) / (float)top : 0.0f;
            for (int k = 0; k < 3; k++) {
                float stain = dr * unmix[k] + dg * unmix[3 + k] + db * unmix[6 + k];
                rows[k] += stain;
                squares[k] += stain * stain;
            }
            row_saturation += saturation;
            row_brightest += top;
            ink += is_ink(r, g, b, saturation);
            black += top < 90 && saturation < 0.25f;
            if (top - low >= STAMP_COLOUR_LEVELS) {
                coloured++;
                green_least += g == low;
            }
            count++;
        }
        for (int k = 0; k < 3; k++) {
            sum[k] += rows[k];
            square[k] += squares[k];
        }
        saturations += row_saturation;
        brightest += row_brightest;
    }
    for (int k = 0; k < 3; k++) {
        double mean = sum[k] / count, variance = square[k] / count - mean * mean;
        out[2 * k] = mean;
        out[2 * k + 1] = sqrt(variance > 0 ? variance : 0);
    }
    out[STAMP_SATURATION] = saturations / count;
    out[STAMP_BRIGHTEST] = brightest / (255.0 * count);
    out[STAMP_INK] = (double)ink / count;
    out[STAMP_BLACK] = (double)black / count;
    out[STAMP_COLOURED] = (double)coloured / count;
    out[STAMP_HE_HUE] = coloured ? (double)green_least / coloured : 1.0;
}

/* Grey levels times 16, of `length` pixels: fine enough for a blurred tile, and squares of them fit 32 bits. */
static void grey_row(const uint8_t *p, int length, int32_t *grey)
{
    for (int x = 0; x < length; x++)
        grey[x] = (77 * p[3 * x] + 150 * p[3 * x + 1] + 29 * p[3 * x + 2] + 8) >> 4;
}

static void focus(const uint8_t *tile, int side, double *out)
{
    int length = side < STAMP_FOCUS_SIDE + 2 ? side : STAMP_FOCUS_SIDE + 2, first = (side - length) / 2;
    int32_t buffer[3][STAMP_FOCUS_SIDE + 2], *above = buffer[0], *here = buffer[1], *below = buffer[2];
    int64_t sum = 0, square = 0, energy = 0;
    const uint8_t *start = tile + 3 * ((size_t)first * side + first);
    grey_row(start, length, above);
    grey_row(start + 3 * (size_t)side, length, here);
    for (int y = 1; y < length - 1; y++) {
        grey_row(start + 3 * (size_t)side * (y + 1), length, below);
        int32_t row_sum = 0;
        for (int x = 1; x < length - 1; x++) {
            int32_t laplacian = above[x] + below[x] + here[x - 1] + here[x + 1] - 4 * here[x];
            int32_t across = here[x + 1] - here[x - 1], down = below[x] - above[x];
            row_sum += laplacian;
            square += (uint32_t)(laplacian * laplacian);
            energy += (uint32_t)(across * across + down * down);
        }
        sum += row_sum;
        int32_t *old = above;
        above = here, here = below, below = old;
    }
    double count = (double)(length - 2) * (length - 2), mean = (double)sum / count;
    out[STAMP_LAPLACIAN] = ((double)square / count - mean * mean) / 256.0;
    out[STAMP_GRADIENT] = (double)energy / count / 4.0 / 256.0;
}

void stamp_tile_statistics(const uint8_t *tile, int side, const float *density, const float *unmix, double *out)
{
    colour(tile, side, density, unmix, out);
    focus(tile, side, out);
}
