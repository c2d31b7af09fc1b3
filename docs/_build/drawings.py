"""Draw the pictures of docs/concepts.md into docs/drawings/.

    python docs/_build/drawings.py

Each is an SVG whose colors follow the reader's scheme, light or dark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #263238; }
  .small { font-size: 12px; fill: #546e7a; }
  .code { font: 13px ui-monospace, monospace; }
  .middle { text-anchor: middle; }
  rect { fill: #eceff1; stroke: #90a4ae; stroke-width: 1.2; }
  rect.bad { fill: #fbe9e7; stroke: #d84315; }
  rect.guard { fill: #e3f2fd; stroke: #1565c0; }
  path { fill: none; stroke: #607d8b; stroke-width: 1.5; }
  path.bad { stroke: #d84315; }
  .head { fill: #607d8b; stroke: none; }
  .head.bad { fill: #d84315; stroke: none; }
  rect.frame { fill: none; stroke-dasharray: 5 4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #eceff1; }
    .small { fill: #b0bec5; }
    rect { fill: #37474f; stroke: #78909c; }
    rect.frame { fill: none; }
    rect.bad { fill: #4e2a20; stroke: #ff8a65; }
    rect.guard { fill: #17395c; stroke: #64b5f6; }
    path { stroke: #90a4ae; }
    path.bad { stroke: #ff8a65; }
    .head { fill: #90a4ae; }
    .head.bad { fill: #ff8a65; }
  }
"""
Lines = Sequence[str]


def box(x: int, y: int, width: int, lines: Lines, kind: str = "", height: int = 0) -> str:
    """A rounded box with a bold first line and smaller ones below it."""
    height = height or 22 + 18 * len(lines)
    drawn = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    top = y + (height - 18 * len(lines)) // 2 + 14
    for place, line in enumerate(lines):
        style = "middle" if place == 0 else "middle small"
        drawn.append(text(x + width // 2, top + 18 * place, line, style))
    return "\n".join(drawn)


def text(x: int, y: int, words: str, style: str = "") -> str:
    """One line of text."""
    return f'<text class="{style}" x="{x}" y="{y}">{escape(words)}</text>'


def frame(x: int, y: int, width: int, height: int) -> str:
    """A dashed line around what belongs together."""
    return f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'


def arrow(points: Sequence[tuple[int, int]], kind: str = "") -> str:
    """A line through points, straight along an axis at its end, with a head."""
    way = " L".join(f"{x} {y}" for x, y in points)
    (before_x, before_y), (x, y) = points[-2:]
    across, down = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    base_x, base_y = x - 8 * across, y - 8 * down
    left = (base_x - 4 * down, base_y - 4 * across)
    right = (base_x + 4 * down, base_y + 4 * across)
    head = f"M{x} {y} L{left[0]} {left[1]} L{right[0]} {right[1]} Z"
    return f'<path class="{kind}" d="M{way}"/>\n<path class="head {kind}" d="{head}"/>'


def svg(width: int, height: int, title: str, parts: Lines) -> str:
    """A whole drawing."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def round_() -> str:
    """One round of a federation under attack."""
    frames = [frame(10, 60, 210, 242), frame(290, 60, 130, 242)]
    clients = [
        box(20, 70, 190, ("honest client", "local steps on its data")),
        box(20, 150, 190, ("honest client", "local steps on its data")),
        box(20, 230, 190, ("malicious client", "poisons, trains, crafts"), "bad"),
    ]
    arrows = [
        arrow([(210, 99), (300, 99)]),
        arrow([(210, 179), (300, 179)]),
        arrow([(210, 259), (300, 259)], "bad"),
        arrow([(420, 179), (460, 179)]),
        arrow([(610, 179), (660, 179)]),
        arrow([(740, 208), (740, 330), (115, 330), (115, 302)]),
        arrow([(740, 150), (740, 96)]),
    ]
    rows = [
        box(300, 80, 110, ("row",), height=38),
        box(300, 160, 110, ("row",), height=38),
        box(300, 240, 110, ("crafted row",), "bad", height=38),
        text(355, 48, "(n, d): local − global", "middle small"),
    ]
    server = [
        box(460, 140, 150, ("defense", "rows → rows, weights", "stage + stage"), "guard", 78),
        box(660, 150, 160, ("weighted mean", "moves the model")),
        box(660, 30, 160, ("test sets", "clean and triggered")),
        text(430, 322, "the next model goes to the next cohort", "middle small"),
        text(20, 30, "A round"),
        text(20, 48, "the cohort is drawn by name", "small"),
    ]
    return svg(
        840,
        350,
        "One round of a federation under attack",
        [*frames, *arrows, *clients, *rows, *server],
    )


def sweep() -> str:
    """From a search space to a leaderboard."""
    parts = [
        text(20, 30, "A sweep"),
        arrow([(180, 89), (220, 89)]),
        arrow([(400, 89), (440, 89)]),
        arrow([(620, 89), (660, 89)]),
        arrow([(740, 118), (740, 180)]),
        arrow([(660, 209), (620, 209)]),
        arrow([(440, 209), (400, 209)]),
        arrow([(310, 238), (310, 290), (310, 300)]),
        arrow([(530, 180), (530, 118)]),
        box(20, 60, 160, ("search space", "a file: list of specs")),
        box(220, 60, 180, ("plan", "distinct ids, twins added")),
        box(440, 60, 180, ("what is left", "finished ids are skipped")),
        box(660, 60, 160, ("Ray Tune", "where it runs, only")),
        box(660, 180, 160, ("experiments", "pure functions of specs")),
        box(440, 180, 180, ("MLflow", "one run for each id")),
        box(220, 180, 180, ("ranking", "pure function of the runs"), "guard"),
        box(200, 300, 220, ("leaderboard", ".json .html .md .tex .csv"), "guard"),
        text(545, 152, "read by id", "small"),
        text(440, 330, "backstop verify runs a sample of it again", "small"),
    ]
    return svg(840, 370, "From a search space to a leaderboard", parts)


def contract() -> str:
    """What a plug-in is handed, and what it returns."""
    parts = [
        text(20, 30, "The contract"),
        text(20, 48, "what is not in a view cannot be used", "small"),
        arrow([(270, 119), (330, 119)]),
        arrow([(510, 119), (570, 119)]),
        arrow([(270, 249), (330, 249)], "bad"),
        arrow([(510, 249), (570, 249)], "bad"),
        box(
            20,
            80,
            250,
            ("server's view", "global model, round, root set", "no number of attackers"),
            height=78,
        ),
        box(330, 80, 180, ("defense", "init, apply", "local, send, finish, predict"), "guard", 78),
        box(
            570,
            80,
            250,
            (
                "updates → updates",
                "rows (n, d), weights (n,), clients",
                "and the state for the next round",
            ),
            height=78,
        ),
        box(
            20,
            210,
            250,
            ("adversary's view", "own data and rows; by KNOWS also", "the defense, or honest rows"),
            height=78,
        ),
        box(330, 210, 180, ("attack", "poison, train, craft …", "trigger and goal"), "bad", 78),
        box(
            570,
            210,
            250,
            ("malicious rows (m, d)", "and the triggered test set:", "what success means"),
            height=78,
        ),
        text(
            20,
            325,
            "Every parameter is one annotation: validation, help, logged name and search range.",
            "small",
        ),
    ]
    return svg(840, 345, "What a plug-in is handed and what it returns", parts)


def icon() -> str:
    """The site's icon: a shield."""
    shield = (
        '<path d="M12 2 L20 5 V11 C20 16 16.6 20.4 12 22 C7.4 20.4 4 16 4 11 V5 Z" fill="#d84315"/>'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{shield}</svg>\n'


DRAWINGS: Mapping[str, Callable[[], str]] = {
    "round.svg": round_,
    "sweep.svg": sweep,
    "contract.svg": contract,
    "icon.svg": icon,
}


def main() -> None:
    """Write them all."""
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
