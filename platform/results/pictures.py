"""A leaderboard's pictures: each draws into axes, and two make a PNG of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backstop.platform.results.canvas import INK, PAPER, draw_png
from backstop.platform.results.labels import FONT_SIZE, Label, place_labels, spread_labels
from backstop.platform.results.marks import UNDEFENDED, Mark, marks
from backstop.platform.results.series import Line, lines_by_strength

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LABEL_GAP = 6.2  # percent between names at the ends of lines
MOST_BARS = 10


def _in_percent(*axes: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def draw_scatter(axes: Axes, document: Mapping[str, Any]) -> None:
    """Accuracy over attack success, one point per row, the best of each family with its name."""
    drawn = [
        mark
        for mark in marks(document)
        if mark.row["clean_accuracy"] and mark.row["attack_success_rate"]
    ]
    points = [_point(mark) for mark in reversed(drawn)]
    for mark in reversed(drawn):
        _draw_mark(axes, mark)
    axes.set_xlabel("attack success (lower is better)")
    axes.set_ylabel("accuracy under attack")
    axes.set_xlim(-4, 104)
    axes.set_ylim(*_accuracy_limits([accuracy for _, accuracy in points]))
    _in_percent(axes.xaxis, axes.yaxis)
    named = [mark for mark in drawn if mark.best]
    named.sort(key=lambda mark: mark.family != UNDEFENDED)  # FedAvg has its name in any case
    place_labels(axes, [Label(mark.name, *_point(mark), mark.color) for mark in named], points)


def _point(mark: Mark) -> tuple[float, float]:
    """Attack success and accuracy in percent."""
    success = mark.row["attack_success_rate"]["mean"]
    accuracy = mark.row["clean_accuracy"]["mean"]
    return 100 * success, 100 * accuracy


def _draw_mark(axes: Axes, mark: Mark) -> None:
    """A small point; for the best of a family a large one with its intervals."""
    x, y = _point(mark)
    if not mark.best:
        axes.plot(x, y, "o", color=mark.color, markersize=4, alpha=0.45, markeredgewidth=0)
        return
    success, accuracy = mark.row["attack_success_rate"], mark.row["clean_accuracy"]
    style: dict[str, Any] = {"color": mark.color, "linewidth": 1.2, "alpha": 0.6}
    axes.plot([100 * success["low"], 100 * success["high"]], [y, y], **style)
    axes.plot([x, x], [100 * accuracy["low"], 100 * accuracy["high"]], **style)
    axes.plot(x, y, "o", color=mark.color, markersize=8, markeredgecolor=PAPER, markeredgewidth=1)


def _accuracy_limits(accuracies: Sequence[float]) -> tuple[float, float]:
    low = min(accuracies, default=0.0)
    high = max(accuracies, default=100.0)
    margin = max(2.0, 0.18 * (high - low))
    return max(-2.0, low - margin), min(102.0, high + margin)


def draw_by_round(axes: Axes, lines: Sequence[Line]) -> None:
    """One line per defense, its name at its end; names keep a distance from each other."""
    for mark, points in reversed(lines):
        rounds = [step + 1 for step, _ in points]
        axes.plot(rounds, [100 * value for _, value in points], color=mark.color, linewidth=1.8)
    first = min(points[0][0] for _, points in lines) + 1
    last = max(points[-1][0] for _, points in lines) + 1
    _name_ends(axes, lines, last, last - first)
    axes.set_xlim(first, last)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("round")
    _in_percent(axes.yaxis)


def _name_ends(axes: Axes, lines: Sequence[Line], last: float, width: float) -> None:
    heights = [100 * points[-1][1] for _, points in lines]
    label_heights = spread_labels(heights, LABEL_GAP, 0.0, 104.0)
    for line, height, label_height in zip(lines, heights, label_heights, strict=True):
        end, color = line.points[-1][0] + 1, line.mark.color
        axes.plot(
            [end, last + 0.04 * width],
            [height, label_height],
            color=color,
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


def draw_heat_map(axes: Axes, cells: Mapping[tuple[float, float], float], palette: str) -> None:
    """A map of τ × trim fraction in percent, every value written into its cell."""
    taus = sorted({tau for tau, _ in cells})
    trims = sorted({trim for _, trim in cells})
    low, high = min(cells.values()), max(cells.values())
    font_size = 10 if len(taus) < 8 else 7
    for (tau, trim), value in cells.items():
        share = 0.5 if high == low else (value - low) / (high - low)
        center = taus.index(tau), trims.index(trim)
        _draw_heat_cell(axes, center, f"{100 * value:.1f}", _shade(palette, share), font_size)
    axes.set_xlim(-0.5, len(taus) - 0.5)
    axes.set_ylim(-0.5, len(trims) - 0.5)
    axes.set_xlabel("mask threshold τ")
    axes.set_ylabel("trim fraction per side")
    axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
    axes.set_yticks(range(len(trims)), [f"{trim:g}" for trim in trims])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _shade(palette: str, share: float) -> tuple[float, float, float, float]:
    """A color of one of matplotlib's palettes, its palest and its darkest left out."""
    from matplotlib import colormaps

    return colormaps[palette](0.1 + 0.75 * share)


def _draw_heat_cell(
    axes: Axes,
    center: tuple[int, int],
    text: str,
    color: tuple[float, float, float, float],
    font_size: int,
) -> None:
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    x, y = center
    cell = Rectangle(
        (x - 0.5, y - 0.5), 1, 1, facecolor=to_hex(color), edgecolor=PAPER, linewidth=2
    )
    axes.add_patch(cell)
    red, green, blue, _ = color
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # luma, ITU-R BT.601
    ink = "#ffffff" if dark else "#111111"
    axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=font_size)


def draw_by_strength(axes: Axes, lines: Sequence[Line]) -> None:
    """Attack success over the attack's strength, a line for each defense."""
    strengths = sorted({strength for line in lines for strength, _ in line.points})
    if strengths[0] > 0 and strengths[-1] >= 10 * strengths[0]:
        axes.set_xscale("log")
    for line in reversed(lines):
        axes.plot(
            *zip(*line.points, strict=True),
            "o-",
            color=line.mark.color,
            linewidth=1.8,
            markersize=4,
            label=line.mark.name,
        )
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.set_xlabel("strength of the attack")
    _in_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=FONT_SIZE)


def strength_picture(document: Mapping[str, Any]) -> bytes:
    """Attack success over attack strength as a PNG, side by side for each family of attacks. Raises
    ValueError where there is none.
    """
    groups = lines_by_strength(document)
    if not groups:
        raise ValueError("no three attacks of the document differ in strength only")

    def draw(figure: Figure) -> None:
        columns = figure.subplots(1, len(groups), squeeze=False).flat
        for axes, (name, lines) in zip(columns, groups, strict=True):
            draw_by_strength(axes, lines)
            axes.set_title(name.replace("+", "\n+"), fontsize=FONT_SIZE)

    return draw_png(draw, salt="strengths", size=(4.6 * len(groups), 3.8), dpi=130)


def ranking_picture(document: Mapping[str, Any]) -> bytes:
    """The ranking at a glance as a PNG: accuracy over attack success, the best defenses by DER."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_bars(right, document)
        left.set_title("Accuracy against attack success")
        draw_scatter(left, document)

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    return draw_png(draw, salt="picture", size=(10, 4.4), dpi=160, layout=layout)


def _draw_bars(axes: Axes, document: Mapping[str, Any]) -> None:
    """DER of the best variant of each family, the best on top, with intervals."""
    scored = [mark for mark in marks(document) if mark.best and mark.row["der"] is not None]
    upward = scored[:MOST_BARS][::-1]
    for height, mark in enumerate(upward):
        _draw_bar(axes, height, mark)
    axes.set_title("Defense effectiveness (DER; FedAvg is 50)")
    axes.set_yticks(range(len(upward)), [mark.name for mark in upward])
    axes.set_xlim(0, 108)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _draw_bar(axes: Axes, height: int, mark: Mark) -> None:
    der = 100 * mark.row["der"]
    interval = mark.row["intervals"]["der"]
    low, high = 100 * interval["low"], 100 * interval["high"]
    axes.barh(height, der, height=0.62, color=mark.color, alpha=0.9)
    axes.plot([low, high], [height, height], color=INK, linewidth=1.2)
    axes.text(max(high, der) + 1.5, height, f"{der:.1f}", va="center", fontsize=FONT_SIZE)
