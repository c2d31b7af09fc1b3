"""What a client of a round trains from, what it sends back, and what attack and defense make of its
local steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import ClientView, Local, RoundView, Samples
from backstop.platform.optimizers import Optimizer
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_steps import Batches, LocalSteps, plan_steps
from backstop.platform.training.lock_free import lock_free
from backstop.platform.training.network import to_unit_interval
from backstop.platform.training.stage_errors import located

ChangeSamples = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x, y) → (x, y)
NOTHING_KEPT: Mapping[int, Tensor] = MappingProxyType({})


class Trained(NamedTuple):
    """What clients send back, in the order of ``client``."""

    client: Tensor  # (k,) int64
    rows: Tensor  # (k, d) local minus global parameters
    buffers: Tensor  # (k, e) local minus global floating-point buffers
    loss: Tensor  # (k,) mean training loss over the local steps, weighted by samples
    kept: Tensor  # (k, p) what each client has of its own now; it is not sent


@lock_free
def write_differences(
    moved: Tensor,
    start: Tensor,
    rows: Tensor,
    places: list[int],
) -> None:
    """Write how far the first of the vectors ``moved`` (k, d) are from ``start`` (d,) to these
    places among the ``rows`` (n, d).
    """
    for index, place in enumerate(places):
        torch.sub(moved[index], start, out=rows[place])


class Sheet:
    """Where clients write what they send: each row once, at its place."""

    def __init__(
        self,
        clients: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        own: Mapping[int, Tensor] = NOTHING_KEPT,
    ) -> None:
        """A place for each client, in this order; the global vectors (d,) and (e,) say how long
        rows are, and what clients have of their own (p,) so far stays unless they keep another.
        """
        count = len(clients)
        self.own = own
        self.row_of = {client: index for index, client in enumerate(clients)}
        self.trained = Trained(
            client=torch.tensor(list(clients), dtype=torch.int64),
            rows=params.new_empty(count, len(params)),
            buffers=buffers.new_zeros(count, len(buffers)),
            loss=params.new_zeros(count),
            kept=params.new_empty(count, 0),
        )
        if own:
            kept = torch.stack([own[client] for client in clients])
            self.trained = self.trained._replace(kept=kept)

    def write(
        self,
        client: int,
        moved: tuple[Tensor, Tensor],
        start: tuple[Tensor, Tensor],
        loss: Tensor,
    ) -> None:
        """What a client sends that moved from ``start`` to ``moved``, both (d,) and (e,)."""
        _, rows, buffers, losses, _ = self.trained
        row = self.row_of[client]
        torch.sub(moved[0], start[0], out=rows[row])
        if buffers.shape[1]:
            torch.sub(moved[1], start[1], out=buffers[row])
        losses[row] = loss

    def write_rows(
        self,
        clients: Sequence[int],
        moved: Tensor,
        start: Tensor,
        losses: Tensor,
    ) -> None:
        """What clients send that moved from ``start`` (d,) to the first rows of ``moved`` (k, d),
        all at once, where there are no buffers.
        """
        places = [self.row_of[client] for client in clients]
        write_differences(moved, start, self.trained.rows, places)
        self.trained.loss[places] = losses[: len(places)]

    def place(
        self,
        client: int,
        row: Tensor,
        loss: Tensor,
    ) -> None:
        """What a client sends whose buffers have not moved: its row (d,)."""
        index = self.row_of[client]
        self.trained.rows[index] = row
        self.trained.buffers[index] = 0.0
        self.trained.loss[index] = loss

    def row(self, client: int) -> Tensor:
        """The place of a client's row (d,)."""
        return self.trained.rows[self.row_of[client]]

    def keep(self, client: int, kept: Tensor) -> None:
        """What a client has of its own from now on; what is not finite is as good as lost."""
        if kept.isfinite().all():
            self.trained.kept[self.row_of[client]] = kept

    def withhold(self, client: int, where: tuple[Tensor, Tensor]) -> None:
        """Send nothing of the coordinates (d,) and (e,) that stay with the client."""
        row = self.row_of[client]
        self.trained.rows[row, where[0]] = 0.0
        self.trained.buffers[row, where[1]] = 0.0

    def copy(self, part: Trained) -> None:
        """Take over what a block sent."""
        for client, *sent in zip(part.client.tolist(), *part[1:], strict=True):
            for column, value in zip(self.trained[1:], sent, strict=True):
                column[self.row_of[client]] = value


class Round(NamedTuple):
    """What all clients of a round are trained from."""

    federation: Federation
    round_index: int  # from 0
    params: Tensor  # (d,) global
    buffers: Tensor  # (e,) global
    state: Any  # the attack's
    attackers: dict[int, int]  # client → index among the malicious ones, of those that attack
    own: Mapping[int, Tensor] = NOTHING_KEPT  # client → what it has of its own, (p,)

    def begun_by(self, client: int) -> Round:
        """The round from the model at which a client begins what it sends: the global one, but for
        the part that it keeps.
        """
        keeping = self.federation.keeping
        if keeping is None:
            return self
        vectors = (self.params, self.buffers)
        params, buffers = keeping.start(vectors, self.own.get(client))
        return self._replace(params=params, buffers=buffers)

    def plan(self, client: int) -> LocalSteps:
        """The local steps of a client."""
        return plan_steps(
            self.federation,
            self.round_index,
            client,
            client in self.attackers,
        )

    def dropout(self, client: int) -> tuple[str | int, ...]:
        """The name of a client's draws of dropout."""
        return ("dropout", self.federation.draw_round(self.round_index), client)

    def draws(self, what: str, client: int) -> torch.Generator:
        """The generator of one thing that a client does."""
        return self.federation.draws(what, self.round_index, client)

    def view(self, draws: torch.Generator) -> RoundView:
        """What every client knows."""
        return self.federation.round_view(self.round_index, self.params, self.buffers, draws)


class StepKind(NamedTuple):
    """How local steps differ from plain ones. Attackers have the attack's, others plain ones."""

    optimizer: Optimizer
    pace: float = 1.0  # a factor on the learning rate
    # (delta (d,), x, y, logits) → what is added to the loss
    objective: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    constrain: Callable[[Tensor, int], Tensor] | None = None  # (delta (…, d), step from 1) → delta


def plain_steps(federation: Federation) -> StepKind:
    """The local steps of a client that does not attack."""
    return StepKind(federation.optimizer())


def attacking_steps(federation: Federation, state: Any) -> StepKind:
    """The local steps of an attacker under an attack of this state."""
    attack = federation.attack
    return StepKind(
        optimizer=federation.optimizer(attack.training.lr if attack.training else None),
        pace=attack.pace(state) if attack.pace else 1.0,
        objective=partial(attack.objective, state) if attack.objective else None,
        constrain=partial(attack.constrain, state) if attack.constrain else None,
    )


class Rules:
    """What happens to the batches and gradients of one client: the attack's poison, or the
    defense's rules for honest clients.
    """

    def __init__(self, here: Round, client: int) -> None:
        """``change`` is None where batches stay as they are, ``noise`` where there is none;
        ``memory`` is what the defense has the client remember in this round.
        """
        self.round = here.round_index
        self.client = client
        self.change: ChangeSamples | None = None
        self.noise: Callable[[], Tensor] | None = None  # standard normal draws (d,)
        self.memory: Any = None
        local = here.federation.defense.local
        if client in here.attackers:
            self.change = _poisoning(here, client)
        elif local:
            draws = here.draws("local", client)
            if local.prepare and (local.batch or local.step or local.carry):
                with located(here.round_index, client):
                    self.memory = local.prepare(client_view(here, client, draws))
            self.change = _protection(local, self.memory, draws)
            self.noise = partial(standard_normal, here.params, draws)

    def apply(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the client as it trains on it."""
        if self.change is None:
            return x, y
        with located(self.round, self.client):
            return self.change(x, y)

    def steps(
        self,
        federation: Federation,
        batches: Batches,
        *,
        stored: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The client's batches as (x, y); x in [0, 1], or as stored where ``stored`` allows it and
        nothing changes them.
        """
        data = federation.data.train
        for batch in batches:
            index = batch.to(data.y.device)
            x, y = data.x.index_select(0, index), data.y[index]
            if stored and self.change is None:
                yield x, y
            else:
                yield self.apply(to_unit_interval(x), y)


def _poisoning(here: Round, client: int) -> ChangeSamples | None:
    """What an attack makes of the batches of an attacker."""
    poison = here.federation.attack.poison
    if poison is None:
        return None
    index = here.attackers[client]
    draws = here.draws("poison", client)
    return lambda x, y: poison(here.state, x, y, index, draws)


def _protection(
    local: Local,
    memory: Any,
    draws: torch.Generator,
) -> ChangeSamples | None:
    """What a defense makes of the batches of an honest client."""
    change = local.batch
    if change is None:
        return None
    return lambda x, y: change(memory, x, y, draws)


def standard_normal(like: Tensor, draws: torch.Generator) -> Tensor:
    """Draws (d,) on the device of a vector (d,)."""
    return torch.randn(len(like), generator=draws).to(like.device)


def client_view(
    here: Round,
    client: int,
    draws: torch.Generator,
) -> ClientView:
    """What a client knows of the round besides its draws: the model it was sent, its own data."""
    federation = here.federation
    data = federation.data.train
    index = federation.shards[client].to(data.y.device)
    own = Samples(to_unit_interval(data.x[index]), data.y[index])
    carries = federation.keeping is not None and federation.keeping.carry is not None
    carried = here.own.get(client) if carries else None
    return ClientView(**vars(here.view(draws)), data=own, carried=carried)
