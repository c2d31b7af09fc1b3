"""Rules on a section of the rows' coordinates, and what they ask of the other sections.

A section is some whole pieces of the coordinates, of rows that are nowhere as a whole. What a rule
wants of whole rows (norms, distances) it asks: :class:`Asked` leaves the rule, what all sections
contribute makes the answer, and the rule is called again with it. A rule is a pure function, so it
comes to the same question with the answer at hand, and goes on to the next one.

The pieces of all sections are those of the whole rows, and are added in the same order: the answers
have the bits of the whole rows. Outside of a section nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class Question(NamedTuple):
    """What a section asks, and what it contributes to the answer."""

    kind: str  # one of ANSWERS
    own: Any


class Asked(BaseException):
    """A rule cannot go on without the other sections. It is no Exception: no rule may catch it."""

    def __init__(self, question: Question) -> None:
        """``question`` is what is asked."""
        super().__init__(question.kind)
        self.question = question


class _Section:
    """Where a rule is at work, and the answers that it has not come to yet."""

    def __init__(self, length: int, answers: Sequence[Any]) -> None:
        self.length = length
        self.answers = iter(answers)

    def ask(self, kind: str, contribute: Callable[[], Any]) -> Any:
        known = next(self.answers, None)
        if known is None:
            raise Asked(Question(kind, contribute()))
        return known


_section: ContextVar[_Section | None] = ContextVar("section", default=None)


@contextmanager
def within(length: int, answers: Sequence[Any]) -> Iterator[None]:
    """Rules in here are at work on a section of rows with ``length`` coordinates. They have these
    answers; the next question raises :class:`Asked`.
    """
    token = _section.set(_Section(length, answers))
    try:
        yield
    finally:
        _section.reset(token)


def whole_length(here: int) -> int:
    """How many coordinates whole rows have, where there are so many of them here."""
    section = _section.get()
    return here if section is None else section.length


def total(sums: Callable[[], Any]) -> Any:
    """The sum over all coordinates of what is added up for each piece, (pieces, …) → (…)."""
    section = _section.get()
    if section is None:
        return np.add.reduce(sums(), axis=0)
    return section.ask("sums", sums).copy()  # the answer is needed once more, and may be changed


def squared_distances(count: int, pair: Callable[[int], tuple[Any, Any]]) -> list[float]:
    """The squared distances of ``count`` pairs of rows in float64 throughout; ``pair(i)`` are two
    rows.

    These sums do not go by pieces, so two whole rows are put together for each pair, but for those
    that differ nowhere.
    """
    section = _section.get()
    if section is None:
        return [_squared_distance(*pair(index)) for index in range(count)]

    def differ() -> Any:
        return np.array([(one != other).any() for one, other in map(pair, range(count))])

    squared = [0.0] * count
    apart = section.ask("any", differ) if count else np.empty(0)
    for index in apart.nonzero()[0].tolist():
        squared[index] = section.ask("pair", partial(_stacked, pair, index))
    return squared


def _stacked(pair: Callable[[int], tuple[Any, Any]], index: int) -> Any:
    return np.stack(pair(index))


def _squared_distance(one: Any, other: Any) -> float:
    from backstop.platform.kernels import cpu

    return float(cpu.squared_distance(one, other))


def _add(sums: Sequence[Any]) -> Any:
    return np.add.reduce(np.concatenate(sums), axis=0)


def _far(pairs: Sequence[Any]) -> float:
    return _squared_distance(*np.concatenate(pairs, axis=1))


# what the contributions of all sections, in order, come to
ANSWERS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sums": _add,
    "any": np.logical_or.reduce,
    "pair": _far,
}


def answer(questions: Sequence[Question]) -> Any:
    """The answer to what all sections ask, in the order of their coordinates. Raises ValueError
    where they ask different things: what a rule asks may not hang on some coordinates.
    """
    kinds = {question.kind for question in questions}
    if len(kinds) > 1:
        raise ValueError(f"sections of one matrix ask different things: {sorted(kinds)}")
    return ANSWERS[kinds.pop()]([question.own for question in questions])


def cut(d: int, most: int) -> list[tuple[int, int]]:
    """The (first, last) of sections that have at most ``most`` of d coordinates, or one piece."""
    width = max(most // piece(), 1) * piece()
    return [(first, min(first + width, d)) for first in range(0, d, width)]


def piece() -> int:
    """How many coordinates are added up together."""
    from backstop.platform.kernels import cpu

    return cpu.PIECE
