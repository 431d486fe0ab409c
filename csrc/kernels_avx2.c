/* Row kernels for x86 with AVX2, chosen at run time: twice the width of the SSSE3 ones, and the same results. */
#include "kernels_x86.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define SIMD __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline, target("avx2")))

_Static_assert(STAMP_LINES == 16, "a register holds one column of all lines");

INLINE __m256i load(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE void store(void *at, __m256i value)
{
    _mm256_storeu_si256((__m256i *)at, value);
}

/* The same 16 bytes in both halves. */
INLINE __m256i load_twice(const void *at)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
}

INLINE __m256i load_halves(const void *low, const void *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}

INLINE void store_halves(void *low, void *high, __m256i value)
{
    _mm_storeu_si128((__m128i *)low, _mm256_castsi256_si128(value));
    _mm_storeu_si128((__m128i *)high, _mm256_extracti128_si256(value, 1));
}

INLINE __m256i pick(__m256i r, __m256i g, __m256i b, __m128i from_r, __m128i from_g, __m128i from_b)
{
    return _mm256_or_si256(_mm256_or_si256(_mm256_shuffle_epi8(r, _mm256_broadcastsi128_si256(from_r)),
                                           _mm256_shuffle_epi8(g, _mm256_broadcastsi128_si256(from_g))),
                           _mm256_shuffle_epi8(b, _mm256_broadcastsi128_si256(from_b)));
}

/* 32 pixels as 96 bytes. */
INLINE void store_rgb(uint8_t *out, __m256i r, __m256i g, __m256i b)
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
    store_halves(out, out + 48, pick(r, g, b, r0, g0, b0));
    store_halves(out + 16, out + 64, pick(r, g, b, r1, g1, b1));
    store_halves(out + 32, out + 80, pick(r, g, b, r2, g2, b2));
}

/* round(x * factor / 65536) for factors that fit 16 bits: halves are rounded up, as libjpeg does */
INLINE __m256i scaled(__m256i x, short factor)
{
    __m256i twice = _mm256_mulhi_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(factor));
    return _mm256_srai_epi16(_mm256_add_epi16(twice, _mm256_set1_epi16(1)), 1);
}

/* See kernels_x86.c for the factors. */
INLINE void convert16(__m256i y, __m256i cb, __m256i cr, __m256i *r, __m256i *g, __m256i *b)
{
    const __m256i factors = _mm256_set1_epi32((int)((unsigned)18734 << 16 | (uint16_t)-22554));
    const __m256i half = _mm256_set1_epi32(32768);
    __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(cb, cr), factors);
    __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(cb, cr), factors);
    __m256i green = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), 16),
                                       _mm256_srai_epi32(_mm256_add_epi32(high, half), 16));
    *r = _mm256_add_epi16(_mm256_add_epi16(y, cr), scaled(cr, 26345));
    *g = _mm256_add_epi16(_mm256_sub_epi16(y, cr), green);
    *b = _mm256_add_epi16(_mm256_add_epi16(y, _mm256_add_epi16(cb, cb)), scaled(cb, -14942));
}

INLINE void ycc32(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint8_t *rgb)
{
    const __m256i zero = _mm256_setzero_si256(), centre = _mm256_set1_epi16(128);
    __m256i luma = load(y), blue = load(cb), red = load(cr), r0, g0, b0, r1, g1, b1;
    convert16(_mm256_unpacklo_epi8(luma, zero), _mm256_sub_epi16(_mm256_unpacklo_epi8(blue, zero), centre),
              _mm256_sub_epi16(_mm256_unpacklo_epi8(red, zero), centre), &r0, &g0, &b0);
    convert16(_mm256_unpackhi_epi8(luma, zero), _mm256_sub_epi16(_mm256_unpackhi_epi8(blue, zero), centre),
              _mm256_sub_epi16(_mm256_unpackhi_epi8(red, zero), centre), &r1, &g1, &b1);
    store_rgb(rgb, _mm256_packus_epi16(r0, r1), _mm256_packus_epi16(g0, g1), _mm256_packus_epi16(b0, b1));
}

SIMD static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *rgb)
{
    if (n < 32) {
        stamp_kernels_ssse3()->ycc_to_rgb(y, cb, cr, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 32 <= n; i += 32)
        ycc32(y + i, cb + i, cr + i, rgb + 3 * i);
    if (i < n) { /* the last 32 pixels again, rather than the rest one by one */
        i = n - 32;
        ycc32(y + i, cb + i, cr + i, rgb + 3 * i);
    }
}

SIMD static void interleave(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb)
{
    if (n < 32) {
        stamp_kernels_ssse3()->interleave(r, g, b, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 32 <= n; i += 32)
        store_rgb(rgb + 3 * i, load(r + i), load(g + i), load(b + i));
    if (i < n) {
        i = n - 32;
        store_rgb(rgb + 3 * i, load(r + i), load(g + i), load(b + i));
    }
}

INLINE void down32(const uint8_t *const *rows, const __m256i *w, int taps, int x, uint16_t *out)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i low = _mm256_set1_epi16((short)(taps / 2)), high = low;
    for (int k = 0; k < taps; k++) {
        __m256i pixels = load(rows[k] + x);
        low = _mm256_add_epi16(low, _mm256_mulhi_epu16(_mm256_unpacklo_epi8(zero, pixels), w[k]));
        high = _mm256_add_epi16(high, _mm256_mulhi_epu16(_mm256_unpackhi_epi8(zero, pixels), w[k]));
    }
    store(out + x, _mm256_permute2x128_si256(low, high, 0x20));
    store(out + x + 16, _mm256_permute2x128_si256(low, high, 0x31));
}

/* With a constant number of taps the compiler keeps weights and pointers in registers. */
INLINE void down_fixed(const uint8_t *const *from, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    __m256i w[4];
    const uint8_t *rows[4];
    for (int k = 0; k < taps; k++) {
        w[k] = _mm256_set1_epi16((short)weight[k]);
        rows[k] = from[k];
    }
    int x = 0;
    for (; x + 32 <= n; x += 32)
        down32(rows, w, taps, x, out);
    if (x < n)
        down32(rows, w, taps, n - 32, out);
}

SIMD static void sum_down(const uint8_t *const *rows, const uint16_t *weight, int taps, int n, uint16_t *out)
{
    if (n < 32 || taps < 1 || taps > 4)
        stamp_kernels_ssse3()->sum_down(rows, weight, taps, n, out);
    else if (taps == 1)
        down_fixed(rows, weight, 1, n, out);
    else if (taps == 2)
        down_fixed(rows, weight, 2, n, out);
    else if (taps == 3)
        down_fixed(rows, weight, 3, n, out);
    else
        down_fixed(rows, weight, 4, n, out);
}

/* In each half, 8 rows of 8 values to 8 columns. */
INLINE void transpose8(__m256i *r)
{
    __m256i s[8];
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm256_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm256_unpacklo_epi16(s[i], s[i + 4]);
        r[2 * i + 1] = _mm256_unpackhi_epi16(s[i], s[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm256_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 8; i++)
        r[i] = s[i];
}

INLINE __m256i across_one(const uint16_t *column, const uint16_t *w, int reach)
{
    __m256i sum = _mm256_set1_epi16((short)(reach / 2));
    for (int k = 0; k < reach; k++)
        sum = _mm256_add_epi16(sum, _mm256_mulhi_epu16(load(column + 16 * k), load_twice(w + 8 * k)));
    return _mm256_srli_epi16(sum, 1);
}

/* A register holds one column of the 16 lines, so that sums across become sums of registers. */
INLINE void across_columns(const uint16_t *columns, const int32_t *first, const uint16_t *weight, int taps, int reach,
                           int n, int16_t *out)
{
    size_t step = (size_t)taps * 8, width = (size_t)n;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i r[8];
        for (int j = 0; j < 8; j++)
            r[j] = across_one(columns + (size_t)first[i + j] * 16, weight + (size_t)(i + j) * step, reach);
        transpose8(r);
        for (size_t j = 0; j < 8; j++)
            store_halves(out + j * width + i, out + (j + 8) * width + i, r[j]);
    }
    for (; i < n; i++) {
        int16_t block[16];
        store(block, across_one(columns + (size_t)first[i] * 16, weight + (size_t)i * step, reach));
        for (size_t line = 0; line < 16; line++)
            out[line * width + (size_t)i] = block[line];
    }
}

SIMD static void sum_across(const uint16_t *lines, size_t stride, int width, const int32_t *first,
                            const uint16_t *weight, int taps, int reach, int n, uint16_t *scratch, int16_t *out)
{
    for (int x = 0; x < width; x += 8) {
        __m256i r[8];
        for (size_t j = 0; j < 8; j++)
            r[j] = load_halves(lines + j * stride + x, lines + (j + 8) * stride + x);
        transpose8(r);
        for (size_t j = 0; j < 8; j++)
            store(scratch + ((size_t)x + j) * 16, r[j]);
    }
    if (reach == 2)
        across_columns(scratch, first, weight, taps, 2, n, out);
    else if (reach == 3)
        across_columns(scratch, first, weight, taps, 3, n, out);
    else if (reach == 4)
        across_columns(scratch, first, weight, taps, 4, n, out);
    else
        across_columns(scratch, first, weight, taps, reach, n, out);
}

INLINE __m256i to_bytes(__m256i low, __m256i high)
{
    const __m256i half = _mm256_set1_epi16(64);
    __m256i mixed = _mm256_packus_epi16(_mm256_srai_epi16(_mm256_adds_epi16(low, half), 7),
                                        _mm256_srai_epi16(_mm256_adds_epi16(high, half), 7));
    return _mm256_permute4x64_epi64(mixed, 0xd8);
}

INLINE void sums32(const int16_t *r, const int16_t *g, const int16_t *b, uint8_t *rgb)
{
    store_rgb(rgb, to_bytes(load(r), load(r + 16)), to_bytes(load(g), load(g + 16)), to_bytes(load(b), load(b + 16)));
}

SIMD static void sums_to_rgb(const int16_t *r, const int16_t *g, const int16_t *b, int n, uint8_t *rgb)
{
    if (n < 32) {
        stamp_kernels_ssse3()->sums_to_rgb(r, g, b, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 32 <= n; i += 32)
        sums32(r + i, g + i, b + i, rgb + 3 * i);
    if (i < n) {
        i = n - 32;
        sums32(r + i, g + i, b + i, rgb + 3 * i);
    }
}

/* Saturation at 32767 is harmless: it is more than white. */
INLINE void convert_sums16(const int16_t *y, const int16_t *cb, const int16_t *cr, __m256i *r, __m256i *g, __m256i *b)
{
    const __m256i centre = _mm256_set1_epi16(16384);
    __m256i luma = load(y), blue = _mm256_sub_epi16(load(cb), centre), red = _mm256_sub_epi16(load(cr), centre);
    *r = _mm256_adds_epi16(luma, _mm256_add_epi16(red, _mm256_mulhi_epi16(red, _mm256_set1_epi16(26345))));
    __m256i green = _mm256_add_epi16(_mm256_mulhi_epi16(blue, _mm256_set1_epi16(-22554)),
                                     _mm256_mulhi_epi16(red, _mm256_set1_epi16(18734)));
    *g = _mm256_adds_epi16(luma, _mm256_sub_epi16(green, red));
    *b = _mm256_adds_epi16(luma, _mm256_adds_epi16(_mm256_adds_epi16(blue, blue),
                                                   _mm256_mulhi_epi16(blue, _mm256_set1_epi16(-14942))));
}

INLINE void ycc_sums32(const int16_t *y, const int16_t *cb, const int16_t *cr, uint8_t *rgb)
{
    __m256i r0, g0, b0, r1, g1, b1;
    convert_sums16(y, cb, cr, &r0, &g0, &b0);
    convert_sums16(y + 16, cb + 16, cr + 16, &r1, &g1, &b1);
    store_rgb(rgb, to_bytes(r0, r1), to_bytes(g0, g1), to_bytes(b0, b1));
}

SIMD static void ycc_sums_to_rgb(const int16_t *y, const int16_t *cb, const int16_t *cr, int n, uint8_t *rgb)
{
    if (n < 32) {
        stamp_kernels_ssse3()->ycc_sums_to_rgb(y, cb, cr, n, rgb);
        return;
    }
    int i = 0;
    for (; i + 32 <= n; i += 32)
        ycc_sums32(y + i, cb + i, cr + i, rgb + 3 * i);
    if (i < n) {
        i = n - 32;
        ycc_sums32(y + i, cb + i, cr + i, rgb + 3 * i);
    }
}

/* Pixels of 16 samples: sums[-1 .. 16] must be there. */
INLINE void spread16(const uint16_t *sums, int even_half, int odd_half, int shift, uint8_t *out)
{
    __m256i own = load(sums), thrice = _mm256_add_epi16(own, _mm256_add_epi16(own, own));
    __m256i even = _mm256_add_epi16(_mm256_add_epi16(thrice, load(sums - 1)), _mm256_set1_epi16((short)even_half));
    __m256i odd = _mm256_add_epi16(_mm256_add_epi16(thrice, load(sums + 1)), _mm256_set1_epi16((short)odd_half));
    store(out, _mm256_or_si256(_mm256_srli_epi16(even, shift), _mm256_slli_epi16(_mm256_srli_epi16(odd, shift), 8)));
}

/* See kernels_ssse3.c; 16 samples or more. */
INLINE void spread(uint16_t *sums, int width, int from, int to, int even_half, int odd_half, int shift, uint8_t *out)
{
    if (from == 0)
        sums[0] = sums[1];
    if (to == width)
        sums[to + 1] = sums[to];
    int i = from;
    for (; i + 16 <= to; i += 16)
        spread16(sums + i + 1, even_half, odd_half, shift, out + 2 * (i - from));
    if (i < to)
        spread16(sums + to - 16 + 1, even_half, odd_half, shift, out + 2 * (to - 16 - from));
}

INLINE __m256i load_samples(const uint8_t *at)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at));
}

INLINE void sum_rows16(const uint8_t *near, const uint8_t *far, int at, uint16_t *sums)
{
    __m256i n = load_samples(near + at), f = load_samples(far + at);
    store(sums + at + 1, _mm256_add_epi16(_mm256_add_epi16(n, _mm256_add_epi16(n, n)), f));
}

SIMD static void upsample_420(const uint8_t *near, const uint8_t *far, int width, int from, int to, uint16_t *scratch,
                              uint8_t *out)
{
    if (to - from < 16) {
        stamp_kernels_ssse3()->upsample_420(near, far, width, from, to, scratch, out);
        return;
    }
    int i = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (; i + 16 <= high; i += 16)
        sum_rows16(near, far, i, scratch);
    if (i < high)
        sum_rows16(near, far, high - 16, scratch);
    spread(scratch, width, from, to, 8, 7, 4, out);
}

SIMD static void upsample_422(const uint8_t *row, int width, int from, int to, uint16_t *scratch, uint8_t *out)
{
    if (to - from < 16) {
        stamp_kernels_ssse3()->upsample_422(row, width, from, to, scratch, out);
        return;
    }
    int i = from > 0 ? from - 1 : 0, high = to < width ? to + 1 : width;
    for (; i + 16 <= high; i += 16)
        store(scratch + i + 1, load_samples(row + i));
    if (i < high)
        store(scratch + high - 16 + 1, load_samples(row + high - 16));
    spread(scratch, width, from, to, 1, 2, 2, out);
}

static const stamp_kernels avx2 = {
    "AVX2", ycc_to_rgb, interleave, sum_down, sum_across, upsample_420, upsample_422, sums_to_rgb, ycc_sums_to_rgb,
};

const stamp_kernels *stamp_kernels_avx2(void)
{
    return __builtin_cpu_supports("avx2") ? &avx2 : NULL;
}

#else

const stamp_kernels *stamp_kernels_avx2(void)
{
    return 0;
}

#endif
