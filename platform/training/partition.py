"""Who holds which samples, which clients are malicious, and who takes part in a round.

Everything is drawn from generators named by the seed alone, so all attacks and defenses of one seed
face the same federation.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backstop.platform.contract import Data, Kind
from backstop.platform.intake.tables import held_out
from backstop.platform.params import BadInput
from backstop.platform.robust import floor_count
from backstop.platform.seeds import chance, generator, stream
from backstop.platform.specs.spec import attacker_count, attackers_in_cohort
from backstop.platform.training import splits

# draws of a Dirichlet split before giving up; each costs a fraction of a millisecond
ATTEMPTS = 1000
# of the training samples, or of a dataset's own edge cases, that a validation part takes: a tenth,
# but at least as many as give a rate a standard error of 3 points, and never more than a quarter
VALIDATION_SHARE, VALIDATION_LEAST, VALIDATION_MOST = 0.1, 250, 0.25


def hold_out(
    total: int,
    size: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Which of ``total`` training samples form the server's root set, and which are left for the
    clients: ascending indices.

    ``size`` of them, drawn uniformly; the test set is not touched. Raises BadInput unless at least
    one training sample remains.
    """
    if not 0 <= size < total:
        raise BadInput(
            f"spec: root_size={size} is not allowed; the dataset has {total} training samples,"
            f" so root_size is in [0, {total})"
        )
    order = torch.randperm(total, generator=generator(seed, "root"))
    return order[:size].sort().values, order[size:].sort().values


def validation_size(total: int) -> int:
    """How many of ``total`` samples form a validation part.

    >>> [validation_size(total) for total in (400, 1437, 50_000)]
    [100, 250, 5000]
    """
    least = max(floor_count(VALIDATION_SHARE, total), VALIDATION_LEAST)
    return min(least, floor_count(VALIDATION_MOST, total))


def hold_out_validation(
    x: Tensor,
    seed: int,
    *,
    kind: Kind,
) -> tuple[Tensor, Tensor]:
    """Which of the inputs ``x`` (N, …) form the validation part, and which are left: ascending
    indices.

    :func:`validation_size` of them, drawn uniformly; of a table that share of its distinct rows
    with all their copies, as in its test part. Raises BadInput where there are too few inputs.
    """
    size = validation_size(len(x))
    if not size:
        raise BadInput(
            f"spec: evaluate_on=validation is not allowed with {len(x)} samples to take the"
            f" validation part of; at least {ceil(1 / VALIDATION_MOST)}"
        )
    draws = generator(seed, "validation")
    if kind == "table":
        drawn = held_out(x, size / len(x), draws)
    else:
        drawn = torch.zeros(len(x), dtype=torch.bool)
        drawn[torch.randperm(len(x), generator=draws)[:size]] = True
    return drawn.nonzero().flatten(), (~drawn).nonzero().flatten()


def deal(
    data: Data,
    *,
    clients: int,
    alpha: float | str | None,
    seed: int,
    among: Tensor | None = None,
    labels_each: int = 2,
    size_exponent: float = 1.0,
) -> list[Tensor]:
    """For each client the ascending indices (int64) of its training samples; disjoint, and none is
    empty.

    ``alpha`` None deals equal numbers of samples at random (IID), a number is the concentration of
    a Dirichlet split by label, ``shards`` gives every client two label shards, ``natural`` keeps
    the dataset's own clients, ``labels`` gives every client ``labels_each`` of the labels,
    ``sizes`` makes sizes follow a power law of ``size_exponent``. All samples are dealt (of those
    in ``among``, ascending, where it is given), except where the dataset has more natural clients
    than are wanted. Raises BadInput where a split is impossible.
    """
    every = torch.arange(len(data.train.y)) if among is None else among
    y = data.train.y[every]
    total = len(y)
    if clients > total:
        raise BadInput(
            f"spec: clients={clients} is more than the {total} training samples that are left for"
            " them; at most one client each"
        )
    if alpha is None:
        owner = _iid(total, clients, seed)
    elif alpha == "shards":
        owner = _shards(y, clients, seed)
    elif alpha == "natural":
        owner = _natural(None if data.client is None else data.client[every], clients, seed)
    elif alpha == "labels":
        owner = splits.by_labels(y, clients=clients, each=labels_each, seed=seed)
    elif alpha == "sizes":
        owner = splits.by_size(total, clients=clients, exponent=size_exponent, seed=seed)
    elif isinstance(alpha, str):
        raise BadInput(
            f"spec: alpha={alpha!r} is not allowed; alpha is a number above 0, none,"
            " shards, natural, labels or sizes"
        )
    else:
        owner = _dirichlet(y, data.classes, clients, alpha, seed)
    order = torch.argsort(owner, stable=True)  # stable: ascending within each client
    left_out = int((owner < 0).sum())
    sizes = torch.bincount(owner[owner >= 0], minlength=clients).tolist()
    return list(torch.split(every[order[left_out:]], sizes))


def beside_fakes(
    shards: Sequence[Tensor],
    fakes: Tensor,
    claim: int | str,
) -> tuple[list[Tensor], list[int]]:
    """The shards of all clients, and how many samples each says it holds, where the ``shards`` of
    the honest ones stand in their order and ``fakes`` (m,) are the ids of clients that hold none.
    A claim of ``mean`` is the mean of the honest clients, halves rounded up.

    >>> held = [torch.tensor([0, 3, 4]), torch.tensor([1, 2])]
    >>> shards, claimed = beside_fakes(held, torch.tensor([1, 3]), "mean")
    >>> list(map(len, shards)), claimed
    ([3, 0, 2, 0], [3, 3, 2, 3])
    """
    sizes = list(map(len, shards))
    claimed = claim if isinstance(claim, int) else (2 * sum(sizes) + len(sizes)) // (2 * len(sizes))
    dealt, told = list(shards), sizes
    for fake in fakes.tolist():  # ascending, so each finds the place that it has in the end
        dealt.insert(fake, torch.empty(0, dtype=torch.int64))
        told.insert(fake, claimed)
    return dealt, told


def malicious_clients(
    clients: int,
    share: float,
    seed: int,
    *,
    by: str = "lot",
    sizes: Sequence[int] = (),
) -> Tensor:
    """The ascending ids (int64) of the malicious clients: share · clients of them, halves rounded
    up.

    They are drawn ``by`` lot, or are those whose ``sizes`` are the ``fewest`` or the ``most``
    samples; who is drawn first goes first among equals.
    """
    drawn = torch.randperm(clients, generator=generator(seed, "malicious"))
    if by != "lot":
        held = torch.tensor(sizes)[drawn]
        drawn = drawn[held.argsort(descending=by == "most", stable=True)]
    return drawn[: attacker_count(clients, share)].sort().values


def cohort(
    *,
    clients: int,
    per_round: int,
    selection: str,
    malicious: Tensor,
    seed: int,
    round: int,  # noqa: A002 -- the Record's name
    certain: Tensor | None = None,
) -> Tensor:
    """The ascending ids (int64) of the clients that train in a round.

    ``random`` draws uniformly without replacement, whoever is malicious; ``fixed`` draws
    per_round · m / clients (halves rounded up) of the m ``malicious`` clients and fills up with
    honest ones. Of the ``certain`` clients each is there: it takes the place of the last client
    drawn, under ``fixed`` of the last malicious one, so the others are those of a cohort without
    it. Raises BadInput where the federation has fewer clients than the round needs.
    """
    if not 1 <= per_round <= clients:
        raise BadInput(
            f"spec: per_round={per_round} is not allowed; with clients={clients} it is in [1,"
            f" {clients}]"
        )
    source = generator(seed, "cohort", round)
    if selection == "random":
        drawn = torch.randperm(clients, generator=source)[:per_round]
        return _holding(drawn, certain).sort().values
    if selection != "fixed":
        raise BadInput(
            f"spec: selection={selection!r} is not allowed; selection is random or fixed"
        )
    everyone = torch.arange(clients)
    honest = everyone[~torch.isin(everyone, malicious)]
    count = attackers_in_cohort(clients, per_round, len(malicious))
    if certain is not None:
        count = max(count, len(certain))
    attacking = _draw(malicious, count, source)
    others = _draw(honest, per_round - count, source)
    return torch.cat([_holding(attacking, certain), others]).sort().values


def answering(
    asked: Tensor,
    *,
    dropout: float,
    seed: int,
    round: int,  # noqa: A002 -- the Record's name
) -> Tensor:
    """Which of the clients that are asked in a round (n,) answer: their ids, in the same order.

    Each one stays away with chance ``dropout``, by a draw of its own, whoever else is asked: at a
    larger chance those stay away that do at a smaller one, and others besides.
    """
    if not dropout:
        return asked
    draws = [chance(seed, "answer", round, client) for client in asked.tolist()]
    return asked[torch.tensor(draws, dtype=torch.float64) >= dropout]


def _draw(
    group: Tensor,
    size: int,
    source: torch.Generator,
) -> Tensor:
    return group[torch.randperm(len(group), generator=source)[:size]]


def _holding(drawn: Tensor, certain: Tensor | None) -> Tensor:
    """The drawn clients, the last of them replaced by those ``certain`` ones that are missing."""
    if certain is None or not len(certain):
        return drawn
    others = drawn[~torch.isin(drawn, certain)]
    return torch.cat([others[: max(len(drawn) - len(certain), 0)], certain])


def _iid(
    total: int,
    clients: int,
    seed: int,
) -> Tensor:
    """Sizes differ by at most one."""
    return torch.randperm(total, generator=generator(seed, "partition")) % clients


def _shards(
    y: Tensor,
    clients: int,
    seed: int,
) -> Tensor:
    """McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017, section 3: samples sorted by label are cut into two equal shards per client, dealt
    at random. Equal labels are shuffled first.
    """
    if 2 * clients > len(y):
        raise BadInput(
            "spec: alpha=shards gives every client two shards;"
            f" {len(y)} training samples do for clients={len(y) // 2}, not {clients}"
        )
    source = generator(seed, "partition")
    shuffled = torch.randperm(len(y), generator=source)
    ordered = shuffled[torch.argsort(y[shuffled], stable=True)]
    owner = torch.empty_like(y)
    draws = torch.randperm(2 * clients, generator=source).tolist()
    for drawn, shard in zip(draws, ordered.tensor_split(2 * clients), strict=True):
        owner[shard] = drawn // 2
    return owner


def _natural(
    own: Tensor | None,
    clients: int,
    seed: int,
) -> Tensor:
    """The dataset's own clients in the order of their ids, or as many of them, drawn at random; -1
    for the samples of the others.
    """
    if own is None:
        raise BadInput(
            "spec: alpha=natural is not allowed; this dataset has no clients of its own,"
            " so alpha is a number, none, shards, labels or sizes"
        )
    known, position = torch.unique(own, return_inverse=True)
    if len(known) < clients:
        raise BadInput(
            f"spec: alpha=natural with clients={clients} is not allowed;"
            f" this dataset has {len(known)} clients of its own; at most clients={len(known)}"
        )
    drawn = torch.randperm(len(known), generator=generator(seed, "partition"))
    chosen = drawn[:clients].sort().values
    owner = torch.full((len(known),), -1)
    owner[chosen] = torch.arange(clients)
    return owner[position]


def _dirichlet(
    y: Tensor,
    classes: int,
    clients: int,
    alpha: float,
    seed: int,
) -> Tensor:
    """The samples of each class are dealt in proportions drawn from Dir(alpha, …, alpha) over the
    clients, as M. Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks",
    ICML 2019, section 4; after T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of
    Non-Identical Data Distribution for Federated Visual Classification", 2019. Drawn anew until no
    client is empty.
    """
    counts = _dirichlet_counts(y, classes, clients, alpha, seed)
    shuffled = torch.randperm(len(y), generator=generator(seed, "partition"))
    ordered = shuffled[torch.argsort(y[shuffled], stable=True)]  # by class, at random within
    owner = torch.empty_like(y)
    of_class = torch.arange(clients).repeat(classes)
    owner[ordered] = of_class.repeat_interleave(torch.from_numpy(counts).flatten())
    return owner


def _dirichlet_counts(
    y: Tensor,
    classes: int,
    clients: int,
    alpha: float,
    seed: int,
) -> npt.NDArray[np.int64]:
    """How many samples of each class each client gets, (classes, clients)."""
    sizes = torch.bincount(y, minlength=classes).numpy()[:, None]  # (classes, 1)
    for attempt in range(ATTEMPTS):
        draws = np.random.default_rng(stream(seed, "partition", attempt))
        shares = draws.dirichlet(np.full(clients, alpha), size=classes)  # (classes, clients)
        ends = np.minimum(np.cumsum(shares, axis=1) * sizes, sizes).astype(np.int64)
        ends[:, -1:] = sizes
        counts: npt.NDArray[np.int64] = np.diff(ends, axis=1, prepend=0)
        if counts.sum(axis=0).min() > 0:
            return counts
    raise BadInput(
        f"spec: alpha={alpha:g} leaves one of clients={clients} without samples in each of"
        f" {ATTEMPTS} Dirichlet splits of {len(y)} samples;"
        " raise alpha, take fewer clients, or take alpha=shards"
    )
