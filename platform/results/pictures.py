"""A leaderboard's pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.results.names import display_names
from backstop.platform.results.renderings import (
    means,
)
from backstop.platform.specs.part import NOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Document = Mapping[str, Any]
CROWDED = 0.08  # share of a name that may cover something else
CURVES = ("round/clean_accuracy", "round/attack_success_rate")
# Okabe and Ito, "Color Universal Design", 2008: eight colours that stay apart under colour
# blindness; the lightest left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHERS = "#8a9099"
# Colours that no artist uses otherwise; in the page they become the theme's.
INK, RULE, PAPER = "#1c2128", "#dfe3e8", "#fefefd"
# that blue is too dark on black
THEME = {INK: "var(--ink)", RULE: "var(--rule)", PAPER: "var(--paper)", "#0072b2": "var(--blue)"}
WIDTH = 4.6  # inches: about a phone's width at the size of the text around it


class Drawn(Protocol):
    """What the page needs of a run besides the document."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Metric → (round, value)."""


class Mark(NamedTuple):
    """A row as the pictures show it."""

    row: Mapping[str, Any]
    label: str
    colour: str
    best: bool  # the best of its family


class Scene(NamedTuple):
    """Setting and attack whose rounds are drawn."""

    setting: str
    attack: str


def family(defense: str) -> str:
    """A chain's names without parameters: what variants of one defense have in common."""
    return re.sub(r"\([^()]*\)", "", defense)


def marks(document: Document) -> list[Mark]:
    """The rows with colours: one per family, the best six families and FedAvg, the rest grey."""
    rows = document["rows"]
    names = display_names(row["defense"] for row in rows)
    families = list(
        dict.fromkeys(
            family(row["defense"]) for row in rows if row["defense"] != NOTHING["defense"]
        )
    )
    colours = dict(zip(families, PALETTE, strict=False)) | {NOTHING["defense"]: INK}
    seen: set[str] = set()
    found = []
    for row in rows:
        kind = family(row["defense"])
        found.append(Mark(row, names[row["defense"]], colours.get(kind, OTHERS), kind not in seen))
        seen.add(kind)
    return found


def best_per_family(document: Document) -> list[Mark]:
    """The best row of each coloured family, by rank."""
    return [mark for mark in marks(document) if mark.best and mark.colour != OTHERS]


def strongest_attack(document: Document) -> Scene | None:
    """The strongest attack: the one that succeeds most against undefended FedAvg, or against any
    where that is missing.
    """
    ranked = sorted(
        (
            cell["defense"] != NOTHING["defense"],
            -cell["attack_success_rate"]["mean"],
            cell["attack"],
            cell["setting"],
        )
        for cell in document["cells"]
        if cell["attack_success_rate"] is not None and cell["attack"] != NOTHING["attack"]
    )
    return Scene(ranked[0][3], ranked[0][2]) if ranked else None


def scene_members(document: Document) -> Iterator[tuple[Mark, list[str]]]:
    """The champions and the ids of their runs in the scene."""
    from backstop.platform.results.names import chain_label
    from backstop.platform.results.ranking import setting

    where = strongest_attack(document)
    for mark in best_per_family(document):
        ids = [
            run["id"]
            for run in document["runs"]
            if where is not None
            and not run["spec"].get("dormant")
            and chain_label(run["spec"]["defense"], "defense") == mark.row["defense"]
            and chain_label(run["spec"]["attack"], "attack") == where.attack
            and setting(run["spec"]) == where.setting
        ]
        yield mark, ids


def curve_run_ids(document: Document) -> list[str]:
    """The ids of the runs whose metrics by round the page draws."""
    return [item for _, ids in scene_members(document) for item in ids]


@contextmanager
def _canvas(salt: str) -> Iterator[None]:
    """Matplotlib settings of our own: no user file, no clock, no random ids."""
    import matplotlib as mpl

    own: dict[Any, Any] = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": RULE,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlepad": 10,
        "lines.solid_capstyle": "round",
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(own)
        yield


def draw_svg(salt: str, words: str, draw: Callable[[Figure], None], height: float) -> str:
    """A drawing as SVG for the page: themed, without prologue, metadata and ids that nothing refers
    to.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with _canvas(salt):
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib repeats every label in a comment
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:#)([\w-]+)", text))
    text = re.sub(
        r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", text
    )
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    text = re.sub(r"\n\s*", "\n", text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def _percent_axes(axes: Axes, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis if "x" in which else None, axes.yaxis if "y" in which else None):
        if axis is not None:
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground=PAPER)]


def scatter(axes: Axes, document: Document) -> None:
    """Accuracy over attack success, one point per row, the best of each family with its name."""
    shown = [
        mark
        for mark in marks(document)
        if mark.row["clean_accuracy"] and mark.row["attack_success_rate"]
    ]
    points = []
    for mark in reversed(shown):
        success, accuracy = mark.row["attack_success_rate"], mark.row["clean_accuracy"]
        x, y = 100 * success["mean"], 100 * accuracy["mean"]
        points.append((x, y))
        if not mark.best:
            axes.plot(x, y, "o", color=mark.colour, markersize=4, alpha=0.45, markeredgewidth=0)
            continue
        axes.plot(
            [100 * success["low"], 100 * success["high"]],
            [y, y],
            color=mark.colour,
            linewidth=1.2,
            alpha=0.6,
        )
        axes.plot(
            [x, x],
            [100 * accuracy["low"], 100 * accuracy["high"]],
            color=mark.colour,
            linewidth=1.2,
            alpha=0.6,
        )
        axes.plot(
            x, y, "o", color=mark.colour, markersize=8, markeredgecolor=PAPER, markeredgewidth=1
        )
    axes.set_xlabel("attack success (lower is better)")
    axes.set_ylabel("accuracy under attack")
    low = min((y for _, y in points), default=0.0)
    high = max((y for _, y in points), default=100.0)
    margin = max(2.0, 0.18 * (high - low))
    axes.set_ylim(max(-2.0, low - margin), min(102.0, high + margin))
    axes.set_xlim(-4, 104)
    _percent_axes(axes, "xy")
    named = [mark for mark in shown if mark.best]
    # FedAvg is named in any case
    _place_labels(
        axes, sorted(named, key=lambda mark: mark.row["defense"] != NOTHING["defense"]), points
    )


def _place_labels(axes: Axes, named: Sequence[Mark], points: Sequence[tuple[float, float]]) -> None:
    """Write names beside points: the first place of a fixed list that covers the least of what is
    there already; none in a crowd.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    keep = figure.canvas
    measure: Any = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = measure.get_renderer()
    taken = [
        Bbox.from_extents(
            *(axes.transData.transform(point) - 4), *(axes.transData.transform(point) + 4)
        )
        for point in points
    ]
    inside = axes.get_window_extent(renderer)
    places = [
        (dx * r, dy * r, ha)
        for r in (1.0, 1.9, 3.0)
        for dx, dy, ha in (
            (9, 0, "left"),
            (-9, 0, "right"),
            (0, 11, "center"),
            (0, -11, "center"),
            (7, 9, "left"),
            (7, -9, "left"),
            (-7, 9, "right"),
            (-7, -9, "right"),
        )
    ]
    point = figure.dpi / 72  # pixels
    for mark in named:
        at = (
            100 * mark.row["attack_success_rate"]["mean"],
            100 * mark.row["clean_accuracy"]["mean"],
        )
        text = axes.annotate(
            family(mark.label),
            at,
            (0, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            path_effects=_halo(),
        )
        size = text.get_window_extent(renderer)
        x, y = axes.transData.transform(at)
        options = []
        for order, (dx, dy, side) in enumerate(places):
            left = x + dx * point - size.width * {"left": 0.0, "center": 0.5, "right": 1.0}[side]
            low = y + dy * point - size.height / 2
            box = Bbox.from_bounds(left, low, size.width, size.height)
            covered = sum(_overlap(box, other) for other in taken) + 3 * (
                box.width * box.height - _overlap(box, inside)
            )
            options.append((round(covered, 3), order, box))
        covered, order, box = min(options, key=lambda option: option[:2])
        if covered > CROWDED * box.width * box.height:  # the ranking has its name
            text.remove()
            continue
        dx, dy, side = places[order]
        text.set(position=(dx, dy), ha=side)
        taken.append(box)
        if max(abs(dx), abs(dy)) > 12:  # far from its point
            line = {
                "arrowstyle": "-",
                "color": mark.colour,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 4,
            }
            axes.annotate("", at, (0.6 * dx, 0.6 * dy), textcoords="offset points", arrowprops=line)
    figure.set_canvas(keep)


def _overlap(one: Any, other: Any) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def mean_curve(runs: Sequence[Drawn], metric: str) -> list[tuple[int, float]]:
    """The mean over the runs at the rounds that all of them evaluated."""
    curves = [dict(run.curves[metric]) for run in runs if run.curves.get(metric)]
    if not curves:
        return []
    shared = sorted(set(curves[0]).intersection(*curves[1:]))
    return [(step, sum(curve[step] for curve in curves) / len(curves)) for step in shared]


def draw_lines(axes: Axes, lines: Sequence[tuple[Mark, list[tuple[int, float]]]]) -> None:
    """One line per defense, its name at its end; names keep a distance from each other."""
    for mark, points in reversed(lines):
        axes.plot(
            [step + 1 for step, _ in points],
            [100 * value for _, value in points],
            color=mark.colour,
            linewidth=1.8,
        )
    last = max(points[-1][0] for _, points in lines) + 1
    first = min(points[0][0] for _, points in lines) + 1
    axes.set_xlim(first, last)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("round")
    _percent_axes(axes, "y")
    heights = [100 * points[-1][1] for _, points in lines]
    width = last - first
    for (mark, points), height, place in zip(
        lines, heights, _spread_labels(heights, 6.2, 0.0, 104.0), strict=True
    ):
        end = points[-1][0] + 1
        axes.plot(
            [end, last + 0.04 * width],
            [height, place],
            color=mark.colour,
            linewidth=1,
            clip_on=False,
        )
        axes.text(last + 0.055 * width, place, family(mark.label), va="center", fontsize=9)
    axes.set_xlim(first, last)


def _spread_labels(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The heights moved as little as a simple sweep can so that neighbours are a gap apart and all
    are in range.
    """
    order = sorted(range(len(heights)), key=lambda place: (heights[place], place))
    moved = [heights[place] for place in order]
    for place in range(len(moved)):
        moved[place] = max(moved[place], low if place == 0 else moved[place - 1] + gap)
    for place in reversed(range(len(moved))):
        moved[place] = min(
            moved[place], high if place == len(moved) - 1 else moved[place + 1] - gap
        )
    found = [0.0] * len(moved)
    for place, height in zip(order, moved, strict=True):
        found[place] = height
    return found


def knobs(document: Document) -> dict[tuple[float, float], Mapping[str, Any]]:
    """The best row of ``invariant`` for each (mask threshold τ, trim fraction); empty unless at
    least 2 × 2 are there.
    """
    found: dict[tuple[float, float], Mapping[str, Any]] = {}
    for row in document["rows"]:
        values = dict(re.findall(r"(mask_threshold|trim_fraction)=([\d.e+-]+)", row["defense"]))
        if family(row["defense"]) == "invariant" and len(values) == 2:
            found.setdefault((float(values["mask_threshold"]), float(values["trim_fraction"])), row)
    big = len({tau for tau, _ in found}) >= 2 and len({trim for _, trim in found}) >= 2
    return found if big else {}


def heat(axes: Axes, cells: Mapping[tuple[float, float], float], colours: str) -> None:
    """A map of τ × trim fraction in percent, every value written into its cell."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    taus, trims = sorted({tau for tau, _ in cells}), sorted({trim for _, trim in cells})
    low, high = min(cells.values()), max(cells.values())
    for (tau, trim), value in cells.items():
        x, y = taus.index(tau), trims.index(trim)
        share = 0.5 if high == low else (value - low) / (high - low)
        colour = colormaps[colours](0.1 + 0.75 * share)
        axes.add_patch(
            Rectangle(
                (x - 0.5, y - 0.5), 1, 1, facecolor=to_hex(colour), edgecolor=PAPER, linewidth=2
            )
        )
        # luma, ITU-R BT.601
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.55
        axes.text(
            x,
            y,
            f"{100 * value:.1f}",
            ha="center",
            va="center",
            color="#ffffff" if dark else "#111111",
            fontsize=10 if len(taus) < 8 else 7,
        )
    axes.set(
        xlim=(-0.5, len(taus) - 0.5),
        ylim=(-0.5, len(trims) - 0.5),
        xlabel="mask threshold τ",
        ylabel="trim fraction per side",
    )
    axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
    axes.set_yticks(range(len(trims)), [f"{trim:g}" for trim in trims])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def strengths(document: Document) -> dict[str, dict[float, str]]:
    """Attacks that differ in one stage's STRENGTH only, at least three of them: the name of the
    family → strength → attack.
    """
    from backstop.platform.results.names import chain_label

    found: dict[str, dict[float, str]] = {}
    for stages in {
        chain_label(run["spec"]["attack"], "attack"): run["spec"]["attack"]
        for run in document["runs"]
    }.values():
        for place, stage in enumerate(stages):
            knob = (
                plugins.find("attacks", stage["name"]).facts["STRENGTH"]
                if stage["name"] in plugins.names("attacks")
                else None
            )
            value = stage["params"].get(knob)
            if isinstance(value, (int, float)):
                blank = {**stage, "params": {**stage["params"], knob: "…"}}
                name = chain_label(
                    [*stages[:place], blank, *stages[place + 1 :]], "attack"
                ).replace("'…'", "…")
                found.setdefault(name, {})[float(value)] = chain_label(stages, "attack")
    return {
        name: dict(sorted(members.items()))
        for name, members in sorted(found.items())
        if len(members) >= 3
    }


def strength_lines(
    document: Document,
) -> list[tuple[str, list[tuple[Mark, list[tuple[float, float]]]]]]:
    """For each family of attacks a line for the best variant of each defense: (strength, attack
    success in percent).
    """
    families = strengths(document)
    found = means(document["cells"], ("attack", "defense"), "attack_success_rate")
    names = display_names(
        [*families, *(attack for members in families.values() for attack in members.values())]
    )
    drawn = []
    for name, members in families.items():
        lines = []
        for mark in best_per_family(document):
            points = [
                (value, found.get((attack, mark.row["defense"])))
                for value, attack in members.items()
            ]
            lines.append(
                (mark, [(value, 100 * mean) for value, mean in points if mean is not None])
            )
        lines = [(mark, points) for mark, points in lines if len(points) >= 2]
        drawn += [(names[name], lines)] if lines else []
    return drawn


def strength_picture(document: Document) -> bytes:
    """Attack success over attack strength as a PNG, side by side for each family of attacks. Raises
    ValueError where there is none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    drawn = strength_lines(document)
    if not drawn:
        raise ValueError("no three attacks of the document differ in strength only")
    with _canvas("strengths"):
        figure = Canvas(
            figsize=(4.6 * len(drawn), 3.8), dpi=130, layout="constrained", facecolor="#ffffff"
        )
        FigureCanvasAgg(figure)
        for axes, (name, lines) in zip(
            figure.subplots(1, len(drawn), squeeze=False).flat, drawn, strict=True
        ):
            over_strength(axes, lines)
            axes.set_title(name.replace("+", "\n+"), fontsize=9)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def over_strength(axes: Axes, lines: Sequence[tuple[Mark, list[tuple[float, float]]]]) -> None:
    """Draw a figure over the attack's strength, a line for each defense."""
    values = sorted({value for _, points in lines for value, _ in points})
    if values[0] > 0 and values[-1] >= 10 * values[0]:
        axes.set_xscale("log")
    for mark, points in reversed(lines):
        axes.plot(
            *zip(*points, strict=True),
            "o-",
            color=mark.colour,
            linewidth=1.8,
            markersize=4,
            label=family(mark.label),
        )
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.set_xlabel("strength of the attack")
    _percent_axes(axes, "y")
    axes.legend(frameon=False, fontsize=9)


def picture(document: Document) -> bytes:
    """The ranking at a glance as a PNG: accuracy over attack success, and the best defenses by DER."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with _canvas("picture"):
        figure = Canvas(
            figsize=(10, 4.4),
            dpi=160,
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
            facecolor="#ffffff",
        )
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _bars(right, document)
        left.set_title("Accuracy against attack success")
        scatter(left, document)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _bars(axes: Axes, document: Document) -> None:
    """DER of the best variant of each family, the best on top, with intervals."""
    best = [mark for mark in marks(document) if mark.best and mark.row["der"] is not None][:10]
    for place, mark in enumerate(reversed(best)):
        interval = mark.row["intervals"]["der"]
        axes.barh(place, 100 * mark.row["der"], height=0.62, color=mark.colour, alpha=0.9)
        axes.plot(
            [100 * interval["low"], 100 * interval["high"]],
            [place, place],
            color=INK,
            linewidth=1.2,
        )
        axes.text(
            max(100 * interval["high"], 100 * mark.row["der"]) + 1.5,
            place,
            f"{100 * mark.row['der']:.1f}",
            va="center",
            fontsize=9,
        )
    axes.set_title("Defense effectiveness (DER; FedAvg is 50)")
    axes.set_yticks(range(len(best)), [family(mark.label) for mark in reversed(best)])
    axes.set_xlim(0, 108)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
