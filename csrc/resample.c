/* Area averaging, separable, in fixed point: exact for integer factors up to the final rounding. */
#include "resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int stamp_axis_alloc(stamp_axis *axis, int count, double scale, int shift)
{
    int pixels = (int)ceil(scale) + 1, taps = shift ? pixels / 2 + 3 : pixels;
    memset(axis, 0, sizeof *axis);
    axis->count = count;
    axis->shift = shift;
    axis->taps = taps;
    size_t weights = (size_t)count * (size_t)axis->taps;
    axis->used = malloc(sizeof *axis->used * (size_t)count);
    axis->first = malloc(sizeof *axis->first * (size_t)count);
    axis->weight = malloc(sizeof *axis->weight * weights);
    axis->wide = malloc(sizeof *axis->wide * weights * 8);
    axis->share = malloc(sizeof *axis->share * ((size_t)pixels + 8));
    axis->length = -1;
    return axis->used != NULL && axis->first != NULL && axis->weight != NULL && axis->wide != NULL &&
           axis->share != NULL;
}

void stamp_axis_free(stamp_axis *axis)
{
    free(axis->used);
    free(axis->first);
    free(axis->weight);
    free(axis->wide);
    free(axis->share);
}

/* Shares of the pixels from floor(low) on; returns their count. */
static int pixel_shares(double low, double high, int length, double *share)
{
    int first = (int)floor(low), count = 0;
    for (int j = first; j < length && j < high - 1e-9; j++) {
        double from = j > low ? j : low, to = j + 1 < high ? j + 1 : high;
        share[count++] = (to - from) / (high - low);
    }
    return count;
}

/* Shares of pixels from `first` on into shares of half-width samples; *first becomes the first sample. */
static int to_samples(double *share, int count, int *first, int samples)
{
    double folded[3] = {0, 0, 0}; /* a window over the samples that pixel j touches */
    int base = (*first >> 1) - 1, written = 0;
    for (int k = 0; k < count; k++) {
        int j = *first + k, own = (j >> 1) - base, other = j & 1 ? own + 1 : own - 1;
        while (own > 1) { /* the window moves on: nothing later touches its first sample */
            share[written++] = folded[0];
            folded[0] = folded[1];
            folded[1] = folded[2];
            folded[2] = 0;
            base++;
            own--;
            other--;
        }
        int there = base + other;
        if (there < 0 || there >= samples)
            other = own;
        double weight = share[k];
        folded[own] += 0.75 * weight;
        folded[other] += 0.25 * weight;
    }
    for (int k = 0; k < 3; k++)
        share[written++] = folded[k];
    *first = (*first >> 1) - 1;
    return written;
}

void stamp_axis_fill(stamp_axis *axis, double start, double scale, int length)
{
    int samples = axis->shift ? (length + 1) / 2 : length;

    if (axis->length == length && axis->start == start)
        return;
    axis->reach = 0;
    for (int i = 0; i < axis->count; i++) {
        double low = start + i * scale, high = low + scale;
        if (fabs(low - rint(low)) < 1e-9)
            low = rint(low);
        if (high > length)
            high = length;
        if (low > length - 1e-6 || high <= low) { /* beyond the source: its last pixel */
            low = length - 1;
            high = length;
        }
        int first = (int)floor(low);
        int count = pixel_shares(low, high, length, axis->share);
        if (axis->shift)
            count = to_samples(axis->share, count, &first, samples);
        int lead = 0;
        while (lead < count - 1 && axis->share[lead] == 0)
            lead++;
        while (count > lead + 1 && axis->share[count - 1] == 0)
            count--;
        first += lead;
        count -= lead;

        uint16_t *weight = axis->weight + (size_t)i * (size_t)axis->taps;
        int total = 0, largest = 0, used = count < axis->taps ? count : axis->taps;
        for (int k = 0; k < axis->taps; k++) {
            int value = k < used ? (int)lrint(axis->share[lead + k] * 65536) : 0;
            weight[k] = (uint16_t)(value > 65535 ? 65535 : value);
            total += weight[k];
            if (weight[k] > weight[largest])
                largest = k;
        }
        int corrected = weight[largest] + 65536 - total;
        weight[largest] = (uint16_t)(corrected > 65535 ? 65535 : corrected);
        for (int k = 0; k < 8 * axis->taps; k++)
            axis->wide[(size_t)i * 8 * (size_t)axis->taps + (size_t)k] = weight[k / 8];
        axis->first[i] = first;
        axis->used[i] = used;
        axis->reach = used > axis->reach ? used : axis->reach;
    }
    axis->start = start;
    axis->length = length;
}
