/*
 * libFuzzer target: one storage tile, decoded and assembled into model tiles with or without resampling. Every pixel
 * is looked at, and the SIMD kernels must agree with the plain ones.
 *
 * Input: two bytes of choices (size and colour; scales), two bytes (big-endian) of length of the shared tables, the
 * tables, the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg_tile.h"
#include "mosaic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    unsigned width, height;
} sizes[] = {{64, 64}, {240, 240}, {16, 16}, {48, 80}, {104, 72}, {256, 16}, {24, 8}, {128, 128}};

static const double scales[] = {1, 1.9794, 1.25, 3};

enum { TILE = 43 }; /* more than the widest kernel takes at once, and no multiple of it */

static void assemble(const stamp_mosaic *m, double scale, int exact)
{
    static uint8_t out[2][TILE * TILE * 3];
    volatile unsigned looked = 0;
    stamp_workspace *plain = stamp_workspace_new(stamp_kernels_at(0), m->geometry, TILE, scale, scale, exact);
    if (plain == NULL)
        abort();
    for (int kind = 1; stamp_kernels_at(kind) != NULL; kind++) {
        stamp_workspace *other = stamp_workspace_new(stamp_kernels_at(kind), m->geometry, TILE, scale, scale, exact);
        if (other == NULL)
            abort();
        for (int i = 0; i < 6; i++) {
            double x = (i % 3 - 1) * TILE * 0.75, y = (i / 3) * TILE * 0.5;
            int a = stamp_assemble(m, other, x, y, out[0]), b = stamp_assemble(m, plain, x, y, out[1]);
            if (a != b || (a == STAMP_OK && memcmp(out[0], out[1], sizeof out[0]) != 0))
                abort();
            for (size_t p = 0; a == STAMP_OK && p < sizeof out[0]; p++)
                looked += out[0][p];
        }
        stamp_workspace_free(other);
    }
    stamp_workspace_free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    unsigned which = data[0] & 7, colour = data[0] & 8 ? STAMP_RGB : STAMP_YCBCR, denominator = 1u << (data[1] & 3);
    double scale = scales[data[1] >> 2 & 3];
    int exact = data[1] >> 4 & 1, status;
    size_t tables = (size_t)data[2] << 8 | data[3];
    data += 4;
    size -= 4;
    if (tables > size)
        tables = size;
    stamp_decoder *d = stamp_decoder_new(data, tables, (int)colour, sizes[which].width, sizes[which].height, denominator,
                                         &status);
    if (d == NULL)
        return 0;
    stamp_geometry g = stamp_decoder_geometry(d);
    uint8_t *pool = malloc(2 * g.slot);
    if (pool == NULL)
        abort();
    memset(pool, 1, 2 * g.slot);
    uint8_t layout[2] = {0, 0}, state[2];
    int32_t slot[2] = {0, 1};
    /* twice: what the first decode leaves behind must not change the second */
    for (int i = 0; i < 2; i++)
        state[i] = (uint8_t)stamp_decode(d, data + tables, size - tables, pool + (size_t)i * g.slot, layout + i);
    if (state[0] != state[1] || (state[0] == STAMP_OK && layout[0] != layout[1]))
        abort();
    stamp_mosaic m = {pool, slot, state, layout, g, 2, 1, 2, 2 * g.width - 3, g.height};
    assemble(&m, scale, exact);
    free(pool);
    stamp_decoder_free(d);
    return 0;
}
