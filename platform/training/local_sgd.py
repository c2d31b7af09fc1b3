"""Local training of one block of clients: global parameters in, one update row per client out.

Three engines compute the same thing to float tolerance. The loop trains one client after another;
a block trains at once, with gradients by hand where the model is nothing but linear layers and
rectifiers, else under vmap. Every batch order and every draw of an attack comes from a generator
named by (seed, what, round, client), so a row does not depend on who else is in the block, nor on
where and when the block is trained:

* in the loop, clients do not meet at all;
* in a block a client's row is bit-equal whatever its block-mates: on a GPU all tensors of a block
  have the same shape (``spec.block`` clients, at most a cohort, ``spec.batch`` samples, padded with
  weight 0), and on a CPU the products of one client have the same bits beside any number of others,
  where every client's matrices begin at a multiple of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Attack, Samples
from backstop.platform.training.attack_engine import train_by_attack
from backstop.platform.training.block_engine import train_block
from backstop.platform.training.client_rules import (
    NOTHING_KEPT,
    Round,
    Sheet,
    Trained,
    plain_steps,
)
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_steps import blocks, cut
from backstop.platform.training.loop_engine import descend, train_loop

__all__ = ("Sheet", "Trained", "blocks", "train", "train_samples", "unpoisoned")


def train(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
    state: Any,
    attacked: bool,
    sheet: Sheet | None = None,
) -> Trained:
    """Train a block from the global vectors (d,) and (e,). ``state`` is the attack's, ``attacked``
    whether it is active. The clients' rows are written into ``sheet``, one of their own unless
    given, which also has what each client has of its own; what is returned is all of it. A client
    without a sample sends back the model that it was sent.
    """
    sheet = sheet or Sheet(clients, params, buffers)
    idle = {client for client in clients if not len(federation.shards[client])}  # fakes
    for client in idle:
        sheet.place(client, torch.zeros_like(params), params.new_zeros(()))
    attackers = _attackers(federation, round_index) if attacked else {}
    here = Round(federation, round_index, params, buffers, state, attackers, sheet.own)
    apart = attackers if federation.attack.train else {}
    for client in clients:
        if client in apart and client not in idle:
            train_by_attack(here, client, sheet)
    others = [client for client in clients if client not in apart and client not in idle]
    if others:
        engine = train_block if _train_together(here, others) else train_loop
        engine(here, others, sheet)
    return sheet.trained


def _train_together(here: Round, clients: Sequence[int]) -> bool:
    """Whether a block trains as one. Where gradients are taken by hand, an attack that adds to the
    loss does not: its term needs autograd.
    """
    net, attack = here.federation.net, here.federation.attack
    needs_autograd = attack.objective and any(client in here.attackers for client in clients)
    return net.vectorized and not (net.dense and needs_autograd)


def unpoisoned(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
    own: Mapping[int, Tensor] = NOTHING_KEPT,
) -> Trained:
    """What k malicious clients that attack in a round would send, had they no attack: trained on
    the same batches, and without the defense's rules for honest clients, as their poisoned ones.
    """
    plain = federation._replace(attack=Attack())
    sheet = Sheet(clients, params, buffers, own)
    for unit in blocks(plain, round_index, clients, attacked=True):
        train(plain, round_index, unit, params, buffers, None, attacked=True, sheet=sheet)
    return sheet.trained


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
    steps, epochs and optimizer; 0 where clients send nothing.
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
    row = replica.params - params
    keeping = federation.keeping
    if keeping and keeping.withheld is not None:
        row[keeping.withheld] = 0.0
    return row
