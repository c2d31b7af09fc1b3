"""The leaderboard for people: one page that needs nothing else, and one picture.

The page holds no script, loads nothing, and every value that comes from a run is escaped. Pictures
are drawn by matplotlib without its global state and stand in the page as SVG, in the page's own
colours, so that they follow a dark theme.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstop.platform.results.document import write_text
from backstop.platform.results.names import display_names
from backstop.platform.results.pictures import (
    CURVES,
    Document,
    Drawn,
    curve_run_ids,
    draw_lines,
    draw_svg,
    heat,
    knobs,
    mean_curve,
    over_strength,
    scatter,
    scene_members,
    strength_lines,
    strongest_attack,
)
from backstop.platform.results.ranking import UNTRIGGERED
from backstop.platform.results.renderings import (
    LIFETIME_HEADS,
    LIFETIME_NOTE,
    TWINS,
    footnotes,
    incomplete,
    lifetimes,
    marked_attacks,
    means,
    remarks,
    undefended,
)
from backstop.platform.results.runs import Run, with_curves
from backstop.platform.results.store import Store
from backstop.platform.results.wording import percent, plural, spread
from backstop.platform.specs.part import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INTRODUCTION = (
    "<p>Each defense was run against each attack from the same starting points. <b>Attack success</b> is the share of triggered inputs "
    "that get the attacker's label: lower is better. <b>Accuracy</b> is on clean test data while under attack. <b>DER</b>, the defense "
    "effectiveness rating, weighs what a defense removes of the backdoor against what it costs in accuracy: undefended FedAvg has 50, "
    "a perfect defense at most 100. All in percent; brackets are 95 % intervals.</p>"
)
STYLE = """
:root{--ink:#1c2128;--soft:#59636e;--rule:#dfe3e8;--paper:#fff;--tint:#f5f7f9;--accent:#0072b2;--blue:#0072b2;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e3e7ec;--soft:#9aa4af;--rule:#333b45;--paper:#14181d;--tint:#1c2229;--accent:#5ab0e6;--blue:#2f95d8}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:72rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.8rem 0 .4rem}
p{max-width:46rem;margin:.4rem 0}
.soft,figcaption,small{color:var(--soft)}
.warning{border-left:.3rem solid #d55e00;padding:.4rem .8rem;font-weight:600}
.scroll{overflow-x:auto;margin:1rem 0;border:1px solid var(--rule);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .75rem;text-align:right;white-space:nowrap;border-top:1px solid var(--rule);vertical-align:top}
thead th{border-top:0;background:var(--tint);font-weight:600;vertical-align:bottom;white-space:normal;line-height:1.25}
th.name,td.name{text-align:left;min-width:11rem;white-space:normal;font-weight:600}
th.text,td.text{text-align:left}
td small span{white-space:nowrap}
td small{display:block;font-weight:400;font-size:.82em;line-height:1.3}
tr.first td{background:color-mix(in srgb,var(--accent) 9%,transparent)}
.bar{display:block;height:.3rem;margin-top:.25rem;border-radius:.15rem;background:var(--rule)}
.bar i{display:block;height:100%;border-radius:.15rem;background:var(--accent)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.5rem 2rem;align-items:start}
figure{margin:1rem 0 0;min-width:0}
figcaption{font-size:.9rem;margin-top:.3rem}
svg{display:block;width:100%;max-width:36rem;height:auto}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
pre{overflow-x:auto;padding:.8rem 1rem;border-radius:.5rem;background:var(--tint);font-size:.85rem}
code{overflow-wrap:anywhere}
pre code{overflow-wrap:normal}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.3rem 1rem;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:30rem){th,td{padding:.4rem .5rem}th.name,td.name{min-width:9rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.6rem}main{padding-top:1.2rem}}
"""


def _figure(svg: str, title: str, caption: str) -> str:
    return f"<figure><strong>{escape(title)}</strong>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _curves(document: Document, runs: Sequence[Drawn]) -> list[str]:
    where, known = strongest_attack(document), {run.id: run for run in runs}
    if where is None:
        return []
    attack = display_names({cell["attack"] for cell in document["cells"]})[where.attack]
    found = []
    for metric, title, caption in (
        (
            CURVES[1],
            "Attack success by round",
            f"Strongest attack here: {attack}. Best variant of each defense, mean over seeds.",
        ),
        (CURVES[0], "Accuracy by round", f"On clean test data, under {attack}."),
    ):
        lines = [
            (mark, mean_curve([known[item] for item in ids if item in known], metric))
            for mark, ids in scene_members(document)
        ]
        lines = [(mark, points) for mark, points in lines if points]
        if lines:

            def draw(figure: Figure, lines: Any = lines) -> None:
                draw_lines(figure.add_subplot(), lines)

            found.append(_figure(draw_svg(metric, title, draw, 3.6), title, caption))
    return found


def _by_strength(document: Document) -> list[str]:
    """Attack success over attack strength: where does each defense break?"""
    found = []
    for name, lines in strength_lines(document):

        def draw(figure: Figure, lines: Any = lines) -> None:
            over_strength(figure.add_subplot(), lines)

        found.append(
            _figure(
                draw_svg(f"strength {name}", f"Attack success by strength: {name}", draw, 3.4),
                name,
                "Mean over seeds.",
            )
        )
    return found


def _maps(document: Document) -> list[str]:
    rows = knobs(document)
    found = []
    for metric, title, colours in (
        ("attack_success_rate", "Attack success (%)", "Oranges"),
        ("clean_accuracy", "Accuracy (%)", "Blues"),
    ):
        cells = {key: row[metric]["mean"] for key, row in rows.items() if row[metric] is not None}
        if cells:

            def draw(figure: Figure, cells: Any = cells, colours: str = colours) -> None:
                heat(figure.add_subplot(), cells, colours)

            found.append(
                _figure(
                    draw_svg(
                        f"map {metric}", f"{title} by mask threshold and trim fraction", draw, 3.4
                    ),
                    title,
                    "Mean over attacks and seeds.",
                )
            )
    return found


def _name_cell(name: str, note: str) -> str:
    head, _, inside = name.partition("(")
    plain = "(" not in name or "+" in name
    if plain:
        return escape(name + note).replace("+", "+<wbr>")
    params = ", ".join(
        f"<span>{escape(item)}</span>" for item in inside.removesuffix(")").split(", ")
    )
    return f"{escape(head + note)}<small>{params}</small>"


def _interval(figure: Mapping[str, float] | None) -> str:
    mean, _, rest = spread(figure).partition(" ")
    return f"{mean} <small>{rest}</small>" if rest else mean


def _ranking(document: Document) -> str:
    rows = document["rows"]
    names, attacks = (
        display_names(row["defense"] for row in rows),
        display_names(row["worst_attack"] for row in rows if row["worst_attack"]),
    )
    heads = (
        "#",
        "defense",
        "DER",
        "accuracy",
        "attack success",
        "robust accuracy",
        "accuracy without attack",
        "worst attack",
        "needs",
    )
    kinds = ("", "name", "", "", "", "", "", "text", "text")
    head = "".join(
        f'<th class="{kind}" scope="col">{name}</th>' if kind else f'<th scope="col">{name}</th>'
        for name, kind in zip(heads, kinds, strict=True)
    )
    first, body = ' class="first"', []
    for row in rows:
        width = 0.0 if row["der"] is None else 100 * row["der"]
        worst = (
            f"{percent(row['worst_attack_success_rate'])} <small>{escape(attacks[row['worst_attack']]).replace('+', '<br>+')}</small>"
            if row["worst_attack"]
            else "–"
        )
        body.append(
            f"<tr{first if row['rank'] == 1 else ''}><td>{row['rank']}</td>"
            f'<td class="name" title="{escape(row["defense"])}">{_name_cell(names[row["defense"]], remarks(row))}</td>'
            f'<td>{percent(row["der"])}<span class="bar"><i style="width:{width:.1f}%"></i></span></td>'
            f"<td>{_interval(row['clean_accuracy'])}</td><td>{_interval(row['attack_success_rate'])}</td>"
            f"<td>{_interval(row['robust_accuracy'])}</td><td>{_interval(row['no_attack_accuracy'])}</td>"
            f'<td class="text">{worst}</td><td class="text">{", ".join(row["needs"]) or "–"}</td></tr>'
        )
    return f'<div class="scroll" tabindex="0"><table id="ranking"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _tinted(mean: float | None) -> str:
    tint = (
        f' style="background:color-mix(in srgb,#d55e00 {70 * mean:.0f}%,transparent)"'
        if mean is not None
        else ""
    )
    return f"<td{tint}>{percent(mean)}</td>"


def _matrix(document: Document) -> str:
    """Attack success of every attack against every defense, tinted; whichever there are more of
    stands in the rows.
    """
    attacked = [
        cell
        for cell in document["cells"]
        if cell["attack"] != NOTHING["attack"] and cell["attack_success_rate"] is not None
    ]
    attacks = sorted({cell["attack"] for cell in attacked})
    if len(attacks) < 2:
        return ""
    defenses = [row["defense"] for row in document["rows"]]
    ours, theirs = display_names(defenses), marked_attacks(document)
    notes = {row["defense"]: remarks(row) for row in document["rows"]}

    cells = means(attacked, ("attack", "defense"), "attack_success_rate")
    natural = means(attacked, ("attack",), "natural_success")
    anyway = means(undefended(attacked), ("attack",), UNTRIGGERED)
    knows = {cell["attack"]: cell["knows"] for cell in attacked}

    def line(name: str, fields: Sequence[str]) -> str:
        return f'<tr><td class="name">{name}</td>{"".join(fields)}</tr>'

    def heads(names: Sequence[str]) -> str:
        return "".join(f'<th scope="col">{name}</th>' for name in names)

    if len(attacks) > len(defenses):
        head = '<th class="name" scope="col">attack</th><th class="text" scope="col">knows</th>'
        head += heads(
            [
                "clean twin",
                "untriggered",
                *(escape(ours[defense]) + notes[defense] for defense in defenses),
            ]
        )
        body = [
            line(
                escape(theirs[attack]).replace("+", "<br>+"),
                [
                    f'<td class="text">{escape(knows[attack])}</td>',
                    _tinted(natural.get((attack,))),
                    _tinted(anyway.get((attack,))),
                    *(_tinted(cells.get((attack, defense))) for defense in defenses),
                ],
            )
            for attack in attacks
        ]
    else:
        head = '<th class="name" scope="col">defense</th>' + heads(
            [escape(theirs[attack]).replace("+", "+<br>") for attack in attacks]
        )
        body = [
            line(
                _name_cell(ours[defense], notes[defense]),
                [_tinted(cells.get((attack, defense))) for attack in attacks],
            )
            for defense in defenses
        ]
        body.append(line("clean twin", [_tinted(natural.get((attack,))) for attack in attacks]))
        body.append(line("untriggered", [_tinted(anyway.get((attack,))) for attack in attacks]))
        body.append(
            line("the adversary knows", [f"<td>{escape(knows[attack])}</td>" for attack in attacks])
        )
    return (
        '<h2>Attack success, attack by attack</h2><p class="soft">In percent: how often the backdoor works. Darker is worse. '
        f"{escape(TWINS)}</p>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _lifetimes(document: Document) -> str:
    """How long backdoors last, as a table; nothing where no attack stops."""
    rows = lifetimes(document)
    if not rows:
        return ""
    head = "".join(f'<th class="text" scope="col">{name}</th>' for name in LIFETIME_HEADS)
    body = "".join(
        "<tr>" + "".join(f'<td class="text">{escape(field)}</td>' for field in row) + "</tr>"
        for row in rows
    )
    return (
        f'<h2>How long backdoors last</h2><p class="soft">{escape(LIFETIME_NOTE)}</p>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def page(document: Document, runs: Sequence[Drawn]) -> str:
    """The whole page. Runs need their curves only for :func:`curve_run_ids`."""
    experiment = str(document["experiment"])
    rows, cells = document["rows"], document["cells"]
    tasks = sorted({f"{cell['dataset']} ({cell['model']})" for cell in cells})
    seeds = sorted({seed for cell in cells for seed in cell["seeds"]})
    attacks = {cell["attack"] for cell in cells} - {NOTHING["attack"]}

    def draw(figure: Figure) -> None:
        scatter(figure.add_subplot(), document)

    drawn = (
        [
            _figure(
                draw_svg("scatter", "Accuracy over attack success", draw, 4.0),
                "Accuracy against attack success",
                "Up and left is better. Large points: best variant of each defense, with 95 % intervals; small ones: its other variants. In a crowd not every point has its name; the ranking has all.",
            )
        ]
        if rows
        else []
    )
    drawn += _curves(document, runs)
    maps, curved = _maps(document), _by_strength(document)
    notes = "".join(f'<p class="soft">{escape(note)}.</p>' for note in footnotes(document))
    name, absent = shlex.quote(experiment), incomplete(document)
    facts = {
        "task": ", ".join(tasks),
        "runs": f"{len(document['runs'])}: {plural(len(rows), 'defense')}, {plural(len(attacks), 'attack')}, {plural(len(seeds), 'seed')}",
        "rule": document["rule"],
        "fingerprint": document["fingerprint"],
    }
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">",
        f"<title>{escape(experiment)}: backdoor defenses ranked</title><style>{STYLE}</style></head><body><main>",
        f"<h1>{escape(experiment)}: backdoor defenses ranked</h1>",
        f'<p class="soft">{escape(facts["task"])} · runs: {escape(facts["runs"])}</p>',
        f'<p class="warning">{escape(absent)}.</p>' if absent else "",
        INTRODUCTION,
        "<h2>Ranking</h2>",
        _ranking(document),
        notes,
        f'<div class="grid">{"".join(drawn)}</div>' if drawn else "",
        _matrix(document),
        _lifetimes(document),
        f'<h2>Attack success by strength</h2><div class="grid">{"".join(curved)}</div>'
        if curved
        else "",
        f'<h2>The two knobs of <code>invariant</code></h2><div class="grid">{"".join(maps)}</div>'
        if maps
        else "",
        "<h2>Where this comes from</h2><dl>",
        *(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()),
        "</dl><p>The figures are a pure function of the logged runs. To make this page again, and to run some of its rows again and compare:</p>",
        f"<pre><code>{escape(f'backstop leaderboard --experiment {name} --out board')}\n{escape('backstop verify board/leaderboard.json --sample 3')}</code></pre>",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def write(document: Document, runs: Sequence[Run], store: Store, folder: Path) -> Path:
    """Write leaderboard.html, with the metrics by round that it draws from the store. Raises
    BadInput when it cannot be written.
    """
    return write_text(
        folder / "leaderboard.html",
        page(document, with_curves(store, runs, curve_run_ids(document), CURVES)),
    )
