/* Decoding of one storage tile: a JPEG stream of a tiled TIFF or of a DICOM frame, at full or reduced scale. */
#ifndef STAMP_JPEG_TILE_H
#define STAMP_JPEG_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "planes.h"

/* How streams code colour, numbered as TIFF's photometric tag. */
enum stamp_colour { STAMP_UNSTATED = 0, STAMP_RGB = 2, STAMP_YCBCR = 6 };

/* A decoder and its buffers, reused from tile to tile; one per thread. */
typedef struct stamp_decoder stamp_decoder;

/*
 * A decoder of streams of width x height pixels at 1/denominator (1, 2, 4, 8), which divides both. tables is the
 * abbreviated stream that a TIFF directory shares (size 0: none); it is copied. colour is what the directory says: it
 * counts for streams that do not say themselves (JFIF or Adobe marker, components named R, G, B). *status tells why NULL
 * came back.
 */
stamp_decoder *stamp_decoder_new(const uint8_t *tables, size_t size, int colour, unsigned width, unsigned height,
                                 unsigned denominator, int *status);
void stamp_decoder_free(stamp_decoder *d);

/*
 * Decode a stream into a slot (see planes.h). Every stream begins with a library state of its own that knows the shared
 * tables and nothing else, so that no stream can change what comes of another. A warning of the library counts as
 * STAMP_CORRUPT: the pixels may be plausible and wrong.
 */
int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, uint8_t *slot, uint8_t *layout);

/* Where the planes of a slot lie. */
stamp_geometry stamp_decoder_geometry(const stamp_decoder *d);

/* The library's message of the last failure on this decoder. */
const char *stamp_decoder_message(const stamp_decoder *d);

/*
 * How a stream lies in its file: as it is; as a run of DICOM items (fragments), each with a header of 8 bytes; or as an
 * interval of a larger stream that restart markers cut, the marker that ends it included. What stands after the shared
 * tables' end, a frame's and a scan's header, is then put before each, and the marker becomes the end of an image.
 */
enum stamp_framing { STAMP_BARE = 0, STAMP_DICOM_ITEMS = 1, STAMP_INTERVAL = 2 };

/*
 * Join the fragments of a run of DICOM items to one stream, in place; *size is the run's, then the stream's. A sequence
 * delimiter ends the run. STAMP_CORRUPT where a header is no item's, or an item reaches beyond the run.
 */
int stamp_join_items(uint8_t *data, size_t *size);

/*
 * Read *size bytes at offset into the decoder's own buffer, grown as needed, and take the stream out of its framing: *size
 * is then the stream's. NULL with *status set on failure. Where the disk or network failed that is STAMP_READ_ERROR, which
 * says nothing of the file, with *error the system's errno.
 */
const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t *size, int framing, int *status,
                                  int *error);

/* Caps against hostile files. */
#define STAMP_MAX_TILE_SIDE 16384u
#define STAMP_MAX_TILE_BYTES (64u << 20)
#define STAMP_MAX_SCANS 64

#endif
