"""Area averaging compiled by numba; `area.py` says what it computes and gives the same bytes without it.

Rows are summed first, in 16 and 32 bits, whole vectors at a time; then one cumulative sum per channel runs along each
output row, and cells are differences of it.
"""
import numba
import numpy as np

BLOCK = 256  # rows of uint8 whose sum fits 16 bits

u16, u32, i64 = np.uint16, np.uint32, np.int64


@numba.njit(nogil=True, cache=True)
def weigh(acc, row, weight):
    for x in range(row.size):
        acc[x] = weight * u32(row[x])


@numba.njit(nogil=True, cache=True)
def add_weighed(acc, row, weight):
    for x in range(row.size):
        acc[x] += weight * u32(row[x])


@numba.njit(nogil=True, cache=True)
def add_block(acc, block, sums, weight):
    """acc += weight * the sum of at most BLOCK rows."""
    if len(block) == 1:
        add_weighed(acc, block[0], weight)
        return
    first, second = block[0], block[1]
    for x in range(sums.size):
        sums[x] = u16(first[x]) + u16(second[x])
    for r in range(2, len(block) - 1, 2):
        first, second = block[r], block[r + 1]
        for x in range(sums.size):
            sums[x] = u16(sums[x] + u16(first[x]) + u16(second[x]))
    if len(block) % 2:
        last = block[len(block) - 1]
        for x in range(sums.size):
            sums[x] = u16(sums[x] + u16(last[x]))
    for x in range(sums.size):
        acc[x] += weight * u32(sums[x])


@numba.njit(nogil=True, cache=True)
def sum_rows(acc, sums, flat, first, first_part, last, last_part, whole):
    """acc = the rows of one cell, each times the part of it that the cell covers."""
    if first == last:
        weigh(acc, flat[first], u32(last_part - first_part))
        return
    weigh(acc, flat[first], u32(whole - first_part))
    for r in range(first + 1, last, BLOCK):
        add_block(acc, flat[r:min(last, r + BLOCK)], sums, u32(whole))
    if last_part > 0:
        add_weighed(acc, flat[last], u32(last_part))


@numba.njit(nogil=True, cache=True)
def edges_gray(edges, before, acc, index, part, whole):
    """edges[i] = whole times what lies before edge i of one row."""
    run = i64(0)
    for x in range(acc.size - 1):
        run += i64(acc[x])
        before[x + 1] = run
    for i in range(index.size):
        j = index[i]
        edges[i] = whole * before[j] + part[i] * i64(acc[j])


@numba.njit(nogil=True, cache=True)
def edges_colour(edges, before, acc, index, part, whole):
    """The same for three interleaved channels. A counter over pixels, not a stride: that is five times faster."""
    blue, green, red = i64(0), i64(0), i64(0)
    for pixel in range(acc.size // 3 - 1):
        x = 3 * pixel
        blue += i64(acc[x])
        green += i64(acc[x + 1])
        red += i64(acc[x + 2])
        before[x + 3], before[x + 4], before[x + 5] = blue, green, red
    for i in range(index.size):
        j, e = 3 * index[i], 3 * i
        edges[e] = whole * before[j] + part[i] * i64(acc[j])
        edges[e + 1] = whole * before[j + 1] + part[i] * i64(acc[j + 1])
        edges[e + 2] = whole * before[j + 2] + part[i] * i64(acc[j + 2])


@numba.njit(nogil=True, cache=True)
def divide(out, edges, channels, total):
    """out = differences of edges / total, rounded half up: a float quotient, put right by its remainder."""
    half, inverse = total // 2, 1.0 / total
    for x in range(out.size):
        value = edges[x + channels] - edges[x] + half
        quotient = i64(np.float64(value) * inverse)
        rest = value - quotient * total
        out[x] = np.uint8(quotient + i64(rest >= total) - i64(rest < 0))


@numba.njit(nogil=True, cache=True)
def mean_compiled(flat, out, channels, row, row_part, row_whole, column, column_part, column_whole, total):
    """flat (H, W * channels) uint8 -> out (cells, cells * channels) uint8."""
    width = flat.shape[1]
    acc = np.zeros(width + channels, np.uint32)  # one pixel more: the last edge looks at it, with weight 0
    sums = np.empty(width, np.uint16)
    before = np.zeros(width + channels, np.int64)
    edges = np.empty(column.size * channels, np.int64)
    for i in range(out.shape[0]):
        sum_rows(acc[:width], sums, flat, row[i], row_part[i], row[i + 1], row_part[i + 1], row_whole)
        if channels == 1:
            edges_gray(edges, before, acc, column, column_part, column_whole)
        else:
            edges_colour(edges, before, acc, column, column_part, column_whole)
        divide(out[i], edges, channels, total)
