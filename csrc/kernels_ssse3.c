/* Row kernels for x86 with SSSE3, chosen at run time: no compiler flag is needed. Same results as the plain ones. */
#include "kernels_x86.h"

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

INLINE void down16(const uint8_t *const *rows, const __m128i *w, int taps, int x, uint16_t *out)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i low = _mm_set1_epi16((short)(taps / 2)), high = low;
    for (int k = 0; k < taps; k++) {
        __m128i pixels = load(rows[k] + x);
        low = _mm_add_epi16(low, _mm_mulhi_epu16(_mm_unpacklo_epi8(zero, pixels), w[k]));
        high = _mm_add_epi16(high, _mm_mulhi_epu16(_mm_unpackhi_epi8(zero, pixels), w[k]));
    }
    store(out + x, low);
    store(out + x + 8, high);
}

/* With a constant number of taps the compiler keeps weights and pointers in registers. */
INLINE void down_fixed(const uint8_t *const *from, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    __m128i w[4];
    const uint8_t *rows[4];
    for (int k = 0; k < taps; k++) {
        w[k] = _mm_set1_epi16((short)weight[k]);
        rows[k] = from[k];
    }
    int x = 0;
    for (; x + 16 <= n; x += 16)
        down16(rows, w, taps, x, out);
    if (x < n)
        down16(rows, w, taps, n - 16, out);
}

/* Any number of taps. */
INLINE void down_any(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    const __m128i zero = _mm_setzero_si128();
    for (int x = 0; x < n; x = x + 16 < n && x + 32 > n ? n - 16 : x + 16) {
        __m128i low = _mm_set1_epi16((short)(taps / 2)), high = low;
        for (int k = 0; k < taps; k++) {
            __m128i w = _mm_set1_epi16((short)weight[k]), pixels = load(rows[k] + x);
            low = _mm_add_epi16(low, _mm_mulhi_epu16(_mm_unpacklo_epi8(zero, pixels), w));
            high = _mm_add_epi16(high, _mm_mulhi_epu16(_mm_unpackhi_epi8(zero, pixels), w));
        }
        store(out + x, low);
        store(out + x + 8, high);
    }
}

SIMD static void sum_down(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    if (n < 16)
        stamp_kernels_plain()->sum_down(rows, weight, taps, n, out);
    else if (taps == 1)
        down_fixed(rows, weight, 1, n, out);
    else if (taps == 2)
        down_fixed(rows, weight, 2, n, out);
    else if (taps == 3)
        down_fixed(rows, weight, 3, n, out);
    else if (taps == 4)
        down_fixed(rows, weight, 4, n, out);
    else
        down_any(rows, weight, taps, n, out);
}

/* 8 rows of 8 values to 8 columns: from and to may not overlap; steps are in values. */
INLINE void transpose8(const uint16_t *from, size_t step, uint16_t *to, size_t to_step)
{
    __m128i r[8], s[8];
    for (int i = 0; i < 8; i++)
        r[i] = load(from + (size_t)i * step);
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm_unpacklo_epi16(s[i], s[i + 4]);
        r[2 * i + 1] = _mm_unpackhi_epi16(s[i], s[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        store(to + (size_t)(2 * i) * to_step, _mm_unpacklo_epi16(r[i], r[i + 4]));
        store(to + (size_t)(2 * i + 1) * to_step, _mm_unpackhi_epi16(r[i], r[i + 4]));
    }
}

/* A register holds one column of the 8 lines, so that sums across become sums of registers. */
INLINE void across_columns(const uint16_t *columns, const int32_t *first, const uint16_t *weight, int taps, int reach,
                           int n, int16_t *out)
{
    uint16_t block[64];
    for (int i = 0; i < n; i++) {
        const uint16_t *column = columns + (size_t)first[i] * 8, *w = weight + (size_t)i * (size_t)taps * 8;
        __m128i sum = _mm_set1_epi16((short)(reach / 2));
        for (int k = 0; k < reach; k++)
            sum = _mm_add_epi16(sum, _mm_mulhi_epu16(load(column + 8 * k), load(w + 8 * k)));
        store(block + 8 * (i & 7), _mm_srli_epi16(sum, 1));
        if ((i & 7) == 7)
            transpose8(block, 8, (uint16_t *)out + (i - 7), (size_t)n);
    }
    for (int i = n / 8 * 8; i < n; i++)
        for (int line = 0; line < 8; line++)
            out[(size_t)line * (size_t)n + (size_t)i] = (int16_t)block[8 * (i & 7) + line];
}

/* Of 8 lines. */
INLINE void across8(const uint16_t *lines, size_t stride, int width, const int32_t *first, const uint16_t *weight,
                    int taps, int reach, int n, uint16_t *scratch, int16_t *out)
{
    for (int x = 0; x < width; x += 8)
        transpose8(lines + x, stride, scratch + (size_t)x * 8, 8);
    if (reach == 2)
        across_columns(scratch, first, weight, taps, 2, n, out);
    else if (reach == 3)
        across_columns(scratch, first, weight, taps, 3, n, out);
    else if (reach == 4)
        across_columns(scratch, first, weight, taps, 4, n, out);
    else
        across_columns(scratch, first, weight, taps, reach, n, out);
}

SIMD static void sum_across(const uint16_t *lines, size_t stride, int width, const int32_t *first,
                            const uint16_t *weight, int taps, int reach, int n, uint16_t *scratch, int16_t *out)
{
    for (size_t line = 0; line < STAMP_LINES; line += 8)
        across8(lines + line * stride, stride, width, first, weight, taps, reach, n, scratch, out + line * (size_t)n);
}

/* Pixels of 8 samples: sums[-1 .. 8] must be there. */
INLINE void spread8(const uint16_t *sums, int even_half, int odd_half, int shift, uint8_t *out)
{
    __m128i own = load(sums), thrice = _mm_add_epi16(own, _mm_add_epi16(own, own));
    __m128i even = _mm_add_epi16(_mm_add_epi16(thrice, load(sums - 1)), _mm_set1_epi16((short)even_half));
    __m128i odd = _mm_add_epi16(_mm_add_epi16(thrice, load(sums + 1)), _mm_set1_epi16((short)odd_half));
    store(out, _mm_or_si128(_mm_srli_epi16(even, shift), _mm_slli_epi16(_mm_srli_epi16(odd, shift), 8)));
}

/* sums[1 ..] of samples [from, to) and their neighbours; beyond the row, the outermost again. */
INLINE void spread(uint16_t *sums, int width, int from, int to, int even_half, int odd_half, int shift, uint8_t *out)
{
    if (from == 0)
        sums[0] = sums[1];
    if (to == width)
        sums[to + 1] = sums[to];
    int i = from;
    for (; i + 8 <= to; i += 8)
        spread8(sums + i + 1, even_half, odd_half, shift, out + 2 * (i - from));
    if (i < to)
        spread8(sums + to - 8 + 1, even_half, odd_half, shift, out + 2 * (to - 8 - from));
}

SIMD static void upsample_420(const uint8_t *near, const uint8_t *far, int width, int from, int to, uint16_t *scratch,
                              uint8_t *out)
{
    if (to - from < 8) {
        stamp_kernels_plain()->upsample_420(near, far, width, from, to, scratch, out);
        return;
    }
    const __m128i zero = _mm_setzero_si128();
    int low = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (int i = low; i < high; i += 8) { /* reads up to 7 bytes beyond, within the row's stride */
        __m128i n = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(near + i)), zero);
        __m128i f = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(far + i)), zero);
        store(scratch + i + 1, _mm_add_epi16(_mm_add_epi16(n, _mm_add_epi16(n, n)), f));
    }
    spread(scratch, width, from, to, 8, 7, 4, out);
}

SIMD static void upsample_422(const uint8_t *row, int width, int from, int to, uint16_t *scratch, uint8_t *out)
{
    if (to - from < 8) {
        stamp_kernels_plain()->upsample_422(row, width, from, to, scratch, out);
        return;
    }
    int low = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (int i = low; i < high; i += 8)
        store(scratch + i + 1, _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(row + i)), _mm_setzero_si128()));
    spread(scratch, width, from, to, 1, 2, 2, out);
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
    "SSSE3", ycc_to_rgb, interleave, sum_down, sum_across, upsample_420, upsample_422, sums_to_rgb, ycc_sums_to_rgb,
};

const stamp_kernels *stamp_kernels_ssse3(void)
{
    return __builtin_cpu_supports("ssse3") ? &ssse3 : NULL;
}

#else

const stamp_kernels *stamp_kernels_ssse3(void)
{
    return 0;
}

#endif
