"""Splits of which one thing is unequal: which labels a client has, how many samples, or how noisy
its inputs are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backstop.platform.contract import Data, Samples
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.training.network import to_unit_interval


def by_labels(
    y: Tensor,
    *,
    clients: int,
    each: int,
    seed: int,
) -> Tensor:
    """The owner (N,) of each sample where every client has ``each`` of the labels and no others.

    Labels are dealt like cards, so that all have equally many owners, or one more; each label's
    samples are dealt evenly to its owners. After the split by number of labels of Q. Li, Y. Diao,
    Q. Chen, B. He, "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022,
    section IV, whose owners are drawn, so that a label may have many or none. Raises BadInput where
    it cannot be made.
    """
    known, position = torch.unique(y, return_inverse=True)
    _check_hands(len(known), clients, each)
    draws = generator(seed, "partition")
    hands = _hands(len(known), clients, each, draws)
    shuffled = torch.randperm(len(y), generator=draws)
    owner = torch.empty_like(y)
    for index in range(len(known)):
        owners = [client for client, hand in enumerate(hands) if index in hand]
        samples = shuffled[position[shuffled] == index]
        if len(samples) < len(owners):
            raise BadInput(
                f"spec: labels_each={each} gives label {int(known[index])} to {len(owners)} of"
                f" clients={clients}, and it has {len(samples)} samples; take fewer clients or"
                " fewer labels each"
            )
        for client, share in zip(owners, samples.tensor_split(len(owners)), strict=True):
            owner[share] = client
    return owner


def _check_hands(labels: int, clients: int, each: int) -> None:
    if each > labels:
        raise BadInput(
            f"spec: labels_each={each} is not allowed; the training samples have {labels} labels,"
            f" so labels_each is in [1, {labels}]"
        )
    if clients * each < labels:
        raise BadInput(
            f"spec: labels_each={each} leaves some of {labels} labels without an owner among"
            f" clients={clients}; at least labels_each={-(-labels // clients)}"
        )


def _hands(
    labels: int,
    clients: int,
    each: int,
    draws: torch.Generator,
) -> list[set[int]]:
    """The labels of each client: from a shuffled deck of all, and another one when it is used up,
    the first that the client does not have yet.
    """
    deck: list[int] = []
    hands = []
    for _ in range(clients):
        hand: set[int] = set()
        while len(hand) < each:
            if not deck:
                deck = torch.randperm(labels, generator=draws).tolist()
            card = next(label for label in deck if label not in hand)
            deck.remove(card)
            hand.add(card)
        hands.append(hand)
    return hands


def by_size(
    total: int,
    *,
    clients: int,
    exponent: float,
    seed: int,
) -> Tensor:
    """The owner (N,) of each sample where sizes follow a power law, whatever the labels: which
    client has which size, and which samples, is drawn.
    """
    draws = generator(seed, "partition")
    sizes = torch.tensor(power_law(total, clients, exponent))
    ranked = torch.randperm(clients, generator=draws)
    owner = torch.empty(total, dtype=torch.int64)
    owner[torch.randperm(total, generator=draws)] = ranked.repeat_interleave(sizes)
    return owner


def power_law(
    total: int,
    clients: int,
    exponent: float,
) -> list[int]:
    """The sizes of clients, the largest first: one sample each, and of the rest a share that is
    proportional to r^-exponent for the client of rank r = 1, 2, …; what rounding leaves goes to the
    first.

    >>> power_law(1000, 5, 2.0)
    [683, 170, 76, 43, 28]
    >>> power_law(10, 5, 0.0)
    [2, 2, 2, 2, 2]
    """
    weights = [float(rank) ** -exponent for rank in range(1, clients + 1)]
    spare = total - clients
    sizes = [1 + int(spare * weight / sum(weights)) for weight in weights]
    sizes[0] += total - sum(sizes)
    return sizes


def noisy(
    data: Data,
    shards: Sequence[Tensor],
    *,
    noise: float,
    seed: int,
) -> Data:
    """The data with Gaussian noise on the clients' training inputs: client i of n has noise of
    standard deviation noise · i / (n - 1), the first none and the last all of it.

    It is in units of the images' scale from 0 to 1, to which they are clipped, and of a table in
    standard deviations of each feature. Test and root set stay as they are. After the split by
    noise of Li et al., section IV. Raises BadInput for texts, and for a single client.
    """
    if data.kind == "text":
        raise BadInput(f"spec: input_noise={noise:g} is not allowed; text has no noise, so 0 is")
    if len(shards) < 2:
        raise BadInput(f"spec: input_noise={noise:g} tells clients apart; clients=1 is one")
    x = to_unit_interval(data.train.x).clone()
    scale = x.std(0) if data.kind == "table" else torch.ones(())
    for client, shard in enumerate(shards):
        deviation = noise * client / (len(shards) - 1)
        draws = generator(seed, "input noise", client)
        added = torch.randn((len(shard), *x.shape[1:]), generator=draws)
        x[shard] += deviation * scale * added
    if data.kind == "image":
        x.clamp_(0, 1)
    return data._replace(train=Samples(x, data.train.y))
