/*
 * libFuzzer target: one storage tile, decoded at two scales (two levels of a pyramid) and assembled into model tiles with
 * or without resampling. The levels are three storage tiles wide and two high; any of them may be left out, missing,
 * corrupt or not decoded, and the image may end anywhere in the last ones. Every pixel is looked at, nothing outside the
 * slots may be read, the SIMD kernels must agree with the plain ones, and what another stream left behind must not show.
 *
 * Input: four bytes of choices (size and colour; scales; which storage tiles are there; where the image ends), two bytes
 * (big-endian) of length of the shared tables, the tables, two bytes of length of another stream, that stream (decoded
 * before, as a neighbour would be), the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg_tile.h"
#include "mosaic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

/* make_corpus.py has the same list; odd sides, too, which chroma samples do not fit */
static const struct {
    unsigned width, height;
} sizes[] = {{64, 64}, {240, 240}, {16, 16}, {48, 80}, {104, 72},  {256, 16}, {24, 8},  {128, 128},
             {61, 64}, {64, 45},   {75, 33}, {17, 17}, {255, 31}, {9, 201},  {8, 8}, {127, 129}};

static const double scales[] = {1, 1.9794, 1.25, 3};

enum { TILE = 43, COLUMNS = 3, ROWS = 2, CELLS = COLUMNS * ROWS }; /* TILE: more than the widest kernel takes at once */

/* Model tiles at and across the borders; some start on odd pixels, some on fractions. */
static void assemble(const stamp_mosaic *m, double scale, int exact, unsigned shift)
{
    static uint8_t out[2][TILE * TILE * 3];
    volatile unsigned looked = 0;
    stamp_workspace *plain = stamp_workspace_new(stamp_kernels_at(0), m->geometry, TILE, scale, scale, exact);
    if (plain == NULL)
        abort();
    int w = m->geometry.width, h = m->geometry.height;
    const double xs[] = {-TILE * 0.75 + shift, w - 1 + (int)(shift % 3), w + 0.25 * shift, 2 * w - TILE * scale};
    const double ys[] = {1 - (int)(shift % 4), h - 1 + 0.25 * shift};
    for (int kind = 1; stamp_kernels_at(kind) != NULL; kind++) {
        stamp_workspace *other = stamp_workspace_new(stamp_kernels_at(kind), m->geometry, TILE, scale, scale, exact);
        if (other == NULL)
            abort();
        for (size_t i = 0; i < sizeof xs / sizeof *xs * (sizeof ys / sizeof *ys); i++) {
            double x = xs[i % (sizeof xs / sizeof *xs)], y = ys[i / (sizeof xs / sizeof *xs)];
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

typedef struct {
    const uint8_t *data;
    size_t size;
} part;

/* Cut a part with two bytes of length off the front. */
static part take(part *rest)
{
    part taken = {rest->data, 0};
    if (rest->size < 2)
        return taken;
    taken.size = (size_t)rest->data[0] << 8 | rest->data[1];
    taken.data = rest->data + 2;
    rest->data += 2;
    rest->size -= 2;
    if (taken.size > rest->size)
        taken.size = rest->size;
    rest->data += taken.size;
    rest->size -= taken.size;
    return taken;
}

static void level(const uint8_t *choice, unsigned denominator, part tables, part before, part stream)
{
    unsigned which = choice[0] & 15, colour = choice[0] & 16 ? STAMP_RGB : STAMP_YCBCR;
    unsigned width = sizes[which].width, height = sizes[which].height;
    int status, fresh;
    if (width % denominator || height % denominator)
        return;
    stamp_decoder *d = stamp_decoder_new(tables.data, tables.size, (int)colour, width, height, denominator, &status);
    if (d == NULL)
        return;
    stamp_geometry g = stamp_decoder_geometry(d);
    /* two slots, with a slot that nobody may touch before and after them */
    uint8_t *room = malloc(4 * g.slot), *pool = room + g.slot, first, second;
    if (room == NULL)
        abort();
    memset(room, 1, 4 * g.slot);
    ASAN_POISON_MEMORY_REGION(room, g.slot);
    ASAN_POISON_MEMORY_REGION(room + 3 * g.slot, g.slot);
    fresh = stamp_decode(d, stream.data, stream.size, pool, &first);
    /* after another stream, whatever that was: the same status and the same samples */
    stamp_decode(d, before.data, before.size, pool + g.slot, &second);
    memset(pool + g.slot, 1, g.slot);
    status = stamp_decode(d, stream.data, stream.size, pool + g.slot, &second);
    if (status != fresh || (status == STAMP_OK && (first != second || memcmp(pool, pool + g.slot, g.slot) != 0)))
        abort();
    static const uint8_t others[] = {STAMP_BACKGROUND, STAMP_MISSING, STAMP_CORRUPT, STAMP_UNREAD};
    uint8_t layout[CELLS], state[CELLS];
    int32_t slot[CELLS];
    for (int cell = 0; cell < CELLS; cell++) {
        int there = status == STAMP_OK && choice[2] >> cell & 1;
        state[cell] = there ? STAMP_OK : others[(choice[2] >> 6) & (cell % 2 ? 3 : 2)];
        slot[cell] = there ? cell % 2 : -1;
        layout[cell] = there ? second : 0;
    }
    stamp_mosaic m = {pool, slot, state, layout, g, COLUMNS, ROWS, 2, 2 * g.width + 1 + choice[3] % g.width,
                      g.height + 1 + (choice[3] >> 3) % g.height};
    assemble(&m, scales[choice[1] >> 2 & 3], choice[1] >> 4 & 1, choice[1] >> 5);
    ASAN_UNPOISON_MEMORY_REGION(room, 4 * g.slot);
    free(room);
    stamp_decoder_free(d);
}

/* The input as a run of DICOM items: no more comes out than went in, whatever the headers say. */
static void join(const uint8_t *data, size_t size)
{
    uint8_t *run = malloc(size + 8);
    if (run == NULL)
        abort();
    memcpy(run, "\xfe\xff\x00\xe0\x05\x00\x00\x00", 8); /* a first item of five bytes, so that some runs are sound */
    memcpy(run + 8, data, size);
    size_t joined = size + 8;
    if (stamp_join_items(run, &joined) == STAMP_OK && joined > size)
        abort();
    free(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    join(data, size);
    part rest = {data + 4, size - 4};
    part tables = take(&rest), before = take(&rest);
    unsigned denominator = 1u << (data[1] & 3);
    level(data, denominator, tables, before, rest);
    level(data, denominator == 8 ? 1 : 2 * denominator, tables, before, rest);
    return 0;
}
