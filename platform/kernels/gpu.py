"""The same work as in ``cpu.py`` in torch calls, for rows on a GPU.

It goes piece by piece, so that little memory is needed beside the rows. Up to NETWORK_ROWS rows are
ordered by a sorting network of minima and maxima, which is exact, and more of them by a sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

NETWORK_ROWS = 32
# coordinates: large, because a piece costs launches; fixed, because the order of a sum is part
# of its bits
PIECE = 262_144
Pairs = Sequence[tuple[int, int]]


def _pieces(rows: Tensor) -> Iterator[slice]:
    for start in range(0, rows.shape[1], PIECE):
        yield slice(start, min(start + PIECE, rows.shape[1]))


def _sorted(rows: Tensor, pairs: Pairs) -> list[Tensor]:
    if len(rows) > NETWORK_ROWS:
        return list(rows.sort(dim=0).values)
    lines = list(rows)
    for i, j in pairs:
        one, other = lines[i], lines[j]
        lines[i] = torch.minimum(one, other)
        lines[j] = torch.maximum(one, other)
    return lines


def ordered_mean(
    rows: Tensor,
    pairs: Pairs,
    low: int,
    high: int,
    votes: int,
) -> Tensor:
    """As ``cpu.ordered_mean``. rows (n, d) → (d,)."""
    result = torch.empty_like(rows[0])
    for where in _pieces(rows):
        piece = rows[:, where]
        total = torch.zeros_like(piece[0], dtype=torch.float64)
        for line in _sorted(piece, pairs)[low:high]:
            total += line
        mean = (total / (high - low)).float()
        if votes:
            mean = mean.where(piece.sign().sum(0).abs() >= votes, 0.0)
        result[where] = mean
    return result


def mean_around_median(
    rows: Tensor,
    pairs: Pairs,
    count: int,
) -> Tensor:
    """As ``cpu.mean_around_median``. rows (n, d) → (d,)."""
    n = len(rows)
    result = torch.empty_like(rows[0])
    for where in _pieces(rows):
        lines = torch.stack(_sorted(rows[:, where], pairs))
        middle = (lines[(n - 1) // 2].double() + lines[n // 2]) / 2
        low = torch.zeros_like(middle, dtype=torch.int64)
        for width in range(n - 1, count - 1, -1):
            below = middle - _of_lines(lines, low)
            above = _of_lines(lines, low + width) - middle
            low += below > above
        total = torch.zeros_like(middle)
        for step in range(count):
            total += _of_lines(lines, low + step)
        result[where] = (total / count).float()
    return result


def _of_lines(lines: Tensor, index: Tensor) -> Tensor:
    """From each coordinate of the lines (n, d) the one that its index (d,) names."""
    return lines.gather(0, index.unsqueeze(0))[0]


def sign_sum(rows: Tensor) -> Tensor:
    """Per coordinate the sum of the signs. rows (n, d) → (d,).

    They are integers below 2^24, exact in any order.
    """
    result = torch.empty_like(rows[0])
    for where in _pieces(rows):
        result[where] = rows[:, where].sign().sum(0)
    return result


def _aligned(piece: Tensor) -> Tensor:
    """The piece with columns of zeros up to a multiple of 16.

    A sum over a row that begins elsewhere in memory is added in another order, and equal rows would
    not have equal sums.
    """
    return pad(piece, (0, -piece.shape[1] % 16))


def squares(rows: Tensor) -> Tensor:
    """Squared norms. rows (n, d) → (n,) float64."""
    result = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for where in _pieces(rows):
        result += _aligned(rows[:, where].double()).square_().sum(1)
    return result


def squared_distances(rows: Tensor, scale: Tensor | None = None) -> Tensor:
    """Squared distances of all pairs, of rows times ``scale`` (n,). rows (n, d) → (n, n) float64.

    Row i meets rows i + 1, i + 2 … around the circle, n pairs at a time: sums of one shape are
    added in one order, so that equal rows have equal distances to every other row.
    """
    n = len(rows)
    result = torch.zeros((n, n), dtype=torch.float64, device=rows.device)
    first = torch.arange(n, device=rows.device)
    for where in _pieces(rows):
        piece = rows[:, where]
        scaled = piece.double() if scale is None else piece * scale[:, None]
        piece = _aligned(scaled)
        circle = torch.cat([piece, piece])
        for step in range(1, n // 2 + 1):
            apart = circle[step : step + n] - piece
            result[first, (first + step) % n] += apart.square_().sum(1)
    if n % 2 == 0:  # half-way around the circle every pair has met twice
        result[first[n // 2 :], first[: n // 2]] = 0.0
    return result + result.t()


def mix(weight: Tensor, rows: Tensor) -> Tensor:
    """Weighted sums: weight (k, n) float64 @ rows (n, d) → (k, d), added in float64 row by row."""
    result = rows.new_empty(len(weight), rows.shape[1])
    for where in _pieces(rows):
        width = where.stop - where.start
        total = rows.new_zeros(len(weight), width, dtype=torch.float64)
        for share, row in zip(weight.t(), rows[:, where].double(), strict=True):
            total.addcmul_(share.unsqueeze(1), row.unsqueeze(0))
        result[:, where] = total.float()
    return result
