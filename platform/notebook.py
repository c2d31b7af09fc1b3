"""What a notebook calls: a run and a leaderboard, each as a value.

run(Spec(rounds=5)).frame()
leaderboard("backstop-store", "quickstart").frame()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform.contract import Record, Spec

if TYPE_CHECKING:
    from pandas import DataFrame

    from backstop.platform.results.document import Document
    from backstop.platform.results.runs import Run
    from backstop.platform.results.store import Store

TEXT_WIDTH = 110  # columns of a leaderboard as text


class RunResult(NamedTuple):
    """An experiment that is done."""

    spec: Spec
    records: tuple[Record, ...]  # of the evaluated rounds
    final: Mapping[str, float]  # final/…

    def frame(self) -> DataFrame:
        """The metrics, a row for each evaluated round."""
        from pandas import DataFrame, Index

        rounds = Index([record.round for record in self.records], name="round")
        return DataFrame([dict(record.metrics) for record in self.records], index=rounds)


@dataclass(frozen=True, repr=False)
class Leaderboard:
    """A leaderboard: its document, which ``leaderboard.json`` holds, and forms of it."""

    document: Document

    def __repr__(self) -> str:
        """The table that the command line prints."""
        from rich.console import Console

        from backstop.platform.results.terminal import terminal_table

        console = Console(width=TEXT_WIDTH, force_jupyter=False)
        with console.capture() as text:
            console.print(terminal_table(self.document, TEXT_WIDTH))
        return text.get().rstrip()

    def frame(self) -> DataFrame:
        """The ranking, a row for each defense."""
        from backstop.platform.results.frames import leaderboard_frame

        return leaderboard_frame(self.document)

    def cells(self) -> DataFrame:
        """The figures behind the ranking, a row for each setting, attack and defense."""
        from backstop.platform.results.frames import cells_frame

        return cells_frame(self.document)

    def latex(self) -> str:
        """The ranking as a table for a paper."""
        from backstop.platform.results.latex import latex

        return latex(self.document)

    def markdown(self) -> str:
        """What ``leaderboard.md`` holds: the ranking, and attack by attack."""
        from backstop.platform.results.markdown import markdown

        return markdown(self.document)


def run(spec: Spec, *, data_dir: str | Path | None = None, device: str = "auto") -> RunResult:
    """Run one experiment in this process. Nothing is stored."""
    from backstop.platform import experiment
    from backstop.platform.rounds import finals
    from backstop.platform.training.loading import data_folder

    records = tuple(experiment.run(spec, folder=data_folder(data_dir), device=device))
    return RunResult(spec, records, finals.final(records))


def leaderboard(store: str | Path, experiment: str) -> Leaderboard:
    """Rank the finished runs of an experiment; nothing is run and nothing is written."""
    from backstop.platform.results.boards import rank_runs

    where, finished = _finished_runs(store, experiment)
    return Leaderboard(rank_runs(where, experiment, finished).document)


def runs(store: str | Path, experiment: str) -> DataFrame:
    """The finished runs of an experiment, a row each: the spec, seconds and final metrics."""
    from backstop.platform.results.frames import runs_frame

    return runs_frame(_finished_runs(store, experiment)[1])


def load(file: str | Path) -> Leaderboard:
    """The leaderboard of a ``leaderboard.json``."""
    from backstop.platform.results.document import load_document

    return Leaderboard(load_document(Path(file)))


def _finished_runs(store: str | Path, experiment: str) -> tuple[Store, list[Run]]:
    """The store, which is only read, and the finished runs of an experiment there."""
    from backstop.platform.results.experiments import check_name
    from backstop.platform.results.runs import read_runs
    from backstop.platform.results.soundness import check_reachable
    from backstop.platform.results.store import locate_store

    check_name(experiment)
    where = locate_store(Path(store))
    check_reachable(where, write=False)
    return where, read_runs(where, experiment)
