"""The law of a declared scope: a stage makes of sections of the coordinates what it makes of whole
rows, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from backstop.platform import plugins, robust
from backstop.platform.contract import Defense, Shares, Updates
from backstop.platform.examples import server_view
from backstop.platform.kernels import sections
from backstop.platform.laws.breach import hold
from backstop.platform.laws.parameters import tries
from backstop.platform.seeds import generator
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.matrix import WholeMatrix
from backstop.platform.training.sections import (
    SectionResult,
    defend_in_sections,
    defend_section,
)

PIECES = 3  # of coordinates; the last one is not full


def goes_in_sections(name: str) -> None:
    """A stage that says that it goes by coordinates does."""
    if not robust.COMPILED:  # no matrix is cut then
        return
    for params in tries("defenses", name):
        defense = chain(plugins.build("defenses", name, params))
        if defense.follow_section:
            for case, rows in _cases():
                _same(defense, rows, case)


def _cases() -> Iterator[tuple[str, Tensor]]:
    """Rows as they come; some equal, zero, huge and tiny ones; a single one."""
    d = PIECES * sections.piece() - 1_234
    rows = torch.randn(9, d, generator=generator(0, "tests", "sections")) * 0.01
    yield "plain rows", rows
    odd = rows.clone()
    odd[1] = odd[4]
    odd[2] = 0.0
    odd[5, ::2] = 3e38
    odd[7] = 1e-40
    yield "equal, zero, huge and tiny rows", odd
    yield "one row", rows[:1]


def _same(
    defense: Defense,
    rows: Tensor,
    case: str,
) -> None:
    n, d = rows.shape
    sent = Shares(torch.arange(n) * 3, torch.arange(n) + 1.0)
    state = defense.init(view := server_view(torch.zeros(d)))
    whole = WholeMatrix(rows).defended(sent, defense, state, view)
    parted = in_sections(defense, Updates(rows, sent.weight, sent.client), sections.piece())
    for what, one, other in (
        ("aggregate", whole.aggregate, parted.aggregate),
        ("weights", whole.left.weight, parted.left.weight),
        ("clients", whole.left.client, parted.left.client),
        ("clients' shares", whole.shares.weight, parted.shares.weight),
        ("stopped coordinates", whole.stopped(), parted.stopped),
    ):
        same = torch.equal(one, other)
        hold(same, f"of sections of {case} the {what} of whole rows", "saw others")


def in_sections(
    defense: Defense,
    updates: Updates,
    most: int,
) -> SectionResult:
    """What a chain makes of rows in sections of at most so many coordinates, all of them here."""
    d = updates.rows.shape[1]
    parts = [
        updates._replace(rows=updates.rows[:, first:last].contiguous())
        for first, last in sections.cut(d, most)
    ]

    def ask(answers: Sequence[Any]) -> list[Any]:
        return [defend_section(defense, part, d, answers) for part in parts]

    return defend_in_sections(ask)
