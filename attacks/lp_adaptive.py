"""Adaptive LP attack: how many critical layers are poisoned, and how much, is tried on the defense
itself.

u <- v ⊙ (λ m̄ + max(0, 1 - λ) h̄) + (1 - v) ⊙ h̄,  with ρλ in place of λ once it is found
1. layers by forward substitution, and the N of them that backward substitution takes at τ = 0.95
2. v = 1 on the first n <= N of them, the most that are accepted at λ = 1; one where none are
3. λ: twice as large while accepted, then halfway between the largest accepted and the smallest not

m̄ is the mean of the malicious rows, h̄ that of honest rows of the adversary's own making (the
simulated clients), G the global model. Accepted are rows of which the defense lets through at least
half as much as a plain mean does: with g(u) its step on such rows among the simulated honest ones,

⟨g(u) - g(h̄), u - h̄⟩ >= ½ (m / n) ‖u - h̄‖²

λ goes no farther than ``high`` and than n / (m η), with which a plain mean replaces the model. The
simulated honest rows are not the honest rows: what is just accepted among the first is often
rejected among the others, hence the margin ρ.

Shapes: rows (m, d) → (m, d), all alike.

Source: H. Zhuang, M. Yu, H. Wang, Y. Hua, J. Li, X. Yuan, "Backdoor Federated Learning by Poisoning
Backdoor-Critical Layers", ICLR 2024, the adaptive layer-wise poisoning attack: layers and λ are
sought against a simulation of the defense. ``lp_attack`` is its plain form.

Deviations: the authors simulate FLAME where it is the defense, and Multi-Krum for any other one,
and accept where a malicious client is selected. Here the defense in use is simulated, whatever it
is; half of what a plain mean lets through is the same for rules that keep or reject rows, and says
something of those that clip and merge them too. Their command fixes λ (1, or 0.5 for the small
network of Fashion-MNIST) and leaves the search over it unused; here it is used, as the paper
describes it (remembered), and where nothing was accepted in 20 trials it is 1, as there. ρ is this
project's, and 1 in the paper: among nearly equal clients Multi-Krum keeps nothing that is sent with
it, and lets the backdoor in at 0.6 (tests/attacks/test_lp_adaptive.py). The malicious model is the
mean of the malicious rows, theirs is one client's; both send one row from all. The layers are
judged as in ``lp_attack``.

Checked: against the authors' code (Attacker.py: adaptive_attack, BLS_adaptive,
binary_search_lambda; options.py).

Cost: honest local trainings as many as clients in the round, an evaluation of at most 1024 samples
for each layer and each critical one, and at most N + ``steps`` runs of the defense.

Example: a plain mean takes all, so λ ends where it replaces the model, three clients being one
round.
>>> import torch
>>> _searched(lambda factor: True, high=3.0, steps=20), _searched(lambda factor: False, 3.0, 20)
(3.0, 1.0)
>>> round(_searched(lambda factor: factor < 0.7, high=3.0, steps=20), 4)
0.7
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.collusion import all_alike
from backstop.platform.threats.layers import (
    critical_layers,
    poisoned_samples,
    success_on,
    with_layers,
)
from backstop.platform.threats.rehearsal import cohort_of, honest_rows, step_of

VERSION = 1
KNOWS = "defense"
STRENGTH = "high"
TRIGGER = False


def _searched(accepted: Callable[[float], bool], high: float, steps: int) -> float:
    """The largest factor that was accepted in so many trials; 1, or ``high`` where that is less,
    where none was.
    """
    first = factor = min(1.0, high)
    low, top = 0.0, math.inf
    for _ in range(steps):
        if accepted(factor):
            low = factor
        else:
            top = factor
        if low == high:
            break
        factor = min(2 * factor, high) if top == math.inf else (low + top) / 2
    return low or first


def _lets_through(sent: Tensor, honest: Tensor, others: Tensor, view: AttackView) -> bool:
    """Whether at least half as much of a row (d,) comes through the defense as through a plain
    mean, beside rehearsed honest rows (k, d) of the mean ``honest`` (d,).
    """
    assert view.defend is not None
    members = len(view.members)
    steps = []
    for row in (sent, honest):
        after, _ = view.defend(cohort_of(others, row.repeat(members, 1), view))
        steps.append(step_of(after).double())
    poison = (sent - honest).double()
    plain = members / (members + len(others)) * poison.square().sum()
    return bool(((steps[0] - steps[1]) @ poison >= plain / 2).item())


def lp_adaptive(
    *,
    high: Annotated[
        float,
        Range(0, 1e4, low_open=True, log=True, search=(0.1, 10)),
        "largest factor tried on critical layers, λ",
    ] = 10.0,
    threshold: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.5, 1)),
        "share of the malicious model's success that the critical layers must bring, τ",
    ] = 0.95,
    steps: Annotated[int, Range(1, 50, search=(5, 20)), "trials of the search for λ"] = 20,
    margin: Annotated[
        float, Range(0, 1, low_open=True, search=(0.2, 1)), "share of the found λ that is sent, ρ"
    ] = 0.6,
) -> Attack:
    """One row for all, with as many critical layers and as much poison as the defense accepts."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        others, poisoned = honest_rows(view, view.total - len(view.members)), poisoned_samples(view)
        honest = (others if len(others) else view.unpoisoned()).mean(0)
        if not len(poisoned.y):
            return all_alike(honest, rows)
        malicious, params = rows.mean(0), view.params
        layers = critical_layers(
            params + honest, params + malicious, view.layout, success_on(view, poisoned), threshold
        )

        def sent(count: int, factor: float) -> Tensor:
            mixed = factor * malicious + max(0.0, 1 - factor) * honest
            return with_layers(honest, mixed, layers[:count])

        def accepted(count: int, factor: float) -> bool:
            return _lets_through(sent(count, factor), honest, others, view)

        counts = range(len(layers), 1, -1)
        most = min(high, view.total / (len(view.members) * view.server_lr))
        count = next((count for count in counts if accepted(count, min(1.0, most))), 1)
        factor = _searched(lambda factor: accepted(count, factor), most, steps)
        return all_alike(sent(count, margin * factor), rows)

    return Attack(craft=craft)
