"""Local training of one block of clients: global parameters in, one update row per client out.

Two engines compute the same thing to float tolerance. The loop trains one client after another;
vmap trains the block at once. Every batch order and every draw of an attack comes from a generator
named by (seed, what, round, client), so a row does not depend on who else is in the block, nor on
where and when the block is trained:

* in the loop, clients do not meet at all;
* under vmap all tensors of a block have the same shape whatever its members (``spec.block``
  clients, at most a cohort, ``spec.batch`` samples, padded with weight 0), and with equal shapes a
  client's row is bit-equal whatever its block-mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Attack, Samples
from backstop.platform.training.attack_engine import train_by_attack
from backstop.platform.training.block_engine import train_block
from backstop.platform.training.client_rules import Round, Trained, plain_steps
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_steps import batches, blocks, cut
from backstop.platform.training.loop_engine import descend, train_loop

__all__ = ("Trained", "batches", "blocks", "train", "train_samples", "unpoisoned")


def train(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
    state: Any,
    attacked: bool,
) -> Trained:
    """Train a block from the global vectors (d,) and (e,). ``state`` is the attack's, ``attacked``
    whether it is active.
    """
    attackers = _attackers(federation, round_index) if attacked else {}
    here = Round(federation, round_index, params, buffers, state, attackers)
    engine = train_block if federation.net.vectorized else train_loop
    if federation.attack.train is None:
        return engine(here, clients)
    parts = [train_by_attack(here, client) for client in clients if client in attackers]
    others = [client for client in clients if client not in attackers]
    if others:
        parts.append(engine(here, others))
    return _in_order(parts, clients)


def unpoisoned(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
) -> Tensor:
    """The updates (k, d) of malicious clients that attack in a round, had they no attack: trained
    on the same batches, and without the defense's rules for honest clients, as their poisoned ones.
    """
    plain = federation._replace(attack=Attack())
    units = blocks(plain, round_index, clients, attacked=True)
    parts = [
        train(plain, round_index, unit, params, buffers, None, attacked=True) for unit in units
    ]
    return _in_order(parts, clients).rows


def _in_order(parts: Sequence[Trained], clients: Sequence[int]) -> Trained:
    """The parts as one, in the order of ``clients``."""
    columns = zip(*parts, strict=True)
    joined = Trained(*(torch.cat(column) for column in columns))
    position = {client: row for row, client in enumerate(joined.client.tolist())}
    order = [position[client] for client in clients]
    return Trained(*(column[order] for column in joined))


def _attackers(federation: Federation, round_index: int) -> dict[int, int]:
    """Client → index among the malicious ones, of those that may attack in a round."""
    active = set(federation.attackers(round_index).tolist())
    everyone = enumerate(federation.malicious.tolist())
    return {client: index for index, client in everyone if client in active}


def train_samples(
    federation: Federation,
    round_index: int,
    params: Tensor,
    buffers: Tensor,
    samples: Samples,
) -> Tensor:
    """The update (d,) that an honest client with these samples would send in a round: the same
    steps, epochs and optimizer.
    """
    spec, replica = federation.spec, federation.replica
    order = seeds.generator(spec.seed, "root batches", round_index)
    steps = []
    for _ in range(spec.local_epochs):
        epoch = torch.randperm(len(samples.y), generator=order).to(samples.y.device)
        steps += cut(federation, epoch)
    replica.load(params, buffers)
    descend(
        federation,
        ((samples.x[step], samples.y[step]) for step in steps),
        start=params,
        kind=plain_steps(federation),
        dropout=("root dropout", round_index),
    )
    return replica.params - params
