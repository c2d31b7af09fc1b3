"""3DFed: a backdoor with a constrained loss, noise masks and decoys, tuned by what the next global
model tells of planted indicators.

L = argmin CE + λ · ‖L - G‖₂,   u_i <- min(max(‖c_i‖ / ‖u_i‖, 1), γ) · u_i + N_i,
Σ_i n_i N_i = 0,   mean_i ‖N_i‖ = α · mean_i ‖c_i‖
u_i[s_i] <- v_i;   r_i = (G' - G)[s_i] / (η v_i)  from the next G' that the attacker sees

c_i is what client i would have sent as an honest one, n_i its sample count, η the server's
learning rate, v_i = 0.1 ‖c_i‖, and s_i a coordinate of its own in the last convolution (without
one, in the last matrix before the head): of the ten for each client in which all c are smallest
those of the least |Σ_k ∂²(L_clean + L_backdoor) / ∂s ∂k|, k over that layer. The masks N_i stand
in a few rows of the last layer that no poisoned sample is labeled with. Decoys are rows c_i with
v_i = 10 ‖c_i‖: unlike all others, so that a defense that takes out so many rows takes them.

Answers: with e_i the client's share in a plain mean of the cohort and t_i = max_k |c_k[s_i]| / v_i,
what others do to the coordinate, a row is rejected where r_i <= e_i / 10 + t_i, clipped up to
r_i / e_i <= 0.8 max(1, max_j r_j / e_j), accepted above. The server adds noise where
r_i < -(e_i / 2 + t_i) or r_i > 1.001 + t_i, which no average gives. Tuning, by the round before:

* α is drawn anew from (``mask``, 1) where less than four in five of the backdoored rows were
  accepted;
* a decoy more where no backdoored row was accepted or clipped and no decoy was accepted, up to
  ``decoys`` of the rows; one less for each decoy that was accepted; none any more once all
  indicators, the decoys' included, read rejected with as many decoys as may be;
* where the server adds noise, α is 0.1 and the number of decoys stays.

Shapes: delta = L - G (d,), rows u (m, d) → (m, d).

Source: H. Li, Q. Ye, H. Hu, J. Li, L. Wang, C. Fang, J. Shi, "3DFed: Adaptive and Extensible
Framework for Covert Backdoor Attack in Federated Learning", IEEE S&P 2023, the sections on the
indicator, backdoor training with constrained loss, noise mask, and decoy model.

Deviations: decoys are clients besides the backdoored ones as published, and may be as many as it
takes; here they are some of the malicious clients, so each costs a backdoored row. Hence the
limit of a quarter, and the end where they are of no use: under rules that look at single
coordinates an indicator that one client sends always reads rejected, and decoys in place of the
others were what the attack died of. Each client sends a backdoored row of its own; as published
all send the same one under different masks. What is planted must be known before the rows are, so
an indicator is a value of its own (as published the row's times 1e5), its place is chosen by the
clean updates (as published by the backdoored ones too), and all other malicious rows are 0 there.
Thresholds for r_i are 1e-4 or 1e-5 as published, on places that move as little; a few clients'
own updates do not tell so well what others do there, hence half a share before noise is
suspected. Noise is read anew each time; as published a server that adds it once is taken to do so
for good. The masks are centered Gaussian noise and α is their size; as published they are
optimized for the update energies that one defense looks at, and α weighs those against their
size. One group holds all clients, for which the sum weighted by sample counts is 0. A decoy's odd
parameter is its indicator, set and not trained. λ is the published 0.4 against 0.6 for the
losses. Other rounds may pass before an answer is read.

Checked: against the authors' code (attacks/components: indicator.py, mask.py, decoy.py,
tuning.py; configs for CIFAR-10 and MNIST): 15 local epochs of attackers against 2 and 1 of honest
clients, γ = 5, α in (0, 1) and 0.1 under noise, ten places a client, the layer and both losses of
the curvature, 5 rows of noise on CIFAR-10 (8 on MNIST), never the target's; when α is drawn and
decoys come and go.

Cost: in each attacked round a clean local training for each malicious client, a second one for
each where there are decoys, and second derivatives on all samples of these clients, twice.

It should be the last stage of its chain, since one that changes rows after it changes the
indicators. Its epochs replace those of stages before it, unless they are none.

Example: three clients of equal size among ten; the first is taken as it is, the second clipped,
the third left out.
>>> import torch
>>> third = torch.full((3,), 0.1)
>>> _answers(torch.tensor([0.1, 0.05, 0.0]), third, torch.zeros(3))
['accepted', 'clipped', 'rejected']
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView, Samples, Slot, Step, Training
from backstop.platform.params import Range
from backstop.platform.threats.collusion import own_batches

VERSION = 2
KNOWS = "own"
STRENGTH = "scale"
TRIGGER = False
_SAMPLES = 64  # in one step of the curvature, the authors' batch
_CANDIDATES = 10  # places a client to choose from by curvature, as published
_NEAR, _FAR = 0.1, 10.0  # size of an indicator and of a decoy's, in lengths of a clean update
_UNDER_NOISE = 0.1  # α, as published
_ROUNDING = 1e-3  # more than float32 loses where a row is the whole average


class _Round(NamedTuple):
    """How the attack is tuned, and what it planted when it last attacked: for each of the m rows
    then in the cohort.
    """

    alpha: float
    decoys: int  # the last rows
    futile: bool  # decoys were tried and changed nothing
    norms: Tensor  # (m,) of clean updates
    spots: Tensor  # (m,) int64, the coordinates s
    planted: Tensor  # (m,) the values v
    drift: Tensor  # (m,) what honest training does at s, in units of v
    before: Tensor  # (m,) of the global model at s
    expected: Tensor  # (m,) share of a row in the plain mean
    spared: Tensor  # (k,) int64, the labels of poisoned samples


def _answers(moved: Tensor, expected: Tensor, drift: Tensor) -> list[str]:
    """What the server did with each row, by how far the global model moved at its indicator.

    All (m,) and in units of what was planted.
    """
    limit = 0.8 * max((moved / expected).max().item(), 1.0)
    answers = []
    for move, share, others in zip(moved.tolist(), expected.tolist(), drift.tolist(), strict=True):
        if move <= share / 10 + others:
            answers.append("rejected")
        else:
            answers.append("clipped" if move <= limit * share else "accepted")
    return answers


def _tuned(
    state: _Round,
    params: Tensor,
    server_lr: float,
    mask: float,
    most: int,
    generator: torch.Generator,
) -> _Round:
    """The state with the tuning that the answers ask for; ``most`` decoys may be among the rows."""
    moved = (params[state.spots] - state.before) / (server_lr * state.planted)
    least = state.expected / 2 + state.drift
    if ((moved > 1 + _ROUNDING + state.drift) | (moved < -least)).any():
        return state._replace(alpha=_UNDER_NOISE)
    answers = _answers(moved, state.expected, state.drift)
    kept = len(answers) - state.decoys
    backdoored, decoys = answers[:kept], answers[kept:]
    count, futile = state.decoys - decoys.count("accepted"), state.futile
    if set(backdoored) == {"rejected"} and "accepted" not in decoys:
        futile = futile or (state.decoys >= most and set(decoys) <= {"rejected"})
        count = 0 if futile else min(count + 1, most)
    enough = backdoored.count("accepted") >= 0.8 * kept
    alpha = state.alpha if enough else _drawn(mask, generator)
    return state._replace(alpha=alpha, decoys=count, futile=futile)


def _drawn(mask: float, generator: torch.Generator) -> float:
    return mask + (1 - mask) * torch.rand((), generator=generator).item()


def _steps(view: AttackView) -> list[Step]:
    """All samples of this round's malicious clients in batches, as dealt and as poisoned."""
    return [
        Step(batch, Samples(*view.poison(*batch, index)))
        for index, batch in own_batches(view, _SAMPLES)
    ]


def _target_labels(steps: list[Step]) -> Tensor:
    """The labels (k,) that samples have been given by the poison; where it gives none, those of
    the samples whose inputs it changes.
    """
    relabeled = [poisoned.y[poisoned.y != clean.y] for clean, poisoned in steps]
    if not any(map(len, relabeled)):
        relabeled = [step.changed.y for step in steps]
    return torch.cat(relabeled).unique() if relabeled else torch.zeros(0, dtype=torch.int64)


def _layer(view: AttackView, least: int) -> Tensor:
    """The coordinates of the last convolution before the head; without one of the last matrix, or
    vector. Of those with ``least`` coordinates; all coordinates where there is none.
    """
    heads = {slot.name for slot in view.head}
    inner = [slot for slot in view.layout if slot.name not in heads]
    inner = [slot for slot in inner if math.prod(slot.shape) >= least]
    where = view.params.device
    for dimensions in (3, 2, 1):
        fitting = [slot for slot in inner if len(slot.shape) >= dimensions]
        if fitting:
            start, length = fitting[-1].start, math.prod(fitting[-1].shape)
            return torch.arange(start, start + length, device=where)
    return torch.arange(len(view.params), device=where)


def _curvature(view: AttackView, steps: list[Step], layer: Tensor) -> Tensor:
    """Row sums (b,) of the layer's block of the Hessian, clean and backdoor loss together."""
    total = view.params.new_zeros(len(layer))
    for samples in (samples for step in steps for samples in step):
        leaf = view.params.clone().requires_grad_()
        loss = cross_entropy(view.model(leaf, samples.x), samples.y)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        total += torch.autograd.grad(grad[layer].sum(), leaf)[0][layer]
    return total


def _quiet(view: AttackView, clean: Tensor, steps: list[Step]) -> Tensor:
    """For each clean update (m, d) a coordinate where all are smallest and the loss is flat."""
    layer = _layer(view, len(clean))
    smallest = clean[:, layer].abs().mean(0).argsort(stable=True)[: _CANDIDATES * len(clean)]
    flat = _curvature(view, steps, layer).abs()[smallest].argsort(stable=True)
    return layer[smallest[flat[: len(clean)]]]


def _masks(sizes: Tensor, view: AttackView, length: Tensor, spared: Tensor, neurons: int) -> Tensor:
    """Noise (k, d) of the mean length given, whose sum weighted by the sizes (k,) is 0, in some
    rows of the last layer that are not spared; none for one client, or where all rows are spared.
    """
    masks = view.params.new_zeros(len(sizes), len(view.params))
    free = torch.tensor([row for row in range(view.classes) if row not in spared.tolist()])
    rows = free[torch.randperm(len(free), generator=view.generator)[:neurons]]
    if len(sizes) < 2 or not len(rows):
        return masks
    columns = torch.cat([_coordinates(slot, rows) for slot in view.head]).to(masks.device)
    noise = torch.randn(len(sizes), len(columns), generator=view.generator).to(masks.device)
    noise = noise - sizes @ noise / sizes.sum()
    masks[:, columns] = noise * (length / noise.norm(dim=1).mean())
    return masks


def _coordinates(slot: Slot, rows: Tensor) -> Tensor:
    """Where some rows of a parameter tensor stand in the flat vector."""
    every = torch.arange(slot.span.start, slot.span.stop)
    chosen: Tensor = every.view(slot.shape)[rows]
    return chosen.flatten()


def threedfed(
    *,
    constraint: Annotated[
        float, Range(0, 1e3, search=(0, 1)), "weight of the distance to the global model, λ"
    ] = 2 / 3,
    scale: Annotated[
        float, Range(1, 1e4, log=True, search=(1, 100)), "largest factor on malicious updates, γ"
    ] = 5.0,
    mask: Annotated[
        float, Range(0, 1), "smallest size of the noise masks, in lengths of a clean update"
    ] = 0.0,
    neurons: Annotated[
        int, Range(0, 10**6, search=(0, 10)), "rows of the last layer with masks"
    ] = 5,
    decoys: Annotated[
        float, Range(0, 1, high_open=True), "share of rows that may be decoys"
    ] = 0.25,
    epochs: Annotated[
        int | None,
        Range(1, 10**6, search=(1, 20)),
        "local epochs of attackers; none: as honest ones",
    ] = 15,
) -> Attack[_Round]:
    """Constrained loss, scaling, masks, decoys and indicators. The state is the tuning and what was
    planted.
    """

    def init(view: AttackView) -> _Round:
        none = view.params.new_zeros(0)
        alpha, places = _drawn(mask, view.generator), none.long()
        return _Round(alpha, 0, False, none, places, none, none, none, none, places)

    def sizes(view: AttackView) -> Tensor:
        return torch.tensor(
            [float(view.sizes[index]) for index in view.members.tolist()], device=view.params.device
        )

    def most(rows: int) -> int:
        return robust.floor_count(decoys, rows)

    def plan(state: _Round, view: AttackView) -> _Round:
        if not len(view.members):
            return state
        if len(state.spots):
            limit = most(len(state.spots))
            state = _tuned(state, view.params, view.server_lr, mask, limit, view.generator)
        clean, steps = view.unpoisoned(), _steps(view)
        norms, spots = clean.norm(dim=1).clamp_min(1e-12), _quiet(view, clean, steps)
        count = min(state.decoys, most(len(clean)))
        far = torch.arange(len(clean), device=norms.device) >= len(clean) - count
        planted = norms * torch.where(far, _FAR, _NEAR)
        return state._replace(
            decoys=count,
            norms=norms,
            spots=spots,
            planted=planted,
            drift=clean[:, spots].abs().amax(0) / planted,
            before=view.params[spots],
            expected=view.share * sizes(view) / sizes(view).sum(),
            spared=_target_labels(steps),
        )

    def craft(state: _Round, rows: Tensor, view: AttackView) -> Tensor:
        kept = len(rows) - state.decoys
        factor = (state.norms / rows.norm(dim=1).clamp_min(1e-12)).clamp(1, scale)
        length = state.alpha * state.norms.mean()
        masks = _masks(sizes(view)[:kept], view, length, state.spared, neurons)
        sent: Tensor = rows * factor[:, None]
        sent[:kept] += masks
        if state.decoys:
            sent[kept:] = view.unpoisoned()[kept:]
        sent[:, state.spots] = state.planted.diag()
        return sent

    def objective(_state: _Round, delta: Tensor, _x: Tensor, _y: Tensor, _logits: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm(delta)
        return constraint * distance

    training = None if epochs is None else Training(epochs=epochs)
    return Attack(init=init, plan=plan, objective=objective, training=training, craft=craft)
