"""PoisonedFL: fake clients push every coordinate the same random way in all rounds, as far as the
global model moves, so that what they do does not cancel out from round to round.

u_t = c_t ‖g_t‖ · s ⊙ v_t / ‖v_t‖,   v_t = |g_t - u_{t-1} ‖g_t‖ / ‖u_{t-1}‖|,   g_t = w_t - w_{t-1}
c <- 0.7 c  every ``every`` rounds in which no more of the signs of w_t - w_{t-every} agree with s
            than at the 99 % quantile of chance, d/2 + 2.326 √d/2, as long as 0.7 c >= 0.5

s in {-1, 1}^d is drawn once, w_t is the global model, u_{t-1} what was sent last. v is large where
the global model moves otherwise than they push: what honest clients seem to do, whose size makes
the row look alike. Neither data nor honest rows are needed: the clients may be fakes.

Shapes: rows (m, d) → (m, d), all alike.

Source: Y. Xie, M. Fang, N. Z. Gong, "Model Poisoning Attacks to Federated Learning via Multi-Round
Consistency", CVPR 2025, the algorithm for PoisonedFL. It is untargeted.

As published: c = 8 at first, × 0.7 after each 50 rounds without success, no lower than 0.5; 240
fakes beside 1200 clients.

Deviations: in the first attacked round, when nothing is known of a step, they send zeros; the
authors send what stood in for a fake's update before, a zero row too. Where rounds are not
attacked, g is the whole way since the last attacked one. Coordinates that have not moved at all
count by their own sign in the authors' test, here as half agreeing. The quantile is the normal
approximation for any d; the authors list those of their four networks, which it gives to within
one. Rows are no larger than float32 holds.

Checked: against the authors' code (byzantine.py: poisonedfl; test_agr.py; scripts/): formula,
quantiles, c and its steps.

Known to fail: where whole rows are compared, Multi-Krum and FLAME among them, and where clients are
nearly equal; where they differ it breaks the median and the trimmed mean
(tests/attacks/test_poisonedfl.py). A row is c ‖g‖ long, so that a clip leaves little of it.

Example: of two coordinates the first has moved by itself.
>>> import torch
>>> _pushed(torch.tensor([1.0, -1.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0]), 8.0)
tensor([ 37.9473, -12.6491])
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.collusion import all_alike

VERSION = 1
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False
UNTARGETED = True
DATA_FREE = True

_SHRINK, _LEAST, _SURE = 0.7, 0.5, 0.99  # as published


class _State(NamedTuple):
    signs: Tensor  # (d,) s
    strength: float  # c
    since: int  # the round from which agreement is counted
    start: Tensor  # (d,) the global model in that round
    before: Tensor | None = None  # (d,) the global model in the last attacked round
    sent: Tensor | None = None  # (d,) what was sent then


def _pushed(signs: Tensor, step: Tensor, sent: Tensor, strength: float) -> Tensor:
    """What is sent (d,) after a global step (d,) and the row (d,) before it."""
    step, sent = step.double(), sent.double()
    length = step.norm()
    size = (step - length * normalize(sent, dim=0)).abs()
    pushed: Tensor = strength * length * signs * normalize(size, dim=0)
    return pushed.float()


def _agrees(signs: Tensor, moved: Tensor) -> bool:
    """Whether the model has gone the way of the signs, as chance makes it in one case of 100."""
    count = ((moved * signs).sign() + 1).sum().item() / 2
    size = len(signs)
    return count >= size / 2 + NormalDist().inv_cdf(_SURE) * sqrt(size) / 2


def poisonedfl(
    *,
    strength: Annotated[
        float,
        Range(0, 1e6, low_open=True, log=True, search=(0.5, 30)),
        "length of malicious rows in steps of the global model at first, c",
    ] = 8.0,
    every: Annotated[
        int,
        Range(1, 10**6, search=(5, 100)),
        "rounds between looks at whether the model went their way",
    ] = 50,
) -> Attack[_State]:
    """One direction in all rounds. The state is the direction, the factor and the last round."""

    def init(view: AttackView) -> _State:
        drawn = torch.randint(2, (len(view.params),), generator=view.generator)
        signs = (2 * drawn - 1).to(view.params)
        return _State(signs, strength, view.round, view.params)

    def plan(state: _State, view: AttackView) -> _State:
        if state.before is None:
            return state._replace(since=view.round, start=view.params)
        if view.round - state.since < every:
            return state
        factor = state.strength
        if not _agrees(state.signs, view.params - state.start) and _SHRINK * factor >= _LEAST:
            factor *= _SHRINK
        return state._replace(strength=factor, since=view.round, start=view.params)

    def craft(state: _State, rows: Tensor, view: AttackView) -> Tensor:
        if state.before is None or state.sent is None:
            return torch.zeros_like(rows)
        step = view.params - state.before
        return all_alike(_pushed(state.signs, step, state.sent, state.strength), rows)

    def remember(state: _State, rows: Tensor, view: AttackView) -> _State:
        return state._replace(before=view.params, sent=rows.mean(0))

    return Attack(init=init, plan=plan, craft=craft, remember=remember)
