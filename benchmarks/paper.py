"""The paper's tasks side by side: from the leaderboards of the small spaces to docs/results/, its
pictures, and the tables of docs/paper.md.

    backstop sweep paper_cifar10_small      (likewise paper_twitter_small, paper_phishing_small,
    paper_knobs_small) python benchmarks/paper.py [STORE]

Everything between the page's two marks is written anew from the leaderboards; pictures by round are
drawn from the store's runs.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backstop.platform.results import pictures
from backstop.platform.results.columns import ranked_rows
from backstop.platform.results.document import load_document
from backstop.platform.results.names import chain_label
from backstop.platform.results.runs import read_runs, with_curves
from backstop.platform.results.store import Store, locate_store

SPACES = ("paper_cifar10_small", "paper_twitter_small", "paper_phishing_small")
KNOBS = "paper_knobs_small"
RESULTS, PAGE = Path("docs/results"), Path("docs/paper.md")
MARKS = ("<!-- tables: begin -->", "<!-- tables: end -->")
FEDAVG, MASK, TRIM = (
    "fedavg",
    "and_mask(mask_threshold=0.6, rescale=False)",
    "trimmed_mean(trim_fraction=0.45)",
)
BOTH = "invariant(mask_threshold=0.6, trim_fraction=0.45)"
NAMES = {
    FEDAVG: "FedAvg",
    TRIM: "trimmed mean alone",
    MASK: "AND-mask alone",
    BOTH: "both: invariant",
}
COLOURS = {FEDAVG: "#333333", TRIM: "#2a9d8f", MASK: "#e9a03b", BOTH: "#7b3fa0"}
METRICS = ("round/attack_success_rate", "round/clean_accuracy")
Document = Mapping[str, Any]
Cell = Mapping[str, Any]


def title(document: Document) -> str:
    """A task by the name of its dataset."""
    return str(document["cells"][0]["dataset"]).partition("(")[0]


def kind(cell: Cell) -> str:
    """What a cell's attack is called on the page."""
    names = [stage["name"] for stage in cell["attack_stages"]] or [cell["attack"]]
    if names[0] == "edge_case":
        return "strong edge case" if len(names) > 1 else "edge case"
    return str(names[0])


def cells(document: Document) -> dict[tuple[str, str], Cell]:
    """(attack as the page calls it, defense) → cell, dormant twins left out."""
    return {(kind(cell), cell["defense"]): cell for cell in document["cells"]}


def attacks(document: Document) -> list[str]:
    """The attacks of a task, the edge cases first."""
    found = {kind(cell) for cell in document["cells"]} - {"none"}
    return sorted(found, key=lambda name: (name != "edge case", name != "strong edge case", name))


def percent(figure: Mapping[str, float] | None) -> str:
    """A mean in percent with half its interval."""
    if figure is None:
        return "–"
    return f"{100 * figure['mean']:.1f} ±{50 * (figure['high'] - figure['low']):.1f}"


def row(*columns: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(columns)} |"


def table(document: Document) -> list[str]:
    """One task: defenses by rank, accuracy without an attack, attack success under each, accuracy
    under the strong edge case.
    """
    known, names = cells(document), attacks(document)
    head = [
        "defense",
        "accuracy, no attack",
        *(f"success: {name}" for name in names),
        "accuracy under strong edge case",
        "DER",
    ]
    lines = [f"### {title(document)}", "", row(*head), row(":---", *["---:"] * (len(head) - 1))]
    twin = {name: known[name, FEDAVG]["natural_success"] for name in names}
    lines.append(
        row(
            "*clean twin: what the inputs do without a backdoor*",
            "",
            *(percent(twin[name]) for name in names),
            "",
            "",
        )
    )
    for ranked in ranked_rows(document):
        defense = ranked.defense.text
        rates = [percent(known[name, defense]["attack_success_rate"]) for name in names]
        accuracy = percent(known["none", defense]["clean_accuracy"])
        strong = percent(known["strong edge case", defense]["clean_accuracy"])
        short = ranked.defense._replace(mark="")
        lines.append(
            row(f"`{short}`", accuracy, *rates, strong, f"{100 * ranked.fields['der']:.1f}")
        )
    return [*lines, ""]


def ablation(documents: Sequence[Document]) -> list[str]:
    """The two halves of the aggregator and the whole: attack success, and accuracy under the same
    attack.
    """
    heads = [
        f"{title(document)}, {name}"
        for document in documents
        for name in ("edge case", "strong edge case")
    ]
    lines = [row("attack success / accuracy", *heads), row(":---", *["---:"] * len(heads))]
    for defense, called in NAMES.items():
        found = [
            cells(document)[name, defense]
            for document in documents
            for name in ("edge case", "strong edge case")
        ]
        both = [
            f"{100 * cell['attack_success_rate']['mean']:.1f} / {100 * cell['clean_accuracy']['mean']:.1f}"
            for cell in found
        ]
        lines.append(row(called, *both))
    return [*lines, ""]


def headline(documents: Sequence[Document]) -> list[str]:
    """Attack success and accuracy of FedAvg and of the invariant aggregator, averaged over the
    tasks, beside the paper's claim.
    """

    def mean(figure: str, defense: str, which: Sequence[str]) -> float:
        tasks = [
            [
                cells(document)[name, defense][figure]["mean"]
                for name in attacks(document)
                if name in which
            ]
            for document in documents
        ]
        return 100 * sum(sum(task) / len(task) for task in tasks) / len(tasks)

    everything = sorted({name for document in documents for name in attacks(document)})
    head = [
        "mean over the three tasks",
        "FedAvg: success",
        "invariant: success",
        "lower by",
        "relative",
        "accuracy cost",
    ]
    lines = [row(*head), row(":---", *["---:"] * 5)]
    for called, which in (
        ("continuous edge cases", ["edge case"]),
        ("strong edge cases", ["strong edge case"]),
        ("all attacks", everything),
    ):
        before, after = (mean("attack_success_rate", defense, which) for defense in (FEDAVG, BOTH))
        cost = mean("clean_accuracy", FEDAVG, which) - mean("clean_accuracy", BOTH, which)
        drop = before - after
        lines.append(
            row(
                called,
                f"{before:.1f}",
                f"{after:.1f}",
                f"{drop:.1f} points",
                f"{100 * drop / before:.1f} %",
                f"{cost:.1f} points",
            )
        )
    calm = [cells(document) for document in documents]
    cost = sum(
        known["none", FEDAVG]["clean_accuracy"]["mean"]
        - known["none", BOTH]["clean_accuracy"]["mean"]
        for known in calm
    )
    lines.append(row("no attack", "", "", "", "", f"{100 * cost / len(calm):.1f} points"))
    return [*lines, row("*the paper*", "", "", "61.6 %", "", "1.2 %"), ""]


def axes_of(figure: Any, rows: int, columns: int) -> Any:
    """A grid of axes without a frame on the right and above."""
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return grid


def draw_rounds(documents: Sequence[Document], store: Store, out: Path) -> None:
    """Attack success and accuracy by round under strong edge cases, mean over seeds: FedAvg, the
    two halves, and both.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), dpi=130, layout="constrained", facecolor="#ffffff")
    grid = axes_of(figure, 2, len(documents))
    for column, document in enumerate(documents):
        strong = next(
            cell["attack"] for cell in document["cells"] if kind(cell) == "strong edge case"
        )
        wanted = {
            defense: [
                run["id"]
                for run in document["runs"]
                if chain_label(run["spec"]["attack"], "attack") == strong
                and chain_label(run["spec"]["defense"], "defense") == defense
            ]
            for defense in NAMES
        }
        runs = read_runs(store, str(document["experiment"]))
        known = {
            run.id: run
            for run in with_curves(
                store, runs, [item for ids in wanted.values() for item in ids], METRICS
            )
        }
        for line, metric in enumerate(METRICS):
            axes = grid[line][column]
            for defense, ids in wanted.items():
                points = [dict(known[item].curves[metric]) for item in ids]
                steps = sorted(set(points[0]).intersection(*points[1:]))
                heights = [
                    100 * sum(curve[step] for curve in points) / len(points) for step in steps
                ]
                axes.plot(
                    [step + 1 for step in steps],
                    heights,
                    color=COLOURS[defense],
                    label=NAMES[defense],
                    linewidth=1.8,
                )
            axes.set_ylim(-2, 102)
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.set_title(title(document) if line == 0 else "", loc="left", fontweight="bold")
            axes.set_ylabel(("attack success, %", "accuracy, %")[line] if column == 0 else "")
            axes.set_xlabel("round after the warm-up" if line else "")
    grid[0][0].legend(frameon=False, fontsize=9)
    figure.savefig(out, metadata={"Software": None})


def draw_knobs(document: Document, out: Path) -> None:
    """Attack success and accuracy over threshold τ and trim fraction: each task, and the mean of
    the three.
    """
    from matplotlib.figure import Figure

    found: dict[str, dict[tuple[float, float], Cell]] = {}
    for cell in document["cells"]:
        if [stage["name"] for stage in cell["defense_stages"]] == ["invariant"]:
            params = cell["defense_stages"][0]["params"]
            knobs = params["mask_threshold"], params["trim_fraction"]
            found.setdefault(cell["dataset"].partition("(")[0], {})[knobs] = cell
    figure = Figure(figsize=(13, 5.6), dpi=130, layout="constrained", facecolor="#ffffff")
    grid = axes_of(figure, 2, len(found) + 1)
    for line, (metric, colours, label) in enumerate(
        (
            ("attack_success_rate", "Oranges", "attack success"),
            ("clean_accuracy", "Blues", "accuracy"),
        )
    ):
        maps = {
            name: {key: 100 * cell[metric]["mean"] for key, cell in own.items()}
            for name, own in found.items()
        }
        keys = set.intersection(*(set(own) for own in maps.values()))
        maps["mean"] = {key: sum(own[key] for own in maps.values()) / len(maps) for key in keys}
        for column, (name, values) in enumerate(maps.items()):
            pictures.draw_heat_map(
                grid[line][column], {key: value / 100 for key, value in values.items()}, colours
            )
            grid[line][column].set_title(f"{name}: {label} (%)", loc="left", fontsize=10)
    figure.savefig(out, metadata={"Software": None})


def publish(store: Path) -> None:
    """Copy the leaderboards, draw the pictures, and write the tables into the page."""
    documents = []
    for space in (*SPACES, KNOBS):
        source, target = store / "leaderboards" / space, RESULTS / space
        target.mkdir(parents=True, exist_ok=True)
        for suffix in ("json", "md"):
            shutil.copy(source / f"leaderboard.{suffix}", target)
        document = load_document(target / "leaderboard.json")
        (target / "leaderboard.png").write_bytes(pictures.ranking_picture(document))
        documents.append(document)
    *tasks, knobs = documents
    draw_rounds(tasks, locate_store(store), RESULTS / "rounds.png")
    draw_knobs(knobs, RESULTS / "knobs.png")
    lines = [
        "## The headline",
        "",
        *headline(tasks),
        "## The ablation",
        "",
        *ablation(tasks),
        "## The tables",
        "",
    ]
    for document in tasks:
        lines += table(document)
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text("\n".join([f"{before}{MARKS[0]}", "", *lines, f"{MARKS[1]}{after}"]))


if __name__ == "__main__":
    publish(Path(sys.argv[1] if len(sys.argv) > 1 else "backstop-store"))
