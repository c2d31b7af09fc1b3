"""Shared numerics on the rows of a round: order statistics, signs, norms, distances, angles.

Rows are (n, d) float32 and finite: the platform takes out all others before a defense sees them.
Everything goes through the coordinates in pieces that fit a processor's cache, so the extra memory
is a small part of the matrix.

Results per coordinate (means of ordered values, signs) are made of minima, maxima and sums over the
rows in a fixed order, so they do not depend on the number of threads or on the pieces.
:func:`norms` and :func:`distances` add up coordinates in pieces of a fixed size, for the same
reason, and are computed once for a matrix, whichever stages of a chain ask for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.kernels import sections

# Without numba the rows on a CPU go through the kernels of a GPU as well: more slowly, and with
# other last digits. The fingerprint of a run says so.
COMPILED = find_spec("numba") is not None
STRIP = 4096  # coordinates that are changed at a time before they are added up, whole runs of them


def _in_torch(rows: Tensor) -> bool:
    """Whether the loops over the rows are calls of torch, not compiled ones."""
    return rows.is_cuda or not COMPILED


def _times(share: float, n: int) -> Fraction:
    """``share * n`` for what the share means: a ratio of two counts, or a decimal number.

    It is a ratio where one of counts up to ``2 n`` has this very floating-point value, and else its
    decimal text. 1 / 3 of 3 is 1 so, and 0.6 of 20 is 12; the denominator ``2 n`` is for halves,
    which are rounded up.

    A decimal of at most fifteen digits that is no such ratio cannot be mistaken for one while n is
    below 10⁷.
    """
    halves = round(share * 2 * n)
    if n and halves / (2 * n) == share:
        return Fraction(halves, 2)
    return Fraction(str(share)) * n


@lru_cache(maxsize=4096)
def floor_count(share: float, n: int) -> int:
    """The largest integer ``<= share * n``, the share read as a ratio of counts or a decimal.

    >>> floor_count(0.55, 20), int(0.29 * 100), floor_count(0.29, 100), floor_count(1 / 3, 3)
    (11, 28, 29, 1)
    """
    return floor(_times(share, n))


@lru_cache(maxsize=4096)
def ceil_count(share: float, n: int) -> int:
    """The smallest integer ``>= share * n``, the share read as a ratio of counts or a decimal.

    >>> ceil_count(0.6, 20), ceil_count(0.07, 100), ceil_count(8 / 33, 33)
    (12, 7, 8)
    """
    return ceil(_times(share, n))


@lru_cache(maxsize=4096)
def round_count(share: float, n: int) -> int:
    """The integer nearest to ``share * n``, halves up, the share read as by ``floor_count``.

    >>> round_count(0.5, 5), round_count(0.125, 64), round_count(0.3125, 64), round_count(1 / 6, 3)
    (3, 8, 20, 1)
    """
    return floor(_times(share, n) + Fraction(1, 2))


@lru_cache
def comparators(
    n: int,
    low: int,
    high: int,
) -> tuple[tuple[int, int], ...]:
    """A sorting network for n lines as pairs (i, j): the minimum goes to line i, the maximum to j.

    Pairs that no line in low .. high - 1 depends on are left out.
    """
    needed_lines = set(range(low, high))
    needed_pairs = []
    for i, j in reversed(_merge_exchange(n)):
        if i in needed_lines or j in needed_lines:
            needed_pairs.append((i, j))
            needed_lines |= {i, j}
    return tuple(reversed(needed_pairs))


def _merge_exchange(n: int) -> list[tuple[int, int]]:
    """Batcher's network, which sorts all n lines.

    Source: K. E. Batcher, "Sorting networks and their applications", AFIPS Spring Joint Computer
    Conference 1968.
    """
    pairs: list[tuple[int, int]] = []
    run = 1
    while run < n:
        step = run
        while step >= 1:
            for begin in range(step % run, n - step, 2 * step):
                lower = range(begin, min(begin + step, n - step))
                same_run = (i for i in lower if i // (2 * run) == (i + step) // (2 * run))
                pairs.extend((i, i + step) for i in same_run)
            step //= 2
        run *= 2
    return pairs


@lru_cache
def _table(
    n: int,
    low: int,
    high: int,
) -> Any:
    return np.array(comparators(n, low, high), np.int32).reshape(-1, 2)


def _array(rows: Tensor) -> Any:
    return rows.detach().contiguous().numpy()


def _by_coordinate(
    rows: Tensor,
    kernel: str,
    *arguments: Any,
) -> Tensor:
    """Run a kernel that fills one value per coordinate, on as many threads as torch may use."""
    from backstop.platform.kernels import cpu

    values = _array(rows)
    result = np.empty(rows.shape[1], np.float32)
    work = getattr(cpu, kernel)
    cpu.in_pieces(
        lambda _, first, last: work(values, first, last, *arguments, result),
        rows.shape[1],
        torch.get_num_threads(),
    )
    return torch.from_numpy(result)


def _over_coordinates(
    rows: Tensor,
    kernel: str,
    *shape: int,
) -> Tensor:
    """Run a kernel that adds up coordinates into an array of this shape."""
    from backstop.platform.kernels import cpu

    values = _array(rows)
    work = getattr(cpu, kernel)
    return _sum_of_pieces(
        lambda first, last, part: work(values, first, last, part), rows.shape[1], shape
    )


def _sum_of_pieces(
    work: Callable[[int, int, Any], Any],
    d: int,
    shape: tuple[int, ...],
) -> Tensor:
    """The sum of what ``work(first, last, part)`` adds to ``part`` for each piece of d coordinates.

    The pieces' results are added in order, whatever thread made them.
    """
    from backstop.platform.kernels import cpu

    def sums() -> Any:
        parts = np.zeros((-(-d // cpu.PIECE), *shape))
        cpu.in_pieces(
            lambda index, first, last: work(first, last, parts[index]), d, torch.get_num_threads()
        )
        return parts

    return torch.from_numpy(sections.total(sums))


def _sum_of_changed(
    rows: Tensor,
    kernel: str,
    change: Callable[[int, int, Any], Any],
    *shape: int,
) -> Tensor:
    """What a kernel adds up for a matrix of changed rows, which is never there as a whole:
    ``change(first, last, out)`` writes a few coordinates of it into the first columns of ``out``.
    """
    from backstop.platform.kernels import cpu

    n, d = rows.shape
    add = getattr(cpu, kernel)

    def work(
        first: int,
        last: int,
        part: Any,
    ) -> None:
        changed = np.empty((n, STRIP), np.float32)
        for start in range(first, last, STRIP):
            stop = min(start + STRIP, last)
            change(start, stop, changed)
            add(changed, 0, stop - start, part)

    return _sum_of_pieces(work, d, shape)


class _Kept(NamedTuple):
    """What was computed last for a matrix."""

    rows: weakref.ref[Tensor]
    version: int
    result: Tensor


_kept: dict[str, _Kept] = {}


def _once(rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """The result for this very matrix, computed once while it lives unchanged.

    The stages of a chain share it.
    """
    if rows.is_inference():  # carries no version, so a change would not be noticed
        return compute(rows)
    version = rows._version  # noqa: SLF001 -- the count of changes in place
    kept = _kept.get(compute.__name__)
    if kept is None or kept.rows() is not rows or kept.version != version:
        kept = _kept[compute.__name__] = _Kept(weakref.ref(rows), version, compute(rows))
    return kept.result.clone()


def trimmed_mean(
    rows: Tensor,
    per_side: int,
    votes: int = 0,
) -> Tensor:
    """Per coordinate the mean without the ``per_side`` smallest and the ``per_side`` largest.

    rows (n, d) → (d,). Needs ``0 <= 2 * per_side < n``. Coordinates with |sum of the n signs| <
    ``votes`` are 0, computed in the same pass.

    >>> trimmed_mean(torch.tensor([[1.0, 9.0], [2.0, 0.0], [3.0, 1.0], [90.0, 3.0]]), 1)
    tensor([2.5000, 2.0000])
    """
    if not 0 <= 2 * per_side < len(rows):
        raise ValueError(f"cannot trim {per_side} of {len(rows)} rows per side")
    return _ordered_mean(rows, per_side, len(rows) - per_side, votes)


def _ordered_mean(
    rows: Tensor,
    low: int,
    high: int,
    votes: int = 0,
) -> Tensor:
    """The mean of the values at places low .. high - 1 of each coordinate's ascending order."""
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.ordered_mean(rows, comparators(len(rows), low, high), low, high, votes)
    return _by_coordinate(rows, "ordered_mean", _table(len(rows), low, high), low, high, votes)


def median(rows: Tensor) -> Tensor:
    """Per coordinate the middle one of n values, or the mean of the two middle ones.

    rows (n, d) → (d,).

    >>> median(torch.tensor([[1.0], [4.0], [2.0], [90.0]]))
    tensor([3.])
    """
    return _ordered_mean(rows, (len(rows) - 1) // 2, len(rows) // 2 + 1)


def mean_around_median(
    rows: Tensor,
    count: int,
    among: Sequence[int] | None = None,
) -> Tensor:
    """Per coordinate the mean of the ``count`` values that are nearest to the median.

    rows (n, d) → (d,), all of them or those numbered ``among``, which are not copied. Needs ``1 <=
    count <= n``. Nearest values are consecutive in ascending
    order: from all n, the end that is farther from the median is taken off until ``count`` are
    left, the upper end where both are equally far.

    >>> mean_around_median(torch.tensor([[1.0], [2.0], [4.0], [90.0]]), 2)
    tensor([3.])
    """
    taken = range(len(rows)) if among is None else among
    n = len(taken)
    if not 1 <= count <= n:
        raise ValueError(f"cannot take the mean of {count} of {n} rows")
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        some = rows if among is None else rows[list(among)]
        return gpu.mean_around_median(some, comparators(n, 0, n), count)
    lines = np.array(taken, np.int32)
    return _by_coordinate(rows, "mean_around_median", lines, _table(n, 0, n), count)


def sign_sum(rows: Tensor) -> Tensor:
    """Per coordinate the sum of the n signs, an integer in float32. rows (n, d) → (d,).

    >>> sign_sum(torch.tensor([[1.0, 0.0, -1.0], [5.0, 2.0, -3.0], [-0.1, 0.0, -2.0]]))
    tensor([ 1.,  1., -3.])
    """
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.sign_sum(rows)
    return _by_coordinate(rows, "sign_sum")


def sign_agreement(rows: Tensor) -> Tensor:
    """Per coordinate |sum of the n signs|, an integer in float32: n where all agree.

    A zero agrees with nothing. rows (n, d) → (d,).

    >>> sign_agreement(torch.tensor([[1.0, 0.0, -1.0], [5.0, 2.0, 3.0], [-0.1, 0.0, 2.0]]))
    tensor([1., 1., 1.])
    """
    return sign_sum(rows).abs_()


def agree(rows: Tensor, threshold: float) -> Tensor:
    """Per coordinate whether |mean of the n signs| >= threshold, in exact arithmetic.

    rows (n, d) → (d,) bool.

    >>> agree(torch.cat([torch.ones(16, 1), -torch.ones(4, 1)]), 0.6)  # |16 - 4| / 20 is 0.6
    tensor([True])
    """
    return sign_agreement(rows) >= ceil_count(threshold, len(rows))


def norms(rows: Tensor) -> Tensor:
    """Euclidean norms. rows (n, d) → (n,) float64, finite for all finite rows.

    >>> norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.], dtype=torch.float64)
    """
    return _once(rows, _squares).sqrt_()


def _squares(rows: Tensor) -> Tensor:
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.squares(rows)
    result = _over_coordinates(rows, "squares", len(rows))
    values = _array(rows)

    def to_origin(i: int) -> tuple[Any, Any]:
        return values[i], np.zeros_like(values[i])

    return _in_range(result, to_origin)


def length(rows: Tensor) -> int:
    """How many coordinates the rows (n, d) of a round have: d, or more of them where some are
    elsewhere.

    >>> length(torch.ones(2, 5))
    5
    """
    return sections.whole_length(rows.shape[1])


def norms_around(rows: Tensor, center: Tensor) -> Tensor:
    """Euclidean norms of ``rows - center``, which is not made. rows (n, d), center (d,) → (n,)
    float64, finite where the differences are.

    >>> norms_around(torch.tensor([[3.0, 5.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    tensor([5., 0.], dtype=torch.float64)
    """
    if _in_torch(rows):
        return norms(rows - center)
    values, middle = _array(rows), _array(center)

    def moved(
        first: int,
        last: int,
        out: Any,
    ) -> None:
        here = out[:, : last - first]
        np.subtract(values[:, first:last], middle[first:last], out=here)

    def to_origin(i: int) -> tuple[Any, Any]:
        apart = values[i] - middle
        return apart, np.zeros_like(apart)

    result = _sum_of_changed(rows, "squares", moved, len(rows))
    return _in_range(result, to_origin).sqrt_()


def distances(rows: Tensor) -> Tensor:
    """Squared Euclidean distances by direct differences.

    rows (n, d) → (n, n) float64, symmetric, zero diagonal.

    Near-equal rows keep their distance, which the form |x|² + |y|² - 2xy would lose. Relative error
    below 1e-6 on a CPU (differences in float32, sums in float64; measured 3e-9 for d = 1,000,000);
    pairs whose squares leave the range of float32 are done again in float64, so rows up to the
    largest float32 give finite distances.

    >>> distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1e30]]))[0]
    tensor([0.0000e+00, 2.5000e+01, 1.0000e+60], dtype=torch.float64)
    """
    return _once(rows, _squared_distances)


def _squared_distances(rows: Tensor) -> Tensor:
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.squared_distances(rows)
    n = len(rows)
    values = _array(rows)
    result = _over_coordinates(rows, "squared_distances", n, n)
    one, other = torch.triu_indices(n, n, 1)

    def pair(index: int) -> tuple[Any, Any]:
        return values[one[index]], values[other[index]]

    result[one, other] = _in_range(result[one, other], pair)
    return result + result.t()


def _in_range(squared: Tensor, pair: Callable[[int], tuple[Any, Any]]) -> Tensor:
    """Squared distances (k,) of pairs of rows; they are done again in float64 where float32 squares
    may have overflowed or vanished: below 1e-28 and at infinity.
    """
    doubtful = ((squared < 1e-28) | ~squared.isfinite()).nonzero().flatten().tolist()
    again = sections.squared_distances(len(doubtful), lambda index: pair(doubtful[index]))
    squared[doubtful] = squared.new_tensor(again)
    return squared


def products(rows: Tensor) -> Tensor:
    """Inner products of all pairs. rows (n, d) → (n, n) float64, the squared norms on the diagonal.

    >>> products(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  3.],
            [ 3.,  1.]], dtype=torch.float64)
    """
    squares = norms(rows).square()
    return (squares[:, None] + squares - distances(rows)) / 2


def products_with(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products of the rows (n, d) with a vector (d,) → (n,) float64.

    >>> products_with(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([2.0, 1.0]))
    tensor([10.,  2.], dtype=torch.float64)
    """
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for piece, part in zip(rows.split(STRIP, dim=1), vector.split(STRIP), strict=True):
        total += (piece.double() * part.double()).sum(1)
    return total


def manhattan_distances(rows: Tensor) -> Tensor:
    """Sums of the absolute differences of all pairs. rows (n, d) → (n, n) float64, symmetric, zero
    diagonal.

    >>> manhattan_distances(torch.tensor([[0.0, 0.0], [3.0, -4.0], [3.0, 1.0]]))[0]
    tensor([0., 7., 4.], dtype=torch.float64)
    """
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for piece in rows.split(STRIP, dim=1):
        exact = piece.double()
        total += torch.stack([(exact - row).abs_().sum(1) for row in exact])
    return total


def cosine_distances(rows: Tensor) -> Tensor:
    """1 - cosine of the angle, for all pairs.

    rows (n, d) → (n, n) float64 in [0, 2], zero diagonal.

    Taken from the distances of the rows at length 1, so that nearly parallel rows keep theirs,
    however long they are. A zero row is at distance 1 from all others.

    >>> cosine_distances(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]]))[0]
    tensor([0., 1., 2., 1.], dtype=torch.float64)
    """
    still = norms(rows) == 0
    # |a - b|² = 2 (1 - a·b) for rows of length 1
    result = (_once(rows, _unit_distances) / 2).clamp_(max=2)
    return result.where(~(still[:, None] | still), 1.0).fill_diagonal_(0)


def _unit_distances(rows: Tensor) -> Tensor:
    """Squared distances of the rows at length 1, which are made piece by piece."""
    scale = 1 / norms(rows).clamp_min(torch.finfo(torch.float64).tiny)
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.squared_distances(rows, scale)
    from backstop.platform.kernels import cpu

    values, factor = _array(rows), scale.numpy()

    def scaled(
        first: int,
        last: int,
        out: Any,
    ) -> None:
        cpu.scaled(values, factor, first, last, out)

    n = len(rows)
    result = _sum_of_changed(rows, "squared_distances", scaled, n, n)
    return result + result.t()


def centred_products(squared: Tensor, weight: Tensor | None = None) -> Tensor:
    """Inner products of the rows minus their weighted mean, from squared distances (n, n) alone.

    The eigenvalues of the result divided by n are those of the rows' covariance. Without ``weight``
    (n,) the mean is the plain one. The diagonal holds the squared distances to the mean.

    >>> centred_products(distances(torch.tensor([[1.0], [3.0]])))
    tensor([[ 1., -1.],
            [-1.,  1.]], dtype=torch.float64)
    """
    if weight is None:
        share = torch.full_like(squared[0], 1 / len(squared))
    else:
        share = (weight / weight.sum()).to(squared)
    # row by row in one order: equal rows stay equal, which a matrix product does not promise
    to_mean = (squared * share).sum(1)
    to_mean = to_mean - share @ to_mean / 2
    return (to_mean[:, None] + to_mean - squared) / 2


def clip(rows: Tensor, limit: Tensor | float) -> Tensor:
    """Rows (n, d) longer than ``limit``, one or one for each row, shortened to it.

    The others stay bit for bit as they are.

    >>> clip(torch.tensor([[0.5, 0.0], [3.0, 4.0]]), 1.0)
    tensor([[0.5000, 0.0000],
            [0.6000, 0.8000]])
    """
    ratio = torch.as_tensor(limit).to(rows.device) / norms(rows)
    factor = ratio.nan_to_num(nan=1.0).clamp(max=1.0)  # 1 for a zero row
    return times(rows, factor.float().unsqueeze(1))


def times(rows: Tensor, factor: Tensor) -> Tensor:
    """Rows (n, d) multiplied by a factor for each coordinate (d,) or for each row (n, 1).

    >>> times(torch.tensor([[0.5, 2.0], [3.0, 4.0]]), torch.tensor([1.0, -1.0]))
    tensor([[ 0.5000, -2.0000],
            [ 3.0000, -4.0000]])
    """
    if rows.is_cuda:
        return rows * factor
    result = torch.from_numpy(np.empty(rows.shape, np.float32))  # NumPy asks for large pages
    return torch.mul(rows, factor, out=result)


def mix(weight: Tensor, rows: Tensor) -> Tensor:
    """Weighted sums of the rows: weight (k, n) @ rows (n, d) → (k, d), added in float64 row by row.

    Equal lines of weights have equal sums, which are added up once and copied.

    >>> mix(torch.tensor([[0.5, 0.5], [1.0, -1.0]]), torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    tensor([[ 2.,  4.],
            [-2., -4.]])
    """
    if _in_torch(rows):
        from backstop.platform.kernels import gpu

        return gpu.mix(weight.to(rows.device).double(), rows)
    from backstop.platform.kernels import cpu

    values = _array(rows)
    table = weight.double().contiguous().numpy()
    d = rows.shape[1]
    result = np.empty((len(table), d), np.float32)
    originals = _first_equals(table)
    lines = np.array(sorted(set(originals)), np.int32)
    distinct = table[lines]
    repeated = [pair for pair in enumerate(originals) if pair[0] != pair[1]]

    def work(
        _: int,
        first: int,
        last: int,
    ) -> None:
        cpu.mix(distinct, values, first, last, lines, result)
        for line, original in repeated:
            result[line, first:last] = result[original, first:last]

    cpu.in_pieces(work, d, torch.get_num_threads())
    return torch.from_numpy(result)


def _first_equals(table: Any) -> list[int]:
    """For each line of a table the number of the first line with its bits."""
    firsts: dict[bytes, int] = {}
    return [firsts.setdefault(line.tobytes(), number) for number, line in enumerate(table)]


def krum_order(rows: Tensor, f: int | None) -> tuple[Tensor, int]:
    """Row numbers from the best to the worst Krum score, and the number f of attackers assumed.

    Ties stand in row order. The score of a row is the sum of its squared distances to the n - f - 2
    nearest other rows, at least one where there is one. Without f it is the largest with
    2f + 2 < n. rows (n, d) → (n,) int64. Source: see the data sheet of ``krum``.

    >>> krum_order(torch.tensor([[0.0], [1.0], [1.5], [90.0]]), 1)[0]
    tensor([1, 2, 0, 3])
    """
    n = len(rows)
    assumed = max((n - 3) // 2, 0) if f is None else min(f, n)
    neighbors = min(max(n - assumed - 2, 1), n - 1)
    nearest = distances(rows).fill_diagonal_(torch.inf).sort(dim=1).values[:, :neighbors]
    return nearest.sum(1).argsort(stable=True), assumed
