"""What protection costs: accuracy lost against attack success, and the front that no defense beats
in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.canvas import INK, PAPER
from backstop.platform.results.report.labels import Label, place_labels
from backstop.platform.results.report.marks import Mark, marks
from backstop.platform.results.report.measures import Measure, accuracy_lost, front
from backstop.platform.results.report.pictures import in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_HEIGHT = 5.0  # percent of accuracy that the axis spans at least


class _Placed(NamedTuple):
    """A row at its place in the picture, in percent."""

    mark: Mark
    success: float
    lost: float

    @property
    def point(self) -> tuple[float, float]:
        return self.success, self.lost


def draw_front(
    axes: Axes,
    document: Document,
    measure: Measure,
) -> None:
    """Accuracy lost over attack success, a point for each row, and a line along those that no other
    one beats.
    """
    placed = _placed(document, measure)
    best = front([item.point for item in placed])
    _draw_line(axes, best)
    for item in reversed(placed):
        _draw_point(axes, item)
    axes.set_xlabel("attack success (lower is better)")
    axes.set_ylabel("accuracy lost (lower is better)")
    axes.set_xlim(-4, 104)
    most = max((item.lost for item in placed), default=0.0)
    height = max(LEAST_HEIGHT, 1.15 * most)
    axes.set_ylim(-0.06 * height, height)
    in_percent(axes.xaxis, axes.yaxis)
    place_labels(axes, _labels(placed, best), [item.point for item in placed])


def _placed(document: Document, measure: Measure) -> list[_Placed]:
    """The rows that have both figures, by rank."""
    placed = []
    for mark in marks(document):
        success = measure.success(mark.row)
        lost = accuracy_lost(mark.row)
        if success is not None and lost is not None:
            placed.append(_Placed(mark, 100 * success["mean"], 100 * lost))
    return placed


def _draw_line(axes: Axes, best: Sequence[tuple[float, float]]) -> None:
    axes.plot(
        *zip(*best, strict=True) if best else ((), ()),
        color=INK,
        linewidth=1,
        linestyle=(0, (4, 3)),
        drawstyle="steps-post",
        alpha=0.6,
    )


def _draw_point(axes: Axes, item: _Placed) -> None:
    """A large point for the best of a family, a small one for its variants."""
    if item.mark.best:
        axes.plot(
            *item.point,
            "o",
            color=item.mark.color,
            markersize=8,
            markeredgecolor=PAPER,
            markeredgewidth=1,
        )
        return
    axes.plot(
        *item.point,
        "o",
        color=item.mark.color,
        markersize=4,
        alpha=0.45,
        markeredgewidth=0,
    )


def _labels(placed: Sequence[_Placed], best: Sequence[tuple[float, float]]) -> list[Label]:
    """Names for the best of each family; those on the front come first."""
    named = [item for item in placed if item.mark.best]
    named.sort(key=lambda item: item.point not in best)
    return [Label(item.mark.name, *item.point, item.mark.color) for item in named]
