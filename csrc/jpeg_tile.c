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
    int colour;
    unsigned width, height, denominator;
    stamp_geometry geometry;
    uint8_t *tables;
    size_t tables_size, lead_size; /* the lead is the end of the tables */
    int created;
    uint8_t *file_bytes;
    size_t file_capacity;
    uint8_t *row; /* one line of RGB, for the sampling factors that have no layout */
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

static void discard(stamp_decoder *d)
{
    if (d->created)
        jpeg_destroy_decompress(&d->jpeg);
    d->created = 0;
}

/* After a longjmp: what the library's message means. */
static int failure(stamp_decoder *d)
{
    int code = d->errors.base.msg_code;
    discard(d);
    return code == JERR_OUT_OF_MEMORY ? STAMP_NO_MEMORY : STAMP_CORRUPT;
}

static int fail(stamp_decoder *d, const char *message)
{
    snprintf(d->errors.message, sizeof d->errors.message, "%s", message);
    return STAMP_CORRUPT;
}

/* A library state that knows the shared tables and nothing else: nothing of an earlier stream can be in it. The caller
 * has set the escape. */
static int begin(stamp_decoder *d)
{
    discard(d);
    d->jpeg.err = jpeg_std_error(&d->errors.base);
    d->errors.base.error_exit = on_error;
    d->errors.base.emit_message = on_message;
    d->errors.base.output_message = on_output;
    jpeg_create_decompress(&d->jpeg);
    d->created = 1;
    d->jpeg.mem->max_memory_to_use = 256L << 20;
    d->progress.progress_monitor = on_progress;
    d->jpeg.progress = &d->progress;
    if (d->tables_size == 0)
        return STAMP_OK;
    jpeg_mem_src(&d->jpeg, d->tables, d->tables_size);
    if (jpeg_read_header(&d->jpeg, FALSE) != JPEG_HEADER_TABLES_ONLY)
        return fail(d, "the shared tables hold an image");
    d->lead_size = d->jpeg.src->bytes_in_buffer;
    return STAMP_OK;
}

static int check_tables(stamp_decoder *d)
{
    if (setjmp(d->errors.escape))
        return failure(d);
    return begin(d);
}

stamp_decoder *stamp_decoder_new(const uint8_t *tables, size_t size, int colour, unsigned width, unsigned height,
                                 unsigned denominator, int *status)
{
    stamp_decoder *d = calloc(1, sizeof *d);
    *status = STAMP_NO_MEMORY;
    if (d == NULL)
        return NULL;
    d->colour = colour;
    d->width = width;
    d->height = height;
    d->denominator = denominator;
    d->geometry = stamp_geometry_of(width / denominator, height / denominator);
    d->row = malloc((size_t)width * 3);
    d->tables = malloc(size > 0 ? size : 1);
    if (d->row != NULL && d->tables != NULL) {
        if (size > 0)
            memcpy(d->tables, tables, size);
        d->tables_size = size;
        *status = check_tables(d);
    }
    if (*status != STAMP_OK) {
        stamp_decoder_free(d);
        return NULL;
    }
    return d;
}

void stamp_decoder_free(stamp_decoder *d)
{
    if (d == NULL)
        return;
    discard(d);
    free(d->tables);
    free(d->row);
    free(d->file_bytes);
    free(d);
}

stamp_geometry stamp_decoder_geometry(const stamp_decoder *d)
{
    return d->geometry;
}

const char *stamp_decoder_message(const stamp_decoder *d)
{
    return d->errors.message;
}

/* The colour that a stream states by its markers or the names of its components; STAMP_UNSTATED where it says nothing,
 * -1 where two statements contradict each other. Components numbered 1, 2, 3 say nothing: libtiff numbers RGB so, too. */
static int stated_colour(const struct jpeg_decompress_struct *jpeg)
{
    const jpeg_component_info *c = jpeg->comp_info;
    int named_rgb = c[0].component_id == 'R' && c[1].component_id == 'G' && c[2].component_id == 'B';
    int rgb = named_rgb || (jpeg->saw_Adobe_marker && jpeg->Adobe_transform == 0);
    int ycbcr = jpeg->saw_JFIF_marker || (jpeg->saw_Adobe_marker && jpeg->Adobe_transform != 0);
    if (rgb && ycbcr)
        return -1;
    return rgb ? STAMP_RGB : ycbcr ? STAMP_YCBCR : STAMP_UNSTATED;
}

/* How the planes of a stream come out at the scale that has been set; -1: in no layout of ours. */
static int layout_of(const struct jpeg_decompress_struct *jpeg)
{
    const jpeg_component_info *c = jpeg->comp_info;
    if (c[0].h_samp_factor != jpeg->max_h_samp_factor || c[0].v_samp_factor != jpeg->max_v_samp_factor ||
        jpeg->max_h_samp_factor > 2 || jpeg->max_v_samp_factor > 2 || c[0].DCT_scaled_size != jpeg->min_DCT_scaled_size)
        return -1;
    if (c[1].h_samp_factor != c[2].h_samp_factor || c[1].v_samp_factor != c[2].v_samp_factor ||
        c[1].DCT_scaled_size != c[2].DCT_scaled_size)
        return -1;
    int across = c[0].h_samp_factor * c[0].DCT_scaled_size, chroma_across = c[1].h_samp_factor * c[1].DCT_scaled_size;
    int down = c[0].v_samp_factor * c[0].DCT_scaled_size, chroma_down = c[1].v_samp_factor * c[1].DCT_scaled_size;
    if (across == chroma_across && down == chroma_down)
        return jpeg->jpeg_color_space == JCS_RGB ? STAMP_PLANES_RGB : STAMP_PLANES_444;
    if (jpeg->jpeg_color_space == JCS_RGB || across != 2 * chroma_across)
        return -1;
    return down == chroma_down ? STAMP_PLANES_422 : down == 2 * chroma_down ? STAMP_PLANES_420 : -1;
}

/* Call the lines that follow a row group of `count` lines into the cache before they are written; the last group's lie
 * beyond the plane, where nothing is touched. */
static void prefetch_lines(const stamp_decoder *d, const uint8_t *row, int count, unsigned width)
{
    for (int i = count; i < 2 * count; i++)
        for (unsigned x = 0; x < width; x += 64)
            __builtin_prefetch((const void *)((uintptr_t)row + (size_t)i * d->geometry.stride + x), 1, 3);
}

/* The samples as coded, straight into the slot; colour conversion and upsampling are left to the mosaic. */
static int read_planes(stamp_decoder *d, uint8_t *slot)
{
    j_decompress_ptr jpeg = &d->jpeg;
    JSAMPROW rows[3][16];
    JSAMPARRAY planes[3] = {rows[0], rows[1], rows[2]};
    unsigned lines = (unsigned)(jpeg->max_v_samp_factor * jpeg->min_DCT_scaled_size);

    for (unsigned group = 0; jpeg->output_scanline < jpeg->output_height; group++) {
        for (int c = 0; c < 3; c++) {
            int count = jpeg->comp_info[c].v_samp_factor * jpeg->comp_info[c].DCT_scaled_size;
            uint8_t *first = slot + (size_t)c * d->geometry.plane + (size_t)group * (size_t)count * d->geometry.stride;
            for (int i = 0; i < count; i++)
                rows[c][i] = first + (size_t)i * d->geometry.stride;
            prefetch_lines(d, first, count, jpeg->comp_info[c].downsampled_width);
        }
        if (jpeg_read_raw_data(jpeg, planes, lines) == 0)
            return fail(d, "the stream ends early");
    }
    return STAMP_OK;
}

/* Any other sampling: converted by the library, kept as planes of RGB. */
static int read_rgb(stamp_decoder *d, uint8_t *slot)
{
    j_decompress_ptr jpeg = &d->jpeg;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *out = slot + (size_t)jpeg->output_scanline * d->geometry.stride;
        if (jpeg_read_scanlines(jpeg, &d->row, 1) == 0)
            return fail(d, "the stream ends early");
        for (int x = 0; x < d->geometry.width; x++)
            for (int c = 0; c < 3; c++)
                out[(size_t)c * d->geometry.plane + (size_t)x] = d->row[3 * x + c];
    }
    return STAMP_OK;
}

/* Whether the coded picture holds a long run of zero bytes, as a lost sector leaves it. Most decoders take it for a
 * picture. It can be one only where each component codes an empty block in zeros: where the first, all-zero code of its
 * AC table is "end of block". With other tables such a run would be blocks of coefficients that are all the same.
 * To be called when the header has been read; looks at every LOST_RUN / 2nd byte. */
enum { LOST_RUN = 64 };

static int lost_sector(const struct jpeg_decompress_struct *jpeg)
{
    if (jpeg->progressive_mode || jpeg->arith_code)
        return 0;
    int possible = 1;
    for (int i = 0; i < jpeg->num_components; i++) {
        int number = jpeg->comp_info[i].ac_tbl_no; /* as the stream says: the library checks it only later */
        if (number < 0 || number >= NUM_HUFF_TBLS || jpeg->ac_huff_tbl_ptrs[number] == NULL)
            return 0;
        possible = possible && jpeg->ac_huff_tbl_ptrs[number]->huffval[0] == 0;
    }
    if (possible)
        return 0;
    const uint8_t *scan = jpeg->src->next_input_byte;
    size_t size = jpeg->src->bytes_in_buffer;
    for (size_t i = LOST_RUN / 2; i < size; i += LOST_RUN / 2) {
        if (scan[i] != 0)
            continue;
        size_t first = i, end = i + 1;
        while (first > 0 && scan[first - 1] == 0)
            first--;
        while (end < size && scan[end] == 0)
            end++;
        if (end - first >= LOST_RUN) {
            /* what follows the end of the image is padding, and nobody's loss */
            for (size_t k = 1; k < first; k++)
                if (scan[k - 1] == 0xFF && scan[k] == 0xD9)
                    return 0;
            return 1;
        }
        i = end - 1;
    }
    return 0;
}

static int decode(stamp_decoder *d, const uint8_t *data, size_t size, uint8_t *slot, uint8_t *layout)
{
    j_decompress_ptr jpeg = &d->jpeg;
    int status = begin(d);

    if (status != STAMP_OK)
        return status;
    jpeg_mem_src(jpeg, data, size);
    if (jpeg_read_header(jpeg, TRUE) != JPEG_HEADER_OK)
        return fail(d, "no image in the stream");
    if (jpeg->image_width != d->width || jpeg->image_height != d->height || jpeg->num_components != 3 ||
        jpeg->data_precision != 8)
        return fail(d, "the stream's size or kind is not the directory's");
    if (lost_sector(jpeg))
        return fail(d, "a part of the stream reads as zeros: a lost sector");
    int colour = stated_colour(jpeg);
    if (colour < 0)
        return fail(d, "the stream states two colour spaces");
    if (colour == STAMP_UNSTATED)
        colour = d->colour;

    jpeg->jpeg_color_space = colour == STAMP_RGB ? JCS_RGB : JCS_YCbCr;
    jpeg->out_color_space = JCS_RGB;
    jpeg->scale_num = 1;
    jpeg->scale_denom = d->denominator;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_calc_output_dimensions(jpeg);
    int found = layout_of(jpeg);
    jpeg->raw_data_out = found >= 0;
    jpeg_start_decompress(jpeg);
    if (jpeg->output_width != (unsigned)d->geometry.width || jpeg->output_height != (unsigned)d->geometry.height)
        return fail(d, "the decoded size is not the expected one");
    status = found >= 0 ? read_planes(d, slot) : read_rgb(d, slot);
    if (status != STAMP_OK)
        return status;
    jpeg_finish_decompress(jpeg);
    *layout = (uint8_t)(found >= 0 ? found : STAMP_PLANES_RGB);
    return STAMP_OK;
}

int stamp_decode(stamp_decoder *d, const uint8_t *data, size_t size, uint8_t *slot, uint8_t *layout)
{
    if (size == 0)
        return STAMP_MISSING;
    if (setjmp(d->errors.escape))
        return failure(d);
    int status = decode(d, data, size, slot, layout);
    discard(d);
    return status;
}

static uint32_t little_endian(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int stamp_join_items(uint8_t *data, size_t *size)
{
    enum { HEADER = 8 };
    const uint32_t item = 0xe000fffe, delimiter = 0xe0ddfffe; /* group, then element, each little-endian */
    size_t from = 0, to = 0;
    while (from < *size) {
        if (*size - from < HEADER)
            return STAMP_CORRUPT;
        uint32_t tag = little_endian(data + from), length = little_endian(data + from + 4);
        if (tag == delimiter && from > 0)
            break;
        if (tag != item || length > *size - from - HEADER)
            return STAMP_CORRUPT;
        memmove(data + to, data + from + HEADER, length);
        from += HEADER + length;
        to += length;
    }
    *size = to;
    return STAMP_OK;
}

const uint8_t *stamp_decoder_read(stamp_decoder *d, int fd, uint64_t offset, size_t *bytes, int framing, int *status,
                                  int *error)
{
    size_t size = *bytes, lead = framing == STAMP_INTERVAL ? d->lead_size : 0;
    if (size > STAMP_MAX_TILE_BYTES) {
        snprintf(d->errors.message, sizeof d->errors.message, "a storage tile of %zu bytes", size);
        *status = STAMP_CORRUPT;
        return NULL;
    }
    if (lead + size > d->file_capacity) {
        size_t capacity = lead + size + size / 2;
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
        ssize_t got = pread(fd, d->file_bytes + lead + done, size - done, (off_t)(offset + done));
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            snprintf(d->errors.message, sizeof d->errors.message, "the file ends inside a storage tile");
            *status = STAMP_CORRUPT;
            return NULL;
        } else if (errno != EINTR) {
            *error = errno;
            *status = STAMP_READ_ERROR;
            return NULL;
        }
    }
    if (framing == STAMP_INTERVAL) {
        uint8_t *end = d->file_bytes + lead + size;
        memcpy(d->file_bytes, d->tables + d->tables_size - lead, lead);
        if (size >= 2 && end[-2] == 0xFF && end[-1] >= 0xD0 && end[-1] <= 0xD7)
            end[-1] = 0xD9;
        *bytes = lead + size;
    }
    *status = framing == STAMP_DICOM_ITEMS ? stamp_join_items(d->file_bytes, bytes) : STAMP_OK;
    if (*status != STAMP_OK)
        fail(d, "the frame is no run of DICOM items");
    return *status == STAMP_OK ? d->file_bytes : NULL;
}
