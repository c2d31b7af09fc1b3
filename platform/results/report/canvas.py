"""The ground that pictures are drawn on: colors, settings, and the files that come out.

Pictures are drawn by matplotlib without its global state. In a page they stand as SVG in the page's
own colors, so that they follow a dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

# Colors that no drawing uses otherwise; in the page they become the theme's.
INK, RULE, PAPER = "#1c2128", "#dfe3e8", "#fefefd"
THEME = {
    INK: "var(--ink)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    "#0072b2": "var(--blue)",  # too dark on black
}
SVG_WIDTH = 4.6  # inches: about a phone's width at the size of the text around it
WHITE = "#ffffff"
DRAWING_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is no formula
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


@contextmanager
def _settings(salt: str) -> Iterator[None]:
    """Matplotlib settings of our own: no user file, no clock, no random ids."""
    import matplotlib as mpl

    own: dict[Any, Any] = {**DRAWING_SETTINGS, "svg.hashsalt": salt}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(own)
        yield


def draw_svg(
    label: str,
    draw: Callable[[Axes], object],
    *,
    salt: str,
    height: float,
) -> Markup:
    """A drawing as an SVG element for the page; the label is what a screen reader says of it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    stream = io.StringIO()
    with _settings(salt):
        figure = Canvas(figsize=(SVG_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={
                "Date": None,
                "Creator": None,
                "Format": None,
                "Type": None,
            },
        )
    element = _themed(_bare(stream.getvalue()))
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(element.replace("<svg", opening, 1))  # noqa: S704 - matplotlib escapes text


def _bare(svg: str) -> str:
    """The SVG without prologue, metadata, comments and ids that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # every label stands in one again
    used = set(re.findall(r"#([\w-]+)", svg))

    def kept(attribute: re.Match[str]) -> str:
        return attribute[0] if attribute[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', kept, svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def _themed(svg: str) -> str:
    """The SVG with the page's colors in place of ours."""
    for color, variable in THEME.items():
        svg = svg.replace(color, variable)
    return svg


def draw_png(
    draw: Callable[[Figure], None],
    *,
    salt: str,
    size: tuple[float, float],
    dpi: int,
    layout: LayoutEngine | None = None,
) -> bytes:
    """A figure of this size in inches as a PNG on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    stream = io.BytesIO()
    with _settings(salt):
        figure = Canvas(
            figsize=size,
            dpi=dpi,
            layout=layout or "constrained",
            facecolor=WHITE,
        )
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
