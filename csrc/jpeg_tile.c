/* Decoding of one storage tile by libjpeg-turbo. No globals, no Python; one decoder a thread. */
#include "jpeg_tile.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jerror.h>
#include <jpeglib.h>

typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
} error_manager;

struct stamp_decoder {
    struct jpeg_decompress_struct jpeg;
    error_manager errors;
    struct jpeg_progress_mgr progress;
    uint8_t *file_bytes;
    size_t file_capacity;
    int ready;
};

static void on_error(j_common_ptr info)
{
    error_manager *errors = (error_manager *)info->err;
    errors->base.format_message(info, errors->message);
    longjmp(errors->escape, 1);
}

/* msg_level -1 is a warning about corrupt data: stop there. Traces are dropped. */
static void on_message(j_common_ptr info, int level)
{
    if (level < 0)
        on_error(info);
}

static void on_output(j_common_ptr info)
{
    (void)info;
}

/* A progressive stream may hold thousands of scans: decoding work without bound. */
static void on_progress(j_common_ptr info)
{
    if (((j_decompress_ptr)info)->input_scan_number > STAMP_MAX_SCANS) {
        error_manager *errors = (error_manager *)info->err;
        snprintf(errors->message, sizeof errors->message, "more than %d scans", STAMP_MAX_SCANS);
        longjmp(errors->escape, 1);
    }
}

stamp_decoder *stamp_decoder_new(void)
{
    stamp_decoder *d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->jpeg.err = jpeg_std_error(&d->errors.base);
    d->errors.base.error_exit = on_error;
    d->errors.base.emit_message = on_message;
    d->errors.base.output_message = on_output;
    if (setjmp(d->errors.escape)) {
        free(d);
        return NULL;
    }
    jpeg_create_decompress(&d->jpeg);
    d->jpeg.mem->max_memory_to_use = 256L << 20;
    d->progress.progress_monitor = on_progress;
    d->jpeg.progress = &d->progress;
    d->ready = 1;
    return d;
}

void stamp_decoder_free(stamp_decoder *d)
{
    if (d == NULL)
        return;
    if (d->ready)
        jpeg_destroy_decompress(&d->jpeg);
    free(d->file_bytes);
    free(d);
}

const char *stamp_decoder_message(const stamp_decoder *d)
{
    return d->errors.message;
}

int stamp_decoder_tables(stamp_decoder *d, const uint8_t *tables, size_t size)
{
    if (size == 0)
        return STAMP_OK;
    if (setjmp(d->errors.escape)) {
        jpeg_abort_decompress(&d->jpeg);
        return STAMP_CORRUPT;
    }
    jpeg_mem_src(&d->jpeg, tables, size);
    int found = jpeg_read_header(&d->jpeg, FALSE);
    jpeg_abort_decompress(&d->jpeg);
    return found == JPEG_HEADER_TABLES_ONLY ? STAMP_OK : STAMP_CORRUPT;
}

static int fail(stamp_decoder *d, const char *message)
{
    snprintf(d->errors.message, sizeof d->errors.message, "%s", message);
    jpeg_abort_decompress(&d->jpeg);
    return STAMP_CORRUPT;
}

int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, int colour, unsigned width, unsigned height,
                 unsigned denominator, unsigned row0, unsigned row1, uint8_t *out, size_t stride)
{
    j_decompress_ptr jpeg = &d->jpeg;

    d->errors.message[0] = '\0';
    if (size == 0)
        return STAMP_MISSING;
    if (setjmp(d->errors.escape)) {
        jpeg_abort_decompress(jpeg);
        return STAMP_CORRUPT;
    }
    d->errors.base.num_warnings = 0;
    jpeg_mem_src(jpeg, data, size);
    if (jpeg_read_header(jpeg, TRUE) != JPEG_HEADER_OK)
        return fail(d, "no image in the stream");
    if (jpeg->image_width != width || jpeg->image_height != height || jpeg->num_components != 3 ||
        jpeg->data_precision != 8)
        return fail(d, "the stream's size or kind is not the directory's");

    jpeg->jpeg_color_space = colour == STAMP_RGB ? JCS_RGB : JCS_YCbCr;
    jpeg->out_color_space = JCS_RGB;
    jpeg->scale_num = 1;
    jpeg->scale_denom = denominator;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(jpeg);
    if (row1 > jpeg->output_height || row0 >= row1)
        return fail(d, "rows out of range");
    if (row0 > 0 && jpeg_skip_scanlines(jpeg, row0) != row0)
        return fail(d, "rows cannot be skipped");
    while (jpeg->output_scanline < row1) {
        JSAMPROW rows[16];
        unsigned left = row1 - jpeg->output_scanline;
        unsigned count = left < 16 ? left : 16;
        uint8_t *next = out + (size_t)(jpeg->output_scanline - row0) * stride;
        for (unsigned i = 0; i < count; i++)
            rows[i] = next + i * stride;
        if (jpeg_read_scanlines(jpeg, rows, count) == 0)
            return fail(d, "the stream ends early");
    }
    if (row1 == jpeg->output_height)
        jpeg_finish_decompress(jpeg);
    else
        jpeg_abort_decompress(jpeg);
    return STAMP_OK;
}

const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t size, int *status)
{
    if (size > STAMP_MAX_TILE_BYTES) {
        snprintf(d->errors.message, sizeof d->errors.message, "a storage tile of %zu bytes", size);
        *status = STAMP_CORRUPT;
        return NULL;
    }
    if (size > d->file_capacity) {
        size_t capacity = size + size / 2;
        uint8_t *grown = realloc(d->file_bytes, capacity);
        if (grown == NULL) {
            *status = STAMP_NO_MEMORY;
            return NULL;
        }
        d->file_bytes = grown;
        d->file_capacity = capacity;
    }
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, d->file_bytes + done, size - done, (off_t)(offset + done));
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            snprintf(d->errors.message, sizeof d->errors.message, "the file ends inside a storage tile");
            *status = STAMP_CORRUPT;
            return NULL;
        } else if (errno != EINTR) {
            snprintf(d->errors.message, sizeof d->errors.message, "%s", strerror(errno));
            *status = STAMP_READ_ERROR;
            return NULL;
        }
    }
    *status = STAMP_OK;
    return d->file_bytes;
}
