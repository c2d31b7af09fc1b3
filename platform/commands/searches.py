"""What a sweep prints of its searches: each proposal, the winners, and what the fresh seeds say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from backstop.platform.commands.output import open_console
from backstop.platform.results.figures.intervals import figure, kind_of
from backstop.platform.results.figures.wording import plural
from backstop.platform.sweeps import reports

if TYPE_CHECKING:
    from backstop.platform.sweeps.confirmation import Confirmed
    from backstop.platform.sweeps.search import Proposals
    from backstop.platform.sweeps.trial_runs import SearchTrial

KEYS_IN_COLUMNS = 5  # more of what was proposed is written in one
WINNER_WIDTH = 24  # columns that a chain has at least


def print_searches(searches: Sequence[Proposals]) -> None:
    """One search with all of its proposals; of several the winner of each."""
    console = open_console()
    if len(searches) == 1:
        console.print(_trials_table(searches[0]))
        if len(searches[0].objectives) > 1:
            console.print()
            console.print(_front_table(searches[0]))
        console.print()
    console.print(_winners_table(searches))
    for line in _lines(searches):
        console.print(line, highlight=False, soft_wrap=True)


def _table() -> Table:
    return Table(
        box=None,
        header_style="bold",
        pad_edge=False,
    )


def _keys(trials: Sequence[SearchTrial]) -> list[str]:
    """All that was proposed, in the order in which it first was."""
    return list(dict.fromkeys(key for trial in trials for key in trial.values))


def _trials_table(proposals: Proposals) -> Table:
    """A row for each proposal, the winners in green."""
    winners = {trial.position for trial in proposals.winners()}
    return _filled(proposals, proposals.trials, winners)


def _front_table(proposals: Proposals) -> Table:
    """The proposals that no other one beats in everything."""
    table = _filled(proposals, proposals.front(), set())
    table.title = "Pareto front"
    table.title_justify = "left"
    return table


def _filled(
    proposals: Proposals,
    trials: Sequence[SearchTrial],
    green: set[int],
) -> Table:
    table, keys = _table(), _keys(trials)
    in_columns = len(keys) <= KEYS_IN_COLUMNS
    table.add_column("trial", justify="right", no_wrap=True)
    for key in keys if in_columns else ["proposal"]:
        table.add_column(key, justify="right" if in_columns else "left")
    for name in (*proposals.judgments, ""):
        table.add_column(name.replace("_", " "), justify="right")
    for trial in trials:
        cells = [reports.value_text(trial.values.get(key, "–")) for key in keys]
        if not in_columns:
            cells = [reports.proposal_text(trial)]
        cells += [_score_text(trial, name) for name in proposals.judgments]
        style = "green" if trial.position in green else ""
        table.add_row(str(trial.position), *cells, _remark(trial), style=style)
    return table


def _score_text(trial: SearchTrial, name: str) -> str:
    return f"{trial.scores[name]:.4f}" if name in trial.scores else "–"


def _remark(trial: SearchTrial) -> str:
    """Why a proposal cannot win; empty where it can."""
    if trial.state != "finished":
        return trial.state
    return "" if trial.kept else "breaks a constraint"


def _winners_table(searches: Sequence[Proposals]) -> Table:
    """A row for each winner: on validation data, and on the test set with fresh seeds."""
    table = _table()
    judgments = list(dict.fromkeys(name for item in searches for name in item.judgments))
    table.add_column("search", overflow="fold")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("winner", overflow="fold", min_width=WINNER_WIDTH)
    for name in judgments:
        table.add_column(name.replace("_", " "), justify="right")
        table.add_column("fresh seeds", no_wrap=True)
    for proposals in searches:
        for row in _winner_rows(proposals, judgments):
            table.add_row(*row)
    return table


def _winner_rows(proposals: Proposals, judgments: Sequence[str]) -> Iterator[list[str]]:
    if not proposals.winners():
        yield [proposals.title, "–", "none"]
    confirmed = {item.trial.position: item for item in proposals.confirmed}
    for trial in proposals.winners():
        fresh = confirmed.get(trial.position)
        row = [proposals.title, str(trial.position), _winner_text(proposals, fresh)]
        for name in judgments:
            row += [_score_text(trial, name), _fresh_text(fresh, name)]
        yield row


def _winner_text(proposals: Proposals, confirmed: Confirmed | None) -> str:
    """The chain that was searched, as it was confirmed."""
    if confirmed is None or not confirmed.specs:
        return "not confirmed"
    report = reports.confirmed_report(confirmed)
    return str(report[proposals.search.side])


def _fresh_text(confirmed: Confirmed | None, name: str) -> str:
    """The mean over fresh seeds, and their range or interval."""
    values = [] if confirmed is None else confirmed.scores.get(name, [])
    over_seeds = figure(values)
    if over_seeds is None:
        return "–"
    mean = f"{over_seeds['mean']:.3f}"
    if over_seeds["n"] == 1:
        return mean
    return f"{mean} ({over_seeds['low']:.3f}–{over_seeds['high']:.3f})"


def _lines(searches: Sequence[Proposals]) -> Iterator[str]:
    """What the figures are of, and the budget, once for all searches that have the same."""
    budgets = dict.fromkeys(_budget(proposals) for proposals in searches)
    yield from budgets
    for proposals in searches:
        if not proposals.winners():
            name = proposals.title or "the search"
            yield f"{name}: no proposal was finished that keeps to the constraints"
        yield from _broken_lines(proposals)


def _broken_lines(proposals: Proposals) -> Iterator[str]:
    """Where a winner that kept to a constraint on validation data breaks it on fresh seeds."""
    for confirmed in proposals.confirmed:
        for constraint in proposals.constraints:
            over_seeds = figure(confirmed.scores[constraint.name])
            if over_seeds is None or constraint.excess(over_seeds["mean"]) <= 0:
                continue
            named = f"{proposals.title}: " * bool(proposals.title)
            reached = f"{constraint.name} is {over_seeds['mean']:.3f}"
            yield f"{named}on fresh seeds the winner breaks {constraint.words}: {reached}"


def _budget(proposals: Proposals) -> str:
    search = proposals.search
    each = "each search: " * bool(search.title)
    proposed = f"{plural(len(proposals.trials), 'proposal')} × {plural(len(search.seeds), 'seed')}"
    fresh = f"winners on {plural(len(search.confirm), 'fresh seed')} and the test set"
    if len(search.confirm) > 1:
        kind = kind_of(len(search.confirm))
        fresh += f": mean ({'range of the seeds' if kind == 'range' else '95 % interval'})"
    return (
        f"{each}{proposed} on validation data ({search.sampler}), judged by"
        f" {reports.judged_by(proposals)}; {fresh}"
    )
