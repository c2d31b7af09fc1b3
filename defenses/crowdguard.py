"""CrowdGuard: clients vote on each other's models by how their layers respond to the voter's data;
the largest group of equal votes in the larger cluster of voters decides.

D_m,s,l = distance of layer l of model m from that of the global model, for a sample s of the voter
R_m,c,l = mean of D_m,s,l / D_own,s,l over its samples of class c,   x = sign(R - 1) (R - 1)²
repeat: z = first principal component of the standardized x_m and their median
        C = those that the widest gap in z parts from the median; suspicious while z is uneven
votes(v, m) = 0 where m is in C for the cosine or for the Euclidean distance, else 1
V = larger of two clusters of the votes by single linkage; its most frequent vote counts

z is uneven: its two sides about its median differ by a t, Levene or Kolmogorov-Smirnov test at
0.01, or a value lies 5.5 interquartile ranges outside the quartiles or 3 deviations from the mean.

Shapes: rows (n, d) → (n, d); the weights of models voted out become 0.

Source: P. Rieger, T. Krauß, M. Miettinen, A. Dmitrienko, A.-R. Sadeghi, "CrowdGuard: Federated
Backdoor Detection in Federated Learning", NDSS 2024; tests, levels and both clusterings are those
of the authors' code in OpenFL's tutorials.

Deviations: two layers, the input of the last linear layer and the logits, where that code takes the
output of every convolution and linear layer. Models are compared with the buffers of the global
one. Voting is not in trusted hardware, which concerns privacy. A step that would bring the
suspicious above half of the others is not taken, as in that code, whose comment says otherwise.
Among equal distances the first votes are joined first. A model whose output is not finite is voted
out; a client whose own model is so votes for all. Sample counts weigh the kept rows, as in the
paper's FedAvg.

In cohorts of about ten, two or three malicious clients are too few for its tests unless their rows
are much longer than others: it finds scaled ones and lets unscaled ones pass.

Checked: distances, pruning, tests and stacked clustering against the authors' code.

Needs: clients that score models, each all n of them; each row from one client.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> honest = torch.tensor([-1.0, 1.0]) * torch.linspace(0.9, 1.1, 9)[:, None]
>>> given = updates(torch.cat([honest, torch.tensor([[9.0, 4.0]])]))
>>> crowdguard().apply(given, None, server_view())[0].weight
tensor([1., 1., 1., 1., 1., 1., 1., 1., 1., 0.])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from backstop.platform.contract import ClientView, Defense, Question, ServerView, Updates, select
from backstop.platform.remedies.clusters import larger_of_two_chains, largest_group
from backstop.platform.remedies.significance import differ

NEEDS = ("validation",)
TAKES = "clients"
EXEMPT = ("adversarial",)  # in a cohort of ten its tests do not tell three

_LEVEL = 0.01  # of the tests
_WHISKERS = 5.5  # interquartile ranges
_DEVIATIONS = 3.0
_LARGEST = 1e30  # ratio of two distances

Layers = tuple[Tensor, Tensor]  # (samples, h) and (samples, classes)
Distance = Callable[[Tensor, Tensor], Tensor]  # of two (samples, …) → (samples,)


def crowdguard() -> Defense:
    """Rows of models that the decisive vote is for keep their weight."""

    def guarded(updates: Updates, view: ServerView) -> Updates:
        clients = updates.client
        models = view.params + updates.rows
        score = partial(_votes, clients.tolist())
        answers = view.validate(Question(models, clients, score, 0.0, 1.0), clients)
        kept = _decisive(answers.scores[:, :, 0].cpu() >= 0.5)
        return select(updates, kept) if kept.any() else updates

    return Defense(apply=lambda updates, state, view: (guarded(updates, view), state))


def _decisive(votes: Tensor) -> Tensor:
    """The vote (n,) that counts among votes (m, n) bool."""
    apart = (votes[:, None] != votes).sum(2).double().sqrt()
    larger = votes[larger_of_two_chains(apart)]
    _, group = larger.unique(dim=0, return_inverse=True)
    vote: Tensor = larger[largest_group(group)[0]]
    return vote


def _votes(clients: list[int], models: Tensor, view: ClientView, client: int) -> Tensor:
    """1 for each model that the client does not suspect, its own among them; 0 for the others."""
    own = clients.index(client)
    layers = [_layers(model, view) for model in models]
    sound = [all(bool(layer.isfinite().all()) for layer in each) for each in layers]
    votes = torch.ones(len(models), 1)
    if not sound[own]:
        return votes
    votes[[not one for one in sound]] = 0.0
    judged = [number for number, one in enumerate(sound) if one]
    first = _layers(view.params, view)
    for distance in (_angles, _lengths):
        apart = torch.stack([_apart(distance, layers[number], first) for number in judged])
        ratios = _ratios(apart, judged.index(own), view.data.y)
        for suspect in _suspects(ratios, judged.index(own)):
            votes[judged[suspect]] = 0.0
    return votes


def _layers(model: Tensor, view: ClientView) -> Layers:
    """What the last linear layer is given for each sample, and what it gives, float64."""
    x = view.data.x
    with torch.no_grad():
        return view.features(model, x).double().cpu(), view.model(model, x).double().cpu()


def _angles(one: Tensor, other: Tensor) -> Tensor:
    return 1 - cosine_similarity(one, other, dim=1)


def _lengths(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(1).sqrt()


def _apart(distance: Distance, layers: Layers, first: Layers) -> Tensor:
    """Distances of a model's layers from the global model's for each sample (samples, layers)."""
    return torch.stack([distance(*pair) for pair in zip(layers, first, strict=True)], dim=1)


def _ratios(apart: Tensor, own: int, y: Tensor) -> Tensor:
    """The x of each model for each class that is there and each layer (k, classes · layers), from
    distances (k, samples, layers).
    """
    ratio = (apart / apart[own]).where(apart[own] != 0, 0.0).clamp(max=_LARGEST)
    labels = y.cpu().unique()
    mean = torch.stack([ratio[:, y.cpu() == label].mean(1) for label in labels], dim=1)
    more = mean - 1
    return (more.sign() * more.square()).flatten(1)


def _suspects(ratios: Tensor, own: int) -> list[int]:
    """The models that are parted from the median, step by step."""
    left = [number for number in range(len(ratios)) if number != own]
    most, suspects = len(left) // 2, list[int]()
    while len(left) > 1:
        z = _component(torch.cat([ratios[left], ratios[left].quantile(0.5, dim=0)[None]]))
        parted = [number for number, far in zip(left, _beyond_gap(z), strict=False) if far]
        if not parted or len(suspects) + len(parted) > most or not _uneven(z):
            break
        suspects += parted
        left = [number for number in left if number not in parted]
    return suspects


def _component(points: Tensor) -> Tensor:
    """The first principal component (k,) of standardized points (k, s); of its two directions that
    in which its largest loading is positive.
    """
    scale = points.std(0, correction=0)
    centered = (points - points.mean(0)) / scale.where(scale > 0, 1.0)
    centered = centered.where(scale > 0, 0.0)
    _, _, directions = torch.linalg.svd(centered, full_matrices=False)
    loading = directions[0]
    z: Tensor = centered @ loading * loading[loading.abs().argmax()].sign()
    return z


def _beyond_gap(z: Tensor) -> list[bool]:
    """Which values (k,) the widest gap parts from the last one."""
    ordered = z.sort().values
    gaps = ordered.diff()
    if not gaps.any():
        return [False] * len(z)
    low = z <= ordered[gaps.argmax()]
    beyond: list[bool] = (low != low[-1]).tolist()
    return beyond


def _uneven(z: Tensor) -> bool:
    """Whether the values (k,) are not those of one group."""
    middle, spread = z.quantile(0.5), z.std(correction=0)
    away, above = (z - middle).abs(), z >= middle
    lower, upper = z.quantile(0.25), z.quantile(0.75)
    outside = (_WHISKERS * (upper - lower)).item()
    return (
        differ(away[above], away[~above], _LEVEL)
        or bool(((z > upper + outside) | (z < lower - outside)).any())
        or bool(((z - z.mean()).abs() >= _DEVIATIONS * spread).any() and spread > 0)
    )
