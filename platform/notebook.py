"""What a notebook calls: a run, a sweep, a search and a leaderboard, each as a value.

    board = sweep(grid(Spec(), defense=["fedavg", "median"]), experiment="first")
    board.frame()

Runs are stored, found again and ranked as the command line does it: ``backstop leaderboard
--experiment first`` gives the same leaderboard. Progress goes to stderr.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform import storage, vault
from backstop.platform.contract import Record, Search, Spec
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from pandas import DataFrame

    from backstop.platform.results.leaderboard.document import Document
    from backstop.platform.results.tracking.runs import Run
    from backstop.platform.results.tracking.store import Store
    from backstop.platform.sweeps.conduct import Site
    from backstop.platform.sweeps.plan import SweepPlan
    from backstop.platform.sweeps.queues import Queue
    from backstop.platform.sweeps.search import Proposals

STORE = "backstop-store"
TEXT_WIDTH = 110  # columns of a leaderboard as text


class RunResult(NamedTuple):
    """An experiment that is done."""

    spec: Spec
    records: tuple[Record, ...]  # of the evaluated rounds
    final: Mapping[str, float]  # final/…

    def frame(self) -> DataFrame:
        """The metrics, a row for each evaluated round; what is told of the whole run is final."""
        from pandas import DataFrame, Index

        from backstop.platform.rounds.finals import OF_THE_RUN

        rounds = [record.round for record in self.records]
        table = DataFrame([record.metrics for record in self.records])
        table.index = Index(rounds, name="round")
        of_rounds = [name for name in map(str, table) if not name.startswith(OF_THE_RUN)]
        return table[of_rounds]


@dataclass(frozen=True, repr=False)
class Leaderboard:
    """A leaderboard: its document, which ``leaderboard.json`` holds, and forms of it."""

    document: Document

    def __repr__(self) -> str:
        """The table that the command line prints."""
        from backstop.platform.results.tables.terminal import terminal_text

        return terminal_text(self.document, TEXT_WIDTH)

    def frame(self) -> DataFrame:
        """The ranking, a row for each defense."""
        from backstop.platform.results.tables.frames import leaderboard_frame

        return leaderboard_frame(self.document)

    def cells(self) -> DataFrame:
        """The figures behind the ranking, a row for each setting, attack and defense."""
        from backstop.platform.results.tables.frames import cells_frame

        return cells_frame(self.document)

    def latex(self) -> str:
        """The ranking as a table for a paper."""
        from backstop.platform.results.tables.latex import latex

        return latex(self.document)

    def markdown(self) -> str:
        """What ``leaderboard.md`` holds: the ranking, and attack by attack."""
        from backstop.platform.results.tables.markdown import markdown

        return markdown(self.document)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two defenses of a leaderboard, or two leaderboards: what ``backstop compare --json`` prints,
    and its text.
    """

    document: Document
    text: str

    def __repr__(self) -> str:
        """What the command line prints."""
        return self.text

    def frame(self) -> DataFrame:
        """Of two defenses a row for each measure, of two leaderboards one for each defense."""
        from pandas import json_normalize

        return json_normalize(self.document.get("figures") or self.document["rows"], sep="_")


class Proposal(NamedTuple):
    """What a search has tried, and what it came to."""

    changes: Mapping[str, Any]  # what was proposed: key → value
    scores: Mapping[str, float]  # objective or constraint → mean over seeds and attacks
    state: str  # finished, pruned, failed or refused
    kept: bool  # whether it keeps to the constraints
    fresh: Mapping[str, Sequence[float]] = {}  # the same of a winner, for each fresh seed


class SearchResult(NamedTuple):
    """A search that is done: its proposals in order, the winners and the Pareto front."""

    title: str
    objectives: tuple[str, ...]
    proposals: tuple[Proposal, ...]
    winners: tuple[Proposal, ...]  # confirmed on fresh seeds
    front: tuple[Proposal, ...]  # what no other proposal beats in all objectives

    @property
    def best(self) -> Proposal | None:
        """The first winner; None where no finished proposal keeps to the constraints."""
        return next(iter(self.winners), None)

    def frame(self) -> DataFrame:
        """The proposals, a row each: what was tried, what it came to, and what became of it."""
        from pandas import DataFrame, RangeIndex

        rows = [
            {
                **item.changes,
                **item.scores,
                "state": item.state,
                "winner": item in self.winners,
                "front": item in self.front,
            }
            for item in self.proposals
        ]
        return DataFrame(rows, index=RangeIndex(len(rows), name="trial"))


def run(
    spec: Spec,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
) -> RunResult:
    """Run one experiment in this process, on threads of the cores that it may use. It is not
    stored: ``sweep([spec])`` stores its run.
    """
    from backstop.platform import experiment
    from backstop.platform.rounds import finals
    from backstop.platform.training.loading import data_folder
    from backstop.platform.workers.cluster import hired_threads

    records = tuple(
        experiment.run(
            spec,
            folder=data_folder(data_dir),
            device=device,
            clients=hired_threads(),
        )
    )
    return RunResult(spec, records, finals.final(records))


def sweep(
    space: str | Path | Sequence[Spec],
    *,
    experiment: str | None = None,
    store: str | Path = STORE,
    data_dir: str | Path | None = None,
    device: str = "auto",
) -> Leaderboard:
    """Run all specs that are not finished yet, and the twins that they are compared with, on Ray;
    rank the experiment.

    ``space`` is a list of specs, a name in ``search_spaces/`` or the path of a Python file;
    ``experiment`` is its name unless given. A run that fails is said on stderr, and is among the
    document's ``missing_runs``.
    """
    plan = _plan(space, experiment)
    if plan.searches:
        raise BadInput(f"{plan.title} is a search, not a list of specs; backstop.search runs it")
    if not plan.specs:
        raise BadInput("sweep: the list of specs is empty; there is nothing to run")
    name = _experiment_name(plan, experiment)
    queue = _conduct(plan, _site(store, name, data_dir, device))
    return _ranked(store, name, queue.finished)


def search(
    space: str | Path | Search,
    *,
    experiment: str | None = None,
    store: str | Path = STORE,
    data_dir: str | Path | None = None,
    device: str = "auto",
) -> SearchResult:
    """Run a search from where it was left, on Ray; its proposals, and the winner on fresh seeds.

    ``space`` is a :class:`Search`, or a space of one: a name in ``search_spaces/`` or the path of a
    Python file.
    """
    plan = _plan(space, experiment)
    if len(plan.searches) > 1:
        raise BadInput(
            f"{plan.title} is {len(plan.searches)} searches; backstop.search_all runs them"
        )
    result, *_ = _searched(plan, _site(store, _experiment_name(plan, experiment), data_dir, device))
    return result


def search_all(
    space: str | Path | Sequence[Search],
    *,
    experiment: str | None = None,
    store: str | Path = STORE,
    data_dir: str | Path | None = None,
    device: str = "auto",
) -> tuple[SearchResult, ...]:
    """Run several searches side by side, as :func:`search` runs one."""
    plan = _plan(space, experiment)
    return _searched(plan, _site(store, _experiment_name(plan, experiment), data_dir, device))


def _searched(plan: SweepPlan, site: Site) -> tuple[SearchResult, ...]:
    if not plan.searches:
        raise BadInput(f"{plan.title} is a list of specs, not a search; backstop.sweep runs it")
    _conduct(plan, site)
    return tuple(map(_search_result, plan.searches))


def _search_result(source: Proposals) -> SearchResult:
    fresh = {item.trial.position: item.scores for item in source.confirmed}
    proposals = []
    for trial in source.trials:
        confirmed = fresh.get(trial.position, {})
        proposals.append(
            Proposal(dict(trial.values), trial.scores, trial.state, trial.kept, confirmed)
        )
    return SearchResult(
        title=source.title,
        objectives=tuple(item.words for item in source.objectives),
        proposals=tuple(proposals),
        winners=tuple(proposals[trial.position] for trial in source.winners()),
        front=tuple(proposals[trial.position] for trial in source.front()),
    )


def leaderboard(store: str | Path, experiment: str) -> Leaderboard:
    """Rank the finished runs of an experiment; nothing is run and nothing is written."""
    return _ranked(store, experiment)


def _ranked(
    store: str | Path,
    experiment: str,
    known: Sequence[Run] = (),
) -> Leaderboard:
    from backstop.platform.results.leaderboard.boards import rank_runs

    where, finished = _finished_runs(store, experiment, known)
    ranked = rank_runs(where, experiment, finished)
    return Leaderboard(ranked.document)


def runs(store: str | Path, experiment: str) -> DataFrame:
    """The finished runs of an experiment, a row each: the spec, seconds and final metrics."""
    from backstop.platform.results.tables.frames import runs_frame

    _, finished = _finished_runs(store, experiment)
    return runs_frame(finished)


def load(file: str | Path) -> Leaderboard:
    """The leaderboard of a ``leaderboard.json`` or its folder."""
    from backstop.platform.results.leaderboard.reading import load_document

    return Leaderboard(load_document(Path(file)))


def merge(
    *boards: str | Path,
    experiment: str | None = None,
) -> Leaderboard:
    """The leaderboard of all runs of several boards, each a folder of results or a
    ``leaderboard.json``. ``experiment`` is its name, theirs unless given.

    Raises BadInput where two of them disagree on a run.
    """
    from backstop.platform.results.leaderboard.merging import merge_boards
    from backstop.platform.results.leaderboard.published import read_published

    merged = merge_boards([read_published(Path(board)) for board in boards], experiment=experiment)
    return Leaderboard(merged.document)


def compare(
    first: str | Leaderboard,
    second: str | Leaderboard,
    board: Leaderboard | None = None,
) -> Comparison:
    """Two defenses of a leaderboard by their names, ``compare("krum", "median", board)``, or two
    leaderboards, ``compare(before, after)``: how much they differ, how sure that is, which cells
    decide, and how many seeds are missing.
    """
    from backstop.platform.commands.compare import report_boards, report_defenses

    if isinstance(first, Leaderboard) and isinstance(second, Leaderboard) and board is None:
        documents = first.document, second.document
        titles = [document["experiment"] for document in documents]
        report = report_boards(*documents, titles)
    elif isinstance(first, str) and isinstance(second, str) and board is not None:
        report = report_defenses(board.document, first, second)
    else:
        raise BadInput("compare: give two leaderboards, or two defenses by name and their board")
    return Comparison(report.document, report.text(TEXT_WIDTH))


def _finished_runs(
    store: str | Path,
    experiment: str,
    known: Sequence[Run] = (),
) -> tuple[Store, list[Run]]:
    """The store, which is only read, and the finished runs of an experiment there, those that are
    ``known`` not read again.
    """
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.results.tracking.runs import read_runs
    from backstop.platform.results.tracking.soundness import check_reachable
    from backstop.platform.results.tracking.store import locate_store

    check_name(experiment)
    where = locate_store(storage.locate(store))
    check_reachable(where, write=False)
    return where, read_runs(where, experiment, known=known)


def _plan(
    space: str | Path | Search | Sequence[Spec] | Sequence[Search],
    experiment: str | None,
) -> SweepPlan:
    """What will be run; a list has the name of its experiment."""
    from backstop.platform.sweeps.plan import load_space, plan_space

    if isinstance(space, (str, Path)):
        return plan_space(Path(space).stem, load_space(str(space)))
    if isinstance(space, Search):
        return plan_space(experiment or "notebook", (space,))
    return plan_space(experiment or "notebook", space)


def _experiment_name(plan: SweepPlan, experiment: str | None) -> str:
    """The name that was given; the plan's without one."""
    if experiment is None:
        return plan.title
    return experiment


def _site(
    store: str | Path,
    experiment: str,
    data_dir: str | Path | None,
    device: str,
) -> Site:
    """Where a sweep reads and writes, checked. Raises BadInput before anything is trained."""
    from backstop.platform.commands.output import usable_store
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.sweeps.conduct import Site
    from backstop.platform.training.device import choose_device
    from backstop.platform.training.loading import data_folder

    check_name(experiment)
    located = usable_store(Namespace(store=str(store)))
    vault.keep_with(storage.locate(store))
    return Site(
        located,
        storage.locate(store),
        experiment,
        data_folder(data_dir),
        choose_device(device).type,
    )


def _conduct(plan: SweepPlan, site: Site) -> Queue:
    """Run what is left of a plan, and say what could not be run or stored."""
    from backstop.platform.commands.live import Watch
    from backstop.platform.commands.output import say
    from backstop.platform.sweeps.conduct import conduct, shortfalls
    from backstop.platform.sweeps.ray_tune import Precautions, RayTune

    address = os.environ.get("RAY_ADDRESS") or None
    queue = conduct(
        plan,
        site,
        RayTune(
            address,
            runs=plan.source.expected(),
            precautions=Precautions(store=storage.local_folder(site.folder)),
        ),
        watch=lambda queue: Watch(plan.title, queue),
        say=say,
    )
    for line in shortfalls(queue, site):
        say(f"backstop: {line}")
    return queue
