"""Area averaging compiled by numba; `area.py` says what it computes and gives the same bytes
without it.

Rows are summed first, in 16 and 32 bits, whole vectors at a time; then one cumulative sum per
channel runs along each output row, and cells are differences of it.
"""

import numba
import numpy as np

ROWS_A_SUM = 256  # rows of uint8 whose sum fits 16 bits

# Short, since numba needs the width of nearly every number said: a plain one is int64, and halves
# or quarters what a vector instruction holds.
u16 = np.uint16
u32 = np.uint32
i64 = np.int64


@numba.njit(nogil=True, cache=True)
def weigh_two(acc, top, top_weight, bottom, bottom_weight):
    """acc = a cell's first row and the row its end falls in, each times its weight."""
    for x in range(acc.size):
        acc[x] = top_weight * u32(top[x]) + bottom_weight * u32(bottom[x])


@numba.njit(nogil=True, cache=True)
def add_few(acc, block, weight):
    """acc += weight * the sum of one to three rows, in one pass."""
    first = block[0]
    if len(block) == 1:
        for x in range(acc.size):
            acc[x] += weight * u32(first[x])
        return
    second = block[1]
    if len(block) == 2:
        for x in range(acc.size):
            acc[x] += weight * (u32(first[x]) + u32(second[x]))
        return
    third = block[2]
    for x in range(acc.size):
        acc[x] += weight * (u32(first[x]) + u32(second[x]) + u32(third[x]))


@numba.njit(nogil=True, cache=True)
def add_many(acc, block, sums, weight):
    """acc += weight * the sum of four to ROWS_A_SUM rows, four and then two a pass, in 16 bits."""
    # Several rows a pass: the sums are then read and written less often than the pixels.
    first = block[0]
    second = block[1]
    third = block[2]
    fourth = block[3]
    for x in range(sums.size):
        sums[x] = u16(u16(first[x]) + u16(second[x]) + u16(third[x]) + u16(fourth[x]))
    for r in range(4, len(block) - 1, 2):
        first = block[r]
        second = block[r + 1]
        for x in range(sums.size):
            sums[x] = u16(sums[x] + u16(first[x]) + u16(second[x]))
    if len(block) % 2:
        first = block[len(block) - 1]
        for x in range(sums.size):
            sums[x] = u16(sums[x] + u16(first[x]))
    for x in range(sums.size):
        acc[x] += weight * u32(sums[x])


@numba.njit(nogil=True, cache=True)
def sum_rows(acc, sums, flat, first, first_part, last, last_part, whole):
    """acc = the rows of one cell, each times the part of it that the cell covers."""
    if first == last:
        # A cell within one row: enlarging.
        weigh_two(acc, flat[first], u32(last_part - first_part), flat[first], u32(0))
        return

    # The two rows that are covered in part; past the last row the weight is 0.
    bottom = flat[min(last, len(flat) - 1)]
    weigh_two(acc, flat[first], u32(whole - first_part), bottom, u32(last_part))

    # The whole rows between them.
    for r in range(first + 1, last, ROWS_A_SUM):
        block = flat[r : min(last, r + ROWS_A_SUM)]
        if len(block) < 4:
            add_few(acc, block, u32(whole))
        else:
            add_many(acc, block, sums, u32(whole))


@numba.njit(nogil=True, cache=True)
def edges_gray(edges, before, acc, index, part, whole):
    """edges[i] = whole times what lies before edge i of one row."""
    # What lies before each pixel, then before each edge.
    run = i64(0)
    for x in range(acc.size - 1):
        run += i64(acc[x])
        before[x + 1] = run
    for i in range(index.size):
        j = index[i]
        edges[i] = whole * before[j] + part[i] * i64(acc[j])


@numba.njit(nogil=True, cache=True)
def edges_colour(edges, before, acc, index, part, whole):
    """The same for three interleaved channels."""
    blue = i64(0)
    green = i64(0)
    red = i64(0)

    # A counter over pixels, not a stride: that is five times faster.
    for pixel in range(acc.size // 3 - 1):
        x = 3 * pixel
        blue += i64(acc[x])
        green += i64(acc[x + 1])
        red += i64(acc[x + 2])
        before[x + 3] = blue
        before[x + 4] = green
        before[x + 5] = red

    # The edges.
    for i in range(index.size):
        j = 3 * index[i]
        e = 3 * i
        edges[e] = whole * before[j] + part[i] * i64(acc[j])
        edges[e + 1] = whole * before[j + 1] + part[i] * i64(acc[j + 1])
        edges[e + 2] = whole * before[j + 2] + part[i] * i64(acc[j + 2])


@numba.njit(nogil=True, cache=True)
def divide(out, edges, channels, total):
    """out = differences of edges / total, rounded half up.

    Called with a literal number of channels, without which the loop is compiled for any stride:
    three times slower.
    """
    half = total // 2
    inverse = 1.0 / total

    # A float quotient, put right by its remainder: whole division does not come in vectors.
    for x in range(out.size):
        value = edges[x + channels] - edges[x] + half
        quotient = i64(np.float64(value) * inverse)
        rest = value - quotient * total
        out[x] = np.uint8(quotient + i64(rest >= total) - i64(rest < 0))


@numba.njit(nogil=True, cache=True)
def mean_compiled(
    flat, out, channels, row, row_part, row_whole, column, column_part, column_whole, total
):
    """flat (H, W * channels) uint8 -> out (cells, cells * channels) uint8.

    row, row_part, row_whole and column, ...: the fields of `area.Cells`; total: a cell's area.
    """
    width = flat.shape[1]
    # One pixel more: the last edge looks at it, with weight 0.
    acc = np.zeros(width + channels, np.uint32)
    sums = np.empty(width, np.uint16)
    before = np.zeros(width + channels, np.int64)
    edges = np.empty(column.size * channels, np.int64)

    # One output row at a time; these four buffers stay in the cache.
    for i in range(out.shape[0]):
        j = i + 1
        sum_rows(acc[:width], sums, flat, row[i], row_part[i], row[j], row_part[j], row_whole)
        if channels == 1:
            edges_gray(edges, before, acc, column, column_part, column_whole)
            divide(out[i], edges, 1, total)
        else:
            edges_colour(edges, before, acc, column, column_part, column_whole)
            divide(out[i], edges, 3, total)
