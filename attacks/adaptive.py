"""Adaptive: malicious clients try on the defense itself how far they can go, whatever defense it
is.

u_i <- h̄ + ργ (u_i - h̄)  (apart)   or   h̄ + ργ (ū - h̄)  (together)
γ and form = argmin |‖d‖ - η p(γ)|,   p(γ) = ⟨g(γ) - g(0), d⟩ / ‖d‖,   d = ū - h̄

with ū the mean of the malicious rows, h̄ that of what the same clients would have sent as honest
ones, trained on the same batches in the same order, and g(γ) the step that the defense makes of
such rows (ρ = 1) among honest ones of the adversary's own making. p is what the defense lets
through of the poison d. With η p = ‖d‖ the global model takes all of it, which is model
replacement; more is of no use.

Without a defense γ = n / (mη). Where rows are rejected p drops to zero and γ stays just below;
where they are clipped p levels off; medians and sign votes let through more the larger γ is. Rows
that are alike are nearer to each other and add up, but look like copies: which form is better is
the defense's affair, so both are tried. The rehearsed honest rows are not the honest rows: what is
just kept among the first is often rejected among the others. Hence the margin ρ, which costs little
where nothing is rejected.

γ is sought among 7 values from 0.1 to ``high``, equally far apart in log scale, then by halving the
intervals (in log scale) beside the best of them: where a defense keeps rows at some factors and not
at others in between, the scan still finds the best region.

Shapes: rows (m, d) → (m, d).

Source: of this project. That the factor is searched for against a known aggregator is the idea of
the tailored attacks in V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model
Poisoning Attacks and Defenses for Federated Learning", NDSS 2021.

Deviations: another common definition is the largest γ whose rows the defense keeps. Where it does
not keep or reject rows but rescales or outvotes them there is none, and without a defense it
destroys the model; what comes through is a measure for all defenses. The adversary runs the
defense with a fresh state: what a defense remembers of earlier rounds is not foreseen.

Checked: against rules whose best factor is known (none, norm clipping, Multi-Krum, medians), in
this project's tests.

Cost: honest local trainings as many as clients in the round, and 15 + 2 ``steps`` runs of the
defense.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view, updates
>>> view = attack_view(update=torch.zeros(1), defend=updates)  # no defense
>>> # one of three replaces the model
>>> adaptive(margin=1.0).craft(None, torch.tensor([[5.0]]), view).round()
tensor([[15.]])
"""

from __future__ import annotations

from math import inf, isfinite, sqrt
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView, Updates
from backstop.platform.params import Range
from backstop.platform.threats.rehearsal import honest_rows

VERSION = 2
KNOWS = "defense"
STRENGTH = "high"
TRIGGER = False

_LOW, _SCANNED = 0.1, 7


def _step(after: Updates) -> Tensor:
    """The weighted mean of what a defense leaves; zero where it leaves nothing."""
    left = after.weight > 0
    if not left.any():
        return after.rows.new_zeros(after.rows.shape[1])
    weight = after.weight[left].double()
    return robust.mix(weight[None] / weight.sum(), after.rows[left])[0]


def adaptive(
    *,
    high: Annotated[
        float,
        Range(1, 1e4, log=True, search=(1, 100)),
        "largest factor tried on what the poison adds, γ",
    ] = 100.0,
    margin: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.3, 1)),
        "share of the best factor that is sent, ρ",
    ] = 0.6,
    steps: Annotated[
        int,
        Range(0, 50, search=(0, 10)),
        "halvings of the intervals beside the best factor of the scan",
    ] = 5,
) -> Attack:
    """The malicious rows, pushed to where most comes through the defense, no more than all."""
    ratio = (high / _LOW) ** (1 / (_SCANNED - 1))
    scan = [_LOW * ratio**step for step in range(_SCANNED)]

    def craft(_state: None, rows: Tensor, view: AttackView) -> Tensor:
        assert view.defend is not None
        defend, others = view.defend, honest_rows(view, view.total - len(rows))
        honest = view.unpoisoned().mean(0)
        forms = [rows - honest, (rows.mean(0) - honest).expand_as(rows)]
        poison = forms[1][0].double()
        length = poison.square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny)

        def sent(form: int, factor: float) -> Tensor:
            return honest + factor * forms[form]

        def through(form: int, factor: float) -> Tensor:
            step = _step(defend(torch.cat([others, sent(form, factor)])))
            return (step.double() * poison).sum() / length

        without = through(0, 0.0)

        def missing(form: int, factor: float) -> float:
            gain = view.server_lr * (through(form, factor) - without)
            rest = (length - gain).abs().item()
            return rest if isfinite(rest) else inf

        least, factor, form = min(
            (missing(form, factor), factor, form) for form in (0, 1) for factor in scan
        )
        low, top = max(factor / ratio, _LOW), min(factor * ratio, high)
        for _ in range(steps):
            below, above = sqrt(low * factor), sqrt(factor * top)
            less, nearer = min((missing(form, below), below), (missing(form, above), above))
            if less >= least:
                low, top = below, above
            else:
                low, top = (low, factor) if nearer < factor else (factor, top)
                least, factor = less, nearer
        return sent(form, margin * factor).nan_to_num()

    return Attack(craft=craft)
