"""The paper's tasks side by side: from the leaderboards of the small spaces to docs/results/, its
pictures, and the tables of docs/paper.md.

    backstop sweep paper_cifar10_small      (likewise paper_twitter_small, paper_phishing_small,
                                             paper_knobs_small)
    python benchmarks/paper.py [STORE]

Everything between the page's two marks is written anew from the leaderboards; pictures by round are
drawn from the store's runs.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import publishing
from publishing import RESULTS

from backstop.platform.results.figures.names import chain_label, chain_of
from backstop.platform.results.figures.wording import mean_alone
from backstop.platform.results.report import pictures
from backstop.platform.results.report.by_knobs import Knobs, knobs_of
from backstop.platform.results.report.by_round import mean_curve
from backstop.platform.results.tables.columns import RankedRow, name_rows
from backstop.platform.results.tracking.runs import Run, read_runs, with_curves
from backstop.platform.results.tracking.store import Store, locate_store

SPACES = ("paper_cifar10_small", "paper_twitter_small", "paper_phishing_small")
KNOBS = "paper_knobs_small"
PAGE = Path("docs/paper.md")
MARKS = ("<!-- tables: begin -->", "<!-- tables: end -->")
FEDAVG, FROZEN, MASK, TRIM = (
    "fedavg",
    "frozen",
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
COLORS = {FEDAVG: "#333333", TRIM: "#2a9d8f", MASK: "#e9a03b", BOTH: "#7b3fa0"}
METRICS = {
    "round/attack_success_rate": "attack success, %",
    "round/clean_accuracy": "accuracy, %",
}
EDGE, STRONG_EDGE, NO_ATTACK = "edge case", "strong edge case", "none"
Document = Mapping[str, Any]
Cell = Mapping[str, Any]


def task(document: Document) -> str:
    """A task by the name of its dataset."""
    return dataset(document["cells"][0])


def dataset(cell: Cell) -> str:
    """A cell's dataset without parameters."""
    return str(cell["dataset"]).partition("(")[0]


def attack_name(cell: Cell) -> str:
    """What a cell's attack is called on the page."""
    names = [stage["name"] for stage in cell["attack_stages"]]
    if not names:
        return NO_ATTACK
    if names[0] == "edge_case":
        return STRONG_EDGE if len(names) > 1 else EDGE
    return str(names[0])


def by_attack(document: Document, *, warm: bool = True) -> dict[tuple[str, str], Cell]:
    """(attack as the page calls it, defense) → cell, after the clean warm-up or from the start."""
    settings = document["settings"]
    cells = [
        cell for cell in document["cells"] if bool(settings[cell["setting"]]["warmup"]) == warm
    ]
    return {(attack_name(cell), cell["defense"]): cell for cell in cells}


def attacks(document: Document) -> list[str]:
    """The attacks of a task, the edge cases first."""
    names = {attack_name(cell) for cell in document["cells"]} - {NO_ATTACK}
    return sorted(names, key=lambda name: (name != EDGE, name != STRONG_EDGE, name))


def rates(figure: Mapping[str, float] | None) -> str:
    """A mean in percent, with the ends of its range in whole percent."""
    if figure is None:
        return "–"
    mean, low, high = (100 * figure[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.0f}–{high:.0f})"


def row(*columns: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(columns)} |"


def table(document: Document) -> list[str]:
    """One task after the warm-up: defenses by score, accuracy without an attack, attack success
    under each, accuracy under the strong edge case.
    """
    cells, names = by_attack(document), attacks(document)
    successes = [f"success: {name}" for name in names]
    heads = [
        "defense",
        "accuracy, no attack",
        *successes,
        "accuracy under strong edge case",
        "score",
    ]
    twins = [rates(cells[name, FEDAVG]["natural_success"]) for name in names]
    lines = [
        f"### {task(document)}",
        "",
        row(*heads),
        row(":---", *["---:"] * (len(heads) - 1)),
        row("*clean twin: what the inputs do without a backdoor*", "", *twins, "", ""),
    ]
    for ranked in rows_of(document, warm=True):
        defense = ranked.defense.text
        name = ranked.defense._replace(mark="")
        successes = [rates(cells[attack, defense]["attack_success_rate"]) for attack in names]
        accuracy = rates(cells[NO_ATTACK, defense]["clean_accuracy"])
        strong = rates(cells[STRONG_EDGE, defense]["clean_accuracy"])
        score = mean_alone(ranked.fields["score"])
        lines.append(row(f"`{name}`", accuracy, *successes, strong, score))
    return [*lines, ""]


def doing_nothing(documents: Sequence[Document]) -> list[str]:
    """A server that never moves the model beside the invariant aggregator and FedAvg, after the
    warm-up.
    """
    heads = (
        "task",
        "defense",
        "success: edge case",
        "success: strong edge case",
        "accuracy, no attack",
        "accuracy under strong edge case",
    )
    lines = [row(*heads), row(":---", ":---", *["---:"] * 4)]
    for document in documents:
        cells = by_attack(document)
        for defense, label in ((FROZEN, "`frozen`"), (BOTH, "`invariant`"), (FEDAVG, "`fedavg`")):
            figures = (
                cells[EDGE, defense]["attack_success_rate"],
                cells[STRONG_EDGE, defense]["attack_success_rate"],
                cells[NO_ATTACK, defense]["clean_accuracy"],
                cells[STRONG_EDGE, defense]["clean_accuracy"],
            )
            lines.append(row(task(document), label, *map(rates, figures)))
    return [*lines, ""]


def from_the_start(documents: Sequence[Document]) -> list[str]:
    """Each defense where the model still has to learn: accuracy without an attack, what it retains
    of FedAvg's learning, attack success and excess under edge cases.
    """
    kinds = ("accuracy", "retained", "success", "excess")
    heads = [f"{task(document)}: {kind}" for document in documents for kind in kinds]
    lines = [row("defense", *heads), row(":---", *["---:"] * len(heads))]
    tasks = [learning(document) for document in documents]
    names = {name: None for known in tasks for name in known}  # in order, each once
    for name in sorted(names, key=lambda name: _mean_retained(name, tasks), reverse=True):
        columns = [column for known in tasks for column in _learning(known.get(name))]
        lines.append(row(f"`{name}`", *columns))
    return [*lines, ""]


def rows_of(document: Document, *, warm: bool) -> list[RankedRow]:
    """The rows of the setting after the clean warm-up, or of the one from the start."""
    settings = document["settings"]
    (board,) = (
        board for board in document["boards"] if bool(settings[board["setting"]]["warmup"]) == warm
    )
    return name_rows(document, board["rows"])


def learning(document: Document) -> dict[str, tuple[Cell, Cell]]:
    """Defense as the page calls it, whatever norm the task takes → its cells from the start:
    without an attack, under edge cases.
    """
    cells = by_attack(document, warm=False)
    return {
        str(ranked.defense._replace(mark="")): (
            cells[NO_ATTACK, ranked.defense.text],
            cells[EDGE, ranked.defense.text],
        )
        for ranked in rows_of(document, warm=False)
    }


def _mean_retained(name: str, tasks: Sequence[Mapping[str, tuple[Cell, Cell]]]) -> float:
    known = [task[name][0]["learning_retained"]["mean"] for task in tasks if name in task]
    return sum(known) / len(known)


def _learning(cells: tuple[Cell, Cell] | None) -> list[str]:
    if cells is None:
        return ["–"] * 4
    calm, attacked = cells
    return [
        rates(calm["clean_accuracy"]),
        mean_alone(calm["learning_retained"]),
        rates(attacked["attack_success_rate"]),
        mean_alone(attacked["excess_success"]),
    ]


def ablation(documents: Sequence[Document]) -> list[str]:
    """The two halves of the aggregator and the whole: attack success, and accuracy under the same
    attack.
    """
    columns = [(document, name) for document in documents for name in (EDGE, STRONG_EDGE)]
    heads = [f"{task(document)}, {name}" for document, name in columns]
    lines = [row("attack success / accuracy", *heads), row(":---", *["---:"] * len(heads))]
    for defense, label in NAMES.items():
        cells = [by_attack(document)[name, defense] for document, name in columns]
        lines.append(row(label, *map(success_and_accuracy, cells)))
    return [*lines, ""]


def success_and_accuracy(cell: Cell) -> str:
    """Both means in percent."""
    success, accuracy = cell["attack_success_rate"]["mean"], cell["clean_accuracy"]["mean"]
    return f"{100 * success:.1f} / {100 * accuracy:.1f}"


def headline(documents: Sequence[Document]) -> list[str]:
    """Attack success and accuracy of FedAvg and of the invariant aggregator, averaged over the
    tasks, beside the paper's claim.
    """
    heads = (
        "mean over the three tasks",
        "FedAvg: success",
        "invariant: success",
        "lower by",
        "relative",
        "accuracy cost",
    )
    all_attacks = {name for document in documents for name in attacks(document)}
    groups = {
        "continuous edge cases": {EDGE},
        "strong edge cases": {STRONG_EDGE},
        "all attacks": all_attacks,
    }
    cost = accuracy_cost(documents, {NO_ATTACK})
    return [
        row(*heads),
        row(":---", *["---:"] * 5),
        *(comparison(documents, label, group) for label, group in groups.items()),
        row("no attack", "", "", "", "", f"{cost:.1f} points"),
        row("*the paper*", "", "", "61.6 %", "", "1.2 %"),
        "",
    ]


def comparison(documents: Sequence[Document], label: str, group: Collection[str]) -> str:
    """A line of the headline: what the invariant aggregator changes under a group of attacks."""
    before = mean_over_tasks(documents, "attack_success_rate", FEDAVG, group)
    after = mean_over_tasks(documents, "attack_success_rate", BOTH, group)
    drop = before - after
    return row(
        label,
        f"{before:.1f}",
        f"{after:.1f}",
        f"{drop:.1f} points",
        f"{100 * drop / before:.1f} %",
        f"{accuracy_cost(documents, group):.1f} points",
    )


def accuracy_cost(documents: Sequence[Document], group: Collection[str]) -> float:
    """Points of accuracy that the invariant aggregator costs against FedAvg."""
    fedavg, invariant = (
        mean_over_tasks(documents, "clean_accuracy", defense, group) for defense in (FEDAVG, BOTH)
    )
    return fedavg - invariant


def mean_over_tasks(
    documents: Sequence[Document], figure: str, defense: str, group: Collection[str]
) -> float:
    """A figure in percent: the mean over a task's attacks of the group, then over the tasks."""
    means: list[float] = []
    for document in documents:
        cells = by_attack(document)
        names = [name for name in (*attacks(document), NO_ATTACK) if name in group]
        values = [cells[name, defense][figure]["mean"] for name in names]
        means.append(sum(values) / len(values))
    return 100 * sum(means) / len(means)


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
    for column, document in zip(grid.T, documents, strict=True):
        runs = runs_under_strong_edge_case(document, store)
        column[0].set_title(task(document), loc="left", fontweight="bold")
        column[1].set_xlabel("round after the warm-up")
        for axes, metric in zip(column, METRICS, strict=True):
            draw_curves(axes, runs, metric)
    for axes, label in zip(grid[:, 0], METRICS.values(), strict=True):
        axes.set_ylabel(label)
    grid[0][0].legend(frameon=False, fontsize=9)
    figure.savefig(out, metadata={"Software": None})


def runs_under_strong_edge_case(document: Document, store: Store) -> dict[str, list[Run]]:
    """Defense → its runs, with their metrics by round."""
    cells = by_attack(document)
    attack = cells[STRONG_EDGE, FEDAVG]["attack"]
    ids: dict[str, list[str]] = {defense: [] for defense in NAMES}
    for run in document["runs"]:
        defense = chain_label(run["spec"]["defense"], "defense")
        if run["spec"].get("dormant"):
            continue
        if defense in ids and chain_label(run["spec"]["attack"], "attack") == attack:
            ids[defense].append(run["id"])
    needed = [run_id for listed in ids.values() for run_id in listed]
    logged = read_runs(store, str(document["experiment"]))
    known = {run.id: run for run in with_curves(store, logged, needed, list(METRICS))}
    return {defense: [known[run_id] for run_id in listed] for defense, listed in ids.items()}


def draw_curves(axes: Any, runs: Mapping[str, Sequence[Run]], metric: str) -> None:
    """A metric by round in percent, a line for each defense."""
    for defense, label in NAMES.items():
        points = mean_curve(runs[defense], metric)
        axes.plot(
            [step + 1 for step, _ in points],
            [100 * value for _, value in points],
            color=COLORS[defense],
            label=label,
            linewidth=1.8,
        )
    axes.set_ylim(-2, 102)
    axes.grid(color="#dddddd", linewidth=0.6)


def draw_knobs(document: Document, out: Path) -> None:
    """Attack success and accuracy over threshold τ and trim fraction: each task, and the mean of
    the three.
    """
    from matplotlib.figure import Figure

    tasks = cells_by_knobs(document)
    figure = Figure(figsize=(13, 5.6), dpi=130, layout="constrained", facecolor="#ffffff")
    grid = axes_of(figure, 2, len(tasks) + 1)
    for line, (metric, palette, label) in zip(
        grid,
        (
            ("attack_success_rate", "Oranges", "attack success"),
            ("clean_accuracy", "Blues", "accuracy"),
        ),
        strict=True,
    ):
        for axes, (name, values) in zip(line, knob_maps(tasks, metric).items(), strict=True):
            pictures.draw_heat_map(axes, values, palette)
            axes.set_title(f"{name}: {label} (%)", loc="left", fontsize=10)
    figure.savefig(out, metadata={"Software": None})


def cells_by_knobs(document: Document) -> dict[str, dict[Knobs, Cell]]:
    """Task → (threshold τ, trim fraction) → the cell of ``invariant`` under attack."""
    tasks: dict[str, dict[Knobs, Cell]] = {}
    for cell in document["cells"]:
        knobs = knobs_of(chain_of(cell["defense_stages"]))
        if knobs is not None and cell["attack_stages"]:
            tasks.setdefault(dataset(cell), {})[knobs] = cell
    return tasks


def knob_maps(
    tasks: Mapping[str, Mapping[Knobs, Cell]], metric: str
) -> dict[str, dict[Knobs, float]]:
    """Task → (threshold τ, trim fraction) → the metric's mean; then the mean of the tasks."""
    maps = {
        name: {knobs: cell[metric]["mean"] for knobs, cell in cells.items()}
        for name, cells in tasks.items()
    }
    shared = set.intersection(*(set(values) for values in maps.values()))
    mean = {knobs: sum(values[knobs] for values in maps.values()) / len(maps) for knobs in shared}
    return {**maps, "mean": mean}


def publish(store: Path) -> None:
    """Copy the leaderboards, draw the pictures, and write the tables into the page."""
    documents = [publishing.publish(store, space) for space in (*SPACES, KNOBS)]
    *tasks, knobs = documents
    draw_rounds(tasks, locate_store(store), RESULTS / "rounds.png")
    draw_knobs(knobs, RESULTS / "knobs.png")
    lines = [
        "## Beside doing nothing",
        "",
        *doing_nothing(tasks),
        "## From the start",
        "",
        *from_the_start(tasks),
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
