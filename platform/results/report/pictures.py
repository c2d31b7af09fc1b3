"""A leaderboard's pictures: each draws into axes, and two make a PNG of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backstop.platform.results.figures.names import Json
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.by_knobs import Knobs
from backstop.platform.results.report.by_strength import lines_by_strength
from backstop.platform.results.report.canvas import INK, PAPER, draw_png
from backstop.platform.results.report.labels import FONT_SIZE, Label, place_labels, spread_labels
from backstop.platform.results.report.marks import UNDEFENDED, Line, Mark, marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Color = tuple[float, float, float, float]  # red, green, blue, alpha

LABEL_GAP = 6.2  # percent between names at the ends of lines
MOST_BARS = 10
FEW_COLUMNS = 8  # of a heat map, whose values can be written large


def in_percent(*axes: Axis) -> None:
    """Axes that hold percents, with few marks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def draw_scatter(axes: Axes, document: Document) -> None:
    """Accuracy over attack success, one point per row, the best of each family with its name."""
    drawn = [mark for mark in marks(document) if _has_point(mark)]
    upward = drawn[::-1]
    points = [_point(mark) for mark in upward]
    for mark in upward:
        _draw_mark(axes, mark)
    axes.set_xlabel("attack success (lower is better)")
    axes.set_ylabel("accuracy under attack")
    axes.set_xlim(-4, 104)
    accuracies = [accuracy for _, accuracy in points]
    axes.set_ylim(*_accuracy_limits(accuracies))
    in_percent(axes.xaxis, axes.yaxis)
    place_labels(axes, _labels(drawn), points)


def _has_point(mark: Mark) -> bool:
    return bool(mark.row["clean_accuracy"] and mark.row["attack_success_rate"])


def _point(mark: Mark) -> tuple[float, float]:
    """Attack success and accuracy in percent."""
    success = mark.row["attack_success_rate"]["mean"]
    accuracy = mark.row["clean_accuracy"]["mean"]
    return 100 * success, 100 * accuracy


def _labels(drawn: Sequence[Mark]) -> list[Label]:
    """Names for the best of each family; FedAvg comes first, so that it has one in any case."""
    named = [mark for mark in drawn if mark.best]
    named.sort(key=lambda mark: mark.family != UNDEFENDED)
    return [Label(mark.name, *_point(mark), mark.color) for mark in named]


def _draw_mark(axes: Axes, mark: Mark) -> None:
    """A small point; for the best of a family a large one with its intervals."""
    x, y = _point(mark)
    if not mark.best:
        axes.plot(
            x,
            y,
            "o",
            color=mark.color,
            markersize=4,
            alpha=0.45,
            markeredgewidth=0,
        )
        return
    success = _interval(mark.row["attack_success_rate"])
    accuracy = _interval(mark.row["clean_accuracy"])
    _draw_interval(axes, mark.color, success, [y, y])
    _draw_interval(axes, mark.color, [x, x], accuracy)
    axes.plot(
        x,
        y,
        "o",
        color=mark.color,
        markersize=8,
        markeredgecolor=PAPER,
        markeredgewidth=1,
    )


def _interval(figure: Mapping[str, float]) -> list[float]:
    """The ends of a figure's interval in percent."""
    return [100 * figure["low"], 100 * figure["high"]]


def _draw_interval(
    axes: Axes,
    color: str,
    x: list[float],
    y: list[float],
) -> None:
    axes.plot(
        x,
        y,
        color=color,
        linewidth=1.2,
        alpha=0.6,
    )


def _accuracy_limits(accuracies: Sequence[float]) -> tuple[float, float]:
    """Limits that leave room for names above and below."""
    low = min(accuracies, default=0.0)
    high = max(accuracies, default=100.0)
    margin = max(2.0, 0.18 * (high - low))
    return max(-2.0, low - margin), min(102.0, high + margin)


def draw_by_round(axes: Axes, lines: Sequence[Line]) -> None:
    """One line per defense, its name at its end; names keep a distance from each other."""
    for line in reversed(lines):
        _draw_rounds(axes, line)
    first = min(line.points[0][0] for line in lines) + 1
    last = max(line.points[-1][0] for line in lines) + 1
    heights = [100 * line.points[-1][1] for line in lines]
    label_heights = spread_labels(heights, LABEL_GAP, 0.0, 104.0)
    for line, height in zip(lines, label_heights, strict=True):
        _name_end(axes, line, height, span=(first, last))
    axes.set_xlim(first, last)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("round")
    in_percent(axes.yaxis)


def _draw_rounds(axes: Axes, line: Line) -> None:
    rounds = [step + 1 for step, _ in line.points]
    percents = [100 * value for _, value in line.points]
    axes.plot(rounds, percents, color=line.mark.color, linewidth=1.8)


def _name_end(
    axes: Axes,
    line: Line,
    label_height: float,
    *,
    span: tuple[float, float],
) -> None:
    """A line's name right of the axes, and what leads there from its end."""
    first, last = span
    width = last - first
    step, value = line.points[-1]
    axes.plot(
        [step + 1, last + 0.04 * width],
        [100 * value, label_height],
        color=line.mark.color,
        linewidth=1,
        clip_on=False,
    )
    axes.text(
        last + 0.055 * width,
        label_height,
        line.mark.name,
        va="center",
        fontsize=FONT_SIZE,
    )


def draw_heat_map(
    axes: Axes,
    cells: Mapping[Knobs, float],
    palette: str,
) -> None:
    """A map of τ × trim fraction in percent, every value written into its cell."""
    taus = sorted({tau for tau, _ in cells})
    trims = sorted({trim for _, trim in cells})
    low = min(cells.values())
    high = max(cells.values())
    font_size = 10 if len(taus) < FEW_COLUMNS else 7
    for (tau, trim), value in cells.items():
        center = taus.index(tau), trims.index(trim)
        color = _shade(palette, value, low, high)
        _draw_heat_cell(axes, center, value, color, font_size)
    _label_cells(axes, taus, trims)


def _label_cells(
    axes: Axes,
    taus: Sequence[float],
    trims: Sequence[float],
) -> None:
    """The values of τ below the columns and trim fractions left of the rows, without a frame."""
    axes.set_xlabel("mask threshold τ")
    axes.set_ylabel("trim fraction per side")
    axes.set_xlim(-0.5, len(taus) - 0.5)
    axes.set_ylim(-0.5, len(trims) - 0.5)
    axes.set_xticks(range(len(taus)), _numerals(taus))
    axes.set_yticks(range(len(trims)), _numerals(trims))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numerals(values: Sequence[float]) -> list[str]:
    return [f"{value:g}" for value in values]


def _shade(
    palette: str,
    value: float,
    low: float,
    high: float,
) -> Color:
    """A color of one of matplotlib's palettes, its palest and its darkest left out."""
    from matplotlib import colormaps

    share = 0.5
    if high > low:
        share = (value - low) / (high - low)
    return colormaps[palette](0.1 + 0.75 * share)


def _draw_heat_cell(
    axes: Axes,
    center: tuple[int, int],
    value: float,
    color: Color,
    font_size: int,
) -> None:
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    x, y = center
    cell = Rectangle(
        (x - 0.5, y - 0.5),
        width=1,
        height=1,
        facecolor=to_hex(color),
        edgecolor=PAPER,
        linewidth=2,
    )
    axes.add_patch(cell)
    axes.text(
        x,
        y,
        f"{100 * value:.1f}",
        ha="center",
        va="center",
        color="#ffffff" if _is_dark(color) else "#111111",
        fontsize=font_size,
    )


def _is_dark(color: Color) -> bool:
    red, green, blue, _ = color
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    return luma < 0.55


def draw_by_strength(axes: Axes, lines: Sequence[Line]) -> None:
    """Attack success over the attack's strength, a line for each defense."""
    for line in reversed(lines):
        axes.plot(
            *zip(*line.points, strict=True),
            "o-",
            color=line.mark.color,
            linewidth=1.8,
            markersize=4,
            label=line.mark.name,
        )
    strengths = sorted({strength for line in lines for strength, _ in line.points})
    weakest, strongest = strengths[0], strengths[-1]
    if weakest > 0 and strongest >= 10 * weakest:
        axes.set_xscale("log")
    axes.set_xticks(strengths, _numerals(strengths))
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.set_xlabel("strength of the attack")
    in_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=FONT_SIZE)


def strength_picture(document: Document) -> bytes:
    """Attack success over attack strength as a PNG, side by side for each family of attacks. Raises
    ValueError where there is none.
    """
    groups = lines_by_strength(document)
    if not groups:
        raise ValueError("no three attacks of the document differ in strength only")

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(groups), squeeze=False)
        for axes, (name, lines) in zip(grid.flat, groups, strict=True):
            draw_by_strength(axes, lines)
            axes.set_title(name.on_lines(), fontsize=FONT_SIZE)

    width = 4.6 * len(groups)
    return draw_png(
        draw,
        salt="strengths",
        size=(width, 3.8),
        dpi=130,
    )


def ranking_picture(document: Document) -> bytes:
    """The ranking at a glance as a PNG: accuracy over attack success, defenses by score."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_bars(right, document)
        left.set_title("Accuracy against attack success")
        draw_scatter(left, document)

    return draw_png(
        draw,
        salt="picture",
        size=(10, 4.4),
        dpi=160,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
    )


def _draw_bars(axes: Axes, document: Document) -> None:
    """The score of the best variant of each family with its ends, the best on top."""
    best = [mark for mark in marks(document) if mark.best]
    scored = [mark for mark in best if mark.row["score"] is not None]
    upward = scored[:MOST_BARS][::-1]
    for height, mark in enumerate(upward):
        _draw_bar(axes, height, mark.color, mark.row)
    axes.set_title("Score (100 is perfect)")
    names = [mark.name for mark in upward]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 108)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _draw_bar(
    axes: Axes,
    height: int,
    color: str,
    row: Json,
) -> None:
    score = 100 * row["score"]["mean"]
    interval = _interval(row["score"])
    axes.barh(
        height,
        score,
        height=0.62,
        color=color,
        alpha=0.9,
    )
    axes.plot(interval, [height, height], color=INK, linewidth=1.2)
    axes.text(
        max(score, *interval, 0) + 1.5,
        height,
        f"{score:.1f}",
        va="center",
        fontsize=FONT_SIZE,
    )
