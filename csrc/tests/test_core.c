/*
 * The C core on its own, for the sanitizers: streams made here by libjpeg, whole and damaged, decoded at every scale,
 * assembled and resampled at the image's edges. Every output byte is read, so that one left unwritten is seen.
 * `make asan` builds and runs it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jpeglib.h>

#include "jpeg_tile.h"
#include "mosaic.h"
#include "planes.h"
#include "resample.h"
#include "rows.h"

static int checks;

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        checks++;                                                                        \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* xorshift: the same bytes on every machine */
static uint32_t state = 2463534242u;
static uint32_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* A smooth picture, so that JPEG keeps it. */
static uint8_t pixel(int x, int y, int channel)
{
    return (uint8_t)(128 + 60 * sin(x * 0.11 + channel) + 50 * cos(y * 0.07 - channel));
}

typedef struct {
    uint8_t *data;
    unsigned long size;
} stream;

/* subsampling: 11 (4:4:4), 21 (4:2:2), 22 (4:2:0); colour as the TIFF tag says. */
static stream encode(int width, int height, int colour, int subsampling, int progressive)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    stream out = {NULL, 0};
    uint8_t *row = malloc((size_t)width * 3);

    CHECK(row != NULL);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &out.data, &out.size);
    jpeg.image_width = (JDIMENSION)width;
    jpeg.image_height = (JDIMENSION)height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 90, TRUE);
    if (colour == STAMP_RGB)
        jpeg_set_colorspace(&jpeg, JCS_RGB);
    jpeg.comp_info[0].h_samp_factor = subsampling / 10;
    jpeg.comp_info[0].v_samp_factor = subsampling % 10;
    if (progressive)
        jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                row[3 * x + c] = pixel(x, (int)jpeg.next_scanline, c);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    free(row);
    return out;
}

/* A copy of exactly `size` bytes, so that reading one too many is seen. */
static uint8_t *exactly(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    return copy;
}

static unsigned long sum_bytes(const uint8_t *data, size_t size)
{
    unsigned long total = 0;
    for (size_t i = 0; i < size; i++)
        total += data[i];
    return total;
}

static stamp_decoder *decoder(int colour, unsigned width, unsigned height, unsigned denominator)
{
    int status = -1;
    stamp_decoder *d = stamp_decoder_new(NULL, 0, colour, width, height, denominator, &status);
    CHECK(d != NULL && status == STAMP_OK);
    return d;
}

/* Assemble one tile out of a single storage tile; returns the status. */
static int assemble(const stamp_kernels *kernels, stamp_geometry geometry, const uint8_t *slot, uint8_t layout,
                    uint8_t cell, double x, double y, int tile_px, double scale, int exact, uint8_t *out)
{
    int32_t place = 0;
    stamp_mosaic mosaic = {slot, &place, &cell, &layout, geometry, 1, 1, 1, geometry.width, geometry.height};
    stamp_workspace *w = stamp_workspace_new(kernels, geometry, tile_px, scale, scale, exact);
    CHECK(w != NULL);
    int status = stamp_assemble(&mosaic, w, x, y, out);
    stamp_workspace_free(w);
    return status;
}

static void test_every_coding_and_scale(void)
{
    static const int codings[][2] = {{STAMP_RGB, 11}, {STAMP_YCBCR, 11}, {STAMP_YCBCR, 21}, {STAMP_YCBCR, 22}};
    static const unsigned sides[] = {64, 240, 256};
    const stamp_kernels *kernels[] = {stamp_kernels_plain(), stamp_kernels_best()};

    for (size_t c = 0; c < sizeof codings / sizeof *codings; c++)
        for (size_t s = 0; s < sizeof sides / sizeof *sides; s++)
            for (unsigned denominator = 1; denominator <= 8; denominator *= 2) {
                unsigned side = sides[s], small = side / denominator;
                stream jpeg = encode((int)side, (int)side, codings[c][0], codings[c][1], denominator == 4);
                uint8_t *bytes = exactly(jpeg.data, jpeg.size);
                stamp_decoder *d = decoder(codings[c][0], side, side, denominator);
                stamp_geometry geometry = stamp_decoder_geometry(d);
                uint8_t *slot = malloc(geometry.slot), layout = 255;
                CHECK(slot != NULL && geometry.width == (int)small && geometry.height == (int)small);
                memset(slot, 0xa5, geometry.slot);
                CHECK(stamp_decode(d, bytes, jpeg.size, slot, &layout) == STAMP_OK);
                CHECK(layout <= STAMP_PLANES_420);
                for (int k = 0; k < 2; k++)
                    for (int exact = 0; exact < 2; exact++) {
                        uint8_t *out = malloc((size_t)small * small * 3);
                        CHECK(out != NULL);
                        CHECK(assemble(kernels[k], geometry, slot, layout, STAMP_OK, 0, 0, (int)small, 1.0, exact, out) ==
                              STAMP_OK);
                        /* the middle of the picture, against what was drawn */
                        for (unsigned y = small / 4; y < small * 3 / 4; y++)
                            for (unsigned x = small / 4; x < small * 3 / 4; x++)
                                for (int channel = 0; channel < 3 && denominator == 1; channel++)
                                    CHECK(abs(out[(y * small + x) * 3 + (unsigned)channel] -
                                              pixel((int)x, (int)y, channel)) < 40);
                        free(out);
                    }
                free(slot);
                stamp_decoder_free(d);
                free(bytes);
                free(jpeg.data);
            }
}

static void test_places_and_scales_of_tiles(void)
{
    static const double places[] = {-70, -0.5, 0, 0.25, 17.3, 200, 239.9, 300};
    static const double scales[] = {1.0, 1.0104, 1.5, 2.0, 3.37, 7.9};
    static const int codings[][2] = {{STAMP_RGB, 11}, {STAMP_YCBCR, 21}, {STAMP_YCBCR, 22}};

    for (size_t c = 0; c < sizeof codings / sizeof *codings; c++) {
        stream jpeg = encode(240, 240, codings[c][0], codings[c][1], 0);
        stamp_decoder *d = decoder(codings[c][0], 240, 240, 1);
        stamp_geometry geometry = stamp_decoder_geometry(d);
        uint8_t *slot = calloc(1, geometry.slot), layout = 255;
        CHECK(slot != NULL);
        CHECK(stamp_decode(d, jpeg.data, jpeg.size, slot, &layout) == STAMP_OK);
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
            for (size_t i = 0; i < sizeof places / sizeof *places; i++)
                for (size_t j = 0; j < sizeof places / sizeof *places; j++)
                    for (int exact = 0; exact < 2; exact++) {
                        int tile_px = 33; /* odd, so that the last rows and columns are not whole vectors */
                        size_t size = (size_t)tile_px * (size_t)tile_px * 3;
                        uint8_t *out = malloc(size);
                        CHECK(out != NULL);
                        memset(out, 1, size);
                        int status = assemble(stamp_kernels_best(), geometry, slot, layout, STAMP_OK, places[i],
                                              places[j], tile_px, scales[s], exact, out);
                        CHECK(status == STAMP_OK);
                        unsigned long total = sum_bytes(out, size);
                        CHECK(total > 0);
                        if (places[i] >= 240 || places[j] >= 240)
                            CHECK(total == size * 255); /* beyond the image: white */
                        free(out);
                    }
        free(slot);
        stamp_decoder_free(d);
        free(jpeg.data);
    }
}

static void test_damaged_streams(void)
{
    stream jpeg = encode(128, 128, STAMP_YCBCR, 22, 0);
    stamp_decoder *d = decoder(STAMP_YCBCR, 128, 128, 1);
    stamp_geometry geometry = stamp_decoder_geometry(d);
    uint8_t *slot = calloc(1, geometry.slot), layout;
    int refused = 0;
    CHECK(slot != NULL);

    CHECK(stamp_decode(d, jpeg.data, 0, slot, &layout) == STAMP_MISSING);
    for (unsigned long size = 1; size < jpeg.size - 2; size += 1 + size / 40) {
        uint8_t *cut = exactly(jpeg.data, size);
        CHECK(stamp_decode(d, cut, size, slot, &layout) == STAMP_CORRUPT);
        CHECK(stamp_decoder_message(d)[0] != '\0');
        free(cut);
    }
    for (int round = 0; round < 3000; round++) {
        uint8_t *bytes = exactly(jpeg.data, jpeg.size);
        int flips = 1 + (int)(next_random() % 12);
        for (int i = 0; i < flips; i++)
            bytes[next_random() % jpeg.size] = (uint8_t)next_random();
        int status = stamp_decode(d, bytes, jpeg.size, slot, &layout);
        CHECK(status == STAMP_OK || status == STAMP_CORRUPT || status == STAMP_NO_MEMORY);
        if (status == STAMP_OK) {
            uint8_t out[64 * 64 * 3];
            CHECK(layout <= STAMP_PLANES_420);
            CHECK(assemble(stamp_kernels_best(), geometry, slot, layout, STAMP_OK, 3, 5, 64, 1.3, 0, out) == STAMP_OK);
            CHECK(sum_bytes(out, sizeof out) <= sizeof out * 255);
        } else {
            refused++;
        }
        free(bytes);
    }
    CHECK(refused > 1000);
    /* the decoder is as good as new */
    CHECK(stamp_decode(d, jpeg.data, jpeg.size, slot, &layout) == STAMP_OK);

    /* a stream of another size, and one of grey */
    stream other = encode(64, 128, STAMP_YCBCR, 22, 0);
    CHECK(stamp_decode(d, other.data, other.size, slot, &layout) == STAMP_CORRUPT);
    free(other.data);
    free(slot);
    stamp_decoder_free(d);
    free(jpeg.data);
}

static void test_what_is_not_decoded_is_told(void)
{
    stamp_geometry geometry = stamp_geometry_of(64, 64);
    uint8_t *slot = calloc(1, geometry.slot);
    uint8_t out[32 * 32 * 3];
    CHECK(slot != NULL);
    for (int status = STAMP_MISSING; status <= STAMP_CORRUPT; status++)
        CHECK(assemble(stamp_kernels_best(), geometry, slot, STAMP_PLANES_RGB, (uint8_t)status, 4, 4, 32, 1.0, 0, out) ==
              status);
    free(slot);
}

static void test_bad_arguments(void)
{
    int status = STAMP_OK;
    uint8_t junk[300];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = (uint8_t)next_random();
    stamp_decoder *d = stamp_decoder_new(junk, sizeof junk, STAMP_YCBCR, 64, 64, 1, &status);
    CHECK(d == NULL && status != STAMP_OK);
    stamp_decoder_free(NULL);
    stamp_workspace_free(NULL);
}

static void test_reading_a_file(void)
{
    FILE *file = tmpfile();
    CHECK(file != NULL);
    int fd = fileno(file), status = -1;
    CHECK(write(fd, "0123456789", 10) == 10);
    stamp_decoder *d = decoder(STAMP_RGB, 64, 64, 1);
    const uint8_t *bytes = stamp_decoder_read(d, fd, 4, 6, &status);
    CHECK(bytes != NULL && status == STAMP_OK && memcmp(bytes, "456789", 6) == 0);
    CHECK(stamp_decoder_read(d, fd, 4, 7, &status) == NULL && status == STAMP_CORRUPT);
    CHECK(stamp_decoder_read(d, fd, 0, (size_t)STAMP_MAX_TILE_BYTES + 1, &status) == NULL && status == STAMP_CORRUPT);
    CHECK(stamp_decoder_read(d, -1, 0, 4, &status) == NULL && status == STAMP_READ_ERROR);
    CHECK(stamp_decoder_message(d)[0] != '\0');
    stamp_decoder_free(d);
    fclose(file);
}

/* Weights sum to one: a picture of one colour keeps it, at every scale and fraction of a pixel. */
static void test_one_colour_stays_that_colour(void)
{
    static const double scales[] = {1.0, 1.002, 1.99, 2.0, 3.7, 7.4};
    static const uint8_t values[] = {0, 1, 127, 254, 255};
    stamp_geometry geometry = stamp_geometry_of(256, 256);
    uint8_t *slot = malloc(geometry.slot);
    uint8_t out[31 * 31 * 3];
    CHECK(slot != NULL);
    for (size_t v = 0; v < sizeof values; v++) {
        memset(slot, values[v], geometry.slot);
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
            for (double place = 0; place < 2; place += 0.37)
                for (int plain = 0; plain < 2; plain++) {
                    const stamp_kernels *kernels = plain ? stamp_kernels_plain() : stamp_kernels_best();
                    CHECK(assemble(kernels, geometry, slot, STAMP_PLANES_RGB, STAMP_OK, place, 1 - place / 2, 31,
                                   scales[s], 0, out) == STAMP_OK);
                    for (size_t i = 0; i < sizeof out; i++)
                        CHECK(out[i] == values[v]);
                }
    }
    free(slot);
}

int main(void)
{
    test_every_coding_and_scale();
    test_places_and_scales_of_tiles();
    test_damaged_streams();
    test_what_is_not_decoded_is_told();
    test_bad_arguments();
    test_reading_a_file();
    test_one_colour_stays_that_colour();
    printf("the C core: %d checks passed (kernels: %s)\n", checks, stamp_kernels_best()->name);
    return 0;
}
