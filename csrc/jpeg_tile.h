/* Decoding of one storage tile: a JPEG stream of a tiled TIFF, at full or reduced scale. */
#ifndef STAMP_JPEG_TILE_H
#define STAMP_JPEG_TILE_H

#include <stddef.h>
#include <stdint.h>

enum stamp_status {
    STAMP_OK = 0,
    STAMP_MISSING = 1,
    STAMP_CORRUPT = 2,
    STAMP_NO_MEMORY = 3,
    STAMP_BAD_ARGUMENT = 4,
    STAMP_READ_ERROR = 5,
};

/* How the stream codes colour: what the TIFF's photometric tag says, whatever the stream claims. */
enum stamp_colour { STAMP_RGB = 2, STAMP_YCBCR = 6 };

/* A decoder and its buffers, reused from tile to tile; one a thread. */
typedef struct stamp_decoder stamp_decoder;

stamp_decoder *stamp_decoder_new(void);
void stamp_decoder_free(stamp_decoder *d);

/* Give the decoder the abbreviated stream of tables that a TIFF directory shares. size 0 forgets them. */
int stamp_decoder_tables(stamp_decoder *d, const uint8_t *tables, size_t size);

/*
 * Decode a JPEG stream of exactly width x height pixels at 1/denominator (1, 2, 4, 8) into RGB rows.
 * Only output rows [row0, row1) are written, the first of them to out; stride is in bytes.
 * A warning of the library counts as STAMP_CORRUPT: the pixels may be plausible and wrong.
 */
int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, int colour, unsigned width, unsigned height,
                 unsigned denominator, unsigned row0, unsigned row1, uint8_t *out, size_t stride);

/* The library's message of the last failure on this decoder. */
const char *stamp_decoder_message(const stamp_decoder *d);

/* Read size bytes at offset into the decoder's own buffer, grown as needed; NULL with *status set on failure. */
const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t size, int *status);

/* Caps against hostile files. */
#define STAMP_MAX_TILE_SIDE 16384u
#define STAMP_MAX_TILE_BYTES (64u << 20)
#define STAMP_MAX_SCANS 64

#endif
