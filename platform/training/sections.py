"""A round's rows defended in sections of their coordinates, none of which knows the others: each
makes its part of the aggregate, and what concerns whole rows is asked of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Defense, Shares, Updates
from backstop.platform.kernels import sections
from backstop.platform.kernels.sections import Question
from backstop.platform.training.evaluate import where_stopped
from backstop.platform.training.mean import weighted_mean


class SectionResult(NamedTuple):
    """What a defense made of a section with w coordinates."""

    aggregate: Tensor  # (w,) the weighted mean of the rows that it left
    stopped: Tensor  # (w,) bool: some row wanted to move there, the aggregate does not
    left: Shares  # the rows that are left, and
    shares: Shares  # how much each client counts: the same in every section


# hands the answers so far to all sections; what each says then, in the order of their coordinates
Ask = Callable[[Sequence[Any]], Sequence[SectionResult | Question]]


def defend_section(
    defense: Defense,
    updates: Updates,
    length: int,
    answers: Sequence[Any],
) -> SectionResult | Question:
    """What a chain of defenses makes of a section (n, w) of rows with ``length`` coordinates, or
    the first question that these answers leave open.
    """
    assert defense.follow_section is not None
    try:
        with sections.within(length, answers):
            # another object: nothing is remembered of these rows, so all sections ask the same
            fresh = updates._replace(rows=updates.rows.view_as(updates.rows))
            after, shares = defense.follow_section(fresh)
    except sections.Asked as asked:
        return asked.question
    aggregate = weighted_mean(after.rows, after.weight)
    return SectionResult(
        aggregate=aggregate,
        stopped=where_stopped(updates.rows, aggregate),
        left=Shares(after.client, after.weight),
        shares=shares,
    )


def defend_in_sections(ask: Ask) -> SectionResult:
    """What a chain of defenses makes of whole rows that are there in sections only. Raises
    ValueError where the sections contradict each other: a stage's scope is not what it says.
    """
    answers: list[Any] = []
    while True:
        said = ask(answers)
        questions = [word for word in said if isinstance(word, Question)]
        results = [word for word in said if isinstance(word, SectionResult)]
        if not questions:
            return _joined(results)
        if results:
            raise ValueError("some sections of one matrix ask what others do not need")
        answers.append(sections.answer(questions))


def _joined(results: Sequence[SectionResult]) -> SectionResult:
    first = results[0]
    if not all(_agree(first, other) for other in results):
        raise ValueError("sections of one matrix leave clients different weights")
    return first._replace(
        aggregate=torch.cat([result.aggregate for result in results]),
        stopped=torch.cat([result.stopped for result in results]),
    )


def _agree(one: SectionResult, other: SectionResult) -> bool:
    """Whether two sections leave the same clients the same weights."""
    pairs = zip((*one.left, *one.shares), (*other.left, *other.shares), strict=True)
    return all(torch.equal(*pair) for pair in pairs)
