"""Compiled loops over the rows of a round on a CPU.

Every coordinate is read once, and a tile of all rows stays in the first-level cache.

Loops take ``first`` and ``last``, the coordinates they work on, and let go of the interpreter's
lock, so that :func:`in_pieces` may give the pieces to several threads. Pieces are of a fixed size:
the order of a sum is part of its bits, and must not follow the threads.

Compiled code is kept beside the source (or in numba's cache folder), so only the first use on a
machine waits for the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# coordinates: a tile of 50 rows is 25 KiB. Measured, 64 to 1,024: 128 is the fastest for 20 and
# for 50 rows
TILE = 128
# coordinates whose squares are added in float32 before they go to float64: relative error 3e-9
# where d is 1,000,000; and coordinates that are mixed at a time, of 256 to 1,024 the fastest for 20
# and for 50 rows
RUN = 512
PIECE = 65_536  # coordinates in a piece, a multiple of both
CACHE_LINE = 8  # float64 values of 64 bytes

# Rows are finite, so a comparison never meets a NaN; sums of squares may be reordered, and stay
# within 1e-7 of the exact value.
ordered = numba.njit(
    nogil=True,
    cache=True,
    fastmath={"nnan", "nsz"},
)
summed = numba.njit(
    nogil=True,
    cache=True,
    fastmath={"nnan", "nsz", "reassoc", "contract"},
)


def in_pieces(
    work: Callable[[int, int, int], Any],
    d: int,
    threads: int,
) -> None:
    """``work(index, first, last)`` for every piece of d coordinates, on so many threads."""
    pieces = [
        (index, first, min(first + PIECE, d)) for index, first in enumerate(range(0, d, PIECE))
    ]
    if threads == 1 or len(pieces) == 1:
        for piece in pieces:
            work(*piece)
    else:
        with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
            _all(pool.map(lambda piece: work(*piece), pieces))


def _all(results: Iterable[Any]) -> None:
    for _ in results:  # raises what a thread raised
        pass


@ordered
def _sort(
    rows: Floats,
    among: Ints,
    start: int,
    width: int,
    pairs: Ints,
    tile: Floats,
) -> None:
    """Fill the tile with these rows and sort each coordinate: line i then holds the i-th smallest
    values.
    """
    for i in range(len(among)):
        line, row = tile[i], rows[among[i], start : start + width]
        for k in range(width):
            line[k] = row[k]
    for p in range(len(pairs)):
        low, high = tile[pairs[p, 0]], tile[pairs[p, 1]]
        for k in range(TILE):
            a, b = low[k], high[k]
            low[k] = a if a < b else b  # noqa: FURB136 -- becomes one instruction, unlike min
            high[k] = b if a < b else a  # noqa: FURB136


@ordered
def _signs(
    rows: Floats,
    start: int,
    width: int,
    total: Ints,
) -> None:
    """Per coordinate of a tile the sum of the signs."""
    for k in range(width):
        total[k] = 0
    for i in range(len(rows)):
        row = rows[i, start : start + width]
        for k in range(width):
            total[k] += np.int32(row[k] > 0.0) - np.int32(row[k] < 0.0)


@ordered
def ordered_mean(
    rows: Floats,
    first: int,
    last: int,
    pairs: Ints,
    low: int,
    high: int,
    votes: int,
    out: Floats,
) -> None:
    """Mean of the values at places low .. high - 1 of the ascending order.

    It is 0 where the |sum of signs| is less than ``votes``.
    """
    tile = np.zeros((len(rows), TILE), np.float32)
    among = np.arange(len(rows), dtype=np.int32)
    total = np.empty(TILE, np.float64)
    signs = np.zeros(TILE, np.int32)
    for start in range(first, last, TILE):
        width = min(TILE, last - start)
        if votes:
            _signs(rows, start, width, signs)
        _sort(rows, among, start, width, pairs, tile)
        total[:] = 0.0
        for i in range(low, high):
            line = tile[i]
            for k in range(TILE):
                total[k] += line[k]
        means = out[start : start + width]
        for k in range(width):
            means[k] = total[k] / (high - low) if abs(signs[k]) >= votes else 0.0


@ordered
def mean_around_median(
    rows: Floats,
    first: int,
    last: int,
    among: Ints,
    pairs: Ints,
    count: int,
    out: Floats,
) -> None:
    """Mean of the ``count`` values of the rows ``among`` that are nearest to the median.

    Of two equally far, the upper one is left out first. A value that has a lower place than
    ``surplus`` is left out where it is farther than the one ``count`` places above it.
    """
    n = len(among)
    surplus = n - count
    tile = np.zeros((n, TILE), np.float32)
    middle, low, total = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    for start in range(first, last, TILE):
        width = min(TILE, last - start)
        _sort(rows, among, start, width, pairs, tile)
        below, above = tile[(n - 1) // 2], tile[n // 2]
        for k in range(TILE):
            middle[k] = (np.float64(below[k]) + np.float64(above[k])) / 2
            low[k] = 0.0
            total[k] = 0.0
        for i in range(surplus):
            near, far = tile[i], tile[i + count]
            for k in range(TILE):
                left_out = middle[k] - near[k] > far[k] - middle[k]
                low[k] += 1.0 if left_out else 0.0
        for i in range(n):
            line = tile[i]
            if surplus <= i < count:  # kept whatever is left out
                for k in range(TILE):
                    total[k] += line[k]
            else:
                for k in range(TILE):
                    kept = (low[k] <= i) & (i < low[k] + count)
                    total[k] += line[k] if kept else 0.0
        means = out[start : start + width]
        for k in range(width):
            means[k] = total[k] / count


@ordered
def sign_sum(
    rows: Floats,
    first: int,
    last: int,
    out: Floats,
) -> None:
    """Per coordinate the sum of the signs."""
    signs = np.zeros(TILE, np.int32)
    for start in range(first, last, TILE):
        width = min(TILE, last - start)
        _signs(rows, start, width, signs)
        out[start : start + width] = signs[:width]


@summed
def squares(
    rows: Floats,
    first: int,
    last: int,
    out: Doubles,
) -> None:
    """Add the squared norms of all rows to out (n,)."""
    for start in range(first, last, RUN):
        stop = min(start + RUN, last)
        for i in range(len(rows)):
            row, total = rows[i, start:stop], np.float32(0)
            for k in range(len(row)):
                total += row[k] * row[k]
            out[i] += total


@summed
def squared_distances(
    rows: Floats,
    first: int,
    last: int,
    out: Doubles,
) -> None:
    """Add the squared distances of all pairs i < j to out (n, n).

    They are direct differences, four pairs at a time. The last pairs of a row go through the same
    loop, with its last partner in the empty places: a second loop for them would round differently,
    and equal rows would not have equal distances.
    """
    n = len(rows)
    for start in range(first, last, RUN):
        stop = min(start + RUN, last)
        for i in range(n - 1):
            x = rows[i, start:stop]
            for j in range(i + 1, n, 4):
                p, q = rows[j, start:stop], rows[min(j + 1, n - 1), start:stop]
                r, s = rows[min(j + 2, n - 1), start:stop], rows[min(j + 3, n - 1), start:stop]
                to_p, to_q, to_r, to_s = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for k in range(len(x)):
                    a, b, c, d = x[k] - p[k], x[k] - q[k], x[k] - r[k], x[k] - s[k]
                    to_p += a * a
                    to_q += b * b
                    to_r += c * c
                    to_s += d * d
                out[i, j] += to_p
                if j + 1 < n:
                    out[i, j + 1] += to_q
                if j + 2 < n:
                    out[i, j + 2] += to_r
                if j + 3 < n:
                    out[i, j + 3] += to_s


@ordered
def scaled(
    rows: Floats,
    factor: Doubles,
    first: int,
    last: int,
    out: Floats,
) -> None:
    """Write each row times its factor (n,) into the first columns of out: multiplied in float64 and
    rounded once.
    """
    for i in range(len(rows)):
        values, share = out[i], factor[i]
        row = rows[i, first:last]
        for k in range(len(row)):
            values[k] = row[k] * share


@summed
def squared_distance(one: Floats, other: Floats) -> float:
    """The squared distance of two rows in float64 throughout.

    It is for values whose squares leave the range of float32.
    """
    total = 0.0
    for k in range(len(one)):
        apart = np.float64(one[k]) - np.float64(other[k])
        total += apart * apart
    return total


@ordered
def mix(
    weight: Doubles,
    rows: Floats,
    first: int,
    last: int,
    lines_out: Ints,
    out: Floats,
) -> None:
    """Weighted sums (k, n) @ (n, d), added in float64 row by row, each into its line of out.

    Two sums and four rows go together, so that a value is read once for both; each sum still adds
    its rows one after the other, and rows of weight 0 add nothing. The last of an odd number of
    sums is made alone.
    """
    lines, n = weight.shape
    paired = lines - lines % 2
    fours = n + -n % 4
    share = np.zeros((lines, fours))
    share[:, :n] = weight
    used = np.zeros((lines, fours // 4), np.bool_)
    for line in range(lines):
        for i in range(n):
            used[line // 2, i // 4] |= weight[line, i] != 0.0
    tile, total = _aligned(fours), _aligned(2)
    for start in range(first, last, RUN):
        here = slice(start, min(start + RUN, last))
        width = here.stop - start
        if paired:
            for i in range(n):
                _move(rows[i, here], tile[i])
        for line in range(0, paired, 2):
            two = share[line : line + 2]
            total[:] = 0.0
            for i in range(0, n, 4):
                if used[line // 2, i // 4]:
                    _add_four(two[:, i : i + 4], tile[i : i + 4], total)
            _move(total[0, :width], out[lines_out[line], here])
            _move(total[1, :width], out[lines_out[line + 1], here])
        if paired < lines:
            total[:] = 0.0
            for i in range(n):
                if weight[paired, i] != 0.0:
                    _add(weight[paired, i], rows[i, here], total[0])
            _move(total[0, :width], out[lines_out[paired], here])


@ordered
def _aligned(lines: int) -> Doubles:
    """Zeros (lines, RUN) that begin a line of the cache: a vector that lies across two of them
    takes two reads.
    """
    zeros = np.zeros(lines * RUN + CACHE_LINE)
    skipped = -(zeros.ctypes.data // zeros.itemsize) % CACHE_LINE
    return zeros[skipped : skipped + lines * RUN].reshape((lines, RUN))


@ordered
def _move(values: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Write values where they are wanted, in the type that is wanted there."""
    for k in range(len(values)):
        out[k] = values[k]


@ordered
def _add(
    share: float,
    row: Floats,
    total: Doubles,
) -> None:
    """Add a row to a sum."""
    for k in range(len(row)):
        total[k] += share * row[k]


@ordered
def _add_four(
    share: Doubles,
    rows: Doubles,
    total: Doubles,
) -> None:
    """Add four rows to two sums, from left to right."""
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    one, other = total[0], total[1]
    p, q, r, s = share[0, 0], share[0, 1], share[0, 2], share[0, 3]
    t, u, v, w = share[1, 0], share[1, 1], share[1, 2], share[1, 3]
    for k in range(RUN):
        one[k] = one[k] + p * a[k] + q * b[k] + r * c[k] + s * d[k]
        other[k] = other[k] + t * a[k] + u * b[k] + v * c[k] + w * d[k]
