"""The rows of a round as a matrix: what attack and defense do to it, wherever its values are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Shares, Updates
from backstop.platform.training.evaluate import where_stopped
from backstop.platform.training.mean import finite_rows, weighted_mean


class Defended(NamedTuple):
    """What a defense made of the rows of a round."""

    aggregate: Tensor  # (d,) the weighted mean of the rows that it left
    left: Shares  # those rows' clients and weights
    shares: Shares  # how much each client counts
    stopped: Callable[[], Tensor]  # (d,) bool: where a row wanted to move and it does not
    state: Any  # the defense's


class Matrix(Protocol):
    """The rows (n, d) that the clients of a round send, sorted by client id."""

    def finite(self) -> Tensor:
        """(n,) bool: which rows hold no NaN and no infinity."""

    def of(self, present: Tensor) -> Tensor:
        """A copy of some rows (m, d); ``present`` (n,) says which."""

    def replace(self, present: Tensor, rows: Tensor) -> None:
        """Put other rows (m, d) in their place."""

    def keep(self, wanted: Tensor) -> None:
        """Leave out all rows but those wanted, (n,) bool."""

    def defended(
        self,
        sent: Shares,
        defense: Defense,
        state: Any,
        view: ServerView,
    ) -> Defended:
        """What a chain of defenses makes of the rows; ``sent`` are their clients and weights."""


class WholeMatrix:
    """All rows in this process."""

    def __init__(self, rows: Tensor) -> None:
        """``rows`` (n, d) may be written to."""
        self.rows = rows

    def finite(self) -> Tensor:
        """(n,) bool: which rows hold no NaN and no infinity."""
        return finite_rows(self.rows)

    def of(self, present: Tensor) -> Tensor:
        """A copy of some rows (m, d)."""
        return self.rows[present]

    def replace(self, present: Tensor, rows: Tensor) -> None:
        """Put other rows in their place; a second matrix is made for nobody."""
        self.rows[present] = rows

    def keep(self, wanted: Tensor) -> None:
        """Leave out all rows but those wanted; all of them are not copied."""
        if not wanted.all():
            self.rows = self.rows[wanted]

    def defended(
        self,
        sent: Shares,
        defense: Defense,
        state: Any,
        view: ServerView,
    ) -> Defended:
        """What a chain of defenses makes of the rows."""
        assert defense.follow is not None
        rows = self.rows
        updates = Updates(rows, sent.weight, sent.client)
        after, remembered, shares = defense.follow(updates, state, view)
        aggregate = weighted_mean(after.rows, after.weight)
        left = Shares(after.client, after.weight)
        return Defended(
            aggregate,
            left,
            shares,
            lambda: where_stopped(rows, aggregate),
            remembered,
        )
