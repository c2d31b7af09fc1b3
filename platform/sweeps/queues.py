"""What is left to run, generation by generation, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from backstop.platform.specs.spec import Spec

if TYPE_CHECKING:
    from backstop.platform.sweeps.session import Outcome

Finals = Mapping[str, float]  # the final metrics of one run


class SpecSource(Protocol):
    """Where specs come from, generation by generation: a fixed plan has one, a search asks for the
    next when one is done.
    """

    def ask(self) -> list[Spec]:
        """The specs of the next generation; empty when there is none."""

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """Final metrics of all specs asked for so far by id; None for a run that failed."""

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


class Unstored(NamedTuple):
    """Why a run that is done is not in the store."""

    reason: str
    kept: bool  # in its checkpoint, from where it can be sent


class Queue:
    """What is left to run, generation by generation: the next one is asked for when the last is
    done, and is told in full.
    """

    def __init__(self, source: SpecSource, done: Mapping[str, Finals]) -> None:
        """``done``: the final metrics of finished runs by id. Nothing is asked for before
        :meth:`fill`.
        """
        self.source = source
        self.results: dict[str, Finals | None] = dict(done)
        self.specs: dict[str, Spec] = {}
        self.waiting: list[Spec] = []
        self.skipped = 0
        self.unstored: dict[str, Unstored] = {}  # runs that are done and could not be stored
        self.failures: dict[str, str] = {}  # runs that failed for good, and why
        self.findings: list[str] = []  # where a run is not what another process has stored
        self._asked = False

    @property
    def expected(self) -> int:
        """Runs in all, the finished ones among them."""
        return self.source.expected()

    def ended(self, spec: Spec, outcome: Outcome) -> None:
        """The rounds of a run are all done."""
        self.results[spec.id] = outcome.finals
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
        """Go on to the next generation that holds something to run; False when the source has no
        more.
        """
        while not self.waiting:
            if self._asked:
                self.source.tell(self.results)
            self._asked = True
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
