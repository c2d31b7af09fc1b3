"""Where names stand in a picture, so that they can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.results.report.canvas import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

FONT_SIZE = 9
CROWDED = 0.08  # share of a label that may cover something else
OUTSIDE = 3  # a label out of the frame is that much worse than one over something else
POINT_RADIUS = 4  # pixels
FAR = 12  # points from where a line leads back


class Label(NamedTuple):
    """A name for the point at (x, y) in the axes' own units."""

    text: str
    x: float
    y: float
    color: str


class Offset(NamedTuple):
    """From a point to its label, in 1/72 inch; ``side`` is the label's edge that is nearest."""

    x: float
    y: float
    side: str


SIDES = {
    "left": 0.0,
    "center": 0.5,
    "right": 1.0,
}  # edge → share of the label left of it
AROUND = (
    Offset(9, 0, "left"),
    Offset(-9, 0, "right"),
    Offset(0, 11, "center"),
    Offset(0, -11, "center"),
    Offset(7, 9, "left"),
    Offset(7, -9, "left"),
    Offset(-7, 9, "right"),
    Offset(-7, -9, "right"),
)
REACHES = (1.0, 1.9, 3.0)
OFFSETS = [Offset(reach * x, reach * y, side) for reach in REACHES for x, y, side in AROUND]


class _Room(NamedTuple):
    """What is drawn already, in pixels."""

    frame: Bbox
    taken: list[Bbox]

    def covered(self, box: Bbox) -> float:
        """How much the box would cover of what is there, and how much of it would be outside."""
        outside = _area(box) - _overlap(box, self.frame)
        over_others = sum(_overlap(box, other) for other in self.taken)
        return over_others + OUTSIDE * outside


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
) -> None:
    """Write names beside points: the first place of a fixed list that covers the least of what is
    there already; none in a crowd.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    with _renderer(figure) as renderer:
        taken = [_box_around(axes, point) for point in points]
        room = _Room(axes.get_window_extent(renderer), taken)
        for label in labels:
            _place_label(axes, label, room, renderer)


@contextmanager
def _renderer(figure: Figure) -> Iterator[Any]:
    """What measures text. The figure's layout is settled before, and its own canvas kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    own_canvas = figure.canvas
    measuring: Any = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    yield measuring.get_renderer()
    figure.set_canvas(own_canvas)


def _box_around(axes: Axes, point: tuple[float, float]) -> Bbox:
    from matplotlib.transforms import Bbox

    center = axes.transData.transform(point)
    low = center - POINT_RADIUS
    high = center + POINT_RADIUS
    return Bbox([low, high])


def _place_label(
    axes: Axes,
    label: Label,
    room: _Room,
    renderer: Any,
) -> None:
    text = _write(axes, label)
    boxes = _possible_boxes(axes, label, text.get_window_extent(renderer))
    # rounded, so that the order of OFFSETS decides between places that are equally good
    covered = [round(room.covered(box), 3) for box in boxes]
    best = covered.index(min(covered))
    box, offset = boxes[best], OFFSETS[best]
    if covered[best] > CROWDED * _area(box):
        text.remove()  # the ranking has its name
        return
    text.set(position=(offset.x, offset.y), ha=offset.side)
    room.taken.append(box)
    if abs(offset.x) > FAR or abs(offset.y) > FAR:
        _lead_back(axes, label, offset)


def _write(axes: Axes, label: Label) -> Annotation:
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=2.5, foreground=PAPER)
    return axes.annotate(
        label.text,
        (label.x, label.y),
        (0, 0),
        textcoords="offset points",
        va="center",
        fontsize=FONT_SIZE,
        path_effects=[halo],
    )


def _possible_boxes(
    axes: Axes,
    label: Label,
    size: Bbox,
) -> list[Bbox]:
    """Where a text of this size would be at each of OFFSETS, in pixels."""
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    pixels = figure.dpi / 72
    point = label.x, label.y
    x, y = axes.transData.transform(point)
    width, height = size.width, size.height
    boxes = []
    for offset in OFFSETS:
        left = x + offset.x * pixels - width * SIDES[offset.side]
        low = y + offset.y * pixels - height / 2
        boxes.append(Bbox.from_bounds(left, low, width, height))
    return boxes


def _lead_back(
    axes: Axes,
    label: Label,
    offset: Offset,
) -> None:
    """A thin line from a label to its point."""
    line = {
        "arrowstyle": "-",
        "color": label.color,
        "linewidth": 0.6,
        "shrinkA": 0,
        "shrinkB": 4,
    }
    axes.annotate(
        "",
        (label.x, label.y),
        (0.6 * offset.x, 0.6 * offset.y),
        textcoords="offset points",
        arrowprops=line,
    )


def _area(box: Bbox) -> float:
    return float(box.width * box.height)


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def spread_labels(
    heights: Sequence[float],
    gap: float,
    low: float,
    high: float,
) -> list[float]:
    """The heights moved as little as a simple sweep can so that neighbors are a gap apart and all
    are in range.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])  # stable
    moved = [heights[index] for index in order]
    floor = low
    for position, height in enumerate(moved):
        moved[position] = max(height, floor)
        floor = moved[position] + gap
    ceiling = high
    for position in reversed(range(len(moved))):
        moved[position] = min(moved[position], ceiling)
        ceiling = moved[position] - gap
    by_index = dict(zip(order, moved, strict=True))
    return [by_index[index] for index in range(len(heights))]
