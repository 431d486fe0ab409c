/*
 * The decode ceiling: JPEG streams that already lie in memory, decoded by libjpeg-turbo at one scale into one
 * reused buffer, and nothing else. What the tiler does is compared with this.
 *
 * cc -O3 -shared -fPIC decode_ceiling.c -ljpeg; called by bench_tiler.py through ctypes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <jpeglib.h>

/* Seconds to decode `count` streams at `data + offsets[i]`, `sizes[i]` bytes each; -1 if a stream fails. */
double decode_ceiling(const uint8_t *data, const int64_t *offsets, const int64_t *sizes, int64_t count,
                      const uint8_t *tables, size_t tables_size, int rgb_coded, unsigned denominator, uint8_t *out,
                      size_t out_size)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct timespec start, end;

    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    if (tables_size > 0) {
        jpeg_mem_src(&jpeg, tables, tables_size);
        jpeg_read_header(&jpeg, FALSE);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int64_t i = 0; i < count; i++) {
        jpeg_mem_src(&jpeg, data + offsets[i], (unsigned long)sizes[i]);
        jpeg_read_header(&jpeg, TRUE);
        jpeg.jpeg_color_space = rgb_coded ? JCS_RGB : JCS_YCbCr;
        jpeg.out_color_space = JCS_RGB;
        jpeg.scale_num = 1;
        jpeg.scale_denom = denominator;
        jpeg_start_decompress(&jpeg);
        size_t stride = (size_t)jpeg.output_width * 3;
        if (stride * jpeg.output_height > out_size)
            return -1;
        while (jpeg.output_scanline < jpeg.output_height) {
            JSAMPROW rows[16];
            for (unsigned r = 0; r < 16; r++)
                rows[r] = out + stride * (jpeg.output_scanline + r < jpeg.output_height ? jpeg.output_scanline + r : 0);
            jpeg_read_scanlines(&jpeg, rows, 16);
        }
        jpeg_finish_decompress(&jpeg);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    jpeg_destroy_decompress(&jpeg);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}
