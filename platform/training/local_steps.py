"""The local steps of a round: which samples a client trains on in each, and which clients train
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform.params import BadInput
from backstop.platform.training.dense import cached_here
from backstop.platform.training.federation import Federation

Batches = list[Tensor]  # for each local step the indices of its samples


class LocalSteps(NamedTuple):
    """The local steps of a client in a round."""

    order: Tensor  # (s,) int64: the indices of the samples, step after step
    sizes: list[int]  # samples of each step

    @property
    def batches(self) -> Batches:
        """Step by step."""
        return list(self.order.split(self.sizes)) if self.sizes else []

    @property
    def extent(self) -> tuple[int, int]:
        """Steps and samples."""
        return len(self.sizes), self.order.shape[0]


def plan_steps(
    federation: Federation,
    round_index: int,
    client: int,
    attacking: bool,
) -> LocalSteps:
    """The local steps of a client in a round: reshuffled every epoch and cut by :func:`cut`."""
    shard, samples = federation.shards[client], federation.sizes[client]
    draws = federation.draws("batches", round_index, client)
    epochs = _epochs(federation, attacking)
    shuffled = [torch.randperm(samples, generator=draws) for _ in range(epochs)]
    order = torch.cat(shuffled) if epochs > 1 else shuffled[0]
    return LocalSteps(shard[order], _step_sizes(federation, samples) * epochs)


def cut(federation: Federation, epoch: Tensor) -> Batches:
    """The samples of an epoch as its local steps; the last one may be smaller.

    Where the model cannot be trained on one sample, a single last one is part of the step before
    it, so that none is left out. Raises BadInput where there is no step before it.
    """
    return LocalSteps(epoch, _step_sizes(federation, epoch.shape[0])).batches


def _step_sizes(federation: Federation, samples: int) -> list[int]:
    """How :func:`cut` cuts so many samples."""
    batch = federation.spec.batch
    whole, rest = divmod(samples, batch)
    sizes = [batch] * whole + [rest] * bool(rest)
    if not (federation.net.pairs and sizes and sizes[-1] == 1):
        return sizes
    if len(sizes) == 1:
        raise BadInput(federation.lonely("training on one sample", "give it more"))
    return [*sizes[:-2], sizes[-2] + 1]


def _epochs(federation: Federation, attacking: bool) -> int:
    training = federation.attack.training
    if attacking and training and training.epochs is not None:
        return training.epochs
    return federation.spec.local_epochs + (0 if attacking else _epochs_alone(federation))


def _epochs_alone(federation: Federation) -> int:
    """Epochs before the others in which an honest client trains what it keeps."""
    keeping = federation.keeping
    return (keeping.epochs or 0) if keeping else 0


def steps_alone(federation: Federation, steps: Batches) -> int:
    """How many steps of an honest client train what it keeps; the rest train the rest."""
    alone = _epochs_alone(federation)
    return len(steps) * alone // (alone + federation.spec.local_epochs)


def blocks(
    federation: Federation,
    round_index: int,
    cohort: Sequence[int],
    attacked: bool,
    threads: int = 1,
) -> list[list[int]]:
    """The cohort of a round cut into units of work for so many threads, the longest first.

    The loop engine takes single clients. The vmap engine takes blocks of clients with about equally
    many steps, so that little is padded; clients whose local steps differ in kind (constrained,
    with an extra loss) get blocks of their own. Where a block is cheap and its cut changes no bit,
    each thread has as many blocks as the others.
    """
    attackers: set[int] = set()
    if attacked:
        attackers.update(federation.attackers(round_index).tolist())
    steps = {client: _step_count(federation, client, client in attackers) for client in cohort}
    sizes = {client: federation.sizes[client] for client in cohort}
    longest = sorted(cohort, key=lambda client: (-steps[client], -sizes[client], client))
    if not federation.net.vectorized:
        return [[client] for client in longest]
    units = _alike(federation, longest, attackers, threads)
    return sorted(units, key=lambda unit: (-steps[unit[0]], unit[0]))


def _step_count(
    federation: Federation,
    client: int,
    attacking: bool,
) -> int:
    per_epoch = -(-federation.sizes[client] // federation.spec.batch)
    return per_epoch * _epochs(federation, attacking)


def _alike(
    federation: Federation,
    clients: Sequence[int],
    attackers: set[int],
    threads: int,
) -> Iterator[list[int]]:
    """Blocks of clients, in their order, whose local steps are of one kind.

    A client that its attack trains itself is alone.
    """
    apart = attackers if steps_differ(federation) else set()
    attacking = [client for client in clients if client in apart]
    others = [client for client in clients if client not in apart]
    wide = width(federation)
    if federation.net.dense:
        wide = min(wide, cached_here() // len(federation.net.params))
    yield from _slices(attacking, repeat(1 if federation.attack.train else wide))
    if others and federation.net.dense:
        work = [1] * len(others)
        if threads > 1:
            work = [_work(federation, client, client in attackers) for client in others]
        yield from _slices(others, iter(_even(work, wide, threads)))
    else:
        yield from _slices(others, repeat(wide))


def _work(
    federation: Federation,
    client: int,
    attacking: bool,
) -> int:
    """How long a client of a block takes, in samples: those that it trains on and, for all that is
    done once a round, two batches (measured, with the later start of a second thread's block).
    """
    samples = federation.sizes[client] * _epochs(federation, attacking)
    return samples + 2 * federation.spec.batch


def _even(
    work: Sequence[int],
    widest: int,
    threads: int,
) -> list[int]:
    """How many clients, at most ``widest``, each block has, so that threads have equally many
    blocks and blocks about equally much of the clients' work.

    >>> _even([1] * 20, 7, 1), _even([1] * 20, 7, 2), _even([1] * 3, 7, 4)
    ([7, 6, 7], [5, 5, 5, 5], [1, 1, 1])
    >>> _even([5, 4, 3, 2, 1, 1, 1, 1], 8, 2), _even([5, 4, 3, 2, 1, 1, 1, 1], 4, 2)
    ([2, 6], [4, 4])
    """
    rest, widths = list(work), []
    blocks = threads * -(-len(rest) // (widest * threads))
    while rest:
        share = sum(rest) / blocks
        blocks -= 1
        possible = range(max(1, len(rest) - blocks * widest), min(widest, len(rest)) + 1)
        widths.append(min(possible, key=lambda width: abs(sum(rest[:width]) - share)))
        del rest[: widths[-1]]
    return widths


def _slices(clients: Sequence[int], widths: Iterator[int]) -> Iterator[list[int]]:
    start = 0
    while start < len(clients):
        end = start + next(widths)
        yield list(clients[start:end])
        start = end


def width(federation: Federation) -> int:
    """Clients in a block: a function of the spec alone, never of how many there are to train."""
    return min(federation.spec.block, federation.spec.per_round)


def steps_differ(federation: Federation) -> bool:
    """Whether the local steps of attackers are of another kind than those of other clients."""
    attack = federation.attack
    own_rate = attack.training is not None and attack.training.lr is not None
    own_steps = attack.train or attack.constrain or attack.objective
    return bool(own_steps or attack.pace or own_rate)
