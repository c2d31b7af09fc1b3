"""What is left to run, generation by generation, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from backstop.platform.specs.spec import Spec

if TYPE_CHECKING:
    from backstop.platform.results.tracking.runs import Run
    from backstop.platform.sweeps.session import Outcome

Finals = Mapping[str, float]  # the final metrics of one run, and its costs


class SpecSource(Protocol):
    """Where specs come from, generation by generation: a fixed plan has one, a search asks for the
    next when one is done.
    """

    def ask(self) -> list[Spec]:
        """The specs of the next generation; empty while one is not done, and when there is none."""

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """What all runs that have ended so far have come to, by id; None for one that failed. A
        source takes it up once its generation is done.
        """

    def expected(self) -> int:
        """Runs in all, those asked for and those to come, as far as that can be told."""


class Fixed:
    """A plan that is known from the start: one generation."""

    def __init__(self, planned: Sequence[Spec]) -> None:
        """Take the specs in order."""
        self.planned = list(planned)
        self.size = len(planned)

    def ask(self) -> list[Spec]:
        """All specs the first time, nothing after that."""
        planned = self.planned
        self.planned = []
        return planned

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """A fixed plan learns nothing."""

    def expected(self) -> int:
        """All that was planned."""
        return self.size


class SearchSource(SpecSource, Protocol):
    """A source that knows how many runs it still asks for."""

    @property
    def asked(self) -> set[str]:
        """Ids of what it has asked for."""

    def to_come(self) -> int:
        """Runs that it will ask for."""


class Together:
    """Several searches side by side: each goes on as soon as its own generation is done, so none
    waits for another, and none sees another's results.
    """

    def __init__(self, sources: Sequence[SearchSource]) -> None:
        """Take the sources in order."""
        self.sources = list(sources)

    def ask(self) -> list[Spec]:
        """What each asks for now, one source after the other."""
        return [spec for source in self.sources for spec in source.ask()]

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """Each takes up what it awaits, if that is done."""
        for source in self.sources:
            source.tell(results)

    def expected(self) -> int:
        """Runs in all; what several have asked for is run once."""
        asked: set[str] = set()
        to_come = 0
        for source in self.sources:
            asked |= source.asked
            to_come += source.to_come()
        return len(asked) + to_come


class Unstored(NamedTuple):
    """Why a run that is done is not in the store."""

    reason: str
    kept: bool  # in its checkpoint, from where it can be sent


class Queue:
    """What is left to run, generation by generation."""

    def __init__(self, source: SpecSource, done: Mapping[str, Finals]) -> None:
        """``done``: the final metrics of finished runs by id. Nothing is asked for before
        :meth:`fill`.
        """
        self.source = source
        self.finished: Sequence[Run] = ()  # those that the store held before, where they were read
        self.results: dict[str, Finals | None] = dict(done)
        self.specs: dict[str, Spec] = {}
        self.waiting: list[Spec] = []
        self.skipped = 0
        self.unstored: dict[str, Unstored] = {}  # runs that are done and could not be stored
        self.failures: dict[str, str] = {}  # runs that failed for good, and why
        self.findings: list[str] = []  # where a run is not what another process has stored

    @property
    def expected(self) -> int:
        """Runs in all, the finished ones among them."""
        return self.source.expected()

    def ended(self, spec: Spec, outcome: Outcome) -> None:
        """The rounds of a run are all done."""
        self.results[spec.id] = {**outcome.finals, **outcome.costs}
        self.note(spec, outcome)

    def note(self, spec: Spec, outcome: Outcome) -> None:
        """Remember whether a run is stored, and what was found out when it was sent."""
        self.unstored.pop(spec.id, None)
        if not outcome.stored:
            self.unstored[spec.id] = Unstored(outcome.reason, outcome.kept)
        if outcome.finding and outcome.finding not in self.findings:
            self.findings.append(outcome.finding)

    def failed(self, spec: Spec, reason: str) -> None:
        """A run has failed for good."""
        self.results[spec.id] = None
        self.failures[spec.id] = reason

    def unfinished(self) -> bool:
        """Whether some run that was asked for has not ended."""
        return any(spec_id not in self.results for spec_id in self.specs)

    def fill(self) -> bool:
        """Take up what the source asks for now, until something waits; False where nothing does:
        then runs that are under way have to end first (:meth:`unfinished`), or all is done.
        """
        while not self.waiting:
            self.source.tell(self.results)
            generation = self.source.ask()
            if not generation:
                return False
            self._take_up(generation)
        return True

    def _take_up(self, generation: Sequence[Spec]) -> None:
        """Let those runs of a generation wait that are new and have no result yet."""
        for spec in generation:
            if spec.id in self.specs:
                continue
            self.specs[spec.id] = spec
            if spec.id in self.results:
                self.skipped += 1
            else:
                self.waiting.append(spec)
