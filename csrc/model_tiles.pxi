# Statistics and variations of whole model tiles.

from libc.stdlib cimport free, malloc


def tile_statistics(const uint8_t[:, :, :, ::1] tiles, const float[::1] density, const float[:, ::1] unmix):
    """Stain, focus and saturation of model tiles: float64 [N, S], in the order of tile_statistics.h.

    Parameters
    ----------
    tiles : uint8 [N, T, T, 3]
        T of 3 to 16,384.
    density : float32 [256]
        Optical density of each 8-bit value.
    unmix : float32 [3, 3]
        Concentration of stain k for a density of 1 in channel c, at [c, k].
    """
    cdef Py_ssize_t count = tiles.shape[0], side = tiles.shape[1], i
    if tiles.shape[2] != side or tiles.shape[3] != 3 or not 3 <= side <= 16384:
        raise ValueError("the tiles are not square RGB of 3 to 16384 px")
    if density.shape[0] != 256 or unmix.shape[0] != 3 or unmix.shape[1] != 3:
        raise ValueError("density must hold 256 values and unmix 3 x 3")
    found = np.empty((count, STAMP_STATISTICS))
    cdef double[:, ::1] out = found
    with nogil:
        for i in range(count):
            stamp_tile_statistics(&tiles[i, 0, 0, 0], <int>side, &density[0], &unmix[0, 0], &out[i, 0])
    return found


def vary_tiles(const uint8_t[:, :, :, ::1] tiles, const int64_t[::1] rows, const int32_t[:, ::1] corners,
               const uint8_t[::1] turns, const float[:, :, ::1] mix, const float[:, ::1] shift, const float[::1] mean,
               const float[::1] std, float[:, :, :, ::1] out):
    """Crops of some tiles, turned, stained otherwise and normalised, to `out`: float32 [n, 3, side, side].

    Parameters
    ----------
    tiles : uint8 [N, T, T, 3]
        May be mapped from a file: each pixel of a crop is read once.
    rows : int64 [n]
        Which tiles.
    corners : int32 [n, 2]
        Top and left of each crop, in pixels.
    turns : uint8 [n]
        4: transposed; then 1: mirrored left to right, 2: top to bottom.
    mix, shift : float32 [n or 0, 3, 3], [n or 0, 3]
        Optical densities d become mix @ d + shift; empty: they stay.
    mean, std : float32 [3]
        Of RGB in [0, 1], by channel.
    """
    cdef Py_ssize_t count = rows.shape[0], have = tiles.shape[1], side = out.shape[2], i
    cdef bint jitter = mix.shape[0] > 0
    if tiles.shape[2] != have or tiles.shape[3] != 3 or not 1 <= side <= have or have > 65536:
        raise ValueError("the tiles are not square RGB, or smaller than the crops")
    if out.shape[0] != count or out.shape[1] != 3 or out.shape[3] != side:
        raise ValueError("out must hold a square of three planes for each row")
    if corners.shape[0] != count or corners.shape[1] != 2 or turns.shape[0] != count:
        raise ValueError("each row needs a corner and a turn")
    if jitter and (mix.shape[0] != count or mix.shape[1] != 3 or mix.shape[2] != 3):
        raise ValueError("mix must hold 3 x 3 for each row")
    if jitter and (shift.shape[0] != count or shift.shape[1] != 3):
        raise ValueError("shift must hold 3 values for each row")
    if mean.shape[0] != 3 or std.shape[0] != 3:
        raise ValueError("mean and std must hold 3 values")
    for i in range(count):
        if not 0 <= rows[i] < tiles.shape[0]:
            raise ValueError(f"there is no tile {rows[i]}")
        if not (0 <= corners[i, 0] <= have - side and 0 <= corners[i, 1] <= have - side):
            raise ValueError(f"crop {i} leaves its tile")
        if turns[i] > 7:
            raise ValueError(f"{turns[i]} is no turn")
    cdef stamp_variation *variation = <stamp_variation *>malloc(sizeof(stamp_variation))
    cdef float *row = <float *>malloc(<size_t>side * 4 * sizeof(float))
    cdef ptrdiff_t along, down, step_x, step_y, last = side - 1
    cdef const uint8_t *first
    try:
        if variation == NULL or row == NULL:
            raise MemoryError("no memory to vary tiles")
        with nogil:
            if not jitter:
                stamp_variation_plain(&mean[0], &std[0], variation)
            for i in range(count):
                along = 3 * have if turns[i] & 4 else 3
                down = 3 if turns[i] & 4 else 3 * have
                first = &tiles[rows[i], corners[i, 0], corners[i, 1], 0]
                step_x, step_y = along, down
                if turns[i] & 1:
                    first, step_x = first + last * along, -along
                if turns[i] & 2:
                    first, step_y = first + last * down, -down
                if jitter:
                    stamp_variation_of(&mix[i, 0, 0], &shift[i, 0], &mean[0], &std[0], variation)
                stamp_vary_tile(first, step_x, step_y, <int>side, variation, row, &out[i, 0, 0, 0])
    finally:
        free(variation)
        free(row)
