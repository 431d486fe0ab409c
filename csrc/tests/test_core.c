/*
 * The C core without Python, for the sanitizers (make asan): streams of every coding, decoded at every scale and compared
 * with libjpeg's own RGB; the SIMD kernels against the plain ones; cut, spoilt and foreign streams.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "jpeg_tile.h"
#include "mosaic.h"
#include "vary_tile.h"

enum { SIDE = 240, TILE = 61 };

#define CHECK(what)                                                       \
    do {                                                                  \
        if (!(what)) {                                                    \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

typedef struct {
    uint8_t *data;
    size_t size;
} stream;

/* A picture with smooth and rough parts. */
static void paint(uint8_t *rgb)
{
    unsigned noise = 1;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++) {
                noise = noise * 1103515245u + 12345u;
                int rough = x > SIDE / 2 ? (int)(noise >> 16 & 63) : 0;
                rgb[(y * SIDE + x) * 3 + c] = (uint8_t)((x * (c + 1) / 2 + y * (3 - c) / 2 + rough) & 255);
            }
}

static stream encode(const uint8_t *rgb, J_COLOR_SPACE space, int h, int v, int progressive)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_width = jpeg.image_height = SIDE;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_colorspace(&jpeg, space);
    jpeg.comp_info[0].h_samp_factor = h;
    jpeg.comp_info[0].v_samp_factor = v;
    if (progressive)
        jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = (JSAMPROW)rgb + (size_t)jpeg.next_scanline * SIDE * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    stream made = {data, size};
    return made;
}

/* What the library itself makes of a stream. */
static void reference(stream s, J_COLOR_SPACE space, unsigned denominator, uint8_t *rgb)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, s.data, s.size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.jpeg_color_space = space;
    jpeg.out_color_space = JCS_RGB;
    jpeg.scale_num = 1;
    jpeg.scale_denom = denominator;
    jpeg_start_decompress(&jpeg);
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = rgb + (size_t)jpeg.output_scanline * jpeg.output_width * 3;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
}

/* Model tiles at and across every border; every kind of kernels must give the same as the plain one. */
static void assemble(const stamp_mosaic *m, double scale, int exact)
{
    static uint8_t out[2][TILE * TILE * 3];
    stamp_workspace *plain = stamp_workspace_new(stamp_kernels_at(0), m->geometry, TILE, scale, scale, exact);
    CHECK(plain != NULL && stamp_kernels_at(0) == stamp_kernels_plain());
    for (int kind = 1; stamp_kernels_at(kind) != NULL; kind++) {
        stamp_workspace *other = stamp_workspace_new(stamp_kernels_at(kind), m->geometry, TILE, scale, scale, exact);
        CHECK(other != NULL);
        for (double y = -TILE; y < m->image_h + 2; y += 67.25)
            for (double x = -TILE; x < m->image_w + 2; x += 83.5) {
                CHECK(stamp_assemble(m, other, x, y, out[0]) == STAMP_OK);
                CHECK(stamp_assemble(m, plain, x, y, out[1]) == STAMP_OK);
                CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
            }
        stamp_workspace_free(other);
    }
    stamp_workspace_free(plain);
}

static void whole(stream s, int colour, unsigned denominator, int compare)
{
    int status, side = SIDE / (int)denominator;
    stamp_decoder *d = stamp_decoder_new(NULL, 0, colour, SIDE, SIDE, denominator, &status);
    CHECK(d != NULL);
    stamp_geometry g = stamp_decoder_geometry(d);
    uint8_t *pool = calloc(2, g.slot), layout[2], state[2] = {STAMP_OK, STAMP_OK};
    int32_t slot[2] = {1, 0};
    CHECK(stamp_decode(d, s.data, s.size, pool, &layout[1]) == STAMP_OK);
    CHECK(stamp_decode(d, s.data, s.size, pool + g.slot, &layout[0]) == STAMP_OK);
    stamp_mosaic m = {pool, slot, state, layout, g, 2, 1, 2, 2 * side, side};

    uint8_t *want = malloc((size_t)side * (size_t)side * 3), *ours = malloc((size_t)side * (size_t)side * 3);
    reference(s, colour == STAMP_RGB ? JCS_RGB : JCS_YCbCr, denominator, want);
    stamp_workspace *w = stamp_workspace_new(stamp_kernels_best(), g, side, 1, 1, 0);
    CHECK(stamp_assemble(&m, w, side, 0, ours) == STAMP_OK);
    CHECK(!compare || memcmp(ours, want, (size_t)side * (size_t)side * 3) == 0);
    stamp_workspace_free(w);
    free(want);
    free(ours);

    const double scales[] = {1, 1.9794, 3.7};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        for (int exact = 0; exact < 2; exact++)
            assemble(&m, scales[i], exact);

    /* a status spreads to what touches it, and to nothing else */
    static uint8_t out[8 * 8 * 3];
    w = stamp_workspace_new(stamp_kernels_best(), g, 8, 1, 1, 0);
    state[1] = STAMP_CORRUPT;
    CHECK(stamp_assemble(&m, w, side - 8, 0, out) == STAMP_OK);
    CHECK(stamp_assemble(&m, w, side - 7, 0, out) == STAMP_CORRUPT);
    slot[0] = 2;
    CHECK(stamp_assemble(&m, w, 0, 0, out) == STAMP_BAD_ARGUMENT);
    stamp_workspace_free(w);
    free(pool);
    stamp_decoder_free(d);
}

/* Cut at many places and spoilt at many bytes: any answer, no fault, and the decoder works afterwards. */
static void spoilt(stream s, int colour)
{
    int status;
    uint8_t layout;
    stamp_decoder *d = stamp_decoder_new(NULL, 0, colour, SIDE, SIDE, 1, &status);
    CHECK(d != NULL);
    uint8_t *slot = malloc(stamp_decoder_geometry(d).slot);
    for (size_t n = 0; n < s.size; n += 1 + s.size / 23) {
        uint8_t *cut = malloc(n > 0 ? n : 1);
        memcpy(cut, s.data, n);
        CHECK(stamp_decode(d, cut, n, slot, &layout) == (n == 0 ? STAMP_MISSING : STAMP_CORRUPT));
        free(cut);
        uint8_t kept = s.data[n];
        s.data[n] ^= 0x55;
        stamp_decode(d, s.data, s.size, slot, &layout);
        s.data[n] = kept;
        CHECK(stamp_decode(d, s.data, s.size, slot, &layout) == STAMP_OK);
    }
    free(slot);
    stamp_decoder_free(d);
}

/* A stream without tables must not be decoded with those that another stream brought. */
static void foreign_tables(stream s, int colour)
{
    uint8_t *bare = malloc(s.size), *tables = malloc(s.size + 2), layout;
    size_t size = 2, tables_size = 2, at = 2;
    int status;
    memcpy(bare, s.data, 2);
    memcpy(tables, s.data, 2);
    for (; s.data[at + 1] != 0xda;) {
        size_t length = 2 + ((size_t)s.data[at + 2] << 8 | s.data[at + 3]);
        int is_table = s.data[at + 1] == 0xdb || s.data[at + 1] == 0xc4;
        memcpy(is_table ? tables + tables_size : bare + size, s.data + at, length);
        *(is_table ? &tables_size : &size) += length;
        at += length;
    }
    memcpy(bare + size, s.data + at, s.size - at);
    size += s.size - at;
    tables[tables_size++] = 0xff;
    tables[tables_size++] = 0xd9;

    stamp_decoder *d = stamp_decoder_new(NULL, 0, colour, SIDE, SIDE, 1, &status);
    stamp_decoder *shared = stamp_decoder_new(tables, tables_size, colour, SIDE, SIDE, 1, &status);
    CHECK(d != NULL && shared != NULL);
    size_t bytes = stamp_decoder_geometry(d).slot;
    uint8_t *a = calloc(1, bytes), *b = calloc(1, bytes);
    int before = stamp_decode(d, bare, size, a, &layout);
    CHECK(stamp_decode(d, s.data, s.size, a, &layout) == STAMP_OK);
    CHECK(stamp_decode(d, bare, size, b, &layout) == before && before == STAMP_CORRUPT);
    CHECK(stamp_decode(shared, bare, size, b, &layout) == STAMP_OK && memcmp(a, b, bytes) == 0);
    CHECK(stamp_decoder_new(s.data, 20, colour, SIDE, SIDE, 1, &status) == NULL && status == STAMP_CORRUPT);
    free(a);
    free(b);
    free(bare);
    free(tables);
    stamp_decoder_free(d);
    stamp_decoder_free(shared);
}

static size_t put_item(uint8_t *at, uint32_t tag, const uint8_t *data, uint32_t length)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(tag >> 8 * i);
        at[4 + i] = (uint8_t)(length >> 8 * i);
    }
    if (data != NULL)
        memcpy(at + 8, data, length);
    return 8 + (data != NULL ? length : 0);
}

/* A frame in one fragment or in several is the same stream; a header that lies is damage, never a read beyond the run. */
static void fragments(stream s)
{
    const uint32_t item = 0xe000fffe, delimiter = 0xe0ddfffe;
    for (size_t pieces = 1; pieces <= 7; pieces += 3) {
        size_t step = s.size / pieces, size = 0;
        uint8_t *run = malloc(s.size + 8 * pieces + 8);
        for (size_t i = 0; i < pieces; i++)
            size += put_item(run + size, item, s.data + i * step, (uint32_t)(i + 1 < pieces ? step : s.size - i * step));
        size_t with_end = size + put_item(run + size, delimiter, NULL, 0);
        for (size_t cut = 0; cut < 3; cut++) { /* each in a buffer of its own size, for the sanitizer */
            size_t length = cut == 0 ? size : cut == 1 ? with_end : size - 1;
            uint8_t *exact = malloc(length);
            memcpy(exact, run, length);
            int status = stamp_join_items(exact, &length);
            CHECK(status == (cut < 2 ? STAMP_OK : STAMP_CORRUPT));
            CHECK(cut == 2 || (length == s.size && memcmp(exact, s.data, s.size) == 0));
            free(exact);
        }
        for (uint32_t lie = 1; lie != 0; lie <<= 1) { /* every bit of the first header */
            for (int at = 0; at < 2; at++) {
                size_t length = size;
                uint8_t *exact = malloc(length);
                memcpy(exact, run, length);
                put_item(exact, at ? item : item ^ lie, NULL, (at ? lie : 0) ^ (uint32_t)(pieces > 1 ? step : s.size));
                CHECK(stamp_join_items(exact, &length) == STAMP_CORRUPT);
                free(exact);
            }
        }
        free(run);
    }
    uint8_t end[8];
    size_t length = put_item(end, delimiter, NULL, 0);
    CHECK(stamp_join_items(end, &length) == STAMP_CORRUPT);
}

/* Every turn of a crop reads each of its pixels once and nothing else; without jitter they come through as they are. */
static void turns(const uint8_t *rgb)
{
    enum { CROP = 61, AT = SIDE - CROP };
    static stamp_variation v;
    static float row[4 * CROP], out[3 * CROP * CROP];
    const float zero[3] = {0}, one[3] = {1, 1, 1}, same[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    double sums[2] = {0};
    for (int jitter = 0; jitter < 2; jitter++)
        for (int turn = 0; turn < 8; turn++) {
            ptrdiff_t along = turn & 4 ? 3 * SIDE : 3, down = turn & 4 ? 3 : 3 * SIDE;
            const uint8_t *first = rgb + (AT * SIDE + AT) * 3;
            first += (turn & 1 ? (CROP - 1) * along : 0) + (turn & 2 ? (CROP - 1) * down : 0);
            if (jitter)
                stamp_variation_of(same, zero, zero, one, &v);
            else
                stamp_variation_plain(zero, one, &v);
            stamp_vary_tile(first, turn & 1 ? -along : along, turn & 2 ? -down : down, CROP, &v, row, out);
            double sum = 0;
            for (int i = 0; i < 3 * CROP * CROP; i++)
                sum += out[i];
            CHECK(turn == 0 || (sum - sums[jitter] < 1e-3 && sums[jitter] - sum < 1e-3));
            sums[jitter] = sum;
        }
    double whole = 0;
    for (int y = AT; y < SIDE; y++)
        for (int i = 3 * AT; i < 3 * SIDE; i++)
            whole += rgb[y * SIDE * 3 + i] / 255.0;
    CHECK(sums[0] - whole < 0.1 && whole - sums[0] < 0.1);
    CHECK(sums[1] >= sums[0] && sums[1] - sums[0] < 3.0 * CROP * CROP / 255); /* 0 counts as 1 under jitter */
}

int main(void)
{
    static const struct {
        J_COLOR_SPACE space;
        int h, v, progressive;
    } codings[] = {{JCS_RGB, 1, 1, 0},   {JCS_YCbCr, 1, 1, 0}, {JCS_YCbCr, 2, 1, 0}, {JCS_YCbCr, 2, 2, 0},
                   {JCS_YCbCr, 1, 2, 0}, {JCS_YCbCr, 4, 1, 0}, {JCS_YCbCr, 2, 2, 1}};
    static uint8_t rgb[SIDE * SIDE * 3];
    paint(rgb);
    turns(rgb);
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
        int colour = codings[i].space == JCS_RGB ? STAMP_RGB : STAMP_YCBCR;
        stream s = encode(rgb, codings[i].space, codings[i].h, codings[i].v, codings[i].progressive);
        /* at 1/8, libjpeg repeats 4:2:2's chroma where the mosaic interpolates it */
        for (unsigned denominator = 1; denominator <= 8; denominator *= 2)
            whole(s, colour, denominator, denominator < 8 || codings[i].h != 2 || codings[i].v != 1);
        if (!codings[i].progressive) {
            spoilt(s, colour);
            foreign_tables(s, colour);
            fragments(s);
        }
        free(s.data);
    }
    puts("the core is sound");
    return 0;
}
