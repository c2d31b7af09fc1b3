"""The rows of a round that are nowhere as a whole: each block's stay where they were trained, in
Ray's object store, cut into sections of their coordinates, which client actors defend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import plugins, robust
from backstop.platform.contract import Defense, ServerView, Shares, Updates
from backstop.platform.kernels import sections
from backstop.platform.kernels.sections import Question
from backstop.platform.specs.part import plugin_stages
from backstop.platform.training.defense_chain import goes_by_coordinates
from backstop.platform.training.federation import Federation
from backstop.platform.training.matrix import Defended
from backstop.platform.training.mean import finite_rows
from backstop.platform.training.sections import (
    SectionResult,
    defend_in_sections,
    defend_section,
)
from backstop.platform.workers.arrays import shareable, view

SECTION_BYTES = 64 * 1024 * 1024  # of a section's rows, of which an actor holds a few copies
GONE = -1  # the number of a row that is not in the matrix any more

Cut = tuple[int, int]  # the first coordinate of a section, and the one behind its last
Call = Callable[[Any], Any]  # an actor → a reference to its answer


def why_gathered(built: Federation) -> str:
    """Why the rows of an experiment cannot stay apart; empty where they can."""
    spec = built.spec
    for part in spec.defense:
        if not goes_by_coordinates(plugins.build("defenses", part.name, part.params)):
            return f"the defense {part.name} takes whole rows"
    for part in plugin_stages(spec.attack):
        if plugins.attack_facts(part.name).knows == "all":
            return f"the attack {part.name} is shown all of them"
    if built.keeping is not None:
        return "clients keep something of their own"
    if built.device.type != "cpu":
        return "they are on a GPU"
    return "" if robust.COMPILED else "numba is not installed"


def cuts(
    n: int,
    d: int,
    actors: int,
) -> list[Cut]:
    """The sections of a matrix (n, d): some for each actor, none of them large."""
    return sections.cut(d, min(SECTION_BYTES // (4 * n), -(-d // actors)))


def pieces(rows: Tensor, where: Sequence[Cut]) -> Iterator[Any]:
    """The sections of some rows (k, d), one after the other, as arrays (k, w)."""
    for first, last in where:
        yield shareable(rows[:, first:last].contiguous())


class Block(NamedTuple):
    """Rows that stay together."""

    numbers: list[int]  # each row's in the matrix
    sections: list[Any]  # references to arrays (k, w)


class SectionJob(NamedTuple):
    """A section of the matrix as an actor is asked to defend it."""

    width: int  # its coordinates
    length: int  # those of whole rows
    client: Any  # (n,)
    weight: Any  # (n,)
    numbers: list[list[int]]  # of each block's rows

    def defended(
        self,
        defense: Defense,
        blocks: Sequence[Any],
        answers: Sequence[Any],
    ) -> Question | tuple[Any, ...]:
        """What a chain makes of the section, as arrays, or what it asks; ``blocks`` are arrays
        (k, w).
        """
        rows = torch.empty(len(self.client), self.width)
        for numbers, block in zip(self.numbers, blocks, strict=True):
            for number, row in zip(numbers, view(block), strict=True):
                if number != GONE:
                    rows[number] = row
        updates = Updates(rows, view(self.weight), view(self.client))
        said = defend_section(defense, updates, self.length, answers)
        if isinstance(said, Question):
            return said
        columns = (said.aggregate, said.stopped, *said.left, *said.shares)
        return tuple(map(shareable, columns))


def _as_said(answer: Question | tuple[Any, ...]) -> Question | SectionResult:
    """What an actor has answered, on the memory of its answer."""
    if isinstance(answer, Question):
        return answer
    aggregate, stopped, *columns = map(view, answer)
    return SectionResult(aggregate, stopped, Shares(*columns[:2]), Shares(*columns[2:]))


class MatrixApart:
    """The rows of a round, of which this process holds references only."""

    def __init__(
        self,
        ray: Any,
        share_out: Callable[[Sequence[Call]], list[Any]],
        where: Sequence[Cut],
        blocks: list[Block],
        finite: Tensor,
    ) -> None:
        """``share_out`` does calls on the client actors; ``finite`` (n,) says which rows are."""
        self.ray = ray
        self.share_out = share_out
        self.where = where
        self.blocks = blocks
        self.sound = finite

    def finite(self) -> Tensor:
        """(n,) bool: which rows hold no NaN and no infinity, as those who trained them found."""
        return self.sound

    def of(self, present: Tensor) -> Tensor:
        """A copy of some rows (m, d), brought here section by section."""
        found = present.nonzero().flatten().tolist()
        place = {number: index for index, number in enumerate(found)}
        rows = torch.empty(len(found), self.where[-1][1])
        for block in self.blocks:
            if place.keys() & set(block.numbers):
                for cut, section in zip(self.where, block.sections, strict=True):
                    part = view(self.ray.get(section))
                    for number, row in zip(block.numbers, part, strict=True):
                        if number in place:
                            rows[place[number], slice(*cut)] = row
        return rows

    def replace(self, present: Tensor, rows: Tensor) -> None:
        """Put other rows (m, d) in their place."""
        numbers = present.nonzero().flatten().tolist()
        kept = [number for number in range(len(present)) if number not in set(numbers)]
        self._renumber({number: number for number in kept})
        stored = [self.ray.put(piece) for piece in pieces(rows, self.where)]
        self.blocks.append(Block(numbers, stored))
        self.sound = self.sound.masked_scatter(present, finite_rows(rows))

    def keep(self, wanted: Tensor) -> None:
        """Leave out all rows but those wanted, (n,) bool."""
        kept = wanted.nonzero().flatten().tolist()
        self._renumber({number: index for index, number in enumerate(kept)})
        self.sound = self.sound[wanted]

    def _renumber(self, numbers: dict[int, int]) -> None:
        """Give the rows other numbers; those without one are gone."""
        self.blocks = [
            block._replace(numbers=[numbers.get(number, GONE) for number in block.numbers])
            for block in self.blocks
        ]

    def defended(
        self,
        sent: Shares,
        defense: Defense,
        state: Any,
        view: ServerView,
    ) -> Defended:
        """What a chain of defenses makes of the rows, on the client actors, which have it."""
        del defense, view

        def ask(answers: Sequence[Any]) -> list[Question | SectionResult]:
            calls = [partial(self._call, index, sent, answers) for index in range(len(self.where))]
            return list(map(_as_said, self.share_out(calls)))

        result = defend_in_sections(ask)
        return Defended(
            result.aggregate,
            result.left,
            result.shares,
            lambda: result.stopped,
            state,
        )

    def _call(
        self,
        index: int,
        sent: Shares,
        answers: Sequence[Any],
        actor: Any,
    ) -> Any:
        """Let an actor defend a section."""
        first, last = self.where[index]
        job = SectionJob(
            width=last - first,
            length=self.where[-1][1],
            client=shareable(sent.client),
            weight=shareable(sent.weight),
            numbers=[block.numbers for block in self.blocks],
        )
        blocks = [block.sections[index] for block in self.blocks]
        return actor.defend.remote(job, answers, *blocks)
