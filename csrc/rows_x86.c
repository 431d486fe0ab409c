/* Row kernels for x86 with SSSE3, chosen at run time: no compiler flag is needed. Same results as the plain ones. */
#include "rows_x86.h"

#if defined(__x86_64__)

#include <string.h>

#include <tmmintrin.h>

#define SIMD __attribute__((target("ssse3")))
#define INLINE static inline __attribute__((always_inline, target("ssse3")))

INLINE __m128i load(const void *at)
{
    return _mm_loadu_si128((const __m128i *)at);
}

INLINE void store(void *at, __m128i value)
{
    _mm_storeu_si128((__m128i *)at, value);
}

/* 16 pixels as 48 bytes. */
INLINE void store_rgb(uint8_t *out, __m128i r, __m128i g, __m128i b)
{
    const __m128i r0 = _mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5);
    const __m128i g0 = _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1);
    const __m128i b0 = _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1);
    const __m128i r1 = _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1);
    const __m128i g1 = _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10);
    const __m128i b1 = _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1);
    const __m128i r2 = _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1);
    const __m128i g2 = _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1);
    const __m128i b2 = _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15);
    store(out, _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, r0), _mm_shuffle_epi8(g, g0)), _mm_shuffle_epi8(b, b0)));
    store(out + 16,
          _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, r1), _mm_shuffle_epi8(g, g1)), _mm_shuffle_epi8(b, b1)));
    store(out + 32,
          _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, r2), _mm_shuffle_epi8(g, g2)), _mm_shuffle_epi8(b, b2)));
}

/* round(x * factor / 65536) for factors that fit 16 bits: halves are rounded up, as libjpeg does */
INLINE __m128i scaled(__m128i x, short factor)
{
    __m128i twice = _mm_mulhi_epi16(_mm_add_epi16(x, x), _mm_set1_epi16(factor));
    return _mm_srai_epi16(_mm_add_epi16(twice, _mm_set1_epi16(1)), 1);
}

INLINE void convert8(__m128i y, __m128i cb, __m128i cr, __m128i *r, __m128i *g, __m128i *b)
{
    /* 1.402 = 1 + 26345 / 65536; 1.772 = 2 - 14942 / 65536; 0.714 = 1 - 18734 / 65536 */
    const __m128i factors = _mm_set1_epi32((int)((unsigned)18734 << 16 | (uint16_t)-22554));
    const __m128i half = _mm_set1_epi32(32768);
    __m128i low = _mm_madd_epi16(_mm_unpacklo_epi16(cb, cr), factors);
    __m128i high = _mm_madd_epi16(_mm_unpackhi_epi16(cb, cr), factors);
    __m128i green = _mm_packs_epi32(_mm_srai_epi32(_mm_add_epi32(low, half), 16),
                                    _mm_srai_epi32(_mm_add_epi32(high, half), 16));
    *r = _mm_add_epi16(_mm_add_epi16(y, cr), scaled(cr, 26345));
    *g = _mm_add_epi16(_mm_sub_epi16(y, cr), green);
    *b = _mm_add_epi16(_mm_add_epi16(y, _mm_add_epi16(cb, cb)), scaled(cb, -14942));
}

INLINE void ycc16(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint8_t *rgb)
{
    const __m128i zero = _mm_setzero_si128(), centre = _mm_set1_epi16(128);
    __m128i luma = load(y), blue = load(cb), red = load(cr), r0, g0, b0, r1, g1, b1;
    convert8(_mm_unpacklo_epi8(luma, zero), _mm_sub_epi16(_mm_unpacklo_epi8(blue, zero), centre),
             _mm_sub_epi16(_mm_unpacklo_epi8(red, zero), centre), &r0, &g0, &b0);
    convert8(_mm_unpackhi_epi8(luma, zero), _mm_sub_epi16(_mm_unpackhi_epi8(blue, zero), centre),
             _mm_sub_epi16(_mm_unpackhi_epi8(red, zero), centre), &r1, &g1, &b1);
    store_rgb(rgb, _mm_packus_epi16(r0, r1), _mm_packus_epi16(g0, g1), _mm_packus_epi16(b0, b1));
}

SIMD static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *rgb)
{
    if (n < 16) {
        stamp_kernels_plain()->ycc_to_rgb(y, cb, cr, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 16 <= n; i += 16)
        ycc16(y + i, cb + i, cr + i, rgb + 3 * i);
    if (i < n) { /* the last 16 pixels again, rather than the rest one by one */
        i = n - 16;
        ycc16(y + i, cb + i, cr + i, rgb + 3 * i);
    }
}

SIMD static void interleave(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb)
{
    if (n < 16) {
        stamp_kernels_plain()->interleave(r, g, b, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 16 <= n; i += 16)
        store_rgb(rgb + 3 * i, load(r + i), load(g + i), load(b + i));
    if (i < n) {
        i = n - 16;
        store_rgb(rgb + 3 * i, load(r + i), load(g + i), load(b + i));
    }
}

INLINE void down16(const uint8_t *const *rows, const uint16_t *weight, int taps, int x, int16_t *out)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i low = _mm_set1_epi16((short)(taps / 2)), high = low;
    for (int k = 0; k < taps; k++) {
        __m128i w = _mm_set1_epi16((short)weight[k]), pixels = load(rows[k] + x);
        low = _mm_add_epi16(low, _mm_mulhi_epu16(_mm_unpacklo_epi8(zero, pixels), w));
        high = _mm_add_epi16(high, _mm_mulhi_epu16(_mm_unpackhi_epi8(zero, pixels), w));
    }
    store(out + x, _mm_srli_epi16(low, 1));
    store(out + x + 8, _mm_srli_epi16(high, 1));
}

SIMD static void sum_down(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, int16_t *out)
{
    if (n < 16) {
        stamp_kernels_plain()->sum_down(rows, weight, taps, n, out);
        return;
    }
    int x = 0;
    for (; x + 16 <= n; x += 16)
        down16(rows, weight, taps, x, out);
    if (x < n)
        down16(rows, weight, taps, n - 16, out);
}

/* Two output pixels: 4 values each, multiplied and added in pairs. */
INLINE __m128i across2(const int16_t *row, const int32_t *first, const int16_t *weight, int taps)
{
    __m128i sum = _mm_setzero_si128();
    for (int k = 0; k < taps; k += 4) {
        __m128i a = _mm_loadl_epi64((const __m128i *)(row + first[0] + k));
        __m128i b = _mm_loadl_epi64((const __m128i *)(row + first[1] + k));
        __m128i w = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(weight + k)),
                                       _mm_loadl_epi64((const __m128i *)(weight + taps + k)));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_unpacklo_epi64(a, b), w));
    }
    return sum;
}

SIMD static void sum_across(const int16_t *row, const int32_t *first, const int16_t *weight, int taps, int n,
                            int16_t *out)
{
    const __m128i half = _mm_set1_epi32(1 << 13);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const int16_t *w = weight + (size_t)i * (size_t)taps;
        size_t two = 2 * (size_t)taps;
        __m128i low = _mm_hadd_epi32(across2(row, first + i, w, taps), across2(row, first + i + 2, w + two, taps));
        __m128i high = _mm_hadd_epi32(across2(row, first + i + 4, w + 2 * two, taps),
                                      across2(row, first + i + 6, w + 3 * two, taps));
        low = _mm_srai_epi32(_mm_add_epi32(low, half), 14);
        high = _mm_srai_epi32(_mm_add_epi32(high, half), 14);
        store(out + i, _mm_packs_epi32(low, high));
    }
    if (i < n)
        stamp_kernels_plain()->sum_across(row, first + i, weight + (size_t)i * (size_t)taps, taps, n - i, out + i);
}

INLINE __m128i to_bytes(__m128i low, __m128i high)
{
    const __m128i half = _mm_set1_epi16(64);
    return _mm_packus_epi16(_mm_srai_epi16(_mm_adds_epi16(low, half), 7), _mm_srai_epi16(_mm_adds_epi16(high, half), 7));
}

SIMD static void sums_to_rgb(const int16_t *r, const int16_t *g, const int16_t *b, int n, uint8_t *rgb)
{
    int i = 0;
    for (; i + 16 <= n; i += 16)
        store_rgb(rgb + 3 * i, to_bytes(load(r + i), load(r + i + 8)), to_bytes(load(g + i), load(g + i + 8)),
                  to_bytes(load(b + i), load(b + i + 8)));
    if (i < n)
        stamp_kernels_plain()->sums_to_rgb(r + i, g + i, b + i, n - i, rgb + 3 * i);
}

/* Saturation at 32767 is harmless: it is more than white. */
INLINE void convert_sums8(const int16_t *y, const int16_t *cb, const int16_t *cr, __m128i *r, __m128i *g, __m128i *b)
{
    const __m128i centre = _mm_set1_epi16(16384);
    __m128i luma = load(y), blue = _mm_sub_epi16(load(cb), centre), red = _mm_sub_epi16(load(cr), centre);
    *r = _mm_adds_epi16(luma, _mm_add_epi16(red, _mm_mulhi_epi16(red, _mm_set1_epi16(26345))));
    __m128i green = _mm_add_epi16(_mm_mulhi_epi16(blue, _mm_set1_epi16(-22554)),
                                  _mm_mulhi_epi16(red, _mm_set1_epi16(18734)));
    *g = _mm_adds_epi16(luma, _mm_sub_epi16(green, red));
    *b = _mm_adds_epi16(luma, _mm_adds_epi16(_mm_adds_epi16(blue, blue), _mm_mulhi_epi16(blue, _mm_set1_epi16(-14942))));
}

SIMD static void ycc_sums_to_rgb(const int16_t *y, const int16_t *cb, const int16_t *cr, int n, uint8_t *rgb)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i r0, g0, b0, r1, g1, b1;
        convert_sums8(y + i, cb + i, cr + i, &r0, &g0, &b0);
        convert_sums8(y + i + 8, cb + i + 8, cr + i + 8, &r1, &g1, &b1);
        store_rgb(rgb + 3 * i, to_bytes(r0, r1), to_bytes(g0, g1), to_bytes(b0, b1));
    }
    if (i < n)
        stamp_kernels_plain()->ycc_sums_to_rgb(y + i, cb + i, cr + i, n - i, rgb + 3 * i);
}

static const stamp_kernels ssse3 = {
    "SSSE3", ycc_to_rgb, interleave, sum_down, sum_across, sums_to_rgb, ycc_sums_to_rgb,
};

const stamp_kernels *stamp_kernels_x86(void)
{
    return __builtin_cpu_supports("ssse3") ? &ssse3 : NULL;
}

#else

const stamp_kernels *stamp_kernels_x86(void)
{
    return 0;
}

#endif
